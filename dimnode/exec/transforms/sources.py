"""From tensors/1 blobs and `Take`s to the inputs that `pre` declares.

Rule: as in mapping.py: what arrives is what was given, or the order fails with a sentence that says what was expected.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimnode.errors import PeerFault
from dimnode.exec import orders
from dimnode.exec.mapping import Declared, as_array, fit, open_blobs, require_finite
from dimnode.exec.orders import Take
from dimnode.exec.transforms.values import NO_ITEMS, Each, Stacked, Value, fail
from dimnode.limits import LIMITS
from dimnode.records.items import SIZES, byte_items
from dimnode.records.tensors import Tensor
from dimnode.records.transforms import Source


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was given by the names of `pre`, and how many items that is."""

    values: Mapping[str, Value]
    count: int


def read_inputs(sources: Sequence[Source], take: Sequence[Take], blobs: Sequence[bytes]) -> Inputs:
    """One value per declared input. Raises `RunFailed`: the input's fault."""
    opened = open_blobs(blobs)
    chosen = {entry.name: entry for entry in take}
    if unknown := sorted(chosen.keys() - {source.name for source in sources}):
        fail(orders.NO_TENSOR, f"the model takes no {unknown[0]!r}; it takes {_names(sources)}")
    values = {}
    for source in sources:
        if not take:
            values[source.name] = _value(source, *_by_name(source, sources, opened))
        elif source.name in chosen:
            values[source.name] = _taken(source, chosen[source.name], opened)
        else:
            fail(orders.NO_TENSOR, f"{source.name!r} is not mapped to any tensor")
    counts = {_count(value) for value in values.values()}
    if len(counts) != 1:
        fail(NO_ITEMS, f"the inputs have {' and '.join(map(str, sorted(counts)))} items", "one of each per item")
    count = counts.pop()
    # Rows are bounded by what they take, but for rows of nothing.
    unbounded = any(isinstance(value, Each) or not value.array.size for value in values.values())
    if not 0 < count <= LIMITS.transforms.items_max and unbounded:
        fail(NO_ITEMS, f"the input has {count} items", f"from 1 to {LIMITS.transforms.items_max}")
    if not count:
        fail(NO_ITEMS, "the input has no item")
    return Inputs(values, count)


def _by_name(
    source: Source, sources: Sequence[Source], opened: Sequence[Mapping[str, Tensor]]
) -> tuple[Mapping[str, Tensor], str]:
    """The tensor of its name, or the only thing for the only input."""
    for tensors in opened:
        if source.name in tensors:
            return tensors, source.name
    things = [(tensors, name) for tensors in opened for name in tensors if not name.endswith(SIZES)]
    if len(sources) == 1 and len(things) == 1:
        return things[0]
    found = ", ".join(name for _, name in things) or "nothing"
    return fail(orders.NO_TENSOR, f"{source.kind} {source.name!r} is not in the input, which has {found}")


def _taken(source: Source, take: Take, opened: Sequence[Mapping[str, Tensor]]) -> Value:
    if not 0 <= take.source < len(opened):
        fail(orders.NO_TENSOR, f"{source.name!r}: no source {take.source}, have {len(opened)}")
    tensors = opened[take.source]
    if take.tensor not in tensors:
        fail(
            orders.NO_TENSOR, f"{source.name!r}: source {take.source} has no {take.tensor!r}, but {', '.join(tensors)}"
        )
    if (take.start, take.stop) == (-1, -1):
        return _value(source, tensors, take.tensor)
    value = _value(replace(source, columns=(), shape=()), tensors, take.tensor)
    width = value.array.shape[-1] if isinstance(value, Stacked) else 0
    if not isinstance(value, Stacked) or not 0 <= take.start < take.stop <= width:
        fail(orders.BAD_SHAPE, f"{source.name!r}: columns [{take.start}, {take.stop}) of {take.tensor!r}")
    part = np.ascontiguousarray(value.array[..., take.start : take.stop])
    if source.columns and part.shape[-1] != len(source.columns):
        fail(orders.BAD_SHAPE, f"{source.name!r} takes {len(source.columns)} columns, got {part.shape[-1]}")
    return Stacked(part)


def _value(source: Source, tensors: Mapping[str, Tensor], name: str) -> Value:
    if source.kind not in ("rows", "tensor"):
        try:
            return Each(byte_items(tensors, name))
        except PeerFault as fault:
            fail(orders.BAD_INPUT, f"{source.name!r} is to be {source.kind}: {fault.rule}", "dim run takes files")
    array = as_array(tensors[name])
    if source.kind == "rows":
        if array.ndim != 2 or (source.columns and array.shape[1] != len(source.columns)):
            width = len(source.columns) or "any"
            fail(orders.BAD_SHAPE, f"{source.name!r}: expected shape [any, {width}], got {list(array.shape)}")
        if array.dtype.kind == "f":
            require_finite(array)
        return Stacked(array.astype(np.float64))
    if not array.ndim:
        fail(orders.BAD_SHAPE, f"{source.name!r} has no axis for items")
    shape = tuple(None if size < 0 else size for size in source.shape) if source.shape else None
    dtype = source.dtype or tensors[name].dtype
    return Stacked(fit(Declared(source.name, dtype, shape), array))


def _count(value: Value) -> int:
    return len(value.items) if isinstance(value, Each) else len(value.array)


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(f"{source.kind} {source.name!r}" for source in sources)
