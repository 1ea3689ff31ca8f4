"""What stands behind `dim run MODEL`: files, texts, rows of a table, as items for a model that says what it takes.

Rule: an item is made from exactly what was named, in the order in which it was named; a folder's files come by name.
What cannot be an item is a fault with its number, and only the first one of a single run stops it.
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from dimnode.batches import Fault, Item
from dimnode.cli.inputs import Choice, columns_hint
from dimnode.cli.output import counted, talk
from dimnode.cli.tables import SUFFIXES, Table, bounded_lines, is_number, number_of, open_table, readable, text_of
from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.records.item_rows import item_blob
from dimnode.records.transforms import Source

FILE_KINDS: Final = ("image", "audio", "bytes")
_ARRAYS: Final = frozenset({".npy", ".npz"})
OTHER_TABLES: Final = frozenset({".parquet", ".jsonl", ".ndjson"}) | _ARRAYS
"""What is read here also for a model that declares nothing but its tensors."""
_LOOKED_AT: Final = 256
"""Rows by which it is decided which columns hold numbers."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Items of a run. `items()` reads from the beginning each time; `noun` is what a person calls one of them."""

    sources: tuple[Source, ...]
    items: Callable[[], Iterator[Item | Fault]]
    count: Callable[[], int]
    noun: str


def gather(inputs: Sequence[str], sources: Sequence[Source], choice: Choice, *, lines: bool = False) -> Gathered:
    """Items from the command line's arguments. `lines`: a text file holds one text per line. Raises `ConfigError`."""
    if any(source.kind in FILE_KINDS for source in sources) and not _is_table(inputs):
        _nothing_chosen(choice, "files")
        return _files(inputs, sources)
    if all(source.kind == "text" for source in sources) and not _is_table(inputs):
        _nothing_chosen(choice, "texts")
        return _texts(inputs, sources, lines)
    if len(inputs) != 1:
        kinds = ", ".join(f"{source.kind} {source.name!r}" for source in sources)
        raise ConfigError("E-cli-43", f"{len(inputs)} inputs were given", f"the model takes {kinds}", "one table")
    if Path(inputs[0]).suffix.lower() in _ARRAYS:
        return _arrays(inputs[0], sources, choice)
    return _rows(open_table(inputs[0]), sources, choice)


def _nothing_chosen(choice: Choice, given: str) -> None:
    if choice.rows or choice.columns or choice.drop:
        what = f"--row, --columns and --drop choose from a table, and {given} were given"
        raise ConfigError("E-cli-44", what, "", f"name only the {given} that you mean, or give a CSV file")


def one_blob(gathered: Gathered) -> tuple[bytes, tuple[str, ...]]:
    """All items as the input of one job, and what they are called. The first fault stops it. Raises `DimError`."""
    items: list[Item] = []
    for found in gathered.items():
        if isinstance(found, Fault):
            what = f"{found.name}: {found.reason}" if found.name else found.reason
            raise Refused(found.code, what, "", "with --batch the others are run without it")
        items.append(found)
        if len(items) > LIMITS.transforms.items_max:
            most = LIMITS.transforms.items_max
            raise Refused("E-input-05", f"more than {most} {gathered.noun}s", "for one job", "dim run … --batch")
    if not items:
        raise Refused("E-input-04", f"there is no {gathered.noun} in the input")
    names = tuple(item.name for item in items)
    return item_blob(gathered.sources, [item.values for item in items]), names if all(names) else ()


def plain_source(declared: Sequence[Sequence[Any]], choice: Choice) -> Source:
    """The one input of a model without `pre`, for many rows. Raises `ConfigError` when it has several."""
    if len(declared) > 1:
        names = ", ".join(str(row[0]) for row in declared)
        raise ConfigError("E-cli-43", f"the model has {len(declared)} inputs: {names}", "many rows go into one", "")
    name, dtype, shape = declared[0] if declared else ("x", "float32", [])
    return Source(choice.name or name, "rows", (), dtype or "float32", tuple(shape))


def place_of(text: str) -> Path:
    """Where a file of this name would be. It may be a text, too long for any: ask `os.path`, which says no to it."""
    return Path(os.path.expanduser(text))


def _is_table(inputs: Sequence[str]) -> bool:
    place = place_of(inputs[0])
    return len(inputs) == 1 and place.suffix.lower() in SUFFIXES | _ARRAYS and os.path.exists(place)


# ---- files


def _files(inputs: Sequence[str], sources: Sequence[Source]) -> Gathered:
    if len(sources) != 1:
        names = ", ".join(source.name for source in sources)
        what = f"the model takes {len(sources)} things for each item: {names}"
        raise ConfigError("E-cli-43", what, "", "give a table with these columns; files by their paths")
    paths = [path for text in inputs for path in _expanded(text)]
    if not paths:
        raise Refused("E-input-04", f"there is no file in {inputs[0]}", "", "name files or a folder of them")
    if len(paths) > LIMITS.batch.files_max:
        raise Refused("E-input-05", f"{len(paths)} files", f"at most {LIMITS.batch.files_max} at a time")

    def items() -> Iterator[Item | Fault]:
        for number, path in enumerate(paths, 1):
            yield file_item(number, path, sources[0].name)

    return Gathered(tuple(sources), items, lambda: len(paths), "file")


def _expanded(text: str) -> list[Path]:
    """A file, a folder's files, or what a pattern means that the shell left alone."""
    path = place_of(text)
    if os.path.isdir(path):
        with readable(path, "files, or a folder of them"):
            return sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    if not os.path.exists(path) and glob.has_magic(text):
        return sorted(found for name in glob.iglob(str(path)) if (found := Path(name)).is_file())
    return [path]


def file_item(number: int, path: Path, source: str) -> Item | Fault:
    """One file as an item."""
    try:
        with path.open("rb") as file:
            raw = file.read(LIMITS.batch.file_bytes_max + 1)
    except OSError as error:
        return Fault(number, "E-cli-41", f"cannot read the file: {error.strerror}", str(path))
    if len(raw) > LIMITS.batch.file_bytes_max:
        return Fault(number, "E-input-05", f"the file has more than {LIMITS.batch.file_bytes_max} bytes", str(path))
    return Item(number, {source: raw}, str(path))


# ---- texts


def _texts(inputs: Sequence[str], sources: Sequence[Source], lines: bool) -> Gathered:
    if len(sources) != 1:
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            "E-cli-43", f"the model takes {len(sources)} texts: {names}", "", "a table with these columns"
        )
    name = sources[0].name
    if lines and len(inputs) == 1 and os.path.isfile(place_of(inputs[0])):
        return _lines(place_of(inputs[0]), sources[0])

    def items() -> Iterator[Item | Fault]:
        for number, text in enumerate(inputs, 1):
            path = place_of(text)
            if not os.path.isfile(path):
                yield Item(number, {name: text})
                continue
            found = file_item(number, path, name)
            yield _decoded(found, name) if isinstance(found, Item) else found

    for text in inputs:
        if (
            not os.path.isfile(place_of(text))
            and Path(text).suffix.lower() in {".txt", ".md", *SUFFIXES}
            and " " not in text
        ):
            raise ConfigError(
                "E-cli-41",
                f"cannot read {text}",
                "there is no such file",
                "check the path; a text of your own has a space in it",
            )
    return Gathered(tuple(sources), items, lambda: len(inputs), "text")


def _decoded(item: Item, name: str) -> Item | Fault:
    try:
        return replace(item, values={name: item.values[name].decode("utf-8-sig")})
    except UnicodeDecodeError:
        return Fault(item.number, "E-cli-41", "the file is not text in UTF-8", item.name)


def _lines(path: Path, source: Source) -> Gathered:
    def items() -> Iterator[Item | Fault]:
        with readable(path, "a text in UTF-8"), path.open("rb") as file:
            for number, line in enumerate(bounded_lines(file, LIMITS.transforms.text_bytes_max), 1):
                if len(line) > LIMITS.transforms.text_bytes_max:
                    yield Fault(number, "E-input-05", f"a line of more than {LIMITS.transforms.text_bytes_max} bytes")
                    continue
                try:
                    yield Item(number, {source.name: line.decode("utf-8-sig").rstrip("\r\n")})
                except UnicodeDecodeError:
                    yield Fault(number, "E-cli-41", "the line is not text in UTF-8")

    return Gathered((source,), items, lambda: sum(1 for _ in items()), "line")


# ---- rows


def _rows(table: Table, sources: Sequence[Source], choice: Choice) -> Gathered:
    wanted = tuple(_with_columns(source, table, choice) for source in sources)

    def items() -> Iterator[Item | Fault]:
        for found in table.rows():
            if isinstance(found, Fault):
                yield found
                continue
            number, cells = found
            if choice.rows and number not in choice.rows:
                continue
            try:
                yield Item(number, {source.name: _value(source, cells, number, table) for source in wanted})
            except Refused as no:
                said = no.complaint
                yield Fault(number, said.code, said.what + (f": {said.cause}" if said.cause else ""))

    return Gathered(wanted, items, lambda: len(choice.rows) or table.count(), "row")


def _with_columns(source: Source, table: Table, choice: Choice) -> Source:
    """The columns of a table that an input comes from: those it names, those that were chosen, or all of numbers."""
    if source.kind == "tensor":
        raise ConfigError("E-cli-43", f"the model takes tensor {source.name!r}", "", "give an .npy or .npz file")
    if source.kind != "rows":
        columns = source.columns or (choice.columns if len(choice.columns) == 1 else (source.name,))
    else:
        columns = source.columns or choice.by_name(table.columns) or _numeric(table, choice)
    for name in (*columns, *choice.drop):
        if name not in table.columns:
            near = get_close_matches(name, table.columns, 1)
            said = f"columns: {', '.join(table.columns[:6])}{' …' if len(table.columns) > 6 else ''}"
            hint = f"did you mean {near[0]!r}?" if near else "--columns NAME"
            raise ConfigError("E-cli-42", f"there is no column {name!r} in {table.source}", said, hint)
    width = source.shape[1] if len(source.shape) == 2 else -1
    if source.kind == "rows" and width not in (-1, len(columns)):
        what = f"the model takes {counted(width, 'column')}, the input has {len(columns)}"
        raise Refused("E-input-06", what, f"columns: {', '.join(columns[:6])}", columns_hint(width, columns))
    return replace(source, columns=tuple(columns))


def _numeric(table: Table, choice: Choice) -> tuple[str, ...]:
    """Columns that hold a number in one of the first rows, but those dropped."""
    seen: set[str] = set()
    for place, found in enumerate(table.rows()):
        if place >= _LOOKED_AT:
            break
        if not isinstance(found, Fault):
            seen.update(name for name, cell in found[1].items() if name not in seen and is_number(cell))
    kept = tuple(name for name in table.columns if name in seen and name not in choice.drop)
    if left_out := [name for name in table.columns if name not in seen and name not in choice.drop]:
        talk(f"left out, not numbers: {', '.join(left_out)}")
    if not kept:
        raise Refused(
            "E-input-01", "no column holds numbers", f"columns: {', '.join(table.columns[:6])}", "--columns A,B"
        )
    return kept


def _value(source: Source, cells: Any, number: int, table: Table) -> Any:
    if missing := [name for name in source.columns if name not in cells]:  # a column may have no name
        raise Refused("E-input-07", f"row {number} has no column {missing[0]!r}")
    if source.kind == "text":
        return text_of(cells[source.columns[0]], number, source.columns[0])
    if source.kind in FILE_KINDS:
        path = _beside(Path(table.source).parent, text_of(cells[source.columns[0]], number, source.columns[0]), number)
        found = file_item(number, path, source.name)
        if isinstance(found, Fault):
            raise Refused(found.code, f"row {number}: {found.reason}", found.name)
        return found.values[source.name]
    row = [number_of(cells[name], number, name) for name in source.columns]
    return row[0] if len(source.shape) == 1 and len(row) == 1 else row


def _beside(folder: Path, said: str, number: int) -> Path:
    """A file that a table names. Never one outside the table's folder: a table may come from a stranger, and what it
    names is read with this account's rights and sent to others. Raises `Refused`."""
    path = folder / said
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, links in a ring
        inside = False
    if not inside:
        cause = "a table's files are read from its own folder and the folders in it"
        what = f"row {number}: the file {said[:80]!r} is outside the table's folder"
        raise Refused("E-input-01", what, cause, "put the files beside the table")
    return path


# ---- arrays


def _arrays(source: str, sources: Sequence[Source], choice: Choice) -> Gathered:
    """.npy for a model of one input, .npz by the inputs' names; items are along the first axis."""
    import numpy as np

    try:
        found = np.load(Path(source).expanduser(), allow_pickle=False, mmap_mode="r")
        named = {sources[0].name: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(
            "E-cli-41", f"{source} is no NumPy file of numbers", str(error)[:120], "np.save, np.savez"
        ) from None
    if missing := [entry.name for entry in sources if entry.name not in named]:
        raise Refused("E-input-07", f"{source} has no array {missing[0]!r}", f"it has {', '.join(named)}")
    counts = {len(array) if array.ndim else 0 for array in named.values()}
    if len(counts) != 1 or 0 in counts or any(array.dtype.kind not in "iufb" for array in named.values()):
        raise Refused("E-input-01", f"{source} holds no numbers, or arrays of different lengths")

    def items() -> Iterator[Item | Fault]:
        for place in choice.rows or range(1, next(iter(counts)) + 1):
            if not 1 <= place <= next(iter(counts)):
                cause = f"rows are numbered from 1 to {next(iter(counts))}"
                raise ConfigError("E-cli-42", f"there is no row {place}", cause, "--row 1")
            yield Item(place, {entry.name: named[entry.name][place - 1].tolist() for entry in sources})

    typed = tuple(
        entry if entry.dtype else replace(entry, dtype=str(named[entry.name].dtype.name)) for entry in sources
    )
    return Gathered(typed, items, lambda: len(choice.rows) or next(iter(counts)), "row")
