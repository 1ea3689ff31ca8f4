"""Items as people have them (a text, a file's bytes, a row of numbers) to tensors/1 and back, without NumPy.

Rule: a number arrives as it is or is refused with its item; an answer is taken apart along the axis of its items.
Pure: no I/O, no clock.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dimnode.errors import PeerFault, Refused
from dimnode.records.items import SIZES, item_tensors, sizes_of
from dimnode.records.lists import ITEM_CODES, read_output
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from dimnode.records.transforms import Source

Values = Mapping[str, Any]
"""One item: by the name of each declared input a text, bytes, a row of numbers, or nested lists."""
_INTEGERS: Final = ("int64", "int32", "int16", "int8", "uint8", "bool")


def item_blob(sources: Sequence[Source], items: Sequence[Values]) -> bytes:
    """The input blob of some items. Raises `Refused` naming the item, from 1 among these."""
    try:
        return encode_tensors([tensor for source in sources for tensor in _tensors(source, items)])
    except PeerFault as fault:
        raise Refused("E-input-03", f"the input cannot be used: {fault.rule}") from None


def _tensors(source: Source, items: Sequence[Values]) -> list[Tensor]:
    found = []
    for number, item in enumerate(items, 1):
        if source.name not in item:
            raise Refused("E-input-07", f"item {number}: {source.kind} {source.name!r} is missing")
        found.append(item[source.name])
    if source.kind == "text":
        return item_tensors(source.name, [_text(value, number) for number, value in enumerate(found, 1)])
    if source.kind in ("image", "audio", "bytes"):
        return item_tensors(source.name, [_file(value, number) for number, value in enumerate(found, 1)])
    dtype = source.dtype or ("float64" if source.kind == "rows" else "float32")
    shape: tuple[int, ...] = ()
    raw = []
    for number, value in enumerate(found, 1):
        inner, flat = flattened(value, number)
        if number > 1 and inner != shape:
            raise Refused("E-input-06", f"item {number}: it has the shape {list(inner)}, the first {list(shape)}")
        shape = inner
        raw.append(packed(flat, dtype, number))
    return [Tensor(source.name, dtype, (len(found), *shape), b"".join(raw))]


def _text(value: Any, number: int) -> bytes:
    if not isinstance(value, str):
        raise Refused("E-input-01", f"item {number}: no text, but {str(value)[:40]!r}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Refused("E-input-01", f"item {number}: no text, but half a character") from None


def _file(value: Any, number: int) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise Refused("E-input-01", f"item {number}: no file's bytes, but {str(value)[:40]!r}")
    return bytes(value)


def flattened(value: Any, number: int) -> tuple[tuple[int, ...], list[float]]:
    """Shape and numbers of nested lists. Raises `Refused`."""
    if not isinstance(value, list | tuple):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused("E-input-01", f"item {number}: {str(value)[:40]!r} is no number")
        return (), [value]
    parts = [flattened(part, number) for part in value]
    if any(shape != parts[0][0] for shape, _ in parts):
        raise Refused("E-input-01", f"item {number}: its rows differ in length")
    inner = parts[0][0] if parts else ()
    return (len(value), *inner), [one for _, flat in parts for one in flat]


def packed(flat: Sequence[float], dtype: str, number: int) -> bytes:
    """Numbers in this type. Raises `Refused` for what it cannot hold, for NaN and infinity, and for a type that no
    input has: the manifest may be a stranger's."""
    if dtype not in ITEM_CODES:
        raise Refused("E-input-01", f"item {number}: the model declares {dtype!r}", "no input has that type")
    values: Sequence[Any] = flat
    try:
        if not all(map(math.isfinite, flat)):  # OverflowError: a whole number that no float can hold
            raise Refused("E-input-02", f"item {number}: NaN or infinity", "a model cannot use it")
        if dtype in _INTEGERS:
            values = [int(one) for one in flat]
            if any(whole != one for whole, one in zip(values, flat, strict=True)):
                raise ValueError("not every number is whole")
        return struct.pack(f"<{len(values)}{ITEM_CODES[dtype]}", *values)
    except (struct.error, OverflowError, ValueError) as error:
        raise Refused("E-input-01", f"item {number}: cannot be used as {dtype}", str(error)) from None


def need_rows(blob: bytes, count: int) -> None:
    """What `answer_rows` would say of an answer, without taking it apart: raises `Refused` E-input-08 also for what is
    no answer at all."""
    try:
        tensors = {tensor.name: tensor for tensor in decode_tensors(blob)}
        for name, tensor in tensors.items():
            if name.endswith(SIZES) and name.removesuffix(SIZES) in tensors:
                continue
            sizes = tensors.get(name + SIZES)
            rows = len(sizes_of(tensor, sizes)) if sizes is not None else tensor.shape[0] if tensor.shape else 0
            if rows != count:
                what = f"the model's answer {name[:64]!r} has not one row per item"
                raise Refused("E-input-08", what, f"{rows} for {count} items", "run it without --batch")
    except PeerFault as fault:
        raise Refused("E-input-08", f"the model's answer cannot be used: {fault.rule}") from None


def answer_rows(blob: bytes, count: int, texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What an answer says of each of its `count` items, by tensor name; `texts` are names of UTF-8.

    Raises `Refused` E-input-08 when a tensor has not one row per item.
    """
    whole = read_output(blob)
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, value in whole.items():
        if name.endswith(SIZES) and name.removesuffix(SIZES) in whole:
            continue
        parts = value if isinstance(value, list) else []
        if (sizes := whole.get(name + SIZES)) is not None:
            parts = _parts(value, sizes, name in texts)
        if len(parts) != count:
            what = f"the model's answer {name[:64]!r} has not one row per item"
            raise Refused("E-input-08", what, f"{len(parts)} for {count} items", "run it without --batch")
        for row, part in zip(rows, parts, strict=True):
            row[name] = part
    return rows


def _parts(value: Any, sizes: Any, is_text: bool) -> list[Any]:
    """Taken apart by sizes that may be anybody's."""
    fits = isinstance(value, list) and isinstance(sizes, list)
    if not fits or any(type(size) is not int or size < 0 for size in sizes) or sum(sizes) != len(value):
        raise Refused("E-input-08", "the sizes in the model's answer do not add up", "", "run it without --batch")
    parts, start = [], 0
    for size in sizes:
        part = value[start : start + size]
        parts.append(as_text(part) if is_text else part)
        start += size
    return parts


def as_text(part: Sequence[Any]) -> str:
    """Numbers as the UTF-8 that they should be; what is none is replaced."""
    try:
        return bytes(part).decode("utf-8", "replace")
    except (TypeError, ValueError):
        return "?"
