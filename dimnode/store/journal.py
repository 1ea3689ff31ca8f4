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

from dimnode.limits import LIMITS, StoreLimits
from dimnode.store.reader import Reader, connect, trouble_of
from dimnode.store.schema import INSERTS, NAMED_SINCE

Rows = dict[str, list[tuple[Any, ...]]]
"""Table name -> rows to insert."""
_Order = tuple[Callable[[], Any], trio.lowlevel.TrioToken, trio.lowlevel.Task]


class Journal(Reader):
    """Use as a context manager, outside of trio. Commits are written one after the other, in the order of the calls."""

    def __init__(self, path: Path, limits: StoreLimits = LIMITS.store) -> None:
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._lazy: Rows = {}
        self._lazy_count = 0
        self.commits = 0
        self.commit_ms: deque[float] = deque(maxlen=limits.commit_times_kept)
        self._writer = connect(path, limits)
        super().__init__(path, connect(path, limits), limits)
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
            self.close()

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
            if (trouble := trouble_of(error, self._path)) is not None:
                raise trouble from error
            raise


def merge(into: Rows, more: Mapping[str, list[tuple[Any, ...]]]) -> None:
    """Add rows to rows."""
    for table, entries in more.items():
        into.setdefault(table, []).extend(entries)
