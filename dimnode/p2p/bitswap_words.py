"""Messages of bitswap 1.2.0: what a peer wants, blocks, and who has what; protobuf, read and written by hand.

A message holds wants (a CID each, the block or only whether it is there), blocks (a CID's prefix and the bytes that it
is of), and presences (have it, have it not). Fields of later versions are passed over.
Rule: nothing is read beyond the bounds that the caller gives, and a block's CID is made of its bytes, never believed.
Pure: no I/O, no clock.

Source: specs.ipfs.tech/bitswap-protocol.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, BitswapLimits
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, is_cid
from dimnode.records.varint import varint

BITSWAP: Final = "/ipfs/bitswap/1.2.0"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LENGTH_BYTES_MAX: Final = 4
_FIELDS_PER_ENTRY_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Want:
    """One entry of a wantlist. `cid`: as it came, perhaps of a kind that we have none of.

    have: tell only whether it is there. say_no: and also when it is not.
    """

    cid: bytes
    have: bool = False
    say_no: bool = True
    cancel: bool = False


@dataclass(slots=True)
class Message:
    """What came. `full`: the wants replace all earlier ones. Blocks: by the CID that their bytes have."""

    full: bool = False
    wants: list[Want] = field(default_factory=list)
    blocks: list[tuple[Cid, memoryview]] = field(default_factory=list)
    presences: list[tuple[bytes, bool]] = field(default_factory=list)


# ---- writing


def pack_wants(wants: Iterable[Want], *, full: bool = False) -> bytes:
    """A whole message, with its length before it."""
    entries = b"".join(_nested(1, _entry(want)) for want in wants)
    return _with_length(_nested(1, entries + (b"\x10\x01" if full else b"")))


def pack_answer(blocks: Sequence[tuple[Cid, bytes]], presences: Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """A whole message in pieces, so that blocks are not copied."""
    pieces = list[bytes]()
    for cid, content in blocks:
        inner = _nested(1, cid[: len(BLOB_PREFIX)]) + b"\x12" + varint(len(content))
        pieces += [b"\x1a" + varint(len(inner) + len(content)) + inner, content]
    said = b"".join(_nested(4, _nested(1, cid) + (b"" if have else b"\x10\x01")) for cid, have in presences)
    pieces.append(said)
    return [varint(sum(map(len, pieces))), *pieces]


def _entry(want: Want) -> bytes:
    flags = b"\x18\x01" * want.cancel + b"\x20\x01" * want.have + b"\x28\x01" * want.say_no
    return _nested(1, want.cid) + b"\x10\x01" + flags


def _nested(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + varint(len(body)) + body


def _with_length(body: bytes) -> bytes:
    return varint(len(body)) + body


# ---- reading


def length_in(said: bytes, bytes_max: int) -> int | None:
    """The length that these first bytes of a message state; None: one more byte. Raises `PeerFault`."""
    if said[-1] >= 128 and len(said) < _LENGTH_BYTES_MAX:
        return None
    length = sum((byte & 127) << 7 * at for at, byte in enumerate(said))
    if said[-1] >= 128 or length > bytes_max:
        raise PeerFault("bitswap: too long")
    return length


def read_message(raw: memoryview, limits: BitswapLimits = LIMITS.bitswap) -> Message:
    """What a message of a bounded length says. Hashes its blocks. Raises `PeerFault`."""
    found, room = Message(), _Room(limits.entries_max * _FIELDS_PER_ENTRY_MAX)
    for number, value in _fields(raw, room):
        match number, value:
            case 1, memoryview():
                _read_wantlist(value, found, room, limits)
            case 3, memoryview():
                found.blocks.append(_read_block(value, room, limits))
            case 4, memoryview():
                found.presences.append(_read_presence(value, room, limits))
            case 1 | 3 | 4, _:
                raise PeerFault("bitswap: form")
        if len(found.wants) + len(found.presences) + len(found.blocks) > limits.entries_max:
            raise PeerFault("bitswap: too long a list")
    return found


def _read_wantlist(raw: memoryview, found: Message, room: "_Room", limits: BitswapLimits) -> None:
    for number, value in _fields(raw, room):
        match number, value:
            case 1, memoryview():
                found.wants.append(_read_want(value, room, limits))
            case 2, int():
                found.full = bool(value)
            case 1 | 2, _:
                raise PeerFault("bitswap: form")


def _read_want(raw: memoryview, room: "_Room", limits: BitswapLimits) -> Want:
    cid, flags = b"", dict[int, bool]()
    for number, value in _fields(raw, room):
        if number == 1:
            cid = _cid(value, limits)
        elif isinstance(value, int):
            flags[number] = bool(value)
    if not cid:
        raise PeerFault("bitswap: a want without a CID")
    return Want(cid, flags.get(4, False), flags.get(5, False), flags.get(3, False))


def _read_block(raw: memoryview, room: "_Room", limits: BitswapLimits) -> tuple[Cid, memoryview]:
    prefix, content = b"", memoryview(b"")
    for number, value in _fields(raw, room):
        if number in (1, 2) and not isinstance(value, memoryview):
            raise PeerFault("bitswap: form")
        if number == 1:
            prefix = _cid(value, limits)
        elif number == 2 and isinstance(value, memoryview):
            content = value
    if len(content) > limits.block_bytes_max:
        raise PeerFault("bitswap: too large a block")
    if prefix not in (BLOB_PREFIX, TREE_PREFIX):
        raise PeerFault("bitswap: a block of a kind that was not asked for")
    return Cid(prefix + hashlib.sha256(content).digest()), content


def _read_presence(raw: memoryview, room: "_Room", limits: BitswapLimits) -> tuple[bytes, bool]:
    cid, have = b"", True
    for number, value in _fields(raw, room):
        if number == 1:
            cid = _cid(value, limits)
        elif number == 2:
            have = value == 0
    return cid, have


def _cid(value: "int | memoryview", limits: BitswapLimits) -> bytes:
    if isinstance(value, int) or not 0 < len(value) <= limits.cid_bytes_max:
        raise PeerFault("bitswap: CID")
    return bytes(value)


def ours(cid: bytes) -> Cid | None:
    """The CID, if it is of the kind that our blocks have."""
    return Cid(cid) if is_cid(cid) else None


class _Room:
    """How many fields a message may still have: an empty field takes two bytes, and Python's time."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def _fields(raw: memoryview, room: _Room) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field, in order; a fixed-size number is passed over."""
    at = 0
    while at < len(raw):
        room.left -= 1
        if room.left < 0:
            raise PeerFault("bitswap: too long a list")
        tag, at = _varint_at(raw, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint_at(raw, at)
            yield number, value
        elif kind == _BYTES:
            size, at = _varint_at(raw, at)
            if size > len(raw) - at:
                raise PeerFault("bitswap: cut off")
            yield number, raw[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > len(raw):
                raise PeerFault("bitswap: cut off")
        else:
            raise PeerFault("bitswap: form")


def _varint_at(raw: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise PeerFault("bitswap: cut off")
        byte = raw[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
    raise PeerFault("bitswap: number")
