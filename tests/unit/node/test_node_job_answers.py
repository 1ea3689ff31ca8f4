"""What is said of jobs from the journal: lines of a list, and a job's records in the words of live events."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.cli.carrying import event_line
from dimnode.node.job_answers import JobAnswers, event_of
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import RecordId, cid_text, record_id, short
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import parse_receipt
from dimnode.store.journal import Journal, Rows

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def test_after_a_restart_events_have_the_words_and_directions_that_live_ones_had():
    receipt = parse_receipt((GOLDEN / "plain.dimr").read_bytes())
    records = {record.kind: record for record in receipt.records.values()}
    executor = short(records["answer"].by)
    told = {kind: event_line(event_of(records[kind], short), {}).partition("  ")[2] for kind in records}
    assert told["spec"] == "submitted"
    assert told["lease"] == f"leased task 0 epoch 1 to {executor}"
    assert told["answer"] == f"answered task 0 epoch 1 by {executor}: ok"
    assert told["verdict"] == "ended: ok"


class Jobs:
    """A journal with many jobs, and how far SQLite walks to answer."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.count = journal, 0
        here: Any = SimpleNamespace(journal=journal)
        self.answers = JobAnswers(here, here)
        receipt = parse_receipt((GOLDEN / "plain.dimr").read_bytes())
        self.envelopes = {record.kind: record.envelope for record in receipt.records.values()}

    def add(self, count: int) -> None:
        """So many jobs of this node that have ended, and as many answers to jobs of others."""
        rows: Rows = {"records": [], "nonces": [], "ends": []}
        for number in range(self.count, self.count + count):
            job = record_id(b"job %d" % number)
            rows["records"].append(("spec", job, job, 0, 0, self.envelopes["spec"]))
            rows["records"].append(("answer", record_id(b"%d" % number), b"other", 0, 1, self.envelopes["answer"]))
            rows["nonces"].append((b"me", b"%d" % number, job))
            rows["ends"].append((job, b"verdict", "ok"))
        self.count += count
        trio.run(self.journal.commit, rows)

    def steps(self, jobs: list[RecordId] | None) -> int:
        """Of SQLite, for one line."""
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        self.journal._reader.set_progress_handler(step, 1)
        rows = self.answers.rows(jobs, 1)
        self.journal._reader.set_progress_handler(None, 0)
        assert [row["job"] for row in rows] == [cid_text(record_id(b"job %d" % (self.count - 1)))]
        return taken


@pytest.mark.parametrize("by_name", [False, True])
def test_a_line_about_a_job_costs_the_same_however_many_there_were(tmp_path: Path, by_name: bool) -> None:
    with Journal(tmp_path / "j.db") as journal:
        jobs = Jobs(journal)
        steps = []
        for _ in range(2):
            jobs.add(200)
            steps.append(jobs.steps([record_id(b"job %d" % (jobs.count - 1))] if by_name else None))
        assert steps[0] == steps[1] < 200


def test_a_page_of_jobs_ends_between_milliseconds_so_that_the_next_one_misses_none(tmp_path: Path) -> None:
    key = SigningKey.from_seed(b"o" * 32)
    with Journal(tmp_path / "j.db") as journal:
        for number, at_ms in enumerate((1, 2, 2, 2, 2**63 - 1)):  # the last one is a stranger's word
            common = {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": at_ms}
            body = {"pattern": "chained", "tasks": [{"op": "infer", "model": record_id(b"m")}], "inputs": []}
            said = {"rule": {"method": "first"}, "tier": "signed", "deadline_ms": 1, "priority": "normal"}
            nonce = bytes([number]) * 16
            job, payload = compose("spec", common, {**body, **said, "visibility": "swarm", "nonce": nonce})
            record = ("spec", job, job, 0, 0, seal(key, "spec", payload))
            trio.run(journal.commit, {"records": [record], "nonces": [(key.peer, nonce, job)]})
        node: Any = SimpleNamespace(journal=journal)
        jobs = JobAnswers(node, SimpleNamespace())
        pages = [jobs.rows(None, 2, whole=True), jobs.rows(None, 2, 2, whole=True)]
        assert [[row["at_ms"] for row in page] for page in pages] == [[2**63 - 1, 2, 2, 2], [1]]
        assert len(trio.run(jobs.operations["job.ls"], {"most": 2})["jobs"]) == 2
