"""Which worker gets what."""

from exec_models import model_order

from dimnode.exec.orders import Order
from dimnode.exec.placement import Assign, Drain, Place, Start, next_step
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


def test_the_first_order_starts_a_worker_and_then_gets_it() -> None:
    queue = queue_of("a")
    assert next_step(queue, [], 2, LIMITS, 0.0) == Start(("a", None), None)
    started = place("a", ready=False)
    assert next_step(queue, [started], 2, LIMITS, 0.0) == Assign(("a", None), started)


def test_a_worker_that_still_loads_gets_one_order_and_no_twin() -> None:
    assert next_step(queue_of("a"), [place("a", flying=1, ready=False)], 2, LIMITS, 0.0) is None


def test_short_orders_are_pipelined_into_one_worker() -> None:
    warm = place("a", flying=3, mean_run_us=100)
    assert next_step(queue_of("a"), [warm], 2, LIMITS, 0.0) == Assign(("a", None), warm)


def test_long_orders_go_to_a_second_worker_instead_of_waiting() -> None:
    busy = place("a", flying=1, mean_run_us=50_000)
    assert next_step(queue_of("a"), [busy], 2, LIMITS, 0.0) == Start(("a", None), None)
    assert next_step(queue_of("a"), [busy], 1, LIMITS, 0.0) is None


def test_the_emptier_of_two_warm_workers_is_chosen() -> None:
    full, empty = place("a", flying=5, mean_run_us=100), place("a", flying=1, mean_run_us=100)
    assert next_step(queue_of("a"), [full, empty], 2, LIMITS, 0.0) == Assign(("a", None), empty)


def test_another_model_takes_the_place_that_was_idle_longest() -> None:
    old, young = place("a", idle_since=1.0), place("b", idle_since=2.0)
    assert next_step(queue_of("c"), [young, old], 2, LIMITS, 3.0) == Start(("c", None), old)


def test_a_second_worker_for_a_warm_model_does_not_push_out_one_that_was_just_used() -> None:
    busy, idle = place("a", flying=1, mean_run_us=50_000), place("b", idle_since=LATER)
    assert next_step(queue_of("a"), [busy, idle], 2, LIMITS, LATER) is None
    assert next_step(queue_of("a"), [busy, idle], 2, LIMITS, 2 * LATER) == Start(("a", None), idle)


def test_a_waiting_model_has_a_settled_worker_drained_but_not_a_fresh_one() -> None:
    busy = place("a", flying=2, mean_run_us=100)
    assert next_step(queue_of("b"), [busy], 1, LIMITS, 0.0) is None
    assert next_step(queue_of("b"), [busy], 1, LIMITS, LATER) == Drain(busy)
    busy.leaving = True
    assert next_step(queue_of("b"), [busy], 1, LIMITS, LATER) is None


def test_a_leaving_worker_gets_nothing_more() -> None:
    leaving = place("a", flying=1, mean_run_us=100)
    leaving.leaving = True
    assert next_step(queue_of("a"), [leaving], 1, LIMITS, LATER) is None


def test_a_model_that_waits_longer_is_served_before_one_that_is_warm() -> None:
    queue = queue_of("b", now=0.0)
    key = (b"job", 9, 1)
    queue.push(queue.ticket(Order(key, "infer", model_order("a"), (b"1",), (), None, "normal", 1.0), 1.0))
    idle = place("a", mean_run_us=100)
    assert next_step(queue, [idle], 1, LIMITS, 2.0) == Start(("b", None), idle)


def test_two_models_that_take_turns_share_by_tenure_not_by_order() -> None:
    turns = queue_of("b", "a", "b", "a")
    idle = place("a", mean_run_us=100)
    soon = LIMITS.worker_tenure_seconds / 2
    assert next_step(turns, [idle], 1, LIMITS, soon) == Assign(("a", None), idle)
    assert next_step(turns, [idle], 1, LIMITS, LATER) == Start(("b", None), idle)
    assert next_step(queue_of("b"), [idle], 1, LIMITS, soon) == Start(("b", None), idle)


def test_large_inputs_are_not_piled_up_in_a_worker() -> None:
    warm, queue = place("a", mean_run_us=100), queue_of("a")
    ticket = queue.pop(("a", None))
    ticket.input_bytes = LIMITS.pipeline_bytes_max + 1
    warm.take_off(1, ticket)
    assert warm.room(LIMITS) == 0
    warm.land(1)
    assert warm.room(LIMITS) == LIMITS.worker_inflight_max
