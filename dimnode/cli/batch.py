"""`dim run` over many rows or files: a batch with progress, a list of what failed, and a way to go on after anything.

Rule: as for one run, an answer is kept only when its receipt was verified by this process. What is done is on the disk
before it is counted.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from dimnode.batches import EndedJob, Fault, Item, Piece, Plan, run_chunks
from dimnode.cli.batch_files import check_suffix, write_lines, write_result
from dimnode.cli.batch_spool import Spool
from dimnode.cli.carrying import is_about, plan_lines, replicas_of
from dimnode.cli.gather import Gathered, gather
from dimnode.cli.inputs import Choice
from dimnode.cli.output import counted, say_json, shown, talk
from dimnode.client import Client, Ended
from dimnode.errors import ConfigError, NoNode, Refused, RunFailed
from dimnode.limits import LIMITS
from dimnode.records.item_rows import item_blob
from dimnode.records.receipt import parse_receipt
from dimnode.records.transforms import Source

_INTERRUPTED: Final = 130
_TOLD_SECONDS: Final = 5.0
_DRAWN_SECONDS: Final = 0.2
_FAULTS_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class Batch:
    """All that a resumption has to know, as it stands in plan.json."""

    model: str
    name: str
    job: Mapping[str, Any]
    inputs: tuple[str, ...]
    sources: tuple[Source, ...]
    choice: Choice
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    rows_per_job: int
    identity: str
    seen: tuple[tuple[str, int, int], ...]

    def written(self) -> dict[str, Any]:
        """For the plan file."""
        return {"version": 1, **asdict(self)}

    @staticmethod
    def read(said: Mapping[str, Any]) -> "Batch":
        """From the plan file. Raises `ConfigError`."""
        import msgspec

        try:
            return msgspec.convert({key: value for key, value in said.items() if key != "version"}, Batch)
        except msgspec.ValidationError as error:
            what = "the batch's plan was written by another version"
            raise ConfigError("E-cli-46", what, str(error), "run it anew") from None


def begin(client: Client, chosen: argparse.Namespace, batch: Batch) -> int:
    """A new batch."""
    out: Path | None = chosen.out
    if out is not None:
        check_suffix(out)
        if out.exists():
            raise ConfigError("E-cli-46", f"{out} is there already", "", "another --out, or remove it")
        return _carry_on(client, chosen, batch, out, Spool.begin(out, batch.written()))
    with tempfile.TemporaryDirectory(prefix="dim-batch-") as folder:
        return _carry_on(client, chosen, batch, None, Spool.begin(Path(folder) / "out.jsonl", batch.written()))


def resume(client: Client, chosen: argparse.Namespace) -> int:
    """Go on with a batch into `chosen.resume`."""
    spool = Spool.resume(chosen.resume)
    batch = Batch.read(spool.plan)
    if seen_of(batch.inputs) != batch.seen:
        spool.close()
        what = "the batch's input has changed since it was begun"
        raise ConfigError("E-cli-47", what, ", ".join(batch.inputs[:3]), f"remove {spool.folder} and run it anew")
    talk(f"{spool.answered} answers are there already" + (f", {spool.failed} failed" if spool.failed else ""))
    return _carry_on(client, chosen, batch, chosen.resume, spool)


def seen_of(inputs: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of each input that is a file or folder."""
    found = []
    for text in inputs:
        try:
            stat = Path(text).expanduser().stat()
        except (OSError, ValueError):
            continue
        found.append((text, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _carry_on(client: Client, chosen: argparse.Namespace, batch: Batch, out: Path | None, spool: Spool) -> int:
    again = f"dim run --resume {out}" if out is not None else "with --out FILE a batch can be resumed"
    with contextlib.ExitStack() as kept:
        kept.callback(spool.close)  # whatever happens, what is done stays
        try:
            gathered = gather(batch.inputs, batch.sources, batch.choice, lines=True)
            _tell_plan(client, batch, gathered, spool)
            _run(client, batch, gathered, spool)
        except KeyboardInterrupt:
            talk(f"\nstopped; {spool.answered} answers are kept; hint: {again}" if out else f"\nstopped; hint: {again}")
            return _INTERRUPTED
        except (NoNode, RunFailed):
            talk(f"{spool.answered} answers are kept; hint: {again}" if out else f"hint: {again}")
            raise
        kept.pop_all()
    return _conclude(chosen, batch, spool, out)


def _tell_plan(client: Client, batch: Batch, gathered: Gathered, spool: Spool) -> None:
    """Where the first job will run and why, and what its tier does not catch. Raises `Refused` when it never could."""
    first = next((item for item in islice(gathered.items(), 1024) if isinstance(item, Item)), None)
    if first is None or spool.answered:
        return
    try:
        blob = item_blob(gathered.sources, [first.values])
    except Refused:
        return  # it will be a fault of its own
    for line in plan_lines(client.validate(batch.job, [blob]), replicas_of(batch.job)):
        talk(line)


def _run(client: Client, batch: Batch, gathered: Gathered, spool: Spool) -> None:
    plan = Plan(batch.job, gathered.sources, bytes.fromhex(batch.identity), batch.rows_per_job, salt=os.urandom(16))
    progress = _Progress(gathered.count(), gathered.noun, spool.answered + spool.failed)

    def run_many(jobs: Iterator[Any]) -> Iterator[EndedJob]:
        return client.run_many(jobs, LIMITS.batch.jobs_at_once, receipt=True)

    try:
        for found in run_chunks(run_many, plan, _bounded(gathered.items()), spool.has):
            if isinstance(found, Piece):
                _verify(found)
            spool.add(found)
            progress.tell(spool)
    finally:
        progress.end(spool)


def _bounded(items: Iterator[Item | Fault]) -> Iterator[Item | Fault]:
    for item in items:
        if item.number > LIMITS.batch.items_max:
            raise Refused("E-input-05", f"more than {LIMITS.batch.items_max} items", "", "cut the input into parts")
        yield item


def _verify(piece: Piece) -> None:
    """Raises `RunFailed` E-cli-50 when a receipt does not hold: then nobody should go on with this node."""
    from dimnode.audit.verifier import verify

    ended = piece.ended
    assert isinstance(ended, Ended)
    report = verify(ended.receipt or b"")
    if report.status == 1 or not is_about(parse_receipt(ended.receipt or b""), ended, [piece.blob]):
        what = "the receipt of a job does not verify or is about another answer; the answer is not kept"
        raise RunFailed("E-cli-50", what, "", f"dim job show {ended.job.hex()[-8:]}")


def _conclude(chosen: argparse.Namespace, batch: Batch, spool: Spool, out: Path | None) -> int:
    failed, faults = spool.failed, list(spool.faults[:_FAULTS_TOLD])
    passing = any(fault.passing for fault in spool.faults)
    if out is None:
        write_lines(spool, sys.stdout, batch.labels, batch.texts)
        spool.remove()
    else:
        write_result(spool, out, batch.labels, batch.texts)
        if chosen.json:
            said = {"out": str(out), "answered": spool.answered, "failed": failed}
            say_json(said | {"faults": [asdict(fault) for fault in faults]})
        if passing:
            spool.close()
        else:
            spool.remove()
        talk(f"{out}  {counted(spool.answered, 'answer')}, every receipt verified")
    for fault in faults:
        talk(f"failed  item {fault.number}{f' {shown(fault.name)}' if fault.name else ''}  {fault.code} {fault.reason}")
    if failed > len(faults):
        talk(f"failed  … and {failed - len(faults)} more; the result names all")
    if passing and out is not None:
        talk(f"some failed because of the swarm and not of themselves; hint: dim run --resume {out}")
    return 1 if failed else 0


class _Progress:
    """A line on stderr: how many of how many, how fast, how long still."""

    def __init__(self, total: int, noun: str, before: int) -> None:
        self._total, self._noun, self._before = total, noun, before
        self._began = self._told = time.monotonic()
        self._live = sys.stderr.isatty()

    def tell(self, spool: Spool) -> None:
        """Now and then."""
        now = time.monotonic()
        if now - self._told < (_DRAWN_SECONDS if self._live else _TOLD_SECONDS):
            return
        self._told = now
        self._say(self._line(spool, now))

    def end(self, spool: Spool) -> None:
        """The last word."""
        self._say(self._line(spool, time.monotonic()))
        if self._live:
            sys.stderr.write("\n")

    def _line(self, spool: Spool, now: float) -> str:
        done = spool.answered + spool.failed
        rate = (done - self._before) / max(now - self._began, 1e-3)
        line = f"{done:,} of {counted(self._total, self._noun)}  {rate:,.1f}/s"
        if rate and done < self._total:
            line += f"  {_span((self._total - done) / rate)} left"
        return line + (f"  {spool.failed} failed" if spool.failed else "")

    def _say(self, line: str) -> None:
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            talk(line)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def new_identity() -> str:
    """16 random bytes as text: one batch."""
    return os.urandom(16).hex()
