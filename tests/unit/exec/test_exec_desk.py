"""What is refused before anything starts, and what a worker may claim."""

from dataclasses import replace

import pytest
import trio
from exec_models import model_order

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.channel import BrokenFrame
from dimnode.exec.desk import Desk, fault_of
from dimnode.exec.member import open_regular, read_result
from dimnode.exec.orders import Condition, Finished, Order, Rows
from dimnode.exec.queue import OrderQueue
from dimnode.limits import ExecLimits

LIMITS = ExecLimits()
ROWS = Rows("/r.csv", "label")
INFER = Order((b"j", 0, 1), "infer", model_order("aa"), (b"1",), (), None, "normal", 1.0)
GOOD = [7, "ok", "", "", b"out", 5, 4, 3, 2, 1]


def test_orders_that_make_sense_pass() -> None:
    assert fault_of(INFER, LIMITS) is None
    assert fault_of(replace(INFER, op="evaluate", rows=ROWS), LIMITS) is None
    assert fault_of(replace(INFER, op="cohort", rows=ROWS, model=None), LIMITS) is None


@pytest.mark.parametrize(
    "order",
    [
        replace(INFER, op="train"),  # type: ignore[arg-type]
        replace(INFER, rows=ROWS),
        replace(INFER, model=None),
        replace(INFER, op="statistics", rows=ROWS),
        replace(INFER, op="evaluate"),
        replace(INFER, priority="urgent"),  # type: ignore[arg-type]
        replace(INFER, timeout_seconds=0.0),
        replace(INFER, timeout_seconds=float("nan")),
        replace(INFER, timeout_seconds=float("inf")),
        replace(INFER, op="cohort", model=None, rows=Rows("/r", "l", (), (Condition("a", "eq", 0),) * 17)),
    ],
)
def test_orders_that_contradict_themselves_are_bad(order: Order) -> None:
    fault = fault_of(order, LIMITS)
    assert fault is not None
    assert fault[0] == orders.BAD_ORDER


def test_an_input_over_the_limit_is_named_with_its_size() -> None:
    fault = fault_of(INFER, replace(LIMITS, input_bytes_max=0))
    assert fault == (orders.INPUT_TOO_LARGE, "the input takes 1 bytes, the limit is 0")


def test_a_result_is_read_field_by_field() -> None:
    assert read_result(list(GOOD), 100).output == b"out"
    lies = [(0, "7"), (1, "fine"), (1, "crashed"), (2, "E" * 33), (3, "m" * 10_000), (4, "text"), (5, -1), (9, None)]
    for position, wrong in (*lies, *((place, lie) for place in range(5, 10) for lie in (True, 2**63, 2**64 - 1))):
        fields = list(GOOD)
        fields[position] = wrong  # type: ignore[call-overload]
        with pytest.raises(BrokenFrame):
            read_result(fields, 100)
    with pytest.raises(BrokenFrame):
        read_result(GOOD[:-1], 100)
    with pytest.raises(BrokenFrame):
        read_result(GOOD, 2)


def test_an_order_is_reported_once_and_a_late_answer_is_dropped() -> None:
    told: list[Finished] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            desk = Desk(told.append, nursery)
            ticket = OrderQueue(1.0).ticket(INFER, 0.0)
            desk.open(ticket)
            desk.answered(ticket, read_result(GOOD, 100), "walls", {})
            desk.answered(ticket, read_result(GOOD, 100), "walls", {})
            desk.failed(ticket, "timeout", orders.TIMED_OUT, "late")
            desk.fail_soon(ticket, "timeout", orders.TIMED_OUT, "later")
            assert desk.counts == {"ok": 1}
            assert INFER.key not in desk

    trio.run(main)
    assert [outcome.status for outcome in told] == ["ok"]


def test_a_report_from_inside_an_offer_comes_after_it() -> None:
    told: list[Finished] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            desk = Desk(told.append, nursery)
            ticket = OrderQueue(1.0).ticket(INFER, 0.0)
            desk.open(ticket)
            desk.fail_soon(ticket, "failed", orders.BAD_ORDER, "bad")
            assert told == []

    trio.run(main)
    assert [outcome.code for outcome in told] == [orders.BAD_ORDER]


def test_only_plain_files_are_opened(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os

    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(RunFailed, match="model file"):
            open_regular(str(tmp_path / name), orders.NO_MODEL, "model file")
