"""The journal: what this node must not forget, in SQLite, one transaction and one fsync per batch.

Rule: `commit` returns only when the rows are on disk; a commit that fails raises, and the node stops, because the
engine has moved on and nothing of the batch may become visible. One thread writes; reads use a second connection.
SQLite in WAL mode with synchronous=FULL (sqlite.org/pragma.html#pragma_synchronous) survives loss of power.
"""

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import outcome
import trio

from dimnode.errors import ConfigError
from dimnode.limits import LIMITS, StoreLimits
from dimnode.store.schema import INSERTS, NAMED_SINCE, SCHEMA_VERSION, TABLES

Rows = dict[str, list[tuple[Any, ...]]]
"""Table name -> rows to insert."""
_Order = tuple[Callable[[], Any], trio.lowlevel.TrioToken, trio.lowlevel.Task]


class Journal:
    """Use as a context manager, outside of trio. Commits are written one after the other, in the order of the calls."""

    def __init__(self, path: Path, limits: StoreLimits = LIMITS.store) -> None:
        self._path = path
        self._limits = limits
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._lazy: Rows = {}
        self._lazy_count = 0
        self.commits = 0
        self.commit_ms: deque[float] = deque(maxlen=limits.commit_times_kept)
        self._writer = _connect(path, limits)
        self._reader = _connect(path, limits)
        self._thread = threading.Thread(target=self._write_orders, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._lazy_count:
                self._write(self._take_lazy({}))
        finally:
            self._orders.put(None)
            self._thread.join(self._limits.stop_seconds_max)
            self._writer.close()
            self._reader.close()

    # ---- writing

    def later(self, rows: Rows) -> None:
        """Keep rows that need no fsync of their own; they ride on the next commit."""
        assert rows.keys() <= INSERTS.keys(), "no such table"
        for table, entries in rows.items():
            self._lazy.setdefault(table, []).extend(entries)
            self._lazy_count += len(entries)

    @property
    def lazy_rows(self) -> int:
        """How many rows wait for the next commit."""
        return self._lazy_count

    async def commit(self, rows: Rows) -> None:
        """Write these rows and all lazy ones in one transaction. Not cancellable: the thread owns them by then."""
        assert rows.keys() <= INSERTS.keys(), "no such table"
        await self._order(partial(self._write, self._take_lazy(rows)))
        self.commits += 1

    async def drop_blobs(self, cids: Sequence[bytes], seen: int) -> None:
        """Take these blobs out, but for those that a record after the row `seen` names: they are wanted again."""
        await self._order(partial(self._drop, cids, seen))

    async def _order(self, work: Callable[[], Any]) -> None:
        self._orders.put((work, trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()))

        def abort(_: Any) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _take_lazy(self, rows: Rows) -> Rows:
        """The lazy rows and then these, which came later; the caller's map stays as it is."""
        together, self._lazy, self._lazy_count = self._lazy, {}, 0
        merge(together, rows)
        return together

    def _write_orders(self) -> None:
        while (order := self._orders.get()) is not None:
            work, token, task = order
            result = outcome.capture(work)
            try:
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)
            except trio.RunFinishedError:  # the node was torn down while the disk was busy: nobody waits any more
                return

    def _write(self, rows: Rows) -> None:
        began = time.perf_counter()
        with self._transaction() as database:
            for table, statement in INSERTS.items():
                entries = rows.get(table)
                if entries:
                    database.executemany(statement, entries)
        self.commit_ms.append((time.perf_counter() - began) * 1000)

    def _drop(self, cids: Sequence[bytes], seen: int) -> None:
        with self._transaction() as database:
            fresh = {row[0] for row in database.execute(NAMED_SINCE, (seen,))}
            database.executemany("DELETE FROM blobs WHERE cid=?", [(cid,) for cid in cids if cid not in fresh])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._writer
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if (trouble := _trouble(error, self._path)) is not None:
                raise trouble from error
            raise

    # ---- reading

    def rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Committed rows. Call it for small answers: it runs in the caller's thread."""
        return list(self.each(query, arguments))

    def each(self, query: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Committed rows one by one, for the long read at start."""
        try:
            yield from self._reader.execute(query, arguments)
        except sqlite3.Error as error:
            if (trouble := _trouble(error, self._path)) is not None:
                raise trouble from error
            raise

    def used_bytes(self) -> int:
        """What the rows take. The file does not shrink: what was taken out makes room for what comes."""
        pages, free, size = (
            int(self.rows(f"PRAGMA {name}")[0][0]) for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def newest(self) -> int:
        """The number of the newest record's row."""
        return int(self.rows("SELECT COALESCE(MAX(seq), 0) FROM records")[0][0])

    def job_of_nonce(self, submitter: bytes, nonce: bytes) -> bytes | None:
        """The job that this submission named when it was first seen."""
        found = self.rows("SELECT job FROM nonces WHERE submitter=? AND nonce=?", (submitter, nonce))
        return found[0][0] if found else None

    def blob(self, cid: bytes) -> bytes | None:
        """The bytes of a blob that was committed here."""
        found = self.rows("SELECT bytes FROM blobs WHERE cid=?", (cid,))
        return found[0][0] if found else None

    def envelope(self, identity: bytes) -> bytes | None:
        """The envelope of a record that was committed here."""
        found = self.rows("SELECT envelope FROM records WHERE id=?", (identity,))
        return found[0][0] if found else None

    def end_of(self, job: bytes) -> tuple[bytes, str] | None:
        """Verdict id and status of a job that is over."""
        found = self.rows("SELECT verdict, status FROM ends WHERE job=?", (job,))
        return (found[0][0], found[0][1]) if found else None


def merge(into: Rows, more: Mapping[str, list[tuple[Any, ...]]]) -> None:
    """Add rows to rows."""
    for table, entries in more.items():
        into.setdefault(table, []).extend(entries)


def _connect(path: Path, limits: StoreLimits) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA fullfsync=ON")  # macOS: a plain fsync there does not reach the disk
        database.execute(f"PRAGMA wal_autocheckpoint={limits.wal_checkpoint_pages}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise ConfigError(
                "E-store-03",
                f"the journal {path} was written by another version ({version})",
                f"this dimnode reads version {SCHEMA_VERSION}",
                "use the dimnode that wrote it, or start with another DIM_HOME",
            )
        database.executescript(TABLES)
        database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except sqlite3.Error as error:
        if (trouble := _trouble(error, path)) is not None:
            raise trouble from error
        raise
    return database


def _trouble(error: sqlite3.Error, path: Path) -> ConfigError | None:
    """What the operator must mend: the disk or the file. None when the rows or the query are wrong: our own bug."""
    # The primary result code is the lower byte of the extended one (sqlite.org/rescode.html).
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return ConfigError("E-store-04", f"the journal {path} is damaged", str(error), "restore a backup")
        case sqlite3.SQLITE_FULL:
            cause = "the disk is full"
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_BUSY:
            cause = str(error)
        case sqlite3.SQLITE_PERM | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_NOLFS:
            cause = str(error)
        case _:
            return None
    hint = f"free space on {path.parent}, then start again: nothing that was confirmed is lost"
    return ConfigError("E-store-01", f"cannot write the journal {path}", cause, hint)
