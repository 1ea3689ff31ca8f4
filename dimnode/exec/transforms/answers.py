"""An answer as one tensors/1 blob, also of things that differ in size.

Rule: what form a name of the answer has follows from the manifest and never from the numbers: text and the outputs of
a call without an axis for items are `NAME` and `NAME.sizes` (records/items.py), everything else is one tensor.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dimnode.exec.mapping import pack
from dimnode.exec.transforms.values import UNEQUAL_ITEMS, Each, fail
from dimnode.records.items import SIZES


def answer_bytes(answer: Mapping[str, Any]) -> int:
    """How much it takes."""
    size = 0
    for value in answer.values():
        if isinstance(value, Each):
            size += sum(len(item) if isinstance(item, bytes) else item.nbytes for item in value.items)
        elif isinstance(value, np.ndarray):
            size += value.nbytes
    return size


def pack_answer(answer: Mapping[str, Any]) -> bytes:
    """One blob. Raises `RunFailed` for what tensors/1 has not, or for items that do not fit one behind the other."""
    named: dict[str, Any] = {}
    for name, value in answer.items():
        if not isinstance(value, Each):
            named[name] = value
            continue
        items = [_array(item) for item in value.items]
        if len({item.shape[1:] for item in items}) > 1 or len({item.dtype for item in items}) > 1:
            fail(UNEQUAL_ITEMS, f"the items of {name!r} differ in more than their length")
        named[name] = np.concatenate(items)
        named[name + SIZES] = np.array([len(item) for item in items], dtype=np.int64)
    return pack(named)


def _array(item: Any) -> Any:
    if isinstance(item, bytes):
        return np.frombuffer(item, dtype=np.uint8)
    return item if item.ndim else item.reshape(1)
