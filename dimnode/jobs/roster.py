"""Which peers could take a task now, and which one gets it.

Rule: only peers with a live link (and this node itself) are candidates; who among them is chosen is a question for
`consensus.selection`, asked with what the standing book says. Pure: no I/O, no clock.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dimnode.consensus.selection import Candidate, Need, NewcomerLane, choose
from dimnode.consensus.standing import WEIGHTS_PERMILLE, Evidence, Standing, context_of
from dimnode.jobs.effects import Remember
from dimnode.jobs.events import AdvertHeard, Key, Now
from dimnode.jobs.job import Job, Task
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, RecordId

NO_CLASS: Final = "-"
"""The class of a model of which nothing was heard but its id."""
_REFUSAL_DOUBLINGS_MAX = 8
_OWN_FAULTS = frozenset({"record", "lost"})
"""Bad evidence that no choice of a job's submitter can bring about."""


@dataclass(slots=True)
class Seat:
    """What the owner side knows of one peer.

    `window` is how many leases it takes at once, as far as is known: it shrinks to what the peer holds when that says
    it is full, and grows by about one in each window of answers (as TCP probes for room; RFC 5681, 3.1). `busy_until`
    is when such a peer may be asked again, `refusals` how often it said so since its last answer. `models` are those
    whose files it offers, `offers` of them those that it can run, and its cabinets; see `AdvertHeard` for the rest.
    """

    peer: PeerId
    up: bool = False
    models: Mapping[RecordId, str] = field(default_factory=dict)
    offers: frozenset[bytes | str] = frozenset()
    slots: int = 0
    sizes: Mapping[RecordId, int] = field(default_factory=dict)
    formats: frozenset[str] | None = None
    extras: frozenset[str] | None = None
    walls: frozenset[str] = frozenset()
    resting: frozenset[RecordId] = frozenset()
    fetch_bytes: int = 0
    inflight: int = 0
    window: float = 0.0
    busy_until: float = 0.0
    refusals: int = 0

    def can(self, need: Need) -> bool:
        """It offers what the task needs; a peer without slots is draining and offers nothing."""
        if not self._might(need):
            return False
        if need.cabinet and need.cabinet not in self.offers:
            return False
        return not need.model or need.model in self.offers

    def lacks(self, model_class: str, asked: frozenset[str]) -> frozenset[str]:
        """What it would need for a model of this format and these extras: names of extras of the package."""
        runtime = frozenset({model_class}) - {NO_CLASS}
        lacking = frozenset() if self.formats is None else runtime - self.formats
        return lacking if self.extras is None else lacking | (asked - self.extras)

    def would_fetch(self, need: Need, model_class: str, size_bytes: int, asked: frozenset[str]) -> bool:
        """It lacks the model that the task needs, and would fetch it."""
        if not self._might(need) or need.model in self.offers:
            return False
        if need.cabinet and need.cabinet not in self.offers:
            return False
        return not self.lacks(model_class, asked) and 0 < size_bytes <= self.fetch_bytes

    def _might(self, need: Need) -> bool:
        return self.slots > 0 and need.pinned in (None, self.peer) and need.walls <= self.walls

    def has_room(self, now: Now) -> bool:
        """It may be given another lease."""
        return self.inflight + 1 <= self.window and self.busy_until <= now.mono

    def candidate(self, need: Need) -> Candidate:
        """As the selection sees it."""
        fetches = bool(need.model) and need.model not in self.offers
        return Candidate(self.peer, self.slots - self.inflight, self.inflight, self.offers, fetches=fetches)


class Roster:
    """The peers this node has heard of since it started, itself included."""

    def __init__(self, me: PeerId, limits: Limits, standing: Standing, rng: random.Random) -> None:
        self.me = me
        self.standing = standing
        self._limits = limits
        self._rng = rng
        self._lane = NewcomerLane()
        self._window_max = limits.jobs.lease_window_per_peer
        self._seats: dict[PeerId, Seat] = {me: Seat(me, up=True, window=self._window_max)}
        self._offering: dict[RecordId, dict[PeerId, Seat]] = {}
        self._asks: dict[RecordId, frozenset[str]] = {}
        self._fetching: dict[Key, RecordId] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, peer: PeerId) -> Seat:
        """The peer's entry, made at first sight."""
        found = self._seats.get(peer)
        if found is None:
            if len(self._seats) >= self._limits.peers.adverts_max:
                self._forget_one()
            found = self._seats[peer] = Seat(peer, window=self._window_max)
        return found

    def link(self, peer: PeerId, up: bool) -> None:
        """A link came or went; a new one forgets that the peer was busy."""
        seat = self.seat(peer)
        seat.up = up
        seat.window, seat.busy_until, seat.refusals = self._window_max, 0.0, 0

    def hear(self, said: AdvertHeard) -> None:
        """Replace what the peer offers."""
        seat = self.seat(said.peer)
        self._offer_nothing(seat)
        seat.models, seat.slots, seat.sizes = said.models, said.slots, said.sizes
        seat.formats, seat.extras, seat.fetch_bytes = said.formats, said.extras, said.fetch_bytes
        seat.walls, seat.resting = said.walls, said.resting
        for model in said.models:
            self._offering.setdefault(model, {})[said.peer] = seat
        self._asks.update(said.asks)
        runs = [model for model, kind in said.models.items() if not seat.lacks(kind, self._asked(model))]
        seat.offers = frozenset((*runs, *said.cabinets))

    def busy(self, peer: PeerId, retry_after_ms: int, now: Now) -> float:
        """The peer is full: until when it is left alone. It doubles with each refusal in a row, up to the limit."""
        seat, limits = self.seat(peer), self._limits.jobs
        wait_ms = max(retry_after_ms, limits.retry_after_ms_min) * 2 ** min(seat.refusals, _REFUSAL_DOUBLINGS_MAX)
        seat.refusals += 1
        seat.window = max(1, seat.inflight - 1)
        seat.busy_until = now.mono + min(wait_ms, limits.retry_after_ms_max) / 1000
        return seat.busy_until

    def worked(self, peer: PeerId) -> None:
        """The peer answered a task: it has room again."""
        seat = self.seat(peer)
        if seat.window < self._window_max:
            seat.window += 1 / seat.window
            seat.busy_until, seat.refusals = 0.0, 0

    def capable(self, need: Need) -> list[Seat]:
        """Linked peers that offer what is needed, whatever their load or standing."""
        if need.pinned is not None:
            seat = self._seats.get(PeerId(need.pinned))
            return [seat] if seat is not None and seat.up and seat.can(need) else []
        pool = self._offering.get(RecordId(need.model), {}) if need.model else self._seats
        return [seat for seat in pool.values() if seat.up and seat.can(need)]

    def fetchers(self, need: Need, *, linked: bool = True) -> list[Seat]:
        """Peers that lack the needed model and would fetch it from those that offer it."""
        offering = self._offering.get(RecordId(need.model)) if need.model else None
        if not offering:
            return []
        holder = next(iter(offering.values()))
        model = RecordId(need.model)
        size_bytes = max(seat.sizes.get(model, 0) for seat in offering.values())
        said = holder.models[model], size_bytes, self._asked(model)
        return [seat for seat in self._seats.values() if (seat.up or not linked) and seat.would_fetch(need, *said)]

    def fetch_begins(self, key: Key, peer: PeerId, model: bytes) -> None:
        """A task is leased; nothing when the peer has the model."""
        if model and model not in self.seat(peer).offers:
            self._fetching[key] = RecordId(model)

    def fetch_over(self, key: Key) -> None:
        """The lease has ended."""
        self._fetching.pop(key, None)

    def context(self, op: str, model: bytes) -> str:
        """The context of standing: operation × model class."""
        offering = self._offering.get(RecordId(model))
        model_class = next(iter(offering.values())).models[RecordId(model)] if offering else NO_CLASS
        return context_of(op, model_class)

    def pick(self, need: Need, now: Now) -> PeerId | None:
        """The peer that gets the task, or None when nobody has room. Barred peers are never chosen."""
        context = self.context(need.operation, need.model)
        standing, now_ms = self.standing, now.wall_ms
        seats = [seat for seat in self.capable(need) if seat.has_room(now)]
        if need.model and not any(self._may_have(seat, need, context, now) for seat in seats):
            seats += [seat for seat in self._willing(need, context, now) if seat.has_room(now)]
        chosen = choose(
            [seat.candidate(need) for seat in seats],
            need,
            standing_mean=lambda peer: round(standing.mean(peer, context, now_ms), 1),  # finer differences are noise
            barred=lambda peer: standing.barred_until(peer, context, now_ms) > 0,
            newcomer=lambda peer: standing.newcomer(peer, context),
            lane=self._lane,
            rng=self._rng,
            window=self._window_max,
        )
        return None if chosen is None else PeerId(chosen)

    def _may_have(self, seat: Seat, need: Need, context: str, now: Now) -> bool:
        return seat.peer not in need.exclude and not self.standing.barred_until(seat.peer, context, now.wall_ms)

    def _willing(self, need: Need, context: str, now: Now) -> list[Seat]:
        """Who would fetch the model. While holders are merely busy only one other peer at a time: a moment's wait is no
        reason to copy a model to everybody, nor to this node.
        """
        found = self.fetchers(need)
        if not found or not any(self._may_have(seat, need, context, now) for seat in self.capable(need)):
            return found
        if need.model in self._fetching.values():
            return []
        return [seat for seat in found if seat.peer != self.me]

    def usable(self, need: Need, now: Now) -> int:
        """How many capable peers are neither barred nor excluded, busy or not."""
        context = self.context(need.operation, need.model)
        able = (*self.capable(need), *self.fetchers(need))
        return sum(self._may_have(seat, need, context, now) for seat in able)

    def offered(self, need: Need, now: Now) -> tuple[int, int]:
        """How many peers, linked or not, have offered this since we started, and how many of them are not barred."""
        context = self.context(need.operation, need.model)
        able = [seat for seat in self._seats.values() if seat.can(need) and seat.peer not in need.exclude]
        able += [seat for seat in self.fetchers(need, linked=False) if seat.peer not in need.exclude]
        trusted = sum(not self.standing.barred_until(seat.peer, context, now.wall_ms) for seat in able)
        return len(able), trusted

    def resting(self, need: Need) -> list[PeerId]:
        """Peers that have the model and offer no slots: they are drained, or execute nothing."""
        seats = [seat for seat in self._seats.values() if not seat.slots and need.pinned in (None, seat.peer)]
        return [seat.peer for seat in seats if need.model in seat.models or need.model in seat.resting]

    def missing(self, need: Need) -> tuple[str, bool]:
        """The extra for want of which no holder of the model can run it, "" when that is not the reason, and whether
        any peer at all has it."""
        model = RecordId(need.model)
        holders = [seat for seat in self._offering.get(model, {}).values() if need.pinned in (None, seat.peer)]
        if not holders or any(model in seat.offers for seat in holders):
            return "", False
        lacking = [seat.lacks(seat.models[model], self._asked(model)) for seat in holders]
        _, word = min((len(words), min(words)) for words in lacking)
        seats = [seat for seat in self._seats.values() if seat.slots]
        return word, any(word in (seat.formats or ()) or word in (seat.extras or ()) for seat in seats)

    def judge(
        self, job: Job, task: Task, peer: PeerId, good: bool, kind: str, record: RecordId, now: Now
    ) -> list[Remember]:
        """One point for or against a peer, tied to the record that shows it; it counts from now on.

        A stranger's job says nothing about how well a peer works: model, inputs, comparator and peers of it are the
        stranger's choice, who could have friends agree for merit, or outvote an honest peer to have it barred.
        """
        if job.spec["by"] != self.me and kind not in _OWN_FAULTS:
            return []
        template = job.template(task)
        context = task.context or self.context(template["op"], template.get("model", b""))
        evidence = Evidence(peer, context, now.wall_ms, good, WEIGHTS_PERMILLE[kind, good], kind, record)
        self.standing.record(evidence)
        return [Remember(evidence)]

    def _asked(self, model: RecordId) -> frozenset[str]:
        return self._asks.get(model, frozenset())

    def _offer_nothing(self, seat: Seat) -> None:
        for model in seat.models:
            offering = self._offering[model]
            offering.pop(seat.peer, None)
            if not offering:
                del self._offering[model]
                self._asks.pop(model, None)

    def _forget_one(self) -> None:
        """Make room: the peer known longest that has no link and no lease. Links are bounded, so there is one."""
        for peer, seat in self._seats.items():
            if not seat.up and not seat.inflight:
                self._offer_nothing(seat)
                del self._seats[peer]
                return
