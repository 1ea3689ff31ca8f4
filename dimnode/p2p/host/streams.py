"""The stream that the rest of dimnode sees, and the failures of the host in our own words.

Rule: no libp2p type and no libp2p exception leaves this room. A stream ends as `StreamEnded` (the peer finished: every
byte it wrote was read) or `StreamLost` (reset, or connection gone: nothing can be concluded).
"""

from typing import final

from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError

from dimnode.errors import ConfigError
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_slots import Slot
from dimnode.p2p.host.yamux_stream import YamuxStream
from dimnode.p2p.host.yamux_takers import Taker


class StreamEnded(Exception):
    """The peer finished its side; what it wrote before has been read."""


class StreamLost(Exception):
    """The stream was reset or its connection is gone; what the peer did with our bytes is unknown."""


class DialFailed(Exception):
    """No connection, or no stream, to this peer now. `reason` is one clause for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProtocolRefused(DialFailed):
    """The peer is there and does not speak the protocol."""


class ListenFailed(ConfigError):
    """An address to listen on is taken or not of this machine; the operator must choose another."""


@final
class Stream:
    """A two-way byte stream to `peer`. One task reads and one task writes at a time.

    Cancelling any method leaves the connection and the other streams intact; a cancelled `write` has sent a prefix.
    It goes straight to the muxed stream: libp2p's own wrapper would take a lock for each call.
    """

    __slots__ = ("_muxed", "peer", "protocol")

    def __init__(self, muxed: YamuxStream, peer: bytes, protocol: str) -> None:
        self._muxed = muxed
        self.peer = peer
        self.protocol = protocol

    @property
    def connection(self) -> YamuxConnection:
        """The connection that carries it: for this room alone."""
        return self._muxed.muxed_conn

    @property
    def comes_from(self) -> str:
        """The IP address at the other end; "" over a relay."""
        remote = self._muxed.get_remote_address()
        return str(remote[0]) if remote is not None else ""

    @property
    def heard_at(self) -> float:
        """When bytes came last that `fill` or a taker waited for, or when the stream was made; in trio's seconds."""
        return self._muxed.heard_at

    @property
    def bytes_in(self) -> int:
        """Payload bytes read so far, without the negotiation of the protocol."""
        return self._muxed.bytes_in

    @property
    def bytes_out(self) -> int:
        """Payload bytes handed to the connection so far, without the negotiation of the protocol."""
        return self._muxed.bytes_out

    async def read(self, n: int) -> bytes:
        """Return 1..n bytes, as soon as some are there. Raises `StreamEnded` or `StreamLost`."""
        try:
            return await self._muxed.read(n)
        except MuxedStreamEOF:
            raise StreamEnded from None
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamLost(str(error)) from None

    async def fill(self, room: memoryview) -> None:
        """Fill all of the caller's memory. Raises as `read`; what came until then is lost, and so it is by a cancel."""
        try:
            await self._muxed.fill(room)
        except MuxedStreamEOF:
            raise StreamEnded from None
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamLost(str(error)) from None

    def pour(self, taker: Taker | None) -> None:
        """Let bytes go to `taker` the moment they come, instead of to a reader; None: to readers again.

        Not before the first read of a stream that was opened lazily.
        """
        self._muxed.pour(taker)

    def resume(self) -> None:
        """Give the taker what it did not take before."""
        self._muxed.resume()

    def check_readable(self) -> None:
        """Raise as `read` does when there are no more bytes: none that wait, and none that come."""
        try:
            self._muxed.check_readable()
        except MuxedStreamEOF:
            raise StreamEnded from None
        except MuxedStreamError as error:
            raise StreamLost(str(error)) from None

    async def write(self, *parts: bytes | memoryview | Slot) -> None:
        """Send all of it; waits while the peer does not read. Raises `StreamLost`, also after our own `close`.

        What a view or slot shows must not change until this returns, and never when it raises or is cancelled.
        """
        try:
            await self._muxed.write(*parts)
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamLost(str(error)) from None

    def write_nowait(self, b: bytes) -> bool:
        """Send at most 16 KiB without waiting, or return False and do nothing. Raises `StreamLost`."""
        try:
            return self._muxed.write_nowait(b)
        except (MuxedStreamError, MuxedConnError) as error:
            raise StreamLost(str(error)) from None

    async def close(self) -> None:
        """Finish our side: the peer reads what was written, then `StreamEnded`. Reading goes on. Idempotent."""
        await self._muxed.close()

    async def reset(self) -> None:
        """Give up both directions: the peer gets `StreamLost`. Idempotent, never waits, safe while cancelled."""
        self._muxed.reset_nowait()
