"""The three patterns: which tasks start when, and when a job is ready to be concluded.

Rule: a pattern reads the job and says what comes next; it never changes anything.
  chained        one step after the other; a step is decided by one answer (tier `signed`) or by agreeing replicas
  comparative    all steps at once on the same input; every answer is a vote, dissent is kept
  collaborative  all steps at once, each at its own site; at least `min_sites` contributions make an aggregate
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dimnode.jobs.job import Accepted, Job, Task
from dimnode.jobs.states import TaskState
from dimnode.records.plan import step_of, tasks_of

_SETTLED = (TaskState.ANSWERED, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class StartTasks:
    """Create and lease these tasks."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AcceptAnswer:
    """The one answer of a step that nobody checks decides it."""

    answer: Accepted


@dataclass(frozen=True, slots=True)
class CompareStep:
    """All replicas of a step have settled: find the agreeing set."""

    step: int
    answers: tuple[Accepted, ...]


@dataclass(frozen=True, slots=True)
class CombineAnswers:
    """All sites or models have settled: make one output."""

    answers: tuple[Accepted, ...]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Every step of the chain is decided."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job cannot be completed; `status` is what its verdict will say."""

    status: str
    code: str
    reason: str


NextMove = StartTasks | AcceptAnswer | CompareStep | CombineAnswers | Succeeded | GiveUp | None


def next_move(job: Job) -> NextMove:
    """What the job needs now; None while it only waits for answers."""
    return _chained(job) if job.pattern == "chained" else _parallel(job)


def sites_needed(spec: Mapping[str, Any]) -> int:
    """How many contributions or votes make a result."""
    return int(spec.get("min_sites", len(spec["tasks"])))


def has_enough(job: Job) -> bool:
    """A parallel job could be concluded with the answers that it has."""
    return job.pattern != "chained" and len(job.answers) >= sites_needed(job.spec)


def replicas_of(job: Job, step: int) -> range:
    """The tasks of a step of a chain that are to run: those of the second round only after a split."""
    numbers = tasks_of(job.spec, step)
    return numbers if not job.quorum or step in job.second_rounds else numbers[: job.spec["quorum"]["n"]]


def answers_of(job: Job, step: int) -> tuple[Accepted, ...]:
    """The good answers of a step, of both rounds, in the order in which they came."""
    return tuple(answer for answer in job.answers.values() if step_of(job.spec, answer.task) == step)


def _chained(job: Job) -> NextMove:
    step = len(job.steps)
    if step == len(job.spec["tasks"]):
        return Succeeded()
    return _replicated(job, step) if job.quorum else _single(job, step)


def _single(job: Job, step: int) -> NextMove:
    """One answer decides the step; its only task has the same number."""
    task = job.tasks.get(step)
    if task is None:
        return StartTasks((step,))
    if task.state is TaskState.ANSWERED:
        return AcceptAnswer(answers_of(job, step)[0])
    return _end_with(job, task) if task.state is TaskState.FAILED else None


def _replicated(job: Job, step: int) -> NextMove:
    numbers = replicas_of(job, step)
    if missing := _missing(job, numbers):
        return StartTasks(missing)
    if (early := _settled(job, numbers, int(job.spec["quorum"]["k"]))) is not True:
        return early
    return CompareStep(step, answers_of(job, step))


def _parallel(job: Job) -> NextMove:
    numbers = range(len(job.spec["tasks"]))
    if missing := _missing(job, numbers):
        return StartTasks(missing)
    if (early := _settled(job, numbers, sites_needed(job.spec))) is not True:
        return early
    return CombineAnswers(tuple(sorted(job.answers.values(), key=lambda answer: answer.task)))


def _missing(job: Job, numbers: range) -> tuple[int, ...]:
    return tuple(number for number in numbers if number not in job.tasks)


def _settled(job: Job, numbers: range, needed: int) -> Literal[True] | GiveUp | None:
    """True when all tasks have settled with enough answers; None to wait; or the end, once there cannot be enough."""
    tasks = [job.tasks[number] for number in numbers]
    failed = [task for task in tasks if task.state is TaskState.FAILED]
    if len(tasks) - len(failed) < needed:
        return _end_with(job, failed[-1])
    return True if all(task.state in _SETTLED for task in tasks) else None


def _end_with(job: Job, failed: Task) -> GiveUp:
    """Named after the task that failed last; "refused" when a site's policy said no and the receipt can show it."""
    return GiveUp("refused" if job.refusals else "failed", failed.code, failed.reason)
