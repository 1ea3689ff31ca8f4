"""What an open job does next, and how it ends.

Rule: whatever happens to a job comes back to `follow`, and a job ends in `_conclude` and nowhere else: there its
verdict is composed, its clients are answered, and all that it held is let go. Pure: no I/O, no clock, no secret.
"""

from dimnode.jobs.author import Author
from dimnode.jobs.book import JobBook
from dimnode.jobs.conclude import Outcome, verdict_body
from dimnode.jobs.deadlines import Deadlines
from dimnode.jobs.effects import Append, Combine, Compare, Effect, Note, Release, Reply
from dimnode.jobs.events import Combined, Compared, Now
from dimnode.jobs.job import Accepted, Job, StepResult, Task
from dimnode.jobs.leasing import Leasing
from dimnode.jobs.patterns import (
    AcceptAnswer,
    CombineAnswers,
    CompareStep,
    GiveUp,
    StartTasks,
    Succeeded,
    answers_of,
    has_enough,
    next_move,
    sites_needed,
)
from dimnode.jobs.roster import Roster
from dimnode.jobs.states import JobMove, JobState
from dimnode.limits import Limits
from dimnode.records.ids import RecordId
from dimnode.records.plan import step_of


class Deciding:
    """Moves open jobs along their patterns, to their verdicts."""

    def __init__(self, author: Author, limits: Limits, roster: Roster, book: JobBook, leasing: Leasing) -> None:
        self._author, self._limits, self._roster = author, limits, roster
        self._book, self._leasing = book, leasing
        self.ends: Deadlines[RecordId] = Deadlines()

    def open(self, job: Job) -> None:
        """A job begins, or is taken over from the journal; `follow` makes it move."""
        self._book.open(job)
        self.ends.set(job.id, job.deadline)

    def follow(self, now: Now, job: Job | None = None) -> list[Effect]:
        """What follows: the next move of this job, tasks that find room by it, and jobs whose task found nobody."""
        effects = self._advance(job, now) if job is not None else []
        effects += self._leasing.pump(now)
        while self._leasing.given_up:
            effects += self._advance(self._leasing.given_up.pop(), now)
            effects += self._leasing.pump(now)
        return effects

    def compared(self, event: Compared, now: Now) -> list[Effect]:
        """Replicas were compared: accept, or run one more round, or say that they are split."""
        job = self._book.find(event.job)
        if job is None or job.state is not JobState.DECIDING:
            return []
        job.move(JobMove.DECIDE)
        if event.accepted is None:
            return self._split(job, event, now) + self.follow(now)
        job.steps.append(StepResult(event.accepted, event.supporters, event.dissent))
        effects: list[Effect] = []
        for agrees, answers in ((True, event.supporters), (False, event.dissent)):
            for identity in answers:
                answer = job.answers[identity]
                task = job.tasks[answer.task]
                effects += self._roster.judge(job, task, answer.peer, agrees, "quorum", identity, now)
                if not agrees:
                    effects.append(Note(job.id, "contradicted", task.number, task.epoch, answer.peer))
        return effects + self.follow(now, job)

    def combined(self, event: Combined, now: Now) -> list[Effect]:
        """Votes were tallied or contributions aggregated: the job is over."""
        job = self._book.find(event.job)
        if job is None or job.state is not JobState.DECIDING:
            return [Release((), (event.output.cid,))] if event.output else []
        job.move(JobMove.DECIDE)
        if event.output is None:
            outcome = Outcome("failed", code=event.code, reason=event.reason)
            return self._conclude(job, outcome, now) + self.follow(now)
        counted = {*event.supporters, *event.dissent}
        left_out = [answer for answer in job.answers if answer not in counted]
        effects = [effect for answer in left_out for effect in self._leave_out(job, answer)]
        job.steps.append(StepResult(None, event.supporters, event.dissent))
        outcome = Outcome("ok", (event.output,), made=event.output)
        return effects + self._conclude(job, outcome, now) + self.follow(now)

    def _leave_out(self, job: Job, answer: RecordId) -> list[Effect]:
        """An answer that did not fit the others is refused late, like one that the rule cannot read: without blame.

        The receipt names its lease as one that led to nothing, and not the answer: a verdict counts every good answer
        of its receipt.
        """
        left = job.answers.pop(answer)
        task = job.tasks[left.task]
        assert task.lease is not None, "an answered task has a lease"
        if len(job.abandoned) < self._limits.jobs.abandoned_leases_listed_max:
            job.abandoned.append(task.lease)
        job.left_out.append(task.number)
        why = "its output has another form than the others"
        return [Note(job.id, "left out", task.number, task.epoch, left.peer, why), Release((), (left.output.cid,))]

    def cancel(self, job: Job, now: Now) -> list[Effect]:
        """End a job at its client's wish."""
        outcome = Outcome("cancelled", code="E-jobs-06", reason="cancelled by its submitter")
        return self._conclude(job, outcome, now) + self.follow(now)

    def expire(self, now: Now) -> list[Effect]:
        """Conclude the jobs whose deadline has come, with what is there if that is enough."""
        effects: list[Effect] = []
        for identity in self.ends.pop(now.mono):
            job = self._book.find(identity)
            assert job is not None, "a job that is over has no deadline"
            if job.state is JobState.DECIDING:  # the decision takes milliseconds: look again after it
                self.ends.set(identity, now.mono + self._limits.jobs.decision_wait_seconds)
            elif has_enough(job):
                effects += self._leasing.call_back(job) + self._advance(job, now)
            else:
                reason = "the deadline passed before every step had an accepted answer"
                effects += self._conclude(job, Outcome("expired", code="E-jobs-05", reason=reason), now)
        return effects

    def _split(self, job: Job, event: Compared, now: Now) -> list[Effect]:
        if event.step not in job.second_rounds:
            job.second_rounds.add(event.step)
            return [Note(job.id, "split", event.step), *self._advance(job, now)]
        job.steps.append(StepResult(None, event.supporters, event.dissent))
        reason = f"no {job.spec['quorum']['k']} of {len(answers_of(job, event.step))} answers agree"
        return self._conclude(job, Outcome("split", code="E-jobs-08", reason=reason), now)

    def _advance(self, job: Job, now: Now) -> list[Effect]:
        """Do what the pattern asks for, until it waits, asks or is over."""
        effects: list[Effect] = []
        while job.state is JobState.WORKING:
            match next_move(job):
                case StartTasks(numbers):
                    effects += self._leasing.place_first([Task(number) for number in numbers], job, now)
                case AcceptAnswer(accepted):
                    job.steps.append(StepResult(accepted.answer, (accepted.answer,), ()))
                case CompareStep(step, answers):
                    job.move(JobMove.ASK)
                    effects.append(_compare(job, step, answers))
                case CombineAnswers(answers):
                    job.move(JobMove.ASK)
                    effects.append(_combine(job, answers))
                case Succeeded():
                    effects += self._conclude(job, Outcome("ok", (job.step_output(len(job.steps) - 1),)), now)
                case GiveUp(status, code, reason):
                    effects += self._conclude(job, Outcome(status, code=code, reason=reason), now)
                case None:
                    break
        return effects

    def _conclude(self, job: Job, outcome: Outcome, now: Now) -> list[Effect]:
        called_back = self._leasing.call_back(job)
        job.move(JobMove.END)
        self.ends.drop(job.id)
        verdict, payload = self._author.compose("verdict", verdict_body(job, outcome), now)
        made = (outcome.made,) if outcome.made else ()
        made_blobs = tuple(opening.cid for opening in made)
        append = Append("verdict", verdict, (job.id, 0, 0), payload, made, made_blobs, end=outcome.status)
        outputs = tuple(opening.cid for opening in outcome.outputs)
        said = (job.id, outcome.status, verdict, outputs, outcome.code, outcome.reason)
        replies = [Reply(token, *said) for token in job.tokens]
        self._book.close(job, Reply(None, *said))
        note = Note(job.id, outcome.status, text=outcome.reason)
        release = Release((*job.held, verdict), (*job.blobs(), *made_blobs))
        return [append, *called_back, *replies, note, release]


def _compare(job: Job, step: int, answers: tuple[Accepted, ...]) -> Compare:
    comparator = job.spec.get("comparator", {"kind": "exact"})
    return Compare(job.id, step, tuple(answer.part() for answer in answers), comparator, job.spec["quorum"]["k"])


def _combine(job: Job, answers: tuple[Accepted, ...]) -> Combine:
    rule = job.spec["rule"]
    weights = rule.get("weights_permille")
    chosen = tuple(weights[step_of(job.spec, answer.task)] for answer in answers) if weights else ()
    return Combine(job.id, rule["method"], tuple(answer.part() for answer in answers), chosen, sites_needed(job.spec))
