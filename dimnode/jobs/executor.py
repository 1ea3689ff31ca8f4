"""The executor's side of a lease: run it once, keep the answer until it is acknowledged.

Rule: an answer is on disk before it is sent and stays there until the owner's `ack` or a day has passed. Only the owner
asks again (`resume`); this side never resends an answer on its own, so an answer cannot multiply. On a new link it says
what it still has (`progress`), and the owner calls off what nobody waits for.
Pure: no I/O, no clock.
"""

from dimnode.jobs.author import Author
from dimnode.jobs.deadlines import Deadlines, earliest
from dimnode.jobs.effects import Append, Effect, Forget, Release, Send, Stop
from dimnode.jobs.events import Key, LeaseReceived, Now, Ruled, RunFinished, RunRefused, Told
from dimnode.jobs.intake import spec_problem
from dimnode.jobs.states import WorkMove, WorkState
from dimnode.jobs.work import Work, answer_body, begun, consult_of, ruling_body, run_of
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import ANSWER_STATUS
from dimnode.records.plan import replicas_per_step, step_of, step_sources

_Place = tuple[RecordId, int]
# `accepted` is due after 5 ms and would be useless after 250; most runs end before, then the deadline is dropped.
_ACCEPT_BUCKETS_PER_SECOND = 50
_PROGRESS_PER_TTL = 3


class Executor:
    """Leases that other nodes (or this one) gave to this node."""

    def __init__(self, author: Author, limits: Limits) -> None:
        self._author, self._limits = author, limits
        self._works: dict[_Place, Work] = {}
        self._works_of: dict[PeerId, dict[_Place, Work]] = {}
        self._report_at: Deadlines[Key] = Deadlines(_ACCEPT_BUCKETS_PER_SECOND)
        self._keep_until: Deadlines[Key] = Deadlines()

    def due(self) -> float | None:
        """When `time_passed` is wanted next."""
        return earliest(self._report_at.due(), self._keep_until.due())

    def sizes(self) -> dict[str, int]:
        """How much is held: all zero when every answer has been acknowledged."""
        reports, kept = len(self._report_at), len(self._keep_until)
        return {"works": len(self._works), "report deadlines": reports, "keep deadlines": kept}

    # ---- the lease

    def leased(self, event: LeaseReceived, now: Now) -> list[Effect]:
        """Start a task, or answer for a lease that was seen before."""
        release = Release((event.lease, event.job), tuple(opening.cid for opening in event.openings))
        known = self._works.get((event.job, event.task))
        if known is not None and known.owner == event.peer and known.epoch == event.epoch:
            return [*self._again(known), release]
        if (no := self._objection(event, known)) is not None:
            return [no, release]
        effects = self._drop(known) if known is not None else self._make_room(event.peer)
        if known is None and self._is_full(event.peer):
            key, wait_ms = (event.job, event.task, event.epoch), self._limits.jobs.retry_after_ms_min
            text = "too many leases and unacknowledged answers here"
            no = Send(event.peer, "refused", key, code="E-jobs-22", text=text, retry_after_ms=wait_ms)
            return [*effects, no, release]
        if known is not None and known.owner != event.peer:  # or its silence would look like this node's fault
            text = "the job's submitter has leased this task itself"
            effects.append(Send(known.owner, "refused", known.key, code="E-jobs-23", text=text))
        work = begun(event)
        self._keep(work)
        self._report_at.set(work.key, now.mono + self._limits.jobs.accepted_after_ms / 1000)
        effects.append(run_of(work, self._author.me) if work.state is WorkState.RUNNING else consult_of(work))
        return effects

    def _objection(self, event: LeaseReceived, known: Work | None) -> Send | None:
        """Why this lease is not taken."""

        def no(code: str, text: str, retry_after_ms: int = 0) -> Send:
            key = (event.job, event.task, event.epoch)
            return Send(event.peer, "refused", key, code=code, text=text, retry_after_ms=retry_after_ms)

        if problem := spec_problem(event.spec, self._limits) or _task_problem(event):
            return no("E-jobs-21", problem)
        if known is not None:
            if known.owner == event.peer and known.epoch > event.epoch:
                return no("E-jobs-20", "a newer epoch is known")
            # Whoever has seen a spec can lease its tasks too; only its submitter may take one over.
            if known.owner != event.peer and event.spec["by"] != event.peer:
                return no("E-jobs-23", "another owner has leased this task", self._limits.jobs.retry_after_ms_min)
        return None

    def _is_full(self, owner: PeerId) -> bool:
        limits = self._limits.jobs
        theirs = len(self._works_of.get(owner, ()))
        return theirs >= limits.works_per_owner_max or len(self._works) >= limits.works_max

    def _make_room(self, owner: PeerId) -> list[Effect]:
        """When it is full here, forget the oldest answer that this owner, or who has most here, did not acknowledge.

        A few peers that never acknowledge would otherwise keep everybody out for a day. An owner whose answer was
        forgotten hears `unknown` when it asks, and leases again.
        """
        if not self._is_full(owner):
            return []
        crowd = owner
        if len(self._works_of.get(owner, ())) < self._limits.jobs.works_per_owner_max:
            crowd = max(self._works_of, key=lambda peer: len(self._works_of[peer]))
        answered = (work for work in self._works_of[crowd].values() if work.state is WorkState.ANSWERED)
        oldest = next(answered, None)
        return [] if oldest is None else self._drop(oldest)

    # ---- the run

    def ruled(self, event: Ruled, now: Now) -> list[Effect]:
        """Our policy decided: sign the ruling; run on a yes, refuse by the ruling on a no."""
        work = self._current(event.key)
        if work is None or work.state is not WorkState.CONSULTING:
            return []
        identity, payload = self._author.compose("ruling", ruling_body(work, event), now)
        work.rulings = (identity,)
        work.policy = event.policy
        appends: list[Effect] = [Append("lease", work.lease, work.key, lazy=True)]
        appends.append(Append("ruling", identity, work.key, payload))
        if event.allowed:
            work.move(WorkMove.PERMIT)
            return [*appends, run_of(work, self._author.me)]
        work.refused = True
        work.move(WorkMove.REFUSE)
        return [*appends, _result(work), self._settle(work, now)]

    def finished(self, event: RunFinished, now: Now) -> list[Effect]:
        """A run ended, well or badly: sign the answer, keep it, send it."""
        work = self._current(event.key)
        if work is None or work.state is not WorkState.RUNNING:
            return [Release((), (event.output.cid,))] if event.output else []
        if event.status not in ANSWER_STATUS:  # called off by this node: no outcome, somebody may try again
            refused = RunRefused(event.key, event.code, event.message, self._limits.jobs.retry_after_ms_min)
            release = [Release((), (event.output.cid,))] if event.output else []
            return [*release, *self.run_refused(refused)]
        work.move(WorkMove.FINISH)
        work.output = event.output
        work.answer, payload = self._author.compose("answer", answer_body(work, event), now)
        openings = (event.output,) if event.output else ()
        blobs = tuple(opening.cid for opening in openings)
        lease = Append("lease", work.lease, work.key, lazy=True)
        answer = Append("answer", work.answer, work.key, payload, openings, blobs)
        return [lease, answer, _result(work), self._settle(work, now)]

    def run_refused(self, event: RunRefused) -> list[Effect]:
        """The pool has no room or cannot run this (or not count the cohort): say so, keep nothing."""
        work = self._current(event.key)
        if work is None or work.state is WorkState.ANSWERED:
            return []
        retry_ms = event.retry_after_ms
        word = Send(work.owner, "refused", work.key, code=event.code, text=event.message, retry_after_ms=retry_ms)
        return [word, *self._drop(work, running=False)]

    # ---- the owner's words

    def told(self, event: Told) -> list[Effect]:
        """The owner acknowledges, asks again, or calls the task off. Anyone else is not listened to."""
        work = self._current(event.key)
        if work is not None and work.owner != event.peer:
            return []
        match event.what:
            case "ack" if work is not None and work.state is WorkState.ANSWERED:
                return self._drop(work)
            case "resume":
                return self._again(work) if work else [Send(event.peer, "unknown", event.key)]
            case "cancel":
                return [Send(event.peer, "cancelled", event.key), *(self._drop(work) if work else [])]
            case "refused" if work is not None:  # the owner found our record bad: it will not ask again
                return self._drop(work)
            case _:
                return []

    def peer_up(self, peer: PeerId) -> list[Effect]:
        """Say what of this owner's is still here: it asks for what it waits for, and calls off the rest."""
        return [Send(peer, "progress", work.key) for work in self._works_of.get(peer, {}).values()]

    def _again_ms(self, work: Work) -> float:
        """A third of the lease's time to live; a short one, which is the owner's to write, buys no flood of words."""
        limits, theirs = self._limits.jobs, len(self._works_of[work.owner])
        least_ms = max(limits.accepted_again_ms_min, 1000 * theirs / limits.accepted_again_per_second_max)
        return max(least_ms, work.ttl_ms / _PROGRESS_PER_TTL)

    def time_passed(self, now: Now) -> list[Effect]:
        """Tell owners that a run takes longer, and let go of answers that nobody fetched for a day."""
        effects: list[Effect] = []
        for key in self._report_at.pop(now.mono):
            work = self._current(key)
            assert work is not None and work.state is not WorkState.ANSWERED, "a result drops this deadline"
            effects.append(Send(work.owner, "accepted", key))
            self._report_at.set(key, now.mono + self._again_ms(work) / 1000)
        for key in self._keep_until.pop(now.mono):
            work = self._current(key)
            assert work is not None, "who lets go of work drops its deadline"
            effects += self._drop(work)
        return effects

    # ---- after a restart

    def adopt(self, work: Work, keep_seconds: float, now: Now) -> None:
        """Take over an answer or a refusal that nobody has acknowledged."""
        self._keep(work)
        self._keep_until.set(work.key, now.mono + keep_seconds)

    # ---- parts

    def _again(self, work: Work) -> list[Effect]:
        if work.state is WorkState.ANSWERED:
            return [_result(work)]
        return [Send(work.owner, "accepted", work.key)]

    def _settle(self, work: Work, now: Now) -> Release:
        """The result exists: there is nothing more to report, only to remember."""
        self._report_at.drop(work.key)
        self._keep_until.set(work.key, now.mono + self._limits.jobs.answer_keep_seconds)
        return work.settle()

    def _keep(self, work: Work) -> None:
        place = (work.job, work.task)
        self._works[place] = work
        self._works_of.setdefault(work.owner, {})[place] = work

    def _drop(self, work: Work, *, running: bool = True) -> list[Effect]:
        """The one path on which an executor lets go of what a lease held; a run that goes on is stopped."""
        place = (work.job, work.task)
        del self._works[place]
        of_owner = self._works_of[work.owner]
        del of_owner[place]
        if not of_owner:
            del self._works_of[work.owner]
        self._report_at.drop(work.key)
        self._keep_until.drop(work.key)
        effects: list[Effect] = []
        if work.state is WorkState.ANSWERED:
            effects.append(Forget(work.key))
        elif work.state is WorkState.RUNNING and running:
            effects.append(Stop(work.key))
        return [*effects, Release(work.records(), work.blobs())]

    def _current(self, key: Key) -> Work | None:
        work = self._works.get((key[0], key[1]))
        return work if work is not None and work.epoch == key[2] else None


def _result(work: Work) -> Send:
    policy = (work.policy,) if work.policy else ()
    if work.refused:
        return Send(work.owner, "ruling", work.key, (*work.rulings, *policy))
    assert work.answer is not None
    openings = (work.output,) if work.output else ()
    return Send(work.owner, "answer", work.key, (work.answer, *work.rulings, *policy), openings)


def _task_problem(event: LeaseReceived) -> str:
    """Why the lease's task is none of its spec."""
    if event.task >= len(event.spec["tasks"]) * replicas_per_step(event.spec):
        return "the spec has no such task"
    if len(event.openings) != len(step_sources(event.spec, step_of(event.spec, event.task))):
        return "the lease's inputs are not those of its step"
    return ""
