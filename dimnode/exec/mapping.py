"""Declared pre-processing: from tensors/1 blobs and `Take`s to exactly the arrays a model declares.

Rule: a value either arrives unchanged or the order fails with a sentence that says what was expected and what came.
The only changes ever made are a slice of columns and a cast that loses nothing but float precision.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import PeerFault, RunFailed
from dimnode.exec import orders
from dimnode.exec.orders import Take
from dimnode.records.tensors import ITEM_BYTES, Tensor, decode_tensors, encode_tensors, view_tensors

Array = NDArray[Any]

# Looked up, because asking a NumPy dtype for its name costs as much as a small model's run.
LITTLE_ENDIAN = {name: np.dtype(name).newbyteorder("<") for name in ITEM_BYTES}
NAMES = {np.dtype(name): name for name in ITEM_BYTES}


@dataclass(frozen=True, slots=True)
class Declared:
    """A model's input or output as the model declares it. A dimension of None may have any size.

    `dtype` is "" and `shape` is None where the model's declaration is none of ours (text, maps, bfloat16; no shape).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    original: str = ""


def open_blobs(blobs: Sequence[bytes | memoryview]) -> tuple[dict[str, Tensor], ...]:
    """The tensors of each blob by name; those of a view stay where they lie. Raises `RunFailed` (bad input)."""
    opened = []
    for position, blob in enumerate(blobs):
        try:
            found = view_tensors(blob) if isinstance(blob, memoryview) else decode_tensors(blob)
            opened.append({tensor.name: tensor for tensor in found})
        except PeerFault as fault:
            raise RunFailed(orders.BAD_INPUT, f"input {position} is not a tensors/1 blob ({fault.rule})") from None
    return tuple(opened)


def feeds(declared: Sequence[Declared], take: Sequence[Take], blobs: Sequence[bytes | memoryview]) -> dict[str, Array]:
    """One array per declared input, of its dtype and fitting its shape. Raises `RunFailed` (bad input)."""
    sources = open_blobs(blobs)
    chosen = {entry.name: entry for entry in take}
    if len(chosen) != len(take):
        raise RunFailed(orders.BAD_ORDER, "a model input is mapped twice")
    unknown = chosen.keys() - {entry.name for entry in declared}
    if unknown:
        known = ", ".join(entry.name for entry in declared)
        raise RunFailed(orders.NO_TENSOR, f"the model has no input {sorted(unknown)[0]!r}; it has {known}")
    arrays = {}
    for entry in declared:
        if not take:
            values = _by_name(entry, declared, sources)
        elif entry.name in chosen:
            values = _taken(chosen[entry.name], sources)
        else:
            raise RunFailed(orders.NO_TENSOR, f"model input {entry.name!r} is not mapped to any tensor")
        arrays[entry.name] = fit(entry, values)
    return arrays


def _by_name(entry: Declared, declared: Sequence[Declared], sources: Sequence[dict[str, Tensor]]) -> Array:
    """Without a mapping: the tensor of the input's name, or the only tensor for the only input."""
    for source in sources:
        if entry.name in source:
            return as_array(source[entry.name])
    everything = [tensor for source in sources for tensor in source.values()]
    if len(declared) == 1 and len(everything) == 1:
        return as_array(everything[0])
    names = ", ".join(tensor.name for tensor in everything) or "none"
    raise RunFailed(orders.NO_TENSOR, f"model input {entry.name!r} has no tensor of its name; the input has {names}")


def _taken(take: Take, sources: Sequence[dict[str, Tensor]]) -> Array:
    if not 0 <= take.source < len(sources):
        raise RunFailed(orders.NO_TENSOR, f"model input {take.name!r}: no source {take.source}, have {len(sources)}")
    tensor = sources[take.source].get(take.tensor)
    if tensor is None:
        names = ", ".join(sources[take.source])
        raise RunFailed(
            orders.NO_TENSOR, f"model input {take.name!r}: source {take.source} has no {take.tensor!r}, but {names}"
        )
    values = as_array(tensor)
    if (take.start, take.stop) == (-1, -1):
        return values
    width = values.shape[-1] if values.ndim else 0
    if not 0 <= take.start < take.stop <= width:
        raise RunFailed(
            orders.BAD_SHAPE,
            f"model input {take.name!r}: columns [{take.start}, {take.stop}) of {take.tensor!r}, which has {width}",
        )
    return np.ascontiguousarray(values[..., take.start : take.stop])


def as_array(tensor: Tensor) -> Array:
    """The numbers of a tensor, read-only; copied only when they lie where numbers of their size should not.

    Raises `RunFailed` for a shape of no number whose other sizes no array may have.
    """
    values = np.frombuffer(tensor.raw, dtype=LITTLE_ENDIAN[tensor.dtype])
    try:
        return (values if values.flags.aligned else values.copy()).reshape(tensor.shape)
    except ValueError:
        what = f"tensor {tensor.name!r} has the shape {_shape_text(tensor.shape)}, which no array can have"
        raise RunFailed(orders.BAD_SHAPE, what) from None


def fit(entry: Declared, values: Array) -> Array:
    """`values` with the declared dtype, checked against the declared shape and for NaN. Raises `RunFailed`."""
    if not entry.dtype:
        raise RunFailed(orders.UNFIT_MODEL, f"model input {entry.name!r} is {entry.original}, which tensors/1 has not")
    if entry.shape is not None:
        fits = len(entry.shape) == values.ndim and all(
            wanted in (None, size) for wanted, size in zip(entry.shape, values.shape, strict=True)
        )
        if not fits:
            expected, got = _shape_text(entry.shape), _shape_text(values.shape)
            raise RunFailed(orders.BAD_SHAPE, f"model input {entry.name!r}: expected shape {expected}, got {got}")
    if values.dtype.kind == "f":
        require_finite(values)
    return cast(entry.name, values, entry.dtype)


def require_finite(values: Array) -> None:
    """NaN would pass through a model without a trace and infinity turn into it. Raises `RunFailed`."""
    if not np.isfinite(values).all():
        raise RunFailed(orders.NOT_FINITE, "input has NaN or infinity")


def cast(name: str, values: Array, dtype: str) -> Array:
    """Cast, refusing what would change a value: 0.5 to int64, 300 to uint8, 1e300 to float32."""
    target = np.dtype(dtype)
    if values.dtype == target:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(target)
        if target.kind == "f":
            kept = bool(np.isfinite(result).all())
        else:
            kept = bool((result.astype(np.float64) == values.astype(np.float64)).all())
    if not kept:
        raise RunFailed(
            orders.BAD_DTYPE, f"model input {name!r}: expected {dtype}, got {values.dtype} with values it cannot hold"
        )
    return result


def pack(named: Mapping[str, Any]) -> bytes:
    """A model's outputs as one tensors/1 blob. Raises `RunFailed` for text, maps and so on."""
    tensors = []
    for name, values in named.items():
        dtype = NAMES.get(values.dtype) if isinstance(values, np.ndarray) else None
        if dtype is None:
            kind = str(values.dtype) if isinstance(values, np.ndarray) else type(values).__name__
            raise RunFailed(orders.BAD_OUTPUT, f"model output {name!r} is {kind}, which tensors/1 has not")
        little = values.astype(LITTLE_ENDIAN[dtype], copy=False)
        tensors.append(Tensor(name, dtype, values.shape, little.tobytes()))
    try:
        return encode_tensors(tensors)
    except PeerFault as fault:
        raise RunFailed(orders.BAD_OUTPUT, f"the model's outputs do not fit tensors/1 ({fault.rule})") from None


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
