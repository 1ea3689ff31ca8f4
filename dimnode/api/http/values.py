"""Tensors as JSON: what goes in is made by `jobfile`, what comes out is written here.

Rule: a number that JSON cannot hold (NaN, infinity) is null; what is too long to be read by a person is left out and
named by its CID. Pure: no I/O, no clock.
"""

from typing import Any

import numpy as np

from dimnode.limits import LIMITS
from dimnode.records.ids import blob_cid, cid_text
from dimnode.records.tensors import Tensor, decode_tensors


def output_map(blob: bytes) -> dict[str, Any]:
    """An output blob as {"blob", "bytes", "tensors": [{"name", "dtype", "shape", "values"}]}."""
    room = LIMITS.http.values_max
    tensors = []
    for tensor in decode_tensors(blob):
        fits = tensor.items <= room
        room -= tensor.items if fits else 0
        tensors.append(
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "values": _values(tensor) if fits else None,
            }
        )
    return {"blob": cid_text(blob_cid(blob)), "bytes": len(blob), "tensors": tensors}


def _values(tensor: Tensor) -> Any:
    array = np.frombuffer(tensor.raw, dtype=np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    written = array.astype(object)
    written[~np.isfinite(array)] = None
    return written.tolist()
