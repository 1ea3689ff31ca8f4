"""The words that take arrays and give arrays, on either side of the model.

Rule: computed in float64 and rounded once, so that the same numbers come out wherever NumPy runs. Each word is defined
to the bit in docs/transforms.md. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from math import gcd, prod
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec.mapping import Array, cast
from dimnode.exec.transforms.values import UNFIT_VALUE, OneArray, axis_of, fail, floats, rounded

Words = Mapping[str, Any]
NANO: Final = 1e9
_RESAMPLE_HALF: Final = 10
_RESAMPLE_BETA: Final = 5.0
_RESAMPLE_BLOCK: Final = 1 << 18
_LEAST_NORM: Final = 1e-12


def change_of(op: Words) -> OneArray:
    """What a word does to one array."""
    return lambda array, lead: _WORDS[op["op"]](op, array, lead)


def concat(op: Words, arrays: Sequence[Array], lead: int) -> Array:
    """Several values one behind the other; their dtype is NumPy's common one."""
    axis = axis_of(arrays[0], op["axis"], lead)
    try:
        return np.concatenate(arrays, axis=axis)
    except (ValueError, IndexError):
        shapes = ", ".join(str(list(array.shape[lead:])) for array in arrays)
        return fail(UNFIT_VALUE, f"concat of the shapes {shapes}")


def _scale(op: Words, array: Array, lead: int) -> Array:
    scaled = floats(array) * op["multiply"] / op["divide"]
    return rounded(scaled + op["add_nano"] / NANO if "add_nano" in op else scaled, array)


def _normalise(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op.get("axis", -1), lead)
    mean, std = (np.array(op[key], dtype=np.float64) / NANO for key in ("mean_nano", "std_nano"))
    if len(mean) not in (1, array.shape[axis]):
        fail(UNFIT_VALUE, f"normalise has {len(mean)} means for {array.shape[axis]} numbers")
    shape = [1] * array.ndim
    shape[axis] = len(mean)
    return rounded((floats(array) - mean.reshape(shape)) / std.reshape(shape), array)


def _cast(op: Words, array: Array, lead: int) -> Array:
    try:
        return cast("cast", array, op["dtype"])
    except RunFailed:
        fail(UNFIT_VALUE, f"cast: {array.dtype} with values that {op['dtype']} cannot hold")


def _clip(op: Words, array: Array, lead: int) -> Array:
    return rounded(np.clip(floats(array), op["low_nano"] / NANO, op["high_nano"] / NANO), array)


def _reshape(op: Words, array: Array, lead: int) -> Array:
    wanted, own = list(op["shape"]), array.shape[lead:]
    if wanted.count(-1) > 1:
        fail(UNFIT_VALUE, "reshape: one size may be free")
    known = prod(size for size in wanted if size >= 0)
    if -1 in wanted and known:
        wanted[wanted.index(-1)] = prod(own) // known
    if -1 in wanted or prod(wanted) != prod(own):
        fail(UNFIT_VALUE, f"a value of shape {list(own)} does not become {op['shape']}")
    return np.ascontiguousarray(array).reshape([*array.shape[:lead], *wanted])


def _expand(op: Words, array: Array, lead: int) -> Array:
    own = array.ndim - lead + 1
    if not -own <= op["axis"] < own or array.ndim >= 9:
        fail(UNFIT_VALUE, f"expand: axis {op['axis']} of {own}")
    return np.expand_dims(array, op["axis"] + lead if op["axis"] >= 0 else op["axis"])


def _transpose(op: Words, array: Array, lead: int) -> Array:
    if len(op["axes"]) != array.ndim - lead:
        fail(UNFIT_VALUE, f"transpose names {len(op['axes'])} axes of {array.ndim - lead}")
    return np.ascontiguousarray(array.transpose([*range(lead), *(axis + lead for axis in op["axes"])]))


def _reverse(op: Words, array: Array, lead: int) -> Array:
    return np.ascontiguousarray(np.flip(array, axis_of(array, op["axis"], lead)))


def _pad(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op["axis"], lead)
    missing = op["size"] - array.shape[axis]
    if missing < 0:
        fail(UNFIT_VALUE, f"pad: {array.shape[axis]} are more than {op['size']}", "truncate comes first")
    fill_shape = [*array.shape]
    fill_shape[axis] = missing
    fill = np.broadcast_to(_filler(op["value"], array), fill_shape)
    return np.concatenate([array, fill] if op.get("side", "end") == "end" else [fill, array], axis=axis)


def _filler(value: int, array: Array) -> Array:
    return _cast({"dtype": array.dtype.name}, np.array(value), 0)


def _truncate(op: Words, array: Array, lead: int) -> Array:
    axis, size = axis_of(array, op["axis"], lead), op["size"]
    start = 0 if op.get("keep", "begin") == "begin" else max(0, array.shape[axis] - size)
    return _part(array, axis, start, start + size)


def _slice(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op["axis"], lead)
    if op["stop"] > array.shape[axis]:
        fail(UNFIT_VALUE, f"slice to {op['stop']} of {array.shape[axis]}")
    return _part(array, axis, op["start"], op["stop"])


def _part(array: Array, axis: int, start: int, stop: int) -> Array:
    return np.ascontiguousarray(array[(slice(None),) * axis + (slice(start, stop),)])


def _select(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op["axis"], lead)
    if max(op["places"]) >= array.shape[axis]:
        fail(UNFIT_VALUE, f"select of place {max(op['places'])} of {array.shape[axis]}")
    return np.asarray(np.take(array, op["places"], axis=axis))


def _sum(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op["axis"], lead)
    if array.dtype.kind in "iub":
        return np.asarray(array.sum(axis=axis, dtype=np.int64))
    return rounded(np.asarray(floats(array).sum(axis=axis)), array)


def _mean(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op["axis"], lead)
    if not array.shape[axis]:
        fail(UNFIT_VALUE, "the mean of nothing")
    return rounded(np.asarray(floats(array).sum(axis=axis) / array.shape[axis]), array)


def _l2_normalise(op: Words, array: Array, lead: int) -> Array:
    wide = floats(array)
    length = np.sqrt(np.square(wide).sum(axis=axis_of(array, op.get("axis", -1), lead), keepdims=True))
    return rounded(wide / np.maximum(length, _LEAST_NORM), array)


def _resample(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, 0, lead)
    return np.moveaxis(resample(np.moveaxis(array, axis, 0), op["from_hz"], op["to_hz"]), 0, axis)


def resample(samples: Array, from_hz: int, to_hz: int) -> Array:
    """Along the first axis by a Kaiser-windowed sinc of ten zero crossings: scipy.signal.resample_poly's default.

    Source: https://docs.scipy.org/doc/scipy/reference/generated/scipy.signal.resample_poly.html (window kaiser 5.0,
    zeros outside the signal). Sums run from the newest sample to the oldest, in float64.
    """
    common = gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    if up == down:
        return samples
    wider = max(up, down)
    half = _RESAMPLE_HALF * wider
    places = np.arange(-half, half + 1)
    kernel = np.sinc(places / wider) / wider * np.kaiser(2 * half + 1, _RESAMPLE_BETA)
    kernel *= up / kernel.sum()
    taps = -(-len(kernel) // up)
    phases = np.concatenate([kernel, np.zeros(taps * up - len(kernel))]).reshape(taps, up)
    wide = floats(samples)
    count = -(-len(wide) * up // down)
    padded = np.concatenate([np.zeros((taps, *wide.shape[1:])), wide, np.zeros((taps, *wide.shape[1:]))])
    out = np.empty((count, *wide.shape[1:]), dtype=rounded(wide[:0], samples).dtype)
    ones = (1,) * (wide.ndim - 1)
    for start in range(0, count, _RESAMPLE_BLOCK):
        at = np.arange(start, min(count, start + _RESAMPLE_BLOCK)) * down + half
        newest, phase = np.minimum(at // up, len(wide) + taps - 1), at % up
        block = np.zeros((len(at), *wide.shape[1:]))
        for tap in range(taps):
            block += phases[tap][phase].reshape(-1, *ones) * padded[newest - tap + taps]
        out[start : start + len(at)] = block
    return out


_WORDS: Final[Mapping[str, Callable[[Words, Array, int], Array]]] = {
    "scale": _scale,
    "normalise": _normalise,
    "cast": _cast,
    "clip": _clip,
    "reshape": _reshape,
    "expand": _expand,
    "transpose": _transpose,
    "reverse": _reverse,
    "pad": _pad,
    "truncate": _truncate,
    "slice": _slice,
    "select": _select,
    "sum": _sum,
    "mean": _mean,
    "l2_normalise": _l2_normalise,
    "resample": _resample,
    "copy": lambda op, array, lead: array,
}
