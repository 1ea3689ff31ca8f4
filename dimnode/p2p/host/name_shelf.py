"""The values that this node keeps for others in the DHT: IPNS records, and nothing else.

Rule: a record is taken only when its publisher's signature holds, it is not over and nothing newer lies here; it goes
when it is over, or after an hour. Whoever puts many displaces only what it put itself. That a record lies here says
nothing: whoever gets it verifies it again.
Pure: no I/O, no clock.

Source: specs.ipfs.tech/ipns/ipns-record (which record counts), libp2p/specs kad-dht (value validation).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dimnode.errors import PeerFault
from dimnode.limits import HostLimits
from dimnode.records.ids import PeerId
from dimnode.records.ipns import Name, open_name, publisher_of

OnName = Callable[[PeerId, Name], None]
"""A publisher itself brought its record here, maybe the same again. Must not block or raise."""


@dataclass(slots=True)
class _Kept:
    """One record, and whose share of the shelf it takes."""

    name: Name
    raw: bytes
    taken_ms: int
    ends_ms: int
    teller: bytes


class NameShelf:
    """At most one record for each publisher."""

    def __init__(self, limits: HostLimits) -> None:
        self._limits = limits
        self._kept: dict[PeerId, _Kept] = {}
        self._told: dict[bytes, OrderedDict[PeerId, None]] = {}

    def put(self, key: bytes, raw: bytes, teller: bytes, now_ms: int) -> bytes:
        """Take a record that `teller` brought; what lies here afterwards: this one, or one that counts more.

        Of two that count the same its publisher's own spelling stays: strangers can write more around what is signed.
        Raises `PeerFault`: another key than a publisher's, too long, or as `open_name`.
        """
        publisher = publisher_of(key)
        there = self._fresh(publisher, now_ms)
        if there is not None and there.raw == raw:  # mostly the same again: no signature is checked for it
            if teller == publisher:
                self._count(publisher, there, teller)
                self._make_room(teller)
            return raw
        if len(raw) > self._limits.dht_value_bytes_max:
            raise PeerFault("ipns: size")
        name = open_name(raw, publisher, now_ms)
        if there is not None and name.age_key <= there.name.age_key:
            own_spelling = name == there.name and teller == publisher
            if not own_spelling:
                return there.raw
        ends_ms = min(name.valid_until_ms, now_ms + int(self._limits.dht_value_kept_seconds * 1000))
        self._forget(publisher)
        self._kept[publisher] = kept = _Kept(name, raw, now_ms, ends_ms, teller)
        self._count(publisher, kept, teller)
        self._make_room(teller)
        return raw

    def get(self, key: bytes, now_ms: int) -> tuple[bytes, int] | None:
        """The record under a key and when it came, unless it is over. Raises `PeerFault` as `publisher_of`."""
        kept = self._fresh(publisher_of(key), now_ms)
        return None if kept is None else (kept.raw, kept.taken_ms)

    def says(self, publisher: PeerId) -> Name:
        """What the record that was just taken says."""
        return self._kept[publisher].name

    def _fresh(self, publisher: PeerId, now_ms: int) -> _Kept | None:
        kept = self._kept.get(publisher)
        if kept is not None and kept.ends_ms <= now_ms:
            self._forget(publisher)
            return None
        return kept

    def _count(self, publisher: PeerId, kept: _Kept, teller: bytes) -> None:
        self._discount(publisher, kept)
        kept.teller = teller
        self._told.setdefault(teller, OrderedDict())[publisher] = None

    def _discount(self, publisher: PeerId, kept: _Kept) -> None:
        told = self._told.get(kept.teller)
        if told is not None:
            told.pop(publisher, None)
            if not told:
                del self._told[kept.teller]

    def _make_room(self, teller: bytes) -> None:
        if len(self._told[teller]) > self._limits.dht_values_per_peer_max:
            self._forget(next(iter(self._told[teller])))
        if len(self._kept) > self._limits.dht_values_max:
            most = max(self._told.values(), key=len)  # of equals the one that was first here
            self._forget(next(iter(most)))

    def _forget(self, publisher: PeerId) -> None:
        kept = self._kept.pop(publisher, None)
        if kept is not None:
            self._discount(publisher, kept)
