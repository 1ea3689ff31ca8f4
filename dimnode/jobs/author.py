"""Composes this node's own records.

Rule: an id is the hash of a payload, so a record can be named before its signature exists: the engine composes, the
loop seals. Pure: no I/O, no clock, no secret.
"""

from dataclasses import dataclass
from typing import Any

from dimnode.jobs.events import Now
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import compose


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs, and in which swarm."""

    me: PeerId
    net: RecordId

    def compose(self, kind: str, body: dict[str, Any], now: Now) -> tuple[RecordId, bytes]:
        """Id and payload of a record of ours. A body outside the schema is our own bug."""
        return compose(kind, {"net": self.net, "by": self.me, "at_ms": now.wall_ms}, body)
