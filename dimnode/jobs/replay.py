"""From journal rows back to an engine: what a restart knows.

Rule: the journal holds all that is needed; whatever was not committed, nobody has seen.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dimnode.jobs.events import Key
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.receipt import Opening


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One `Append` as the journal gives it back, in the order of commits. `by` signed it."""

    kind: str
    id: RecordId
    key: Key
    by: PeerId
    payload: Mapping[str, Any]
    openings: tuple[Opening, ...] = ()
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Records and blobs that the restored engine holds, once per holder: the vault must load them before the loop runs."""

    records: tuple[RecordId, ...]
    blobs: tuple[Cid, ...]
