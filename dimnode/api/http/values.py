"""Tensors as JSON: what goes in is made by `jobfile`, what comes out is written here.

Rule: a number that JSON cannot hold (NaN, infinity) is null; what is too long to be read by a person is left out and
named by its CID, and its bytes are passed over, not copied. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from dimnode.limits import LIMITS
from dimnode.records.ids import blob_cid, cid_text
from dimnode.records.tensors import tensor_places


def output_map(blob: bytes) -> dict[str, Any]:
    """An output blob as {"blob", "bytes", "tensors": [{"name", "dtype", "shape", "values"}]}. Raises `PeerFault`."""
    room = LIMITS.http.values_max
    view, tensors = memoryview(blob), []
    for name, dtype, shape, start, end in tensor_places(view):
        cells = _cells(shape)
        fits = cells <= room
        room -= cells if fits else 0
        values = _values(view[start:end], dtype, shape) if fits else None
        tensors.append({"name": name, "dtype": dtype, "shape": list(shape), "values": values})
    return {"blob": cid_text(blob_cid(blob)), "bytes": len(blob), "tensors": tensors}


def add_names(outputs: Sequence[dict[str, Any]], classes: Callable[[], Sequence[str]]) -> None:
    """`predicted` to each output whose tensor `label` is of classes that all have a name. Asked once, if at all."""
    found = [(out, tensor["values"]) for out in outputs for tensor in out["tensors"] if tensor["name"] == "label"]
    names = classes() if found else ()
    for output, labels in found:
        if isinstance(labels, list) and all(isinstance(row, list) and len(row) == 1 for row in labels):
            labels = [row[0] for row in labels]
        plain = isinstance(labels, list) and all(type(number) is int and 0 <= number < len(names) for number in labels)
        if names and plain:
            output["predicted"] = [names[number] for number in labels]


def _cells(shape: tuple[int, ...]) -> int:
    """How many numbers are to be written; where there is none, how many empty lists, which no byte of the blob pays."""
    return prod(shape[: shape.index(0)] if 0 in shape else shape)


def _values(raw: memoryview, dtype: str, shape: tuple[int, ...]) -> Any:
    if 0 in shape:  # NumPy holds no array of which the other sizes are beyond its own
        shape, array = shape[: shape.index(0) + 1], np.zeros(0)
        return array.reshape(shape).tolist()
    array = np.frombuffer(raw, dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    written = array.astype(object)
    written[~np.isfinite(array)] = None
    return written.tolist()
