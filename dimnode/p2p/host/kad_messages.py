"""Messages of the DHT on a muxed stream, and the streams that are kept for questions.

A question on a stream of its own costs opening and accepting one, which is most of its price. Servers of the protocol
(ours, go's, js's and stock's) answer any number of questions on one stream, so a few are kept for each connection.

Rule: a stream is kept only after a whole answer with nothing behind it; a kept one that turns out to be ended is
replaced once, because its server may have grown tired of waiting.
"""

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.utils import encode_varint_prefixed

from dimnode.limits import HostLimits
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_stream import YamuxStream

KAD: Final = "/ipfs/kad/1.0.0"
_LENGTH_BYTES_MAX: Final = 5


async def read_message(stream: YamuxStream, bytes_max: int) -> bytes:
    """One length-prefixed message. Raises `ValueError` for a long one before it is read, and as `YamuxStream.read`."""
    while True:
        there = stream.buffered()
        needed = _needed(there, bytes_max)
        if needed is not None and len(there) >= sum(needed):
            stream.skip(sum(needed))
            return there[needed[0] : sum(needed)]
        until = len(there) + 1 if needed is None else sum(needed)
        if len(await stream.peek(until)) < until:
            if stream.lost and not stream.finished_there:
                raise MuxedStreamReset("lost within a message")
            if there:
                raise ValueError("a message cut off")
            raise MuxedStreamEOF("the peer finished")


def _needed(there: bytes, bytes_max: int) -> tuple[int, int] | None:
    """Bytes of the length and of the message; None while the length itself is not whole."""
    length = 0
    for at in range(min(len(there), _LENGTH_BYTES_MAX)):
        length |= (there[at] & 127) << (7 * at)
        if there[at] < 128:
            if length > bytes_max:
                raise ValueError(f"a message of {length} bytes")
            return at + 1, length
    if len(there) >= _LENGTH_BYTES_MAX:
        raise ValueError("no length")
    return None


class KeptStreams:
    """Questions to peers, over few streams for each connection."""

    def __init__(self, limits: HostLimits) -> None:
        self._limits = limits
        self._idle: WeakKeyDictionary[YamuxConnection, list[YamuxStream]] = WeakKeyDictionary()
        self._places: WeakKeyDictionary[YamuxConnection, trio.CapacityLimiter] = WeakKeyDictionary()

    async def exchange(
        self,
        connection: YamuxConnection,
        messages: tuple[Message, ...],
        until: Callable[[Message], bool],
        *,
        alone: bool = False,
    ) -> Message:
        """Send all `messages`, read answers until one satisfies `until` and return it.

        alone: on a stream of their own, which is not kept.
        Raises `MuxedConnError` or `MuxedStreamError` when the peer ends before, `DecodeError` or `ValueError` for what
        is no message. The caller sets the deadline; after a cancel the stream is not used again.
        """
        raw = b"".join(encode_varint_prefixed(message.SerializeToString()) for message in messages)
        places = self._places.setdefault(connection, trio.CapacityLimiter(self._limits.dht_asking_streams_max))
        async with places:
            while not alone and (kept := self._take(connection)) is not None:
                try:
                    return await self._exchange_on(kept, raw, until, keep=True)
                except (MuxedConnError, MuxedStreamError):
                    continue
            stream = await open_negotiated(connection, KAD, lazy=True)
            return await self._exchange_on(stream, raw, until, keep=not alone)

    def _take(self, connection: YamuxConnection) -> YamuxStream | None:
        idle = self._idle.get(connection, [])
        while idle:
            stream = idle.pop()
            if not (stream.lost or stream.finished_there or stream.unread_bytes):
                return stream
            stream.reset_nowait()
        return None

    async def _exchange_on(
        self, stream: YamuxStream, raw: bytes, until: Callable[[Message], bool], *, keep: bool
    ) -> Message:
        done = False
        try:
            if not stream.write_nowait(raw):
                await stream.write(raw)
            await stream.confirm()
            for _ in range(self._limits.dht_answers_per_question_max):
                answer = Message()
                answer.ParseFromString(await read_message(stream, self._limits.dht_answer_bytes_max))
                if until(answer):
                    done = True
                    return answer
            raise ValueError("other answers than the one that was asked for")
        finally:
            if done and keep:
                self._keep(stream)
            else:
                stream.reset_nowait()

    def _keep(self, stream: YamuxStream) -> None:
        idle = self._idle.setdefault(stream.muxed_conn, [])
        if len(idle) < self._limits.dht_kept_streams_max and not (stream.finished_there or stream.unread_bytes):
            idle.append(stream)
        else:
            stream.reset_nowait()


def message(kind: Any, key: bytes = b"") -> Message:
    """A message of this kind."""
    made = Message()
    made.type = kind
    made.key = key
    return made
