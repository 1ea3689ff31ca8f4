"""Our side of the DHT as a server: questions for peers, providers and IPNS records.

Stock takes a lock for each read, compares and attaches signed address records, hashes each peer of its table for each
question, and ends a stream with its first odd byte. Here a stream answers questions for as long as it is used; an idle
one costs a sleeping task.

Rule: what a peer may make us do is bounded: streams, bytes of a question, time of a question, announcements, and what
an answer holds.

Source: https://github.com/libp2p/specs/tree/master/kad-dht (RPC messages; announcements and records are echoed).
"""

import time
from collections import Counter
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStoreError
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.limits import HostLimits
from dimnode.p2p.blob_places import group_of
from dimnode.p2p.host.kad_messages import message, read_message
from dimnode.p2p.host.lookup import (
    ADD_PROVIDER,
    FIND_NODE,
    GET_PROVIDERS,
    GET_VALUE,
    PING,
    PUT_VALUE,
    distance,
)
from dimnode.p2p.host.name_shelf import NameShelf, OnName
from dimnode.p2p.host.names import with_record
from dimnode.p2p.host.provider_shelf import ProviderShelf
from dimnode.p2p.host.services import RateLimit
from dimnode.records.ipns import OVER, publisher_of

_PEER_KEY_BYTES: Final = range(2, 51)


class KadServing:
    """Answers the questions that come on streams. `kad` is libp2p's DHT, whose table is used."""

    def __init__(self, kad: Any, limits: HostLimits, shelf: NameShelf, on_name: OnName) -> None:
        self._kad = kad
        self._limits = limits
        self._shelf, self._on_name = shelf, on_name
        self._announced = ProviderShelf(limits)
        self._serving: Counter[ID] = Counter()
        self._announcements = RateLimit(
            limits.dht_announcements_per_second_max, limits.dht_announcements_burst_max, limits.dht_admitted_peers_max
        )

    def may_announce(self, peer: ID) -> bool:
        """Whether a peer may announce one more key now."""
        return self._announcements.allow(peer.to_bytes(), trio.current_time())

    async def serve(self, stream: Any) -> None:
        """Serve one stream; few at a time per peer, and each question within its time."""
        peer = stream.muxed_conn.peer_id
        if self._serving[peer] >= self._limits.dht_streams_per_peer_max:
            await stream.muxed_stream.reset()  # the muxed one: a full house is nobody's offence
            return
        self._serving[peer] += 1
        try:
            await self._kad.add_peer(peer, skip_server_mode_check=True)
            await self._questions(stream, peer)
        except MuxedStreamEOF:
            await stream.close()
        except (MuxedStreamError, MuxedConnError):
            await stream.muxed_stream.reset()
        except (DecodeError, ValueError):
            await stream.reset()  # the watched one: the peer sent what is no message
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def _questions(self, stream: Any, peer: ID) -> None:
        muxed = stream.muxed_stream
        remote = stream.muxed_conn.get_remote_address()
        group = group_of(str(remote[0]) if remote else "")  # all who come over relays are one group
        while True:
            with trio.move_on_after(self._limits.dht_idle_seconds_max) as waited:
                await muxed.peek(1)
            if waited.cancelled_caught:
                await stream.close()
                return
            with trio.move_on_after(self._limits.dht_wait_seconds_max) as waited:
                await stream.pace()
                raw = await read_message(muxed, self._limits.dht_answer_bytes_max)
                question = Message()
                question.ParseFromString(raw)
                answer = encode_varint_prefixed(self._answer(peer, question, group).SerializeToString())
                if not muxed.write_nowait(answer):
                    await muxed.write(answer)
            if waited.cancelled_caught:
                await muxed.reset()
                return

    def _answer(self, peer: ID, question: Message, group: str) -> Message:
        """Raises `ValueError` for a question that breaks the protocol, `MuxedStreamError` for one that is refused."""
        match question.type:
            case kind if kind == PING:
                return message(PING)
            case kind if kind == ADD_PROVIDER:
                return self._take_announcement(peer, question, group)
            case kind if kind == GET_PROVIDERS:
                return self._name_providers(peer, question.key)
            case kind if kind == GET_VALUE:
                return self._hand_out(peer, question.key)
            case kind if kind == PUT_VALUE:
                return self._take_record(peer, question)
            case kind if kind == FIND_NODE:
                return self._name_peers(peer, question.key)
        raise MuxedStreamError("a question of a later version")

    def _name_peers(self, peer: ID, key: bytes) -> Message:
        if len(key) not in _PEER_KEY_BYTES:
            raise ValueError("a key that is no peer id")
        closest, target = self.closest(key), ID(key)
        if target == self._kad.host.get_id() or self._addresses(target):
            closest = [target, *(each for each in closest if each != target)]  # the one who is looked for, always
        answer = message(FIND_NODE)
        self._name(answer.closerPeers, closest, peer)
        return answer

    def _name_providers(self, peer: ID, key: bytes) -> Message:
        if not 0 < len(key) <= self._limits.dht_key_bytes_max:
            raise ValueError("a key of another length")
        answer = message(GET_PROVIDERS, key)
        for found in self.providers(key):
            entry = answer.providerPeers.add()
            entry.id = found.peer_id.to_bytes()
            entry.addrs.extend(address.to_bytes() for address in found.addrs[: self._limits.dht_answer_addresses_max])
        self._name(answer.closerPeers, self.closest(key), peer)
        return answer

    def providers(self, key: bytes) -> list[PeerInfo]:
        """Who is known here to have a key: this node itself, and who announced it."""
        own: list[PeerInfo] = self._kad.provider_store.get_providers(key)
        return own + self._announced.get(key, trio.current_time())

    def _take_announcement(self, peer: ID, question: Message, group: str) -> Message:
        if not 0 < len(question.key) <= self._limits.dht_announced_key_bytes_max:
            raise ValueError("a key of another length")
        if not self.may_announce(peer):
            raise MuxedStreamError("too many announcements")
        for entry in question.providerPeers[: self._limits.dht_answer_peers_max]:
            if entry.id != peer.to_bytes():  # nobody announces for another one
                continue
            addresses = list(filter(None, map(_address, entry.addrs[: self._limits.dht_answer_addresses_max])))
            if addresses:
                self._announced.put(question.key, PeerInfo(peer, addresses), group, trio.current_time())
        return message(ADD_PROVIDER, question.key)

    def _hand_out(self, peer: ID, key: bytes) -> Message:
        if not 0 < len(key) <= self._limits.dht_key_bytes_max:
            raise ValueError("a key of another length")
        answer = message(GET_VALUE, key)
        try:
            kept = self._shelf.get(key, _now_ms())
        except PeerFault:  # another kind of value: there are none here
            kept = None
        if kept is not None:
            answer = with_record(GET_VALUE, key, *kept)
        self._name(answer.closerPeers, self.closest(key), peer)
        return answer

    def _take_record(self, peer: ID, question: Message) -> Message:
        """The echo of a record that is kept now, or the newer one that is here: its publisher learns of that."""
        key, raw, now_ms, teller = question.key, question.record.value, _now_ms(), peer.to_bytes()
        if not self.may_announce(peer):
            raise MuxedStreamError("too many records")
        try:
            publisher = publisher_of(key)
        except PeerFault:
            raise MuxedStreamError("a value of a kind that is not kept here") from None
        if question.record.key != key:
            raise ValueError("a record of another key")
        try:
            kept = self._shelf.put(key, raw, teller, now_ms)
        except PeerFault as fault:
            if fault.rule == OVER:  # clocks differ
                raise MuxedStreamError(fault.rule) from None
            raise ValueError(fault.rule) from None
        if kept == raw and teller == publisher:
            self._on_name(publisher, self._shelf.says(publisher))
        return with_record(PUT_VALUE, key, kept, now_ms)

    def closest(self, key: bytes) -> list[ID]:
        """The peers of the table that are closest to a key."""
        table = self._kad.routing_table.get_peer_ids()
        return sorted(table, key=lambda peer: distance(key, peer))[: self._limits.dht_answer_peers_max]

    def _name(self, entries: Any, peers: list[ID], asker: ID) -> None:
        """With addresses alone: signed records make answers five times as long, and a dial proves an address."""
        for peer in peers:
            if peer != asker:
                entry = entries.add()
                entry.id = peer.to_bytes()
                entry.addrs.extend(self._addresses(peer))

    def _addresses(self, peer: ID) -> list[bytes]:
        try:
            found = self._kad.host.get_peerstore().addrs(peer)
        except PeerStoreError:
            return []
        return [address.to_bytes() for address in found[: self._limits.dht_answer_addresses_max]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _address(packed: bytes) -> Multiaddr | None:
    """An address of a stranger, None when it is none."""
    try:
        return Multiaddr(packed)
    except Exception:  # noqa: BLE001 boundary: bytes of a stranger, parsed by a library
        return None
