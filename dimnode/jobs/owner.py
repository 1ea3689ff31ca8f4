"""The owner's side of a job: accept it, lease its tasks, accept each answer exactly once.

Rule: only the epoch decides acceptance. A task that is lost is leased again under epoch + 1; answers of older epochs
are kept as evidence and never accepted. Pure: no I/O, no clock, no secret.
"""

from dataclasses import replace

from dimnode.consensus.standing import UNVERIFIED
from dimnode.errors import Refused
from dimnode.jobs.answers import appends_in_time, appends_too_late, let_go, misfit
from dimnode.jobs.author import Author
from dimnode.jobs.book import JobBook, nonce_of
from dimnode.jobs.deadlines import earliest
from dimnode.jobs.deciding import Deciding
from dimnode.jobs.effects import Append, Effect, Note, Refuse, Release, Reply, Send
from dimnode.jobs.events import AnswerReceived, BadRecord, CancelAsked, Key, Now, RulingReceived, Submitted, Token, Told
from dimnode.jobs.intake import consider
from dimnode.jobs.job import Accepted, Job, Task
from dimnode.jobs.leasing import Leasing
from dimnode.jobs.retrying import Retrying
from dimnode.jobs.roster import Roster
from dimnode.jobs.states import TaskMove, TaskState
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, RecordId

_BAD_RECORD = "E-records-01"
_UNREADABLE = "E-consensus-02"
_STILL_AT_IT = ("accepted", "progress")


class Owner:
    """Open jobs of this node and the leases out for them."""

    def __init__(self, author: Author, limits: Limits, roster: Roster) -> None:
        self._me, self._limits, self._roster = author.me, limits, roster
        self.book = JobBook(limits)
        self._leasing = Leasing(author, limits, roster)
        self._retrying = Retrying(self._leasing, limits)
        self.deciding = Deciding(author, limits, roster, self.book, self._leasing)

    def expects(self, peer: PeerId, key: Key) -> bool:
        """This is a current lease of ours, and the peer its executor."""
        return self._leasing.find(peer, key) is not None

    def due(self) -> float | None:
        """When `time_passed` is wanted next."""
        return earliest(self._leasing.due(), self.deciding.ends.due())

    def sizes(self) -> dict[str, int]:
        """How much is held for open jobs: all zero when there is none."""
        return {"jobs": len(self.book), "job deadlines": len(self.deciding.ends), **self._leasing.sizes()}

    # ---- clients

    def submitted(self, event: Submitted, now: Now) -> list[Effect]:
        """Take a job or refuse it; a nonce that was seen before gets the job it named then."""
        blobs = tuple(opening.cid for opening in event.openings)
        release = Release(() if event.payload else (event.job,), blobs)
        nonce = nonce_of(event.spec)
        if (known := self.book.named(nonce)) is not None:
            return [*self._asked_again(event.token, known), release]
        try:
            consider(event.spec, len(self.book), self._roster, self._limits, now)
        except Refused as no:
            return [_refuse(event.token, event.job, no), release]
        job = Job(event.job, event.spec, event.openings, now.mono + event.spec["deadline_ms"] / 1000)
        job.tokens.append(event.token)
        job.held.append(job.id)
        self.deciding.open(job)
        append = Append("spec", job.id, (job.id, 0, 0), event.payload, event.openings, blobs, nonce)
        return [append, Note(job.id, "submitted"), *self.deciding.follow(now, job)]

    def _asked_again(self, token: Token, known: Job | Reply) -> list[Effect]:
        if isinstance(known, Reply):
            return [replace(known, token=token)]
        if token in known.tokens:
            return []
        if len(known.tokens) >= self._limits.jobs.clients_per_job_max:
            no = Refused("E-jobs-12", "too many clients wait for this job", retry_after_ms=1000)
            return [_refuse(token, known.id, no)]
        known.tokens.append(token)
        return []

    def cancel(self, event: CancelAsked, now: Now) -> list[Effect]:
        """End an open job at its client's wish; a job that is already over stays as it ended."""
        job = self.book.find(event.job)
        if job is not None:
            if event.token is not None and event.token not in job.tokens:
                job.tokens.append(event.token)
            return self.deciding.cancel(job, now)
        if (ended := self.book.ended(event.job)) is not None:
            return [replace(ended, token=event.token)]
        no = Refused("E-jobs-11", "there is no open job with this id", hint="dim job ls")
        return [_refuse(event.token, event.job, no)]

    # ---- executors

    def answered(self, event: AnswerReceived, now: Now) -> list[Effect]:
        """Accept the answer of the current epoch's executor once; keep any other as evidence, unaccepted."""
        ack = Send(event.peer, "ack", event.key)
        leased = self._leasing.find(event.peer, event.key)
        if leased is None:  # an answer to an abandoned lease is kept once; what nobody asked for leaves nothing
            kept = appends_too_late(event) if self._leasing.take_late(event.lease, event.peer, event.key) else []
            return [*kept, ack, let_go(event)]
        job, task = leased
        if rule := misfit(job, task, event):
            return [*self._reject(job, task, rule, now), let_go(event), *self.deciding.follow(now)]
        self._roster.worked(event.peer)
        job.held += (event.answer, *event.rulings, *event.policies)
        take = self._accept if event.status == "ok" else self._answered_badly
        return [*appends_in_time(event), ack, *take(job, task, event, now), *self.deciding.follow(now, job)]

    def _accept(self, job: Job, task: Task, event: AnswerReceived, now: Now) -> list[Effect]:
        assert event.output is not None
        self._leasing.end(job, task)
        task.move(TaskMove.ANSWER)
        job.answers[event.answer] = Accepted(task.number, event.peer, event.answer, event.weight, event.output)
        note = Note(job.id, "answered", task.number, task.epoch, event.peer)
        if job.quorum:  # it is judged when it has been compared
            return [note]
        return [note, *self._roster.judge(job, task, event.peer, True, UNVERIFIED, event.answer, now)]

    def _answered_badly(self, job: Job, task: Task, event: AnswerReceived, now: Now) -> list[Effect]:
        job.failed.append(event.answer)
        effects: list[Effect] = [Release((), (event.output.cid,))] if event.output else []
        if event.status != "failed":  # a failed run may be the input's or the model's fault, the rest is the peer's
            effects += self._roster.judge(job, task, event.peer, False, "late", event.answer, now)
        return effects + self._retrying.failed(job, task, event.code, event.error, now, counts=True)

    def ruled_out(self, event: RulingReceived, now: Now) -> list[Effect]:
        """A site's policy said no: that is final for this site, and evidence for the receipt."""
        ack = Send(event.peer, "ack", event.key)
        leased = self._leasing.find(event.peer, event.key)
        if leased is None:
            return [ack, Release((event.ruling, *event.policies))]
        job, task = leased
        if event.lease is not None and (event.lease, event.cabinet) != (task.lease, job.template(task).get("cabinet")):
            rejected = self._reject(job, task, "ruling: another lease or cabinet", now)
            return [*rejected, Release((event.ruling, *event.policies)), *self.deciding.follow(now)]
        job.held += (event.ruling, *event.policies)
        job.refusals.append(event.ruling)
        appends = [Append("policy", policy, event.key) for policy in event.policies]
        appends.append(Append("ruling", event.ruling, event.key))
        failed = self._retrying.failed(job, task, event.code, event.reason, now, counts=False)
        return [*appends, ack, *failed, *self.deciding.follow(now)]

    def told(self, event: Told, now: Now) -> list[Effect]:
        """Short words about a lease: still at it, cannot, never heard of it."""
        leased = self._leasing.find(event.peer, event.key)
        if leased is None:  # whoever still works on what nobody waits for is told so
            return [Send(event.peer, "cancel", event.key)] if event.what in _STILL_AT_IT else []
        job, task = leased
        match event.what:
            case "accepted" | "progress":
                self._leasing.renew(job, task, now)
                return [Note(job.id, event.what, task.number, task.epoch, event.peer)]
            case "refused" if event.retry_after_ms:
                effects = self._retrying.busy(job, task, event.retry_after_ms, now)
            case "refused":
                effects = self._retrying.failed(job, task, event.code, event.text, now, counts=False)
            case "unknown":
                effects = self._retrying.lost(job, task, now, avoid=False)
            case _:
                return []
        return effects + self.deciding.follow(now)

    def bad_record(self, event: BadRecord, now: Now) -> list[Effect]:
        """A peer sent a record that does not hold: refused by name; dropping the link would only make it flap."""
        leased = self._leasing.find(event.peer, event.key)
        if leased is None:
            return [Send(event.peer, "refused", event.key, code=_BAD_RECORD, text=event.rule)]
        code = _BAD_RECORD if event.blame else _UNREADABLE
        return self._reject(*leased, event.rule, now, code=code, blame=event.blame) + self.deciding.follow(now)

    def _reject(
        self, job: Job, task: Task, rule: str, now: Now, *, code: str = _BAD_RECORD, blame: bool = True
    ) -> list[Effect]:
        assert task.peer is not None and task.lease is not None
        judged = self._roster.judge(job, task, task.peer, False, "record", task.lease, now) if blame else []
        refused = Send(task.peer, "refused", job.key(task), code=code, text=rule)
        return [*judged, refused, *self._retrying.failed(job, task, code, rule, now, counts=True)]

    # ---- links and time

    def peer_up(self, peer: PeerId, now: Now) -> list[Effect]:
        """A link stands: ask what became of every lease that is out there, and give out what waits."""
        return self._leasing.resume(peer) + self.offers_changed(now)

    def peer_down(self, peer: PeerId, now: Now) -> list[Effect]:
        """A link is gone: move its tasks, unless nobody else could take them (then wait and resume)."""
        effects: list[Effect] = []
        for job, task in self._leasing.strand(peer, now):
            effects += self._retrying.lost(job, task, now)
        return effects + self.deciding.follow(now)

    def offers_changed(self, now: Now) -> list[Effect]:
        """Somebody may take more than before: stranded leases move, waiting tasks are leased."""
        effects: list[Effect] = []
        for job, task in self._leasing.movable(now):
            effects += self._retrying.lost(job, task, now)
        return effects + self.deciding.follow(now)

    def time_passed(self, now: Now) -> list[Effect]:
        """Leases that ended without a word, jobs past their deadline, busy peers to ask again."""
        effects: list[Effect] = []
        for job, task in self._leasing.expired(now):
            effects += self._silent(job, task, now)
        effects += self._leasing.look_again(now)
        return effects + self.deciding.expire(now) + self.offers_changed(now)

    def _silent(self, job: Job, task: Task, now: Now) -> list[Effect]:
        """No word for a whole time to live, or words for too long.

        Silence of a linked peer is a fault; one that is away may yet return. One that keeps saying that it is at it is
        left at it while nobody else could take the task.
        """
        assert task.peer is not None and task.lease is not None
        if self._roster.seat(task.peer).up:
            too_long = now.mono >= task.lease_until
            if too_long and not self._leasing.others_can(job, task, now):
                self._leasing.begin(job, task, now)
                return []
            kind = "late" if too_long else "lost"
            judged = self._roster.judge(job, task, task.peer, False, kind, task.lease, now)
            call_off = Send(task.peer, "cancel", job.key(task))
            return [*judged, call_off, *self._retrying.lost(job, task, now)]
        if job.quorum or self._roster.usable(job.need(task), now):
            return self._retrying.lost(job, task, now)
        self._leasing.begin(job, task, now)
        return []

    # ---- after a restart

    def restore(self, jobs: list[Job], now: Now) -> None:
        """Take over jobs from the journal; `go_on` follows."""
        if jobs:
            self._leasing.be_patient(now)
        for job in jobs:
            self.deciding.open(job)
            for task in job.tasks.values():
                if task.state is TaskState.LEASED:
                    self._leasing.adopt(job, task, now)

    def go_on(self, now: Now) -> list[Effect]:
        """Do what restored jobs can do without hearing from anybody. This node's own leases need no link."""
        effects = self._leasing.resume(self._me)
        for job in self.book.jobs():
            for task in job.tasks.values():
                if task.state is TaskState.WAITING:
                    effects += self._leasing.place(job, task, now)
            effects += self.deciding.follow(now, job)
        return effects


def _refuse(token: Token, job: RecordId, no: Refused) -> Refuse:
    found = no.complaint
    return Refuse(token, job, found.code, found.what, found.cause, found.hint, no.retry_after_ms)
