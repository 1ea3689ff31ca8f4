"""What a batch has done so far, in a folder beside its result: so that it can be resumed after anything.

Rule: an answer is written before it is noted, and a note that is not whole is not there. The folder is the batch's
memory; the process holds one number per job.
"""

import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, Final

from dimnode.batches import Fault, Piece
from dimnode.errors import ConfigError
from dimnode.limits import LIMITS
from dimnode.records.ids import cid_text
from dimnode.records.item_rows import answer_rows
from dimnode.records.items import SIZES, sizes_of
from dimnode.records.tensors import ITEM_BYTES, decode_tensors

_PLAN: Final = "plan.json"
_NOTES: Final = "done.jsonl"
_ANSWERS: Final = "answers.bin"
Line = tuple[int, str, Mapping[str, Any] | Fault]
"""Number, name, and what the model said of it."""
Raw = tuple[str, tuple[int, ...], bytes, bool]
"""dtype, shape without the axis of items, bytes, and whether items differ in size."""


def folder_of(out: Path) -> Path:
    """Where a batch keeps what it has done."""
    return out.with_name(out.name + ".part")


@dataclass(frozen=True, slots=True)
class _Kept:
    chunk: int
    numbers: tuple[int, ...]
    note: int
    start: int
    size: int


class Spool:
    """Open one per batch; `close` when done, `remove` when its result is written."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        self._done = bytearray()
        self._pieces: list[_Kept] = []
        self._faults: dict[int, Fault] = {}
        self.answered = 0
        self._notes = (folder / _NOTES).open("a+b")
        self._answers = (folder / _ANSWERS).open("a+b")
        self._read()

    @staticmethod
    def begin(out: Path, plan: Mapping[str, Any]) -> "Spool":
        """A new one. Raises `ConfigError` when there is one already."""
        folder = folder_of(out)
        try:
            folder.mkdir(mode=0o700, parents=True)
            (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
        except FileExistsError:
            hint = f"dim run --resume {out}, or remove {folder}"
            raise ConfigError("E-cli-46", f"a batch into {out} was begun before", "", hint) from None
        except OSError as error:
            raise ConfigError("E-cli-45", f"cannot write {folder}", error.strerror or "") from None
        return Spool(folder, plan)

    @staticmethod
    def resume(out: Path) -> "Spool":
        """One that was begun. Raises `ConfigError` when there is none."""
        folder = folder_of(out)
        try:
            plan = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if out.exists() and not folder.exists():
                what = f"nothing of {out} is left to be done"
                raise ConfigError("E-cli-46", what, "it is written to its end", "another --out, or remove it") from None
            cause = error.strerror if isinstance(error, OSError) else "its plan cannot be read"
            raise ConfigError(
                "E-cli-46", f"no batch into {out} was begun", cause or "", "dim run … --out FILE"
            ) from None
        return Spool(folder, plan)

    def close(self) -> None:
        """Everything stays for a resumption."""
        self._notes.close()
        self._answers.close()

    def remove(self) -> None:
        """The result is written: nothing of this is needed."""
        self.close()
        for name in (_PLAN, _NOTES, _ANSWERS):
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()

    def has(self, number: int) -> bool:
        """This item needs no more work."""
        place = number >> 3
        return place < len(self._done) and bool(self._done[place] >> (number & 7) & 1)

    @property
    def failed(self) -> int:
        """Items without an answer."""
        return len(self._faults)

    @property
    def faults(self) -> Sequence[Fault]:
        """Those items, by number."""
        return [self._faults[number] for number in sorted(self._faults)]

    def add(self, found: Piece | Fault) -> None:
        """Keep an answer or a fault."""
        if isinstance(found, Fault):
            self._note({"fault": asdict(found)})
            self._faults[found.number] = found
            self._mark([found.number])
            return
        start = self._answers.seek(0, os.SEEK_END)
        self._answers.write(found.ended.outputs[0])
        self._answers.flush()
        size = self._answers.tell() - start
        note = {"chunk": found.chunk, "numbers": _ranges(found.numbers), "start": start, "bytes": size}
        note["job"] = cid_text(found.ended.job)
        if any(found.names):
            note["names"] = list(found.names)
        place = self._note(note)
        self._keep(_Kept(found.chunk, found.numbers, place, start, size))

    def lines(self, texts: Sequence[str]) -> Iterator[Line]:
        """Every item in the order of the input, whatever order they were answered in."""
        faults = ((fault.number, fault.name, fault) for fault in self.faults)
        return heapq.merge(self._answered(texts), faults, key=lambda line: line[0])

    def raw_lines(self) -> Iterator[tuple[int, dict[str, Raw] | None]]:
        """As `lines`, with each tensor's own bytes; None for a fault."""
        faults = ((fault.number, None) for fault in self.faults)
        return heapq.merge(self._raw_answered(), faults, key=lambda line: line[0])

    def _raw_answered(self) -> Iterator[tuple[int, dict[str, Raw] | None]]:
        for chunk in self._chunks():
            lines: list[tuple[int, dict[str, Raw] | None]] = []
            for piece in chunk:
                lines += zip(piece.numbers, _raw_rows(self._blob(piece), len(piece.numbers)), strict=True)
            yield from sorted(lines, key=lambda line: line[0])

    def _chunks(self) -> Iterator[list[_Kept]]:
        """The pieces of each chunk together: those of one chunk may lie within each other, chunks never do."""
        return (list(group) for _, group in groupby(sorted(self._pieces, key=_chunk_of), key=_chunk_of))

    def _blob(self, piece: _Kept) -> bytes:
        self._answers.seek(piece.start)
        return self._answers.read(piece.size)

    def _answered(self, texts: Sequence[str]) -> Iterator[Line]:
        for chunk in self._chunks():
            lines = [line for piece in chunk for line in self._lines_of(piece, texts)]
            yield from sorted(lines, key=lambda line: line[0])

    def _lines_of(self, piece: _Kept, texts: Sequence[str]) -> list[Line]:
        rows = answer_rows(self._blob(piece), len(piece.numbers), texts)
        self._notes.seek(piece.note)
        names = json.loads(self._notes.readline()).get("names") or [""] * len(rows)
        return list(zip(piece.numbers, names, rows, strict=True))

    def _note(self, note: Mapping[str, Any]) -> int:
        place = self._notes.seek(0, os.SEEK_END)
        self._notes.write(json.dumps(note, separators=(",", ":")).encode() + b"\n")
        self._notes.flush()
        return place

    def _keep(self, piece: _Kept) -> None:
        self._pieces.append(piece)
        self.answered += len(piece.numbers)
        self._mark(piece.numbers)

    def _mark(self, numbers: Sequence[int]) -> None:
        most = max(numbers) >> 3
        if most >= len(self._done):
            self._done.extend(bytes(most + 1024 - len(self._done)))
        for number in numbers:
            self._done[number >> 3] |= 1 << (number & 7)

    def _read(self) -> None:
        """What was noted before; a note without its end, or of an answer that is not whole, is cut off."""
        whole = self._answers.seek(0, os.SEEK_END)
        self._notes.seek(0)
        place = 0
        for raw in iter(self._notes.readline, b""):
            try:
                note = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                note = None
            if note is None or note.get("start", 0) + note.get("bytes", 0) > whole:
                break
            if "fault" in note:
                fault = Fault(**note["fault"])
                if not fault.passing:  # what was the swarm's fault is tried again
                    self._faults[fault.number] = fault
                    self._mark([fault.number])
            else:
                numbers = tuple(n for first, last in note["numbers"] for n in range(first, last + 1))
                for number in numbers:
                    self._faults.pop(number, None)
                self._keep(_Kept(note["chunk"], numbers, place, note["start"], note["bytes"]))
            place += len(raw)
        self._notes.truncate(place)
        if sum(len(piece.numbers) for piece in self._pieces) > LIMITS.batch.items_max:
            raise ConfigError("E-cli-46", f"{self.folder} holds more than {LIMITS.batch.items_max} items", "", "")


def _chunk_of(piece: _Kept) -> int:
    return piece.chunk


def _raw_rows(blob: bytes, count: int) -> Iterator[dict[str, Raw]]:
    """Each item's part of each tensor."""
    tensors = {tensor.name: tensor for tensor in decode_tensors(blob)}
    rows: list[dict[str, Raw]] = [{} for _ in range(count)]
    for name, tensor in tensors.items():
        if name.endswith(SIZES) and name.removesuffix(SIZES) in tensors:
            continue
        inner = tensor.shape[1:]
        step = prod(inner) * ITEM_BYTES[tensor.dtype]
        ragged = name + SIZES in tensors
        sizes = sizes_of(tensor, tensors[name + SIZES]) if ragged else (1,) * count
        start = 0
        for row, size in zip(rows, sizes, strict=True):
            row[name] = (tensor.dtype, inner, tensor.raw[start : start + size * step], ragged)
            start += size * step
    yield from rows


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """1, 2, 3, 7 as [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
