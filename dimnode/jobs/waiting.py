"""Tasks that wait for a peer with room: by need, then by priority, first come first served.

Rule: tasks with the same need wait in the same line, so that a full peer costs one look per line, not one per task;
whoever stops waiting leaves at once. Lines take turns, so that no model starves another.
Pure: no I/O, no clock.
"""

from collections import OrderedDict
from collections.abc import Iterator

from dimnode.consensus.selection import Need
from dimnode.jobs.job import Job, Task
from dimnode.records.ids import RecordId
from dimnode.records.kinds import PRIORITIES

_RANK = {name: rank for rank, name in enumerate(reversed(PRIORITIES))}
_Place = tuple[RecordId, int]
# Ordered dicts, because a plain one gets slow when its first entry is removed again and again.
_Line = tuple[OrderedDict[_Place, tuple[Job, Task]], ...]


class WaitingTasks:
    """Lines of tasks; no line is empty."""

    __slots__ = ("_lines", "_need_of")

    def __init__(self) -> None:
        self._lines: OrderedDict[Need, _Line] = OrderedDict()
        self._need_of: dict[_Place, Need] = {}

    def __len__(self) -> int:
        return len(self._need_of)

    def add(self, need: Need, job: Job, task: Task) -> None:
        """Queue a task. One that waits already keeps its turn, unless its need has changed."""
        place = (job.id, task.number)
        if (before := self._need_of.get(place)) is not None:
            if before == need:
                return
            self.leave(job, task)
        self._need_of[place] = need
        line = self._lines.get(need)
        if line is None:
            line = self._lines[need] = tuple(OrderedDict() for _ in PRIORITIES)
        line[_RANK[job.spec["priority"]]][place] = (job, task)

    def leave(self, job: Job, task: Task) -> None:
        """The task waits no longer, if it did."""
        place = (job.id, task.number)
        need = self._need_of.pop(place, None)
        if need is not None:
            line = self._lines[need]
            del line[_RANK[job.spec["priority"]]][place]
            if not any(line):
                del self._lines[need]

    def needs(self) -> Iterator[Need]:
        """The needs that somebody waits with; the line that was served last comes last."""
        return iter(tuple(self._lines))

    def everyone(self) -> list[tuple[Job, Task]]:
        """All that wait."""
        return [entry for line in self._lines.values() for rank in line for entry in rank.values()]

    def pop(self, need: Need) -> tuple[Job, Task] | None:
        """The next task with this need, highest priority first."""
        line = self._lines.get(need)
        if line is None:
            return None
        self._lines.move_to_end(need)
        job, task = next(next(iter(rank.values())) for rank in line if rank)
        self.leave(job, task)
        return job, task
