"""Serving large blobs, leaf by leaf, also of those that are still coming in.

Rule: default deny. `may_fetch` is asked when a root is opened and again while it is served; "not here" and "not for
you" are one word. A stream holds at most three leaves in memory; a peer has few streams, all peers together a bound,
and the last of them are for those who were not served much (`blob_places.py`).
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, ExchangeLimits
from dimnode.p2p.blob_places import Places, group_of
from dimnode.p2p.blob_words import (
    ABSENT,
    HAVE,
    HERE,
    LEAF,
    NODE,
    REFUSED,
    Have,
    Leaf,
    Node,
    Open,
    pack_bits,
    read_question,
)
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.p2p.host.yamux_slots import Slot, Slots
from dimnode.records.ids import Cid, PeerId
from dimnode.records.unixfs import LEAF_BYTES, Layout, Tree
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

log = logging.getLogger(__name__)


class Source(Protocol):
    """Leaves of a blob that is here, whole or in part. `leaf` may block for a disk."""

    tree: Tree
    layout: Layout

    @property
    def whole(self) -> bool:
        """Whether every leaf is here."""

    def have(self) -> bytes:
        """One byte a leaf."""

    def has(self, leaf: int) -> bool:
        """Whether this one is here."""

    def leaf(self, leaf: int) -> bytes:
        """Its bytes. Raises `OSError`."""

    def leaf_at_once(self, leaf: int, places: Sequence[memoryview]) -> bool:
        """The same, into `places`, which are as long, if that takes no waiting; False when it does."""

    def close(self) -> None:
        """No more."""


MayFetch = Callable[[PeerId, Cid], bool]
OpenSource = Callable[[Cid], Source | None]
"""Blocks: called in a thread."""
_QUESTION_READ_BYTES: Final = 4096
_HEAD_BYTES_MAX: Final = 64


def nobody(_peer: PeerId, _root: Cid) -> bool:
    """The default: deny."""
    return False


@dataclass(slots=True)
class Served:
    """Counters since the start."""

    streams: int = 0
    refused: int = 0
    leaves: int = 0
    bytes: int = 0


class BlobServer:
    """The answering side of all streams."""

    def __init__(
        self, open_source: OpenSource, may_fetch: MayFetch = nobody, limits: ExchangeLimits = LIMITS.exchange
    ) -> None:
        self._open_source, self.may_fetch, self._limits = open_source, may_fetch, limits
        self.owed: MayFetch = nobody
        self.places = Places(limits)
        self.served = Served()

    async def serve(self, stream: Stream, first: Any) -> None:
        """Answer until the peer ends, is silent for long, or is not allowed any more. Raises `PeerFault`."""
        peer, asked = PeerId(stream.peer), read_question(first)
        if not isinstance(asked, Open) or not self.may_fetch(peer, asked.root):
            return await self._refuse(stream)
        group = group_of(stream.comes_from)
        if not self.places.take(peer, group, self.owed(peer, asked.root)):
            return await self._refuse(stream)
        try:
            source = await trio.to_thread.run_sync(self._open_source, asked.root)
            if source is None:
                return await self._refuse(stream)
            try:
                self.served.streams += 1
                await _Serving(stream, peer, asked.root, source, self).run()
            finally:
                source.close()
        finally:
            self.places.leave(peer, group)
        return None

    async def _refuse(self, stream: Stream) -> None:
        self.served.refused += 1
        with trio.fail_after(self._limits.silence_seconds_max):
            await stream.write(pack_frame(REFUSED) + END)

    @property
    def limits(self) -> ExchangeLimits:
        """Its bounds."""
        return self._limits


class _Answer(NamedTuple):
    """What is to be sent, and memory that is free again when it is."""

    pieces: Sequence[bytes | Slot]
    room: Slots | None = None


_NOT_HERE: Final = _Answer((pack_frame([ABSENT]),))


class _Serving:
    """One stream. One task loads what is asked for, one writes, so that disk and wire work at the same time."""

    def __init__(self, stream: Stream, peer: PeerId, root: Cid, source: Source, server: BlobServer) -> None:
        self._stream, self._peer, self._root, self._source, self._server = stream, peer, root, source, server
        self._limits = server.limits
        self._rooms: list[Slots] = []
        self._places = {place: at for at, place in enumerate(source.layout.places())} if source.layout.is_tree else {}

    async def run(self) -> None:
        bits = b"" if self._source.whole else pack_bits(self._source.have())
        here = pack_frame([HERE, self._source.tree.file_bytes, bits])
        loaded_in, loaded = trio.open_memory_channel[_Answer](1)
        fault: PeerFault | None = None
        try:
            async with trio.open_nursery() as nursery:  # the writer; it ends with what was loaded
                nursery.start_soon(self._write, loaded)
                async with loaded_in:
                    await loaded_in.send(_Answer((here,)))
                    await self._load(loaded_in)
        except* (StreamEnded, StreamLost, trio.TooSlowError) as gone:
            log.debug("serving a blob ended: %r", gone.exceptions[0])
            await self._stream.reset()
        except* PeerFault as broken:
            fault = next(error for error in broken.exceptions if isinstance(error, PeerFault))
        if fault is not None:
            raise fault

    async def _load(self, loaded: trio.MemorySendChannel[_Answer]) -> None:
        decoder = FrameDecoder(self._limits.question_bytes_max)
        allowed_at = trio.current_time()
        while not decoder.ended:
            chunk = b""
            with trio.move_on_after(self._limits.idle_seconds_max):
                chunk = await self._stream.read(_QUESTION_READ_BYTES)
            if not chunk:
                break
            for body in decoder.feed(chunk):
                now = trio.current_time()
                if now - allowed_at > self._limits.permission_seconds:
                    allowed_at = now
                    if not self._server.may_fetch(self._peer, self._root):
                        await loaded.send(_Answer((END,)))
                        return
                await loaded.send(await self._answer(unpack_body(body, 1)))
        await loaded.send(_Answer((END,)))

    async def _answer(self, asked: Any) -> _Answer:
        match read_question(asked):
            case Leaf(index) if self._source.has(index):
                return await self._leaf(index)
            case Node(level, index) if (level, index) in self._places:
                return _Answer((pack_frame([NODE, self._source.tree.nodes[self._places[level, index]]]),))
            case Have():
                have = b"" if self._source.whole else pack_bits(self._source.have())
                return _Answer((pack_frame([HAVE, have]),))
            case Open():
                raise PeerFault("blob: opened twice")
            case _:
                return _NOT_HERE

    async def _leaf(self, index: int) -> _Answer:
        """What is in memory already is copied at once: a way to a thread and back takes longer."""
        room = self._rooms.pop() if self._rooms else Slots(LEAF_BYTES + _HEAD_BYTES_MAX)
        size = self._source.layout.size(0, index)
        pieces: Sequence[bytes | Slot]
        pieces, places = room.lay(_leaf_head(index, size), size)
        if not self._source.leaf_at_once(index, places):
            try:
                content = await trio.to_thread.run_sync(self._source.leaf, index)
            except OSError:
                return _Answer(_NOT_HERE.pieces, room)
            pieces = (_leaf_head(index, len(content)), content)
        self._server.served.leaves += 1
        self._server.served.bytes += size
        return _Answer(pieces, room)

    async def _write(self, loaded: trio.MemoryReceiveChannel[_Answer]) -> None:
        with trio.CancelScope() as scope:
            async for pieces, room in loaded:
                scope.deadline = trio.current_time() + self._limits.leaf_seconds_max
                await self._stream.write(*pieces)
                scope.deadline = math.inf
                if room is not None:
                    self._rooms.append(room)  # three at most: what is loaded, what waits, and what is written
        if scope.cancelled_caught:
            raise trio.TooSlowError


def _leaf_head(index: int, size: int) -> bytes:
    return pack_frame([LEAF, index, size])
