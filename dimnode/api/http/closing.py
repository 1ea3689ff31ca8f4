"""That the door is closing, told to whoever waits behind it.

Rule: an answer that is being waited for is given as it stands, and a stream ends as streams do, not by a broken
connection. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Closing:
    """Set once."""

    def __init__(self) -> None:
        self.begun = False
        self._wakers: set[Callable[[], object]] = set()

    def begin(self) -> None:
        """From now on nobody is kept waiting."""
        self.begun = True
        for wake in tuple(self._wakers):
            wake()

    @contextmanager
    def wakes(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` when the door closes, at once if it closes already, as long as the block runs."""
        self._wakers.add(wake)
        try:
            if self.begun:
                wake()
            yield
        finally:
            self._wakers.discard(wake)
