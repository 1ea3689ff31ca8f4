"""What the journal gives back: receipts, uses of cabinets, rows of open business, fault points."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dimnode.audit.verifier import verify
from dimnode.errors import ConfigError, Refused
from dimnode.jobs.effects import Append, Note
from dimnode.limits import LIMITS
from dimnode.node.faults import fault_point
from dimnode.node.receipts import make_receipt
from dimnode.node.rows import forgotten_keys, journal_rows, rows_of, seal_into
from dimnode.node.usage import CabinetUse
from dimnode.node.watch import Watchers
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening, Receipt, parse_receipt
from dimnode.store.journal import Journal, Rows, merge
from dimnode.store.vault import Vault

GOLDEN = Path(__file__).parents[2] / "golden"
KEY = SigningKey.from_seed(bytes(32))
RECEIPTS = sorted({path.name for path in GOLDEN.glob("*.dimr")} - {"lone_refusal.dimr"})  # its root is no verdict


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.db") as opened:
        yield opened


def keep(journal: Journal, receipt: Receipt, *, ended: bool = True) -> RecordId:
    """What the owner's journal holds of a job."""
    root = receipt.records[receipt.root].payload
    rows: Rows = {"blobs": list(receipt.blobs.items()), "records": [], "openings": []}
    for record in receipt.records.values():
        key = (root["job"], record.payload.get("task", 0), record.payload.get("epoch", 0))
        rows["records"].append((record.kind, record.id, *key, record.envelope))
    rows["openings"] = [(receipt.root, n, o.ref, o.salt, o.cid) for n, o in enumerate(receipt.openings.values())]
    if ended:
        rows["ends"] = [(root["job"], receipt.root, root["status"])]
    trio.run(journal.commit, rows)
    return RecordId(root["job"])


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_receipt_from_the_journal_has_the_same_bytes_each_time(journal, name) -> None:
    golden = (GOLDEN / name).read_bytes()
    job = keep(journal, parse_receipt(golden))
    assert make_receipt(journal, job) == make_receipt(journal, job) == golden


@pytest.mark.parametrize("name", [name for name in RECEIPTS if name != "refusal.dimr"])  # which has no blobs
def test_a_receipt_is_never_longer_than_a_verifier_reads_and_holds_the_blobs_that_fit(
    journal, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = (GOLDEN / name).read_bytes()
    whole = parse_receipt(golden)
    job = keep(journal, whole)
    for most in (len(golden), len(golden) - 1):
        records = replace(LIMITS.records, receipt_bytes_max=most)
        monkeypatch.setattr("dimnode.node.receipts.LIMITS", replace(LIMITS, records=records))
        made = make_receipt(journal, job)
        assert len(made) <= most
        kept = parse_receipt(made)
        assert kept.records == whole.records
        assert len(kept.blobs) == len(whole.blobs) - (most < len(golden))


def test_the_receipt_of_an_unknown_or_open_job_is_refused(journal) -> None:
    job = keep(journal, parse_receipt((GOLDEN / RECEIPTS[0]).read_bytes()), ended=False)
    for asked in (job, RecordId(b"unknown"), RecordId(b"")):
        with pytest.raises(Refused, match="E-job-12"):
            make_receipt(journal, asked)


def test_rows_of_open_business_come_back_in_order_with_openings_and_acceptance(journal) -> None:
    receipt = parse_receipt((GOLDEN / "chain.dimr").read_bytes())
    job = keep(journal, receipt, ended=False)
    answer = next(record for record in receipt.records.values() if record.kind == "answer")
    trio.run(journal.commit, {"accepted": [(job, 0, 1, answer.id)], "forgotten": [(job, 0, 1)]})
    rows = list(journal_rows(journal))
    assert [row.id for row in rows] == list(receipt.records)
    answers = [row for row in rows if row.kind == "answer"]
    assert [row.id for row in answers] == [r.id for r in receipt.records.values() if r.kind == "answer"]
    assert [row.accepted for row in rows] == [row.id == answer.id for row in rows]
    assert answers[0].by == answer.by
    assert forgotten_keys(journal) == {(job, 0, 1)}
    (root,) = (row for row in rows if row.kind == "verdict")
    assert list(root.openings) == list(receipt.openings.values())


def test_business_that_is_over_is_not_read_again_at_a_start(journal) -> None:
    receipt = parse_receipt((GOLDEN / "chain.dimr").read_bytes())
    job = keep(journal, receipt)
    assert not list(journal_rows(journal))
    foreign, asked_for = RecordId(b"foreign".ljust(36)), RecordId(b"asked for".ljust(36))
    answer = next(record for record in receipt.records.values() if record.kind == "answer")
    rows: Rows = {"forgotten": [(job, 0, 1), (foreign, 0, 1), (asked_for, 0, 1)]}
    for identity, of, epoch in ((b"a", foreign, 1), (b"b", asked_for, 1), (b"c", asked_for, 2)):
        rows.setdefault("records", []).append(("answer", identity, of, 0, epoch, answer.envelope))
        rows.setdefault("openings", []).append((identity, 0, answer.payload["outputs"][0], bytes(32), b"cid"))
    trio.run(journal.commit, rows)
    (row,) = journal_rows(journal)
    assert (row.id, row.key, len(row.openings)) == (b"c", (asked_for, 0, 2), 1)
    assert forgotten_keys(journal) == set()


def test_an_own_record_is_sealed_and_held_another_ones_envelope_was_held_before(journal) -> None:
    vault = Vault()
    identity, payload = compose("swarm", {"by": KEY.peer, "at_ms": 1}, {"name": "s", "admins": [], "threshold": 0})
    append = Append("swarm", identity, (identity, 0, 0), payload)
    envelope = seal_into(append, KEY, vault)
    assert vault.get(identity) == envelope == seal_into(Append("swarm", identity, (identity, 0, 0)), KEY, vault)
    with pytest.raises(AssertionError):
        seal_into(Append("swarm", OPEN_SWARM_ID, (identity, 0, 0)), KEY, vault)


def test_a_blob_that_nobody_holds_fails_the_commit_instead_of_missing_later(journal) -> None:
    vault = Vault()
    opening = Opening.of(bytes(32), blob_cid(b"content"))
    append = Append("answer", OPEN_SWARM_ID, (OPEN_SWARM_ID, 0, 1), b"", (opening,), (opening.cid,))
    with pytest.raises(Exception, match="NOT NULL"):
        trio.run(journal.commit, rows_of(append, b"envelope", vault))
    vault.hold(opening.cid, b"content")
    trio.run(journal.commit, rows_of(append, b"envelope", vault))
    assert journal.blob(opening.cid) == b"content"


def test_merged_rows_do_not_change_what_they_came_from() -> None:
    first: Rows = {"blobs": [(b"a", b"")]}
    into: Rows = {}
    merge(into, first)
    merge(into, {"blobs": [(b"b", b"")]})
    assert first == {"blobs": [(b"a", b"")]}


# ---- uses of cabinets


def test_uses_are_counted_for_a_day_and_row_sets_for_ever_also_after_a_restart(tmp_path) -> None:
    day = 86_400_000
    with Journal(tmp_path / "j.db") as journal:
        uses = CabinetUse(journal)
        uses.note("a", 1000, b"peer", 0b1011)
        uses.note("a", 2000, b"peer", 0)
        uses.note("b", 3000, b"peer", 1 << 5000)
        assert uses.so_far("a", 3000) == (2, [0b1011])
    with Journal(tmp_path / "j.db") as journal:
        uses = CabinetUse(journal)
        assert uses.so_far("a", 3000) == (2, [0b1011])
        assert uses.so_far("b", 3000) == (1, [1 << 5000])
        assert uses.so_far("a", 1000 + day) == (1, [0b1011])
        assert uses.so_far("unknown", 1) == (0, [])


# ---- watching


def test_a_watcher_hears_its_job_until_it_stops() -> None:
    watchers, heard = Watchers(LIMITS.jobs), []
    job = OPEN_SWARM_ID
    watchers.watch(job, heard.append)
    watchers.note(Note(job, "submitted"))
    watchers.note(Note(RecordId(b"other"), "submitted"))
    watchers.unwatch(job, heard.append)
    watchers.unwatch(job, heard.append)
    watchers.note(Note(job, "ok"))
    assert [event["what"] for event in heard] == ["submitted"]
    assert [event["what"] for event in watchers.trail(job).events] == ["submitted", "ok"]


def test_frames_are_counted_by_peer_and_word_and_old_jobs_are_forgotten() -> None:
    watchers = Watchers(LIMITS.jobs)
    key = (OPEN_SWARM_ID, 0, 1)
    watchers.sent(key, KEY.peer, "lease", 1)
    assert watchers.trail(OPEN_SWARM_ID) is None, "frames about jobs of others make no trail"
    watchers.note(Note(OPEN_SWARM_ID, "submitted"))
    watchers.sent(key, KEY.peer, "lease", 10)
    watchers.sent(key, KEY.peer, "lease", 5)
    watchers.received(key, KEY.peer, "answer", 7)
    trail = watchers.trail(OPEN_SWARM_ID)
    assert (trail.bytes_out[KEY.peer, "lease"], trail.bytes_in[KEY.peer, "answer"]) == (15, 7)
    for number in range(LIMITS.jobs.done_jobs_remembered_max):
        watchers.note(Note(RecordId(b"%d" % number), "submitted"))
    assert watchers.trail(OPEN_SWARM_ID) is None


def test_the_lateness_is_the_99th_of_a_hundred_samples() -> None:
    watchers = Watchers(LIMITS.jobs)
    assert watchers.lateness_p99_ms() == 0.0
    for sample in range(-5, 95):
        watchers.late(sample)
    assert watchers.lateness_p99_ms() == 93


# ---- fault points


@pytest.mark.parametrize(
    "setting",
    [
        "kill",
        "kill-after-commit:answer",
        "kill-after-commit:answer:x",
        "a:b:c",
        "kill-after-commit:answer:²",
        "run-instead:a",
        "run-instead:a:",
    ],
)
def test_an_unknown_fault_point_is_named(setting) -> None:
    with pytest.raises(ConfigError, match="E-config-04"):
        fault_point(setting, KEY.peer)


KILLED = """
from dimnode.node.faults import fault_point
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.kinds import compose
mine, other = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(b"o" * 32)
def row(key, kind="swarm"):
    _, payload = compose("swarm", {"by": key.peer, "at_ms": 1}, {"name": "s", "admins": [], "threshold": 0})
    return (kind, b"", b"", 0, 0, seal(key, "swarm", payload))
after = fault_point("kill-after-commit:swarm:2", mine.peer)
for number, rows in enumerate([{}, {"records": [row(mine)]}, {"records": [row(other), row(mine, "lease")]}]):
    after(rows)
    print(number, flush=True)
after({"records": [row(mine)]})
print("alive", flush=True)
"""


@pytest.mark.slow
def test_the_fault_point_kills_after_the_nth_own_record_of_its_kind_and_not_before() -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])
    fault_point("", KEY.peer)({})
    assert os.getpid()


@pytest.mark.parametrize("name", ["plain.dimr", "quorum.dimr"])
def test_the_receipt_of_a_job_whose_bytes_are_gone_is_authentic_and_incomplete(journal, name) -> None:
    whole = parse_receipt((GOLDEN / name).read_bytes())
    job = keep(journal, whole)
    trio.run(journal.drop_blobs, list(whole.blobs), journal.newest())
    receipt = make_receipt(journal, job)
    parsed = parse_receipt(receipt)
    assert parsed.records.keys() == whole.records.keys()
    assert (len(parsed.openings), len(parsed.blobs)) == (len(whole.openings), 0)
    assert verify(receipt).status == 3
