"""What this process takes of the machine, as a reason not to ask more of it."""

import time
from collections.abc import Callable


class OwnLoad:
    """CPU time of all threads of this process, in cores, over a while of at least `seconds`."""

    def __init__(self, seconds: float, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._since: float | None = None
        self._cpu_then = 0.0
        self._cores = 0.0

    def cores(self, now: float) -> float:
        """As it was in the last while that is over; 0 before there was one. Ask often: it is looked at rarely."""
        if self._since is None or now - self._since >= self._seconds:
            cpu = self._cpu_seconds()
            if self._since is not None:
                self._cores = (cpu - self._cpu_then) / (now - self._since)
            self._since, self._cpu_then = now, cpu
        return self._cores
