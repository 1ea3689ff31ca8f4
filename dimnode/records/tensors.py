"""Tensors as bytes: `tensors/1`, the form of every input, output and aggregate.

Rule: the same tensors have exactly one encoding, so equal values have equal CIDs. The blob is a msgpack array of
[name, dtype, shape, bytes], sorted by name; numbers are little endian in C order. (Safetensors was not taken: its
JSON header has many spellings for the same tensors, so equal values would get different CIDs.)
Pure: no I/O, no clock, no NumPy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

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
