"""What models cost, learned from runs."""

from hypothesis import given
from hypothesis import strategies as st

from dimnode.exec.estimates import Estimates, Mean, size_class


def test_nothing_is_expected_of_a_model_that_never_ran() -> None:
    found = Estimates(8)
    assert found.run_seconds("m", 1) is None
    assert found.run_seconds_least("m", 1) is None
    assert found.memory_bytes("m") is None
    assert len(found) == 0, "a question leaves no trace"


def test_sizes_are_grouped_by_powers_of_two() -> None:
    assert [size_class(rows) for rows in (0, 1, 2, 3, 4, 5, 8, 9, 1 << 60)] == [0, 0, 1, 2, 2, 3, 3, 4, 23]


def test_more_rows_take_longer_in_proportion_and_fewer_at_most_as_long() -> None:
    found = Estimates(8)
    for _ in range(20):
        found.ran("m", 8, 0.08)
    assert abs((found.run_seconds("m", 8) or 0) - 0.08) < 1e-9
    assert abs((found.run_seconds("m", 32) or 0) - 0.32) < 1e-9
    assert abs((found.run_seconds("m", 1) or 0) - 0.08) < 1e-9
    assert (found.run_seconds_least("m", 32) or 0) <= 0.08


def test_two_sizes_tell_apart_what_every_run_costs_and_what_each_row_does() -> None:
    found = Estimates(8)
    found.ran("m", 1, 0.008)
    found.ran("m", 1024, 0.018)
    assert abs((found.run_seconds("m", 2048) or 0) - 0.028) < 1e-4
    assert found.run_seconds("m", 100_000) == found.run_seconds("m", 8 * 1024), "no further than was measured, by far"


def test_one_small_run_keeps_no_large_one_out() -> None:
    found = Estimates(8)
    for _ in range(50):
        found.ran("m", 1, 0.008)
    assert (found.run_seconds("m", 100_000) or 0) <= 0.064
    assert (found.known_seconds("m", 100_000) or 0) <= 0.008
    assert found.known_seconds("other", 1) is None


def test_memory_is_the_peak_of_this_size_and_smaller_ones() -> None:
    found = Estimates(8)
    found.loaded("m", 0.1)
    found.weighed("m", 50)
    assert found.memory_bytes("m") == 50
    found.ran("m", 1, 0.01, 100)
    found.ran("m", 64, 0.01, 1000)
    assert (found.memory_bytes("m", 1), found.memory_bytes("m", 64), found.memory_bytes("m", 1024)) == (100, 1000, 1000)


def test_a_peak_that_was_seen_raises_the_estimate_of_its_size_and_never_lowers_it() -> None:
    found = Estimates(8)
    found.ran("m", 4, 0.01, 100)
    found.peaked("m", 3, 900)
    found.peaked("m", 4, 200)
    assert (found.memory_bytes("m", 4), found.memory_bytes("m", 1)) == (900, None)


def test_what_was_measured_before_a_restart_is_expected_after_it_and_soon_outweighed() -> None:
    before, after = Estimates(8), Estimates(8)
    before.loaded("m", 0.5)
    before.weighed("m", 50)
    for _ in range(1000):
        before.ran("m", 8, 0.08, 700)
    before.ran("evaluate:m", 1, 2.0)
    for row in before.rows():
        after.recall(row)
    assert [after.describe(name) for name in ("m", "evaluate:m")] == [
        before.describe(name) for name in ("m", "evaluate:m")
    ]
    assert abs((after.run_seconds("m", 32) or 0) - 0.32) < 1e-6
    for _ in range(16):
        after.ran("m", 8, 0.8)
    assert (after.run_seconds("m", 8) or 0) > 0.7


def test_only_the_models_used_last_are_remembered() -> None:
    found = Estimates(3)
    for name in "abcade":
        found.ran(name, 1, 0.01)
    assert len(found) == 3
    assert found.run_seconds("b", 1) is None
    assert found.run_seconds("a", 1) is not None


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=60))
def test_a_mean_stays_within_what_was_measured(values: list[float]) -> None:
    mean = Mean()
    for value in values:
        mean.add(value)
    assert min(values) - 1e-9 <= mean.value <= max(values) + 1e-9
    assert mean.deviation >= 0


def test_a_mean_follows_a_change_within_some_ten_runs() -> None:
    mean = Mean()
    for _ in range(50):
        mean.add(1.0)
    for _ in range(16):
        mean.add(2.0)
    assert mean.value > 1.85
