"""What a verdict says: the body of the record that ends a job.

Rule: it lists what was decided from which answers and what was not checked; it claims nothing else.
Pure: no I/O, no clock.
"""

from dataclasses import dataclass
from typing import Any, Final

from dimnode.jobs.job import Job
from dimnode.limits import LIMITS
from dimnode.records.ids import RecordId
from dimnode.records.receipt import Opening

CHECKS: Final = ("signature", "lease", "epoch", "input", "output")
NEVER_CHECKED: Final = ("that a model really ran",)
_CODE_CHARACTERS = 32
_REASON_CHARACTERS = 256
_UNCHECKED_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends. `made` is an output that this node made itself (a tally or an aggregate)."""

    status: str
    outputs: tuple[Opening, ...] = ()
    code: str = ""
    reason: str = ""
    made: Opening | None = None


def verdict_body(job: Job, outcome: Outcome) -> dict[str, Any]:
    """The verdict's fields beside the common ones."""
    steps: list[dict[str, Any]] = []
    for index, result in enumerate(job.steps):
        step = {"task": index, "supporters": list(result.supporters), "dissent": list(result.dissent)}
        if result.accepted is not None:
            step["accepted"] = result.accepted
        steps.append(step)
    body: dict[str, Any] = {
        "job": job.id,
        "status": outcome.status,
        "rule": job.spec["rule"]["method"],
        "steps": steps,
        "outputs": [opening.ref for opening in outcome.outputs],
        "checks": list(CHECKS),
        "unchecked": _unchecked(job),
        "parents": _parents(job),
    }
    if job.abandoned:
        body["abandoned"] = list(job.abandoned)
    if outcome.code:
        body["code"] = outcome.code[:_CODE_CHARACTERS]
    if outcome.reason:
        body["reason"] = outcome.reason[:_REASON_CHARACTERS]
    return body


def _unchecked(job: Job) -> list[str]:
    if not job.left_out:
        return list(NEVER_CHECKED)
    tasks = ", ".join(map(str, sorted(job.left_out)))
    left_out = f"answers left out because their outputs have another form than the others, to tasks {tasks}"
    return [*NEVER_CHECKED, left_out[:_UNCHECKED_CHARACTERS]]


def _parents(job: Job) -> list[RecordId]:
    """The spec; the answers that decided, then all others; then refusals. Each once."""
    named = [answer for result in job.steps for answer in (*result.supporters, *result.dissent)]
    parents = dict.fromkeys([job.id, *named, *job.answers, *job.failed, *job.refusals])
    return list(parents)[: LIMITS.records.list_entries_max]
