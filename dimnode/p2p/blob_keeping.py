"""What becomes of leaves after they came: they are checked and written in a thread, while the loop reads the next ones.

The way to a thread and back takes its time while the loop is busy. So the thread does not come back after each leaf: it
stays for as long as leaves come, and says what became of them from there, unless the loop said that it will look by
itself. One thread, not several: they would wait for each other in the file system, and spin while they do.
Who brings them sees how many wait, and bounds them.
"""

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

import trio

from dimnode.errors import PeerFault
from dimnode.records.ids import PeerId


class Arrival(NamedTuple):
    """A leaf that nobody has checked yet, in memory that is used again; its SHA-256, if somebody had time for it."""

    peer: PeerId
    leaf: int
    content: memoryview
    room: bytearray
    digest: bytes | None = None


Keep = Callable[[int, memoryview, bytes | None], None]
"""Checks and writes a leaf. Blocks. Raises `PeerFault` for a wrong leaf; what else it raises ends `Keeper.run`."""
Landed = Callable[[Arrival, PeerFault | None], None]
"""Told in the loop what became of a leaf, in the order in which they came."""


class Keeper:
    """For one blob. Any task may `put`, one runs `run`."""

    def __init__(self, keep: Keep, landed: Landed, linger_seconds: float) -> None:
        """linger_seconds: so long the thread waits for the next leaf before it ends."""
        self._keep, self._landed, self._linger_seconds = keep, landed, linger_seconds
        self.waiting = 0  # and being written
        self.patient = False  # the loop will look by itself soon, and need not be woken
        self._queue: SimpleQueue[Arrival | None] = SimpleQueue()  # filled by the loop, emptied by the thread
        self._checked: deque[tuple[Arrival, PeerFault | None]] = deque()  # the other way
        self._some_wait, self._some_checked = trio.Event(), trio.Event()
        self._over = False

    def put(self, arrival: Arrival) -> None:
        """It is checked soon."""
        self.waiting += 1
        self._queue.put(arrival)
        self._some_wait.set()

    def hurry(self) -> None:
        """Nobody looks by itself any more, and somebody waits for what becomes of leaves."""
        self.patient = False
        if self._checked:  # else the thread, which will not find us patient, says it
            self._wake()

    def collect(self) -> None:
        """Tell what became of leaves until now."""
        while self._checked:
            self.waiting -= 1
            self._landed(*self._checked.popleft())

    async def run(self) -> None:
        """Until cancelled: what is being written then is written, what waits is not. Raises what `keep` does."""
        async with trio.open_nursery() as nursery:  # one hears of the thread while the other waits for its end
            nursery.start_soon(self._tell)
            while True:
                await self._some_wait.wait()
                self._some_wait = trio.Event()
                if not self._queue.empty():  # else the thread, which was still there, took them
                    await trio.to_thread.run_sync(self._work, trio.lowlevel.current_trio_token())
                    self.collect()  # what was promised to come, so that we would look, did not

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """In the thread, for as long as leaves come. Its caller waits for its end, so there is a loop to tell."""
        while (arrival := self._next()) is not None and not self._over:
            fault = None
            try:
                self._keep(arrival.leaf, arrival.content, arrival.digest)
            except PeerFault as found:
                fault = found
            self._checked.append((arrival, fault))
            if not self.patient:
                token.run_sync_soon(self._wake, idempotent=True)

    def _next(self) -> Arrival | None:
        try:
            return self._queue.get(timeout=self._linger_seconds)
        except Empty:
            return None

    def _wake(self) -> None:
        self._some_checked.set()

    async def _tell(self) -> None:
        try:
            while True:
                await self._some_checked.wait()
                self._some_checked = trio.Event()
                self.collect()
        finally:
            self._over = True
            self._queue.put(None)  # the thread may be waiting
