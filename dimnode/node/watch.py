"""Who watches a job, and what passed over the streams for it.

Rule: bounded memory of recent jobs; a watcher that does not keep up is told so and reads the rest from the journal.
Byte counts are those of frames as they were written to or read from a stream.
"""

import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dimnode.jobs.effects import Note
from dimnode.jobs.events import Key
from dimnode.limits import JobLimits
from dimnode.node.clock import wall_ms
from dimnode.records.ids import PeerId, RecordId

Watcher = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Trail:
    """What is remembered of one job beside its records."""

    events: deque[dict[str, Any]]
    bytes_out: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    bytes_in: Counter[tuple[bytes, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class Pace:
    """Answers of one peer: how many in the second that runs, and the most in any second so far."""

    second: int = 0
    count: int = 0
    most: int = 0

    def answered(self, second: int) -> None:
        """One more, in this second."""
        self.count = self.count + 1 if second == self.second else 1
        self.second = second
        self.most = max(self.most, self.count)


class Watchers:
    """Live events and byte counts of recent jobs, and the loop's lateness."""

    def __init__(self, limits: JobLimits) -> None:
        self._limits = limits
        self._trails: OrderedDict[RecordId, Trail] = OrderedDict()
        self._watching: dict[RecordId, list[Watcher]] = {}
        self.lateness_ms: deque[float] = deque(maxlen=400)
        self.paces: OrderedDict[bytes, Pace] = OrderedDict()

    def trail(self, job: RecordId) -> Trail | None:
        """What is still remembered of a job."""
        return self._trails.get(job)

    def watch(self, job: RecordId, watcher: Watcher) -> None:
        """Call `watcher` for every event from now on."""
        self._watching.setdefault(job, []).append(watcher)

    def unwatch(self, job: RecordId, watcher: Watcher) -> None:
        """Stop. Harmless when it never began."""
        found = self._watching.get(job, [])
        if watcher in found:
            found.remove(watcher)
        if not found:
            self._watching.pop(job, None)

    def note(self, note: Note) -> None:
        """One line in a job's life."""
        event = {
            "at_ms": wall_ms(),
            "job": note.job,
            "what": note.what,
            "task": note.task,
            "epoch": note.epoch,
            "peer": note.peer,
            "text": note.text,
        }
        if note.what == "answered" and note.peer is not None:
            self._answered(note.peer, time.time_ns() // 1_000_000_000)
        self._of(note.job).events.append(event)
        for watcher in tuple(self._watching.get(note.job, ())):
            watcher(event)

    def most_per_second(self, peer: PeerId) -> int:
        """The most answers that this peer gave us in one second: what it can do at least."""
        pace = self.paces.get(peer)
        return pace.most if pace is not None else 0

    def _answered(self, peer: PeerId, second: int) -> None:
        pace = self.paces.setdefault(peer, Pace())
        pace.answered(second)
        self.paces.move_to_end(peer)
        if len(self.paces) > self._limits.done_jobs_remembered_max:
            self.paces.popitem(last=False)

    def sent(self, key: Key, peer: PeerId, what: str, count: int) -> None:
        """A frame of this size was queued to the peer's stream."""
        if (trail := self._trails.get(key[0])) is not None:  # frames about jobs of others make no trail
            trail.bytes_out[peer, what] += count

    def received(self, key: Key, peer: PeerId, what: str, count: int) -> None:
        """A frame of this size was read from the peer's stream."""
        if (trail := self._trails.get(key[0])) is not None:
            trail.bytes_in[peer, what] += count

    def late(self, milliseconds: float) -> None:
        """One sample of the loop's lateness."""
        self.lateness_ms.append(max(0.0, milliseconds))

    def lateness_p99_ms(self) -> float:
        """Over about the last minute."""
        ordered = sorted(self.lateness_ms)
        return ordered[math.ceil(len(ordered) * 0.99) - 1] if ordered else 0.0

    def _of(self, job: RecordId) -> Trail:
        trail = self._trails.get(job)
        if trail is None:
            trail = self._trails[job] = Trail(deque(maxlen=self._limits.job_events_remembered_max))
            if len(self._trails) > self._limits.done_jobs_remembered_max:
                self._trails.popitem(last=False)
        return trail
