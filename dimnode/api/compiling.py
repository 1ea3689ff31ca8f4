"""A job's input beside the event loop: what is large is read, checked and packed by a thread.

Rule: names are looked up in the loop, whose tables they stand in; the thread sees nothing but what was found.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from dimnode.api.jobfile import Compiled, JobFile, Names, compile_job
from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId

_T = TypeVar("_T")


async def compile_aside(job: JobFile, names: Names, blobs: Sequence[bytes] = ()) -> Compiled:
    """`compile_job`, in a thread when the blobs are large. Raises `Refused`; cancelled, it waits for the thread."""
    if sum(map(len, blobs)) <= LIMITS.http.input_in_loop_bytes_max:
        return compile_job(job, names, blobs)
    return await trio.to_thread.run_sync(compile_job, job, _LookedUp(job, names), blobs)


class _LookedUp:
    """The answers for all names of a job, refusals too: those are raised where the job is compiled, in its order."""

    def __init__(self, job: JobFile, names: Names) -> None:
        tasks = job.tasks[: LIMITS.jobs.tasks_per_job_max]
        self._models = {task.model: _tried(names.find_model, task.model) for task in tasks if task.model}
        self._peers = {task.peer: _tried(names.find_peer, task.peer) for task in tasks if task.peer}

    def find_model(self, name: str) -> Record:
        """As it was found."""
        return _told(self._models[name])

    def find_peer(self, name: str) -> PeerId:
        """As it was found."""
        return _told(self._peers[name])


def _tried(find: Callable[[str], _T], name: str) -> _T | Refused:
    try:
        return find(name)
    except Refused as no:
        return no


def _told(found: _T | Refused) -> _T:
    if isinstance(found, Refused):
        raise found
    return found
