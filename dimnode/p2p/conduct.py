"""How peers behave towards us: offences are counted, forgotten with time, and answered.

Each offence has a weight (`ConductLimits`). A peer's points halve every minute; above one threshold what it gossips
is not listened to, above the next its connections are closed, above the last it is refused for a stated time, which
doubles at each relapse. Honest mistakes (a lost race, an older version, one malformed frame) weigh too little for that.

Rule: points belong to who did it, as Noise proved it: never to the author of what a peer merely handed on.
Pure: no I/O, no clock.

Source: decaying penalties are gossipsub's idea (https://github.com/libp2p/specs, pubsub/gossipsub v1.1, P4 to P7).
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Final

from dimnode.limits import LIMITS, ConductLimits


class Offence(StrEnum):
    """What a peer can do wrong; each has a code in docs/errors.md. The value names its counter and its weight."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    HANDLER = "handler"
    SLOW = "slow"
    FORGED = "forged"
    INVALID = "invalid"
    REPLAYED = "replayed"
    GOSSIP_FLOOD = "gossip_flood"
    LOW_SCORE = "low_score"
    MUXER = "muxer"
    WINDOW = "window"
    STREAM_FLOOD = "stream_flood"
    UNREAD = "unread"
    HALF_OPEN = "half_open"
    CROWDING = "crowding"
    DHT = "dht"
    BLOB = "blob"


CODES: Final[dict[Offence, str]] = {
    Offence.MALFORMED: "E-p2p-31",
    Offence.OVERSIZE: "E-p2p-32",
    Offence.HANDLER: "E-p2p-33",
    Offence.SLOW: "E-p2p-34",
    Offence.FORGED: "E-p2p-35",
    Offence.INVALID: "E-p2p-36",
    Offence.REPLAYED: "E-p2p-37",
    Offence.GOSSIP_FLOOD: "E-p2p-38",
    Offence.LOW_SCORE: "E-p2p-39",
    Offence.MUXER: "E-p2p-40",
    Offence.WINDOW: "E-p2p-41",
    Offence.STREAM_FLOOD: "E-p2p-42",
    Offence.UNREAD: "E-p2p-43",
    Offence.HALF_OPEN: "E-p2p-44",
    Offence.CROWDING: "E-p2p-45",
    Offence.DHT: "E-p2p-46",
    Offence.BLOB: "E-p2p-60",
}
BANNED_CODE: Final = "E-p2p-30"


class Verdict(IntEnum):
    """What becomes of a peer; a greater one includes the smaller ones."""

    FINE = 0
    MUTED = 1
    DISCONNECT = 2
    BANNED = 3


class Judgement(Enum):
    """What is done with a gossiped message. IGNORE: it may have been in order for whoever sent it on."""

    ACCEPT = "accepted"
    IGNORE = "ignored"
    REPLAYED = "replayed"
    INVALID = "invalid"
    FORGED = "forged"


@dataclass(slots=True)
class _Account:
    points: float = 0.0
    at_seconds: float = 0.0
    banned_until: float = 0.0
    bans: int = 0


@dataclass(frozen=True, slots=True)
class Ban:
    """A peer that is refused, and for how much longer."""

    peer: bytes
    seconds_left: float


class Conduct:
    """The ledger of one node. Bounded: the peer that offended least recently is forgotten first."""

    def __init__(self, limits: ConductLimits = LIMITS.conduct) -> None:
        self._limits = limits
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        self.counts: Counter[Offence] = Counter()
        self.bans = 0

    def offend(self, peer: bytes, offence: Offence, now_seconds: float) -> Verdict:
        """Write down one offence of `peer` and return what is to become of it."""
        self.counts[offence] += 1
        account = self._accounts.pop(peer, None) or _Account(at_seconds=now_seconds)
        self._accounts[peer] = account
        if len(self._accounts) > self._limits.peers_max:
            self._accounts.popitem(last=False)
        account.points = self._decayed(account, now_seconds) + self._limits.weight(offence.value)
        account.at_seconds = now_seconds
        if account.points >= self._limits.ban_points and now_seconds >= account.banned_until:
            self._ban(account, now_seconds)
        return self._verdict(account, now_seconds)

    def _ban(self, account: _Account, now_seconds: float) -> None:
        if now_seconds - account.banned_until > self._limits.ban_seconds_max:
            account.bans = 0  # the last ban is long over
        seconds = min(self._limits.ban_seconds * 2.0 ** min(account.bans, 30), self._limits.ban_seconds_max)
        account.banned_until = now_seconds + seconds
        account.bans += 1
        account.points = 0.0  # when it comes back it starts anew, except for the length of the next ban
        self.bans += 1

    def _decayed(self, account: _Account, now_seconds: float) -> float:
        age_seconds = max(0.0, now_seconds - account.at_seconds)
        return account.points * float(0.5 ** min(age_seconds / self._limits.half_life_seconds, 1000.0))

    def _verdict(self, account: _Account, now_seconds: float) -> Verdict:
        if now_seconds < account.banned_until:
            return Verdict.BANNED
        points = self._decayed(account, now_seconds)
        if points >= self._limits.disconnect_points:
            return Verdict.DISCONNECT
        return Verdict.MUTED if points >= self._limits.mute_points else Verdict.FINE

    def verdict(self, peer: bytes, now_seconds: float) -> Verdict:
        """What is to become of `peer` now."""
        account = self._accounts.get(peer)
        return Verdict.FINE if account is None else self._verdict(account, now_seconds)

    def refused_seconds(self, peer: bytes, now_seconds: float) -> float:
        """For how much longer `peer` is refused; 0 when it is not."""
        account = self._accounts.get(peer)
        return 0.0 if account is None else max(0.0, account.banned_until - now_seconds)

    def banned(self, now_seconds: float) -> list[Ban]:
        """Who is refused now."""
        return [
            Ban(peer, account.banned_until - now_seconds)
            for peer, account in self._accounts.items()
            if now_seconds < account.banned_until
        ]
