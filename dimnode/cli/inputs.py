"""What people give as input, as one tensors/1 blob: CSV with a header, JSON, or stdin.

Rule: numbers arrive as they are written or the command stops and names the line and the column; nothing is filled in,
and whatever is left out is said aloud. No NumPy: a table of a few thousand rows does not need it.
"""

import csv
import io
import json
import math
import re
import shlex
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from dimnode.cli.output import counted, talk
from dimnode.errors import ConfigError, PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.records.lists import ITEM_CODES
from dimnode.records.places import fault_in, place_of, place_text
from dimnode.records.tensors import Tensor, encode_tensors

_NAMES_TOLD = 6
_PLAIN_NAME = re.compile(r"[\w.-]+")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of the input is meant. `rows` are numbers from 1; empty means all."""

    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    name: str = ""
    """The tensor's name; by default the model's only input, else x."""
    usual: tuple[str, ...] = ()
    """The columns that the model's manifest names: those, when nobody chose others and the table has them all."""

    def by_name(self, header: Sequence[str]) -> tuple[str, ...]:
        """The columns of such a table to read by their names; none: those that hold numbers."""
        if not self.columns and self.usual and set(self.usual) <= set(header) - set(self.drop):
            if len(self.usual) < len(header):
                talk(f"columns as the model names them: {len(self.usual)} of {len(header)}")
            return self.usual
        return self.columns


def read_input(source: str, choice: Choice, declared: Sequence[Sequence[Any]]) -> bytes:
    """The blob for a file name or `-`. `declared` are the model's inputs as [name, dtype, shape], empty if unknown."""
    text, is_json = _text_of(source)
    source = "stdin" if source == "-" else source
    if is_json:
        return _from_json(text, source, choice, declared)
    return _from_csv(text, source, choice, declared)


def _text_of(source: str) -> tuple[str, bool]:
    if source == "-":
        try:
            text = sys.stdin.read(LIMITS.exec.rows_file_bytes_max + 1)
        except UnicodeDecodeError as error:
            raise unreadable("stdin", error, "CSV or JSON in UTF-8") from None
        return _bounded(text, "stdin"), text.lstrip()[:1] in ("{", "[")
    path = Path(source).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(LIMITS.exec.rows_file_bytes_max + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(source, error, "a CSV or JSON file in UTF-8") from None
    return _bounded(text, source), path.suffix.lower() == ".json"


def unreadable(source: str, error: OSError | UnicodeDecodeError, hint: str) -> ConfigError:
    """E-cli-41 for a file that was named: the system's reason, or that it is no text."""
    cause = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    hint = "check the path" if isinstance(error, FileNotFoundError) else hint
    return ConfigError("E-cli-41", f"cannot read {source}", cause or "", hint)


def _bounded(text: str, source: str) -> str:
    most = LIMITS.exec.rows_file_bytes_max
    if len(text) > most:
        raise Refused("E-input-05", f"{source} is too large", f"limit {most} bytes", "give fewer rows at a time")
    return text


# ---- CSV


def _from_csv(text: str, source: str, choice: Choice, declared: Sequence[Sequence[Any]]) -> bytes:
    try:
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
    except csv.Error as error:
        raise ConfigError("E-cli-41", f"{source} is no CSV file", str(error), "") from None
    if len(lines) < 2:
        raise Refused("E-input-04", f"{source} has no rows", "a CSV file has a header line and then numbers")
    header = [cell.strip() for cell in lines[0]]
    if len(set(header)) != len(header):
        raise ConfigError("E-cli-41", f"{source} has two columns of one name", ", ".join(header[:12]))
    numbered = list(enumerate(lines[1:], 1))
    _check_ragged(numbered, len(header))
    if choice.rows:
        numbered = [numbered[row - 1] for row in _checked_rows(choice.rows, len(numbered))]
    columns = _columns(header, numbered, choice)
    entry = _entry(choice, declared)
    _check_width(entry, [header[place] for place in columns])
    table = [[_number(cells, place, header, row) for place in columns] for row, cells in numbered]
    flat = [number for row in table for number in row]
    shape = [len(table), len(columns)]
    if entry[2] and len(entry[2]) == 1 and len(columns) == 1:
        shape = shape[:1]
    names = [header[place] for place in columns]
    numbers = [row for row, _ in numbered]
    return _blob([_tensor(entry[0], entry[1] or "float32", shape, flat, lambda at: _cell(at, numbers, names))])


def _cell(at: int, rows: Sequence[int], names: Sequence[str]) -> str:
    """The place of a number of a table by its number in reading order."""
    return f"row {rows[at // len(names)]}, column {names[at % len(names)]!r}"


def _check_ragged(numbered: Sequence[tuple[int, Sequence[str]]], width: int) -> None:
    """A row with a cell too few or too many says nothing about which: its numbers would stand under other names."""
    for row, cells in numbered:
        if len(cells) != width:
            what = f"row {row} has {len(cells)} cells, the header has {width}"
            raise Refused("E-input-01", what, "a cell is missing, or one too many", "mend that row in the file")


def _columns(header: Sequence[str], numbered: Sequence[tuple[int, Sequence[str]]], choice: Choice) -> list[int]:
    """Places of the wanted columns: those named, or all that hold numbers but those dropped.

    A column without a single number is text; one with some is kept, and the cell that is none is refused later.
    """
    for name in (*choice.columns, *choice.drop):
        if name not in header:
            near = get_close_matches(name, header, 1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise ConfigError("E-cli-42", f"there is no column {name!r}", _columns_text(header), hint)
    if names := choice.by_name(header):
        return [header.index(name) for name in names]
    places: list[int] = []
    left_out: list[int] = []
    for place, name in enumerate(header):
        if name in choice.drop:
            continue
        numeric = any(_is_number(cells[place]) for _, cells in numbered)
        (places if numeric else left_out).append(place)
    if left_out:
        talk(f"left out, not numbers: {', '.join(header[place] for place in left_out)}")
    if not places:
        raise Refused("E-input-01", "no column holds numbers", _columns_text(header), "--columns A,B")
    return places


def _check_width(entry: Sequence[Any], names: Sequence[str]) -> None:
    """Before anything is sent: as many columns as the model declares."""
    shape = entry[2]
    wanted = shape[1] if len(shape) == 2 else 1 if len(shape) == 1 else -1
    if wanted in (-1, len(names)):
        return
    what = f"the model takes {counted(wanted, 'column')}, the input has {len(names)}"
    raise Refused("E-input-06", what, _columns_text(names), columns_hint(wanted, names))


def columns_hint(wanted: int, names: Sequence[str]) -> str:
    """What to copy and cut down: which of the columns are meant, nobody here can know."""
    if wanted > len(names):
        return "a table with a header and a column for each number that the model takes"
    listed = ",".join(name if _PLAIN_NAME.fullmatch(name) else shlex.quote(name) for name in names)
    return f"keep {wanted} of these, in the model's order: --columns {listed}"


def _columns_text(names: Sequence[str]) -> str:
    """The first ones, and how many there are."""
    more = f" … ({len(names)} in all)" if len(names) > _NAMES_TOLD else ""
    return f"columns: {', '.join(names[:_NAMES_TOLD])}{more}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cells: Sequence[str], place: int, header: Sequence[str], row: int) -> float:
    cell = cells[place].strip() if place < len(cells) else ""
    where = f"row {row}, column {header[place]!r}"
    try:
        number = float(cell)
    except ValueError:
        found = repr(cell[:40]) if cell else "nothing"
        raise Refused(
            "E-input-01", f"{where} is no number", f"it holds {found}", "--columns, --drop or --row"
        ) from None
    if not math.isfinite(number):
        raise Refused("E-input-02", f"{where} is {cell}", "a model cannot use it", "remove or fill that row")
    return number


# ---- JSON


def _from_json(text: str, source: str, choice: Choice, declared: Sequence[Sequence[Any]]) -> bytes:
    if choice.columns or choice.drop:
        raise ConfigError("E-cli-42", "columns are chosen by name, and JSON names none", "", "give a CSV file")
    found = parse_json(text, source)
    if not isinstance(found, dict):
        found = {_entry(choice, declared)[0]: found}
    rows_of = {row[0]: row for row in declared}
    tensors = []
    for name, value in found.items():
        if (fault := fault_in(value)) is not None:
            raise Refused(fault.code, f"input {name!r}: {fault.what}", fault.cause, "remove or fill that row")
        shape, flat = _flattened(value)
        if choice.rows and shape:
            rows = _checked_rows(choice.rows, shape[0])
            step = math.prod(shape[1:])
            flat = [number for row in rows for number in flat[(row - 1) * step : row * step]]
            shape = [len(rows), *shape[1:]]
        guessed = "int64" if all(isinstance(number, int) for number in flat) else "float32"
        _, dtype, wanted = rows_of.get(name, (name, "", []))
        if not choice.name:
            _check_shape(name, shape, wanted)
        where = partial(_place, name, shape, choice.rows)
        tensors.append(_tensor(name, dtype or guessed, shape, flat, where))
    return _blob(tensors)


def parse_json(text: str, source: str, hint: str = "") -> Any:
    """What JSON holds. Raises `ConfigError` E-cli-40 naming the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError("E-cli-40", f"{source}: malformed JSON in {place}", error.msg, hint) from None
    except (ValueError, RecursionError) as error:  # a whole number of more than 4,300 digits; lists in lists in lists
        raise ConfigError("E-cli-40", f"{source}: malformed JSON", str(error)[:120], hint) from None


def _place(name: str, shape: Sequence[int], rows: Sequence[int], at: int) -> str:
    """The same for nested lists, of which `rows` were chosen."""
    path = place_of(at, shape)
    path = (rows[path[0]] - 1, *path[1:]) if rows and path else path
    return f"input {name!r}: {place_text(path)}"


def _check_shape(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
    """Before anything is sent: the shape that the model declares, where it declares one."""
    if not wanted or (len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))):
        return
    expected = "[" + ", ".join("any" if size < 0 else str(size) for size in wanted) + "]"
    what = f"the model takes {name!r} of shape {expected}, the input has {list(shape)}"
    raise Refused("E-input-06", what, "rows are the outer list", "dim models ls shows what each model takes")


def _flattened(value: Any) -> tuple[list[int], list[Any]]:
    """Shape and numbers of nested lists in which `fault_in` finds nothing."""
    if not isinstance(value, list):
        return [], [value]
    parts = [_flattened(entry) for entry in value]
    inner = parts[0][0] if parts else []
    return [len(value), *inner], [number for _, flat in parts for number in flat]


# ---- both


def _entry(choice: Choice, declared: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Name, dtype and shape of the tensor that a nameless table becomes."""
    named = {row[0]: row for row in declared}
    if choice.name:
        return named.get(choice.name, [choice.name, "float32", []])
    if len(declared) > 1:
        names = ", ".join(named)
        raise ConfigError(
            "E-cli-43", f"the model has {len(declared)} inputs: {names}", "", "give JSON: {NAME: [[…]], …}"
        )
    return declared[0] if declared else ["x", "float32", []]


def _checked_rows(rows: Sequence[int], count: int) -> Sequence[int]:
    for row in rows:
        if not 1 <= row <= count:
            raise ConfigError("E-cli-42", f"there is no row {row}", f"rows are numbered from 1 to {count}", "--row 1")
    return rows


def _tensor(name: str, dtype: str, shape: Sequence[int], flat: Sequence[float], where: Callable[[int], str]) -> Tensor:
    """`where` gives the place of a number by its number in `flat`. Raises `Refused` E-input-01 for one that the type
    cannot hold, and for a type that no input has: the manifest may be a stranger's."""
    if dtype not in ITEM_CODES:
        raise Refused("E-input-01", f"the model declares {name!r} as {dtype!r}", "no input has that type")
    try:
        return Tensor(name, dtype, tuple(shape), _packed(dtype, flat))
    except (struct.error, OverflowError, ValueError):
        at, number = next((at, number) for at, number in enumerate(flat) if not _fits(dtype, number))
        what = f"{where(at)} is {number}"
        raise Refused("E-input-01", what, f"the model takes {dtype}, which cannot hold it") from None


def _packed(dtype: str, flat: Sequence[float]) -> bytes:
    values: Sequence[Any] = flat
    if dtype in _INTEGERS:
        values = [int(number) for number in flat]
        if any(whole != number for whole, number in zip(values, flat, strict=True)):
            raise ValueError("not every number is whole")
    return struct.pack(f"<{len(values)}{ITEM_CODES[dtype]}", *values)


def _fits(dtype: str, number: float) -> bool:
    try:
        return bool(_packed(dtype, [number]))
    except (struct.error, OverflowError, ValueError):
        return False


def _blob(tensors: Sequence[Tensor]) -> bytes:
    try:
        return encode_tensors(tensors)
    except PeerFault as fault:
        raise Refused("E-input-03", f"the input cannot be used: {fault.rule}") from None
