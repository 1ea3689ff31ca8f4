"""What transforms work on: one thing per item, and the codes of what can be wrong with it.

Rule: every word is defined on one item alone. Items of one shape may lie in one array, which is only faster: the same
numbers come out (tests/unit/exec/test_exec_transforms.py). Pure: no I/O, no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec.mapping import Array
from dimnode.limits import LIMITS

BAD_PROGRAM: Final = "E-exec-90"
NO_EXTRA: Final = "E-exec-91"
NO_ITEMS: Final = "E-exec-92"
NOT_TEXT: Final = "E-exec-93"
BAD_TOKENIZER: Final = "E-exec-94"
BAD_IMAGE: Final = "E-exec-95"
IMAGE_TOO_LARGE: Final = "E-exec-96"
BAD_AUDIO: Final = "E-exec-97"
AUDIO_TOO_LONG: Final = "E-exec-98"
UNKNOWN_WORD: Final = "E-exec-99"
UNFIT_VALUE: Final = "E-exec-100"
UNEQUAL_ITEMS: Final = "E-exec-101"
VALUE_TOO_LARGE: Final = "E-exec-102"
BAD_LABELS: Final = "E-exec-103"


@dataclass(frozen=True, slots=True)
class Stacked:
    """Items of one shape, one behind the other along the first axis."""

    array: Array


@dataclass(frozen=True, slots=True)
class Each:
    """Items by themselves: arrays that may differ in shape, texts, or bytes."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """One array that belongs to every call and to no item."""

    array: Array


Value = Stacked | Each | Shared
OneArray = Callable[[Array, int], Array]
"""One array and how many of its first axes are not the item's own (1 in a stack) to another such array."""


def fail(code: str, what: str, hint: str = "") -> NoReturn:
    """Raises `RunFailed`; the hint is part of what travels, because an answer has one sentence for the reason."""
    raise RunFailed(code, f"{what} ({hint})" if hint else what)


def each_array(value: Value, change: OneArray) -> Value:
    """Every item changed. A fault names its item, from 1."""
    match value:
        case Stacked(array):
            return Stacked(_bounded(change(array, 1)))
        case Shared(array):
            return Shared(_bounded(change(array, 0)))
        case Each(items):
            return Each(tuple(_bounded(each_item(number, item, change)) for number, item in enumerate(items, 1)))


def each_item(number: int, item: Any, change: OneArray) -> Array:
    """One of many. The fault of one item says which it is."""
    with named(number):
        return change(item, 0)


class named:  # noqa: N801 a context manager, read as a word
    """Within this block a fault is said to be of item `number`."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> None:
        if isinstance(fault, RunFailed) and not fault.complaint.what.startswith("item "):
            raise RunFailed(fault.complaint.code, f"item {self._number}: {fault.complaint.what}") from None


def items_of(value: Value) -> tuple[Any, ...]:
    """Its items, one by one."""
    match value:
        case Stacked(array):
            return tuple(array)
        case Each(items):
            return items
        case Shared():
            raise AssertionError("a shared value has no items")


def stacked(value: Value, name: str) -> Array:
    """Its items as one array. Raises `RunFailed` when they differ in shape."""
    match value:
        case Stacked(array) | Shared(array):
            return array
        case Each(items):
            shapes = {item.shape for item in items}
            if len(shapes) > 1:
                first = items[0].shape
                odd, number = next((item.shape, number) for number, item in enumerate(items, 1) if item.shape != first)
                what = f"{name}: item 1 has the shape {list(first)} and item {number} {list(odd)}"
                fail(UNEQUAL_ITEMS, what, "give them one at a time")
            return _bounded(np.stack(items))


def _bounded(array: Array) -> Array:
    most = LIMITS.transforms.value_bytes_max
    if array.nbytes > most:
        fail(VALUE_TOO_LARGE, f"a value of {array.nbytes} bytes, at most {most}", "give fewer or smaller items")
    return array


def axis_of(array: Array, axis: int, lead: int) -> int:
    """The place of an item's axis. Raises `RunFailed` when the item has no such axis."""
    own = array.ndim - lead
    if not -own <= axis < own:
        fail(UNFIT_VALUE, f"axis {axis} of a value of {own} axes")
    return axis + lead if axis >= 0 else array.ndim + axis


def floats(array: Array) -> Array:
    """Its numbers in float64, in which every word computes before it rounds once."""
    if array.dtype.kind not in "iufb":
        fail(UNFIT_VALUE, f"{array.dtype} are no numbers")
    return array.astype(np.float64)


def rounded(array: Array, like: Array) -> Array:
    """float64 stays float64; everything else becomes float32."""
    return array if like.dtype == np.float64 else array.astype(np.float32)
