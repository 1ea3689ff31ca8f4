"""What is refused for good can be found to be wrong, and loading is paid for."""

import math
import os
import socket
from dataclasses import replace
from typing import cast

from exec_models import model_order

from dimnode.exec import orders
from dimnode.exec.admission import Room, cost_name, objection, worker_bytes
from dimnode.exec.channel import FrameBuffer
from dimnode.exec.estimates import TRIAL_EVERY, Estimates
from dimnode.exec.launch import Zygote
from dimnode.exec.ledger import Ledger, believed
from dimnode.exec.member import Member, Result
from dimnode.exec.orders import Order
from dimnode.exec.queue import OrderQueue, Ticket
from dimnode.exec.shares import Shares
from dimnode.limits import ExecLimits

GIB = 1024**3
ROOM = Room(2, 4 * GIB, 0, 2 * GIB, 4 * GIB, True)


def order(timeout: float = 5.0, client: bytes = b"c") -> Order:
    model = model_order("m")
    return Order((client, 1, 1), "infer", model, (b"1",), (), None, "normal", timeout, client=client)


def codes(costs: Estimates, count: int, room: Room = ROOM) -> list[str]:
    shares = Shares()
    found = [objection(order(), 1, shares.peek(b"c"), shares, costs, room) for _ in range(count)]
    return [no.code if no is not None else "" for no in found]


def test_a_time_that_heavy_inputs_drove_up_keeps_nobody_out_for_ever() -> None:
    costs = Estimates(8)
    for _ in range(30):
        costs.ran(cost_name(order()), 1, 60.0)
    for _ in range(2):
        assert codes(costs, TRIAL_EVERY) == [orders.TOO_LATE] * (TRIAL_EVERY - 1) + [""]
        costs.ran(cost_name(order()), 1, 0.01)  # what the trial took
    assert codes(costs, 2) == ["", ""]


def test_a_large_order_is_judged_by_what_was_measured_and_not_by_its_rows_times_a_small_run() -> None:
    costs, shares = Estimates(8), Shares()
    for _ in range(50):
        costs.ran(cost_name(order()), 1, 0.008)
    assert objection(order(), 100_000, shares.peek(b"c"), shares, costs, ROOM) is None
    for _ in range(8):
        costs.ran(cost_name(order()), 100_000, 8180.0)
    no = objection(order(), 100_000, shares.peek(b"c"), shares, costs, ROOM)
    assert no is not None
    assert "8180 s" in no.message


def test_a_peak_of_memory_comes_down_by_trials() -> None:
    costs = Estimates(8)
    costs.ran(cost_name(order()), 1, 0.01, 3 * GIB)
    for _ in range(4):
        assert codes(costs, TRIAL_EVERY) == [orders.NO_MEMORY] * (TRIAL_EVERY - 1) + [""]
        costs.ran(cost_name(order()), 1, 0.01, GIB // 8)
    assert codes(costs, 2) == ["", ""]


def test_beside_pins_what_does_not_fit_is_not_tried() -> None:
    costs = Estimates(8)
    costs.ran(cost_name(order()), 1, 0.01, 3 * GIB)
    pinned = Room(2, 4 * GIB, 2 * GIB, 4 * GIB, 4 * GIB, False)
    assert set(codes(costs, 3 * TRIAL_EVERY, pinned)) == {orders.NO_MEMORY}


def test_what_is_only_expected_of_a_worker_is_not_taken_for_measured() -> None:
    queue = OrderQueue(10.0)
    ledger = Ledger(ExecLimits(), queue, GIB)
    member, ticket = starting(queue, 100.0)
    member.memory_bytes = ExecLimits().worker_bytes_expected
    ledger.became_ready(member, 103.0)  # the zygote has not said yet which process it is
    member.serve_from(103.0)
    ledger.landed(member, ticket, claim(1000), 103.5)
    assert ledger.costs.memory_bytes("m") is None
    member.pid = os.getpid()
    ledger.landed(member, ticket, claim(1000), 105.0)
    assert ledger.costs.memory_bytes("m") == max(member.memory_bytes, member.highest_bytes)
    member.channel.close()


def claim(run_us: int, cpu_us: int = 0) -> Result:
    return Result(1, "ok", "", "", b"", run_us, cpu_us, 0, 1, 1)


def test_a_worker_that_claims_more_time_than_passed_is_cut_to_what_passed() -> None:
    member, _ = starting(OrderQueue(10.0), 100.0)
    member.serve_from(200.0)
    assert believed(member, claim(300_000, 200_000), 200.5) == claim(300_000, 200_000)
    assert believed(member, claim(300_000), 200.5).run_us == 200_000, "0.5 s passed, and 0.3 s are claimed already"
    assert believed(member, claim(2**53, 2**53), 200.5) == claim(0, 0)
    assert believed(member, claim(2**53, 2**53), 200.75) == claim(250_000, 250_000 * (os.cpu_count() or 1))
    member.serve_from(300.0)
    assert believed(member, claim(1_000_000), 299.9).run_us == 0, "a clock that stood still gives nobody time"
    member.channel.close()


def test_orders_that_were_handed_over_ahead_keep_their_honest_times() -> None:
    member, _ = starting(OrderQueue(10.0), 100.0)
    member.serve_from(200.0)
    heard_together = [believed(member, claim(1000), 200.0161) for _ in range(16)]
    assert [found.run_us for found in heard_together] == [1000] * 16
    member.channel.close()


def starting(queue: OrderQueue, now: float) -> tuple[Member, Ticket]:
    """A worker that was asked for at this moment, with the order that it was asked for."""
    queue.push(queue.ticket(order(), now))
    ticket = queue.pop(("m", None))
    channel, far = socket.socketpair()
    far.close()
    member = Member(
        ("m", None),
        now,
        zygote=cast(Zygote, None),
        token=1,
        channel=channel,
        frames=FrameBuffer(64),
        directory="",
        deadline=math.inf,
    )
    member.take_off(1, ticket)
    return member, ticket


def test_an_identity_pays_for_the_load_of_its_model_and_for_one_that_never_ends() -> None:
    queue = OrderQueue(10.0)
    ledger = Ledger(ExecLimits(), queue, GIB)
    member, ticket = starting(queue, 100.0)
    before = ticket.account.virtual
    ledger.became_ready(member, 103.0)
    assert ticket.account.virtual - before == 3.0
    member.channel.close()

    queue = OrderQueue(10.0)
    ledger = Ledger(ExecLimits(), queue, GIB)
    member, ticket = starting(queue, 100.0)
    ledger.lost(member, ticket, 160.0)
    assert ticket.account.virtual == 60.0
    assert ticket.account.running == 0
    member.channel.close()


def test_a_worker_that_is_ready_before_its_process_is_known_is_weighed_when_it_is() -> None:
    ledger = Ledger(ExecLimits(), queue := OrderQueue(10.0), GIB)
    member, ticket = starting(queue, 100.0)
    ledger.became_ready(member, 103.0)
    assert ledger.costs.memory_bytes("m") is None
    loaded = replace(ticket, order=replace(ticket.order, op="load"))
    ledger.landed(member, loaded, claim(0), 103.1)
    member.pid = os.getpid()
    ledger.measure(member, 103.2)
    assert ledger.costs.memory_bytes("m") == member.measured_bytes > 1_000_000, "an order to load is no run"
    assert [row.model for row in ledger.costs.rows()] == ["m"]
    member.channel.close()


def test_a_batch_whose_worker_was_lost_is_charged_once_though_it_goes_back() -> None:
    queue = OrderQueue(10.0)
    ledger = Ledger(ExecLimits(), queue, GIB)
    member, ticket = starting(queue, 100.0)
    ticket.started_at = 101.0
    ledger.lost_together(ticket, 131.0)
    queue.push(ticket)  # as the crew does with it
    assert abs(ticket.account.virtual - 30.0) < 1e-9
    assert (ticket.account.running, ticket.account.queued) == (0, 1)
    member.channel.close()


def test_a_model_that_never_ran_needs_at_least_room_for_its_files() -> None:
    large = replace(order(), model=replace(model_order("m"), file_bytes=5 * GIB))
    limits, shares = ExecLimits(), Shares()
    no = objection(large, 1, shares.peek(b"c"), shares, Estimates(8), replace(ROOM, worker_bytes=17 * GIB))
    assert no is not None and no.code == orders.NO_MEMORY
    roomy = replace(ROOM, budget_bytes=20 * GIB, worker_bytes=17 * GIB, free_bytes=6 * GIB, loaded=False)
    assert objection(large, 1, shares.peek(b"c"), shares, Estimates(8), roomy) is None
    # Its worker may use its files three times over, as far as the operator lets models take memory.
    assert worker_bytes(order(), limits, 20 * GIB) == limits.worker_memory_bytes_max
    assert worker_bytes(large, limits, 20 * GIB) == limits.worker_memory_bytes_max + 15 * GIB
    assert worker_bytes(large, limits, 4 * GIB) == limits.worker_memory_bytes_max + 4 * GIB
