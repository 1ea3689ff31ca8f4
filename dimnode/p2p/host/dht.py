"""The Kademlia DHT: where peers are, who provides a key, and IPNS records; nothing in dimnode is correct because of it.

Rule: every call is bounded in time and returns what was found until then. Of values only IPNS records are stored, and
none is believed before its publisher's signature holds. Who is in the table was admitted: with `vouched`, by whoever
read its introduction; otherwise by being connected, so that Noise proved its id. The protocol id is libp2p's fixed
`/ipfs/kad/1.0.0`, which every IPFS node speaks: the table must not fill with those.

The table is libp2p's; what is kept for others (`provider_shelf.py`, `name_shelf.py`), what is answered
(`kad_serving.py`) and our walks (`lookup.py`) are our own. libp2p's shelf of providers has our own announcements alone.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from dimnode.limits import HostLimits
from dimnode.p2p.host.addresses import parse_dial
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.gate import Gate
from dimnode.p2p.host.kad_serving import KadServing
from dimnode.p2p.host.lookup import GET_PROVIDERS, Lookup
from dimnode.p2p.host.name_shelf import NameShelf, OnName
from dimnode.p2p.host.names import Heard, Names
from dimnode.records.ids import PeerId


class BoundedKad(KadDHT):
    """libp2p's DHT as a server whose work per peer, and whose memory, are bounded."""

    def __init__(self, host: Any, limits: HostLimits, shelf: NameShelf, on_name: OnName) -> None:
        super().__init__(host, DHTMode.SERVER, strict_validation=True)
        self.serving = KadServing(self, limits, shelf, on_name)
        # Stock lets twelve idle streams of one peer keep everybody else out; places are counted per peer below.
        self._inbound_limiter = trio.CapacityLimiter(limits.dht_streams_max)

    async def handle_stream(self, stream: Any) -> None:
        """Serve one stream of questions."""
        await self.serving.serve(stream)


class Dht:
    """One node's part of the DHT. `service` is run by the host."""

    def __init__(
        self, host: Any, dialler: Dialler, gate: Gate, limits: HostLimits, *, vouched: bool, on_name: OnName
    ) -> None:
        self._host, self._dialler, self._gate, self._limits = host, dialler, gate, limits
        self._vouched = vouched
        self._admitted: OrderedDict[ID, None] = OrderedDict()
        self._somebody = trio.Event()
        shelf = NameShelf(limits)
        self.service: Any = BoundedKad(host, limits, shelf, on_name)
        self.lookup = Lookup(host, dialler, self._start, gate.offend, limits)
        self._names = Names(host.get_id(), self.lookup, shelf, gate.offend, limits)
        self.service.peer_routing.find_closest_peers_network = self.lookup.closest
        table = self.service.routing_table
        self._add_to_table = table.add_peer
        table.add_peer = self._add_if_admitted

    # Who is in the table

    def _start(self) -> list[ID]:
        return list(dict.fromkeys([*self._dialler.peers(), *self.peers()]))

    def admits(self, peer: ID) -> bool:
        """Whether a peer may be in the table."""
        return peer in self._admitted if self._vouched else bool(self._dialler.live(peer))

    async def admit(self, peer: ID) -> None:
        """Somebody read this peer's introduction: it is one of ours, and enters the table."""
        self._admitted[peer] = None
        self._admitted.move_to_end(peer)
        if len(self._admitted) > self._limits.dht_admitted_peers_max:
            self._admitted.popitem(last=False)
        self._somebody.set()
        await self.service.add_peer(peer)

    async def _add_if_admitted(self, found: PeerInfo | ID, *, skip_server_mode_check: bool = False) -> bool:
        peer = found.peer_id if isinstance(found, PeerInfo) else found
        if not self.admits(peer):
            return False
        added: bool = await self._add_to_table(found, skip_server_mode_check=skip_server_mode_check)
        return added

    async def join(self, connected: Sequence[ID]) -> int:
        """Feed the routing table (libp2p does not) and look ourselves up. Returns the size of the table.

        Just connected, nobody may have been introduced yet: that is waited for, a moment.
        """
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            if self._vouched and connected:
                with trio.move_on_after(self._limits.dht_vouch_seconds_max):
                    await self._somebody.wait()
            for peer in connected:
                await self.service.add_peer(peer)
            few = self._limits.dht_tellers_min
            for peer in await self.lookup.closest(self._host.get_id().to_bytes(), agree=few):
                await self.service.add_peer(peer)
        return len(self.peers())

    def peers(self) -> list[ID]:
        """Return the routing table."""
        return list(self.service.routing_table.get_peer_ids())

    # Questions

    async def find(self, peer: ID) -> list[str]:
        """Return dialable addresses of `peer`, none when nobody knows any. Unverified: a dial proves them, or not."""
        if known := self._dialler.known_addresses(peer):
            return known
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            walk = await self.lookup.walk(peer.to_bytes(), self._limits.dht_tellers_min)
            if known := self._dialler.known_addresses(peer):
                return known
            if peer in walk.named:
                return list(walk.named[peer].addresses)
        return []

    async def provide(self, key: bytes) -> bool:
        """Announce that we have `key`; lasts a day. Returns whether at least one peer stored it."""
        self._check_key(key)
        own, store = self._host.get_id(), self.service.provider_store
        store.add_provider(key, PeerInfo(own, self._host.get_addrs()))
        store.providing_keys.add(key)  # libp2p announces it again in time
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            return await self.lookup.announce(key, self._limits.dht_keepers_max) > 0
        return False

    async def providers(self, key: bytes) -> list[ID]:
        """Return peers that are said to have `key`, by our own shelf and by those closest to the key.

        libp2p's own lookup stops at the own shelf, so that a provider would never find the other ones.
        """
        self._check_key(key)
        found: dict[ID, None] = dict.fromkeys(entry.peer_id for entry in self.service.serving.providers(key))
        tellers = 0

        def take(peer: ID, answer: Message) -> bool:
            nonlocal tellers
            named = self.lookup.read_peers(answer.providerPeers, key, peer)
            for each in named:
                self._note_addresses(each.peer, each.addresses)
                found[each.peer] = None
            tellers += bool(named)
            return tellers >= self._limits.dht_tellers_min

        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            # One walk both looks for closer peers and asks them: the question is answered with closer peers, too.
            few = self._limits.dht_tellers_min
            await self.lookup.walk(key, self._limits.dht_keepers_max, GET_PROVIDERS, take, few)
        found.pop(self._host.get_id(), None)
        return list(found)

    async def publish(self, record: bytes) -> tuple[int, Heard]:
        """Bring our own IPNS record to others: how many keep it, and what they had of ours before.

        Raises `PeerFault` for a record that does not hold.
        """
        kept, heard = 0, Heard()
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            kept = await self._names.put(record, heard)
        return kept, heard

    async def resolve(self, publisher: PeerId) -> Heard:
        """What others have of a publisher's IPNS records, each verified."""
        heard = Heard()
        with trio.move_on_after(self._limits.dht_wait_seconds_max):
            await self._names.get(publisher, heard)
        return heard

    def _note_addresses(self, peer: ID, addresses: Sequence[str]) -> None:
        """Only for peers nothing is known of: hearsay never replaces what a peer or a dial told us."""
        if addresses and not self._dialler.known_addresses(peer):
            ways = [parse_dial(address)[1] for address in addresses]
            self._host.get_peerstore().add_addrs(peer, ways, self._limits.address_ttl_seconds)

    def _check_key(self, key: bytes) -> None:
        if not 0 < len(key) <= self._limits.dht_key_bytes_max:
            raise ValueError(f"key of {len(key)} bytes")
