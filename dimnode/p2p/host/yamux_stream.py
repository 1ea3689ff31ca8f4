"""One stream of a Yamux connection: flow control, reading, writing, and how it ended.

Rule: a stream ends in exactly one of two ways, and the reader is told which: finished (FIN, all bytes are there) or
lost (reset, connection gone). Bytes before a FIN stay readable when the connection is lost afterwards.

One task reads and one task writes at a time. Every method that waits may be cancelled at any point: a cancelled `write`
has sent a prefix of its bytes, never part of a frame.
"""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import (
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from dimnode.p2p.host.noise_session import SessionLost
from dimnode.p2p.host.yamux_frames import (
    FIN,
    INITIAL_WINDOW_BYTES,
    RST,
    FrameError,
    Kind,
    encode_header,
)
from dimnode.p2p.host.yamux_slots import Outbox, Slot
from dimnode.p2p.host.yamux_takers import Filling, Taker

if TYPE_CHECKING:
    from dimnode.p2p.host.yamux import YamuxConnection


class ProtocolRefused(MuxedStreamReset):
    """The peer answered a proposal of a protocol with no."""


_SEND_WINDOW_MAX: Final = 2**32 - 1


class YamuxStream(IMuxedStream):
    """See the module. `bytes_in` counts payload read by us, `bytes_out` payload handed to the connection."""

    def __init__(self, stream_id: int, connection: "YamuxConnection", initiator: bool) -> None:
        self.stream_id = stream_id
        self.muxed_conn = connection
        self.is_initiator = initiator
        self.bytes_in = self.bytes_out = 0
        self.unread_bytes = 0
        self.window_target = INITIAL_WINDOW_BYTES  # how far the peer may run ahead of our reader
        self.finished_here = self.finished_there = False
        self.lost = False
        self.gone = False  # the connection no longer knows the stream
        self._limits = connection.limits
        self._session = connection.session
        self._send_window = self._receive_window = INITIAL_WINDOW_BYTES
        self.widened_at = trio.current_time()  # when the peer got window last
        self._consumed = 0  # read by us, not yet given back to the peer as window
        self._chunks: deque[bytes] = deque()
        self._head_at = 0  # how much of the first chunk was read
        self.abandoned_at: float | None = None
        self._expected: bytes | None = None
        self._taker: Taker | None = None
        self.heard_at = self.widened_at  # when payload came that somebody waited for
        self._small_writes = 0
        self._outbox = Outbox()  # of the one `write` that waits
        self._is_writing = False
        self._next_writers = trio.lowlevel.ParkingLot()
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # Called by the connection, never waiting

    def charge(self, length: int) -> None:
        """A data frame of `length` begins. Raises `FrameError` beyond the window and after the peer's FIN."""
        self._receive_window -= length
        if self._receive_window < 0:
            raise FrameError("yamux-window")
        if self.finished_there and length:
            raise FrameError("yamux-data-after-fin")

    @property
    def window_left_bytes(self) -> int:
        """What the peer was granted and has not used, updates that are under way to it included."""
        return self._receive_window

    def arrive(self, payload: bytes | memoryview) -> bool:
        """Give payload to the taker, or keep a copy for the reader. Whether to wake that one, which the connection does
        when the whole batch is in.
        """
        if self.abandoned_at is not None:
            return False
        size = len(payload)
        self.unread_bytes += size
        self.muxed_conn.unread_bytes += size
        if self._taker is not None:
            self._give(self._taker, payload)
            return False
        self._chunks.append(bytes(payload))
        return True

    def widen(self, delta: int) -> None:
        """The peer lets us send `delta` more bytes. Raises `FrameError` when the sum overflows."""
        self._send_window += delta
        if self._send_window > _SEND_WINDOW_MAX:
            raise FrameError("yamux-window-overflow")

    def wake(self) -> None:
        """A batch of frames is in: let the reader look again, and send what waited for window.

        That leaves at once: only the last of it, or a full socket, is worth a turn of the writing task. But once for a
        batch, or a peer that grants single bytes would have a message sent for each.
        """
        self._readers.unpark_all()
        if self.finished_there:
            self._tell_taker()
        if self._send_window and self._writers:
            if self._outbox and not (self.finished_here or self.gone or self.lost):
                self._push()
            if self._send_window or not self._outbox:
                self._writers.unpark_all()

    def lose(self) -> None:
        """Reset by the peer, or the connection is gone. What came before a FIN stays."""
        self.lost = True
        if not self.finished_there:
            self._discard()
        self._readers.unpark_all()
        self._writers.unpark_all()
        self._tell_taker()

    def abandon(self) -> None:
        """Nobody will read any more: drop what is there and what comes. The peer has a while to finish its side."""
        self.abandoned_at = trio.current_time()
        self._discard()

    def _discard(self) -> None:
        if not self.gone:  # the connection counts the bytes of the streams it knows
            self.muxed_conn.unread_bytes -= self.unread_bytes
        self.unread_bytes = 0
        self._chunks.clear()
        self._head_at = 0

    # Reading

    def expect(self, answer: bytes) -> None:
        """The first bytes must be `answer` (lazy negotiation); they are checked and dropped by the first read."""
        self._expected = answer

    async def read(self, n: int | None = None) -> bytes:
        """Return 1..n bytes as soon as some are there; without `n` everything up to the FIN (at most 16 MiB).

        Raises `MuxedStreamEOF` after a FIN and `MuxedStreamReset` when the stream is lost.
        """
        if self._expected is not None:
            await self.confirm()
        if n is None or n < 0:
            return await self._read_all()
        if n == 0:
            return b""
        await self._wait_for_chunks()
        return self._take(n)

    def buffered(self) -> bytes:
        """What has arrived and was not read; it stays in place."""
        if len(self._chunks) == 1 and not self._head_at:
            return self._chunks[0]
        return b"".join(self._chunks)[self._head_at :]

    def skip(self, n: int) -> None:
        """Drop `n` bytes that are there, as if they had been read."""
        if n:
            self._take(n)

    async def fill(self, room: memoryview) -> None:
        """Wait until all of the caller's memory is filled: one turn of its task, however many pieces it comes in.

        Raises as `read`; what came until then is lost, and so it is after a cancel.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._expected is not None:
            await self.confirm()
        filling = Filling(room, self._readers.unpark_all)
        self.pour(filling)
        try:
            while filling.room:
                await self._wait_for_more()
        finally:
            self.pour(None)

    def pour(self, taker: Taker | None) -> None:
        """From now on payload goes to `taker` as it comes, and to no reader; None: to readers again.

        What the taker leaves is kept, and the peer gets no window for it, until `resume`.
        """
        self._taker = taker
        self.resume()

    def resume(self) -> None:
        """Give the taker what it left, again."""
        while self._taker is not None and self._chunks:
            chunk = memoryview(self._chunks[0])[self._head_at :]
            taken = self._taker.take(chunk)
            self._head_at += taken
            if taken == len(chunk):
                self._chunks.popleft()
                self._head_at = 0
            self._account_read(taken)
            if taken < len(chunk):
                return
        if self.finished_there or self.lost:
            self._tell_taker()

    def _give(self, taker: Taker, payload: bytes | memoryview) -> None:
        self.heard_at = trio.current_time()
        size = len(payload)
        taken = 0 if self._chunks else taker.take(payload)
        if taken < size:
            self._chunks.append(bytes(payload[taken:]))
        if taken:
            self._account_read(taken)

    def _tell_taker(self) -> None:
        if self._taker is not None and not self._chunks:
            self._taker.over()

    async def _wait_for_chunks(self) -> None:
        if self._chunks:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._chunks:
            await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        self.check_readable()
        self._session.flush_if_pending()
        await self._readers.park()

    def check_readable(self) -> None:
        """Raise `MuxedStreamEOF` or `MuxedStreamReset` when nothing is left to be read, and no more comes."""
        if self._chunks:
            return
        if self.finished_there:
            raise MuxedStreamEOF("the peer finished")
        if self.lost:
            raise MuxedStreamReset("reset, or connection lost")

    async def peek(self, n: int) -> bytes:
        """Wait until `n` bytes are there, or no more will come; return up to `n` of them and leave them in place."""
        while self.unread_bytes < n and not (self.finished_there or self.lost):
            await self._readers.park()
        there = b"".join(self._chunks)
        return there[self._head_at : self._head_at + n]

    async def _read_all(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                part = await self.read(self._limits.connection_unread_bytes_max)
            except MuxedStreamEOF:
                if parts:
                    return b"".join(parts)
                raise
            parts.append(part)
            size += len(part)
            if size > self._limits.connection_unread_bytes_max:
                await self.reset()
                raise MuxedStreamError("the peer sent more than fits")

    async def confirm(self) -> None:
        """Wait for the expected answer. At the first other byte reset the stream and raise `ProtocolRefused`."""
        expected, self._expected = self._expected or b"", None
        got = b""
        while len(got) < len(expected):
            try:
                got += await self.read(len(expected) - len(got))
            except MuxedStreamEOF:
                break
            except BaseException:
                # Without its answer the stream is unusable: bytes of the answer would be read as payload.
                self.reset_nowait()
                raise
            if not expected.startswith(got):
                break
        if got != expected:
            self.reset_nowait()
            raise ProtocolRefused("the peer does not speak this protocol")
        self.bytes_in = 0

    def _take(self, n: int) -> bytes:
        taken = self._take_from_head(n)
        if len(taken) < n and self._chunks:
            parts, size = [taken], len(taken)
            while self._chunks and size < n:
                parts.append(self._take_from_head(n - size))
                size += len(parts[-1])
            taken = b"".join(parts)
        self._account_read(len(taken))
        return taken

    def _take_from_head(self, n: int) -> bytes:
        """Return up to `n` bytes of the first chunk. What is left of it stays in place: it is often read in crumbs."""
        chunk, start = self._chunks[0], self._head_at
        if len(chunk) - start > n:
            self._head_at = start + n
            return chunk[start : start + n]
        self._chunks.popleft()
        self._head_at = 0
        return chunk[start:] if start else chunk

    def _account_read(self, size: int) -> None:
        self.bytes_in += size
        self.unread_bytes -= size
        if not self.gone:
            self.muxed_conn.unread_bytes -= size
        self._consumed += size
        if self._consumed * 2 >= self.window_target and not (self.finished_there or self.gone):
            # A reader that keeps up gets a window twice as wide, so that bulk is not bound by the round trip.
            delta = self._consumed + self.muxed_conn.grant_growth(self)
            self._consumed = 0
            self._receive_window += delta
            self.muxed_conn.send(encode_header(Kind.WINDOW, 0, self.stream_id, delta))

    # Writing

    def write_nowait(self, data: bytes | memoryview, *, later: bool = False) -> bool:
        """Send a small message without waiting, or do nothing and return False (large, no window, socket full).

        `later` lets it leave with the next message of the connection, at latest in the next pass of the event loop.

        Raises `MuxedStreamClosed` after our own `close`, `MuxedStreamReset` when the stream is lost.
        """
        self._check_writable()
        size = len(data)
        if (
            size > self._limits.small_write_bytes_max
            or size > self._send_window
            or self._is_writing
            or not self._session.has_room()
        ):
            return False
        if size:
            self._send_window -= size
            self.bytes_out += size
            payload = data if type(data) is bytes else bytes(data)
            self.muxed_conn.send(encode_header(Kind.DATA, 0, self.stream_id, size), payload, later=later)
        return True

    async def write(self, *parts: bytes | memoryview | Slot) -> None:
        """Hand all bytes of `parts` to the connection, waiting for window and socket. Raises as `write_nowait`.

        What a view or slot shows must not change until this returns, and never when it raises or is cancelled.

        A small message costs no task switch, except every 32nd, so that a writer in a loop lets others run.
        """
        self._small_writes += 1
        if self._small_writes % self._limits.small_writes_per_checkpoint:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if len(parts) == 1 and not isinstance(parts[0], Slot) and self.write_nowait(parts[0]):
            return
        if self._is_writing:
            await self._next_writers.park()  # who ends hands over to the next: nobody overtakes it meanwhile
        self._is_writing = True
        try:
            self._outbox.add(parts)
            await self._empty_outbox()
            if any(type(part) is not bytes for part in parts):
                await self._session.wait_encrypted()
        finally:
            self._outbox.clear()
            self._is_writing = bool(self._next_writers.unpark())

    async def _empty_outbox(self) -> None:
        while True:
            self._check_writable()
            if self._send_window and self._session.has_room():
                self._push()
                await trio.lowlevel.checkpoint()
            if not self._outbox:
                return
            if self._send_window == 0:
                self._session.flush_if_pending()
                await self._writers.park()
            elif not self._session.has_room():
                await self._wait_room()

    def _push(self) -> None:
        """Send of what waits as much as window and session take now."""
        while self._outbox and self._send_window and self._session.has_room():
            size, frame = self._outbox.next_frame(self.stream_id, self._send_window)
            self._send_window -= size
            self.bytes_out += size
            self.muxed_conn.bytes_out += size
            self._session.put(*frame)
        self._session.flush()

    async def _wait_room(self) -> None:
        try:
            await self._session.wait_room()
        except SessionLost as error:
            raise MuxedStreamReset("connection lost") from error

    def _check_writable(self) -> None:
        if self.lost:
            raise MuxedStreamReset("reset, or connection lost")
        if self.finished_here or self.gone:
            raise MuxedStreamClosed("closed here")

    # Ending

    async def close(self) -> None:
        """Finish our side (FIN goes out after all that was written); the peer may go on sending."""
        if not (self.finished_here or self.gone or self.lost):
            self.finished_here = True
            self.muxed_conn.send(encode_header(Kind.WINDOW, FIN, self.stream_id, 0))
            if self.finished_there:
                self.muxed_conn.forget(self)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def reset(self) -> None:
        """Give up both directions; unread bytes are dropped. Never waits."""
        self.reset_nowait()

    def reset_nowait(self) -> None:
        """The same for callers that cannot await.

        Nothing happens to a stream that is over: libp2p resets all streams of a lost connection, also those whose
        reader still has bytes from before the end to read.
        """
        if self.gone:
            return
        self.muxed_conn.send(encode_header(Kind.WINDOW, RST, self.stream_id, 0))
        self.muxed_conn.forget(self)
        self.finished_there = False
        self.lose()

    def set_deadline(self, ttl: int) -> None:
        """Refused: deadlines are trio cancel scopes."""
        raise NotImplementedError("use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return host and port of the peer."""
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> "YamuxStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
