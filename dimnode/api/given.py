"""What people write as a job's input, for a model that says what it takes: texts, files, rows of named columns.

Rule: what is written becomes the tensors that `pre` declares, or is refused with its name and place; nothing is filled
in. Files are written as base64, because a job file is text.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.items import item_tensors
from dimnode.records.places import fault_in, place_text
from dimnode.records.tensors import ITEM_BYTES, Tensor
from dimnode.records.transforms import Source

_NUMBERS = frozenset({int, float, bool})
_DEPTH_MAX = 64
_HINT = "docs/job-files.md, Text, files and rows"


def given_tensors(sources: Sequence[Source], named: Mapping[str, Any]) -> list[Tensor]:
    """The tensors of a job's `input`. Raises `Refused`."""
    table = _records(named)
    if table is not None:
        return [tensor for source in sources for tensor in from_records(source, table)]
    by_name = {source.name: source for source in sources}
    if len(sources) == 1 and len(named) == 1:
        by_name = dict.fromkeys(named, sources[0])
    if strange := [name for name in named if name not in by_name]:
        known = ", ".join(f"{source.kind} {source.name!r}" for source in sources)
        raise Refused("E-input-07", f"{strange[0]!r} is no input of this model", f"it takes {known}", _HINT)
    return [tensor for name, value in named.items() for tensor in _tensors(by_name[name], value)]


def from_records(source: Source, records: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """One declared input from rows of named cells; a text comes from its one column, or from that of its name."""
    if source.kind == "text":
        column = source.columns[0] if source.columns else source.name
        return item_tensors(
            source.name, [_text(cell, f"row {n}, column {column!r}") for n, cell in _cells(records, column)]
        )
    if source.kind != "rows" or not source.columns:
        what = f"{source.kind} {source.name!r} does not come from named columns"
        raise Refused("E-input-01", what, "only text and rows do", _HINT)
    columns = [
        [_number(cell, f"row {n}, column {column!r}") for n, cell in _cells(records, column)]
        for column in source.columns
    ]
    return [_matrix(source.name, np.array(columns, dtype=np.float64).T)]


def _records(named: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The rows, when the input is one list of maps."""
    values = list(named.values())
    if len(values) != 1 or not isinstance(values[0], list) or not values[0]:
        return None
    found = values[0]
    if not all(isinstance(row, Mapping) and "base64" not in row for row in found):
        return None
    return found


def _cells(records: Sequence[Mapping[str, Any]], column: str) -> list[tuple[int, Any]]:
    for number, row in enumerate(records, 1):
        if column not in row:
            raise Refused("E-input-07", f"row {number} has no column {column!r}", "the model takes it", _HINT)
    return [(number, row[column]) for number, row in enumerate(records, 1)]


def _tensors(source: Source, value: Any) -> list[Tensor]:
    name = source.name
    match source.kind:
        case "text":
            texts = value if isinstance(value, list) else [value]
            return item_tensors(name, [_text(text, f"text {n} of {name!r}") for n, text in enumerate(texts, 1)])
        case "rows":
            return [number_tensor(name, value, "float64")]
        case "tensor":
            return [number_tensor(name, value, source.dtype)]
    files = value if isinstance(value, list) else [value]
    return item_tensors(name, [_file(file, f"{source.kind} {n} of {name!r}") for n, file in enumerate(files, 1)])


def _text(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise Refused("E-input-01", f"{where} is no text", f"it is {str(value)[:40]!r}", _HINT)
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise Refused("E-input-01", f"{where} is no text", "it has half a character") from None
    if len(raw) > LIMITS.transforms.text_bytes_max:
        raise Refused("E-input-05", f"{where} has {len(raw)} bytes", f"at most {LIMITS.transforms.text_bytes_max}")
    return raw


def _file(value: Any, where: str) -> bytes:
    """bytes from a program, base64 from a file."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused("E-input-01", f"{where} is no base64", "", "{base64: …}") from None
    raise Refused("E-input-01", f"{where} is no file", "files are written as {base64: …}", "input: {file: NAME}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("E-input-01", f"{where} is no number", f"it is {str(value)[:40]!r}")
    try:
        number = float(value)
    except OverflowError:
        raise Refused("E-input-01", f"{where} is no number", "it is too large for one") from None
    if not np.isfinite(number):
        raise Refused("E-input-02", f"{where} is {value}", "a model cannot use it", "remove or fill that row")
    return number


def number_tensor(name: str, value: Any, dtype: str) -> Tensor:
    """Nested lists of numbers in this type, or, where it is "", in float32 or int64. Raises `Refused`."""
    try:
        _need_numbers(value)
        found = np.array(value)
        if found.dtype.kind not in "iufb":
            raise ValueError("not numbers in equal rows")
        wanted = dtype or ("float32" if found.dtype.kind == "f" else "int64")
        if wanted not in ITEM_BYTES:  # a stranger's manifest may declare anything
            raise ValueError(f"the model declares the type {wanted!r}")
        with np.errstate(invalid="ignore", over="ignore"):
            typed = found.astype(wanted)
        if typed.dtype.kind in "iub" and not np.array_equal(typed, found):
            place = tuple(int(step) for step in np.argwhere(typed != found)[0])
            raise ValueError(f"{place_text(place)} is {found[place]}, which the type {wanted} cannot hold")
    except (ValueError, TypeError, OverflowError) as error:
        if fault := fault_in(value, booleans=True):
            raise Refused(fault.code, f"input {name!r}: {fault.what}", fault.cause) from None
        raise Refused("E-input-01", f"input {name!r} is not a table of numbers", str(error)) from None
    if typed.dtype.kind == "f" and not np.isfinite(typed).all():
        raise not_finite(name, typed, found)
    raw = typed.astype(typed.dtype.newbyteorder("<")).tobytes()
    return Tensor(name, str(typed.dtype), tuple(typed.shape), raw)


def not_finite(name: str, typed: NDArray[Any], given: NDArray[Any]) -> Refused:
    """The refusal for the first number that is none, or that is too large for the type that the model takes."""
    place = tuple(int(step) for step in np.argwhere(~np.isfinite(typed))[0])
    what, hint = f"input {name!r}: {place_text(place)} is {given[place]}", "remove or fill that row"
    cause = f"it is too large for {typed.dtype}" if np.isfinite(given[place]) else "a model cannot use it"
    return Refused("E-input-02", what, cause, hint)


def _need_numbers(value: Any, depth: int = 0) -> None:
    """Lists of numbers, looked at before NumPy does: of a long text among many short ones it makes a table in which
    each is as wide as the longest, gigabytes of a small file. Raises `ValueError`."""
    if depth > _DEPTH_MAX:
        raise ValueError("lists are nested too deeply")
    if isinstance(value, str | bytes | Mapping):
        raise ValueError("not numbers in equal rows")
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        if not kinds <= _NUMBERS:
            for part in value:
                _need_numbers(part, depth + 1)


def _matrix(name: str, found: Any) -> Tensor:
    return Tensor(name, "float64", tuple(found.shape), np.ascontiguousarray(found, dtype="<f8").tobytes())
