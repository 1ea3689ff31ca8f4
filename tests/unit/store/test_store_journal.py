"""The journal: what was committed is there, whole, whatever happens afterwards."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from dimnode.errors import ConfigError
from dimnode.store.journal import Journal

JOB, PEER = b"job", b"peer"


def record(number: int, kind: str = "answer") -> tuple[object, ...]:
    return (kind, b"id%d" % number, JOB, 0, 1, b"envelope%d" % number)


def commit(journal: Journal, *batches: dict) -> None:
    async def all_of_them() -> None:
        for rows in batches:
            await journal.commit(rows)

    trio.run(all_of_them)


def ids(journal: Journal) -> list[bytes]:
    return [row[0] for row in journal.rows("SELECT id FROM records ORDER BY seq")]


def test_what_was_committed_is_there_after_a_restart(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        batch = {
            "records": [record(1)],
            "blobs": [(b"cid", b"bytes")],
            "nonces": [(PEER, b"n", JOB)],
            "ends": [(JOB, b"verdict", "ok")],
        }
        commit(journal, batch)
    with Journal(tmp_path / "j.db") as journal:
        assert journal.envelope(b"id1") == b"envelope1"
        assert journal.blob(b"cid") == b"bytes"
        assert journal.job_of_nonce(PEER, b"n") == JOB
        assert journal.end_of(JOB) == (b"verdict", "ok")
        assert journal.envelope(b"id2") is journal.blob(b"x") is journal.end_of(b"x") is None


def test_lazy_rows_ride_on_the_next_commit_and_stand_before_it(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.later({"records": [record(1)]})
        assert journal.lazy_rows == 1
        assert ids(journal) == []
        mine = {"records": [record(2)]}
        commit(journal, mine)
        assert ids(journal) == [b"id1", b"id2"]
        assert (journal.lazy_rows, journal.commits) == (0, 1)
        assert mine == {"records": [record(2)]}


def test_lazy_rows_are_written_at_exit(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.later({"forgotten": [(JOB, 0, 1)]})
    with Journal(tmp_path / "j.db") as journal:
        assert journal.rows("SELECT * FROM forgotten") == [(JOB, 0, 1)]


def test_the_same_record_blob_and_opening_may_come_again(tmp_path) -> None:
    rows = {"records": [record(1)], "blobs": [(b"c", b"x")], "openings": [(b"id1", 0, b"r", b"s", b"c")]}
    with Journal(tmp_path / "j.db") as journal:
        commit(journal, dict(rows), dict(rows))
        assert ids(journal) == [b"id1"]


@pytest.mark.parametrize(
    "rows",
    [
        {"accepted": [(JOB, 0, 2, b"other")]},
        {"nonces": [(PEER, b"n", b"other job")]},
        {"ends": [(JOB, b"other verdict", "ok")]},
        {"blobs": [(b"nobody holds its bytes", None)]},
        {"records": [("answer", b"id9", JOB, 0, 1, None)]},
    ],
)
def test_a_second_acceptance_end_or_meaning_raises_and_leaves_nothing_of_its_batch(tmp_path, rows) -> None:
    with Journal(tmp_path / "j.db") as journal:
        first = {"accepted": [(JOB, 0, 1, b"a")], "nonces": [(PEER, b"n", JOB)], "ends": [(JOB, b"v", "ok")]}
        commit(journal, first)
        with pytest.raises(sqlite3.IntegrityError):
            commit(journal, {**rows, "models": [(b"m", "path", "sha")]})
        assert journal.rows("SELECT * FROM models") == []
        commit(journal, {"records": [record(3)]})
        assert ids(journal) == [b"id3"]


def test_rows_for_no_table_are_our_own_bug(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        with pytest.raises(AssertionError):
            journal.later({"recrods": [record(1)]})
        with pytest.raises(AssertionError):
            commit(journal, {"recrods": [record(1)]})


def test_commits_of_several_tasks_are_each_answered_and_in_the_order_of_the_calls(tmp_path) -> None:
    async def together(journal: Journal) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(journal.commit, {"records": [record(number)]})

    with Journal(tmp_path / "j.db") as journal:
        trio.run(together, journal)
        assert journal.commits == 20
        assert sorted(ids(journal)) == sorted(b"id%d" % number for number in range(20))


def test_a_cancelled_commit_is_still_whole(tmp_path) -> None:
    async def cancelled(journal: Journal) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.commit({"records": [record(1)]})

    with Journal(tmp_path / "j.db") as journal:
        trio.run(cancelled, journal)
        assert ids(journal) == [b"id1"]


# ---- trouble


def test_a_full_disk_is_the_operators_to_mend_and_hurts_nothing_confirmed(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        commit(journal, {"records": [record(1)]})
        pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
        journal._writer.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(ConfigError) as caught:
            commit(journal, {"records": [record(2)], "blobs": [(b"c", bytes(100_000))]})
        said = caught.value.complaint
        assert (said.code, said.cause) == ("E-store-01", "the disk is full")
        assert "free space on" in said.hint
        assert ids(journal) == [b"id1"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_really_full_disk_raises_while_it_commits_and_when_it_closes(tmp_path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        journal = Journal(tmp_path / "j.db")
        commit(journal, {"records": [record(1)]})
        with pytest.raises(ConfigError, match="E-store-01"):
            commit(journal, {"blobs": [(b"c", bytes(2_000_000))]})
        journal.later({"blobs": [(b"d", bytes(2_000_000))]})
        with pytest.raises(ConfigError, match="E-store-01"):
            journal.__exit__()
        with Journal(tmp_path / "j.db") as again:
            assert ids(again) == [b"id1"]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_file_that_is_no_journal_is_named(tmp_path) -> None:
    (tmp_path / "j.db").write_bytes(b"this is not a database, and long enough to be looked at" * 40)
    with pytest.raises(ConfigError) as caught:
        Journal(tmp_path / "j.db")
    assert caught.value.complaint.code == "E-store-04"
    assert "backup" in caught.value.complaint.hint


def test_a_damaged_page_is_named_when_it_is_read(tmp_path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        commit(journal, {"records": [record(number) for number in range(500)]})
    raw = bytearray((tmp_path / "j.db").read_bytes())
    raw[4096 * 2 :] = b"\xff" * (len(raw) - 4096 * 2)
    (tmp_path / "j.db").write_bytes(raw)
    with pytest.raises(ConfigError, match="E-store-04"), Journal(tmp_path / "j.db") as journal:
        journal.rows("SELECT envelope FROM records ORDER BY seq")


def test_a_journal_of_another_version_is_left_alone(tmp_path) -> None:
    database = sqlite3.connect(tmp_path / "j.db")
    database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(ConfigError, match="E-store-03"):
        Journal(tmp_path / "j.db")


def test_a_place_where_nothing_can_be_written_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="E-store-01"):
        Journal(tmp_path / "absent" / "j.db")


KILLED = """
import sys, trio
from pathlib import Path
from dimnode.store.journal import Journal
async def main():
    with Journal(Path(sys.argv[1])) as journal:
        batch = 0
        while True:
            rows = [("answer", b"%d.%d" % (batch, part), b"", batch, part, bytes(3000)) for part in range(5)]
            journal.later({"forgotten": [(b"job", batch, 0)]})
            await journal.commit({"records": rows, "blobs": [(b"blob%d" % batch, bytes(2000))]})
            print(batch, flush=True)
            batch += 1
trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4))
def test_after_a_kill_the_journal_is_a_prefix_of_whole_batches(tmp_path, moment) -> None:
    path = tmp_path / "j.db"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    confirmed = -1
    while confirmed < 10 + 7 * moment:
        confirmed = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    confirmed = max([confirmed, *map(int, child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    with Journal(path) as journal:
        found = journal.rows("SELECT task, epoch FROM records ORDER BY seq")
        batches = len(found) // 5
        assert found == [(batch, part) for batch in range(batches) for part in range(5)]
        assert batches > confirmed, "a confirmed batch is lost"
        assert batches <= confirmed + 2
        assert journal.rows("SELECT count(*) FROM blobs") == [(batches,)]
        assert journal.rows("SELECT count(*) FROM forgotten") == [(batches,)]
        assert journal.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_committed_batch_can_be_read_while_the_next_one_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        commit(journal, {"records": [record(1), record(2)]})
        reading = journal.each("SELECT id FROM records ORDER BY seq")
        assert next(reading) == (b"id1",)
        commit(journal, {"records": [record(3)]})
        assert list(reading) == [(b"id2",)]
        assert ids(journal) == [b"id1", b"id2", b"id3"]
