"""Keys of the HTTP door, and which key asked for which job: one small SQLite file in the home.

Rule: of a key only its SHA-256 is kept (256 random bits need no slow hash), so nobody can read a key out of this file.
The command line and a running node use the file at the same time; a revoked key is refused at its next request.
"""

import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimnode.errors import ConfigError, Refused
from dimnode.posix.files import NO_LINK, fchmod

KEYS_FILE: Final = "keys.db"
SCOPES: Final = ("submit", "read", "review", "admin")
Row = tuple[Any, ...]
_PREFIX: Final = "dim"
_ID_BYTES: Final = 5
_SECRET_BYTES: Final = 32
_PAGES_UNCHECKED_MAX: Final = 16_384
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys(
  id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scopes TEXT NOT NULL, models TEXT NOT NULL,
  created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, revoked_ms INTEGER NOT NULL,
  requests_per_minute INTEGER NOT NULL, open_jobs INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS jobs(
  job BLOB PRIMARY KEY, key TEXT NOT NULL, repeat TEXT, digest BLOB NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS uploads(
  blob BLOB NOT NULL, key TEXT NOT NULL, bytes INTEGER NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY(blob, key)) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS repeats ON jobs(key, repeat) WHERE repeat IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_of_key ON jobs(key, at_ms);
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. Times in milliseconds since 1970, 0 = never; empty `models` = all."""

    id: str
    name: str
    scopes: frozenset[str]
    models: tuple[str, ...]
    created_ms: int
    expires_ms: int
    revoked_ms: int
    requests_per_minute: int
    open_jobs: int

    def is_valid(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return not self.revoked_ms and (not self.expires_ms or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that a key asked for. `digest` is the SHA-256 of the request's body."""

    job: bytes
    key: str
    repeat: str
    digest: bytes
    at_ms: int


class KeyBook:
    """The file, opened. Every call is one short statement; calls may wait up to a second for another writer."""

    def __init__(self, home: Path) -> None:
        self._path = path = home / KEYS_FILE
        try:
            opened = os.open(path, os.O_CREAT | os.O_RDWR | NO_LINK, 0o600)
            self._file = _file_id(os.fstat(opened))
            fchmod(opened, 0o600)  # who could write here could make keys
            os.close(opened)
            self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            # A crash of the machine may lose the last rows: a job is then the operator's alone. Nothing is forgeable.
            self._database.execute("PRAGMA synchronous=NORMAL")
            # Nor does a note wait for the disk: `checkpoint` does that, in a thread, long before this many pages.
            self._database.execute(f"PRAGMA wal_autocheckpoint={_PAGES_UNCHECKED_MAX}")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError("E-store-09", f"{path} cannot be used", str(error), "dim doctor") from None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def checkpoint(self) -> None:
        """Write what was noted from the log into the file, over a connection of its own: for a thread.

        Raises `Refused` E-store-09.
        """
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True)) as database:
                database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            raise _unusable(error) from None

    # ---- keys

    def create(self, key: ApiKey) -> str:
        """Keep a new key; the text that its owner is shown once. `key.id` is replaced by a fresh one.

        Raises `Refused` E-store-09, as `revoke` does, when the file cannot be written now.
        """
        identity, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        self._rows(
            "INSERT INTO keys VALUES(?,?,?,?,?,?,?,0,?,?)",
            (
                identity,
                key.name,
                _digest(secret),
                " ".join(sorted(key.scopes)),
                "\n".join(key.models),
                key.created_ms,
                key.expires_ms,
                key.requests_per_minute,
                key.open_jobs,
            ),
        )
        return f"{_PREFIX}_{identity}_{secret}"

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, valid or not; None for any other text. Compares in constant time.

        Raises `Refused` E-store-09 when the file was deleted or replaced: whoever did that wants its keys gone.
        """
        self._still_there()
        prefix, _, rest = text.partition("_")
        identity, _, secret = rest.partition("_")
        rows = self._rows("SELECT * FROM keys WHERE id=?", (identity,))
        kept = rows[0][2] if rows else b"\0" * 32
        same = hmac.compare_digest(kept, _digest(secret))
        return _key_of(rows[0]) if same and rows and prefix == _PREFIX else None

    def all(self) -> list[ApiKey]:
        """All keys, newest first, those that are over too."""
        return [_key_of(row) for row in self._rows("SELECT * FROM keys ORDER BY created_ms DESC, id", ())]

    def revoke(self, identity: str, now_ms: int) -> ApiKey:
        """From now on the key is refused. Raises `Refused` E-keys-01 for an unknown or ambiguous id or name."""
        found = [key for key in self.all() if identity in (key.id, key.name)]
        found = [key for key in found if key.id == identity] or [key for key in found if not key.revoked_ms] or found
        if len(found) != 1:
            what = "no key" if not found else f"{len(found)} keys"
            raise Refused("E-keys-01", f"{what} with the id or name {identity!r}", "", "dim keys ls")
        self._rows("UPDATE keys SET revoked_ms=? WHERE id=? AND revoked_ms=0", (now_ms, found[0].id))
        return found[0]

    # ---- jobs

    def note_job(self, asked: Asked) -> None:
        """Remember who asked for a job, before it is handed in. Harmless when repeated."""
        row = (asked.job, asked.key, asked.repeat or None, asked.digest, asked.at_ms)
        # An earlier job of the same idempotency key was not taken, or it would be asked for by its id: this one is.
        self._rows(
            "INSERT INTO jobs VALUES(?,?,?,?,?) ON CONFLICT(job) DO NOTHING "
            "ON CONFLICT(key, repeat) WHERE repeat IS NOT NULL DO UPDATE SET "
            "job=excluded.job, digest=excluded.digest, at_ms=excluded.at_ms",
            row,
        )

    def job(self, job: bytes) -> Asked | None:
        """Who asked for this job; None when no key did."""
        return _first(self._rows("SELECT * FROM jobs WHERE job=?", (job,)))

    def repeated(self, key: str, repeat: str) -> Asked | None:
        """The job that this key asked for under this idempotency key."""
        return _first(self._rows("SELECT * FROM jobs WHERE key=? AND repeat=?", (key, repeat)))

    def jobs_of(self, key: str, most: int, before_ms: int = 2**62) -> list[Asked]:
        """The newest jobs of a key, newest first; more than `most` when several share the last one's millisecond."""
        page = "FROM jobs WHERE key=? AND at_ms<? ORDER BY at_ms DESC LIMIT 1 OFFSET ?"
        query = f"SELECT * FROM jobs WHERE key=? AND at_ms<? AND at_ms>=COALESCE((SELECT at_ms {page}), 0)"
        rows = self._rows(f"{query} ORDER BY at_ms DESC, job", (key, before_ms, key, before_ms, most - 1))
        return [_asked(row) for row in rows]

    # ---- uploads

    def note_upload(self, blob: bytes, key: str, count: int, at_ms: int) -> None:
        """Remember who handed a file in; its day begins again."""
        self._rows("INSERT OR REPLACE INTO uploads VALUES(?,?,?,?)", (blob, key, count, at_ms))

    def forget_uploads(self, before_ms: int) -> None:
        """Those whose day is over."""
        self._rows("DELETE FROM uploads WHERE at_ms<?", (before_ms,))

    def uploaded(self, blob: bytes, key: str) -> bool:
        """Whether this key handed that file in."""
        return bool(self._rows("SELECT 1 FROM uploads WHERE blob=? AND key=?", (blob, key)))

    def uploaded_bytes(self, key: str, since_ms: int) -> int:
        """How much a key handed in since then."""
        rows = self._rows("SELECT COALESCE(SUM(bytes), 0) FROM uploads WHERE key=? AND at_ms>=?", (key, since_ms))
        return int(rows[0][0])

    def _still_there(self) -> None:
        try:
            same = _file_id(os.stat(self._path)) == self._file
        except OSError:
            same = False
        if not same:
            what = "the list of keys was deleted or replaced, so nobody is let in"
            raise Refused("E-store-09", what, "", "restart the node: dim stop, dim up", 1000)

    def _rows(self, query: str, arguments: Iterable[object]) -> list[Row]:
        try:
            return self._database.execute(query, tuple(arguments)).fetchall()
        except sqlite3.Error as error:
            raise _unusable(error) from None


def _unusable(error: sqlite3.Error) -> Refused:
    return Refused("E-store-09", "the list of keys cannot be used", str(error), "dim doctor", 1000)


def has_keys(home: Path) -> bool:
    """True when a key was ever made here: without one the HTTP door stays shut. Writes nothing."""
    path = home / KEYS_FILE
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return True  # a damaged file is told by whoever opens it


def _file_id(said: os.stat_result) -> tuple[int, int]:
    return said.st_dev, said.st_ino


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key_of(row: Row) -> ApiKey:
    identity, name, _, scopes, models, created_ms, expires_ms, revoked_ms, per_minute, open_jobs = row
    granted, only = frozenset(scopes.split()), tuple(models.splitlines())
    return ApiKey(identity, name, granted, only, created_ms, expires_ms, revoked_ms, per_minute, open_jobs)


def _first(rows: list[Row]) -> Asked | None:
    return _asked(rows[0]) if rows else None


def _asked(row: Row) -> Asked:
    job, key, repeat, digest, at_ms = row
    return Asked(job, key, repeat or "", digest, at_ms)
