"""What becomes of a task whose lease did not end well: elsewhere, later, or never.

Rule: a peer that was lost or busy may be asked again, one that failed may not. A task ends after a second peer has
failed it (then the input or the model is at fault) or after so many attempts that it must be what makes peers vanish.
Pure: no I/O, no clock.
"""

from dimnode.jobs.effects import Effect, Note
from dimnode.jobs.events import Now
from dimnode.jobs.job import Job, Task
from dimnode.jobs.leasing import Leasing
from dimnode.jobs.states import TaskMove
from dimnode.limits import Limits


class Retrying:
    """Ends leases that brought no answer and places their tasks anew."""

    def __init__(self, leasing: Leasing, limits: Limits) -> None:
        self._leasing, self._limits = leasing, limits

    def lost(self, job: Job, task: Task, now: Now, *, avoid: bool = True) -> list[Effect]:
        """The executor vanished, was silent or has forgotten. With `avoid` others are asked first."""
        assert task.peer is not None
        note = Note(job.id, "lost", task.number, task.epoch, task.peer)
        if avoid:
            task.lost_at.add(task.peer)
        self._leasing.abandon(job, task)
        if task.attempts >= self._limits.jobs.task_attempts_max:
            task.code, task.reason = "E-jobs-07", f"no answer after {task.attempts} attempts"
            self._leasing.give_up(job, task)
            return [note]
        return [note, *self._again(job, task, now)]

    def failed(self, job: Job, task: Task, code: str, reason: str, now: Now, *, counts: bool) -> list[Effect]:
        """The executor failed the task or will not have it; `counts` when another failure would end the task."""
        assert task.peer is not None
        task.code, task.reason = code, reason
        task.failed_at.add(task.peer)
        task.failures += counts
        note = Note(job.id, "failed", task.number, task.epoch, task.peer, f"{code} {reason}")
        self._leasing.end(job, task)
        limits = self._limits.jobs
        if task.failures >= limits.failures_per_task_max or task.attempts >= limits.task_attempts_max:
            self._leasing.give_up(job, task)
            return [note]
        return [note, *self._again(job, task, now)]

    def busy(self, job: Job, task: Task, retry_after_ms: int, now: Now) -> list[Effect]:
        """The executor has no room. That is no attempt: the job's deadline bounds how often it can happen."""
        assert task.peer is not None
        note = Note(job.id, "busy", task.number, task.epoch, task.peer)
        self._leasing.set_busy(task.peer, retry_after_ms, now)
        self._leasing.end(job, task)
        task.attempts -= 1
        return [note, *self._again(job, task, now)]

    def _again(self, job: Job, task: Task, now: Now) -> list[Effect]:
        task.move(TaskMove.LOSE)
        task.peer = None
        self._leasing.line_up(job)
        return self._leasing.place(job, task, now)
