"""Standing: what this node thinks of each peer, per context, from its own evidence.

Rule: events are append-only, each names the record that proves it, and everything else here follows from them: α and β
are a cache. Opinions of other peers are no evidence. The mean is that of a Beta posterior whose good evidence halves in
7 days and whose bad evidence halves in 30, and the lower of two views: all events, and the last 20. So trust is slow to
build, quick to lose, and old merit cannot pay for a fresh betrayal (on-off attacks; TrustGuard, Srivatsa et al. 2005).
A peer contradicted by a verified quorum, canary or fraud proof is barred in that context for 7 days.
Pure: no I/O, no clock.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp2
from typing import Final, NamedTuple

from dimnode.limits import LIMITS, StandingLimits

BARRING_KINDS: Final = frozenset({"quorum", "canary", "fraud"})
"""Bad evidence of these kinds is proof, and bars."""

UNVERIFIED: Final = "unverified"
"""Good evidence of this kind (an answer that nobody checked) counts a little, but never makes a peer established."""

WEIGHTS_PERMILLE: Final = {
    ("quorum", True): 1000,
    ("canary", True): 1000,
    (UNVERIFIED, True): 100,
    ("late", False): 500,
    ("lost", False): 1000,  # accepted a lease and never answered
    ("unrevealed", False): 2000,
    ("record", False): 5000,  # an answer that breaks the format
    ("quorum", False): 10_000,
    ("canary", False): 10_000,
    ("fraud", False): 10_000,
}
"""Usual weight of an event by (kind, good), before it is scaled by what the job cost; design values, not measured."""

_MINUTE_MS = 60_000

Row = tuple[bytes, str, int, int, int, str, bytes]
"""An event as the journal keeps it: peer, context, at_ms, good (0 or 1), weight_permille, kind, record."""


def context_of(operation: str, model_class: str) -> str:
    """The context in which a peer is judged: good at one thing says nothing about another."""
    return f"{operation}/{model_class}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that this node saw a peer do. `record` is the id of the record (verdict, answer, lease) that shows it.

    `weight_permille` (1 .. event_weight_permille_max) grows with the cost of the job: cheap ones buy no trust for dear.
    """

    peer: bytes
    context: str
    at_ms: int
    good: bool
    weight_permille: int
    kind: str
    record: bytes

    @property
    def bars(self) -> bool:
        """True when this is proof of a wrong answer."""
        return not self.good and self.kind in BARRING_KINDS

    @property
    def row(self) -> Row:
        """As the journal keeps it."""
        good = int(self.good)
        return (self.peer, self.context, self.at_ms, good, self.weight_permille, self.kind, self.record)


class Posterior(NamedTuple):
    """Beta(alpha, beta): the belief about the share of good work."""

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        return self.alpha / (self.alpha + self.beta)


@dataclass(frozen=True, slots=True)
class StandingLine:
    """One context of one peer, explained: `alpha`, `beta` and `mean` of the lower view, which `view` names.

    `barred_until_ms` is 0 without a bar. `forgotten` events are in the numbers but no longer in the list.
    """

    context: str
    view: str
    alpha: float
    beta: float
    mean: float
    barred_until_ms: int
    events: tuple[Evidence, ...]
    forgotten: int


class _View:
    """The decayed sums of some events: Σ weight · 2^(-age / half-life), good and bad.

    Each sum is kept as of its newest event, so that adding and reading cost the same however many events there are.
    """

    __slots__ = ("bad", "bad_at_ms", "good", "good_at_ms", "limits")

    def __init__(self, limits: StandingLimits) -> None:
        self.limits = limits
        self.good = self.bad = 0.0
        self.good_at_ms = self.bad_at_ms = 0

    def add(self, event: Evidence) -> None:
        weight = event.weight_permille / 1000.0
        if event.good:
            half_life_ms = self.limits.half_life_good_seconds * 1000.0
            self.good, self.good_at_ms = _add(self.good, self.good_at_ms, weight, event.at_ms, half_life_ms)
        else:
            half_life_ms = self.limits.half_life_bad_seconds * 1000.0
            self.bad, self.bad_at_ms = _add(self.bad, self.bad_at_ms, weight, event.at_ms, half_life_ms)

    def posterior(self, at_ms: int) -> Posterior:
        """As of a time that is not before the newest event."""
        limits = self.limits
        good = self.good * exp2((self.good_at_ms - at_ms) / (limits.half_life_good_seconds * 1000.0))
        bad = self.bad * exp2((self.bad_at_ms - at_ms) / (limits.half_life_bad_seconds * 1000.0))
        return Posterior(limits.prior_alpha_permille / 1000.0 + good, limits.prior_beta_permille / 1000.0 + bad)


def _add(total: float, at_ms: int, weight: float, event_ms: int, half_life_ms: float) -> tuple[float, int]:
    """A decayed sum with one more event, and the time of the newer of both."""
    if event_ms >= at_ms:
        return total * exp2((at_ms - event_ms) / half_life_ms) + weight, event_ms
    return total + weight * exp2((event_ms - at_ms) / half_life_ms), at_ms


class _EventKey(NamedTuple):
    """What makes an event the same event: a record tells one thing of a peer once."""

    peer: bytes
    context: str
    kind: str
    good: bool
    record: bytes


@dataclass(slots=True)
class _Book:
    """All that is known of one peer in one context: its events, and what is cached of them."""

    long: _View
    last: deque[Evidence]
    events: dict[_EventKey, Evidence] = field(default_factory=dict)
    forgotten: int = 0
    verified: int = 0
    barred_until_ms: int = 0
    newest_ms: int = 0
    mean: float = 0.0
    mean_at_ms: int = -1


class Standing:
    """The node's opinion of its peers. It holds at most `events_kept_max` events; the journal holds them all.

    When full it forgets the event that was recorded first, a good one while there is one, so that no flood of good
    work washes out proof of bad. A forgotten event stays in its context's numbers while others are held there.
    """

    def __init__(self, limits: StandingLimits = LIMITS.standing) -> None:
        self._limits = limits
        self._books: dict[tuple[bytes, str], _Book] = {}
        # Ordered dicts, because a plain one gets slow when its first entry is removed again and again.
        self._order: OrderedDict[_EventKey, None] = OrderedDict()
        self._good_order: OrderedDict[_EventKey, None] = OrderedDict()
        self._prior_mean = _View(limits).posterior(0).mean

    def __len__(self) -> int:
        return len(self._order)

    def record(self, event: Evidence) -> bool:
        """Take note. False, and nothing changes, when this record has already told the same of this peer."""
        assert 0 < event.weight_permille <= self._limits.event_weight_permille_max, event
        assert event.at_ms >= 0, event
        key = _EventKey(event.peer, event.context, event.kind, event.good, event.record)
        if key in self._order:
            return False
        if len(self._order) >= self._limits.events_kept_max:
            self._forget_one()
        self._order[key] = None
        if event.good:
            self._good_order[key] = None
        self._enter(key, event)
        return True

    def mean(self, peer: bytes, context: str, now_ms: int) -> float:
        """Expected share of good work, in (0, 1): the lower of the long view and of the last events.

        Asked for each candidate of each task, so it is computed once per minute of age of the newest event: with a
        half-life of days that is exact to 1e-4.
        """
        book = self._books.get((peer, context))
        if book is None:
            return self._prior_mean
        at_ms = _whole_minutes(book, now_ms)
        if book.mean_at_ms != at_ms:
            book.mean = min(book.long.posterior(at_ms).mean, self._recent(book, at_ms).mean)
            book.mean_at_ms = at_ms
        return book.mean

    def barred_until(self, peer: bytes, context: str, now_ms: int) -> int:
        """When the bar ends, or 0 when the peer is not barred in this context."""
        book = self._books.get((peer, context))
        return book.barred_until_ms if book is not None and now_ms < book.barred_until_ms else 0

    def newcomer(self, peer: bytes, context: str) -> bool:
        """True until enough verified good events are known of the peer here, counted anew after each proof of bad."""
        book = self._books.get((peer, context))
        return book is None or book.verified < self._limits.established_events_min

    def explain(self, peer: bytes, now_ms: int) -> list[StandingLine]:
        """One line per context of the peer, in the order of their names, each with the events behind it, oldest first.

        Events are in the order in which they were recorded. A peer of whom nothing is known has no lines.
        """
        return [
            self._line(context, book, now_ms)
            for (named, context), book in sorted(self._books.items(), key=lambda item: item[0])
            if named == peer
        ]

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[object]], limits: StandingLimits = LIMITS.standing) -> "Standing":
        """Rebuild from the journal's rows, oldest first. The same rows give the same numbers, to the last bit."""
        standing = cls(limits)
        for row in rows:
            match row:
                case [bytes(peer), str(context), int(at_ms), int(good), int(weight), str(kind), bytes(record)]:
                    standing.record(Evidence(peer, context, at_ms, bool(good), weight, kind, record))
                case _:
                    raise AssertionError(f"not a row of standing: {row!r}")
        return standing

    def _line(self, context: str, book: _Book, now_ms: int) -> StandingLine:
        at_ms = _whole_minutes(book, now_ms)
        long, recent = book.long.posterior(at_ms), self._recent(book, at_ms)
        view, lower = ("long", long) if long.mean <= recent.mean else ("recent", recent)
        until_ms = book.barred_until_ms if now_ms < book.barred_until_ms else 0
        return StandingLine(
            context, view, lower.alpha, lower.beta, lower.mean, until_ms, tuple(book.events.values()), book.forgotten
        )

    def _recent(self, book: _Book, at_ms: int) -> Posterior:
        view = _View(self._limits)
        for event in book.last:
            view.add(event)
        return view.posterior(at_ms)

    def _enter(self, key: _EventKey, event: Evidence) -> None:
        limits = self._limits
        book = self._books.get((event.peer, event.context))
        if book is None:
            book = _Book(_View(limits), deque(maxlen=limits.recent_events))
            self._books[event.peer, event.context] = book
        book.events[key] = event
        book.long.add(event)
        book.last.append(event)
        book.newest_ms = max(book.newest_ms, event.at_ms)
        book.mean_at_ms = -1
        book.verified += event.good and event.kind != UNVERIFIED
        if event.bars:
            book.verified = 0
            book.barred_until_ms = max(book.barred_until_ms, event.at_ms + round(limits.bar_seconds * 1000))

    def _forget_one(self) -> None:
        key = next(iter(self._good_order or self._order))
        del self._order[key]
        self._good_order.pop(key, None)
        book = self._books[key.peer, key.context]
        del book.events[key]
        book.forgotten += 1
        if not book.events:
            del self._books[key.peer, key.context]


def _whole_minutes(book: _Book, now_ms: int) -> int:
    """The time at which a book is read: a whole number of minutes after its newest event.

    After a clock was set back it is that event's own time: evidence must not grow by getting younger.
    """
    return book.newest_ms + max(0, now_ms - book.newest_ms) // _MINUTE_MS * _MINUTE_MS
