"""Who has what, as those who have it announced it to this node as a server of the DHT.

Rule: when there is no more room, of all announcements or of those of one key, the network with the most gives way, and
in it the peer with the most; of equals whoever comes. So a stranger with many keys of its own, or many peers at one
address, displaces its own announcements and leaves room for other networks. What is over goes first.
Pure: no I/O, no clock.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from dimnode.limits import HostLimits

H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Kept:
    provider: PeerInfo
    group: str
    until: float


class ProviderShelf:
    """At most one announcement for each key and peer. Times are seconds of a clock that is never set."""

    def __init__(self, limits: HostLimits) -> None:
        self._limits = limits
        self._kept: OrderedDict[tuple[ID, bytes], _Kept] = OrderedDict()  # the oldest first
        self._of_key: dict[bytes, dict[ID, str]] = {}  # the groups of its providers
        self._of_peer: dict[ID, dict[bytes, None]] = {}
        self._of_group: dict[str, Counter[ID]] = {}
        self._in_group: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, provider: PeerInfo, group: str, now: float) -> None:
        """Take an announcement of a peer that comes from this group, new or again."""
        self._drop_old(now)
        peer, limits = provider.peer_id, self._limits
        self._drop(peer, key)
        self._kept[peer, key] = _Kept(provider, group, now + limits.dht_provider_kept_seconds)
        self._of_key.setdefault(key, {})[peer] = group
        self._of_peer.setdefault(peer, {})[key] = None
        self._of_group.setdefault(group, Counter())[peer] += 1
        self._in_group[group] += 1
        if len(self._of_peer[peer]) > limits.dht_announcements_per_peer_max:
            self._drop(peer, next(iter(self._of_peer[peer])))
        if len(self._of_key[key]) > limits.dht_providers_per_key_max:
            self._drop(self._gives_way(key, peer, group), key)
        if len(self._kept) > limits.dht_announcements_kept_max:
            most = _most(self._in_group, group)
            loser = _most(self._of_group[most], peer)
            self._drop(loser, next(each for each in self._of_peer[loser] if self._kept[loser, each].group == most))

    def get(self, key: bytes, now: float) -> list[PeerInfo]:
        """Who has it."""
        kept = (self._kept[peer, key] for peer in self._of_key.get(key, ()))
        return [each.provider for each in kept if now < each.until]

    def _gives_way(self, key: bytes, peer: ID, group: str) -> ID:
        """Which of a key's providers: the oldest of the group that has the most of them."""
        groups = self._of_key[key]
        most = _most(Counter(groups.values()), group)
        return peer if most == group else next(each for each, of in groups.items() if of == most)

    def _drop_old(self, now: float) -> None:
        while self._kept:
            (peer, key), oldest = next(iter(self._kept.items()))
            if now < oldest.until:
                return
            self._drop(peer, key)

    def _drop(self, peer: ID, key: bytes) -> None:
        kept = self._kept.pop((peer, key), None)
        if kept is None:
            return
        del self._of_key[key][peer], self._of_peer[peer][key]
        peers = self._of_group[kept.group]
        peers[peer] -= 1
        self._in_group[kept.group] -= 1
        if not peers[peer]:
            del peers[peer]
        if not peers:
            del self._of_group[kept.group], self._in_group[kept.group]
        if not self._of_key[key]:
            del self._of_key[key]
        if not self._of_peer[peer]:
            del self._of_peer[peer]


def _most(counts: Counter[H], comes: H) -> H:
    """The one with the most; of equals the one who comes."""
    top = max(counts.values())
    return comes if counts[comes] == top else next(each for each, count in counts.items() if count == top)
