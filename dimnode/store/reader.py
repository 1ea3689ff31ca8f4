"""Reading the journal: committed rows, in the caller's thread.

Rule: a blob is read piece by piece, so that a long read in a thread never keeps the loop waiting for Python's lock; a
thread reads over a connection of its own (`apart`).
"""

import io
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dimnode.errors import ConfigError
from dimnode.limits import StoreLimits
from dimnode.store.schema import SCHEMA_VERSION, TABLES


class Reader:
    """What was committed, over one connection."""

    def __init__(self, path: Path, database: sqlite3.Connection, limits: StoreLimits) -> None:
        self._path, self._reader, self._limits = path, database, limits

    def close(self) -> None:
        """End the connection."""
        self._reader.close()

    @contextmanager
    def apart(self) -> Iterator["Reader"]:
        """A reader of its own for a thread. Raises `ConfigError` when no file is left to open it with."""
        try:
            database = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise trouble_of(error, self._path) or error from error
        try:
            yield Reader(self._path, database, self._limits)
        finally:
            database.close()

    def rows(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Committed rows. Call it for small answers: it runs in the caller's thread."""
        return list(self.each(query, arguments))

    def each(self, query: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Committed rows one by one, for the long read at start."""
        try:
            yield from self._reader.execute(query, arguments)
        except sqlite3.Error as error:
            if (trouble := trouble_of(error, self._path)) is not None:
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
        piece_bytes = self._limits.read_piece_bytes
        # The length alone is cheap: SQLite has it in the row's header and leaves the bytes where they are.
        query = "SELECT rowid, LENGTH(bytes), CASE WHEN LENGTH(bytes) <= ? THEN bytes END FROM blobs WHERE cid=?"
        found = self.rows(query, (piece_bytes, cid))
        if not found or found[0][1] <= piece_bytes:
            return found[0][2] if found else None
        return self._in_pieces(found[0][0], piece_bytes)

    def _in_pieces(self, row: int, piece_bytes: int) -> bytes | None:
        whole = io.BytesIO()
        try:
            with self._reader.blobopen("blobs", "bytes", row, readonly=True) as blob:
                while piece := blob.read(piece_bytes):
                    whole.write(piece)
        except sqlite3.Error as error:
            if (trouble := trouble_of(error, self._path)) is not None:
                raise trouble from error
            return None  # it made room for newer ones in this moment
        return whole.getvalue()

    def blob_bytes(self, job: bytes) -> int:
        """What the inputs and outputs of a job take together."""
        query = "SELECT COALESCE(SUM(LENGTH(b.bytes)), 0) FROM blobs b WHERE b.cid IN"
        query += " (SELECT o.cid FROM openings o JOIN records r ON r.id = o.record WHERE r.job=?)"
        return int(self.rows(query, (job,))[0][0])

    def record_bytes(self, job: bytes) -> int:
        """What the records of a job take together."""
        return int(self.rows("SELECT COALESCE(SUM(LENGTH(envelope)), 0) FROM records WHERE job=?", (job,))[0][0])

    def envelope(self, identity: bytes) -> bytes | None:
        """The envelope of a record that was committed here."""
        found = self.rows("SELECT envelope FROM records WHERE id=?", (identity,))
        return found[0][0] if found else None

    def end_of(self, job: bytes) -> tuple[bytes, str] | None:
        """Verdict id and status of a job that is over."""
        found = self.rows("SELECT verdict, status FROM ends WHERE job=?", (job,))
        return (found[0][0], found[0][1]) if found else None


def connect(path: Path, limits: StoreLimits) -> sqlite3.Connection:
    """Open the journal, made first if need be. Raises `ConfigError`."""
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
        if (trouble := trouble_of(error, path)) is not None:
            raise trouble from error
        raise
    return database


def trouble_of(error: sqlite3.Error, path: Path) -> ConfigError | None:
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
