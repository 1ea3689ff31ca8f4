"""What is known about other peers, in bounded space and without losing ourselves.

Stock libp2p keeps its own key pair in the same book as everybody's addresses. When strangers make it know more than
1000 peers (one DHT answer names many), it strikes out entries without addresses first, and that is our own: from then
on the node can sign nothing.

Rule: strangers never touch our own entry, and a connected peer is not forgotten.
"""

from collections.abc import Callable, Sequence

from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr


class BoundedPeerStore(PeerStore):
    """The stock peer store with bounds that hold. `is_connected` is set once the host exists."""

    def __init__(self, own: ID, peers_max: int, addresses_per_peer_max: int) -> None:
        super().__init__(max_records=peers_max, max_peers=peers_max)
        self.is_connected: Callable[[ID], bool] = lambda peer: False
        self._own = own
        self._addresses_per_peer_max = addresses_per_peer_max

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        """Note addresses, the newest replacing the oldest; what is said about ourselves is not listened to."""
        if peer_id == self._own:
            return
        super().add_addrs(peer_id, list(addrs)[-self._addresses_per_peer_max :], ttl)
        entry = self.peer_data_map.get(peer_id)
        if entry is not None:
            del entry.addrs[: -self._addresses_per_peer_max]

    def _enforce_peer_limit(self) -> None:
        surplus = len(self.peer_data_map) - self.max_peers
        if surplus <= 0:
            return
        others = [peer for peer in self.peer_data_map if peer != self._own and not self.is_connected(peer)]
        others.sort(key=lambda peer: not self.peer_data_map[peer].is_expired())  # stable: then oldest first
        # A tenth more than needed, so that the next newcomers do not cost a pass each.
        for peer in others[: surplus + self.max_peers // 10]:
            del self.peer_data_map[peer]
            self.peer_record_map.pop(peer, None)
