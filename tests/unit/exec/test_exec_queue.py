"""Who is next."""

import random

from exec_models import model_order

from dimnode.exec.orders import Order, Rows
from dimnode.exec.queue import OrderQueue, Ticket, lane_of

AGEING_SECONDS = 10.0


def order(number: int, priority: str = "normal", model: str = "m") -> Order:
    return Order((b"job", number, 1), "infer", model_order(model), (b"12",), (), None, priority, 1.0)  # type: ignore[arg-type]


def push(queue: OrderQueue, now: float, *orders: Order) -> list[Ticket]:
    tickets = [queue.ticket(entry, now) for entry in orders]
    for ticket in tickets:
        queue.push(ticket)
    return tickets


def pop_all(queue: OrderQueue) -> list[int]:
    numbers = []
    while queue.count:
        lane = next(iter(queue.lanes(16)))
        numbers.append(queue.pop(lane).order.key[1])
    return numbers


def test_higher_priority_goes_first_and_equals_go_in_order() -> None:
    queue = OrderQueue(AGEING_SECONDS)
    push(queue, 0.0, order(1, "low"), order(2, "normal"), order(3, "high"), order(4, "normal"))
    assert pop_all(queue) == [3, 2, 4, 1]


def test_a_low_order_waits_at_most_two_ageing_periods_behind_high_ones() -> None:
    queue = OrderQueue(AGEING_SECONDS)
    push(queue, 0.0, order(1, "low"))
    push(queue, 19.9, order(2, "high"))
    push(queue, 20.1, order(3, "high"))
    assert pop_all(queue) == [2, 1, 3]


def test_priorities_count_across_models() -> None:
    queue = OrderQueue(AGEING_SECONDS)
    push(queue, 0.0, order(1, "normal", "a"), order(2, "high", "b"), order(3, "low", "c"), order(4, "normal", "b"))
    assert pop_all(queue) == [2, 1, 4, 3]


def test_a_ticket_that_comes_back_stands_in_front_again() -> None:
    queue = OrderQueue(AGEING_SECONDS)
    first, _ = push(queue, 0.0, order(1), order(2))
    assert queue.pop(first.lane) is first
    push(queue, 5.0, order(3))
    queue.push(first)
    assert pop_all(queue) == [1, 2, 3]


def test_counts_and_bytes_return_to_zero_whatever_is_pushed_popped_and_removed() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    queue, inside = OrderQueue(AGEING_SECONDS), set[Ticket]()
    for step in range(300):
        if inside and rng.random() < 0.4:
            ticket = rng.choice(sorted(inside, key=lambda entry: entry.number))
            if rng.random() < 0.5:
                queue.remove(ticket)
            else:
                ticket = queue.pop(ticket.lane)
            inside.remove(ticket)
        else:
            inside.update(
                push(queue, float(step), order(step, rng.choice(["low", "normal", "high"]), rng.choice("abc")))
            )
        assert queue.count == len(inside)
        assert queue.bytes == 2 * len(inside)
        assert all(queue.head(lane) in inside for lane in queue.lanes(16))
    assert len(pop_all(queue)) == len(inside)
    assert (queue.count, queue.bytes, list(queue.lanes(16))) == (0, 0, [])


def test_only_a_foreign_model_over_rows_gets_a_worker_of_its_own() -> None:
    rows = Rows("/data.csv", "label")
    evaluate = Order((b"j", 0, 1), "evaluate", model_order("hash"), (), (), rows, "normal", 1.0)
    count = Order((b"j", 1, 1), "cohort", None, (), (), rows, "normal", 1.0)
    assert lane_of(evaluate) == ("hash", (b"j", 0, 1))
    assert lane_of(count) == ("", None)
    assert lane_of(order(2)) == ("m", None)
