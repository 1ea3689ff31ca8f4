"""What the log says of jobs and tasks: written at the end of a pass, when nobody waits for it any more.

A line costs about as much as a signature, and before an answer leaves every microsecond is somebody's waiting time.
"""

import logging
from typing import Any

from dimnode.jobs.events import Key
from dimnode.records.ids import RecordId, cid_text

log = logging.getLogger(__name__)


class Diary:
    """Lines of one pass of the loop; bounded by its events, each of which leaves one."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, RecordId, dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self._lines)

    def job_began(self, job: RecordId) -> None:
        """A job of this node is durable."""
        self._lines.append(("a job began", job, {"status": "open"}))

    def job_ended(self, job: RecordId, status: str) -> None:
        """It has a verdict."""
        self._lines.append(("a job ended", job, {"status": status}))

    def task_ended(self, key: Key, status: str) -> None:
        """A run in this node's pool is over."""
        self._lines.append(("a task ended", key[0], {"task": key[1], "status": status}))

    def write(self) -> None:
        """Write what was noted, in its order."""
        lines, self._lines = self._lines, []
        if log.isEnabledFor(logging.INFO):
            for message, job, fields in lines:
                log.info(message, extra={"job": cid_text(job), **fields})
