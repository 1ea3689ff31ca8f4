"""What the operator has blocked and allowed by command, kept from run to run.

Rule: unlike the peers that are remembered, this is no hint: a change is on the disk before it is confirmed, and a file
that cannot be read ends the start, because a node that forgot it would let in whom it should keep out.
"""

import os
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.store.blob_files import sync_folder

BLOCKLIST_FILE: Final = "blocked.json"
_MAX: Final = LIMITS.peers.blocked_entries_max


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry as it is written: a target's text, a reason, when."""

    target: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    reason: Annotated[str, msgspec.Meta(max_length=LIMITS.peers.block_reason_characters_max)] = ""
    at_ms: int = 0


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    v: Literal[1] = 1
    blocked: Annotated[tuple[Line, ...], msgspec.Meta(max_length=_MAX)] = ()
    allowed: Annotated[tuple[Line, ...], msgspec.Meta(max_length=_MAX)] = ()


def load_lists(home: Path) -> Lists:
    """What was said so far; empty without a file. Raises `ConfigError` E-peers-02 for one that cannot be read."""
    path = home / BLOCKLIST_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(LIMITS.peers.blocklist_file_bytes_max + 1)
        if len(raw) > LIMITS.peers.blocklist_file_bytes_max:
            raise ValueError("it is too large")
        return msgspec.json.decode(raw, type=Lists)
    except FileNotFoundError:
        return Lists()
    except (OSError, ValueError, RecursionError) as error:
        hint = "mend it; or delete it, and block again whom you want to keep out"
        raise ConfigError("E-peers-02", f"the list of blocked peers cannot be read: {path}", str(error), hint) from None


def save_lists(home: Path, lists: Lists) -> None:
    """Replace the file, on the disk when this returns. Raises `Refused` E-peers-06 when it cannot be written, or when
    it was and may be undone by a loss of power: what `load_lists` finds then is what holds."""
    path = home / BLOCKLIST_FILE
    partial = home / (BLOCKLIST_FILE + ".new")
    left = "nothing was changed"
    try:
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(lists), indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        left = "the change holds, and a loss of power may undo it: look at the disk, then say it again"
        sync_folder(home)
    except OSError as error:
        raise Refused("E-peers-06", f"cannot write {path}", error.strerror or "", left) from None
