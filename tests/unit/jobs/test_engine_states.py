"""The transition tables, and the page that shows them."""

from enum import Enum
from pathlib import Path

import pytest

from dimnode.jobs.job import Task
from dimnode.jobs.states import (
    JOB_TABLE,
    TASK_TABLE,
    WORK_TABLE,
    JobMove,
    JobState,
    TaskMove,
    TaskState,
    WorkMove,
    WorkState,
    render_tables,
    step_job,
    step_task,
    step_work,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "jobs.md"

ALL = [
    *[(step_job, JOB_TABLE, state, move) for state in JobState for move in JobMove],
    *[(step_task, TASK_TABLE, state, move) for state in TaskState for move in TaskMove],
    *[(step_work, WORK_TABLE, state, move) for state in WorkState for move in WorkMove],
]


@pytest.mark.parametrize(("step", "table", "state", "move"), ALL)
def test_a_move_leads_where_its_table_says_and_every_other_move_raises(
    step: object, table: dict[tuple[Enum, Enum], Enum], state: Enum, move: Enum
) -> None:
    assert callable(step)
    if (state, move) in table:
        assert step(state, move) is table[state, move]
    else:
        with pytest.raises(KeyError):
            step(state, move)


@pytest.mark.parametrize("ended", [TaskState.ANSWERED, TaskState.FAILED])
def test_a_task_that_has_ended_never_moves_again(ended: TaskState) -> None:
    for move in TaskMove:
        with pytest.raises(KeyError):
            Task(0, state=ended).move(move)


def test_every_state_but_the_first_is_reached_by_some_move() -> None:
    reached = {*JOB_TABLE.values(), *TASK_TABLE.values(), *WORK_TABLE.values()}
    assert {JobState.WORKING, TaskState.WAITING, WorkState.CONSULTING} | reached == {*JobState, *TaskState, *WorkState}


def test_the_page_about_jobs_shows_these_tables() -> None:
    assert render_tables() in DOCUMENT.read_text(encoding="utf-8")
