"""IPNS records in the DHT: a publisher puts its own to the peers closest to its key, anybody gets it from them.

Rule: whatever comes is verified by the publisher's own signature before it counts, and of several the newest counts. A
lying answer costs a question; one that holds back a newer record can do so for no longer than the older one is valid.

Source: https://github.com/libp2p/specs/tree/master/kad-dht (PUT_VALUE, GET_VALUE; a put is echoed).
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID

from dimnode.errors import PeerFault
from dimnode.limits import HostLimits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.kad_messages import message
from dimnode.p2p.host.lookup import GET_VALUE, PUT_VALUE, Lookup
from dimnode.p2p.host.name_shelf import NameShelf
from dimnode.p2p.host.yamux_budget import Offend
from dimnode.records.ids import PeerId
from dimnode.records.ipns import Name, read_name, routing_key, time_text

LOOKED_UP: Final = b"looked up"
"""Whose share of the shelf it is that we looked up. Not our own: that holds our own record, which stays."""


@dataclass(slots=True)
class Heard:
    """What the DHT said of one publisher: its newest record that is valid, and the newest that is over."""

    name: Name | None = None
    raw: bytes = b""
    over: Name | None = None
    tellers: dict[PeerId, None] = field(default_factory=dict)
    """Peers that had the record that counts."""


def with_record(kind: Any, key: bytes, raw: bytes, taken_ms: int) -> Message:
    """A message that carries a record, as the specification has it."""
    made = message(kind, key)
    made.record.key, made.record.value = key, raw
    made.record.timeReceived = time_text(taken_ms).decode()
    return made


class Names:
    """Puts and gets of one host."""

    def __init__(self, own: ID, lookup: Lookup, shelf: NameShelf, offend: Offend, limits: HostLimits) -> None:
        self._own, self._lookup, self._offend, self._limits = own, lookup, offend, limits
        self._shelf = shelf

    async def put(self, raw: bytes, heard: Heard) -> int:
        """Bring our own record to the peers closest to our key; how many keep it now.

        Each is asked for it first: `heard` then has a newer one that we forgot we had signed. Who answers with its
        signed address record has libp2p's own server of values (a node of the last version, too): it would take this
        key for an offence, and is not told. The caller sets a deadline. Raises `PeerFault` for a record that does not
        hold.
        """
        publisher = PeerId(self._own.to_bytes())
        key = routing_key(publisher)
        self._shelf.put(key, raw, publisher, _now_ms())
        put = with_record(PUT_VALUE, key, raw, _now_ms())

        async def tell(peer: ID) -> bool:
            there = await self._lookup.ask(peer, GET_VALUE, key)
            if there is None or there.senderRecord:
                return False
            self._take(heard, publisher, peer, there.record.value)
            if there.record.value == raw:
                return True
            answer = await self._lookup.exchange(peer, (put,), PUT_VALUE)
            return answer is not None and answer.record.value == raw

        walk = await self._lookup.walk(key, self._limits.dht_tellers_min)
        return await self._lookup.spread(walk, self._limits.dht_keepers_max, tell)

    async def get(self, publisher: PeerId, heard: Heard) -> None:
        """Ask for a publisher's record: the publisher itself if it is connected, else whoever is close to its key.

        What was heard until a cancel counts.
        """
        key = routing_key(publisher)
        if (kept := self._shelf.get(key, _now_ms())) is not None:
            self._take(heard, publisher, self._own, kept[0])
        answer = await self._lookup.ask(ID(publisher), GET_VALUE, key)
        known = answer is not None and self._take(heard, publisher, ID(publisher), answer.record.value)
        if not known:
            few = self._limits.dht_tellers_min

            def take(peer: ID, answer: Message) -> bool:
                self._take(heard, publisher, peer, answer.record.value)
                return len(heard.tellers) >= few

            await self._lookup.walk(key, self._limits.dht_keepers_max, GET_VALUE, take, few)
        if heard.raw:  # from now on we have it for others, unless it is too long for that
            with suppress(PeerFault):
                self._shelf.put(key, heard.raw, LOOKED_UP, _now_ms())

    def _take(self, heard: Heard, publisher: PeerId, teller: ID, raw: bytes) -> bool:
        """Whether this is a valid record. It counts when it is the newest; who sends what does not hold, offends."""
        if not raw:
            return False
        try:
            name = read_name(raw, publisher)
        except PeerFault:
            self._offend(teller.to_bytes(), Offence.DHT)
            return False
        if name.valid_until_ms <= _now_ms():  # clocks differ: it is no offence
            heard.over = max(heard.over or name, name, key=_age)
            return False
        if heard.name is None or name.age_key > heard.name.age_key:
            heard.name, heard.raw = name, raw
            heard.tellers.clear()
        if raw == heard.raw:
            heard.tellers[PeerId(teller.to_bytes())] = None
        return True


def _age(name: Name) -> tuple[int, int]:
    return name.age_key


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
