"""A node's journal, read from outside while it runs or after its death, and what must be true of it.

Rule: the journal is opened read-only; what it says is checked with the records' own signatures, not with the engine.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from dimnode.audit.verifier import verify
from dimnode.client import Client
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId
from dimnode.records.kinds import open_record


class Books:
    """The journal of one home."""

    def __init__(self, home: Path) -> None:
        self._path = home / "journal.db"

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a question finds now."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as journal:
            return journal.execute(query, arguments).fetchall()

    def count(self, kind: str) -> int:
        """Records of a kind."""
        return int(self.rows("SELECT count(*) FROM records WHERE kind=?", kind)[0][0])

    def last(self) -> int:
        """The place of the newest record."""
        return int(self.rows("SELECT coalesce(max(seq), 0) FROM records")[0][0])

    def records(self, kind: str, since: int = 0) -> list[Record]:
        """All records of a kind that came after a place, with their signatures checked."""
        found = self.rows("SELECT envelope FROM records WHERE kind=? AND seq>? ORDER BY seq", kind, since)
        return [open_record(envelope, kind=kind) for (envelope,) in found]

    def accepted(self) -> dict[bytes, list[tuple[int, int, bytes]]]:
        """By job: (task, epoch, answer)."""
        found: dict[bytes, list[tuple[int, int, bytes]]] = {}
        for job, task, epoch, answer in self.rows("SELECT job, task, epoch, answer FROM accepted"):
            found.setdefault(job, []).append((task, epoch, answer))
        return found

    def check_once(self) -> int:
        """Every job began once and ended once, and every accepted answer is to the lease that it says; their number.

        Raises AssertionError. Only for a time when all jobs are over.
        """
        specs = [spec for (spec,) in self.rows("SELECT id FROM records WHERE kind='spec'")]
        ends = dict(self.rows("SELECT job, status FROM ends"))
        verdicts = Counter(record.payload["job"] for record in self.records("verdict"))
        nonces = [job for (job,) in self.rows("SELECT job FROM nonces")]
        assert set(specs) == ends.keys() == verdicts.keys() == set(nonces)
        assert len(specs) == len(nonces) == len(ends) == verdicts.total()
        every = {record.id: record for kind in ("answer", "lease") for record in self.records(kind)}
        for job, rows in self.accepted().items():
            assert len({task for task, _, _ in rows}) == len(rows)
            for task, epoch, identity in rows:
                answer = every[identity]
                lease = every[answer.payload["parents"][0]]
                for record in (answer, lease):
                    said = record.payload
                    assert (said["job"], said["task"], said["epoch"]) == (job, task, epoch)
                assert lease.payload["executor"] == answer.by
        ok = [job for job, status in ends.items() if status == "ok"]
        assert set(ok) <= self.accepted().keys()
        return len(specs)

    def executor_of(self, job: bytes, task: int = 0) -> tuple[PeerId, int]:
        """Who gave the accepted answer, and in which epoch."""
        ((_, epoch, answer),) = [row for row in self.accepted()[job] if row[0] == task]
        (envelope,) = self.rows("SELECT envelope FROM records WHERE id=?", answer)[0]
        return open_record(envelope).by, epoch


def check_receipts(client: Client, jobs: Iterable[bytes]) -> int:
    """The receipt of each job verifies; how many there were."""
    checked = 0
    for job in jobs:
        report = verify(client.receipt(job))
        failures = [check for check in report.checks if check.outcome == "fail"]
        assert report.status in (0, 3) and not failures, failures  # 3: an input for which no receipt has room
        checked += 1
    return checked
