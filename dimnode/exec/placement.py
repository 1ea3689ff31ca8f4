"""Which waiting order goes to which worker, when a worker is started, and which one makes room for another model.

Rule: at most `running_max` workers compute or load at any moment (each has one thread, so that threads never exceed
cores); further ones may stay loaded, waiting in a read, as long as memory allows. A warm worker is used before a new
one is started, the order of the queue is kept between models, and no model holds a thread for ever while another one
waits: after `worker_tenure_seconds` it may be made to pause. Memory is freed from the worker that was idle longest,
and never from a pinned one.
Pure: no I/O, no clock (`now` is an argument).
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dimnode.exec.queue import Lane, OrderQueue, Ticket
from dimnode.limits import ExecLimits

# A new mean counts an eighth: steady, yet it follows a change within some ten orders.
MEAN_SHARE = 8


@dataclass(slots=True, eq=False)
class Place:
    """A worker as placement sees it. `flight` holds the orders it was given, the running one first.

    `serving_since` is when it last began to work after a pause, `claimed_us` what it says to have computed since;
    `leaving`: it is given nothing more until its flight has landed. `memory_bytes` is what it takes, measured or
    expected. `cpu_before_us` is the processor time of its process that is not of the order that runs now, `ended_with`
    what its system said at its end: its processor time and its peak of memory.
    """

    lane: Lane
    serving_since: float
    claimed_us: int = 0
    ready: bool = False
    leaving: bool = False
    pinned: bool = False
    idle_since: float = 0.0
    memory_bytes: int = 0
    mean_run_us: float = -1.0
    flight: dict[int, Ticket] = field(default_factory=dict)
    flight_bytes: int = 0
    cpu_before_us: int = 0
    ended_with: tuple[int, int] | None = None

    def serve_from(self, now: float) -> None:
        """It begins to work, after a pause or its load."""
        self.serving_since, self.claimed_us = now, 0

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

    def room(self, limits: ExecLimits, threads_free: bool) -> int:
        """How many more orders to hand over now.

        Short runs are pipelined, so that the worker never waits for the node. Of longer ones one lies ready while no
        other worker could begin with it anyway, and of long or unknown ones none: handed over early they could not
        move to a worker that becomes free.
        """
        if self.leaving:
            return 0
        depth = 1
        if 0 <= self.mean_run_us < limits.pipeline_run_ms_max * 1000:
            depth = limits.worker_inflight_max
        elif 0 <= self.mean_run_us < limits.pair_run_ms_max * 1000 and not threads_free:
            depth = 2
        if len(self.flight) >= depth or self.flight_bytes > limits.pipeline_bytes_max:
            return 0
        return depth - len(self.flight)


P = TypeVar("P", bound=Place)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many workers may run, how many may be loaded, and what these may take; `needs` says what a lane would add."""

    running_max: int
    loaded_max: int
    memory_bytes_max: int
    needs: Callable[[Lane], int] = lambda lane: 0


@dataclass(frozen=True, slots=True)
class Assign(Generic[P]):
    """Give the head of `lane` to `place`."""

    lane: Lane
    place: P


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker for `lane`."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Unload(Generic[P]):
    """End the idle `place`: something else needs its memory."""

    place: P


@dataclass(frozen=True, slots=True)
class Pause(Generic[P]):
    """Give `place` nothing more until its flight has landed: another model waits for the thread."""

    place: P


Step = Assign[P] | Start | Unload[P] | Pause[P]


def next_step(
    queue: OrderQueue, places: Collection[P], bounds: Bounds, limits: ExecLimits, now: float
) -> Step[P] | None:
    """The next thing to do, or None when all that can run runs. Call again after doing it."""
    running = sum(not place.idle for place in places)
    pausing = -1
    for lane in queue.lanes(limits.lanes_considered_max):
        warm, free = [], None
        for place in places:
            if place.lane == lane and not place.leaving:
                warm.append(place)
                threads_free = running < bounds.running_max
                may = place.room(limits, threads_free) > 0 and (threads_free or not place.idle)
                if may and (free is None or len(place.flight) < len(free.flight)):
                    free = place
        if free is not None:
            return Assign(lane, free)
        if any(not place.ready for place in warm):
            continue
        if running < bounds.running_max:
            step = _load(lane, warm, queue, places, bounds, limits, now)
            if step is not None:
                return step
            continue
        if pausing < 0:
            pausing = sum(place.leaving for place in places)
        if pausing:
            # A worker is on its way to a pause already, and this lane will get its thread.
            pausing -= 1
        elif not any(place.flight for place in warm):
            settled = [
                place
                for place in places
                if place.flight and place.ready and not place.leaving and _served(place, limits, now)
            ]
            if settled:
                return Pause(min(settled, key=lambda place: len(place.flight)))
    return None


def _load(
    lane: Lane,
    warm: Collection[P],
    queue: OrderQueue,
    places: Collection[P],
    bounds: Bounds,
    limits: ExecLimits,
    now: float,
) -> Start | Unload[P] | None:
    """A thread is free, and this lane has no worker that could use it: start one, unloading others where it must be.

    A worker whose own lane has orders waiting keeps its memory for a tenure: two models that take turns order by
    order would otherwise start a worker per order. A second worker of a lane is less urgent than a first one.
    """
    used = sum(place.memory_bytes for place in places)
    if not places or (len(places) < bounds.loaded_max and used + bounds.needs(lane) <= bounds.memory_bytes_max):
        return Start(lane)
    place = least_used(place for place in places if place.lane not in queue or _served(place, limits, now))
    if place is None or (warm and now - place.idle_since <= limits.worker_tenure_seconds):
        return None
    return Unload(place)


def least_used(places: Iterable[P]) -> P | None:
    """The idle, unpinned worker that was used longest ago."""
    idle = [place for place in places if place.idle and not place.leaving and not place.pinned]
    return min(idle, key=lambda place: place.idle_since, default=None)


def _served(place: Place, limits: ExecLimits, now: float) -> bool:
    """It has worked for a tenure."""
    return now - place.serving_since > limits.worker_tenure_seconds
