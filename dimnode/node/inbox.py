"""The loop's inbox: three lanes, drained in the order that finishes work before it starts new work.

Rule: own results first, then peers and workers, then doors, one event per client in turn; every lane is bounded, and
who puts into a full lane waits (back-pressure). Status questions never come here.
"""

from collections import deque

import trio

from dimnode.jobs.events import Event
from dimnode.limits import LIMITS, JobLimits


class Inbox:
    """Filled by doors, drained by the one loop."""

    def __init__(self, limits: JobLimits = LIMITS.jobs) -> None:
        self._limits = limits
        self._local: deque[Event] = deque()
        self._peers: deque[Event] = deque()
        self._doors: dict[object, deque[Event]] = {}
        self._door_events = 0
        self._room = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()
        self.highest = 0

    def __len__(self) -> int:
        return len(self._local) + len(self._peers) + self._door_events

    def put_local(self, event: Event) -> None:
        """From the loop itself or a callback inside it: bounded by what the loop started, so it never waits."""
        self._local.append(event)
        self._wake()

    async def put_peer(self, event: Event) -> None:
        """From a link or a worker; waits while the lane is full."""
        while len(self._peers) >= self._limits.inbox_events_max:
            await self._room.park()
        self._peers.append(event)
        self._wake()

    async def put_door(self, client: object, event: Event) -> None:
        """From a client; waits while the doors' lanes are full."""
        while self._door_events >= self._limits.inbox_events_max:
            await self._room.park()
        lane = self._doors.get(client)
        if lane is None:
            lane = self._doors[client] = deque()
        lane.append(event)
        self._door_events += 1
        self._wake()

    async def drain(self, due: float | None) -> list[Event]:
        """What is there now, at most one batch; waits until something is, or until `due` (then maybe nothing)."""
        batch = self._take()
        if batch:
            return batch
        if due is None:
            await self._idle.park()
        else:
            with trio.move_on_at(due):
                await self._idle.park()
        return self._take()

    def _take(self) -> list[Event]:
        most = self._limits.batch_events_max
        batch: list[Event] = []
        for lane in (self._local, self._peers):
            while lane and len(batch) < most:
                batch.append(lane.popleft())
        while self._door_events and len(batch) < most:
            client = next(iter(self._doors))
            lane = self._doors.pop(client)
            batch.append(lane.popleft())
            self._door_events -= 1
            if lane:
                self._doors[client] = lane  # back to the end of the line: one event per client in turn
        if batch:
            self.highest = max(self.highest, len(self) + len(batch))
            if self._room:
                self._room.unpark(count=len(batch))
        return batch

    def _wake(self) -> None:
        if self._idle:
            self._idle.unpark_all()
