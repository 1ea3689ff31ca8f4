"""What this machine gave a test: an aim in seconds is the product's, waiting for a core of a busy machine is not."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

_TICK_SECONDS = 0.02
_SCHEDULED = Path("/proc/thread-self/schedstat")


def waited_seconds() -> float:
    """How long this thread was ready to run and had no core, since it began; 0 where the system does not say."""
    try:
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Watch:
    """Runs while this thread runs, or waits for anything but a core: a loop that its own work holds up is late."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), waited_seconds()
        self.late = 0.0

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began - (waited_seconds() - self._waited) - self.late


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is inside takes at most so long; the test has a bound for what never ends."""
    watch = Watch()
    yield
    assert watch.seconds <= seconds


@asynccontextmanager
async def resting() -> AsyncIterator[Watch]:
    """A watch beside which the loop has nothing to do but to wait: it stands also while the whole machine does."""
    watch = Watch()

    async def look() -> None:
        while True:
            before, waited = time.monotonic(), waited_seconds()
            await trio.sleep(_TICK_SECONDS)
            late = time.monotonic() - before - (waited_seconds() - waited) - _TICK_SECONDS
            watch.late += late if late > _TICK_SECONDS else 0.0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield watch
        nursery.cancel_scope.cancel()
