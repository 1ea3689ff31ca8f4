"""All that makes a host reachable when it cannot simply be dialled: relay, circuits, hole punching, visitors.

Rule: nothing here happens by itself. Whether to relay, and where to reserve, is decided above (`p2p/reach.py`).
"""

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import trio
from libp2p.peer.id import ID

from dimnode.limits import Limits
from dimnode.p2p.host.addresses import is_circuit
from dimnode.p2p.host.circuit_messages import DCUTR, HOP, STOP, host_and_port
from dimnode.p2p.host.circuits import Circuits, Place, circuit_text
from dimnode.p2p.host.core import ConnectionWatch, adapt
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.gossip import Gossip
from dimnode.p2p.host.punching import Punching
from dimnode.p2p.host.relay import Relay
from dimnode.p2p.host.streams import DialFailed
from dimnode.p2p.host.visitors import Visitors

log = logging.getLogger(__name__)


class Reaching:
    """Put into a libp2p host before it runs; `start` gives it a nursery for its tasks."""

    def __init__(self, core: Any, dialler: Dialler, gossip: Gossip, watch: ConnectionWatch, limits: Limits) -> None:
        self.relay = Relay(core, dialler, limits)
        self.circuits = Circuits(core, dialler, limits)
        self.punching = Punching(core, dialler, limits)
        self.visitors = Visitors(limits.reach.visitors_remembered_max)
        self._core = core
        self._dialler = dialler
        self._gossip = gossip
        self._limits = limits.reach
        self._kept: set[ID] = set()  # as many as the operator named
        self.circuits.on_visit = self.punching.visited
        watch.on_thinned = self._renew_gossip
        self.visitors.watch(core.get_network())
        announce_circuits(core, self.circuits, limits.host.own_addresses_kept_seconds)
        for protocol, handler in ((HOP, self.relay.serve), (STOP, self.circuits.serve), (DCUTR, self.punching.serve)):
            core.set_stream_handler(protocol, adapt(protocol, handler))

    def start(self, nursery: trio.Nursery) -> None:
        """From now on visits are taken and connections upgraded, by tasks in `nursery`."""
        self.circuits.nursery = nursery

    # What is decided above

    def relay_when(self, willing: Callable[[], bool]) -> None:
        """Relay for others whenever `willing()`."""
        self.relay.willing = willing

    async def reserve(self, relay: bytes) -> Place:
        """Reserve a place at a connected relay, or renew it. Raises `DialFailed`; `ProtocolRefused` from no relay."""
        return await self.circuits.reserve(ID(relay))

    def release(self, relay: bytes) -> None:
        """Count no longer on the place at `relay`."""
        self.circuits.release(ID(relay))

    def places(self) -> list[Place]:
        """Our places at relays that are still connected."""
        self.circuits.forget_gone()
        return list(self.circuits.places.values())

    def keep(self, relay: bytes) -> None:
        """The connection to this peer is of use even when the peer speaks none of our own protocols."""
        self._kept.add(ID(relay))

    def needed(self, peer: bytes) -> bool:
        """Whether our places or live circuits depend on the connection to `peer`."""
        relay = ID(peer)
        return relay in self._kept or relay in self.circuits.places or relay in self.circuits.crossed()

    def ports(self) -> list[int]:
        """The TCP ports under which we say that we can be dialled."""
        found: dict[int, None] = {}
        for address in self._core.get_addrs():
            if not is_circuit(address):
                found[host_and_port(address)[1]] = None
        return list(found)

    # Dialling

    async def connect(self, peer: ID, addresses: list[str]) -> None:
        """Dial; when no address answers, ask the relays that we are connected to. Raises `DialFailed`."""
        try:
            await self._dialler.connect(peer, addresses)
        except DialFailed as failed:
            if not await self._connect_through_neighbours(peer):
                raise failed from None

    async def _connect_through_neighbours(self, peer: ID) -> bool:
        """A peer that nobody can dial may have a place at one of our own neighbours: asking costs one round trip."""
        ways = [way for relay in self._relays_known() if relay != peer for way in self._dialler.proven(relay)[:1]]
        for way in ways[: self._limits.relays_guessed_max]:
            try:
                await self._dialler.connect(peer, [circuit_text(way, peer)])
            except DialFailed as error:
                log.debug("not through this neighbour: %s", error.reason)
            else:
                return True
        return False

    def _relays_known(self) -> list[ID]:
        """Where we have a place ourselves comes first; then the other peers that we dialled."""
        others = [peer for peer in self._dialler.peers() if peer not in self.circuits.places]
        return [*self.circuits.places, *others]

    def _renew_gossip(self, peer: ID) -> None:
        """A connection of `peer` ended and another one stands: gossip moves there, before a write finds it out."""
        pubsub = self._gossip.pubsub
        stream = pubsub.peers.get(peer)
        if stream is not None and stream.muxed_conn.is_closed:
            pubsub._handle_dead_peer(peer)  # as the peer is connected, this opens a new stream to it


def announce_circuits(core: Any, circuits: Circuits, kept_seconds: float) -> None:
    """Let `core.get_addrs()` name our places at relays: stock cuts such an address down to the relay's own.

    Each message of gossip, identify and the DHT asks for it, and stock parses every address anew each time. So the
    answer is kept as long as listeners and places are the same, and a moment at most: interfaces come and go.
    """
    plain: Callable[[], list[Any]] = core.get_addrs
    listeners: dict[str, Any] = core.get_network().listeners
    kept: list[Any] = []
    kept_for: tuple[Any, ...] = ()
    until = -inf

    def with_circuits() -> list[Any]:
        nonlocal kept, kept_for, until
        places, now = tuple(circuits.addresses()), trio.current_time()
        ways = (tuple(listeners), places)
        if now >= until or ways != kept_for:
            me = core.get_id().to_base58()
            kept = plain() + [address.encapsulate(f"/p2p/{me}") for address in places]
            kept_for, until = ways, now + kept_seconds
        return list(kept)

    core.get_addrs = with_circuits
