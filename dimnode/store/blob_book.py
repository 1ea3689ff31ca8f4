"""What is known of blobs beside their bytes: sizes, pins, last use, other names. SQLite, one file.

Rule: a row is written after its file is on the disk under its name, and removed after the file is: the start finds
what a crash left between the two. A pin may stand without a blob: it is wanted, and kept once it comes.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimnode.errors import ConfigError, Refused
from dimnode.limits import StoreLimits
from dimnode.records.ids import Cid, cid_text

BOOK_FILE: Final = "blobs.db"
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS roots(
  root BLOB PRIMARY KEY, bytes INTEGER NOT NULL, file_ns INTEGER NOT NULL, added_ms INTEGER NOT NULL,
  used_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names(cid BLOB PRIMARY KEY, root BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pins(
  root BLOB NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY(root, reason)) WITHOUT ROWID;
"""
# `names`: CIDs of whole files (raw, beyond 1 MiB) by which older manifests and uploads call a root.


@dataclass(frozen=True, slots=True)
class Blob:
    """A whole blob on this disk. `file_ns`: when its file was changed last; times are wall clock."""

    root: Cid
    bytes: int
    file_ns: int
    added_ms: int
    used_ms: int


class BlobBook:
    """One connection, shared by threads under a lock."""

    def __init__(self, home: Path, limits: StoreLimits) -> None:
        self._path, self._limits = home / BOOK_FILE, limits
        self._lock = threading.RLock()
        with self._mended():
            self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA fullfsync=ON")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                cause = f"it is of version {version}, this dimnode reads version {_VERSION}"
                hint = "use the dimnode that wrote it, or start with another DIM_HOME"
                raise ConfigError("E-store-37", f"the list of blobs {self._path} cannot be read", cause, hint)
            self._database.executescript(_TABLES)
            self._database.execute(f"PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        with self._lock:
            self._database.close()

    # ---- blobs

    def put(self, root: Cid, size: int, file_ns: int, now_ms: int) -> Blob:
        """A whole blob has come."""
        self._write(
            "INSERT INTO roots VALUES(?,?,?,?,?) ON CONFLICT(root) DO UPDATE SET file_ns=?, used_ms=?",
            (root, size, file_ns, now_ms, now_ms, file_ns, now_ms),
        )
        return Blob(root, size, file_ns, now_ms, now_ms)

    def find(self, root: bytes) -> Blob | None:
        """By root."""
        rows = self._rows("SELECT root, bytes, file_ns, added_ms, used_ms FROM roots WHERE root=?", (root,))
        return _blob(rows[0]) if rows else None

    def all(self) -> list[Blob]:
        """The least recently used first."""
        rows = self._rows("SELECT root, bytes, file_ns, added_ms, used_ms FROM roots ORDER BY used_ms, root")
        return [_blob(row) for row in rows]

    def forget(self, root: bytes) -> None:
        """It goes; its pins stay."""
        with self._transaction() as database:
            database.execute("DELETE FROM roots WHERE root=?", (root,))
            database.execute("DELETE FROM names WHERE root=?", (root,))

    def used(self, root: bytes, now_ms: int) -> None:
        """It was used now."""
        self._write("UPDATE roots SET used_ms=? WHERE root=?", (now_ms, root))

    def name(self, cid: bytes, root: bytes) -> None:
        """This CID of a whole file means this root."""
        self._write("INSERT OR REPLACE INTO names VALUES(?,?)", (cid, root))

    def named(self, cid: bytes) -> Cid | None:
        """The root that a CID of a whole file means."""
        rows = self._rows("SELECT root FROM names WHERE cid=?", (cid,))
        return Cid(rows[0][0]) if rows else None

    # ---- pins

    def pin(self, root: bytes, reason: str) -> None:
        """One reason more to keep it. Raises `Refused` E-store-38 for a reason that is none, or one too many."""
        if not 0 < len(reason) <= self._limits.blob_pin_reason_characters_max or not reason.isprintable():
            raise Refused("E-store-38", "a pin needs a short reason", "", "a word, say: user")
        with self._transaction() as database:
            if database.execute("SELECT 1 FROM pins WHERE root=? AND reason=?", (root, reason)).fetchone():
                return
            if database.execute("SELECT COUNT(*) FROM pins").fetchone()[0] >= self._limits.blob_pins_max:
                raise Refused("E-store-38", "too many pins", "", "dim blobs unpin what is not needed")
            database.execute("INSERT INTO pins VALUES(?,?,?)", (root, reason, time.time_ns() // 1_000_000))

    def unpin(self, root: bytes, reason: str) -> bool:
        """One reason less; whether it was there."""
        return self._write("DELETE FROM pins WHERE root=? AND reason=?", (root, reason)) > 0

    def pins(self) -> dict[Cid, list[str]]:
        """All reasons, by root."""
        found: dict[Cid, list[str]] = {}
        for root, reason in self._rows("SELECT root, reason FROM pins ORDER BY root, reason"):
            found.setdefault(Cid(root), []).append(reason)
        return found

    def reasons(self, root: bytes) -> list[str]:
        """Why this one is kept."""
        return [row[0] for row in self._rows("SELECT reason FROM pins WHERE root=? ORDER BY reason", (root,))]

    # ---- the database

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._mended():
            return self._database.execute(query, arguments).fetchall()

    def _write(self, statement: str, arguments: Sequence[Any]) -> int:
        with self._lock, self._mended():
            return self._database.execute(statement, arguments).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._mended():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """SQLite's troubles in words. What is only a full disk is no reason to stop the node."""
        try:
            yield
        except sqlite3.Error as error:
            match getattr(error, "sqlite_errorcode", 0) & 0xFF:
                case sqlite3.SQLITE_FULL:
                    hint = "free space; nothing that was kept is lost"
                    raise Refused("E-store-31", "the disk is full", str(error), hint, 5000) from None
                case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                    hint = "delete it: blobs are found again by their files, pins are lost"
                    raise ConfigError("E-store-37", f"{self._path} is damaged", str(error), hint) from None
                case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_BUSY:
                    raise Refused("E-store-39", f"cannot write {self._path}", str(error), "dim doctor") from None
            raise


def _blob(row: Sequence[Any]) -> Blob:
    return Blob(Cid(row[0]), *row[1:])


def no_blob(cid: bytes) -> Refused:
    """What is said when it is not here."""
    return Refused("E-store-34", f"no blob {cid_text(cid)} is here", "", "dim blobs ls, or dim blobs get CID")
