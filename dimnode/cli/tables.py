"""Tables of any size, row by row: CSV, JSON and JSON lines of objects, Parquet.

Rule: a row that cannot be read is a fault with its number, and the rows after it are still read; a file that cannot be
is one complaint. Nothing is held but the row at hand (JSON: the file).
"""

import contextlib
import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from dimnode.batches import Fault
from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS

SUFFIXES: Final = frozenset({".csv", ".jsonl", ".ndjson", ".json", ".parquet"})
_MAGIC: Final = b"PAR1"
_PARQUET_BYTES_MIN: Final = 12
_TEXT_HINT: Final = "a table in UTF-8 with a header line"

Cells = Mapping[str, Any]
Row = tuple[int, Cells]


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns; `rows()` reads from the beginning each time, numbers from 1. `count()` reads it all once."""

    source: str
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row | Fault]]
    count: Callable[[], int]


def open_table(source: str) -> Table:
    """A table by its file's suffix. Raises `ConfigError`."""
    path = Path(source).expanduser()
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path)
        case ".json":
            return _json(path)
        case ".jsonl" | ".ndjson":
            return _json_lines(path)
    return _csv(path)


def number_of(cell: Any, row: int, column: str) -> float:
    """A cell as a number. Raises `Refused` naming its place."""
    where = f"row {row}, column {column!r}"
    if isinstance(cell, str):
        try:
            cell = float(cell.strip())
        except ValueError:
            found = repr(cell[:40]) if cell.strip() else "nothing"
            raise Refused("E-input-01", f"{where} is no number", f"it holds {found}", "--columns or --drop") from None
    if cell is None or isinstance(cell, bool) or not isinstance(cell, int | float):
        raise Refused("E-input-01", f"{where} is no number", f"it holds {str(cell)[:40]}", "--columns or --drop")
    try:
        finite, number = math.isfinite(cell), float(cell)
    except OverflowError:
        raise Refused("E-input-01", f"{where} is no number", "it is too large for one", "--columns or --drop") from None
    if not finite:
        raise Refused("E-input-02", f"{where} is {cell}", "a model cannot use it", "remove or fill that row")
    return number


def text_of(cell: Any, row: int, column: str) -> str:
    """A cell as text. Raises `Refused` for a missing one."""
    if cell is None:
        raise Refused("E-input-01", f"row {row}, column {column!r} is empty", "the model takes text there")
    return cell if isinstance(cell, str) else str(cell)


def is_number(cell: Any) -> bool:
    """A cell that could be used as a number."""
    try:
        number_of(cell, 0, "")
    except Refused as no:
        return no.complaint.code == "E-input-02"  # NaN makes a column of numbers with a fault in it
    return True


@contextlib.contextmanager
def readable(path: Path, hint: str = _TEXT_HINT) -> Iterator[None]:
    """A block that reads this file. Raises `ConfigError` E-cli-41 when it cannot, or finds no text."""
    try:
        yield
    except OSError as error:
        raise ConfigError("E-cli-41", f"cannot read {path}", error.strerror or "", hint) from None
    except UnicodeDecodeError:
        raise ConfigError("E-cli-41", f"cannot read {path}", "it is not text in UTF-8", hint) from None


# ---- CSV


def _csv(path: Path) -> Table:
    with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        header = tuple(cell.strip() for cell in next(_lines(file, path), []))
    if len(set(header)) != len(header):
        raise ConfigError("E-cli-41", f"{path} has two columns of one name", ", ".join(header[:12]))
    if not header:
        raise Refused("E-input-04", f"{path} has no rows", "a CSV file has a header line and then rows")

    def rows() -> Iterator[Row | Fault]:
        with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
            lines = _lines(file, path)
            next(lines)
            for number, cells in enumerate(lines, 1):
                if len(cells) == len(header):
                    yield number, dict(zip(header, cells, strict=True))
                else:
                    yield Fault(number, "E-input-01", f"the row has {len(cells)} cells, the header has {len(header)}")

    def count() -> int:
        with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
            return sum(1 for _ in _lines(file, path)) - 1

    return Table(str(path), header, rows, count)


def _lines(file: Any, path: Path) -> Iterator[list[str]]:
    try:
        for line in csv.reader(file):
            if line:
                yield line
    except csv.Error as error:
        raise ConfigError("E-cli-41", f"{path} is no CSV file", str(error), "") from None


def bounded_lines(file: IO[bytes], bytes_max: int) -> Iterator[bytes]:
    """The lines of a file that are not blank, by number; of one that is longer its first `bytes_max` + 1 bytes, and
    never its rest as if that were a line of its own."""
    while line := file.readline(bytes_max + 1):
        rest = line
        while len(rest) > bytes_max and not rest.endswith(b"\n"):
            rest = file.readline(bytes_max + 1)
        if line.strip():
            yield line


# ---- JSON


def _json(path: Path) -> Table:
    with readable(path), path.open(encoding="utf-8-sig") as file:
        text = file.read(LIMITS.exec.rows_file_bytes_max + 1)
    if len(text) > LIMITS.exec.rows_file_bytes_max:
        most = LIMITS.exec.rows_file_bytes_max
        raise Refused("E-input-05", f"{path} is too large", f"limit {most} bytes", "as JSON lines it may have any size")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a whole number of more than 4,300 digits
        place = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError("E-cli-40", f"{path}: malformed JSON{place}", str(error)[:120]) from None
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise ConfigError("E-cli-43", f"{path} is no table", "a table is a list of objects: [{…}, …]")

    def rows() -> Iterator[Row | Fault]:
        for number, row in enumerate(found, 1):
            yield _object(row, number)

    return Table(str(path), tuple(map(str, found[0])), rows, lambda: len(found))


def _json_lines(path: Path) -> Table:
    def lines() -> Iterator[bytes]:
        with readable(path), path.open("rb") as file:
            yield from bounded_lines(file, LIMITS.batch.file_bytes_max)

    def rows() -> Iterator[Row | Fault]:
        for number, line in enumerate(lines(), 1):
            if len(line) > LIMITS.batch.file_bytes_max:
                yield Fault(number, "E-input-05", f"a line of more than {LIMITS.batch.file_bytes_max} bytes")
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield Fault(number, "E-input-01", f"malformed JSON: {str(error)[:120]}")
            else:
                yield _object(row, number)

    first = next((row for row in rows() if not isinstance(row, Fault)), None)
    if first is None:
        raise Refused("E-input-04", f"{path} has no rows", "each line is one object: {…}")
    return Table(str(path), tuple(first[1]), rows, lambda: sum(1 for _ in lines()))


def _object(row: Any, number: int) -> Row | Fault:
    if not isinstance(row, dict):
        return Fault(number, "E-input-01", "the row is no object")
    return number, row


# ---- Parquet


def _parquet(path: Path) -> Table:
    try:
        from arro3.io import read_parquet
    except ImportError as error:
        what = "reading Parquet needs a package that is not installed"
        raise ConfigError("E-cli-37", what, str(error), "pip install 'dimnode[parquet]'") from None
    with readable(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        ends = file.read(len(_MAGIC)), file.seek(max(0, size - len(_MAGIC))), file.read(len(_MAGIC))
    if size < _PARQUET_BYTES_MIN or (ends[0], ends[2]) != (_MAGIC, _MAGIC):
        raise ConfigError("E-cli-41", f"{path} is no Parquet file", "it does not begin and end as one", "")

    def batches() -> Iterator[Any]:
        with _tamed(path):
            reader = read_parquet(str(path))
        while True:
            with _tamed(path):
                batch = next(reader, None)
            if batch is None:
                return
            yield batch

    with _tamed(path):
        columns = tuple(map(str, read_parquet(str(path)).schema.names))

    def rows() -> Iterator[Row | Fault]:
        number = 0
        for batch in batches():
            cells = [column.to_pylist() for column in batch.columns]
            for place in range(batch.num_rows):
                number += 1
                yield number, {name: values[place] for name, values in zip(columns, cells, strict=True)}

    return Table(str(path), columns, rows, lambda: sum(batch.num_rows for batch in batches()))


@contextlib.contextmanager
def _tamed(path: Path) -> Iterator[None]:
    """The library's panics are no `Exception`, and it writes its stack on the way: neither reaches the person."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as fault:  # noqa: BLE001 boundary: a panic of the library's
        words = str(fault).splitlines()[0][:160] if str(fault) else ""
        raise ConfigError("E-cli-41", f"{path} is no Parquet file that can be read", words, "") from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
