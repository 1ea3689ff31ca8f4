"""Who takes payload of a stream in the moment in which it comes, instead of a reader that waits for its turn."""

from collections.abc import Callable
from typing import Protocol


class Taker(Protocol):
    """Takes payload in the moment in which it comes, in the turn of the connection's reader: no task waits for it.

    Its methods must be quick and must not raise.
    """

    def take(self, payload: bytes | memoryview) -> int:
        """How much of it was taken: the view is of memory that is used again. What is left waits for `resume`."""

    def over(self) -> None:
        """No more comes: the peer finished, or the stream is lost."""


class Filling:
    """Takes what fills the memory of one reader, who waits for all of it."""

    __slots__ = ("_wake", "room")

    def __init__(self, room: memoryview, wake: Callable[[], object]) -> None:
        self.room, self._wake = room, wake

    def take(self, payload: bytes | memoryview) -> int:
        """See `Taker`."""
        taken = min(len(payload), len(self.room))
        self.room[:taken] = payload[:taken]
        self.room = self.room[taken:]
        if not self.room:
            self._wake()
        return taken

    def over(self) -> None:
        """See `Taker`."""
        self._wake()
