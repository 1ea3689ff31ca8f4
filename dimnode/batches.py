"""Many items through one model: cut into jobs, kept under way, taken apart again.

Rule: one bad item never costs the others their answer: a job that fails on its input is run again without the item that
it names, or in halves, until the item stands alone. What is held is bounded by the jobs under way, whatever the number
of items. Nothing here opens a file or prints.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dimnode.errors import ConfigError, Refused, RunFailed
from dimnode.limits import LIMITS
from dimnode.records.item_rows import Values, answer_rows, item_blob, need_rows
from dimnode.records.transforms import Source, source_from

_ITEM: Final = re.compile(r"item (\d+): ")
_MODELS_FAULT: Final = frozenset({"E-exec-90", "E-exec-91", "E-exec-94", "E-exec-103"})
"""No item is to blame: the next would fail the same way."""
_INPUTS_FAULT: Final = re.compile(r"E-input-\d+|E-exec-(1[0-6]|4[0-2]|5[0-2]|9[2-9]|10[0-2])|E-cli-04")
"""Fewer items, or others, may do better."""
_MISSHAPEN: Final = "E-jobs-07"
"""An answer that does not fit its items, after others that did."""
_PASSING: Final = re.compile(r"E-jobs-\d+|E-exec-(0\d|5[2-5]|8\d)|E-peers-\d+")
"""The swarm's fault: the same job may do better later."""


class EndedJob(Protocol):
    """What of a `client.Ended` is needed."""

    @property
    def job(self) -> bytes:
        """Its id."""

    @property
    def status(self) -> str:
        """Of its verdict."""

    @property
    def outputs(self) -> Sequence[bytes]:
        """tensors/1 blobs."""

    @property
    def receipt(self) -> bytes | None:
        """When it was asked for."""

    @property
    def code(self) -> str:
        """Of a failure."""

    @property
    def reason(self) -> str:
        """Of a failure."""

    @property
    def index(self) -> int:
        """Place among the jobs that were given."""


RunMany = Callable[[Iterator[tuple[Mapping[str, Any], Sequence[bytes], bytes]]], Iterator[EndedJob]]
"""`Client.run_many`: jobs as (job, blobs, nonce)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One of many; `number` from 1 in the order of the input, `name` a file's or ""."""

    number: int
    values: Values
    name: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """An item without an answer. `passing`: the swarm's fault, so that it is worth another try."""

    number: int
    code: str
    reason: str
    name: str = ""
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """One job's answer for some items of one chunk: its output has one row per number, in their order.

    `blob` was the job's input.
    """

    chunk: int
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    blob: bytes
    ended: EndedJob


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run and in what portions. `identity` names the batch: the same items in it are never run twice.

    `salt` is random: with it what failed is tried anew, because the first submission failed for good.
    """

    job: Mapping[str, Any]
    sources: tuple[Source, ...]
    identity: bytes
    rows_per_job: int = LIMITS.batch.rows_per_job
    bytes_per_job: int = LIMITS.batch.bytes_per_job
    salt: bytes = b""


@dataclass(slots=True)
class _Chunk:
    number: int
    items: tuple[Item, ...]
    attempt: int = 0
    blob: bytes = b""


@dataclass(slots=True)
class _Feed:
    """What `run_many` draws from: what has to be run again first, then the next chunk of the input."""

    plan: Plan
    items: Iterator[Item | Fault]
    skip: Callable[[int], bool]
    again: deque[_Chunk] = field(default_factory=deque)
    faults: deque[Fault] = field(default_factory=deque)
    given: dict[int, _Chunk] = field(default_factory=dict)
    chunks: int = 0
    index: int = -1
    fitted: bool = False
    _ahead: Item | None = None
    _over: bool = False

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> tuple[Mapping[str, Any], Sequence[bytes], bytes]:
        while (chunk := self.again.popleft() if self.again else self._next_chunk()) is not None:
            if self._encoded(chunk):
                self.index += 1
                self.given[self.index] = chunk
                return self.plan.job, [chunk.blob], self._nonce(chunk)
        raise StopIteration

    def _next_chunk(self) -> _Chunk | None:
        """The next items that are not done; chunks end at the same places whatever was done before."""
        while not self._over:
            taken: list[Item] = []
            size = 0
            while len(taken) < self.plan.rows_per_job:
                item, self._ahead = self._ahead or self._next_item(), None
                if item is None:
                    break
                weight = _weight(item)
                if taken and size + weight > self.plan.bytes_per_job:
                    self._ahead = item
                    break
                taken.append(item)
                size += weight
            self.chunks += 1
            left = tuple(item for item in taken if not self.skip(item.number))
            if left:
                return _Chunk(self.chunks - 1, left)
        return None

    def _next_item(self) -> Item | None:
        for found in self.items:
            if isinstance(found, Item):
                return found
            if not self.skip(found.number):
                self.faults.append(found)
        self._over = True
        return None

    def _encoded(self, chunk: _Chunk) -> bool:
        """Its blob is made; items that cannot be are faults. False when nothing is left of it."""
        while chunk.items:
            try:
                chunk.blob = item_blob(self.plan.sources, [item.values for item in chunk.items])
            except Refused as no:
                self._blame(chunk, no.complaint.code, no.complaint.what, no.complaint.cause)
                continue
            return True
        return False

    def _blame(self, chunk: _Chunk, code: str, what: str, cause: str = "") -> None:
        """The item that a refusal names, else the first, is a fault."""
        named = _ITEM.match(what)
        place = int(named[1]) - 1 if named and 0 < int(named[1]) <= len(chunk.items) else 0
        item = chunk.items[place]
        reason = _ITEM.sub("", what, count=1) + (f": {cause}" if cause else "")
        self.faults.append(Fault(item.number, code, reason, item.name))
        chunk.items = chunk.items[:place] + chunk.items[place + 1 :]

    def _nonce(self, chunk: _Chunk) -> bytes:
        """The same items of the same batch are the same submission, also after a crash on either side."""
        numbers = ",".join(str(item.number) for item in chunk.items)
        text = f"dim-batch/1\n{numbers}\n{chunk.attempt}\n".encode() + (self.plan.salt if chunk.attempt else b"")
        return hashlib.sha256(text + self.plan.identity + hashlib.sha256(chunk.blob).digest()).digest()[:16]

    def failed(self, chunk: _Chunk, code: str, reason: str) -> None:
        """Run again what may do better; the rest are faults. Raises `RunFailed` when the model itself is to blame."""
        if code in _MODELS_FAULT:
            raise RunFailed(code, reason, "the model is to blame, not an item", "dim models ls")
        named = _ITEM.search(reason)
        if named and 0 < int(named[1]) <= len(chunk.items):
            self._blame(chunk, code, reason[named.start() :])
            if chunk.items:
                self.again.append(_Chunk(chunk.number, chunk.items, chunk.attempt))
        elif _INPUTS_FAULT.fullmatch(code) and len(chunk.items) > 1:
            half = len(chunk.items) // 2
            for items in (chunk.items[:half], chunk.items[half:]):
                self.again.append(_Chunk(chunk.number, items, chunk.attempt))
        elif _PASSING.fullmatch(code) and chunk.attempt + 1 < LIMITS.batch.attempts_max:
            self.again.append(_Chunk(chunk.number, chunk.items, chunk.attempt + 1))
        else:
            passing = _PASSING.fullmatch(code) is not None
            for item in chunk.items:
                self.faults.append(Fault(item.number, code, reason, item.name, passing))


def run_chunks(
    run_many: RunMany, plan: Plan, items: Iterator[Item | Fault], skip: Callable[[int], bool] = lambda number: False
) -> Iterator[Piece | Fault]:
    """Answers as they come, and the items that got none. `skip` says which numbers are done already.

    Raises `RunFailed` when the model is to blame, `NoNode` when the node went away: what was yielded stays true.
    """
    feed = _Feed(plan, items, skip)
    while True:
        began = feed.index
        offset = began + 1
        for ended in run_many(feed):
            chunk = feed.given.pop(ended.index + offset)
            if ended.status == "ok" and ended.outputs:
                if (piece := _piece(feed, chunk, ended)) is not None:
                    yield piece
            else:
                feed.failed(chunk, ended.code or "E-jobs-07", ended.reason or f"the job was {ended.status}")
            while feed.faults:
                yield feed.faults.popleft()
        while feed.faults:
            yield feed.faults.popleft()
        if feed.index == began:  # nothing was left to give
            return


def _piece(feed: _Feed, chunk: _Chunk, ended: EndedJob) -> Piece | None:
    """An answer that has one row per item; None for another, which is asked for again. Raises `Refused` E-input-08 when
    the first answer of all is such a one: then it is the model that does not fit.

    Later ones are one executor's doing: kept, they would make the whole result unreadable.
    """
    try:
        need_rows(ended.outputs[0], len(chunk.items))
    except Refused as no:
        if not feed.fitted:
            raise
        feed.failed(chunk, _MISSHAPEN, f"{no.complaint.what} ({no.complaint.cause})")
        return None
    feed.fitted = True
    numbers, names = zip(*((item.number, item.name) for item in chunk.items), strict=True)
    return Piece(chunk.number, numbers, names, chunk.blob, ended)


def _weight(item: Item) -> int:
    """About what an item takes on the wire."""
    total = 0
    for value in item.values.values():
        total += len(value) if isinstance(value, bytes | str) else 8 * len(value) if isinstance(value, list) else 8
    return total


def check_rows_per_job(rows: int) -> None:
    """Raises `ConfigError` E-cli-44 for a number of which no chunk could be made, or no job."""
    if not 1 <= rows <= LIMITS.batch.rows_per_job_max:
        what = f"{rows} rows per job"
        raise ConfigError("E-cli-44", what, f"from 1 to {LIMITS.batch.rows_per_job_max}", "--rows-per-job 256")


# ---- for programs


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What became of one item: `values` by tensor name, or None with a code and a reason."""

    number: int
    values: Mapping[str, Any] | None
    code: str = ""
    reason: str = ""
    job: bytes = b""


def model_row(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The newest of the listed models that `name` could mean; the node decides whether the name is good.

    Of several publishers' the node's own counts, then what is here: a stranger may publish version 999 of anything.
    """
    found = []
    for row in rows:
        bare, _, version = row["name"].rpartition(":")
        full = f"{row['publisher']}/"
        if row["model"] == name:
            return row
        if name in (full + row["name"], full + bare) or ("/" not in name and name in (row["name"], bare)):
            parts = tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))
            found.append((bool(row.get("mine")), bool(row.get("here")), parts, row))
    several = len({row["publisher"] for *_, row in found}) > 1
    return max(found, key=lambda entry: entry[:3] if several else entry[2:3])[3] if found else None


def sources_from(row: Mapping[str, Any]) -> tuple[Source, ...]:
    """What a listed model takes; of one that declares nothing but its tensors, those, with one row per item."""
    takes = tuple(source_from(said) for said in row.get("takes", ()))
    return takes or tuple(Source(name, "tensor", (), dtype, tuple(shape)) for name, dtype, shape in row["inputs"])


def numbered(items: Iterable[Any], sources: Sequence[Source]) -> Iterator[Item]:
    """Items from values: maps by input name, or for a model of one input what it takes."""
    for number, item in enumerate(items, 1):
        alone = len(sources) == 1 and not isinstance(item, Mapping)
        yield Item(number, {sources[0].name: item} if alone else item)


def run_rows(
    run_many: RunMany, plan: Plan, items: Iterator[Item | Fault], texts: Sequence[str] = ()
) -> Iterator[BatchRow]:
    """`run_chunks`, item by item."""
    for found in run_chunks(run_many, plan, items):
        if isinstance(found, Fault):
            yield BatchRow(found.number, None, found.code, found.reason)
            continue
        for number, values in zip(
            found.numbers, answer_rows(found.ended.outputs[0], len(found.numbers), texts), strict=True
        ):
            yield BatchRow(number, values, job=found.ended.job)
