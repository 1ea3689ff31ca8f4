"""Can others dial this node, and when they cannot, how do they reach it?

A node asks a few peers to dial it back (`/dim/dialback/1`) and looks at its own listening socket: who was really let in
by the operating system counts, what the peers answer does not. Nobody came although peers tried: the node is hidden
behind a NAT box or a firewall. Then it keeps a place at up to two relays among its neighbours, and says so in its
advert. A node that can be dialled may relay for others.

Rule: the state is `unknown` until there is evidence. Peers on this machine are no evidence; peers in the same network
are evidence only as long as no peer from the internet is connected.
"""

import ipaddress
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, Limits
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.p2p.host.visitors import own_ips, plain_ip
from dimnode.p2p.introduction import one_frame
from dimnode.p2p.ticks import next_tick
from dimnode.records.ids import PeerId
from dimnode.wire import END, pack_frame, unpack_body

log = logging.getLogger(__name__)

DIALBACK: Final = "/dim/dialback/1"

State = Literal["unknown", "dialable", "hidden"]
RelayChoice = Literal["auto", "on", "off"]
_GREETING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reachability:
    """What is known, for `dim doctor`, `dim status` and the advert. `because` is one clause for a person."""

    state: State = "unknown"
    because: str = "nobody outside this machine is connected yet"
    relays: tuple[PeerId, ...] = ()
    relaying: bool = False
    relayed_circuits: int = 0
    relayed_bytes: int = 0


class Reach:
    """Keeps one node reachable. `serve_dialback` is a stream handler, `run` a task."""

    def __init__(
        self,
        relay: RelayChoice,
        on_change: Callable[[], None],
        rng: random.Random,
        limits: Limits = LIMITS,
        relays: Sequence[str] = (),
    ) -> None:
        self._relays = tuple(relays)
        self._relay = relay
        self._on_change = on_change
        self._rng = rng
        self._limits = limits.reach
        self._host: Host | None = None
        self._state: State = "unknown"
        self._because = Reachability().because
        self._scope = ""
        self._check_at = 0.0
        self._patience_seconds = self._limits.check_seconds_min
        self._announced: frozenset[str] = frozenset()
        self._tried: dict[bytes, float] = {}
        self._dialling_back = 0
        self._askers: OrderedDict[bytes, float] = OrderedDict()

    def reachability(self) -> Reachability:
        """The state now."""
        if self._host is None:
            return Reachability()
        use = self._host.reach.relay.use()
        relays = tuple(PeerId(place.relay) for place in self._host.reach.places())
        return Reachability(self._state, self._because, relays, use.willing, use.circuits, use.bytes_copied)

    async def run(self, host: Host) -> None:
        """Look once a second; ask when there is reason to."""
        self._host = host
        host.reach.relay_when(lambda: self._relay == "on" or (self._relay == "auto" and self._state == "dialable"))
        while True:
            try:
                await self._look(host)
            except OSError as error:  # no file is left to ask the system with: strangers' connections may have them all
                log.debug("reachability was not looked at: %r", error)
            await next_tick(self._limits.look_seconds)

    async def _look(self, host: Host) -> None:
        servers, scope = self._servers(host)
        if servers and (scope != self._scope or trio.current_time() >= self._check_at):
            await self._check(host, servers, scope)
        if self._state == "hidden" or (self._relays and self._state == "unknown"):
            await self._keep_places(host)
        else:
            for place in host.reach.places():
                host.reach.release(place.relay)
        announced = frozenset(address for place in host.reach.places() for address in place.addresses)
        if announced != self._announced:
            self._announced = announced
            log.info("reachable through %d relays", len(host.reach.places()))
            self._on_change()

    # Evidence

    def _servers(self, host: Host) -> tuple[dict[bytes, str], str]:
        """Peers whose dial would prove something, with their IP addresses, and how far away they are."""
        ips = {peer: plain_ip(host.remote_ip(peer)) for peer in host.connected()}
        found = {peer: ip for peer, ip in ips.items() if ip and not ipaddress.ip_address(ip).is_loopback}
        if found:  # asking the system for our own costs a quarter of a millisecond
            mine = own_ips()
            found = {peer: ip for peer, ip in found.items() if ip not in mine}
        far = {peer: ip for peer, ip in found.items() if ipaddress.ip_address(ip).is_global}
        return (far, "internet") if far else (found, "this network" if found else "")

    async def _check(self, host: Host, servers: dict[bytes, str], scope: str) -> None:
        since = time.monotonic() - self._limits.check_seconds_max
        state, because = self._state, self._because
        if self._came(host, since, scope):
            state, because = "dialable", f"a peer from {scope} reached our port"
        else:
            asked_at = time.monotonic()
            tried = await self._ask(host, servers)
            if self._came(host, asked_at, scope):
                state, because = "dialable", f"a peer from {scope} reached our port"
            elif tried:
                words = f"{tried} peers from {scope} tried" if tried > 1 else f"a peer from {scope} tried"
                state, because = "hidden", f"{words} and did not reach our port"
            elif state == "unknown":
                because = "no connected peer was ready to dial back"
        changed = state != self._state or scope != self._scope
        if changed:
            log.info("reachability: %s, because %s", state, because)
        patience = self._limits.check_seconds_min if changed else self._patience_seconds * 2
        self._patience_seconds = min(patience, self._limits.check_seconds_max)
        self._check_at = trio.current_time() + self._patience_seconds * (0.75 + self._rng.random() / 2)
        self._state, self._because, self._scope = state, because, scope

    def _came(self, host: Host, since: float, scope: str) -> bool:
        mine = own_ips()
        visitors = [ipaddress.ip_address(ip) for ip in host.reach.visitors.since(since) if ip not in mine]
        return any(ip.is_global if scope == "internet" else not ip.is_loopback for ip in visitors)

    async def _ask(self, host: Host, servers: dict[bytes, str]) -> int:
        """Ask some of them at once to dial us; how many tried. When nobody can be asked, nothing is concluded."""
        chosen = self._rng.sample(sorted(servers), min(len(servers), self._limits.dialback_servers_max))
        tried = 0

        async def ask(peer: bytes) -> None:
            nonlocal tried
            try:
                tried += await self._ask_one(host, peer)
            except (DialFailed, StreamLost, StreamEnded, PeerFault, trio.TooSlowError) as error:
                log.debug("no dial-back: %r", error)

        async with trio.open_nursery() as nursery:
            for peer in chosen:
                nursery.start_soon(ask, peer)
        return tried

    async def _ask_one(self, host: Host, peer: bytes) -> bool:
        ports = host.reach.ports()[: self._limits.dialback_ports_max]
        if not ports:
            return False
        with trio.fail_after(self._limits.dialback_wait_seconds * len(ports) + _GREETING_SECONDS + 2):
            stream = await host.open_stream(peer, DIALBACK)
            try:
                await stream.write(pack_frame(ports) + END)
                return unpack_body(await one_frame(stream)) is True
            finally:
                await stream.reset()

    async def serve_dialback(self, stream: Stream) -> None:
        """Dial the asker, at the address that we see it at and nowhere else; say whether we tried. `PeerFault`."""
        with trio.fail_after(LIMITS.host.negotiate_seconds_max):
            asked = unpack_body(await one_frame(stream))
        if type(asked) is not list or not asked or any(type(port) is not int or not 0 < port < 65536 for port in asked):
            raise PeerFault("dialback: ports")
        ip = self._host.remote_ip(stream.peer) if self._host is not None else ""
        tried = bool(ip) and self._may_dial_back(stream.peer)
        if tried:
            self._dialling_back += 1
            try:
                for port in asked[: self._limits.dialback_ports_max]:
                    await touch(ip, port, self._limits.dialback_wait_seconds)
            finally:
                self._dialling_back -= 1
        await stream.write(pack_frame(tried) + END)

    def _may_dial_back(self, asker: bytes) -> bool:
        now = trio.current_time()
        before = self._askers.get(asker, -self._limits.dialback_seconds_min)
        if (
            self._dialling_back >= self._limits.dialbacks_at_once_max
            or now - before < self._limits.dialback_seconds_min
        ):
            return False
        self._askers[asker] = now
        self._askers.move_to_end(asker)
        if len(self._askers) > self._limits.dialback_askers_remembered_max:
            self._askers.popitem(last=False)
        return True

    # Relays

    async def _keep_places(self, host: Host) -> None:
        """Two relays among the peers that we dialled; when half of a place's time is over it is renewed."""
        now = trio.current_time()
        places = {place.relay: place for place in host.reach.places()}
        for relay, place in places.items():
            asked_at = self._tried.get(relay, -inf)
            if now > (place.began + place.until) / 2 and now - asked_at >= self._limits.check_seconds_min:
                await self._reserve(host, relay)
        missing = self._limits.relays_used_max - len(places)
        for address in self._relays if missing > 0 else ():
            missing -= await self._reserve_at(host, address, set(places))
        for peer in self._relay_candidates(host, set(places)) if self._state == "hidden" else ():
            if missing <= 0:
                break
            missing -= await self._reserve(host, peer)

    async def _reserve_at(self, host: Host, address: str, taken: set[bytes]) -> bool:
        """At a relay that the operator named. It may be no node of ours, but any relay of libp2p."""
        for peer in host.hint([address]):
            if peer in taken or self._tried.get(peer, -inf) > trio.current_time() - self._limits.check_seconds_min:
                return False
            self._tried[peer] = trio.current_time()
            host.reach.keep(peer)
            try:
                await host.connect(address)
            except DialFailed as error:
                log.info("a relay cannot be reached: %s", error.reason)
                return False
            return await self._reserve(host, peer)
        return False

    def _relay_candidates(self, host: Host, taken: set[bytes]) -> list[bytes]:
        now = trio.current_time()
        self._tried = {peer: at for peer, at in self._tried.items() if now - at < self._limits.relay_retry_seconds}
        found = [
            peer
            for peer in host.connected()
            if peer not in taken and peer not in self._tried and host.path_of(peer) == "direct"
        ]
        self._rng.shuffle(found)
        return found[: self._limits.relay_candidates_max]

    async def _reserve(self, host: Host, relay: bytes) -> bool:
        self._tried[relay] = trio.current_time()
        try:
            await host.reach.reserve(relay)
        except DialFailed as error:
            log.debug("no place at a relay: %s", error.reason)
            return False
        return True


async def touch(ip: str, port: int, wait_seconds: float) -> None:
    """Open a TCP connection, wait a moment for the other side to have seen it, and close it. Never raises."""
    with trio.move_on_after(wait_seconds):
        try:
            stream = await trio.open_tcp_stream(ip, port)
        except OSError as error:
            log.debug("dial-back to port %d: %r", port, error)
            return
        async with stream:
            with trio.move_on_after(_GREETING_SECONDS), suppress(trio.BrokenResourceError):  # refused, so it was seen
                await stream.receive_some(1)
