"""Tasks that look around now and then share one wake-up."""

import trio
import trio.testing

from dimnode.p2p.ticks import next_tick, tick_after


async def _wakes_at(started_at: float, interval_seconds: float) -> float:
    await trio.sleep_until(started_at)
    await next_tick(interval_seconds)
    return trio.current_time()


def test_tasks_that_began_at_different_moments_wake_together() -> None:
    woken: list[float] = []

    async def one(begin_at: float) -> None:
        woken.append(await _wakes_at(begin_at, 1.0))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for begin_at in (10.1, 10.5, 10.999):
                nursery.start_soon(one, begin_at)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert woken == [11.0, 11.0, 11.0]


def test_a_tick_never_comes_at_once_nor_later_than_its_interval() -> None:
    async def main() -> None:
        for _ in range(5):
            waits_seconds = tick_after(0.25) - trio.current_time()
            assert 0 < waits_seconds <= 0.25
            await next_tick(0.25)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
