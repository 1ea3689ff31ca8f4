"""Relaying for others: circuit relay v2, the side in the middle.

A peer that cannot be dialled reserves a place here and keeps its connection to us open; whoever wants it asks us, and
we copy bytes between the two. Their own Noise session runs inside: a relay sees who talks to whom, when and how much,
never what.

Rule: everything is bounded by `limits.reach`: reservations, circuits at all and per peer, bytes and seconds of a
circuit. A reservation ends with the connection of the one who made it, and only a peer itself can reserve for itself.

Stock libp2p 0.8.1 is not used for this (docs/patches.md): there a peer may reserve in another's name, the end of one
circuit closes another one of the same peer, and an idle circuit outlives its deadline.

Source: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, Reservation, Status, StopMessage
from multiaddr import Multiaddr

from dimnode.limits import Limits
from dimnode.p2p.host.addresses import CIRCUIT, is_circuit
from dimnode.p2p.host.circuit_messages import (
    HOP,
    STOP,
    hop_status,
    read_message,
    stop_connect,
    write_message,
)
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.paths import relayed
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost

log = logging.getLogger(__name__)

__all__ = ["HOP", "Relay", "RelayUse"]


@dataclass(frozen=True, slots=True)
class RelayUse:
    """How much we relay, for `dim doctor` and metrics."""

    willing: bool
    reservations: int
    circuits: int
    bytes_copied: int


@dataclass(slots=True)
class Budget:
    """The bytes that a circuit may still carry, both directions together."""

    left: int


class Relay:
    """The hop side of one host. `willing` says whether we relay at this moment."""

    def __init__(self, core: Any, dialler: Dialler, limits: Limits) -> None:
        self.willing: Callable[[], bool] = lambda: False
        self._core = core
        self._dialler = dialler
        self._limits = limits.reach
        self._negotiate_seconds_max = limits.host.negotiate_seconds_max
        self._reservations: dict[ID, float] = {}
        self._circuits: Counter[ID] = Counter()
        self._open = 0
        self._bytes_copied = 0
        duration, size = self._limits.relay_circuit_seconds_max, self._limits.relay_circuit_bytes_max
        self._terms: Final = Limit(duration=duration, data=size)

    def use(self) -> RelayUse:
        """A look at the books."""
        self._forget_gone()
        return RelayUse(self.willing(), len(self._reservations), self._open, self._bytes_copied)

    async def serve(self, stream: Stream) -> None:
        """A hop stream: one reservation, or one circuit for as long as it lasts. Raises `PeerFault`, `StreamLost`."""
        with trio.fail_after(self._negotiate_seconds_max):
            asked = await read_message(stream, HopMessage)
        source = ID(stream.peer)
        if asked.type == HopMessage.RESERVE:
            await write_message(stream, self._reserve(source, stream))
        elif asked.type == HopMessage.CONNECT:
            await self._connect(source, stream, asked.peer.id)
        else:
            await write_message(stream, hop_status(Status.UNEXPECTED_MESSAGE))

    def _reserve(self, source: ID, stream: Stream) -> HopMessage:
        if relayed(stream.connection) or not self.willing():
            return hop_status(Status.PERMISSION_DENIED)
        self._forget_gone()
        if source not in self._reservations and len(self._reservations) >= self._limits.relay_reservations_max:
            return hop_status(Status.RESERVATION_REFUSED)
        seconds = self._limits.relay_reservation_seconds
        self._reservations[source] = trio.current_time() + seconds
        ways = [address for address in self._core.get_addrs() if not is_circuit(address)]
        ways = ways[: self._limits.relay_addresses_max]
        # So that we can tell in the DHT where the peer is found: it cannot be asked by those who look for it.
        self._core.get_peerstore().add_addrs(source, [Multiaddr(f"{way}{CIRCUIT}") for way in ways], seconds)
        place = Reservation(expire=int(time.time()) + seconds, addrs=[way.to_bytes() for way in ways])
        return hop_status(Status.OK, place, self._terms)

    def _forget_gone(self) -> None:
        now = trio.current_time()
        for peer, until in list(self._reservations.items()):
            if until < now or not self._dialler.direct(peer):
                del self._reservations[peer]

    async def _connect(self, source: ID, stream: Stream, target_bytes: bytes) -> None:
        target = ID(target_bytes)
        refusal = self._refusal(source, stream, target)
        if refusal is not None:
            await write_message(stream, hop_status(refusal))
            return
        self._open += 1
        self._circuits[source] += 1
        self._circuits[target] += 1
        try:
            visited = await self._visit(source, target)
            if visited is None:
                await write_message(stream, hop_status(Status.CONNECTION_FAILED))
                return
            try:
                await write_message(stream, hop_status(Status.OK, limit=self._terms))
                await self._carry(stream, visited)
            finally:
                await visited.reset()
        finally:
            self._open -= 1
            for peer in (source, target):
                self._circuits[peer] -= 1
                if self._circuits[peer] <= 0:
                    del self._circuits[peer]

    def _refusal(self, source: ID, stream: Stream, target: ID) -> Any:
        self._forget_gone()
        if relayed(stream.connection) or not self.willing():
            return Status.PERMISSION_DENIED
        if target not in self._reservations or target == source:
            return Status.NO_RESERVATION
        most = self._limits.relay_circuits_per_peer_max
        full = self._open >= self._limits.relay_circuits_max
        if full or self._circuits[source] >= most or self._circuits[target] >= most:
            return Status.RESOURCE_LIMIT_EXCEEDED
        return None

    async def _visit(self, source: ID, target: ID) -> Stream | None:
        """Ask the target whether it takes the circuit; its stream, or None."""
        connections = self._dialler.direct(target)
        if not connections:
            return None
        stream: Stream | None = None
        accepted = False
        try:
            with trio.fail_after(self._negotiate_seconds_max):
                muxed = await open_negotiated(connections[0].muxed_conn, STOP, lazy=False)
                stream = Stream(muxed, target.to_bytes(), STOP)
                await write_message(stream, stop_connect(source.to_bytes(), self._terms))
                accepted = (await read_message(stream, StopMessage)).status == Status.OK
        except Exception as error:  # noqa: BLE001 boundary: whatever a target does, the asker is told that it failed
            log.debug("a peer was not visited: %r", error)
        finally:
            if stream is not None and not accepted:
                await stream.reset()
        return stream if accepted else None

    async def _carry(self, one: Stream, other: Stream) -> None:
        """Copy both ways until both sides are finished, one is lost, or time or bytes are used up."""
        budget = Budget(self._limits.relay_circuit_bytes_max)
        with trio.move_on_after(self._limits.relay_circuit_seconds_max):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, one, other, budget, nursery.cancel_scope)
                nursery.start_soon(self._copy, other, one, budget, nursery.cancel_scope)
        await one.reset()

    async def _copy(self, source: Stream, target: Stream, budget: Budget, both: trio.CancelScope) -> None:
        try:
            while True:
                chunk = await source.read(self._limits.relay_copy_bytes)
                budget.left -= len(chunk)
                if budget.left < 0:
                    log.info("a circuit has used up its bytes")
                    both.cancel()
                    return
                self._bytes_copied += len(chunk)
                await target.write(chunk)
        except StreamEnded:
            await target.close()
        except StreamLost:
            both.cancel()
