"""Which worker gets what."""

import random
from typing import Any

import pytest
from exec_models import model_order
from hypothesis import given
from hypothesis import strategies as st

from dimnode.exec.orders import Order
from dimnode.exec.placement import Assign, Bounds, Pause, Place, Start, Unload, next_step
from dimnode.exec.queue import OrderQueue
from dimnode.limits import ExecLimits

LIMITS = ExecLimits()
LATER = LIMITS.worker_tenure_seconds + 1.0


def queue_of(*models: str, now: float = 0.0) -> OrderQueue:
    queue = OrderQueue(LIMITS.priority_ageing_seconds)
    for number, model in enumerate(models):
        key = (b"job", number, 1)
        queue.push(queue.ticket(Order(key, "infer", model_order(model), (b"1",), (), None, "normal", 1.0), now))
    return queue


def place(model: str, flying: int = 0, mean_run_us: float = -1.0, ready: bool = True, idle_since: float = 0.0) -> Place:
    found = Place((model, None), 0.0, ready=ready, mean_run_us=mean_run_us, idle_since=idle_since)
    other = queue_of(*[model] * flying)
    for number in range(flying):
        found.take_off(number, other.pop((model, None)))
    return found


def step(queue: OrderQueue, places: list[Place], running_max: int, now: float, **bounds: Any) -> Any:
    """With room in memory for as many models as may run, unless a test says otherwise."""
    found = Bounds(**{"running_max": running_max, "loaded_max": running_max, "memory_bytes_max": 1000, **bounds})
    return next_step(queue, places, found, LIMITS, now)


def test_the_first_order_starts_a_worker_and_then_gets_it() -> None:
    queue = queue_of("a")
    assert step(queue, [], 2, 0.0) == Start(("a", None))
    started = place("a", ready=False)
    assert step(queue, [started], 2, 0.0) == Assign(("a", None), started)


def test_a_worker_that_still_loads_gets_one_order_and_no_twin() -> None:
    assert step(queue_of("a"), [place("a", flying=1, ready=False)], 2, 0.0) is None


def test_short_orders_are_pipelined_into_one_worker() -> None:
    warm = place("a", flying=3, mean_run_us=100)
    assert step(queue_of("a"), [warm], 2, 0.0) == Assign(("a", None), warm)


def test_long_orders_go_to_a_second_worker_instead_of_waiting() -> None:
    busy = place("a", flying=1, mean_run_us=50_000)
    assert step(queue_of("a"), [busy], 2, 0.0) == Start(("a", None))
    assert step(queue_of("a"), [busy], 1, 0.0) is None


def test_the_emptier_of_two_warm_workers_is_chosen() -> None:
    full, empty = place("a", flying=5, mean_run_us=100), place("a", flying=1, mean_run_us=100)
    assert step(queue_of("a"), [full, empty], 2, 0.0) == Assign(("a", None), empty)


def test_another_model_takes_the_place_that_was_idle_longest() -> None:
    old, young = place("a", idle_since=1.0), place("b", idle_since=2.0)
    assert step(queue_of("c"), [young, old], 2, 3.0) == Unload(old)


def test_a_second_worker_for_a_warm_model_does_not_push_out_one_that_was_just_used() -> None:
    busy, idle = place("a", flying=1, mean_run_us=50_000), place("b", idle_since=LATER)
    assert step(queue_of("a"), [busy, idle], 2, LATER) is None
    assert step(queue_of("a"), [busy, idle], 2, 2 * LATER) == Unload(idle)


def test_a_waiting_model_has_a_settled_worker_paused_but_not_a_fresh_one() -> None:
    busy = place("a", flying=2, mean_run_us=100)
    assert step(queue_of("b"), [busy], 1, 0.0) is None
    assert step(queue_of("b"), [busy], 1, LATER) == Pause(busy)
    busy.leaving = True
    assert step(queue_of("b"), [busy], 1, LATER) is None


def test_a_leaving_worker_gets_nothing_more() -> None:
    leaving = place("a", flying=1, mean_run_us=100)
    leaving.leaving = True
    assert step(queue_of("a"), [leaving], 1, LATER) is None


def test_a_model_that_waits_longer_is_served_before_one_that_is_warm() -> None:
    queue = queue_of("b", now=0.0)
    key = (b"job", 9, 1)
    queue.push(queue.ticket(Order(key, "infer", model_order("a"), (b"1",), (), None, "normal", 1.0), 1.0))
    idle = place("a", mean_run_us=100)
    assert step(queue, [idle], 1, 2.0) == Unload(idle)


def test_two_models_that_take_turns_share_by_tenure_not_by_order() -> None:
    turns = queue_of("b", "a", "b", "a")
    idle = place("a", mean_run_us=100)
    soon = LIMITS.worker_tenure_seconds / 2
    assert step(turns, [idle], 1, soon) == Assign(("a", None), idle)
    assert step(turns, [idle], 1, LATER) == Unload(idle)
    assert step(queue_of("b"), [idle], 1, soon) == Unload(idle)


def test_large_inputs_are_not_piled_up_in_a_worker() -> None:
    warm, queue = place("a", mean_run_us=100), queue_of("a")
    ticket = queue.pop(("a", None))
    ticket.input_bytes = LIMITS.pipeline_bytes_max + 1
    warm.take_off(1, ticket)
    assert warm.room(LIMITS, threads_free=False) == 0
    warm.land(1)
    assert warm.room(LIMITS, threads_free=False) == LIMITS.worker_inflight_max


def test_of_runs_of_some_milliseconds_one_lies_ready_where_no_other_worker_could_begin_with_it() -> None:
    busy, queue = place("a", mean_run_us=8_000), queue_of("a", "a", "a")
    busy.take_off(1, queue.pop(("a", None)))
    assert step(queue, [busy], 2, 1.0) == Start(("a", None)), "a second worker, while a thread is free"
    assert step(queue, [busy], 1, 1.0) == Assign(("a", None), busy)
    busy.take_off(2, queue.pop(("a", None)))
    assert step(queue, [busy], 1, 1.0) is None, "the third waits where any worker may have it"
    long = place("a", mean_run_us=1000 * LIMITS.pair_run_ms_max)
    assert (long.room(LIMITS, threads_free=False), busy.room(LIMITS, threads_free=False)) == (1, 0)


def test_a_model_is_loaded_beside_idle_ones_while_memory_lasts() -> None:
    first, second = place("a", idle_since=1.0), place("b", idle_since=2.0)
    first.memory_bytes = second.memory_bytes = 400
    roomy = {"loaded_max": 8, "needs": lambda lane: 200}
    assert step(queue_of("c"), [first, second], 1, 3.0, **roomy) == Start(("c", None))
    tight = {"loaded_max": 8, "needs": lambda lane: 201}
    assert step(queue_of("c"), [first, second], 1, 3.0, **tight) == Unload(first), "the one used longest ago"
    assert step(queue_of("c"), [second], 1, 3.0, **tight) == Start(("c", None))


def test_a_pinned_model_is_never_unloaded() -> None:
    pinned, other = place("a", idle_since=1.0), place("b", idle_since=2.0)
    pinned.pinned = True
    assert step(queue_of("c"), [pinned, other], 2, 3.0) == Unload(other)
    assert step(queue_of("c"), [pinned], 1, 3.0) is None


def test_a_loaded_worker_waits_while_as_many_run_as_there_are_cores() -> None:
    idle, busy = place("a", mean_run_us=100), place("b", flying=1, mean_run_us=100)
    assert step(queue_of("a"), [idle, busy], 1, 0.0, loaded_max=8) is None
    assert step(queue_of("a"), [idle, busy], 1, LATER, loaded_max=8) == Pause(busy)
    assert step(queue_of("a"), [idle, busy], 2, 0.0, loaded_max=8) == Assign(("a", None), idle)
    busy.leaving = True
    assert step(queue_of("a"), [idle, busy], 1, LATER, loaded_max=8) is None


def test_a_busy_worker_still_gets_short_orders_at_the_bound() -> None:
    busy = place("a", flying=1, mean_run_us=100)
    assert step(queue_of("a"), [busy], 1, 0.0) == Assign(("a", None), busy)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    running_max=st.integers(1, 4),
    loaded_max=st.integers(1, 6),
    memory=st.integers(1, 40),
)
def test_whatever_comes_threads_and_memory_stay_within_their_bounds_and_everything_is_served(
    seed: int, running_max: int, loaded_max: int, memory: int
) -> None:
    """A pool on a clock of its own: places are started, load, run and land at random; every order must end."""
    rng = random.Random(seed)
    needs = {model: rng.randint(1, 10) for model in "abcdef"}
    bounds = Bounds(running_max, max(loaded_max, running_max), memory, lambda lane: needs[lane[0]])
    queue, places, now, served, numbers = OrderQueue(10.0), [], 0.0, 0, 0
    models = [rng.choice("abcdef") for _ in range(40)]
    for number, model in enumerate(models):
        key = (b"job", number, 1)
        entry = Order(
            key, "infer", model_order(model), (b"1",), (), None, "normal", 1.0, client=rng.choice([b"x", b"y"])
        )
        queue.push(queue.ticket(entry, now))
    for _ in range(4000):
        while (todo := next_step(queue, places, bounds, LIMITS, now)) is not None:
            match todo:
                case Assign(lane, chosen):
                    if chosen.idle:
                        chosen.serving_since = now
                    numbers += 1
                    chosen.take_off(numbers, queue.pop(lane))
                case Start(lane):
                    places.append(Place(lane, now, memory_bytes=needs[lane[0]]))
                case Unload(chosen):
                    assert chosen.idle
                    places.remove(chosen)
                case Pause(chosen):
                    chosen.leaving = True
            assert sum(not entry.idle for entry in places) <= running_max
            assert len(places) <= bounds.loaded_max
            assert len(places) == 1 or sum(entry.memory_bytes for entry in places) <= memory
        if not queue.count and not any(entry.flight for entry in places):
            break
        now += 0.1
        chosen = rng.choice([entry for entry in places if not entry.idle])
        if not chosen.ready:
            chosen.ready = True
        elif chosen.flight:
            queue.landed(chosen.land(next(iter(chosen.flight))), 0.1)
            chosen.ran(rng.choice([100, 100_000]))
            served += 1
        if not chosen.flight:
            chosen.leaving, chosen.idle_since = False, now
    assert served == 40
    assert all(account.running == 0 for account in (queue.shares.account(b"x"), queue.shares.account(b"y")))
