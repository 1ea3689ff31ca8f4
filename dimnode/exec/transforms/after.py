"""The words after the model: from its outputs to an answer.

Rule: as in arrays.py; and a tie always goes to the lower place, so that every machine names the same class.
Pure: no I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from dimnode.exec.mapping import Array
from dimnode.exec.transforms.arrays import NANO, Words
from dimnode.exec.transforms.values import BAD_LABELS, UNFIT_VALUE, OneArray, axis_of, fail, floats, rounded

_LEAST_WEIGHT: Final = 1e-9


def change_of(op: Words) -> OneArray:
    """What a word does to one array."""
    return lambda array, lead: _WORDS[op["op"]](op, array, lead)


def knows(word: str) -> bool:
    """It is one of the words here that take one array."""
    return word in _WORDS


def _softmax(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op.get("axis", -1), lead)
    if not array.shape[axis]:
        fail(UNFIT_VALUE, "the softmax of nothing")
    wide = floats(array)
    powers = np.exp(wide - wide.max(axis=axis, keepdims=True))
    return rounded(powers / powers.sum(axis=axis, keepdims=True), array)


def _sigmoid(op: Words, array: Array, lead: int) -> Array:
    wide = floats(array)
    small = np.exp(-np.abs(wide))  # never overflows
    return rounded(np.where(wide >= 0, 1.0, small) / (1.0 + small), array)


def _argmax(op: Words, array: Array, lead: int) -> Array:
    axis = axis_of(array, op.get("axis", -1), lead)
    _need_order(array, axis)
    return np.asarray(array.argmax(axis=axis), dtype=np.int64)


def _threshold(op: Words, array: Array, lead: int) -> Array:
    _need_no_nan(array)
    return np.asarray(floats(array) >= op["at_nano"] / NANO, dtype=np.uint8)


def _dequantise(op: Words, array: Array, lead: int) -> Array:
    return rounded((floats(array) - op.get("zero", 0)) * op["scale_nano"] / NANO, array)


_WORDS: Final[Mapping[str, Callable[[Words, Array, int], Array]]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "argmax": _argmax,
    "threshold": _threshold,
    "dequantise": _dequantise,
}


def top_k(op: Words, array: Array, lead: int) -> tuple[Array, Array]:
    """The k largest along the last axis, falling, and their places, int64."""
    axis = axis_of(array, -1, lead)
    if op["k"] > array.shape[axis]:
        fail(UNFIT_VALUE, f"top_k of {op['k']} among {array.shape[axis]}")
    _need_order(array, axis)
    # Sorted from the other end: a stable sort then keeps the lower place first among equals.
    order = np.flip(array.shape[-1] - 1 - np.argsort(np.flip(array, -1), axis=-1, kind="stable"), -1)[..., : op["k"]]
    return np.take_along_axis(array, order, -1), np.ascontiguousarray(order, dtype=np.int64)


def mean_pool(array: Array, mask: Array, lead: int) -> Array:
    """The mean over the places [T] of [T, H] that the mask [T] does not leave out; zeros when it leaves out all."""
    if array.ndim - lead != 2 or mask.shape != array.shape[:-1]:
        what = f"mean_pool of {list(array.shape[lead:])} by a mask {list(mask.shape[lead:])}"
        fail(UNFIT_VALUE, what, "places and mask are of one length")
    weight = floats(mask)[..., None]
    total = (floats(array) * weight).sum(axis=-2)
    return rounded(total / np.maximum(weight.sum(axis=-2), _LEAST_WEIGHT), array)


def label_text(array: Array, labels: Sequence[str]) -> bytes:
    """The names of an item's classes, UTF-8, one per line when it has several."""
    if array.dtype.kind not in "iu":
        fail(UNFIT_VALUE, f"label_text of {array.dtype}", "argmax comes first")
    places = array.reshape(-1).tolist()
    if any(not 0 <= place < len(labels) for place in places):
        fail(UNFIT_VALUE, f"a class outside the {len(labels)} that have names")
    return "\n".join(labels[place] for place in places).encode()


def labels_from(raw: bytes) -> tuple[str, ...]:
    """A labels file: UTF-8, one name per line."""
    try:
        return tuple(raw.decode("utf-8").rstrip("\r\n").splitlines())
    except UnicodeDecodeError:
        fail(BAD_LABELS, "the model's labels file is not UTF-8")


def _need_order(array: Array, axis: int) -> None:
    if not array.shape[axis]:
        fail(UNFIT_VALUE, "the largest of nothing")
    _need_no_nan(array)


def _need_no_nan(array: Array) -> None:
    if array.dtype.kind == "f" and np.isnan(array).any():
        fail(UNFIT_VALUE, "the model's output has NaN, which has no order")
