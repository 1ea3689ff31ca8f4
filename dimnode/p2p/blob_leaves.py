"""Answers to `Leaf`s, read the moment they come: no task has a turn for it, and content is copied once.

They are cut out of what the stream pours, heads into a few bytes and contents into memory of the fetch's. What is said
of them (`came`, `absent`) is said inside the turn of the connection's reader, so it must be quick.
While the thread that checks leaves is busy, the next one is hashed here, piece by piece as it comes: so whoever is free
does it, and on a machine with few cores no third one is needed.
Rule: what was not asked for is a fault of the peer, and ends its answers; who waits for them hears of it.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from dimnode.errors import PeerFault
from dimnode.p2p.blob_words import ABSENT, LEAF, Refusal
from dimnode.records.unixfs import LEAF_BYTES
from dimnode.wire import HEADER_BYTES, unpack_body

_HEAD_BYTES_MAX: Final = 64
_CONTAINERS_MAX: Final = 2


Came = Callable[[int, memoryview, bytearray, bytes | None], None]
"""Told of a leaf: bytes that nobody has checked, their memory, which is not ours any more, their SHA-256 or None."""


class Rooms:
    """Memory for leaves that come, wait or are being written: made when it is first needed, and used again."""

    def __init__(self, rooms_max: int, wanted: Callable[[], None] = lambda: None) -> None:
        """wanted: told, in the turn of whoever asks, that there is none."""
        self._left, self._wanted = rooms_max, wanted
        self._free: list[bytearray] = []
        self.are_wanted = False

    def take(self) -> bytearray | None:
        """Memory for one leaf, or None while all of it is in use."""
        if self._free:
            return self._free.pop()  # the last one that was used: the likeliest to be in a cache
        if not self._left:
            self.are_wanted = True
            self._wanted()
            return None
        self._left -= 1
        return bytearray(LEAF_BYTES)

    def give(self, room: bytearray) -> None:
        """It is not needed any more."""
        self.are_wanted = False  # or whoever goes on says so again
        self._free.append(room)


class LeafAnswers:
    """What one stream brings. `asked`: leaves that were asked for and did not come yet, in their order."""

    def __init__(
        self, rooms: Rooms, came: Came, absent: Callable[[int], None], hash_here: Callable[[], bool] = lambda: False
    ) -> None:
        """hash_here: asked when a leaf begins."""
        self._rooms, self._came, self._absent, self._hash_here = rooms, came, absent, hash_here
        self.asked: deque[int] = deque()
        self.waits_for_room = False
        self._head = bytearray()
        self._size = -1  # of the leaf that comes; below 0: a head comes
        self._room: bytearray | None = None
        self._content = memoryview(b"")
        self._filled = 0
        self._hash: Any = None  # of what is filled, when it is hashed here
        self._ended = False
        self._fault: Exception | None = None
        self._news = trio.Event()
        self._began = trio.current_time()

    # ---- for the task that asks

    def expect(self, leaf: int) -> None:
        """It was asked for."""
        if not self.asked:
            self._began = trio.current_time()
        self.asked.append(leaf)

    async def news(self, seconds_max: float | None = None) -> None:
        """Wait for `wake`, so long at most. Raises `PeerFault`, and `Refusal` when the peer will say no more."""
        if not self._ended:
            if seconds_max is None:
                await self._news.wait()
            else:
                with trio.move_on_after(seconds_max):
                    await self._news.wait()
        self._news = trio.Event()
        if self._fault is not None:
            raise self._fault

    def wake(self) -> None:
        """There is something to do for the one that waits."""
        self._news.set()

    def began(self) -> float | None:
        """When the answer that comes now was first waited for; None when none is, or it waits for us."""
        return self._began if self.asked and not self.waits_for_room else None

    def leave(self) -> None:
        """Nobody reads on: memory of the half leaf is free again."""
        self._ended = True
        if self._room is not None:
            self._rooms.give(self._room)
            self._room = None

    # ---- for the stream

    def take(self, payload: bytes | memoryview) -> int:
        """See `Taker`. All of it, unless there is no memory for the next leaf."""
        at, end = 0, len(payload)
        try:
            while at < end and not self._ended:
                taken = self._take_head(payload, at) if self._size < 0 else self._take_content(payload, at)
                if not taken:
                    return at
                at += taken
        except (PeerFault, Refusal) as fault:
            self._fault = fault
            self.leave()
            self.wake()
        return end

    def over(self) -> None:
        """See `Taker`."""
        self._ended = True
        self.wake()

    def _take_head(self, payload: bytes | memoryview, at: int) -> int:
        head = self._head
        wanted = HEADER_BYTES if len(head) < HEADER_BYTES else self._head_bytes()
        taken = payload[at : at + wanted - len(head)]
        head += taken
        if len(head) == HEADER_BYTES:
            self._head_bytes()
        elif len(head) > HEADER_BYTES and len(head) == self._head_bytes():
            self._act_on(unpack_body(bytes(head[HEADER_BYTES:]), _CONTAINERS_MAX))
            head.clear()
        return len(taken)

    def _head_bytes(self) -> int:
        size = int.from_bytes(self._head[:HEADER_BYTES], "big")
        if not size:
            raise Refusal  # the end frame: the peer says no more
        if size > _HEAD_BYTES_MAX:
            raise PeerFault("frame too long")
        return HEADER_BYTES + size

    def _act_on(self, answer: Any) -> None:
        if not self.asked:
            raise PeerFault("blob: answer")
        match answer:
            case [str(word), int(said), int(size)] if word == LEAF and said == self.asked[0]:
                if type(size) is not int or not 0 < size <= LEAF_BYTES:
                    raise PeerFault("blob: answer")
                self._size = size
            case [str(word)] if word == ABSENT:
                self._next()
                self._absent(self.asked.popleft())
            case _:
                raise PeerFault("blob: answer")

    def _take_content(self, payload: bytes | memoryview, at: int) -> int:
        if self._room is None and not self._make_room():
            return 0
        taken = min(len(payload) - at, self._size - self._filled)
        piece = self._content[self._filled : self._filled + taken]
        piece[:] = payload[at : at + taken]
        if self._hash is not None:
            self._hash.update(piece)
        self._filled += taken
        if self._filled == self._size:
            assert self._room is not None
            room, self._room, self._size = self._room, None, -1
            self._next()
            self._came(self.asked.popleft(), self._content, room, self._hash and self._hash.digest())
        return taken

    def _make_room(self) -> bool:
        waited, self._room = self.waits_for_room, self._rooms.take()
        self.waits_for_room = self._room is None
        if self._room is None:
            return False
        if waited:  # the peer was held up by us: it owes the rest of this leaf from now on
            self._next()
        self._content, self._filled = memoryview(self._room)[: self._size], 0
        self._hash = hashlib.sha256() if self._hash_here() else None
        return True

    def _next(self) -> None:
        self._began = trio.current_time()
