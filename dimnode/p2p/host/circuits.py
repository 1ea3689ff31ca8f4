"""Being relayed: reserving a place at a relay, dialling through one, and being visited through one.

Rule: what a circuit carries is an ordinary connection with its own Noise handshake end to end, so its peer is proven as
on any other; who the relay says is calling is only compared with that proof.

Source: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md
"""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import trio
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.limits import Limits
from dimnode.p2p.host.addresses import CIRCUIT, is_circuit, split_circuit, with_peer
from dimnode.p2p.host.circuit_messages import (
    HOP,
    REASONS,
    hop_connect,
    read_addresses,
    read_message,
    stop_status,
    write_message,
)
from dimnode.p2p.host.dialling import Dialler, deepest_reason
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.paths import carrier_of, relayed
from dimnode.p2p.host.pnet import with_each_key
from dimnode.p2p.host.streams import DialFailed, ProtocolRefused, Stream, StreamEnded, StreamLost
from dimnode.p2p.host.upgrading import upgrade_as_dialled, upgrade_as_dialler
from dimnode.p2p.host.yamux_stream import ProtocolRefused as MuxedProtocolRefused

log = logging.getLogger(__name__)

OnVisit = Callable[[ID, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Place:
    """A reservation: at which relay, from and until when (trio's seconds: clocks of the day are set, and differ), and
    the addresses at which we are found through it."""

    relay: bytes
    began: float
    until: float
    addresses: tuple[str, ...]


class CircuitEnd:
    """Our end of a circuit, as what libp2p reads and writes below a Noise handshake."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes, none at the end. Raises `ConnectionClosedError`."""
        try:
            return await self.stream.read(n or 65536)
        except StreamEnded:
            return b""
        except StreamLost as error:
            raise ConnectionClosedError(str(error)) from None

    async def write(self, data: bytes) -> None:
        """All of it. Raises `ConnectionClosedError`."""
        try:
            await self.stream.write(data)
        except StreamLost as error:
            raise ConnectionClosedError(str(error)) from None

    async def close(self) -> None:
        """Give the circuit up; what was written before is on its way."""
        await self.stream.close()
        await self.stream.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        """A circuit has none."""
        return None


def circuit_connection(stream: Stream, relay: ID, peer: ID, initiator: bool) -> RawConnection:
    """The carrier of a relayed connection."""
    way = Multiaddr(f"/p2p/{relay.to_base58()}{CIRCUIT}/p2p/{peer.to_base58()}")
    end: Any = CircuitEnd(stream)
    return RawConnection(end, initiator, ConnectionType.RELAYED, [way])


class Circuits:
    """Reservations and relayed connections of one host. `on_visit` is a task that starts with each visit."""

    def __init__(self, core: Any, dialler: Dialler, limits: Limits) -> None:
        self.on_visit: OnVisit | None = None
        self.nursery: trio.Nursery | None = None
        self.places: dict[ID, Place] = {}
        self._core = core
        self._swarm = core.get_network()
        self._dialler = dialler
        self._limits = limits.reach
        self._negotiate_seconds_max = limits.host.negotiate_seconds_max
        self._visits = 0
        self._crossing: Counter[ID] = Counter()  # relays through which we are dialling
        dialler.dial_circuit = self.dial

    def addresses(self) -> list[Multiaddr]:
        """Where others find us through relays, without our own peer id."""
        self.forget_gone()
        return [Multiaddr(text) for place in self.places.values() for text in place.addresses]

    def forget_gone(self) -> None:
        """Strike out places whose time is up or whose relay is gone."""
        now = trio.current_time()
        for relay, place in list(self.places.items()):
            if place.until < now or not self._dialler.direct(relay):
                del self.places[relay]

    def crossed(self) -> set[ID]:
        """The relays that carry our live relayed connections, or are about to."""
        muxed = [connection.muxed_conn for group in self._swarm.connections.values() for connection in group]
        return {below(each).peer_id for each in muxed if relayed(each)} | set(self._crossing)

    def release(self, relay: ID) -> None:
        """Count no longer on this place; the relay forgets it in its own time."""
        self.places.pop(relay, None)

    async def reserve(self, relay: ID) -> Place:
        """Reserve, or renew. Raises `DialFailed`; `ProtocolRefused` when the peer is no relay."""
        proven = self._dialler.proven(relay)
        if not proven:
            raise DialFailed("E-net-07: the relay was not dialled by us, so others cannot be told how to dial it")
        stream = await self._open_hop(relay)
        try:
            with trio.fail_after(self._negotiate_seconds_max):
                await write_message(stream, HopMessage(type=HopMessage.RESERVE))
                answer = await read_message(stream, HopMessage)
        except (PeerFault, StreamLost, trio.TooSlowError) as error:
            raise DialFailed(f"no answer about a reservation: {error}") from None
        finally:
            await stream.reset()
        if answer.status != Status.OK:
            raise DialFailed(REASONS.get(answer.status, f"the relay answers {answer.status}"))
        most = self._limits.relay_addresses_max
        said = [with_peer(address, relay) for address in read_addresses(answer.reservation.addrs, most)]
        ways = dict.fromkeys([*proven, *said])
        began = trio.current_time()
        until = began + self._seconds_until(answer.reservation.expire)
        place = Place(relay.to_bytes(), began, until, tuple(f"{way}{CIRCUIT}" for way in list(ways)[:most]))
        self.places[relay] = place
        return place

    def _seconds_until(self, expire: int) -> float:
        """How long a place lasts that ends then by the relay's clock; one that is far off ends no place at once."""
        limits = self._limits
        said = expire - time.time() if expire else inf
        return float(max(limits.relay_reservation_seconds_min, min(said, limits.relay_reservation_seconds)))

    async def _open_hop(self, relay: ID) -> Stream:
        connections = self._dialler.direct(relay)
        if not connections:
            raise DialFailed("no direct connection to the relay")
        try:
            with trio.fail_after(self._negotiate_seconds_max):
                muxed = await open_negotiated(connections[0].muxed_conn, HOP, lazy=False)
        except MuxedProtocolRefused:
            raise ProtocolRefused("E-net-08: the peer is no relay") from None
        except (MuxedConnError, MuxedStreamError, trio.TooSlowError) as error:
            raise DialFailed(f"the relay does not answer: {error}") from None
        return Stream(muxed, relay.to_bytes(), HOP)

    async def dial(self, address: Multiaddr, peer: ID) -> None:
        """Connect to `peer` through the relay that `address` names. Raises `DialFailed`; a cancel leaves nothing."""
        relay, way = split_circuit(address)
        if relay in (peer, self._core.get_id()):
            raise DialFailed("a relay cannot be one of the two ends")
        self._crossing[relay] += 1  # nobody may close the connection to the relay meanwhile, though no link uses it
        try:
            await self._cross(relay, way, peer)
        finally:
            self._crossing[relay] -= 1
            if not self._crossing[relay]:
                del self._crossing[relay]

    async def _cross(self, relay: ID, way: str, peer: ID) -> None:
        if not self._dialler.direct(relay):
            await self._dialler.connect(relay, [way])
        try:
            await with_each_key(self._swarm.psk, lambda: self._visit(relay, peer))
        except (PeerFault, StreamLost, trio.TooSlowError, SwarmException) as error:
            raise DialFailed(f"through a relay: {deepest_reason(error)}") from None

    async def _visit(self, relay: ID, peer: ID) -> None:
        """One circuit, and the handshake in it: who turns us away there ends the circuit."""
        stream = await self._open_hop(relay)
        try:
            with trio.fail_after(2 * self._negotiate_seconds_max):  # the relay asks the peer meanwhile
                await write_message(stream, hop_connect(peer.to_bytes()))
                answer = await read_message(stream, HopMessage)
            if answer.status != Status.OK:
                raise DialFailed(REASONS.get(answer.status, f"the relay answers {answer.status}"))
            raw = circuit_connection(stream, relay, peer, initiator=True)
            await upgrade_as_dialler(self._swarm, raw, peer)
        except BaseException:
            await stream.reset()
            raise

    async def serve(self, stream: Stream) -> None:
        """A stop stream: a relay brings a visitor. It lasts as long as the visit. Raises `PeerFault`, `StreamLost`."""
        with trio.fail_after(self._negotiate_seconds_max):
            asked = await read_message(stream, StopMessage)
        relay, visitor = ID(stream.peer), ID(asked.peer.id)
        welcome = (
            asked.type == StopMessage.CONNECT
            and relay in self.places
            and not relayed(stream.connection)
            and self._visits < self._limits.circuits_inbound_max
        )
        await write_message(stream, stop_status(Status.OK if welcome else Status.PERMISSION_DENIED))
        if not welcome:
            return
        self._visits += 1
        try:
            await self._receive(stream, relay, visitor)
        finally:
            self._visits -= 1

    async def _receive(self, stream: Stream, relay: ID, visitor: ID) -> None:
        raw = circuit_connection(stream, relay, visitor, initiator=False)
        try:
            muxed = await upgrade_as_dialled(self._swarm, raw, visitor)
        except SwarmException as error:  # no fault of the relay, to which this stream belongs
            log.debug("a visit came to nothing: %s", deepest_reason(error))
            return
        if self.on_visit is not None and self.nursery is not None:
            self.nursery.start_soon(self.on_visit, visitor, muxed)
        await muxed.event_closed.wait()


def circuit_text(way: str, peer: ID) -> str:
    """The address of `peer` through the relay that is dialled at `way` (with the relay's id)."""
    assert not is_circuit(way)
    return f"{way}{CIRCUIT}/p2p/{peer.to_base58()}"


def below(muxed: Any) -> Any:
    """The connection to the relay that carries a relayed connection."""
    end: CircuitEnd = carrier_of(muxed).stream
    return end.stream.connection


__all__: Final = ["CircuitEnd", "Circuits", "Place", "below", "circuit_text"]
