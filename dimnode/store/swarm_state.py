"""The private swarm of a home: one file with its records, its pre-shared keys and where to knock.

Rule: the file is 0600 and replaced as a whole, durable before anybody is told what it says. No file means: open swarm.
Leaving a swarm sets the file and the journal aside, because every record names the swarm that it was made in.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from dimnode.errors import ConfigError, why_of
from dimnode.limits import LIMITS
from dimnode.store.blob_files import sync_folder

SWARM_FOLDER: Final = "swarm"
STATE_FILE: Final = "state"
LEFT_FOLDER: Final = "left"
_VERSION: Final = 1
_JOURNAL: Final = "journal.db"

_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Until = Annotated[int, msgspec.Meta(ge=0)]
_Refused = Annotated[str, msgspec.Meta(pattern=r"^(E-[a-z]+-[0-9]+: |\Z)")]


@dataclass(slots=True)
class SwarmState:
    """What is kept. Records as envelopes; `keys` rows of (key, until_ms), newest first, until_ms 0 while in force.

    `refused`: "CODE: words" with which a member last refused this node's own invite; "" since one took it in.
    """

    swarm: bytes
    chain: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    keys: list[tuple[bytes, int]] = field(default_factory=list, repr=False)
    refused: str = ""


class _Row(msgspec.Struct, array_like=True):
    """As it is written."""

    v: Literal[1]
    swarm: bytes
    chain: list[bytes]
    records: list[bytes]
    addresses: list[str]
    keys: list[tuple[_Key, _Until]]
    refused: _Refused = ""


def state_path(home: Path) -> Path:
    """Where the state is."""
    return home / SWARM_FOLDER / STATE_FILE


def load_state(home: Path) -> SwarmState | None:
    """The swarm of this home, None for the open one. Raises `ConfigError` E-swarm-28 for a file that cannot be used."""
    path = state_path(home)
    try:
        with path.open("rb") as file:
            raw = file.read(LIMITS.swarm.state_bytes_max + 1)
        shared = path.stat().st_mode & 0o077
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or "") from None
    if shared:
        raise ConfigError("E-store-07", f"others can read the swarm's secrets in {path}", "", f"chmod 600 {path}")
    try:
        row = msgspec.msgpack.decode(raw, type=_Row)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    return SwarmState(row.swarm, row.chain, row.records, row.addresses, row.keys, row.refused)


def _damaged(path: Path, cause: str) -> ConfigError:
    hint = "restore it from a backup, or dim swarm leave and join again"
    return ConfigError("E-swarm-28", f"cannot read the swarm's state {path}", cause, hint)


def save_state(home: Path, state: SwarmState) -> None:
    """Replace the file; returns when it is on the disk. Raises `ConfigError` E-store-05."""
    path = state_path(home)
    row: list[Any] = [_VERSION, state.swarm, state.chain, state.records, state.addresses]
    row.append([list(pair) for pair in state.keys])
    if state.refused:  # else six entries, as all homes have had them
        row.append(state.refused)
    partial = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(row))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        hint = "free space, or another DIM_HOME"
        raise ConfigError("E-store-05", f"cannot write {path}", why_of(error), hint) from None


def has_records(home: Path) -> bool:
    """Whether this node has signed or kept anything yet. Only for a home on which no node runs."""
    path = home / _JOURNAL
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return True  # it cannot be read: whatever it is, it is kept


def set_aside(home: Path, label: str, *, journal_only: bool = False) -> Path | None:
    """Move swarm state and journal out of the way, to be looked at or moved back; where to, None when there was none.

    Only for a home on which no node runs. Key, settings, models' files and receipts stay.
    """
    journal = [home / (_JOURNAL + ending) for ending in ("", "-wal", "-shm")] if has_records(home) else []
    # The state last: without it the home is in the open swarm, which has no business with this journal.
    parts = [part for part in (*journal, *([] if journal_only else [state_path(home)])) if part.exists()]
    if not parts:
        return None
    number = 1
    while (folder := home / LEFT_FOLDER / f"{label}-{number}").exists():
        number += 1
    try:
        folder.mkdir(mode=0o700, parents=True)
        for part in parts:
            part.rename(folder / ("swarm-state" if part.name == STATE_FILE else part.name))
        sync_folder(folder)
        sync_folder(home)
    except OSError as error:
        raise ConfigError("E-store-05", f"cannot write {folder}", why_of(error), "look at the permissions") from None
    return folder
