"""Dialling: a peer at one of several addresses, each tried a moment after the one before.

Rule: one dial per peer at a time, bounded by `dial_seconds_max`; afterwards there is a live connection or `DialFailed`.

libp2p's own dial tries a single TCP address per peer and refuses a peer for 60 s after a failure.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from multiaddr import Multiaddr

from dimnode.limits import HostLimits
from dimnode.p2p.host.addresses import dial_text, ip_of, is_circuit, parse_dial, with_peer
from dimnode.p2p.host.paths import rank, relayed
from dimnode.p2p.host.streams import DialFailed
from dimnode.p2p.host.yamux import Refusal, all_welcome

DialCircuit = Callable[[Multiaddr, ID], Awaitable[None]]


class Dialler:
    """Makes connections and knows the live ones."""

    def __init__(self, core: Any, limits: HostLimits, refusal: Refusal = all_welcome) -> None:
        self._core = core
        self._swarm = core.get_network()
        self._limits = limits
        self._refusal = refusal
        self.dial_circuit: DialCircuit | None = None
        self._dialling: dict[ID, trio.Event] = {}
        self._proven: OrderedDict[ID, Multiaddr] = OrderedDict()  # where a dial succeeded last

    def live(self, peer: ID) -> list[Any]:
        """Return the connections to `peer` on which streams can be opened, the best path first."""
        found = [
            connection
            for connection in self._swarm.connections.get(peer, ())
            if not connection.is_closed and connection.muxed_conn.is_established
        ]
        return found if len(found) < 2 else sorted(found, key=lambda connection: rank(connection.muxed_conn))

    def direct(self, peer: ID) -> list[Any]:
        """Return the live connections to `peer` that need no relay."""
        return [connection for connection in self.live(peer) if not relayed(connection.muxed_conn)]

    def peers(self) -> list[ID]:
        """Return the peers with a live connection that needs no relay."""
        return [peer for peer in list(self._swarm.connections) if self.direct(peer)]

    def proven(self, peer: ID) -> list[str]:
        """Return the direct address at which we reached `peer` last, if there is one."""
        found = self._proven.get(peer)
        return [] if found is None or is_circuit(found) else [with_peer(found, peer)]

    def known_addresses(self, peer: ID) -> list[str]:
        """Return what the peer store has and can be dialled, as text."""
        try:
            found = self._core.get_peerstore().addrs(peer)
        except Exception:  # noqa: BLE001 boundary: libp2p's way to say unknown or expired
            return []
        texts = (dial_text(address, peer) for address in found[: self._limits.addresses_per_peer_max])
        return [text for text in texts if text is not None]

    async def connect(self, peer: ID, texts: Sequence[str]) -> None:
        """Connect to `peer` at one of `texts` unless connected. Raises `DialFailed`; a cancel leaves no connection."""
        if peer == self._core.get_id():
            raise DialFailed("that is this node itself")
        while (running := self._dialling.get(peer)) is not None:
            await running.wait()
        if self.live(peer):
            return
        targets = self._targets(peer, texts)
        done = self._dialling[peer] = trio.Event()
        try:
            with trio.fail_after(self._limits.dial_seconds_max):
                address = await self._dial_first(peer, targets)
        except trio.TooSlowError:
            raise DialFailed(f"no answer within {self._limits.dial_seconds_max:g} s") from None
        finally:
            del self._dialling[peer]
            done.set()
        self._swarm._negative_peer_cache.evict(str(peer))
        self._core.get_peerstore().add_addrs(peer, [address], self._limits.address_ttl_seconds)
        self._proven[peer] = address
        self._proven.move_to_end(peer)
        if len(self._proven) > self._limits.known_peers_max:
            self._proven.popitem(last=False)

    def refusal(self, peer: ID, address: Multiaddr) -> str:
        """Why `peer` may not be dialled at `address`, for a person; "" when it may."""
        return self._refusal(peer.to_bytes(), ip_of(address))

    def _targets(self, peer: ID, texts: Sequence[str]) -> list[Multiaddr]:
        targets = []
        reason = "no address"
        for text in texts[: self._limits.addresses_per_peer_max]:
            try:
                named, address = parse_dial(text)
            except DialFailed as error:
                reason = error.reason
                continue
            if named == peer and not (reason := self.refusal(peer, address)):
                targets.append(address)
            elif named != peer:
                reason = f"the address is another peer's: {text}"
        if not targets:
            raise DialFailed(reason)
        return sorted(targets, key=is_circuit)  # relays are asked when the direct ways do not answer at once

    async def _dial_first(self, peer: ID, targets: Sequence[Multiaddr]) -> Multiaddr:
        """Start a dial every 0.3 s, or as soon as one failed; keep the first connection and cancel the rest."""
        reasons: list[str] = []
        winners: list[Multiaddr] = []

        async def attempt(address: Multiaddr, failed: trio.Event, scope: trio.CancelScope) -> None:
            try:
                if is_circuit(address) and self.dial_circuit is not None:
                    await self.dial_circuit(address, peer)
                else:
                    await self._swarm.dial_addr(address, peer)
            except (SwarmException, OSError, ValueError, DialFailed) as error:
                reasons.append(deepest_reason(error))
                failed.set()
            else:
                winners.append(address)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in targets:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed, nursery.cancel_scope)
                with trio.move_on_after(self._limits.dial_stagger_seconds):
                    await failed.wait()
        if not winners:
            raise DialFailed("; ".join(dict.fromkeys(reasons)))
        return winners[0]


def deepest_reason(error: BaseException) -> str:
    """Return the message at the root of a chain of wrapped errors: there the kernel or the peer speaks."""
    while True:
        cause: BaseException | None = error.__cause__
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(error, PeerIDMismatchesPubkey):
            return "another peer answers there than the one that the address names"
        if cause is None:
            return str(error) or type(error).__name__
        error = cause
