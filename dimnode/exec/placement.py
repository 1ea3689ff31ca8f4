"""Which waiting order goes to which worker, and when a worker makes room for another model.

Rule: a warm worker is used before a new one is started, the order of the queue is kept between models, and no model
holds a worker for ever while another one waits (a worker that served for `worker_tenure_seconds` may be drained).
Pure: no I/O, no clock (`now` is an argument).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dimnode.exec.queue import Lane, OrderQueue, Ticket
from dimnode.limits import ExecLimits

# A new mean counts an eighth: steady, yet it follows a change within some ten orders.
MEAN_SHARE = 8


@dataclass(slots=True, eq=False)
class Place:
    """A worker as placement sees it. `flight` holds the orders it was given, the running one first."""

    lane: Lane
    born_at: float  # when it became ready, once it is
    ready: bool = False
    leaving: bool = False
    idle_since: float = 0.0
    mean_run_us: float = -1.0
    flight: dict[int, Ticket] = field(default_factory=dict)
    flight_bytes: int = 0

    def take_off(self, number: int, ticket: Ticket) -> None:
        """It was given this order."""
        self.flight[number] = ticket
        self.flight_bytes += ticket.input_bytes

    def land(self, number: int) -> Ticket:
        """This order is no longer with it."""
        ticket = self.flight.pop(number)
        self.flight_bytes -= ticket.input_bytes
        return ticket

    @property
    def idle(self) -> bool:
        """Ready, with nothing to do."""
        return self.ready and not self.flight

    def ran(self, run_us: int) -> None:
        """Learn from a result."""
        known = self.mean_run_us >= 0
        self.mean_run_us = self.mean_run_us + (run_us - self.mean_run_us) / MEAN_SHARE if known else float(run_us)

    def room(self, limits: ExecLimits) -> int:
        """How many more orders to hand over now.

        Short runs are pipelined, so that the worker never waits for the node. Long or unknown ones go one at a time:
        handed over early they could not move to a worker that becomes free.
        """
        if self.leaving:
            return 0
        short = 0 <= self.mean_run_us < limits.pipeline_run_ms_max * 1000
        depth = limits.worker_inflight_max if short else 1
        if len(self.flight) >= depth:
            return 0
        if self.flight_bytes > limits.pipeline_bytes_max:
            return 0
        return depth - len(self.flight)


P = TypeVar("P", bound=Place)


@dataclass(frozen=True, slots=True)
class Assign(Generic[P]):
    """Give the head of `lane` to `place`."""

    lane: Lane
    place: P


@dataclass(frozen=True, slots=True)
class Start(Generic[P]):
    """Start a worker for `lane`, first ending the idle `instead_of` when it is set."""

    lane: Lane
    instead_of: P | None


@dataclass(frozen=True, slots=True)
class Drain(Generic[P]):
    """Give `place` nothing more: it makes room when its flight has landed."""

    place: P


def next_step(
    queue: OrderQueue, places: Collection[P], workers_max: int, limits: ExecLimits, now: float
) -> Assign[P] | Start[P] | Drain[P] | None:
    """The next thing to do, or None when all that can run runs. Call again after doing it."""
    leaving = -1
    for lane in queue.lanes(limits.lanes_considered_max):
        warm, free = [], None
        for place in places:
            if place.lane == lane and not place.leaving:
                warm.append(place)
                if place.room(limits) > 0 and (free is None or len(place.flight) < len(free.flight)):
                    free = place
        if free is not None:
            return Assign(lane, free)
        if any(not place.ready for place in warm):
            continue
        if leaving < 0:
            leaving = sum(place.leaving for place in places)
        if len(places) < workers_max:
            return Start(lane, None)
        if leaving:
            # A worker is on its way out already, and this lane will get its place.
            leaving -= 1
            continue
        step = _make_room(lane, bool(warm), queue, places, limits, now)
        if step is not None:
            return step
    return None


def _make_room(
    lane: Lane, is_warm: bool, queue: OrderQueue, places: Collection[P], limits: ExecLimits, now: float
) -> Start[P] | Drain[P] | None:
    """A lane without a worker takes the longest idle one, or has a busy one drained. A second worker is less urgent.

    A worker whose own lane has orders waiting keeps its place for a tenure: two models that take turns order by order
    would otherwise start a worker per order.
    """
    idle = [
        place
        for place in places
        if place.idle
        and not place.leaving
        and (place.lane not in queue or now - place.born_at > limits.worker_tenure_seconds)
    ]
    if idle:
        longest = min(idle, key=lambda place: place.idle_since)
        if not is_warm or now - longest.idle_since > limits.worker_tenure_seconds:
            return Start(lane, longest)
    if is_warm:
        return None
    settled = [
        place
        for place in places
        if place.ready and not place.leaving and now - place.born_at > limits.worker_tenure_seconds
    ]
    return Drain(min(settled, key=lambda place: len(place.flight))) if settled else None
