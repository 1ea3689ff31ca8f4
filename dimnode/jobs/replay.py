"""From journal rows back to an engine: what a restart knows.

Rule: the journal holds all that is needed; whatever was not committed, nobody has seen. Where the rows leave open
whether something was noticed before the crash, it is asked again, never assumed.
Pure: no I/O, no clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dimnode.jobs.events import Key, Now
from dimnode.jobs.job import Accepted, Job, Task
from dimnode.jobs.patterns import replicas_of
from dimnode.jobs.states import TaskState, WorkState
from dimnode.jobs.work import Work
from dimnode.limits import Limits
from dimnode.records.ids import Cid, PeerId, RecordId, Ref
from dimnode.records.plan import step_of
from dimnode.records.receipt import Opening


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One `Append` as the journal gives it back, in the order of commits. `by` signed it.

    A record that was appended twice (this node gave itself the task) is one row, at its first place.
    """

    kind: str
    id: RecordId
    key: Key
    by: PeerId
    payload: Mapping[str, Any]
    openings: tuple[Opening, ...] = ()
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Records and blobs that the restored engine holds, once per hold: load them before the loop runs."""

    records: tuple[RecordId, ...]
    blobs: tuple[Cid, ...]


def held_by(jobs: Iterable[Job], works: Iterable[Work]) -> Held:
    """What these hold."""
    jobs, works = list(jobs), list(works)
    records = [record for job in jobs for record in job.held] + [record for work in works for record in work.records()]
    blobs = [blob for job in jobs for blob in job.blobs()] + [blob for work in works for blob in work.blobs()]
    return Held(tuple(records), tuple(blobs))


# ---- the owner's side


def open_jobs(
    rows: Sequence[JournalRow], me: PeerId, forgotten: Collection[Key], limits: Limits, now: Now
) -> list[Job]:
    """Jobs without a verdict, with the state of their tasks. Only an owner appends specs, so each spec is a job's."""
    over = {row.key[0] for row in rows if row.kind == "verdict"}
    jobs = {row.id: _job(row, now) for row in rows if row.kind == "spec" and row.id not in over}
    issued = {row.id: row for row in rows if row.kind == "lease" and row.by == me}
    ours = [row for row in rows if row.key[0] in jobs and _came_of(row, issued)]
    leases = {row.key[:2]: row for row in ours if row.kind == "lease"}  # the last one of each task stays
    for row in ours:
        job = jobs[row.key[0]]
        if row.kind == "lease":
            _leased(job, row, limits)
        elif row.accepted:
            _accepted(job, row)
        elif _was_noticed(row, job, leases[row.key[:2]], me, forgotten):
            _failed(job, row)
    for (identity, number), row in leases.items():
        _complete(jobs[identity], jobs[identity].tasks[number], row, limits)
    for job in jobs.values():
        _freeze_decided_steps(job, limits)
    return list(jobs.values())


def _came_of(row: JournalRow, issued: Mapping[RecordId, JournalRow]) -> bool:
    """It is a lease of ours, or what its executor gave under it.

    A late answer is kept as evidence whatever it says: one that names our lease and another job or task is none of its.
    """
    lease = issued.get(row.payload["parents"][0] if row.kind in ("answer", "ruling") else row.id)
    return lease is not None and lease.key == row.key and row.by in (lease.by, lease.payload["executor"])


def _job(row: JournalRow, now: Now) -> Job:
    # The submitter's clock may differ from ours: nobody gets more than the whole time, or less than none.
    spec = row.payload
    left_ms = min(max(spec["at_ms"] + spec["deadline_ms"] - now.wall_ms, 0), spec["deadline_ms"])
    job = Job(row.id, spec, _in_order(row.openings, spec["inputs"]), now.mono + left_ms / 1000)
    job.held.append(row.id)
    return job


def _leased(job: Job, row: JournalRow, limits: Limits) -> None:
    """Leases come in the order of their epochs."""
    task = job.tasks.setdefault(row.key[1], Task(row.key[1]))
    if task.lease is not None and task.state is TaskState.LEASED:
        _abandon(job, task.lease, limits)
    task.state, task.epoch, task.lease = TaskState.LEASED, row.key[2], row.id
    task.peer = PeerId(row.payload["executor"])
    # Leases that a busy peer refused were no attempts, but look alike: one more is allowed in any case.
    task.attempts = min(task.attempts + 1, limits.jobs.task_attempts_max - 1)
    job.held.append(row.id)
    if job.is_second_round(task):
        job.second_rounds.add(step_of(job.spec, task.number))


def _accepted(job: Job, row: JournalRow) -> None:
    task = job.tasks[row.key[1]]
    task.state = TaskState.ANSWERED
    weight = row.payload.get("weight", 0)
    job.answers[row.id] = Accepted(task.number, row.by, row.id, weight, row.openings[0])
    job.held += (row.id, *row.payload["parents"][1:])


def _was_noticed(row: JournalRow, job: Job, last: JournalRow, me: PeerId, forgotten: Collection[Key]) -> bool:
    """The owner's side took this answer or ruling as the end of a lease, and it was no success.

    One of a peer stands here because the owner's side appended it; it came in time when no newer lease stands before
    it. One of our own stands here since the run: the owner's side has seen it when it leased anew, or when the
    executor's side was told to forget it.
    """
    if row.key[2] != job.tasks[row.key[1]].epoch:
        return False
    if row.kind == "answer" and row.payload["status"] == "ok":
        return False
    if row.kind == "ruling" and row.payload["allowed"]:
        return False
    return row.by != me or row.key[2] < last.key[2] or row.key in forgotten


def _failed(job: Job, row: JournalRow) -> None:
    task = job.tasks[row.key[1]]
    task.state, task.peer = TaskState.WAITING, None
    task.failed_at.add(row.by)
    task.code = row.payload.get("code", "")
    task.reason = row.payload.get("error", row.payload.get("reason", ""))
    job.held.append(row.id)
    if row.kind == "ruling":
        job.refusals.append(row.id)
    else:
        task.failures += 1
        job.failed.append(row.id)
        job.held += row.payload["parents"][1:]


def _complete(job: Job, task: Task, lease: JournalRow, limits: Limits) -> None:
    """Fill in what all rows together say of a task."""
    task.inputs = _in_order((*job.inputs, *(answer.output for answer in job.answers.values())), lease.payload["inputs"])
    ended = task.failures >= limits.jobs.failures_per_task_max or job.template(task).get("peer") in task.failed_at
    if task.state is TaskState.WAITING and ended:
        task.state = TaskState.FAILED


def _freeze_decided_steps(job: Job, limits: Limits) -> None:
    """A step of a chain that has a successor was decided, from the answers that stand here: it gets no more.

    Which of its tasks were given up stands nowhere. Leased again, they could bring another decision than the one on
    which leases of the next step were built.
    """
    current = max((step_of(job.spec, number) for number in job.tasks), default=0)
    for step in range(current if job.pattern == "chained" else 0):
        for number in replicas_of(job, step):
            task = job.tasks.setdefault(number, Task(number))
            if task.state is TaskState.LEASED and task.lease is not None:
                _abandon(job, task.lease, limits)
            if task.state is not TaskState.ANSWERED:
                task.state, task.peer = TaskState.FAILED, None


def _abandon(job: Job, lease: RecordId, limits: Limits) -> None:
    if len(job.abandoned) < limits.jobs.abandoned_leases_listed_max:
        job.abandoned.append(lease)


def _in_order(openings: Iterable[Opening], refs: Sequence[Ref]) -> tuple[Opening, ...]:
    by_ref = {opening.ref: opening for opening in openings}
    return tuple(by_ref[ref] for ref in refs)


# ---- the executor's side


def kept_works(
    rows: Sequence[JournalRow], me: PeerId, forgotten: Collection[Key], limits: Limits, now: Now
) -> list[tuple[Work, float]]:
    """Answers and refusals of ours that nobody has acknowledged, each with how long it is still kept, in seconds.

    A lease stands in the journal with what came of it; its signer is the owner. Of several epochs only the last counts.
    """
    leases = {row.key: row for row in rows if row.kind == "lease" and row.payload["executor"] == me}
    rulings = {row.key: row for row in rows if row.kind == "ruling" and row.by == me}
    answers = {row.key: row for row in rows if row.kind == "answer" and row.by == me}
    works: dict[tuple[RecordId, int], tuple[Work, float]] = {}
    for key, lease in leases.items():
        result = answers.get(key) or rulings.get(key)
        if result is None or key in forgotten or (result.kind == "ruling" and result.payload["allowed"]):
            continue
        keep_seconds = limits.jobs.answer_keep_seconds - (now.wall_ms - result.payload["at_ms"]) / 1000
        if keep_seconds <= 0:
            continue
        known = works.get(key[:2])
        if known is None or known[0].epoch < key[2]:
            works[key[:2]] = _kept(lease, result, rulings.get(key)), min(keep_seconds, limits.jobs.answer_keep_seconds)
    return list(works.values())


def _kept(lease: JournalRow, result: JournalRow, ruling: JournalRow | None) -> Work:
    job, task, epoch = lease.key
    work = Work(lease.by, epoch, lease.id, job, task, WorkState.ANSWERED)
    if ruling is not None:
        work.rulings = (ruling.id,)
        work.policy = RecordId(ruling.payload["parents"][1]) if len(ruling.payload["parents"]) > 1 else None
    if result.kind == "answer":
        work.answer = result.id
        work.output = result.openings[0] if result.openings else None
    else:
        work.refused = True
    return work
