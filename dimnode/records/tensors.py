"""Tensors as bytes: `tensors/1`, the form of every input, output and aggregate.

Rule: the same tensors have exactly one encoding, so equal values have equal CIDs. The blob is a msgpack array of
[name, dtype, shape, bytes], sorted by name; numbers are little endian in C order. (Safetensors was not taken: its
JSON header has many spellings for the same tensors, so equal values would get different CIDs.)
Pure: no I/O, no clock, no NumPy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, cast

import msgpack

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named array. `raw` holds prod(shape) items of `dtype`, little endian, C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: bytes

    @property
    def items(self) -> int:
        """How many numbers it holds (1 for a scalar)."""
        return prod(self.shape)


def encode_tensors(tensors: Iterable[Tensor]) -> bytes:
    """The one encoding of these tensors. Raises `PeerFault` when they are not a valid set."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    rows = [[t.name, t.dtype, list(t.shape), t.raw] for t in ordered]
    _check_rows(rows)
    packed: bytes = msgpack.packb(rows)
    if len(packed) > LIMITS.records.tensor_blob_bytes_max:
        raise PeerFault("tensors: too large")
    return packed


def decode_tensors(blob: bytes) -> tuple[Tensor, ...]:
    """The tensors of a blob, sorted by name. Raises `PeerFault` for anything that is not the one encoding."""
    limits = LIMITS.records
    if len(blob) > limits.tensor_blob_bytes_max:
        raise PeerFault("tensors: too large")
    try:
        rows = msgpack.unpackb(
            blob,
            list_hook=_list_counter(),
            max_bin_len=len(blob),
            max_str_len=256,
            max_array_len=max(limits.tensors_per_blob_max, 4),
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PeerFault(f"tensors: {type(error).__name__}") from None
    _check_rows(rows)
    if msgpack.packb(rows) != blob:
        raise PeerFault("tensors: not canonical")
    return tuple(Tensor(name, dtype, tuple(shape), raw) for name, dtype, shape, raw in rows)


def view_tensors(blob: memoryview) -> tuple[Tensor, ...]:
    """As `decode_tensors`, but nothing is copied: `raw` is a view of the blob, good for its buffer and nothing else.

    Raises `PeerFault`.
    """
    view, places = memoryview(blob), tensor_places(blob)
    return tuple(Tensor(name, dtype, shape, cast(bytes, view[a:b])) for name, dtype, shape, a, b in places)


def tensor_heads(blob: bytes | memoryview) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Name, dtype and shape of each tensor, without a look at the numbers. Raises `PeerFault` as `decode_tensors`."""
    return tuple((name, dtype, shape) for name, dtype, shape, _, _ in tensor_places(blob))


def tensor_places(blob: bytes | memoryview) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Name, dtype, shape, and where the numbers of each tensor begin and end in the blob: nothing is copied.

    Accepts exactly what `decode_tensors` accepts. Raises `PeerFault`.
    """
    if len(blob) > LIMITS.records.tensor_blob_bytes_max:
        raise PeerFault("tensors: too large")
    reader = _Reader(blob)
    try:
        places = [_place(reader) for _ in range(reader.array(LIMITS.records.tensors_per_blob_max))]
    except (IndexError, UnicodeDecodeError):
        raise PeerFault("tensors: cut off") from None
    if not places:
        raise PeerFault("tensors: count")
    if reader.at != len(blob):
        raise PeerFault("tensors: length")
    names = [place[0].encode() for place in places]
    if any(name <= previous for previous, name in pairwise(names)):
        raise PeerFault("tensors: order of names")
    return places


def _place(reader: "_Reader") -> tuple[str, str, tuple[int, ...], int, int]:
    if reader.array(4) != 4:
        raise PeerFault("tensors: row")
    name, dtype = reader.text(), reader.text()
    if not 0 < len(name) <= 128:
        raise PeerFault("tensors: name")
    if dtype not in ITEM_BYTES:
        raise PeerFault("tensors: dtype")
    shape = tuple(reader.number() for _ in range(reader.array(LIMITS.records.tensor_dimensions_max)))
    if any(size >= 2**31 for size in shape):
        raise PeerFault("tensors: shape")
    start, end = reader.binary()
    if end - start != prod(shape) * ITEM_BYTES[dtype]:
        raise PeerFault("tensors: length of bytes")
    return name, dtype, shape, start, end


class _Reader:
    """The five shapes of msgpack that tensors/1 uses, each with its shortest header only."""

    def __init__(self, blob: bytes | memoryview) -> None:
        self._blob = blob
        self.at = 0

    def array(self, longest: int) -> int:
        """How many entries follow."""
        first = self._byte()
        count = first - 0x90 if 0x90 <= first <= 0x9F else self._wide(2 if first == 0xDC else 0, 0x10)
        if not 0 <= count <= longest:
            raise PeerFault("tensors: list")
        return count

    def text(self) -> str:
        """A string of at most 256 bytes."""
        first = self._byte()
        width = {0xD9: 1, 0xDA: 2}.get(first, 0)
        count = first - 0xA0 if 0xA0 <= first <= 0xBF else self._wide(width, 0x20 if width == 1 else 0x100)
        if not 0 <= count <= 256:
            raise PeerFault("tensors: text")
        start, self.at = self.at, self.at + count
        if self.at > len(self._blob):
            raise PeerFault("tensors: cut off")
        return str(self._blob[start : self.at], "utf-8")

    def number(self) -> int:
        """An integer from 0 to 2^32 - 1."""
        first = self._byte()
        if first < 0x80:
            return first
        width = {0xCC: 1, 0xCD: 2, 0xCE: 4}.get(first)
        if width is None:
            raise PeerFault("tensors: shape")
        return self._wide(width, 0x80 if width == 1 else 1 << (width * 4))

    def binary(self) -> tuple[int, int]:
        """Where bytes begin and end."""
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4}.get(self._byte())
        if width is None:
            raise PeerFault("tensors: bytes")
        count = self._wide(width, 0 if width == 1 else 1 << (width * 4))
        start, self.at = self.at, self.at + count
        if self.at > len(self._blob):
            raise PeerFault("tensors: cut off")
        return start, self.at

    def _byte(self) -> int:
        found = self._blob[self.at]
        self.at += 1
        return found

    def _wide(self, width: int, least: int) -> int:
        end = self.at + width
        if not width or end > len(self._blob):
            raise PeerFault("tensors: cut off")
        found = int.from_bytes(self._blob[self.at : end], "big")
        self.at = end
        if found < least:
            raise PeerFault("tensors: not canonical")
        return found


def _list_counter() -> Callable[[list[Any]], list[Any]]:
    """Ends the decoding at the first list too many: an empty list is one byte here and a hundred in memory."""
    left = 2 * LIMITS.records.tensors_per_blob_max + 1

    def count(found: list[Any]) -> list[Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("more lists than tensors have")
        return found

    return count


def _check_rows(rows: Any) -> None:
    if type(rows) is not list or not 0 < len(rows) <= LIMITS.records.tensors_per_blob_max:
        raise PeerFault("tensors: count")
    previous = b""
    for row in rows:
        if type(row) is not list or len(row) != 4:
            raise PeerFault("tensors: row")
        _check_row(*row)
        name = row[0].encode()
        if name <= previous:
            raise PeerFault("tensors: order of names")
        previous = name


def _check_row(name: Any, dtype: Any, shape: Any, raw: Any) -> None:
    if type(name) is not str or not 0 < len(name) <= 128:
        raise PeerFault("tensors: name")
    if type(dtype) is not str or dtype not in ITEM_BYTES:
        raise PeerFault("tensors: dtype")
    if type(shape) is not list or len(shape) > LIMITS.records.tensor_dimensions_max:
        raise PeerFault("tensors: shape")
    if any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
        raise PeerFault("tensors: shape")
    if type(raw) is not bytes or len(raw) != prod(shape) * ITEM_BYTES[dtype]:
        raise PeerFault("tensors: length of bytes")
