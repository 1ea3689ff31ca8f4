"""The Yamux connection: many streams over one Noise session, wire compatible with go, js and stock py-libp2p.

Stock py-libp2p passes its event loop 25 times per round trip, polls for window, shows a reset as a clean end and does
not enforce the window. Here one read wakes the streams it concerns, and they answer in the same pass (three passes per
round trip). What a peer may do to us is bounded: window, unread bytes, open inbound streams, unread control frames.

Rule: a frame is acted upon completely or ends the connection; nothing here awaits while it looks at frames.
"""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.transport.exceptions import MuxerUpgradeFailure

from dimnode.limits import HostLimits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.multistream import Unnegotiable, answer_proposals, expect, proposal
from dimnode.p2p.host.noise_session import NoiseSession, SessionLost
from dimnode.p2p.host.yamux_budget import Offend, StreamBudget, nobody_minds
from dimnode.p2p.host.yamux_frames import (
    ACK,
    FIN,
    INITIAL_WINDOW_BYTES,
    RST,
    SYN,
    DataPiece,
    Frame,
    FrameError,
    FrameParser,
    GoAwayFrame,
    Kind,
    PingFrame,
    WindowFrame,
    encode_header,
)
from dimnode.p2p.host.yamux_ids import InboundIds
from dimnode.p2p.host.yamux_remains import Remains
from dimnode.p2p.host.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

STREAM_ID_MAX: Final = 2**32 - 1
_HELLO: Final = proposal(str(YAMUX_ID))


class YamuxConnection(IMuxedConn):
    """All streams to one peer. libp2p runs `start` as a task for the life of the connection."""

    def __init__(self, session: NoiseSession, peer_id: ID, limits: HostLimits, budget: StreamBudget) -> None:
        self.session = session
        self.secured_conn = session
        self.peer_id = peer_id
        self.limits = limits
        self.on_close: Callable[[], Any] | None = None  # set by libp2p's SwarmConn
        self.on_lost: Callable[[], None] | None = None  # ours: told at once, without waiting
        self.event_started, self.event_closed = trio.Event(), trio.Event()
        self.unread_bytes = 0
        self.bytes_in = self.bytes_out = 0
        self._closing = False
        self._budget = budget
        self._siblings: set[YamuxConnection] = {self}  # all connections with this peer
        self._idle_frames = 0
        self._growth_left_bytes = limits.connection_unread_bytes_max // 2
        self._next_id = 1 if session.is_initiator else 2
        self._inbound_ids = InboundIds(2 if session.is_initiator else 1, limits.stream_id_gap_max)
        self.inbound_open = 0
        self._streams: dict[int, YamuxStream] = {}
        self._remains = Remains(limits.ended_streams_remembered_max, INITIAL_WINDOW_BYTES, self._growth_left_bytes)
        self._parser = FrameParser(limits.frame_bytes_max)
        self._accepted_in, self._accepted = trio.open_memory_channel[YamuxStream](limits.inbound_streams_max)
        self._pong = trio.Event()
        self.round_trip_seconds = 0.0
        self._round_trip_seconds_min = inf
        self._places, self._unread_bytes_max = limits.inbound_streams_max, limits.connection_unread_bytes_max
        self._held_back = False
        self._early: deque[YamuxStream] = deque()  # taken in before the peer was admitted, not looked at by anybody

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return bool(self.session.is_initiator)

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self._closing

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self.event_closed.is_set()

    def get_transport_addresses(self) -> list[Any]:
        """Delegate to the carrier."""
        return list(self.session.carrier.get_transport_addresses())

    def get_connection_type(self) -> Any:
        """Delegate to the carrier."""
        return self.session.carrier.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Delegate to the carrier."""
        return self.session.get_remote_address()

    def rtt(self) -> float:
        """Round trip of the last keepalive in seconds, 0 before the first."""
        return self.round_trip_seconds

    # Before the peer is admitted

    def hold_back(self, streams_max: int, unread_bytes_max: int) -> None:
        """Nobody knows yet who this is: few streams and bytes are taken in."""
        self._held_back = True
        self._places, self._unread_bytes_max = streams_max, unread_bytes_max

    def let_go(self) -> None:
        """The peer was admitted: the usual bounds hold."""
        self._held_back = False
        self._places = self.limits.inbound_streams_max
        self._unread_bytes_max = self.limits.connection_unread_bytes_max

    def keep_for_later(self, streams: Iterable[YamuxStream]) -> None:
        """Streams that were accepted and not answered: `accept_stream` returns them first."""
        self._early.extend(streams)

    # Life of the connection

    async def start(self) -> None:
        """Run the connection until it is lost, closed or cancelled. Never raises an `Exception`."""
        if self.event_started.is_set():
            return
        ended = False
        self._siblings = self._budget.enter(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump)
                nursery.start_soon(self._keep_alive)
                self.event_started.set()
                await self._read_until_end()
                nursery.cancel_scope.cancel()
            ended = True
        finally:
            # When the whole host is being cancelled, libp2p closes its own books; its hook could wait for ever here.
            if not ended:
                self.on_close = None
            with trio.CancelScope(shield=True):
                await self._shut_down()

    async def _read_until_end(self) -> None:
        try:
            while True:
                # No name for the batch: it would be kept alive while the next one is awaited.
                self._take_batch(await self.session.receive())
        except SessionLost as error:
            log.debug("connection to %s ended: %s", self.peer_id, error)
        except FrameError as error:
            log.info("connection to %s closed, the peer broke %s", self.peer_id, error.rule)
            broke_window = error.rule.startswith("yamux-window")
            self._budget.offend(self.peer_id.to_bytes(), Offence.WINDOW if broke_window else Offence.MUXER)
        except Exception as error:  # noqa: BLE001 boundary: whatever the carrier raises ends this connection, never the host
            log.debug("connection to %s ended: %r", self.peer_id, error)

    async def _pump(self) -> None:
        try:
            await self.session.pump()
        except Exception as error:  # noqa: BLE001 boundary: as above; closing the session ends the reader
            log.debug("sending to %s ended: %r", self.peer_id, error)
            await self.session.close()

    async def _keep_alive(self) -> None:
        """Close the connection when a ping is not answered and nothing else arrives meanwhile."""
        wait_seconds = self.limits.keepalive_first_seconds
        while True:
            await trio.sleep(wait_seconds)
            wait_seconds = self.limits.keepalive_seconds
            self._sweep()
            self._pong = trio.Event()
            asked, heard = trio.current_time(), self.bytes_in
            self.send(encode_header(Kind.PING, SYN, 0, 1))
            with trio.move_on_after(self.limits.keepalive_wait_seconds):
                await self._pong.wait()
                self.round_trip_seconds = trio.current_time() - asked
                self._round_trip_seconds_min = min(self._round_trip_seconds_min, self.round_trip_seconds)
            if not self._pong.is_set() and self.bytes_in == heard:
                log.warning("connection to %s closed, the peer is silent", self.peer_id)
                await self.session.close()
                return

    def _sweep(self) -> None:
        """Reset streams that our side left long ago and the peer never finished: they hold a place."""
        self._idle_frames = 0
        before = trio.current_time() - self.limits.linger_seconds_max
        for stream in list(self._streams.values()):
            if stream.abandoned_at is not None and stream.abandoned_at < before:
                stream.reset_nowait()

    async def close(self, error_code: int = 0) -> None:
        """Send what was written (bounded wait) and a go-away, then close. Streams that had no FIN are lost."""
        if self._closing:
            return
        self._closing = True
        self.session.put(encode_header(Kind.GO_AWAY, 0, 0, error_code))
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self.limits.close_seconds_max):
                try:
                    await self.session.finish()
                except (SessionLost, OSError):
                    log.debug("connection to %s lost while closing", self.peer_id)
            await self._shut_down()

    async def _shut_down(self) -> None:
        self._closing = True
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        self._accepted_in.close()
        self._budget.leave(self)
        for stream in list(self._streams.values()):
            self.forget(stream)
            stream.lose()
        if self.on_lost is not None:
            self.on_lost()
        try:
            await self.session.close()
        except Exception as error:  # noqa: BLE001 boundary: the carrier may fail to close what is gone already
            log.debug("closing the carrier to %s: %r", self.peer_id, error)
        if self.on_close is not None:
            result = self.on_close()
            if inspect.isawaitable(result):
                await result

    # Frames in

    def _take_batch(self, plaintexts: list[bytes | memoryview]) -> None:
        """Act on one read's worth of frames, then wake each stream that got something once. Raises `FrameError`."""
        woken: set[YamuxStream] = set()
        try:
            for plaintext in plaintexts:
                if (whole := self._parser.whole(plaintext)) is not None:
                    self._act_on_payload(*whole, woken)
                else:
                    for frame in self._parser.feed(plaintext):
                        self._act(frame, woken)
        finally:
            for stream in woken:
                stream.wake()
        if len(woken) > 1:
            # Their answers share one message: the first one does not flush, the pump does, one pass later.
            self.session.corked = True
            self.session.kick()
        if self.session.collected_bytes > 4 * self.limits.session_unsent_bytes_max:
            raise FrameError("peer-does-not-read")

    def _act(self, frame: Frame, woken: set[YamuxStream]) -> None:
        match frame:
            case DataPiece():
                self._act_on_data(frame, woken)
            case WindowFrame(stream_id, flags, delta):
                stream = self._accept(stream_id) if flags & SYN else self._streams.get(stream_id)
                if stream is not None:
                    if delta:
                        stream.widen(delta)
                        woken.add(stream)
                    self._act_on_end(stream, flags, woken)
                if not (delta or flags):
                    self._count_idle()
            case PingFrame(flags, value):
                self._count_idle()
                if flags & SYN:
                    self._put(encode_header(Kind.PING, ACK, 0, value))
                elif flags & ACK:
                    self._pong.set()
            case GoAwayFrame(code):
                raise SessionLost(f"the peer went away with code {code}", transport="tcp")

    def _act_on_data(self, piece: DataPiece, woken: set[YamuxStream]) -> None:
        if piece.first and piece.flags & SYN:
            stream = self._accept(piece.stream_id)
        else:
            stream = self._streams.get(piece.stream_id)
        if stream is None:  # reset by us, or refused: what was on its way is dropped, and there is a bound to that
            if piece.first:
                self._remains.charge(piece.stream_id, piece.length)
            return
        if piece.first:
            stream.charge(piece.length)
        if piece.payload:
            if not self._hand(stream, piece.payload, woken):
                return
        elif not piece.flags and not piece.length:
            self._count_idle()
        if piece.last:
            self._act_on_end(stream, piece.flags, woken)

    def _act_on_payload(self, stream_id: int, payload: bytes | memoryview, woken: set[YamuxStream]) -> None:
        """A whole data frame without flags."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._remains.charge(stream_id, len(payload))
            return
        stream.charge(len(payload))
        self._hand(stream, payload, woken)

    def _hand(self, stream: YamuxStream, payload: bytes | memoryview, woken: set[YamuxStream]) -> bool:
        """Give it to its stream. False when that was reset instead: too much is unread."""
        size = len(payload)
        if self._too_much_unread(size):
            log.info("stream %d of %s reset, too much unread", stream.stream_id, self.peer_id)
            self._budget.offend(self.peer_id.to_bytes(), Offence.UNREAD)
            stream.reset_nowait()
            return False
        self.bytes_in += size
        if stream.arrive(payload):
            woken.add(stream)
        return True

    def _count_idle(self) -> None:
        """A frame that moves nothing costs us work and the peer twelve bytes. Raises `FrameError` for a flood."""
        self._idle_frames += 1
        if self._idle_frames > self.limits.idle_frames_max:
            raise FrameError("yamux-idle-frames")

    def _too_much_unread(self, size: int) -> bool:
        """Each peer has its bound, over all its connections; beyond the host's bound only a small share is left."""
        mine = size + self.unread_bytes
        if len(self._siblings) > 1 and not self._held_back:
            mine = size + sum(connection.unread_bytes for connection in self._siblings)
        if mine > self._unread_bytes_max:
            return True
        if mine <= self.limits.unread_share_bytes:
            return False
        return size + self._budget.unread_bytes() > self.limits.unread_bytes_total_max

    def _act_on_end(self, stream: YamuxStream, flags: int, woken: set[YamuxStream]) -> None:
        if flags & RST:
            self.forget(stream)
            stream.lose()
        elif flags & FIN:
            stream.finished_there = True
            woken.add(stream)
            if stream.finished_here:
                self.forget(stream)

    def _accept(self, stream_id: int) -> YamuxStream | None:
        """A SYN arrived: return the new stream, or None when it was refused with a reset. Raises `FrameError`."""
        self._inbound_ids.claim(stream_id)
        of_peer = self.inbound_open
        if len(self._siblings) > 1 and not self._held_back:
            of_peer = sum(connection.inbound_open for connection in self._siblings)
        if of_peer >= self._places or self._budget.left <= 0:
            self._refuse_stream(stream_id)
            return None
        stream = YamuxStream(stream_id, self, initiator=False)
        try:
            self._accepted_in.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._put(encode_header(Kind.WINDOW, RST, stream_id, 0))
            self._remains.leave(stream_id, INITIAL_WINDOW_BYTES)
            return None
        self._streams[stream_id] = stream
        self.inbound_open += 1
        self._budget.left -= 1
        self._put(encode_header(Kind.WINDOW, ACK, stream_id, 0))
        return stream

    def _refuse_stream(self, stream_id: int) -> None:
        """Answer with a reset: twelve bytes, no task, no buffer. A few are an accident, hundreds are not."""
        self._put(encode_header(Kind.WINDOW, RST, stream_id, 0))
        self._remains.leave(stream_id, INITIAL_WINDOW_BYTES)
        self._budget.refuse(self.peer_id, self.limits.refused_streams_per_offence)

    # Frames out, and the books

    def send(self, header: bytes, payload: bytes = b"", *, later: bool = False) -> None:
        """Send a frame now, or together with the answers of the other streams that were just woken."""
        self.bytes_out += len(payload)
        if payload:
            self.session.put(header, payload)
        else:
            self.session.put(header)
        if later or self.session.corked:
            self.session.kick()
        else:
            self.session.flush()

    def _put(self, header: bytes) -> None:
        """Send a control frame with the next data, at latest in the next pass."""
        self.session.put(header)
        self.session.kick()

    def grant_growth(self, stream: YamuxStream) -> int:
        """Double the window of a stream that consumes well, as far as limits allow; return the extra bytes.

        Once half a window lasts for two round trips a wider one makes nothing faster: it only holds more bytes under
        way, behind which the answers of the other streams wait. To a peer that is near a quarter of the widest does.
        """
        growth, now = stream.window_target, trio.current_time()
        lasted_seconds, stream.widened_at = now - stream.widened_at, now
        if lasted_seconds > 2 * self._round_trip_seconds_min:
            return 0
        near = self._round_trip_seconds_min < self.limits.near_seconds
        widest = self.limits.near_window_bytes_max if near else self.limits.stream_window_bytes_max
        if growth * 2 > widest or growth > self._growth_left_bytes:
            return 0
        self._growth_left_bytes -= growth
        stream.window_target += growth
        return growth

    def forget(self, stream: YamuxStream) -> None:
        """Both sides are done with the stream: free its place and its extra window."""
        if stream.gone:
            return
        stream.gone = True
        self._streams.pop(stream.stream_id, None)
        self.unread_bytes -= stream.unread_bytes
        if not stream.finished_there:  # also when the peer reset it: go may have data queued behind its own reset
            self._remains.leave(stream.stream_id, stream.window_left_bytes)
        self._growth_left_bytes += stream.window_target - INITIAL_WINDOW_BYTES
        if not stream.is_initiator:
            self.inbound_open -= 1
            self._budget.left += 1

    async def open_stream(self) -> YamuxStream:
        """Open a stream; its SYN leaves with the first data. Raises `MuxedConnUnavailable` on an ended connection."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing or self._next_id > STREAM_ID_MAX:
            raise MuxedConnUnavailable("connection closed, or out of stream ids")
        stream = YamuxStream(self._next_id, self, initiator=True)
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self._put(encode_header(Kind.WINDOW, SYN, stream.stream_id, 0))
        return stream

    async def accept_stream(self) -> YamuxStream:
        """Wait for the peer to open a stream. Raises `MuxedConnUnavailable` at the end of the connection."""
        if self._early:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._early.popleft()
        try:
            return await self._accepted.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise MuxedConnUnavailable("connection closed") from None


Refusal = Callable[[bytes, str], str]
"""Asked with a peer and its IP address ("" over a relay): why there may be no connection with it, "" when there may."""


def all_welcome(peer: bytes, ip: str) -> str:
    """The `Refusal` of a host that refuses nobody."""
    return ""


class NotWelcome(MuxerUpgradeFailure):
    """Our operator does not want this peer. The words are for our own log, the peer only sees the connection end."""


class YamuxOnly(MuxerMultistream):
    """Negotiates Yamux and nothing else. Stock 0.8.1 ignores the class given in `muxer_opt`, hence this."""

    def __init__(self, limits: HostLimits, refusal: Refusal = all_welcome, offend: Offend = nobody_minds) -> None:
        super().__init__({YAMUX_ID: YamuxConnection}, negotiate_timeout=int(limits.negotiate_seconds_max))
        self._limits = limits
        self._refusal = refusal
        self._budget = StreamBudget(limits.inbound_streams_total_max, offend)

    def connections_of(self, peer: bytes) -> list[YamuxConnection]:
        """Return the connections with `peer` that have started, whether libp2p has been told of them or not."""
        return self._budget.connections_of(ID(peer))

    async def new_conn(self, conn: Any, peer_id: ID) -> Any:
        """Agree on Yamux over the finished Noise session and return the connection, not yet started.

        Here the peer has proved who it is and nothing has answered it yet: who is not welcome goes no further.
        """
        remote = conn.get_remote_address()
        if reason := self._refusal(peer_id.to_bytes(), "" if remote is None else remote[0]):
            raise NotWelcome(reason)
        try:
            with trio.fail_after(self._limits.negotiate_seconds_max):
                if conn.is_initiator:
                    await conn.write(_HELLO)
                    await expect(conn, _HELLO)
                else:
                    await answer_proposals(conn, (str(YAMUX_ID),), self._limits, conn.write)
        except (Unnegotiable, trio.TooSlowError) as error:
            raise MuxerUpgradeFailure(f"no agreement on Yamux: {str(error) or 'no answer'}") from error
        connection = YamuxConnection(conn, peer_id, self._limits, self._budget)
        return self._annotate_connection(connection, conn, YAMUX_ID)
