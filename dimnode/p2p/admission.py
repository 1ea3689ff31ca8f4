"""Who may take part in a private swarm: the judge of membership chains.

A chain is swarm -> admin, or swarm -> admin -> invite -> member, or swarm -> admin -> member; every step is a signed
record, so it is judged offline. What cannot follow from signatures alone follows from what this book has seen: an
invite that is over lets nobody in who was not known before, and of those who used one invite the first `uses` count.

Rule: records come in opened, that is with their signatures and schemas checked; the book only grows, except that of
too many users of an invite the smallest (at_ms, id) stay, so the order of arrival does not matter.
Pure: no I/O, no clock (`now_ms` is an argument). Decisions: decisions/0004-private-swarms.md
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dimnode.errors import Refused
from dimnode.limits import LIMITS, SwarmLimits
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId, short
from dimnode.records.membership_kinds import MEMBERSHIP_KINDS

_KEY_TAG: Final = b"dim-hash-psk/1"
_ORDER: Final = {kind: turn for turn, kind in enumerate(MEMBERSHIP_KINDS)}


@dataclass(frozen=True, slots=True)
class Membership:
    """A peer that may take part at the moment. `expires_ms` 0 means: until it is removed."""

    peer: PeerId
    admin: bool
    expires_ms: int
    since_ms: int
    invite: RecordId | None = None


def key_hash(key: bytes) -> bytes:
    """How a removal names the pre-shared key that comes after it, without showing it."""
    return hashlib.sha256(_KEY_TAG + key).digest()


class MemberBook:
    """All that this node knows about the membership of one private swarm."""

    def __init__(self, swarm: Record, limits: SwarmLimits = LIMITS.swarm) -> None:
        """Raises `Refused` E-swarm-25 for a swarm whose admins want to decide together: not in this version."""
        if swarm.payload["threshold"] != 1:
            what = f"swarm {swarm.payload['name']!r} wants {swarm.payload['threshold']} admins to agree"
            raise Refused("E-swarm-25", what, "this version knows swarms in which one admin decides (threshold 1)")
        self.swarm = swarm
        self.net: RecordId = swarm.id
        self.founder: PeerId = swarm.by
        self.admins: frozenset[PeerId] = frozenset(map(PeerId, swarm.payload["admins"]))
        self.changes = 0
        self._limits = limits
        self._invites: dict[RecordId, Record] = {}
        self._members: dict[PeerId, dict[RecordId, Record]] = {}
        self._removals: dict[RecordId, Record] = {}
        self._out_ms: dict[PeerId, int] = {}
        self._closed_ms: dict[RecordId, int] = {}
        self._digest: tuple[int, bytes] = (-1, b"")

    # ---- what is known

    def judge(self, peer: PeerId, now_ms: int) -> Membership:
        """The peer's membership. Raises `Refused`: E-swarm-10 none, E-swarm-12 removed, E-swarm-13 expired."""
        if peer in self.admins and peer not in self._out_ms:
            return Membership(peer, True, 0, self.swarm.payload["at_ms"])
        no = self._no_member(peer)
        for record in sorted(self._members.get(peer, {}).values(), key=_age, reverse=True):
            invite = self._invites[RecordId(record.payload["parents"][0])] if record.payload["parents"] else None
            began_ms = (invite or record).payload["at_ms"]
            if began_ms <= self._out_ms.get(peer, -1):
                continue
            ends = [record.payload.get("expires_ms"), invite.payload.get("member_expires_ms") if invite else None]
            expires_ms = min((end for end in ends if end is not None), default=0)
            if not expires_ms or now_ms < expires_ms:
                return Membership(peer, False, expires_ms, record.payload["at_ms"], invite.id if invite else None)
            no = Refused("E-swarm-13", f"the membership of {_name(peer)} has expired", "", "ask an admin for an invite")
        raise no

    def _no_member(self, peer: PeerId) -> Refused:
        if peer in self._out_ms:
            return Refused(
                "E-swarm-12",
                f"{_name(peer)} was removed from {self.name!r}",
                "by an admin",
                "ask an admin for an invite",
            )
        return Refused(
            "E-swarm-10",
            f"{_name(peer)} is no member of {self.name!r}",
            "",
            "there: dim swarm join INVITATION; an admin makes one",
        )

    @property
    def name(self) -> str:
        """What the founder called the swarm."""
        return str(self.swarm.payload["name"])

    def members(self, now_ms: int) -> list[Membership]:
        """Everybody who may take part now, admins first."""
        found = []
        for peer in [*sorted(self.admins), *sorted(self._members.keys() - self.admins)]:
            try:
                found.append(self.judge(peer, now_ms))
            except Refused:
                continue
        return found

    def is_admin(self, peer: PeerId) -> bool:
        """Whether the peer may invite and remove now."""
        return peer in self.admins and peer not in self._out_ms

    def next_expiry_ms(self, now_ms: int) -> int | None:
        """When somebody's membership ends next by itself."""
        return min((found.expires_ms for found in self.members(now_ms) if found.expires_ms), default=None)

    def invites(self) -> list[Record]:
        """All known invites, oldest first."""
        return sorted(self._invites.values(), key=_age)

    def users_of(self, invite: RecordId) -> list[PeerId]:
        """Who joined with this invite, the first first."""
        return [PeerId(record.payload["peer"]) for record in self._joined_by(invite)]

    def removals(self) -> list[Record]:
        """All removals that count, oldest epoch first."""
        return sorted(self._removals.values(), key=_turn)

    def closes_ms(self, invite: Record) -> int:
        """When this invite stops letting strangers in: it expires, is withdrawn, or its admin is removed."""
        ends = (invite.payload["expires_ms"], self._closed_ms.get(invite.id), self._out_ms.get(invite.by))
        return min(end for end in ends if end is not None)

    def next_epoch(self) -> int:
        """The number of the next removal."""
        return max((record.payload["epoch"] for record in self._removals.values()), default=0) + 1

    def key_hashes(self) -> list[bytes]:
        """Hashes of the pre-shared keys that came after the first one; the last is the one in force."""
        keyed = [record for record in self._removals.values() if "key_hash" in record.payload]
        # Of two rotations at once the smaller id is in force: everybody must choose the same one.
        keyed.sort(key=lambda record: (record.payload["epoch"], bytes(255 - byte for byte in record.id)))
        return [record.payload["key_hash"] for record in keyed]

    def records(self) -> list[Record]:
        """Everything worth telling another member, in an order in which it can be learned."""
        members = [record for found in self._members.values() for record in found.values()]
        every = [*self._invites.values(), *members, *self._removals.values()]
        return sorted(every, key=lambda record: (_ORDER[record.kind], _turn(record)))

    def knows(self, identity: RecordId) -> bool:
        """Whether this record was taken in, so that its signature need not be checked again."""
        if identity in self._invites or identity in self._removals:
            return True
        return any(identity in mine for mine in self._members.values())

    def digest(self) -> bytes:
        """Equal for two books that know the same."""
        if self._digest[0] != self.changes:
            content = b"".join(sorted(record.id for record in self.records()))
            self._digest = (self.changes, hashlib.sha256(content).digest())
        return self._digest[1]

    # ---- what is heard

    def admit(self, peer: PeerId, chain: Sequence[Record], now_ms: int) -> Membership:
        """Judge a peer by the chain that it shows itself, and remember it.

        Raises `Refused`: as `judge`, and E-swarm-04 the invite has expired, E-swarm-06 its signer is no admin,
        E-swarm-11 the chain does not hold, E-swarm-14 the invite is used up, E-swarm-15 it was withdrawn,
        E-swarm-16 another swarm.
        """
        if self.is_admin(peer):
            return self.judge(peer, now_ms)
        if any(record.payload.get("net") != self.net for record in chain):
            raise Refused("E-swarm-16", f"{_name(peer)} belongs to another swarm", "", f"join {self.name!r} first")
        for record in chain:
            if record.kind == "member" and PeerId(record.payload["peer"]) == peer:
                if record.id not in self._members.get(peer, {}):
                    self._let_in(peer, record, [shown for shown in chain if shown.kind == "invite"], now_ms)
                break
        return self.judge(peer, now_ms)

    def _let_in(self, peer: PeerId, member: Record, shown: Sequence[Record], now_ms: int) -> None:
        """A member record that nobody told of before. Raises `Refused`."""
        if member.by in self.admins and not member.payload["parents"]:
            if not self.is_admin(member.by):
                raise Refused("E-swarm-06", f"{_name(member.by)}, who let {_name(peer)} in, is no admin any more")
            self._take_member(member)
            return
        invite = next((found for found in shown if [found.id] == member.payload["parents"]), None)
        if invite is None:
            raise Refused("E-swarm-11", f"the membership of {_name(peer)} does not hold", "its invite is missing")
        if self._out_ms.get(peer, -1) >= invite.payload["at_ms"]:
            raise self._no_member(peer)
        self.check_open(invite, now_ms)
        known = invite.id in self._invites
        if not known and not self._take_invite(invite):
            raise Refused("E-swarm-29", f"{self.name!r} has no room for one more invite")
        if not self._fits(member, invite):
            raise Refused("E-swarm-11", f"the membership of {_name(peer)} does not hold", "its invite says otherwise")
        if not self._take_member(member):
            raise self._used_up(invite)

    def check_open(self, invite: Record, now_ms: int) -> None:
        """Whether this invite still lets strangers in. Raises `Refused` (see `admit`)."""
        if invite.payload["net"] != self.net or invite.by not in self.admins:
            raise Refused(
                "E-swarm-06", f"the invite was signed by {_name(invite.by)}, who is no admin of {self.name!r}"
            )
        if now_ms < self.closes_ms(invite):
            return
        if now_ms >= invite.payload["expires_ms"]:
            hint = "ask an admin for another one; is the clock right on both machines?"
            raise Refused("E-swarm-04", f"the invite to {self.name!r} has expired", "", hint)
        raise Refused("E-swarm-15", f"the invite to {self.name!r} was withdrawn", "", "ask an admin for another one")

    def _used_up(self, invite: Record) -> Refused:
        uses = invite.payload["uses"]
        if len(self._joined_by(invite.id)) < uses:
            return Refused("E-swarm-29", f"{self.name!r} has no room for one more member")
        machines = f"{uses} machine" + ("s" if uses > 1 else "")
        return Refused(
            "E-swarm-14", "the invite is used up", f"it was made for {machines}", "ask an admin for another one"
        )

    def learn(self, records: Iterable[Record]) -> list[Record]:
        """Take in what an admitted member (or this node's own file) tells; returns what was new.

        Invites that are over may still explain members: a member vouches for what it saw in time. Records that do not
        hold, or that a later version may know, are passed over. Of removals the lower epoch is heard first.
        """
        known = [record for record in records if record.kind in _ORDER and record.payload["net"] == self.net]
        known.sort(key=lambda record: (_ORDER[record.kind], _turn(record)))
        return [record for record in known if self._take(record)]

    def _take(self, record: Record) -> bool:
        match record.kind:
            case "invite":
                return self._take_invite(record)
            case "member":
                return self._explained(record) and self._take_member(record)
            case _:
                return self._take_removal(record)

    def _explained(self, member: Record) -> bool:
        parents = member.payload["parents"]
        if not parents:
            return member.by in self.admins
        invite = self._invites.get(RecordId(parents[0]))
        return invite is not None and self._fits(member, invite)

    def _fits(self, member: Record, invite: Record) -> bool:
        """Signed by the invite's own key while the invite ran, by the word of the joiner's clock."""
        made, said = invite.payload, member.payload
        return bool(member.by == made["key"] and made["at_ms"] <= said["at_ms"] < made["expires_ms"])

    def _take_invite(self, invite: Record) -> bool:
        if invite.id in self._invites or invite.by not in self.admins:
            return False
        if len(self._invites) >= self._limits.invites_max:
            return False
        self._invites[invite.id] = invite
        self.changes += 1
        return True

    def _take_member(self, member: Record) -> bool:
        """Keep it unless there is no room: of one peer and invite the earliest, of one invite the first `uses`."""
        peer = PeerId(member.payload["peer"])
        mine = self._members.get(peer, {})
        if member.id in mine:
            return False
        if not member.payload["parents"]:
            if len(mine) >= self._limits.members_per_peer_max or not self._room(peer):
                return False
        else:
            invite = self._invites[RecordId(member.payload["parents"][0])]
            joined = self._joined_by(invite.id)
            before = next((record for record in joined if record.payload["peer"] == peer), None)
            if before is not None and _age(before) <= _age(member):
                return False
            full = before is None and len(joined) >= invite.payload["uses"]
            if full and _age(joined[-1]) <= _age(member):
                return False
            if not full and before is None and not self._room(peer):
                return False
            for loser in [found for found in (before, joined[-1] if full else None) if found is not None]:
                self._drop(loser)
        self._members.setdefault(peer, {})[member.id] = member
        self.changes += 1
        return True

    def _room(self, peer: PeerId) -> bool:
        return peer in self._members or len(self._members) < self._limits.members_max

    def _drop(self, member: Record) -> None:
        peer = PeerId(member.payload["peer"])
        del self._members[peer][member.id]
        if not self._members[peer]:
            del self._members[peer]

    def _joined_by(self, invite: RecordId) -> list[Record]:
        found = [
            record
            for records in self._members.values()
            for record in records.values()
            if record.payload["parents"] == [invite]
        ]
        return sorted(found, key=_age)

    def _take_removal(self, removal: Record) -> bool:
        try:
            self.check_removal(removal)
        except Refused:
            return False
        if removal.id in self._removals:
            return False
        self._removals[removal.id] = removal
        at_ms = removal.payload["at_ms"]
        if "peer" in removal.payload:
            peer = PeerId(removal.payload["peer"])
            self._out_ms[peer] = max(at_ms, self._out_ms.get(peer, 0))
        else:
            invite = RecordId(removal.payload["invite"])
            self._closed_ms[invite] = min(at_ms, self._closed_ms.get(invite, at_ms))
        self.changes += 1
        return True

    def check_removal(self, removal: Record) -> None:
        """Whether its signer may remove that. Raises `Refused` E-swarm-21, E-swarm-24, E-swarm-29."""
        said = removal.payload
        if not self.is_admin(removal.by):
            raise Refused("E-swarm-21", f"{_name(removal.by)} is no admin of {self.name!r}", "", "dim swarm show")
        if ("peer" in said) == ("invite" in said):
            raise Refused("E-swarm-11", "a removal names one peer or one invite")
        if said.get("peer") == self.founder and removal.by != self.founder:
            raise Refused("E-swarm-24", f"{_name(self.founder)} founded {self.name!r} and cannot be removed by others")
        if removal.id not in self._removals and len(self._removals) >= self._limits.removals_max:
            raise Refused(
                "E-swarm-29", f"{self.name!r} has {len(self._removals)} removals, the most", "", "found a new swarm"
            )


def _age(record: Record) -> tuple[int, bytes]:
    return record.payload["at_ms"], record.id


def _turn(record: Record) -> tuple[int, int, bytes]:
    return record.payload.get("epoch", 0), record.payload["at_ms"], record.id


def _name(peer: bytes) -> str:
    return f"…{short(peer)}"
