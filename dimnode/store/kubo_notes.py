"""What this node remembers of its Kubo daemon: `kubo.json` in the home.

Rule: it only saves work. Without it everything is looked at again; what cannot be read is as good as not there.
"""

import os
from pathlib import Path
from typing import Annotated, Final

import msgspec

from dimnode.errors import PeerFault, Refused
from dimnode.limits import KuboLimits
from dimnode.records.ids import cid_bytes

NOTES_FILE: Final = "kubo.json"


class KuboNotes(msgspec.Struct, kw_only=True):
    """CIDs as text. `receipts_after`: the journal's row up to which receipts were added."""

    pinned: list[str] = []
    receipts_after: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] = -1
    receipts: int = 0
    name: str = ""
    index: str = ""
    named_at_ms: int = 0


def load_notes(home: Path, limits: KuboLimits) -> KuboNotes:
    """As they were saved, or new ones."""
    path = home / NOTES_FILE
    try:
        if path.is_symlink() or path.stat().st_size > limits.notes_bytes_max:
            return KuboNotes()
        notes = msgspec.json.decode(path.read_bytes(), type=KuboNotes)
        for text in (*notes.pinned, *filter(None, (notes.index,))):
            cid_bytes(text)
    except (OSError, ValueError, RecursionError, PeerFault):
        return KuboNotes()
    return notes


def save_notes(home: Path, notes: KuboNotes) -> None:
    """Whole or not at all. Raises `Refused` E-jobs-24 when the disk takes nothing."""
    path = home / NOTES_FILE
    draft = path.with_suffix(".draft")
    try:
        draft.write_bytes(msgspec.json.encode(notes))
        os.replace(draft, path)
    except OSError as error:
        raise Refused("E-jobs-24", "the disk of this node is full", error.strerror or "", "", 5000) from None
