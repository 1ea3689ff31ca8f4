"""This node's private swarm: found it, invite, join, remove, leave. Nothing here needs a running node or a network.

Rule: every act is a signed record that is taken into the book first and written to the home before anybody hears of it;
what may not be done is a `Refused` with the next command to type.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.p2p.admission import MemberBook, Membership, key_hash
from dimnode.p2p.invitation import KEY_BYTES, read_invitation, write_invitation
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId, RecordId, cid_text, peer_bytes, peer_text, short
from dimnode.records.kinds import ADDRESS_CHARACTERS_MAX, OPEN_SWARM_ID, compose, open_record
from dimnode.records.membership_kinds import OPEN_SWARM_NAME, USES_MAX
from dimnode.store.swarm_state import SwarmState, load_state, save_state

NAME_CHARACTERS_MAX = 64
_ASK_ADMIN: Final = "dim swarm show lists the admins in full: ask one of them"


@dataclass(frozen=True, slots=True)
class InviteWish:
    """What an admin asks for."""

    expires_ms: int
    """From now on; how long the invite lets somebody in."""
    uses: int = 1
    member_ms: int = 0
    """From now on; how long those who join stay members. 0: until they are removed."""
    label: str = ""
    addresses: tuple[str, ...] = ()


class PrivateSwarm:
    """The swarm of one home, with this node's key."""

    def __init__(self, home: Path, key: SigningKey, state: SwarmState) -> None:
        """Raises `ConfigError` or `Refused` when the state cannot be used."""
        self.home, self.key, self.me = home, key, key.peer
        try:
            self.book = MemberBook(open_record(state.swarm, kind="swarm"))
            own = [open_record(envelope) for envelope in state.chain]
            self.book.learn([*own, *(open_record(envelope) for envelope in state.records)])
        except PeerFault as fault:
            what = f"the swarm's state in {home} is damaged"
            raise Refused("E-swarm-28", what, fault.rule, "restore a backup, or dim swarm leave") from None
        self.state = state

    # ---- begin and end

    @staticmethod
    def load(home: Path, key: SigningKey) -> "PrivateSwarm | None":
        """The home's swarm; None for the open one."""
        state = load_state(home)
        return None if state is None else PrivateSwarm(home, key, state)

    @staticmethod
    def found(
        home: Path, key: SigningKey, name: str, now_ms: int, admins: Sequence[PeerId] = (), psk: bool = False
    ) -> "PrivateSwarm":
        """Sign a new swarm whose first admin is this node; `save` makes it this home's. Raises `Refused` E-swarm-27."""
        if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name == OPEN_SWARM_NAME:
            what = f"a swarm cannot be named {name!r}"
            raise Refused(
                "E-swarm-27", what, f"1 to {NAME_CHARACTERS_MAX} printable characters, and not {OPEN_SWARM_NAME!r}"
            )
        chosen = list(dict.fromkeys([key.peer, *admins]))
        if len(chosen) > (most := LIMITS.swarm.admins_max):
            raise Refused("E-swarm-27", f"{len(chosen)} admins are too many", f"{most} are the most")
        envelope = _sealed(key, "swarm", {"at_ms": now_ms}, {"name": name, "admins": chosen, "threshold": 1})
        swarm = PrivateSwarm(home, key, SwarmState(envelope))
        if psk:
            swarm.state.keys = [(os.urandom(KEY_BYTES), 0)]
        return swarm

    @staticmethod
    def join(home: Path, key: SigningKey, text: str, now_ms: int) -> "PrivateSwarm":
        """Use an invitation, with nobody online; `save` makes it this home's.

        One whose invite was refused is replaced by another, with all that was derived from it. Raises `Refused` as
        `read_invitation`, E-swarm-07, E-swarm-08, and as it was refused for the very invite that was.
        """
        found = read_invitation(text, now_ms)
        before = PrivateSwarm.load(home, key)
        if before is not None and before.book.net != found.swarm.id:
            what = f"this node is in the swarm {before.book.name!r} already"
            raise Refused("E-swarm-08", what, "a node is in one swarm", "dim swarm leave, or give another --home")
        swarm = before or PrivateSwarm(home, key, SwarmState(found.swarm.envelope))
        if before is not None and before.state.refused:
            if found.invite.envelope in before.state.chain:  # it would be refused as it was
                before.judge_me(now_ms)
            old = before.state
            swarm = PrivateSwarm(home, key, SwarmState(old.swarm, [], [], old.addresses, old.keys))
        news = swarm._take_from(found.addresses, found.key, now_ms)
        if swarm._is_member(now_ms):
            if not news:
                what = f"this node is a member of {swarm.book.name!r} already"
                raise Refused("E-swarm-07", what, "", "dim up; the invitation stays good for another machine")
        else:
            swarm._become_member(found.invite, found.seed, now_ms)
        return swarm

    def _take_from(self, addresses: Sequence[str], key: bytes | None, now_ms: int) -> bool:
        """Addresses to knock at, and a key that was rotated while this node was away. Whether the key was news."""
        kept = list(dict.fromkeys([*addresses, *self.state.addresses]))
        self.state.addresses = kept[: 2 * LIMITS.swarm.invite_addresses_max]
        if key is None or any(key == mine for mine, _ in self.state.keys):
            return False
        self.state.keys = _in_force(key, self.state.keys, now_ms)
        return True

    def judge_me(self, now_ms: int) -> Membership:
        """This node's own membership. Raises `Refused` as the book does, or as a member refused the node's invite."""
        found = self.book.judge(self.me, now_ms)
        if self.state.refused and not found.admin:
            code, _, words = self.state.refused.partition(": ")
            hint = "ask an admin for another invite; then dim stop, and dim swarm join INVITATION"
            raise Refused(code, f"{self.book.name!r} did not take this node in: {words}", "", hint)
        return found

    def _is_member(self, now_ms: int) -> bool:
        try:
            self.judge_me(now_ms)
        except Refused:
            return False
        return True

    def _become_member(self, invite: Record, seed: bytes, now_ms: int) -> None:
        at_ms = max(now_ms, invite.payload["at_ms"])  # a clock that is a little slow would otherwise be too early
        common = {"net": self.book.net, "at_ms": at_ms}
        body = {"peer": self.me, "parents": [invite.id]}
        envelope = _sealed(SigningKey.from_seed(seed), "member", common, body)
        self.book.admit(self.me, [invite, open_record(envelope)], now_ms)
        self.state.chain = [invite.envelope, envelope]

    def save(self) -> None:
        """Write everything to the home; returns when it is on the disk."""
        save_state(self.home, self.snapshot())

    def snapshot(self) -> SwarmState:
        """What is to be written, as of now: it may be written by another thread."""
        self.state.records = [record.envelope for record in self.book.records()]
        state = self.state
        return SwarmState(state.swarm, [*state.chain], state.records, [*state.addresses], [*state.keys], state.refused)

    # ---- what an admin does

    def _admin(self) -> None:
        if not self.book.is_admin(self.me):
            admins = ", ".join(f"…{short(peer)}" for peer in sorted(self.book.admins) if self.book.is_admin(peer))
            raise Refused(
                "E-swarm-21", f"this node is no admin of {self.book.name!r}", f"admins: {admins or 'none'}", _ASK_ADMIN
            )

    def invite(self, wish: InviteWish, now_ms: int) -> tuple[Record, str]:
        """A fresh invite: its record and the string to hand over. Raises `Refused` E-swarm-21, -23, -27, -29."""
        self._admin()
        limits = LIMITS.swarm
        lasts = 0 < wish.expires_ms <= limits.invite_ms_max and 0 <= wish.member_ms <= limits.member_ms_max
        if not lasts or not 0 < wish.uses <= USES_MAX:
            days = limits.invite_ms_max // 86_400_000
            cause = f"an invite lasts up to {days} days and is for 1 to {USES_MAX} machines"
            raise Refused("E-swarm-27", "such an invite cannot be made", cause, "--expires 7d --uses 3")
        addresses = [address for address in wish.addresses if len(address) <= ADDRESS_CHARACTERS_MAX]
        if not addresses:
            raise Refused(
                "E-swarm-23",
                "the invite would name no address to join through",
                f"one has at most {ADDRESS_CHARACTERS_MAX} characters" if wish.addresses else "",
                "dim up first, or --address /ip4/…/tcp/…/p2p/PEER",
            )
        if len(self.book.invites()) >= limits.invites_max:
            raise Refused("E-swarm-29", f"{self.book.name!r} has {limits.invites_max} invites, the most")
        seed = os.urandom(KEY_BYTES)
        body: dict[str, Any] = {"key": SigningKey.from_seed(seed).peer, "uses": wish.uses}
        body["expires_ms"] = now_ms + wish.expires_ms
        if wish.member_ms:
            body["member_expires_ms"] = now_ms + wish.member_ms
        if wish.label:
            body["label"] = wish.label[:64]
        record = self._sign("invite", body, now_ms)
        self.book.learn([record])
        key = self.state.keys[0][0] if self.state.keys else None
        told = addresses[: limits.invite_addresses_max]
        return record, write_invitation(self.state.swarm, record.envelope, seed, told, key)

    def remove(self, target: PeerId | RecordId, now_ms: int, reason: str = "") -> list[Record]:
        """Remove a member, or withdraw an invite; the new records. Raises `Refused` E-swarm-12, -21, -24, -29.

        The invite of a removed member is withdrawn too, or it could come back with another key. With a pre-shared key a
        new one is made: those who stay get it over connections that were admitted.
        """
        self._admin()
        if target == self.me:
            raise Refused("E-swarm-24", "an admin does not remove itself", "", "dim swarm leave")
        said = {"reason": reason[:256]} if reason else {}
        if len(target) == len(self.me):
            peer = PeerId(target)
            membership = self.book.judge(peer, now_ms)
            body: dict[str, Any] = {"peer": peer, **said}
            fresh = os.urandom(KEY_BYTES) if self.state.keys else None
            if fresh is not None:
                body["key_hash"] = key_hash(fresh)
            made = [self._remove_one(body, now_ms)]
            if fresh is not None:
                self.take_keys([fresh], now_ms)
            invite = self._invite(membership.invite)
            if invite is not None and now_ms < self.book.closes_ms(invite):
                made.append(self._remove_one({"invite": invite.id}, now_ms))
            return made
        return [self._remove_one({"invite": target, **said}, now_ms)]

    def _remove_one(self, body: dict[str, Any], now_ms: int) -> Record:
        record = self._sign("removal", {"epoch": self.book.next_epoch(), **body}, now_ms)
        self.book.check_removal(record)
        self.book.learn([record])
        return record

    def _sign(self, kind: str, body: dict[str, Any], now_ms: int) -> Record:
        return open_record(_sealed(self.key, kind, {"net": self.book.net, "at_ms": now_ms}, body), kind=kind)

    def _invite(self, identity: RecordId | None) -> Record | None:
        return next((record for record in self.book.invites() if record.id == identity), None)

    def find(self, name: str, now_ms: int, named: Callable[[str], Sequence[PeerId]] = lambda _: ()) -> Any:
        """A member or an invite by its id, the last letters of it, or a name from an advert. Raises `Refused` -26."""
        members = [found.peer for found in self.book.members(now_ms)]
        try:
            whole = [peer_bytes(name)]
        except PeerFault:
            whole = []
        claims = [peer for peer in named(name) if peer in members]
        ends = [peer for peer in members if len(name) > 3 and peer_text(peer).endswith(name.removeprefix("…"))]
        last = name.removeprefix("…").lower()
        invites = [record.id for record in self.book.invites() if len(last) > 3 and cid_text(record.id).endswith(last)]
        found = list(dict.fromkeys([*whole, *claims, *ends, *invites]))
        if len(found) == 1:
            return found[0]
        what = "no member or invite is" if not found else f"{len(found)} members or invites are"
        raise Refused("E-swarm-26", f"{what} called {name!r}", "", "dim swarm members, dim swarm show: give the id")

    # ---- pre-shared keys

    def keys(self, now_ms: int) -> list[bytes]:
        """The keys that are valid now, the newest first; none for a swarm without."""
        return [key for key, until_ms in self.state.keys if not until_ms or now_ms < until_ms]

    def take_keys(self, told: Sequence[bytes], now_ms: int) -> bool:
        """Keys that another member handed on: only those that a removal names count. Whether there was a new one."""
        turns = {digest: turn for turn, digest in enumerate(self.book.key_hashes(), 1)}
        mine = {key for key, _ in self.state.keys}
        fresh = [key for key in dict.fromkeys(told) if key not in mine and key_hash(key) in turns]
        if not fresh or not self.state.keys:
            return False
        every = [*((key, 0) for key in fresh), *self.state.keys]
        every.sort(key=lambda pair: turns.get(key_hash(pair[0]), 0), reverse=True)
        self.state.keys = _in_force(every[0][0], every[1:], now_ms)
        return True

    # ---- what people see

    def describe(self, now_ms: int) -> dict[str, Any]:
        """The swarm in words and numbers, for `dim swarm show`."""
        try:
            mine: Membership | None = self.judge_me(now_ms)
            standing = "admin" if mine is not None and mine.admin else "member"
        except Refused as refused:
            mine, standing = None, f"{refused.complaint.code}: {refused.complaint.what}"
        return {
            "swarm": self.book.name,
            "net": cid_text(self.book.net),
            "founder": peer_text(self.book.founder),
            "admins": [peer_text(peer) for peer in sorted(self.book.admins) if self.book.is_admin(peer)],
            "me": peer_text(self.me),
            "standing": standing,
            "expires_ms": mine.expires_ms if mine else 0,
            "members": len(self.book.members(now_ms)),
            "pre_shared_keys": len(self.keys(now_ms)),
            "addresses": list(self.state.addresses),
            "invites": [self._described_invite(record, now_ms) for record in self.book.invites()],
            "removed": [_described_removal(record) for record in self.book.removals()],
        }

    def _described_invite(self, record: Record, now_ms: int) -> dict[str, Any]:
        said, used = record.payload, len(self.book.users_of(record.id))
        closes_ms = self.book.closes_ms(record)
        state = "expired" if now_ms >= said["expires_ms"] else "withdrawn" if now_ms >= closes_ms else "open"
        return {
            "invite": cid_text(record.id),
            "by": peer_text(record.by),
            "label": said.get("label", ""),
            "state": "used up" if state == "open" and used >= said["uses"] else state,
            "expires_ms": said["expires_ms"],
            "uses": said["uses"],
            "used": used,
        }

    def member_rows(self, now_ms: int) -> list[dict[str, Any]]:
        """One map per member, for `dim swarm members`."""
        return [
            {
                "peer": peer_text(found.peer),
                "role": "founder" if found.peer == self.book.founder else "admin" if found.admin else "member",
                "me": found.peer == self.me,
                "since_ms": found.since_ms,
                "expires_ms": found.expires_ms,
                "invite": cid_text(found.invite) if found.invite else "",
            }
            for found in self.book.members(now_ms)
        ]


def open_swarm(me: PeerId | None) -> dict[str, Any]:
    """What there is to say of a node in the open swarm; without an id, of one that was never started."""
    return {
        "swarm": OPEN_SWARM_NAME,
        "net": cid_text(OPEN_SWARM_ID),
        "me": peer_text(me) if me is not None else None,
        "standing": "everybody is welcome",
    }


def invite_answer(record: Record, text: str, addresses: tuple[str, ...], swarm: str) -> dict[str, Any]:
    """What came of `dim swarm invite`."""
    return {
        "invitation": text,
        "invite": cid_text(record.id),
        "swarm": swarm,
        "expires_ms": record.payload["expires_ms"],
        "uses": record.payload["uses"],
        "addresses": list(addresses),
    }


def removed_answer(made: Sequence[Record], has_keys: bool) -> dict[str, Any]:
    """What came of `dim swarm remove`."""
    peers = [peer_text(record.payload["peer"]) for record in made if "peer" in record.payload]
    invites = [cid_text(record.payload["invite"]) for record in made if "invite" in record.payload]
    return {"peers": peers, "invites": invites, "key_rotated": bool(peers) and has_keys}


def _described_removal(record: Record) -> dict[str, Any]:
    said = record.payload
    what = peer_text(said["peer"]) if "peer" in said else cid_text(said["invite"])
    found = {"what": "peer" if "peer" in said else "invite", "id": what, "by": peer_text(record.by)}
    return {**found, "epoch": said["epoch"], "at_ms": said["at_ms"], "reason": said.get("reason", "")}


def _in_force(key: bytes, older: Sequence[tuple[bytes, int]], now_ms: int) -> list[tuple[bytes, int]]:
    """This key from now on; older ones are accepted for the stated overlap, so that nobody is locked out at once."""
    until_ms = now_ms + LIMITS.swarm.key_overlap_ms
    return [(key, 0), *((old, until or until_ms) for old, until in older)][: LIMITS.swarm.keys_max]


def _sealed(key: SigningKey, kind: str, common: dict[str, Any], body: dict[str, Any]) -> bytes:
    _, payload = compose(kind, {**common, "by": key.peer}, body)
    return seal(key, kind, payload)
