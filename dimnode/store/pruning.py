"""Which blobs the journal can do without: inputs and outputs of what is over, the oldest first.

Rule: only bytes go, and only when no open job, no unacknowledged answer and no young record names them. Records,
openings and verdicts stay, so every receipt can still be made; it says by its missing blobs what is gone.
Reads through a connection of its own, in a thread: the whole journal is looked through, and only when it is too large.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimnode.errors import PeerFault
from dimnode.records.envelope import open_envelope
from dimnode.store.schema import OPEN_BUSINESS

_NEEDED: Final = f"""
SELECT o.cid, r.kind, r.envelope, r.seq, EXISTS(SELECT 1 FROM records s WHERE s.id = r.job)
FROM records r CROSS JOIN openings o ON o.record = r.id
WHERE r.seq > ? OR ({OPEN_BUSINESS})
"""
_OLDEST: Final = """
SELECT o.cid, LENGTH(b.bytes) FROM records r CROSS JOIN openings o ON o.record = r.id
CROSS JOIN blobs b ON b.cid = o.cid WHERE r.seq <= ? ORDER BY r.seq
"""


@dataclass(frozen=True, slots=True)
class Disposable:
    """Blobs to take out, oldest first, each with its size; `seen` is the newest row that was looked at."""

    blobs: tuple[tuple[bytes, int], ...]
    seen: int


def disposable(path: Path, before: int, kept_since_ms: int, wanted_bytes: int) -> Disposable:
    """Enough blobs to make `wanted_bytes` free, or as many as there are.

    before: rows after this one are young, and what they name stays. kept_since_ms: answers of ours to jobs of others
    that nobody has acknowledged are kept when they were made after this moment (wall clock).
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
        database.execute("BEGIN")  # both questions about one state of the journal
        [(seen,)] = database.execute("SELECT COALESCE(MAX(seq), 0) FROM records")
        needed = set(_needed(database, before, kept_since_ms))
        found: dict[bytes, int] = {}
        for cid, size in database.execute(_OLDEST, (before,)):
            if wanted_bytes <= 0:
                break
            if cid not in needed and cid not in found:
                found[cid] = size
                wanted_bytes -= size
    return Disposable(tuple(found.items()), seen)


def _needed(database: sqlite3.Connection, before: int, kept_since_ms: int) -> Iterator[bytes]:
    for cid, kind, envelope, seq, owned in database.execute(_NEEDED, (before,)):
        # Of a job that this node owns everything stays until its verdict, however old an executor says its answer is.
        if seq > before or owned or kind != "answer" or _made_ms(envelope) > kept_since_ms:
            yield cid


def _made_ms(envelope: bytes) -> int:
    """When this node's answer was made; its signature was checked, or made, before it was kept."""
    try:
        return int(open_envelope(envelope, check_signature=False).payload["at_ms"])
    except PeerFault:
        return 0
