"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable

WAIT_SECONDS_MAX = 30.0


def eventually(holds: Callable[[], bool], seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Ask again until it holds; fail after the deadline."""
    deadline = time.monotonic() + seconds_max
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
