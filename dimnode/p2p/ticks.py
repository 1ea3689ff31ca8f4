"""Waking up at the same moments: tasks that look around now and then share one wake-up of the process.

Rule: an idle node wakes once for all that it looks at each second. Processes differ: trio starts each clock somewhere.
"""

import trio


def tick_after(interval_seconds: float) -> float:
    """When trio's clock shows the next whole multiple of the interval: in at most that time."""
    return (trio.current_time() // interval_seconds + 1) * interval_seconds


async def next_tick(interval_seconds: float) -> None:
    """Sleep until then."""
    await trio.sleep_until(tick_after(interval_seconds))
