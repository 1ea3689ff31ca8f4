"""The life of a job, a task and a piece of work: states, moves and the tables of allowed transitions.

Rule: every change of state goes through a `step_…` function and its table; a move that the table lacks is our own bug
and crashes. docs/jobs.md shows these tables; a test holds the two equal.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

S = TypeVar("S", bound=Enum)
M = TypeVar("M", bound=Enum)


class JobState(Enum):
    """Where a job stands, as its owner sees it."""

    WORKING = "working"
    DECIDING = "deciding"
    OVER = "over"


class JobMove(Enum):
    """What moves a job."""

    ASK = "ask"
    DECIDE = "decide"
    END = "end"


class TaskState(Enum):
    """Where a task stands, as its owner sees it."""

    WAITING = "waiting"
    LEASED = "leased"
    ANSWERED = "answered"
    FAILED = "failed"


class TaskMove(Enum):
    """What moves a task."""

    LEASE = "lease"
    ANSWER = "answer"
    LOSE = "lose"
    GIVE_UP = "give up"


class WorkState(Enum):
    """Where a leased task stands, as its executor sees it."""

    CONSULTING = "consulting"
    RUNNING = "running"
    ANSWERED = "answered"


class WorkMove(Enum):
    """What moves a piece of work."""

    PERMIT = "permit"
    REFUSE = "refuse"
    FINISH = "finish"


JOB_TABLE: Final = {
    (JobState.WORKING, JobMove.ASK): JobState.DECIDING,
    (JobState.DECIDING, JobMove.DECIDE): JobState.WORKING,
    (JobState.WORKING, JobMove.END): JobState.OVER,
    (JobState.DECIDING, JobMove.END): JobState.OVER,
}

TASK_TABLE: Final = {
    (TaskState.WAITING, TaskMove.LEASE): TaskState.LEASED,
    (TaskState.WAITING, TaskMove.GIVE_UP): TaskState.FAILED,
    (TaskState.LEASED, TaskMove.ANSWER): TaskState.ANSWERED,
    (TaskState.LEASED, TaskMove.LOSE): TaskState.WAITING,
    (TaskState.LEASED, TaskMove.GIVE_UP): TaskState.FAILED,
}

WORK_TABLE: Final = {
    (WorkState.CONSULTING, WorkMove.PERMIT): WorkState.RUNNING,
    (WorkState.CONSULTING, WorkMove.REFUSE): WorkState.ANSWERED,
    (WorkState.RUNNING, WorkMove.FINISH): WorkState.ANSWERED,
}


def step_job(state: JobState, move: JobMove) -> JobState:
    """The next state of a job; KeyError is our own bug."""
    return JOB_TABLE[state, move]


def step_task(state: TaskState, move: TaskMove) -> TaskState:
    """The next state of a task; KeyError is our own bug."""
    return TASK_TABLE[state, move]


def step_work(state: WorkState, move: WorkMove) -> WorkState:
    """The next state of a piece of work; KeyError is our own bug."""
    return WORK_TABLE[state, move]


def render_tables() -> str:
    """The three tables in Markdown, as docs/jobs.md shows them."""
    return "\n".join([_render("job", JOB_TABLE), _render("task", TASK_TABLE), _render("work", WORK_TABLE)])


def _render(noun: str, table: Mapping[tuple[S, M], S]) -> str:
    rows = [f"| {state.value} | {move.value} | {after.value} |" for (state, move), after in table.items()]
    return "\n".join([f"| {noun} is | move | {noun} becomes |", "|---|---|---|", *rows]) + "\n"
