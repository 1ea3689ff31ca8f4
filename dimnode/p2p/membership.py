"""Who is in the swarm, as far as this node has heard: links, heartbeats, adverts, round trips.

Rule: a heartbeat counts only when it is newer than the last one of the same peer; three missed ones make a peer gone
unless a link to it stands. The advert is the only truth about what a peer offers. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from dimnode.limits import LIMITS, PeerLimits
from dimnode.records.ids import PeerId, RecordId

MISSED_MAX = 3
OVERDUE = 1.5  # intervals after which a peer may lose its place in a full list


@dataclass(slots=True)
class Member:
    """One peer."""

    peer: PeerId
    linked: bool = False
    rtt_ms: float | None = None
    advert_said: RecordId | None = None
    advert: RecordId | None = None
    agent: str = ""
    name: str = ""
    models: tuple[RecordId, ...] = ()
    cabinets: tuple[str, ...] = ()
    slots: int = 0
    free_slots: int = 0
    load_permille: int = 0
    sandbox: str = ""
    runtimes: tuple[str, ...] = ()
    extras: tuple[str, ...] | None = None
    devices: dict[str, str] = field(default_factory=dict)
    jobs_per_second: int = 0
    addresses: tuple[str, ...] = ()
    heartbeat_ms: int = 0
    heartbeat_ahead_ms: float | None = None
    heard_mono: float = 0.0
    asked_mono: float = -inf
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)


def heartbeat_seconds(members: int) -> float:
    """The interval for a swarm of this size: clamp(N/5 s, 1 s, 30 s), so that gossip stays within its budget."""
    return min(30.0, max(1.0, members / 5))


class Members:
    """All peers heard of; bounded: the longest unheard of without a link goes first, nobody for a mere heartbeat."""

    def __init__(self, me: PeerId, limits: PeerLimits = LIMITS.peers) -> None:
        self.me = me
        self._limits = limits
        self._members: dict[PeerId, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def get(self, peer: PeerId) -> Member | None:
        """The peer's entry, if there is one."""
        return self._members.get(peer)

    def claims(self, name: str) -> int:
        """How many peers call themselves so."""
        return sum(member.name == name for member in self._members.values())

    def entry(self, peer: PeerId) -> Member:
        """The peer's entry, made at first sight; in a full list it replaces the one unheard of for longest."""
        found = self._members.get(peer)
        if found is None:
            self._make_room(inf)
            found = self._members[peer] = Member(peer)
        return found

    def _make_room(self, heard_before: float) -> bool:
        """Whether one more fits: a full list loses an entry without a link that was last heard before this time.

        The list is in the order in which peers were heard, so that this is a look at its first entries.
        """
        if len(self._members) < self._limits.adverts_max:
            return True
        oldest = next((member for member in self._members.values() if not member.linked), None)
        if oldest is None or oldest.heard_mono >= heard_before:
            return False
        del self._members[oldest.peer]
        return True

    def heartbeat(self, peer: PeerId, advert: RecordId, at_ms: int, free_slots: int, load: int, mono: float) -> bool:
        """Take note of a heartbeat; False when it is a replay, older than what is known, or there is no room."""
        if peer == self.me:
            return False
        member = self._members.get(peer)
        if member is None:
            # Only who is overdue gives way: else, as soon as the swarm is larger than the list, each heartbeat would
            # push out the very peer whose turn is next, and a flood of made-up peers everybody.
            if not self._make_room(mono - OVERDUE * heartbeat_seconds(len(self._members) + 1)):
                return False
            member = Member(peer)
        elif at_ms <= member.heartbeat_ms:
            return False
        else:
            del self._members[peer]
        self._members[peer] = member  # the last in the order of hearing
        member.heartbeat_ms, member.heard_mono = at_ms, mono
        member.advert_said, member.free_slots, member.load_permille = advert, free_slots, load
        return True

    def wants_advert(self, peer: PeerId) -> bool:
        """The peer said an advert id that this node has not read yet."""
        member = self._members.get(peer)
        return member is not None and member.linked and (member.advert is None or member.advert != member.advert_said)

    def alive(self, mono: float) -> list[Member]:
        """Linked peers, and those whose last heartbeat is not older than three intervals."""
        oldest = mono - MISSED_MAX * heartbeat_seconds(len(self._members) + 1)
        return [member for member in self._members.values() if member.linked or member.heard_mono > oldest]

    def unheard(self, linked_since: Mapping[PeerId, float], mono: float) -> list[Member]:
        """Peers that were linked for the time of six heartbeats and of whom none came in it: gossip is not well."""
        oldest = mono - 2 * MISSED_MAX * heartbeat_seconds(len(self._members) + 1)
        members = (self._members.get(peer) for peer, since in linked_since.items() if since < oldest)
        return [member for member in members if member is not None and member.heard_mono < oldest]

    def forget_silent(self, mono: float) -> None:
        """Drop who is neither linked nor heard: no ghosts."""
        alive = {member.peer for member in self.alive(mono)}
        for peer in [peer for peer in self._members if peer not in alive]:
            del self._members[peer]
