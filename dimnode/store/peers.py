"""Addresses of peers met before, so that a node finds the swarm again when every bootstrap address is dead.

Rule: hints only; written atomically, bounded, and a damaged file is the same as none.
"""

import json
import os
from pathlib import Path
from typing import Final

from dimnode.limits import LIMITS

PEERS_FILE: Final = "peers.json"


def load_addresses(home: Path) -> list[str]:
    """Addresses with peer ids, newest first; empty when there is no readable file."""
    try:
        found = json.loads((home / PEERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, list):
        return []
    return [entry for entry in found if isinstance(entry, str)][: LIMITS.peers.peer_cache_entries_max]


def save_addresses(home: Path, addresses: list[str]) -> None:
    """Replace the file. A full disk costs the hints, not the node."""
    partial = home / (PEERS_FILE + ".new")
    try:
        partial.write_text(json.dumps(addresses), encoding="utf-8")
        os.replace(partial, home / PEERS_FILE)
    except OSError:
        partial.unlink(missing_ok=True)
