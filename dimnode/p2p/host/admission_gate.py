"""Membership is asked for after Noise and before anything else is answered.

A connection that has just been encrypted and multiplexed is kept back: libp2p is not told of it, so nothing of ours
opens a stream on it and no protocol of ours sees one. The only stream that is looked at is that of the membership
protocol, which the dialler opens. When both sides are content the connection goes on as if nothing had been, with the
streams that came meanwhile in their order; otherwise it is closed.

Rule: until a peer is admitted it gets no answer but the one to its membership, a few streams and bytes are the most it
may pile up, and after a stated time it is disconnected.
"""

import logging
from collections import OrderedDict
from typing import Any, Final, Protocol

import trio
from libp2p.peer.id import ID
from libp2p.transport.exceptions import MuxerUpgradeFailure

from dimnode.errors import PeerFault, Refused
from dimnode.limits import SwarmLimits
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.multistream import proposal
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

_LOGGED_MAX: Final = 256


class TurnedAway(Refused):
    """The other side does not take us in, and said why."""


class Admission(Protocol):
    """Who judges. Every method runs for one connection and may be cancelled."""

    protocol: str

    async def exchange(self, stream: Stream, dialled: bool) -> None:
        """Show our membership, look at theirs. Raises `Refused` when there is to be no connection."""

    async def turn_away(self, stream: Stream) -> None:
        """Say in one message why a peer that showed nothing is disconnected."""

    def count(self, code: str) -> None:
        """This node refused a connection for this reason."""


class AdmissionGate:
    """Stands between Yamux and libp2p. `nursery` is where connections run; set when the host has one."""

    def __init__(self, swarm: Any, admission: Admission, bounds: SwarmLimits) -> None:
        self._admission = admission
        self._bounds = bounds
        self._logged: OrderedDict[bytes, str] = OrderedDict()
        self.nursery: trio.Nursery | None = None
        muxers = swarm.upgrader.muxer_multistream
        agree_on_muxer = muxers.new_conn

        async def new_conn(conn: Any, peer_id: ID) -> Any:
            connection: YamuxConnection = await agree_on_muxer(conn, peer_id)
            await self._admit(connection)
            return connection

        muxers.new_conn = new_conn

    async def _admit(self, connection: YamuxConnection) -> None:
        """Agree on membership. Raises `MuxerUpgradeFailure` with the code of the refusal."""
        if self.nursery is None:
            raise MuxerUpgradeFailure("the host is not running yet")
        connection.hold_back(self._bounds.streams_before_admission_max, self._bounds.unread_before_admission_bytes_max)
        self.nursery.start_soon(connection.start)
        try:
            await connection.event_started.wait()
            await self._judge(connection)
        except Refused as refused:
            said = refused.complaint
            if not isinstance(refused, TurnedAway):
                self._admission.count(said.code)
            self._log_once(connection.peer_id.to_bytes(), refused)
            await connection.close()
            raise MuxerUpgradeFailure("; ".join(part for part in (str(refused), said.cause) if part)) from None
        except BaseException:
            await connection.close()
            raise
        connection.let_go()

    def _log_once(self, peer: bytes, refused: Refused) -> None:
        """A peer that was refused dials again and again: one line says it."""
        repeated = self._logged.get(peer) == refused.complaint.code
        log.log(logging.DEBUG if repeated else logging.INFO, "a peer was not admitted: %s", refused)
        self._logged[peer] = refused.complaint.code
        if len(self._logged) > _LOGGED_MAX:
            self._logged.popitem(last=False)

    async def _judge(self, connection: YamuxConnection) -> None:
        """The exchange within its time; whatever goes wrong in it is a refusal."""
        dialled = connection.is_initiator
        peer = connection.peer_id.to_bytes()
        protocol = self._admission.protocol
        shown = False
        try:
            with trio.fail_after(self._bounds.admission_seconds_max):
                if dialled:
                    muxed = await open_negotiated(connection, protocol, lazy=True)
                else:
                    muxed = await member_stream(connection, protocol)
                shown = True
                stream = Stream(muxed, peer, protocol)
                await self._admission.exchange(stream, dialled)
                await stream.close()
        except trio.TooSlowError:
            if not shown:
                await self._turn_away(connection)
                raise Refused("E-swarm-10", "a peer showed no membership") from None
            raise Refused("E-swarm-18", "a peer did not finish the exchange of memberships") from None
        except PeerFault as fault:
            raise Refused("E-swarm-18", "a peer broke the exchange of memberships", fault.rule) from None
        except (StreamEnded, StreamLost):
            what = "the peer ended the exchange of memberships"
            raise Refused("E-swarm-18", what, "it is in the open swarm, or of another version") from None
        except Exception as error:
            if isinstance(error, Refused):
                raise
            # Boundary: what the muxer raises when the connection breaks meanwhile has many names.
            raise Refused(
                "E-swarm-18", "the connection broke during the exchange of memberships", repr(error)
            ) from None

    async def _turn_away(self, connection: YamuxConnection) -> None:
        """Tell a dialler that it needs a membership here; it may never listen."""
        with trio.move_on_after(self._bounds.farewell_seconds_max):
            try:
                muxed = await open_negotiated(connection, self._admission.protocol, lazy=True)
                await self._admission.turn_away(Stream(muxed, connection.peer_id.to_bytes(), self._admission.protocol))
            except Exception as error:  # noqa: BLE001 boundary: a courtesy; the peer is disconnected in any case
                log.debug("could not say why: %r", error)


async def member_stream(connection: YamuxConnection, protocol: str) -> YamuxStream:
    """Wait for the stream on which the dialler proposes `protocol`; keep all others for later, unanswered.

    Greeting and proposal have to come together, as the implementations we know send them: to answer a greeting alone
    would be to answer a stranger.
    """
    expected = proposal(protocol)
    found: list[YamuxStream] = []
    others: dict[int, YamuxStream] = {}

    async def look(stream: YamuxStream, scope: trio.CancelScope) -> None:
        if await stream.peek(len(expected)) == expected and not found:
            del others[stream.stream_id]
            found.append(stream)
            scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            while True:
                stream = await connection.accept_stream()
                others[stream.stream_id] = stream
                nursery.start_soon(look, stream, nursery.cancel_scope)
    finally:
        connection.keep_for_later(list(others.values()))
    stream = found[0]
    await stream.read(len(expected))
    stream.bytes_in = 0
    await stream.write(expected)
    return stream
