"""What all Yamux connections of one host share: the places of inbound streams, and what is unread by peer.

Rule: a peer's bounds hold over all its connections together, and are looked at before anything is allocated.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from libp2p.peer.id import ID

from dimnode.p2p.conduct import Offence

if TYPE_CHECKING:
    from dimnode.p2p.host.yamux import YamuxConnection

Offend = Callable[[bytes, Offence], None]


def nobody_minds(peer: bytes, offence: Offence) -> None:
    """For a connection without a host above it."""


class StreamBudget:
    """`left` is how many more inbound streams the host takes; `offend` hears of peers that ask for too much."""

    __slots__ = ("_connections", "_refused", "left", "offend")

    def __init__(self, left: int, offend: Offend = nobody_minds) -> None:
        self.left = left
        self.offend = offend
        self._refused: Counter[ID] = Counter()
        self._connections: dict[ID, set[YamuxConnection]] = {}

    def enter(self, connection: "YamuxConnection") -> set["YamuxConnection"]:
        """A connection starts; return all that the host has with its peer, itself included, as long as it lives."""
        siblings = self._connections.setdefault(connection.peer_id, set())
        siblings.add(connection)
        return siblings

    def leave(self, connection: "YamuxConnection") -> None:
        """A connection is over. Idempotent."""
        siblings = self._connections.get(connection.peer_id, set())
        siblings.discard(connection)
        if not siblings:
            self._connections.pop(connection.peer_id, None)
            self._refused.pop(connection.peer_id, None)

    def connections_of(self, peer: ID) -> list["YamuxConnection"]:
        """All that have started and are not over."""
        return list(self._connections.get(peer, ()))

    def unread_bytes(self) -> int:
        """What this host holds of all peers and nobody has read."""
        return sum(connection.unread_bytes for group in self._connections.values() for connection in group)

    def refuse(self, peer: ID, most: int) -> None:
        """A stream was refused. A few are an accident; `most` are an offence."""
        self._refused[peer] += 1
        if self._refused[peer] >= most:
            self._refused[peer] = 0
            self.offend(peer.to_bytes(), Offence.STREAM_FLOOD)
