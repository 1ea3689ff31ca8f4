"""Which orders may share a batch, and of what size batches should be."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from exec_models import model_order
from hypothesis import given
from hypothesis import strategies as st

from dimnode.exec.batching import RETRY_BATCHES, TRIALS, BatchSizes, batch_kind, share_of
from dimnode.exec.orders import Order, Rows, Take
from dimnode.records.tensors import Tensor, encode_tensors


def blob(shape: tuple[int, ...], dtype: str = "float32", name: str = "x") -> bytes:
    array = np.zeros(shape, dtype=dtype)
    return encode_tensors([Tensor(name, dtype, array.shape, array.tobytes())])


def order(*inputs: bytes, **changes: Any) -> Order:
    plain = Order((b"job", 1, 1), "infer", model_order("m"), inputs, (), None, "normal", 1.0, deterministic=False)
    return replace(plain, **changes)


def test_orders_with_equal_trailing_shapes_and_types_are_of_one_kind() -> None:
    one, rows = batch_kind(order(blob((1, 30))))
    two, more = batch_kind(order(blob((3, 30))))
    assert one == two
    assert one is not None
    assert (rows, more) == (1, 3)
    for other in (blob((1, 31)), blob((1, 30), "float64"), blob((1, 30), name="y"), blob((1, 30, 1))):
        assert batch_kind(order(other))[0] != one
    assert batch_kind(order(blob((1, 30)), take=(Take("x", 0, "x"),)))[0] != one


def test_what_asks_for_equal_bits_or_has_no_common_first_dimension_runs_alone() -> None:
    good = blob((2, 3))
    alone = [
        order(good, deterministic=True),
        order(good, op="evaluate", rows=Rows("/rows", "label")),
        order(),
        order(blob(())),
        order(blob((0, 3))),
        order(b"junk"),
        order(good, blob((3, 3), name="y")),
        order(blob((5,)), take=(Take("x", 0, "x", 0, 2),)),
    ]
    assert [batch_kind(entry)[0] for entry in alone] == [None] * len(alone)
    assert batch_kind(order(blob((2**31 - 1, 0)))) == (None, 1), "empty rows say nothing of what rows cost"
    assert batch_kind(order(blob((7, 30)), deterministic=True)) == (None, 7), "its costs are those of seven rows"
    assert batch_kind(order(good, blob((2, 1), name="y")))[0] is not None
    assert batch_kind(order(blob((5,))))[0] is not None


def learn(sizes: BatchSizes, seconds_of: dict[int, float], rounds: int = 100, waiting: int = 100) -> list[int]:
    """Let it choose and measure for a while; the sizes that it chose."""
    chosen = []
    for _ in range(TRIALS):
        sizes.ran(1, seconds_of[1])
    for _ in range(rounds):
        rows = sizes.rows(waiting)
        chosen.append(rows)
        sizes.ran(rows, seconds_of[rows])
    return chosen


def test_the_size_with_the_most_rows_per_second_is_found() -> None:
    sizes = BatchSizes(8, 1.0)
    chosen = learn(sizes, {1: 0.010, 2: 0.018, 4: 0.034, 8: 0.090})
    assert chosen[-1] == sizes.best() == 4
    assert chosen.count(8) <= TRIALS


def test_a_batch_that_gains_nothing_is_given_up_after_a_few_trials() -> None:
    sizes = BatchSizes(8, 1.0)
    chosen = learn(sizes, {1: 0.010, 2: 0.0199, 4: 0.04, 8: 0.08})
    trials = [size for size in (2, 4, 8) for _ in range(TRIALS)]
    assert chosen == [*trials, *[1] * (100 - len(trials))]
    assert sizes.best() == 1


def test_a_batch_is_never_longer_than_what_the_first_in_it_should_bear() -> None:
    sizes = BatchSizes(8, 0.05)
    assert max(learn(sizes, {1: 0.02, 2: 0.03, 4: 0.04, 8: 0.05})) <= 2


def test_a_lone_order_runs_alone_and_a_model_that_is_switched_off_too() -> None:
    sizes = BatchSizes(8, 1.0)
    learn(sizes, {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.02})
    assert sizes.rows(1) == 1
    assert sizes.rows(8) == 8
    assert sizes.rows(5) == 4
    sizes.switch_off("its first dimension is fixed")
    assert (sizes.rows(8), sizes.best()) == (1, 1)


def test_sizes_are_measured_anew_after_a_while() -> None:
    sizes = BatchSizes(8, 1.0)
    learn(sizes, {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.02})
    chosen = learn(sizes, {1: 0.010, 2: 0.03, 4: 0.06, 8: 0.12}, rounds=2 * RETRY_BATCHES)
    assert chosen[-1] == 1


@pytest.mark.slow
@given(
    times=st.lists(st.tuples(st.integers(1, 8), st.floats(0.0001, 0.2)), max_size=60),
    waiting=st.integers(0, 100),
    most=st.sampled_from([1, 2, 4, 8]),
)
def test_a_size_is_always_within_what_waits_and_what_is_allowed(
    times: list[tuple[int, float]], waiting: int, most: int
) -> None:
    sizes = BatchSizes(most, 0.1)
    for rows, seconds in times:
        sizes.ran(rows, seconds)
    found = sizes.rows(waiting)
    assert 1 <= found <= max(1, min(waiting, most))


def test_free_workers_share_what_waits() -> None:
    assert [share_of(*pair) for pair in ((8, 1), (8, 2), (9, 2), (1, 4), (0, 0), (3, 0))] == [8, 4, 5, 1, 0, 3]
