"""`dim verify` on a folder or on very many files: all cores, a line for each receipt that does not verify, a summary.

Rule: the same verifier on the same bytes as for one file; processes share nothing but names of files and what was
found, and nothing waits that is not bounded. Ctrl-C ends them with the pieces that they are at.
"""

import os
import signal
import sys
import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from dimnode.audit.files import read_blobs, read_receipt
from dimnode.audit.findings import NOT_IN_THIS_VERSION, Check
from dimnode.audit.verifier import verify
from dimnode.cli.output import counted, say, say_json, shown
from dimnode.errors import ConfigError, RunFailed
from dimnode.limits import LIMITS
from dimnode.posix.processes import held_back
from dimnode.posix.system import cores

_WORDS = {0: "verified", 3: "incomplete", 2: "unreadable", 1: "refused"}
"""From the best to the worst news, by exit status."""
_TELL_SECONDS = 0.2
_BOUNDS = LIMITS.verify


class Verdict(NamedTuple):
    """What was found in one file: the status, and the checks that did not pass, or why it could not be read."""

    file: str
    status: int
    open_checks: tuple[Check, ...]
    unreadable: str = ""


def receipts_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that were named, and all `*.dimr` below the folders, in order. Links to folders are not followed."""
    for path in paths:
        if not os.path.isdir(path):  # pathlib's raises for a name that is too long, or of a closed folder
            yield path
            continue
        found = False
        for folder, below, names in os.walk(path, onerror=_refuse_to_skip):
            below.sort()
            for name in sorted(names):
                if name.endswith(".dimr"):
                    found = True
                    yield Path(folder, name)
        if not found:
            raise ConfigError("E-verify-03", f"there is no receipt in {path}", "no file ends in .dimr", "name another")


def _refuse_to_skip(error: OSError) -> None:
    """A folder that cannot be read might hold anything."""
    raise ConfigError("E-verify-01", f"cannot read {error.filename}", error.strerror or "", "check the path")


def verify_many(chosen: Namespace) -> int:
    """Verify them all; the exit status is that of the worst."""
    files = list(islice(receipts_in(chosen.file), _BOUNDS.receipts_max + 1))
    if len(files) > _BOUNDS.receipts_max:
        cause = f"at most {_BOUNDS.receipts_max} at once"
        raise ConfigError("E-verify-04", "there are too many receipts", cause, "name the folders below it one by one")
    began, counts = time.monotonic(), Counter[int]()
    told: list[Verdict] = []
    progress = _Progress(len(files), quiet=chosen.json)
    for found in verdicts(files, chosen.blobs, cores()):
        counts[found.status] += 1
        if found.status and len(told) < _BOUNDS.told_max:
            told.append(found)
            if not chosen.json:
                progress.clear()
                _say_one(found)
        progress.tell(counts.total())
    progress.clear()
    seconds = time.monotonic() - began
    worst = max(counts, key=[*_WORDS].index)
    left_out = counts.total() - counts[0] - len(told)
    if chosen.json:
        summary: dict[str, float] = {word: counts[status] for status, word in _WORDS.items()}
        summary |= {"receipts": len(files), "left_out": left_out, "seconds": round(seconds, 3)}
        say_json({"status": worst, "summary": summary, "receipts": [_row(found) for found in told]})
        return worst
    if left_out:
        say(f"and {left_out} more")
    groups = ", ".join(f"{counts[status]:,} {word}" for status, word in _WORDS.items() if counts[status])
    say(f"{counted(len(files), 'receipt')} in {seconds:.1f} s: {groups}")
    return worst


def verdicts(files: Sequence[Path], blobs: Path | None, processes: int) -> Iterator[Verdict]:
    """What is found in each file, in order. Few bytes are not worth the start of processes."""
    if processes == 1 or _few(files):
        for path in files:
            yield _verify_one(path, blobs)
        return
    waiting: deque[Future[list[Verdict]]] = deque()
    with _processes(processes) as pool:
        for piece in _pieces(files):
            with _deaf_to_ctrl_c():
                waiting.append(pool.submit(_verify_piece, piece, blobs))
            if len(waiting) >= processes * _BOUNDS.pieces_waiting_per_core:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters, which end with what they are at when this one is interrupted."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        yield pool
    except BrokenExecutor:
        cause = "a process was killed, perhaps for want of memory"
        raise RunFailed("E-verify-05", "not all receipts were verified", cause, "dim verify fewer at once") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _deaf_to_ctrl_c() -> AbstractContextManager[None]:
    """A piece may begin a process, and that inherits what is held back: a terminal interrupts all, one shall speak.
    A Ctrl-C of this moment is not lost, it comes at the end of it."""
    return held_back(signal.SIGINT)


def _few(files: Sequence[Path]) -> bool:
    size = 0
    for path in files:
        size += _size(path)
        if size > _BOUNDS.alone_bytes:
            return False
    return True


def _pieces(files: Iterable[Path]) -> Iterator[list[Path]]:
    """Neighbours together, so many or so large that a process is busy for a while and not for long."""
    piece: list[Path] = []
    size = 0
    for path in files:
        piece.append(path)
        size += _size(path)
        if len(piece) == _BOUNDS.piece_receipts or size >= _BOUNDS.piece_bytes:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it will say so
        return 0


def _verify_piece(piece: Sequence[Path], blobs: Path | None) -> list[Verdict]:
    return [_verify_one(path, blobs) for path in piece]


def _verify_one(path: Path, blobs: Path | None) -> Verdict:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ConfigError("E-verify-01", f"cannot read {path}", "it is no file", "check the path")
        raw = read_receipt(path)
        beside = read_blobs(blobs, raw) if blobs else {}
    except ConfigError as error:
        return Verdict(str(path), 2, (), error.complaint.cause)
    report = verify(raw, blobs=beside)
    left = [check for check in report.checks if check.outcome != "pass" and check.code not in NOT_IN_THIS_VERSION]
    return Verdict(str(path), report.status, tuple(left) if report.status else ())


def _say_one(found: Verdict) -> None:
    whys = [f"{check.code} {check.subject}: {check.why}" for check in found.open_checks if check.outcome == "fail"]
    whys = whys or [f"{check.code} {check.subject}: {check.why}" for check in found.open_checks]
    more = f" (and {len(whys) - 1} more)" if len(whys) > 1 else ""
    why = found.unreadable or whys[0] + more
    say(f"{_WORDS[found.status]:<10}  {shown(found.file)}  {shown(why)}")


def _row(found: Verdict) -> dict[str, Any]:
    checks = [check._asdict() for check in found.open_checks]
    return {"file": found.file, "status": found.status, "checks": checks} | (
        {"unreadable": found.unreadable} if found.unreadable else {}
    )


class _Progress:
    """One line on a terminal that is drawn again; nothing elsewhere."""

    def __init__(self, of: int, quiet: bool) -> None:
        self._of, self._live, self._told = of, sys.stderr.isatty() and not quiet, 0.0

    def tell(self, done: int) -> None:
        """So many are done."""
        if self._live and time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            sys.stderr.write(f"\r\x1b[K{done:,} of {self._of:,} receipts")
            sys.stderr.flush()

    def clear(self) -> None:
        """Make room for a line of the result."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
