"""The Kademlia DHT, used to find peers and who provides a key; nothing in dimnode is correct because of it.

Rule: every call is bounded in time and returns what was found until then. Values are never stored or believed.

The protocol id is libp2p's fixed `/ipfs/kad/1.0.0`: a node joins the network of the peers it dials.
"""

from collections.abc import Sequence
from typing import Any

import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID

from dimnode.limits import HostLimits
from dimnode.p2p.host.addresses import with_peer


class Dht:
    """One node's part of the DHT. `service` is run by the host."""

    def __init__(self, host: Any, limits: HostLimits) -> None:
        self._host = host
        self._limits = limits
        self.service = KadDHT(host, DHTMode.SERVER, strict_validation=True)

    async def join(self, connected: Sequence[ID]) -> int:
        """Feed the routing table (libp2p does not) and look ourselves up. Returns the size of the table.

        A server refuses more than 12 lookups at a time, so many nodes joining at once get little: retry with jitter.
        """
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            for peer in connected:
                await self.service.add_peer(peer)
            await self.service.peer_routing.find_closest_peers_network(self._host.get_id().to_bytes())
        return int(self.service.get_routing_table_size())

    async def find(self, peer: ID) -> list[str]:
        """Return dialable addresses of `peer`, none when nobody knows any."""
        found = None
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            found = await self.service.find_peer(peer)
        if found is None:
            return []
        return [with_peer(address, peer) for address in found.addrs[: self._limits.addresses_per_peer_max]]

    def peers(self) -> list[ID]:
        """Return the routing table."""
        return list(self.service.routing_table.get_peer_ids())

    async def provide(self, key: bytes) -> bool:
        """Announce that we have `key`; lasts a day. Returns whether at least one peer stored it."""
        self._check_key(key)
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            return bool(await self.service.provider_store.provide(key))
        return False

    async def providers(self, key: bytes) -> list[ID]:
        """Return peers that announced `key`, from our own shelf and from those closest to the key.

        libp2p's own lookup stops at the own shelf, so that a provider would never find the other ones.
        """
        self._check_key(key)
        found: dict[ID, None] = {}
        store = self.service.provider_store
        for entry in store.get_providers(key):
            found[entry.peer_id] = None
        limiter = trio.CapacityLimiter(self._limits.dht_queries_max)

        async def ask(peer: ID) -> None:
            async with limiter:
                entries, _closer = await store._get_providers_from_peer_with_closers(peer, key)
            for entry in entries:
                self._host.get_peerstore().add_addrs(entry.peer_id, entry.addrs, self._limits.address_ttl_seconds)
                found[entry.peer_id] = None

        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            closest = await self.service.peer_routing.find_closest_peers_network(key)
            async with trio.open_nursery() as nursery:
                for peer in closest:
                    nursery.start_soon(ask, peer)
        found.pop(self._host.get_id(), None)
        return list(found)

    def _check_key(self, key: bytes) -> None:
        if not 0 < len(key) <= self._limits.dht_key_bytes_max:
            raise ValueError(f"key of {len(key)} bytes")
