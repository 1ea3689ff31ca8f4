"""Queue, shares, placement and batches together on a clock of their own: seeded, with crashes, poison, deadlines."""

import random
from dataclasses import dataclass, field, replace

import pytest
from exec_models import model_order
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.exec.batching import Batch, Batches, share_of
from dimnode.exec.orders import Order
from dimnode.exec.placement import Assign, Bounds, Pause, Place, Start, Unload, next_step
from dimnode.exec.queue import OrderQueue, Ticket
from dimnode.exec.shares import Quotas, Shares
from dimnode.limits import ExecLimits

LIMITS = ExecLimits()
RUN_SECONDS = 0.01
ROW_OF_A_BATCH = {1: 1.0, 2: 0.9, 3: 0.88, 4: 0.8, 5: 0.8, 6: 0.8, 7: 0.8, 8: 0.78}


@dataclass
class Machine:
    """What the crew does, with workers that are only times. `poison` orders kill the worker that runs them."""

    rng: random.Random
    bounds: Bounds
    poison: set[int] = field(default_factory=set)
    now: float = 0.0
    ended: dict[int, str] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    busy_until: dict[int, float] = field(default_factory=dict)
    largest: int = 1
    numbers: int = 0

    def __post_init__(self) -> None:
        self.queue = OrderQueue(10.0, Shares(Quotas()), 1.0)
        self.batches = Batches(8, 0.25, 64)

    def offer(self, number: int, client: bytes, model: str, deadline: float = float("inf")) -> Ticket:
        plain = Order((client, number, 1), "infer", model_order(model), (b"1",), (), None, "normal", 1.0)
        ticket = self.queue.ticket(replace(plain, client=client, deadline_seconds=deadline), self.now)
        ticket.kind, ticket.expected_seconds = model, RUN_SECONDS
        self.queue.push(ticket)
        return ticket

    def dispatch(self) -> None:
        while (step := next_step(self.queue, self.places, self.bounds, LIMITS, self.now)) is not None:
            match step:
                case Assign(lane, place):
                    self._assign(place, self.queue.pop(lane))
                case Start(lane):
                    self.places.append(Place(lane, self.now))
                    self.busy_until[id(self.places[-1])] = self.now + 0.05
                case Unload(place):
                    self.places.remove(place)
                case Pause(place):
                    place.leaving = True

    def _assign(self, place: Place, ticket: Ticket) -> None:
        tickets = [ticket]
        if ticket.kind is not None and place.mean_run_us >= 0:
            waiting = 1 + self.queue.behind(ticket)
            tickets += self.queue.mates(ticket, self.batches.of(ticket.lane[0]).rows(share_of(waiting, 1)))
        batch = Batch(len(tickets), len(tickets)) if len(tickets) > 1 else None
        self.largest = max(self.largest, len(tickets))
        was_idle = place.idle
        for entry in tickets:
            self.numbers += 1
            entry.batch = batch
            place.take_off(self.numbers, entry)
        if was_idle:
            place.serving_since = self.now
            self._run(place)

    def _group(self, place: Place) -> list[int]:
        first = next(iter(place.flight.values()))
        if first.batch is None:
            return [next(iter(place.flight))]
        return [number for number, entry in place.flight.items() if entry.batch is first.batch]

    def _run(self, place: Place) -> None:
        count = len(self._group(place))
        self.busy_until[id(place)] = self.now + RUN_SECONDS * count * ROW_OF_A_BATCH[count]

    def advance(self) -> None:
        """To the next thing that happens."""
        busy = [place for place in self.places if not place.idle]
        place = min(busy, key=lambda entry: self.busy_until[id(entry)])
        self.now = max(self.now, self.busy_until[id(place)])
        for ticket in self.queue.overdue(self.now):
            self._end(ticket, "refused")
        if not place.ready:
            place.ready, place.idle_since = True, self.now
            if place.flight:
                self._run(place)
            return
        group = self._group(place)
        tickets = [place.flight[number] for number in group]
        if any(ticket.order.key[1] in self.poison for ticket in tickets):
            self._crash(place, tickets)
            return
        seconds = RUN_SECONDS * ROW_OF_A_BATCH[len(group)]
        for number in group:
            ticket = place.land(number)
            self.queue.landed(ticket, seconds)
            place.ran(int(seconds * 1e6))
            self._end(ticket, "ok")
        if tickets[0].batch is not None:
            tickets[0].batch.seconds = seconds * len(group)
            self.batches.ended(place.lane[0], tickets[0].batch)
        else:
            self.batches.of(place.lane[0]).ran(1, seconds)
        place.leaving = place.leaving and bool(place.flight)
        place.idle_since = self.now
        if place.flight:
            self._run(place)

    def _crash(self, place: Place, running: list[Ticket]) -> None:
        self.places.remove(place)
        for ticket in place.flight.values():
            if len(running) == 1 and ticket is running[0]:
                self.queue.landed(ticket, RUN_SECONDS)
                self._end(ticket, "crashed")
                continue
            if ticket in running:
                ticket.kind = None
            self.queue.push(ticket)

    def _end(self, ticket: Ticket, status: str) -> None:
        number = ticket.order.key[1]
        assert number not in self.ended, "an order ended twice"
        self.ended[number] = status

    def finish(self) -> None:
        for _ in range(20_000):
            self.dispatch()
            if not self.queue.count and not any(place.flight for place in self.places):
                return
            self.advance()
        raise AssertionError("it does not end")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_happens_every_order_ends_once_and_only_poison_crashes(seed: int) -> None:
    rng = random.Random(seed)
    machine = Machine(rng, Bounds(rng.randint(1, 3), rng.randint(3, 6), 10**9), set(rng.sample(range(200), 8)))
    patient = set()
    for number in range(200):
        deadline = rng.choice([0.3, float("inf"), float("inf")])
        if deadline == float("inf"):
            patient.add(number)
        machine.offer(number, rng.choice([b"a", b"b", b"c"]), rng.choice("mnop"), deadline)
        if rng.random() < 0.3:
            machine.dispatch()
            if machine.places and any(not place.idle for place in machine.places):
                machine.advance()
    machine.finish()
    assert len(machine.ended) == 200
    for number, status in machine.ended.items():
        assert (status == "crashed") == (number in machine.poison) or (status == "refused" and number not in patient)
    assert machine.queue.bytes == machine.queue.count == 0
    assert all(account.running == account.queued == 0 for account in machine.queue.shares._accounts.values())


def test_a_backlog_is_served_in_batches_of_the_size_that_pays() -> None:
    machine = Machine(random.Random(1), Bounds(1, 4, 10**9))
    for number in range(400):
        machine.offer(number, b"a", "m")
    machine.finish()
    assert machine.largest == 8
    alone = 400 * RUN_SECONDS
    assert machine.now < alone * 0.85, "an eighth of the runs, each of eight rows at 0.78 of the time per row"


def test_a_flood_that_is_batched_is_charged_for_what_it_used() -> None:
    machine = Machine(random.Random(2), Bounds(1, 4, 10**9))
    for number in range(2000):
        machine.offer(number, b"flood", "m")
    mine = range(10_000, 10_100)
    for number in mine:
        machine.offer(number, b"quiet", "n")
    while not all(number in machine.ended for number in mine):
        machine.dispatch()
        machine.advance()
    flood = sum(number < 2000 for number in machine.ended)
    # At most as much worker time as the other got, at 0.78 of it a row, and a tenure of the two models' taking turns.
    assert flood * RUN_SECONDS * 0.78 <= 100 * RUN_SECONDS + 2 * LIMITS.worker_tenure_seconds + 0.2
