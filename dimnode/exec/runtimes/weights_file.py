"""A safetensors file as named arrays of bytes: strict, and without a copy.

Rule: a header that is too long, a dtype that is unknown, offsets that overlap, leave a gap or do not fit the shape, and
bytes behind the last tensor end the load before anything is believed. Nothing here can execute: a header is JSON, and
the rest is numbers.
Pure: no I/O, no clock. Source: github.com/huggingface/safetensors, README "Format".
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.config_file import each_once
from dimnode.limits import LIMITS

ITEM_BYTES: Final = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as it lies in the file, little endian, rows first."""

    dtype: str
    shape: tuple[int, ...]
    raw: memoryview


def read_weights(raw: bytes | memoryview) -> dict[str, Stored]:
    """All tensors by name. Raises `RunFailed` (bad weights)."""
    if len(raw) < _LENGTH_BYTES:
        raise _bad("the file ends within its first eight bytes")
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if length > LIMITS.exec.weights_header_bytes_max or length > len(raw) - _LENGTH_BYTES:
        raise _bad(f"its header claims {length} bytes")
    entries = _header(bytes(raw[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    body = memoryview(raw)[_LENGTH_BYTES + length :]
    found, reached = {}, 0
    for name, dtype, shape, start, stop in sorted(entries, key=lambda entry: entry[3:]):
        if start != reached or stop - start != math.prod(shape) * ITEM_BYTES[dtype] or stop > len(body):
            raise _bad(f"the offsets of {name[:80]!r} overlap, leave a gap or do not fit its shape")
        found[name] = Stored(dtype, shape, body[start:stop])
        reached = stop
    if reached != len(body):
        raise _bad("bytes lie behind the last tensor")
    return found


def _header(text: bytes) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its header is not JSON: {str(error)[:80]}") from None
    if type(header) is not dict or len(header) > LIMITS.exec.weights_tensors_max:
        raise _bad("its header is no map of tensors")
    header.pop("__metadata__", None)  # free text, never looked at
    return [_entry(name, said) for name, said in header.items()]


def _entry(name: str, said: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    match said:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)], **rest}:
            whole = all(type(size) is int and 0 <= size < 2**48 for size in shape)
            if not rest and whole and dtype in ITEM_BYTES and len(shape) <= 8 and 0 <= start <= stop:
                return name, dtype, tuple(shape), start, stop
    raise _bad(f"the entry of {name[:80]!r} is none of a tensor that is known here")


def _bad(why: str) -> RunFailed:
    return RunFailed(orders.BAD_WEIGHTS, f"no safetensors file: {why}")
