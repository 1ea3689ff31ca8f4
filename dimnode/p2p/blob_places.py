"""Who gets one of the few places at which large blobs are handed out.

The last places are kept for those who have least against them. Two things count against a peer: that its group (one
network, or all who come over relays) has its share already, and that no lease or grant lets it have what it asks for.
As long as there is room everybody is served; when it grows scarce a stranger with many keys at one address leaves room
for other networks, and all strangers together leave room for whoever has work to do.

Rule: nobody is turned out for somebody else, and no peer has more than its own few places.
Pure: no I/O, no clock.

Source: trunk reservation, as telephone exchanges do it (R. I. Wilkinson, Bell System Technical Journal 35, 1956).
"""

import ipaddress
from collections import Counter

from dimnode.limits import LIMITS, ExchangeLimits
from dimnode.records.ids import PeerId


class Places:
    """The places of one node."""

    def __init__(self, limits: ExchangeLimits = LIMITS.exchange) -> None:
        self._limits = limits
        self._of_peer: Counter[PeerId] = Counter()
        self._of_group: Counter[str] = Counter()

    def take(self, peer: PeerId, group: str, owed: bool) -> bool:
        """Take a place, to be given back with `leave`; False when there is none for this peer.

        owed: a lease or a grant lets it have what it asks for, and not only everybody's leave.
        """
        limits = self._limits
        against = int(not owed) + int(self._of_group[group] >= limits.serving_per_group_share)
        free = limits.serving_max - self._of_peer.total()
        if self._of_peer[peer] >= limits.serving_per_peer_max or free <= limits.serving_kept_free[against]:
            return False
        self._of_peer[peer] += 1
        self._of_group[group] += 1
        return True

    def leave(self, peer: PeerId, group: str) -> None:
        """Give back one place that was taken."""
        self._of_peer[peer] -= 1
        self._of_group[group] -= 1
        self._of_peer, self._of_group = +self._of_peer, +self._of_group  # without zeros


def group_of(ip: str) -> str:
    """The network that an IP address is in: a /24 of IPv4, a /64 of IPv6. What is no address is a group by itself."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    address = getattr(address, "ipv4_mapped", None) or address
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False))
