"""The jobs of one owner: the open ones, and how the last ones ended.

Rule: one nonce of one submitter names one job, open or over; what is forgotten here the journal still knows.
Pure: no I/O, no clock.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from dimnode.jobs.effects import Reply
from dimnode.jobs.job import Job
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, RecordId

Nonce = tuple[PeerId, bytes]


def nonce_of(spec: Mapping[str, Any]) -> Nonce:
    """What makes a submission the same submission: who signed it, and the number that they chose."""
    return spec["by"], spec["nonce"]


class JobBook:
    """Open jobs by id and by nonce, and a bounded memory of ended ones."""

    def __init__(self, limits: Limits) -> None:
        self._done_max = limits.jobs.done_jobs_remembered_max
        self._open: dict[RecordId, Job] = {}
        self._job_of: dict[Nonce, RecordId] = {}
        self._done: OrderedDict[RecordId, Reply] = OrderedDict()
        self._nonce_of_done: dict[RecordId, Nonce] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def remembered(self) -> int:
        """How many nonces are known here, of open jobs and of ended ones."""
        return len(self._job_of)

    def open(self, job: Job) -> None:
        """A job begins."""
        self._open[job.id] = job
        self._job_of[nonce_of(job.spec)] = job.id

    def find(self, job: RecordId) -> Job | None:
        """The open job with this id."""
        return self._open.get(job)

    def jobs(self) -> list[Job]:
        """All open jobs."""
        return list(self._open.values())

    def named(self, nonce: Nonce) -> Job | Reply | None:
        """The job that this nonce named before: open, or how it ended."""
        identity = self._job_of.get(nonce)
        return None if identity is None else self._open.get(identity) or self._done.get(identity)

    def ended(self, job: RecordId) -> Reply | None:
        """How a job ended, while that is remembered."""
        return self._done.get(job)

    def close(self, job: Job, reply: Reply) -> None:
        """A job is over; its reply is kept for clients that ask again."""
        del self._open[job.id]
        self._done[job.id] = reply
        self._nonce_of_done[job.id] = nonce_of(job.spec)
        if len(self._done) > self._done_max:
            oldest, _ = self._done.popitem(last=False)
            del self._job_of[self._nonce_of_done.pop(oldest)]
