"""tensors/1 as plain Python lists and back, without NumPy.

Rule: numbers go through as they are, and no more of them become lists than a process can hold.
Pure: no I/O, no clock.
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, Final

from dimnode.errors import Refused, RunFailed
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

ITEM_CODES: Final = {"float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h"}
ITEM_CODES.update({"int8": "b", "uint8": "B", "bool": "?"})
"""struct's letters for the dtypes of tensors/1."""


def tensor_rows(rows: Sequence[Sequence[float]], name: str = "x") -> bytes:
    """A tensors/1 blob with one float32 tensor of shape [rows, columns]. Raises `Refused` E-input-01 when ragged."""
    columns = len(rows[0]) if rows else 0
    if any(len(row) != columns for row in rows):
        raise Refused("E-input-01", f"input {name!r} is not a table of numbers", "its rows differ in length")
    try:
        raw = struct.pack(f"<{len(rows) * columns}f", *(number for row in rows for number in row))
    except (TypeError, OverflowError, struct.error) as error:
        raise Refused("E-input-01", f"input {name!r} is not a table of numbers", str(error)) from None
    return encode_tensors([Tensor(name, "float32", (len(rows), columns), raw)])


def read_output(blob: bytes, cells_max: int = LIMITS.api.listed_cells_max) -> dict[str, Any]:
    """A tensors/1 blob as nested lists by tensor name; a tensor without dimensions is a bare number.

    A number in a list takes thirty times its bytes, an inner list a hundred. Raises `RunFailed` E-cli-06 when numbers
    and inner lists are more than `cells_max`: `decode_tensors` gives the bytes of each tensor, for NumPy.
    """
    tensors = decode_tensors(blob)
    cells = sum(map(_cells, tensors))
    if cells > cells_max:
        what = f"the answer is too large for lists: {cells} numbers and rows, at most {cells_max}"
        hint = "decode_tensors(blob) of dimnode.records.tensors gives each tensor's bytes"
        raise RunFailed("E-cli-06", what, "", hint)
    return {tensor.name: _nested(_numbers(tensor), tensor.shape) for tensor in tensors}


def _cells(tensor: Tensor) -> int:
    """Numbers and inner lists that a tensor becomes."""
    lists = sum(prod(tensor.shape[:depth]) for depth in range(1, len(tensor.shape)))
    return tensor.items + (lists if tensor.items else 0)


def _numbers(tensor: Tensor) -> list[Any]:
    return list(struct.unpack(f"<{tensor.items}{ITEM_CODES[tensor.dtype]}", tensor.raw))


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1 or not flat:  # a shape like [2147483647, 0] holds nothing and would become as many lists
        return flat
    step = prod(shape[1:])
    return [_nested(flat[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]
