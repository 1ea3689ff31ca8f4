"""What the owner does with an answer's records, whatever the answer says.

Rule: an answer brings holds (its record, rulings, policies, output); they end up in the job, or in `let_go`.
Pure: no I/O, no clock.
"""

from dimnode.jobs.effects import Append, Effect, Release
from dimnode.jobs.events import AnswerReceived
from dimnode.jobs.job import Job, Task
from dimnode.limits import LIMITS


def misfit(job: Job, task: Task, event: AnswerReceived) -> str:
    """Why an answer to a current lease cannot be what it says, "" when it can."""
    if event.lease != task.lease:
        return "answer: another lease"
    if event.inputs is not None and event.inputs != tuple(opening.ref for opening in task.inputs):
        return "answer: other inputs"
    if event.inputs is not None and event.model != job.template(task).get("model"):
        return "answer: another model"
    cabinet = job.template(task).get("cabinet", "")
    if event.cabinets and any(named != cabinet for named in event.cabinets):
        return "answer: a permission for another cabinet"
    if event.weight > LIMITS.cabinets.rows_max:  # one site's claim would outweigh all others in an average
        return "answer: a weight of more rows than a cabinet holds"
    if event.status == "ok" and event.walls is not None and not job.walls <= event.walls:
        return "answer: run without the sandbox that the job insists on"
    if event.status == "ok" and event.output is None:
        return "answer: no output"
    if event.status == "ok" and "cabinet" in job.template(task) and not event.rulings:
        return "answer: no permission for the cabinet"
    return ""


def appends_in_time(event: AnswerReceived) -> list[Effect]:
    """The answer to a current lease and what it stands on; a good one is accepted by the same row."""
    _, task, epoch = event.key
    stands_on = [Append("policy", policy, event.key) for policy in event.policies]
    stands_on += [Append("ruling", ruling, event.key) for ruling in event.rulings]
    output = (event.output,) if event.output else ()
    accepted = ((task, epoch, event.answer),) if event.status == "ok" else ()
    blobs = tuple(opening.cid for opening in output)
    answer = Append("answer", event.answer, event.key, openings=output, blobs=blobs, accepted=accepted)
    return [*stands_on, answer]


def appends_too_late(event: AnswerReceived) -> list[Effect]:
    """An answer that will never be accepted: evidence, which nobody waits to see on disk."""
    stands_on = [Append("policy", policy, event.key, lazy=True) for policy in event.policies]
    stands_on += [Append("ruling", ruling, event.key, lazy=True) for ruling in event.rulings]
    return [*stands_on, Append("answer", event.answer, event.key, lazy=True)]


def let_go(event: AnswerReceived) -> Release:
    """All that came with an answer which no job keeps."""
    blobs = (event.output.cid,) if event.output else ()
    return Release((event.answer, *event.rulings, *event.policies), blobs)
