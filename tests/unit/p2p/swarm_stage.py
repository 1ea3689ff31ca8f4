"""A private swarm on paper: keys, and records signed with them. No clock: times are numbers."""

from typing import Any

from dimnode.p2p.admission import MemberBook
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId
from dimnode.records.kinds import compose, open_record

T0 = 1_790_000_000_000
DAY = 86_400_000
FOUNDER, ADMIN, ALBA, BERG, CIMA, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 7))


def signed(key: SigningKey, kind: str, common: dict[str, Any], body: dict[str, Any]) -> Record:
    """A record of this kind by this key."""
    _, payload = compose(kind, {**common, "by": key.peer}, body)
    return open_record(seal(key, kind, payload))


class Paper:
    """One swarm, and whatever is signed in its name, rightly or wrongly."""

    def __init__(self, name: str = "clinic", threshold: int = 1) -> None:
        admins = [FOUNDER.peer, ADMIN.peer]
        self.swarm = signed(FOUNDER, "swarm", {"at_ms": T0}, {"name": name, "admins": admins, "threshold": threshold})

    def book(self, *records: Record) -> MemberBook:
        """A book that has learned these."""
        made = MemberBook(self.swarm)
        made.learn(records)
        return made

    def invite(
        self, by: SigningKey = FOUNDER, *, number: int = 0, at: int = T0, days: int = 7, uses: int = 1, **more: Any
    ) -> tuple[Record, SigningKey]:
        """An invite and its key."""
        key = SigningKey.from_seed(bytes([100 + number]) * 32)
        body = {"key": key.peer, "expires_ms": at + days * DAY, "uses": uses, **more}
        return signed(by, "invite", {"net": self.swarm.id, "at_ms": at}, body), key

    def member(
        self, key: SigningKey, peer: PeerId, invite: Record | None = None, at: int = T0 + 1000, **more: Any
    ) -> Record:
        """A member record signed by an invite's key, or by an admin's."""
        body = {"peer": peer, "parents": [invite.id] if invite else [], **more}
        return signed(key, "member", {"net": self.swarm.id, "at_ms": at}, body)

    def removal(self, by: SigningKey, *, epoch: int = 1, at: int = T0 + DAY, **what: Any) -> Record:
        """A removal of a peer or an invite."""
        return signed(by, "removal", {"net": self.swarm.id, "at_ms": at}, {"epoch": epoch, **what})
