"""How busy the event loop is: a reason not to ask for more of what only it can take in."""

import time
from collections.abc import Callable


class LoopLoad:
    """CPU time of the thread that asks, as a share of the time, over a while of at least `seconds`."""

    def __init__(self, seconds: float, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._since: float | None = None
        self._cpu_then = self._share = 0.0

    def share(self, now: float) -> float:
        """As it was in the last while that is over; 0 before there was one. Ask often: it is looked at rarely."""
        if self._since is None or now - self._since >= self._seconds:
            cpu = self._cpu_seconds()
            if self._since is not None:
                self._share = (cpu - self._cpu_then) / (now - self._since)
            self._since, self._cpu_then = now, cpu
        return self._share
