"""Deadlines against the simplest thing that could work: a dict."""

from hypothesis import given
from hypothesis import strategies as st

from dimnode.jobs.deadlines import Deadlines, earliest

RATE = 4
LATE_SECONDS = 1 / RATE

moments = st.integers(0, 400).map(lambda number: number / 16)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 8), moments),
        st.tuples(st.just("drop"), st.integers(0, 8)),
        st.tuples(st.just("pop"), moments),
    ),
    max_size=60,
)


@given(moves)
def test_every_deadline_fires_once_never_early_and_at_most_one_bucket_late(steps: list[tuple[object, ...]]) -> None:
    deadlines, wanted, mono = Deadlines[int](RATE), dict[int, float](), 0.0
    for step in steps:
        match step:
            case ("set", int(key), float(after)):
                deadlines.set(key, mono + after)
                wanted[key] = mono + after
            case ("drop", int(key)):
                deadlines.drop(key)
                wanted.pop(key, None)
            case ("pop", float(after)):
                mono += after
                fired = deadlines.pop(mono)
                assert len(fired) == len(set(fired))
                for key in fired:
                    assert wanted.pop(key) <= mono
                assert all(moment > mono - LATE_SECONDS for moment in wanted.values())
        assert len(deadlines) == len(wanted)
        due = deadlines.due()
        assert (due is None) == (not wanted)
        if due is not None:
            first = min(wanted.values())
            assert first <= due <= first + LATE_SECONDS


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=200))
def test_deadlines_that_are_dropped_leave_no_trace(steps: list[tuple[int, bool]]) -> None:
    deadlines = Deadlines[int](RATE)
    for number, (key, keep) in enumerate(steps):
        deadlines.set(key, number / 10)
        if not keep:
            deadlines.drop(key)
    for key in range(51):
        deadlines.drop(key)
    assert deadlines.due() is None and len(deadlines) == 0
    assert not deadlines._heap and not deadlines._queued and not deadlines._buckets


@given(st.lists(st.one_of(st.none(), moments), min_size=1))
def test_the_earliest_of_several_moments_ignores_those_that_are_not(several: list[float | None]) -> None:
    assert earliest(*several) == min((moment for moment in several if moment is not None), default=None)
