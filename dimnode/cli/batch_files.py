"""The result of a batch as a file: JSON lines, CSV, or NumPy's .npz; in the order of the input.

Rule: every item has its place, those without an answer too. One item is held at a time.
"""

import csv
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from dimnode.batches import Fault
from dimnode.cli.batch_spool import Raw, Spool
from dimnode.cli.output import json_text, plain
from dimnode.errors import ConfigError

SUFFIXES: Final = (".jsonl", ".csv", ".npz")
_CODES: Final = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "int64": "<i8", "int32": "<i4", "int16": "<i2"}
_CODES_SMALL: Final = {"int8": "|i1", "uint8": "|u1", "bool": "|b1"}
_HEADER_STEP: Final = 64
_FLAT_MAX: Final = 4096
_OWN: Final = frozenset({"item", "name", "error", "predicted", "code", "reason", "failed"})


def check_suffix(out: Path) -> None:
    """Raises `ConfigError` for a form that is not written."""
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError("E-cli-44", f"--out {out}: results are written as {', '.join(SUFFIXES)}", "", "results.jsonl")


def write_result(spool: Spool, out: Path, labels: Sequence[str], texts: Sequence[str]) -> None:
    """The whole file, put in its place when it is whole. Raises `ConfigError`."""
    partial = spool.folder / f"result{out.suffix.lower()}"
    try:
        match out.suffix.lower():
            case ".npz":
                _write_npz(spool, partial)
            case ".csv":
                with partial.open("w", encoding="utf-8", newline="") as file:
                    _write_csv(spool, file, texts, labels)
            case _:
                with partial.open("w", encoding="utf-8") as file:
                    write_lines(spool, file, labels, texts)
        shutil.move(partial, out)
    except OSError as error:
        hint = f"dim run --resume {out}"
        raise ConfigError("E-cli-45", f"cannot write {out}", error.strerror or "", hint) from None


def write_lines(spool: Spool, file: IO[str], labels: Sequence[str], texts: Sequence[str]) -> None:
    """One JSON object per item, for a file or a terminal."""
    for number, name, said in spool.lines(texts):
        line: dict[str, Any] = {"item": number}
        if name:
            line["name"] = name
        if isinstance(said, Fault):
            line["error"] = {"code": said.code, "reason": said.reason}
        else:
            line |= {_apart(name): value for name, value in said.items()}
            if (called := predicted(said, labels)) is not None:
                line["predicted"] = called
        file.write(json_text(line) + "\n")


def _apart(name: str) -> str:
    """An output that is called as something of ours gets another name: else a model could say which item it answers."""
    return f"model.{name}" if name in _OWN else name


def predicted(said: Mapping[str, Any], labels: Sequence[str]) -> str | None:
    """The class of an item in words."""
    label = said.get("label")
    place = label[0] if isinstance(label, list) and len(label) == 1 else label
    return labels[place] if type(place) is int and 0 <= place < len(labels) else None


def _write_csv(spool: Spool, file: IO[str], texts: Sequence[str], labels: Sequence[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    columns: list[str] = []
    waiting: list[tuple[int, str, Any]] = []
    for line in spool.lines(texts):
        said = line[2]
        if not columns and isinstance(said, Fault):
            waiting.append(line)  # how the header is to be is known from the first answer
            continue
        if not columns and not isinstance(said, Fault):
            columns = list(_cells(said, labels))
            writer.writerow(["item", "name", *columns, "code", "reason"])
            for early in waiting:
                writer.writerow(_csv_line(*early, columns, labels))
            waiting.clear()
        writer.writerow(_csv_line(*line, columns, labels))
    if not columns:
        writer.writerow(["item", "name", "code", "reason"])
        for early in waiting:
            writer.writerow(_csv_line(*early, columns, labels))


def _csv_line(number: int, name: str, said: Any, columns: Sequence[str], labels: Sequence[str]) -> list[Any]:
    if isinstance(said, Fault):
        return [number, name, *([""] * len(columns)), said.code, said.reason]
    cells = _cells(said, labels)
    return [number, name, *(cells.get(column, "") for column in columns), "", ""]


def _cells(said: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Numbers and texts as they are, a short vector as columns, everything else as JSON."""
    cells: dict[str, Any] = {}
    for name, value in said.items():
        flat = isinstance(value, list) and len(value) <= _FLAT_MAX and not any(isinstance(part, list) for part in value)
        if flat:
            cells |= {f"{name}[{place}]": part for place, part in enumerate(value)}
        else:
            cells[_apart(name)] = json.dumps(plain(value)) if isinstance(value, list) else value
    if (called := predicted(said, labels)) is not None:
        cells["predicted"] = called
    return cells


# ---- .npz


def _write_npz(spool: Spool, partial: Path) -> None:
    """`item` and `failed` for every item, and an array per name; places of failed items are zero.

    Names of unequal sizes are one behind the other, with `NAME.sizes`, as in tensors/1.
    """
    count = spool.answered + spool.failed
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _add(archive, "item", "int64", (count,), (n.to_bytes(8, "little") for n, _ in spool.raw_lines()))
        _add(archive, "failed", "uint8", (count,), (bytes([said is None]) for _, said in spool.raw_lines()))
        first = next((said for _, said in spool.raw_lines() if said is not None), {})
        _need_one_form(spool, first)
        for name, (dtype, inner, _, ragged) in first.items():
            if not ragged:
                size = _bytes_of(dtype, inner)
                rows = (bytes(size) if said is None else said[name][2] for _, said in spool.raw_lines())
                _add(archive, _apart(name), dtype, (count, *inner), rows)
                continue
            step = _bytes_of(dtype, inner)
            sizes = [0 if said is None else len(said[name][2]) // max(1, step) for _, said in spool.raw_lines()]
            parts = (b"" if said is None else said[name][2] for _, said in spool.raw_lines())
            _add(archive, _apart(name), dtype, (sum(sizes), *inner), parts)
            _add(archive, f"{_apart(name)}.sizes", "int64", (count,), (size.to_bytes(8, "little") for size in sizes))


def _need_one_form(spool: Spool, first: Mapping[str, Raw]) -> None:
    """Raises `ConfigError` unless all answers have the names, types and shapes of the first: in an array they would be
    other numbers than the model's."""
    wanted = {name: (dtype, inner, ragged) for name, (dtype, inner, _, ragged) in first.items()}
    for number, said in spool.raw_lines():
        if (
            said is not None
            and {name: (dtype, inner, ragged) for name, (dtype, inner, _, ragged) in said.items()} != wanted
        ):
            lines = spool.folder.name.removesuffix(".npz.part") + ".jsonl"
            hint = f"mv {spool.folder} {spool.folder.with_name(lines + '.part')} && dim run --resume {lines}"
            raise ConfigError("E-cli-44", f"item {number} has another shape than the first answer", "no .npz", hint)


def _bytes_of(dtype: str, inner: Sequence[int]) -> int:
    size = int((_CODES | _CODES_SMALL)[dtype][2:])
    for one in inner:
        size *= one
    return size


def _add(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...], parts: Iterator[bytes]) -> None:
    """One member in NumPy's format 1.0 (numpy.lib.format)."""
    said = f"{{'descr': '{(_CODES | _CODES_SMALL)[dtype]}', 'fortran_order': False, 'shape': {shape}, }}"
    pad = -(10 + len(said) + 1) % _HEADER_STEP
    header = said.encode("latin1") + b" " * pad + b"\n"
    member = zipfile.ZipInfo(f"{name.replace('/', '_')}.npy")
    with archive.open(member, "w", force_zip64=True) as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for part in parts:
            file.write(part)
