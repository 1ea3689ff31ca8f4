"""What the journal lets go of when it is full, and what it never does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from dimnode.limits import Limits, StoreLimits
from dimnode.node.upkeep import Upkeep
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import blob_cid, record_id
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.store.journal import Journal
from dimnode.store.pruning import disposable

KEY = SigningKey.from_seed(bytes(32))
BLOB_BYTES = 100_000
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def blob(number: int) -> bytes:
    return number.to_bytes(4, "big") * (BLOB_BYTES // 4)


class Books:
    """A journal and rows in the shape of jobs."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self.journal, self.path = journal, path

    def spec(self, number: int, content: int | None = None, *, ended: bool = True) -> bytes:
        """A job of this node, with one input; its id."""
        job = record_id(b"job %d" % number)
        rows = self._rows("spec", job, job, number if content is None else content, b"a spec")
        rows["ends"] = [(job, b"verdict %d" % number, "ok")] if ended else []
        trio.run(self.journal.commit, rows)
        return job

    def answer(self, number: int, at_ms: int, *, acknowledged: bool = False, job: bytes = b"") -> None:
        """An answer of this node, to a job of somebody else unless one is named."""
        job = job or record_id(b"foreign %d" % number)
        body = {"job": job, "task": 0, "epoch": 1, "inputs": [], "outputs": [], "runtime": {}, "sandbox": ""}
        body |= {"timing": {"run_us": 0, "queue_us": 0}, "usage": {"cpu_us": 0, "rss_bytes": 0}}
        body |= {"status": "ok", "parents": []}
        identity, payload = compose("answer", {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": at_ms}, body)
        rows = self._rows("answer", identity, job, number, seal(KEY, "answer", payload))
        rows["forgotten"] = [(job, 0, 1)] if acknowledged else []
        trio.run(self.journal.commit, rows)

    def _rows(self, kind: str, identity: bytes, job: bytes, content: int, envelope: bytes):
        cid = blob_cid(blob(content))
        return {
            "records": [(kind, identity, job, 0, 1 if kind == "answer" else 0, envelope)],
            "openings": [(identity, 0, identity[-32:], bytes(32), cid)],
            "blobs": [(cid, blob(content))],
        }

    def kept(self, *numbers: int) -> list[int]:
        return [number for number in numbers if self.journal.blob(blob_cid(blob(number))) is not None]

    def found(self, wanted_bytes: int = 10**9, before: int | None = None) -> list[int]:
        """What could go, by the number of the blob."""
        young = self.journal.newest() if before is None else before
        numbers = {blob_cid(blob(number)): number for number in range(20)}
        listed = disposable(self.path, young, NOW_MS - DAY_MS, wanted_bytes)
        return [numbers[cid] for cid, _ in listed.blobs]


@pytest.fixture
def books(journal: Journal, tmp_path: Path) -> Books:
    return Books(journal, tmp_path / "journal.db")


def test_the_oldest_ended_jobs_go_first_and_no_more_than_is_wanted(books: Books) -> None:
    for number in range(5):
        books.spec(number)
    assert books.found() == [0, 1, 2, 3, 4]
    assert books.found(BLOB_BYTES * 2) == [0, 1]
    assert books.found(1) == [0]


def test_an_open_job_keeps_its_bytes_also_when_an_ended_one_named_them_before(books: Books) -> None:
    books.spec(0)
    books.spec(1, ended=False)
    books.spec(2, content=0, ended=False)
    assert books.found() == []


def test_an_answer_goes_when_it_was_acknowledged_or_a_day_has_passed_and_not_before(books: Books) -> None:
    books.answer(0, NOW_MS)
    books.answer(1, NOW_MS, acknowledged=True)
    books.answer(2, NOW_MS - 2 * DAY_MS)
    assert books.found() == [1, 2]


def test_an_open_job_keeps_the_answers_that_its_own_node_gave_and_acknowledged(books: Books) -> None:
    job = books.spec(0, ended=False)
    books.answer(1, NOW_MS, acknowledged=True, job=job)
    assert books.found() == []


def test_what_was_written_since_the_last_look_stays(books: Books) -> None:
    books.spec(0)
    old = books.journal.newest()
    books.spec(1)
    books.spec(2, content=0)
    assert books.found(before=old) == []


def test_a_blob_that_is_named_again_between_looking_and_taking_out_stays(books: Books) -> None:
    books.spec(0)
    books.spec(1)
    listed = disposable(books.path, books.journal.newest(), NOW_MS, 10**9)
    books.spec(2, content=0, ended=False)
    trio.run(books.journal.drop_blobs, [cid for cid, _ in listed.blobs], listed.seen)
    assert books.kept(0, 1) == [0]


def upkeep(books: Books, bytes_max: int, **limits: int) -> Callable[[], int]:
    found = Upkeep(books.journal, books.path, bytes_max, Limits(store=StoreLimits(**limits)))
    return lambda: trio.run(found.look)


@pytest.mark.slow
def test_the_journal_stays_within_its_bound_and_every_record_is_kept(books: Books) -> None:
    bytes_max = 10 * BLOB_BYTES
    look = upkeep(books, bytes_max, prune_blobs_per_commit=3)
    for number in range(30):
        books.spec(number)
        look()
        assert books.journal.used_bytes() < bytes_max + 2 * BLOB_BYTES
    assert books.journal.rows("SELECT COUNT(*) FROM records") == [(30,)]
    assert (books.path).stat().st_size < bytes_max + 4 * BLOB_BYTES  # what is free is used again
    kept = books.kept(*range(30))
    assert kept == list(range(kept[0], 30))
    assert 7 <= len(kept) <= 10


def test_a_journal_below_its_bound_is_left_alone_and_one_without_ended_jobs_too(books: Books) -> None:
    for number in range(3):
        books.spec(number, ended=False)
    assert upkeep(books, 10**9)() == 0
    look = upkeep(books, 1000)
    assert (look(), look()) == (0, 0)
    assert books.kept(0, 1, 2) == [0, 1, 2]


def test_a_journal_that_cannot_be_read_a_second_time_now_is_looked_through_later(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the process has as many files open as it may: its own connection still works."""
    books.spec(0)
    found = Upkeep(books.journal, books.path.with_name("not there"), 1000, Limits())
    assert trio.run(found.look) == 0
    assert "cannot be looked through" in caplog.text
