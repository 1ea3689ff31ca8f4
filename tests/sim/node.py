"""One simulated node: an engine between an inbox and a disk, as in the real loop.

Rule: a batch is handled, committed, performed, in that order; a crash may fall between any two of these, and then only
the journal is left.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dimnode.consensus.combining import check_part
from dimnode.consensus.standing import Standing, context_of
from dimnode.errors import PeerFault
from dimnode.jobs.effects import (
    Append,
    Combine,
    Compare,
    Consult,
    Effect,
    Forget,
    Note,
    Refuse,
    Release,
    Remember,
    Reply,
    Run,
    Send,
    Stop,
)
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import (
    AdvertHeard,
    BadRecord,
    CancelAsked,
    Combined,
    Compared,
    Event,
    Key,
    PeerDown,
    PeerUp,
    Ruled,
    RunFinished,
    RunRefused,
    TimePassed,
)
from dimnode.limits import LIMITS
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening

from .clients import Submission
from .frames import Frame, packed, unpacked
from .journal import Broken, Journal
from .pool import LIES, agree, combine, output_of, seconds
from .universe import ABSENT, CABINET, CLASSES, MODELS, key_of
from .vault import Vault

if TYPE_CHECKING:
    from .world import World

_BATCH = LIMITS.jobs.batch_events_max


class Node:
    """Journal, submissions and character outlive a crash; engine, vault, pool and inbox do not."""

    def __init__(self, index: int, world: "World") -> None:
        self.index, self.world = index, world
        self.peer = key_of(index).peer
        self.rng = random.Random(f"node {world.universe.seed} {index}")
        self.journal = Journal()
        self.submissions: list[Submission] = []
        self.liar = 0 < index <= world.universe.liars
        self.garbler = world.universe.liars < index <= world.universe.liars + world.universe.garblers
        fetches, share = world.universe.fetches, 0.3 if world.universe.fetches else 0.7
        always = () if fetches and index else MODELS[:2]
        claimed = [model for model in CLASSES if model in always or self.rng.random() < share]
        self.advert = AdvertHeard(
            self.peer,
            {model: CLASSES[model] for model in claimed},
            frozenset([CABINET] if self.rng.random() < 0.7 else []),
            self.rng.randint(1, 4),
            dict.fromkeys(claimed, 1000),
            frozenset({"mlp"}),
            1_000_000 if fetches else 0,
        )
        self.coming: set[Key] = set()
        self.fetched = 0
        self.strict = self.rng.random() < 0.3
        body = {"cabinet": CABINET, "operations": [], "min_cohort": 10, "output_classes": [], "queries_per_day": 9}
        policy, payload = compose("policy", {"net": OPEN_SWARM_ID, "by": self.peer, "at_ms": 0}, body)
        self.policy = policy
        self.journal.payloads[policy] = payload  # the operator's command wrote it, before any job
        self.life = 0
        self.alive = False
        self.dies_after_commit = False

    # ---- life and death

    def start(self) -> None:
        """Come up with what the journal holds."""
        self.life += 1
        self.alive, self.busy, self.flush_due = True, False, False
        self.vault = Vault()
        self.inbox: deque[Event] = deque()
        self.lazy: list[Effect] = []
        self.running: dict[Key, int] = {}
        self.queued: deque[Run] = deque()
        self.runs = 0
        standing = Standing.from_rows(self.journal.standing)
        self.engine = Engine(self.peer, OPEN_SWARM_ID, random.Random(self.rng.random()), standing=standing)
        effects, held = self.engine.restore(self.journal.read(), self.journal.forgotten, self.world.now)
        for record in held.records:
            self.vault.hold_record(self.journal.payloads[record])
        for cid in held.blobs:
            self.vault.hold_blob(self.journal.blobs[cid])
        self.world.trace(self, "start", effects)
        self._commit_later(effects)
        self.take(self.advert)
        for submission in self.submissions:
            if not submission.ended and submission.jobs:
                self.later(self.rng.uniform(0, 2), self.submit, submission)

    def die(self) -> None:
        """Lose everything but the journal."""
        self.alive = self.dies_after_commit = False
        self.life += 1

    def later(self, after_seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        """Do something in this life, if it lasts that long."""
        life = self.life

        def still_alive() -> None:
            if self.life == life:
                what(*arguments)

        self.world.after(after_seconds, still_alive)

    # ---- the loop

    def take(self, event: Event) -> None:
        """An event for the next batch."""
        self.inbox.append(event)
        if not self.busy and len(self.inbox) == 1:
            self.later(0, self._pass)

    def _pass(self) -> None:
        if self.busy or not self.inbox:
            return
        effects: list[Effect] = []
        for _ in range(min(_BATCH, len(self.inbox))):
            effects += self._handle(self.inbox.popleft())
        self._commit_later(effects)

    def _handle(self, event: Event) -> list[Effect]:
        barred = self._barred()
        effects = self.engine.handle(event, self.world.now)
        self.world.trace(self, event, effects)
        for effect in effects:
            if isinstance(effect, Send) and effect.what == "lease" and effect.peer in barred and self._infers(effect):
                raise Broken("a barred peer got a task")
        self.world.check_bounds(self)
        return effects

    def _infers(self, lease: Send) -> bool:
        """The lease is of the context in which liars are caught."""
        job = self.engine.owner.book.find(lease.key[0])
        return job is not None and "model" in job.spec["tasks"][0]

    def _barred(self) -> set[PeerId]:
        standing, now_ms = self.engine.roster.standing, self.world.now.wall_ms
        context = context_of("infer", "mlp")  # every model of the simulation is of this class
        peers = (node.peer for node in self.world.nodes)
        return {peer for peer in peers if standing.barred_until(peer, context, now_ms)}

    def _commit_later(self, effects: list[Effect]) -> None:
        self.busy = True
        binding = any(isinstance(effect, Append) and not effect.lazy for effect in effects)
        self.later(self.rng.uniform(0.0001, 0.003) if binding else 0, self._commit, effects, binding)

    def _commit(self, effects: list[Effect], binding: bool) -> None:
        for effect in effects:
            if isinstance(effect, Append) and effect.payload:
                self.vault.hold_record(effect.payload)
        rows = [effect for effect in effects if isinstance(effect, Append | Forget | Remember)]
        if binding:
            self.journal.commit([*self.lazy, *rows], self.vault)
            self.lazy = []
        else:
            self._keep_lazily(rows)
        if self.dies_after_commit:
            self.world.crash(self)
            return
        for effect in effects:
            self._perform(effect)
        self.busy = False
        if self.inbox:
            self.later(0, self._pass)
        self._set_alarm()

    def _keep_lazily(self, rows: list[Append | Forget | Remember]) -> None:
        """Rows that wait for the next commit keep their own bytes: the vault may let go of them meanwhile."""
        for row in rows:
            if isinstance(row, Append):
                self.journal.payloads.setdefault(row.id, self.vault.record(row.id))
        self.lazy += rows
        if rows and not self.flush_due:
            self.flush_due = True
            self.later(1.0, self._flush)

    def _flush(self) -> None:
        self.flush_due = False
        rows, self.lazy = self.lazy, []
        self.journal.commit(rows, self.vault)

    def _set_alarm(self) -> None:
        due = self.engine.due()
        if due is not None:
            self.later(max(0.0, due - self.world.now.mono), self._alarm)

    def _alarm(self) -> None:
        due = self.engine.due()
        if due is not None and due <= self.world.now.mono and not any(isinstance(e, TimePassed) for e in self.inbox):
            self.take(TimePassed())

    # ---- effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Append() | Forget() | Remember() | Note():
                pass
            case Release():
                self.vault.release(effect)
            case Send(peer):
                garbled = self.garbler and peer != self.peer and self.rng.random() < 0.5
                frame = packed(effect, self.vault, self.journal, garbled)
                if peer == self.peer:
                    self.receive(frame, peer)
                else:
                    self.world.send(self, peer, frame)
            case Run():
                self._run(effect)
            case Stop(key):
                self.coming.discard(key)
                self._stop(key)
            case Consult(key) if not self.world.universe.calm and self.rng.random() < 0.1:
                self.take(RunRefused(key, "E-exec-01", "the queue is full", 100))
            case Consult(key):
                allowed = not self.strict
                code, reason = ("", "") if allowed else ("E-cabinets-01", "not allowed")
                ruled = Ruled(key, effect.cabinet, allowed, code, reason, self.policy)
                self.later(seconds(self.rng, 0.5), self.take, ruled)
            case Compare():
                outputs = [self.vault.blob(part.output) for part in effect.parts]
                self.later(seconds(self.rng, 0.1), self._compared, effect, outputs)
            case Combine():
                outputs = [self.vault.blob(part.output) for part in effect.parts]
                self.later(seconds(self.rng, 0.1), self._combined, effect, outputs)
            case Reply(token) | Refuse(token):
                self.later(0, self._heard, token, effect)

    def _compared(self, effect: Compare, outputs: list[bytes]) -> None:
        self.take(Compared(effect.job, effect.step, *agree(effect, outputs)))

    def _combined(self, effect: Combine, outputs: list[bytes]) -> None:
        made, supporters, dissent, code = combine(effect, outputs)
        output = None if made is None else Opening.of(self.rng.randbytes(32), self.vault.hold_blob(made))
        self.take(Combined(effect.job, output, supporters, dissent, code))

    def receive(self, frame: Frame, peer: PeerId) -> None:
        """A frame from a linked peer, or from ourselves."""
        if rule := self._unreadable(frame, peer):
            self.take(BadRecord(peer, frame.word.key, rule, blame=False))
        else:
            self.take(unpacked(frame, peer, self.vault))

    def _unreadable(self, frame: Frame, peer: PeerId) -> str:
        """Why the job's rule can make nothing of this output, as the real courier asks."""
        job = self.engine.owner.book.find(frame.word.key[0])
        if job is None or frame.word.what != "answer" or not frame.blobs or frame.garbled:
            return ""
        if not self.engine.owner.expects(peer, frame.word.key):
            return ""
        try:
            check_part(job.spec["rule"]["method"], peer, frame.blobs[0], len(job.spec["tasks"]))
        except PeerFault as fault:
            return fault.rule
        return ""

    # ---- the pool

    def _came(self, run: Run) -> None:
        """What was fetched because a job named it, or its failure."""
        if run.key not in self.coming:  # called off
            return
        if self.rng.random() < self.world.universe.fetch_failures:
            self.coming.discard(run.key)
            self.take(RunRefused(run.key, "E-p2p-61", "nobody hands it out", 0))
            return
        assert run.model is not None
        self.fetched += 1
        models = {**self.advert.models, run.model: CLASSES[run.model]}
        self.advert = replace(self.advert, models=models, sizes=dict.fromkeys(models, 1000))
        self.world.tell(self)
        self.coming.discard(run.key)
        self._run(run)

    def _run(self, run: Run) -> None:
        if run.model == ABSENT:
            self.take(RunRefused(run.key, "E-exec-20", "the model is not here", 0))
        elif run.model is not None and run.model not in self.advert.models and run.key not in self.coming:
            self.coming.add(run.key)
            self.later(seconds(self.rng, 3.0), self._came, run)
        elif run.key in self.running or len(self.queued) >= self.world.universe.queue_tasks_max:
            self.take(RunRefused(run.key, "E-exec-01", "the queue is full", 100))
        elif len(self.running) >= self.advert.slots:
            self.queued.append(run)
        else:
            self._begin(run)

    def _begin(self, run: Run) -> None:
        self.runs += 1
        self.running[run.key] = self.runs
        inputs = [self.vault.blob(cid) for cid in run.inputs]
        self.later(seconds(self.rng, self.world.universe.run_seconds_max), self._end, run, inputs, self.runs)

    def _end(self, run: Run, inputs: list[bytes], number: int) -> None:
        if self.running.get(run.key) != number:
            return
        failing = run.model not in (None, *MODELS) or self.rng.random() < self.world.universe.run_failures
        status = self.rng.choice(["failed", "timeout", "crashed", "memory"]) if failing else "ok"
        output = None
        if not failing:
            blob = output_of(run, inputs, self.index, self.rng.choice(LIES) if self.liar else "")
            output = Opening.of(self.rng.randbytes(32), self.vault.hold_blob(blob))
        self._finish(run.key, status, output)

    def _stop(self, key: Key) -> None:
        self.queued = deque(run for run in self.queued if run.key != key)
        if key in self.running and self.rng.random() < 0.5:
            self._finish(key, "cancelled", None)

    def _finish(self, key: Key, status: str, output: Opening | None) -> None:
        del self.running[key]
        code = "" if status == "ok" else "E-exec-40"
        self.take(RunFinished(key, status, code, "", output, 100, 1, 1, 1, 1, {}, "none"))
        if self.queued:
            self._begin(self.queued.popleft())

    # ---- links

    def link(self, peer: PeerId, up: bool) -> None:
        """The link layer noticed a change."""
        self.take(PeerUp(peer) if up else PeerDown(peer))

    # ---- the client

    def submit(self, submission: Submission) -> None:
        """Hand a wish to this node's door; it asks the journal about nonces of jobs that are over."""
        if submission.ended:
            return
        if (ended := self.journal.ended(submission.nonce)) is not None:
            submission.heard(ended)
            return
        event, payload = submission.event(self.rng, self.world.now.wall_ms)
        for blob in submission.inputs:
            self.vault.hold_blob(blob)
        if not submission.own:
            self.vault.hold_record(payload)
        self.take(event)
        if submission.cancel_after is not None:
            self.later(submission.cancel_after, self.take, CancelAsked(submission.number, self.job_of(submission)))

    def job_of(self, submission: Submission) -> RecordId:
        """The job that a submission became, as far as its client can know."""
        return self.journal.nonces.get(submission.nonce, submission.jobs[0])

    def _heard(self, token: int, effect: Reply | Refuse) -> None:
        if self.submissions[token].heard(effect):
            self.later(self.rng.uniform(1, 3), self.submit, self.submissions[token])
