"""Questions and answers about large blobs on `/dim/blob/1`, and how to read them from a stream.

The first question opens a root; on the same stream follow any number of questions for nodes of its tree, leaves, and
what a partial holder has by now, answered in their order. A leaf's bytes follow their answer without a frame, so that
nobody copies them once more.
Rule: an answer is read with the bound of what was asked for; whatever else comes is a fault of the peer.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, ExchangeLimits
from dimnode.p2p.host.streams import Stream
from dimnode.p2p.host.yamux_takers import Taker
from dimnode.records.ids import Cid, is_cid
from dimnode.records.unixfs import LEAF_BYTES, NODE_BYTES_MAX
from dimnode.wire import pack_frame, unpack_body

OPEN: Final = "open"
HERE: Final = "here"
NODE: Final = "node"
LEAF: Final = "leaf"
HAVE: Final = "have"
ABSENT: Final = "absent"
REFUSED: Final = "refused"
_CONTAINERS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Open:
    """May I have this blob, and how much of it is there?"""

    root: Cid


@dataclass(frozen=True, slots=True)
class Node:
    """The tree's node at this place."""

    level: int
    index: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """The bytes of this leaf."""

    index: int


@dataclass(frozen=True, slots=True)
class Have:
    """Which leaves are there by now?"""


Question = Open | Node | Leaf | Have


def pack_question(question: Question) -> bytes:
    """As one frame."""
    match question:
        case Open(root):
            return pack_frame([OPEN, bytes(root)])
        case Node(level, index):
            return pack_frame([NODE, level, index])
        case Leaf(index):
            return pack_frame([LEAF, index])
        case Have():
            return pack_frame([HAVE])


def read_question(value: Any) -> Question | None:
    """The question in an unpacked frame; None for words of a later version. Raises `PeerFault` for a broken one."""
    match value:
        case [str(word), *_] if word not in (OPEN, NODE, LEAF, HAVE):
            return None
        case ["open", bytes(root)] if is_cid(root):
            return Open(Cid(root))
        case ["node", int(level), int(index)] if _number(level) and _number(index):
            return Node(level, index)
        case ["leaf", int(index)] if _number(index):
            return Leaf(index)
        case ["have"]:
            return Have()
    raise PeerFault("blob: question")


def _number(value: int) -> bool:
    return type(value) is int and 0 <= value < 2**32


def pack_bits(have: bytes) -> bytes:
    """One byte a leaf -> one bit a leaf, the first leaf in the highest bit."""
    padded = have + bytes(-len(have) % 8)
    return int(padded.translate(_TO_DIGITS) or b"0", 2).to_bytes(len(padded) // 8, "big")


def read_bits(bits: bytes, leaves: int) -> bytes:
    """The other way. Raises `PeerFault` for another number of leaves."""
    if len(bits) != (leaves + 7) // 8:
        raise PeerFault("blob: have")
    digits = f"{int.from_bytes(bits, 'big'):0{len(bits) * 8}b}".encode()
    return digits.translate(_FROM_DIGITS)[:leaves]


_TO_DIGITS: Final = bytes(48 if value == 0 else 49 for value in range(256))
_FROM_DIGITS: Final = bytes(1 if value == 49 else 0 for value in range(256))


class Answers(Taker, Protocol):
    """Who takes answers as they come."""

    def began(self) -> float | None:
        """Since when the next one is waited for; None when none is."""


class BlobStream:
    """The asking side of one stream. One task uses it. Its methods raise `StreamEnded`, `StreamLost`, `PeerFault`.

    They wait for ever: whoever uses it looks at `overdue` now and then (a deadline for each read would cost a tenth of
    the transfer). A cancel leaves the stream useless: reset it.
    """

    def __init__(self, stream: Stream, limits: ExchangeLimits = LIMITS.exchange) -> None:
        self._stream, self._limits = stream, limits
        self._began = trio.current_time()
        self._waits = False
        self._answers: Answers | None = None

    def overdue(self, now: float) -> bool:
        """Whether the peer was silent for too long, or takes too long over one answer."""
        began = self._answers.began() if self._answers is not None else self._began if self._waits else None
        if began is None:
            return False
        silent = now - max(began, self._stream.heard_at)
        return silent > self._limits.silence_seconds_max or now - began > self._limits.leaf_seconds_max

    @property
    def bytes_in(self) -> int:
        """What came over it so far."""
        return self._stream.bytes_in

    async def ask(self, *questions: Question) -> None:
        """Answers come in the order of the questions."""
        self._begin()
        await self._stream.write(b"".join(map(pack_question, questions)))
        self._waits = False

    async def opened(self) -> tuple[int, bytes]:
        """After `Open`: bytes of the blob, and bits of what is there, none when it is whole."""
        match await self._frame(self._limits.answer_bytes_max):
            case ["here", int(size), bytes(bits)] if type(size) is int and 0 <= size <= LIMITS.store.blob_bytes_max:
                return size, bits
            case str():
                raise Refusal
        raise PeerFault("blob: answer")

    async def node(self) -> bytes | None:
        """After `Node`: its bytes, or None when it is not there."""
        match await self._frame(NODE_BYTES_MAX + 16):
            case ["node", bytes(raw)]:
                return raw
            case ["absent"]:
                return None
        raise PeerFault("blob: answer")

    async def leaf(self, index: int) -> bytes | None:
        """After `Leaf`: its bytes, or None when it is not there. They are not checked yet. Many are rather poured."""
        match await self._frame(64):
            case ["leaf", int(said), int(size)] if said == index and type(size) is int and 0 <= size <= LEAF_BYTES:
                return await self._raw(size)
            case ["absent"]:
                return None
        raise PeerFault("blob: answer")

    async def have(self) -> bytes:
        """After `Have`: bits of what is there, none when it is whole."""
        match await self._frame(self._limits.answer_bytes_max):
            case ["have", bytes(bits)]:
                return bits
        raise PeerFault("blob: answer")

    async def reset(self) -> None:
        """Give up both directions."""
        await self._stream.reset()

    def _begin(self) -> None:
        self._began = trio.current_time()
        self._waits = True

    def pour(self, answers: Answers | None) -> None:
        """What comes goes to `answers` at once; None: to this object's methods again, when all was answered."""
        self._answers = answers
        self._stream.pour(answers)

    def resume(self) -> None:
        """Give them what they did not take before."""
        self._stream.resume()

    def check_readable(self) -> None:
        """Raise when no more comes."""
        self._stream.check_readable()

    async def _frame(self, bytes_max: int) -> Any:
        self._begin()
        size = int.from_bytes(await self._raw(4), "big")
        if size > bytes_max:
            raise PeerFault("frame too long")
        if not size:
            raise Refusal  # the end frame: the peer says no more
        return unpack_body(await self._raw(size), _CONTAINERS_MAX)

    async def _raw(self, size: int) -> bytes:
        room = bytearray(size)
        self._waits = True
        await self._stream.fill(memoryview(room))
        self._waits = False
        return bytes(room)


class Refusal(Exception):
    """The peer has it not, or not for us, or will say no more: no fault."""
