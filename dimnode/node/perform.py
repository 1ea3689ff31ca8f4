"""What each effect does: frames to peers, runs to the pool, verdict work, replies to doors.

Rule: nothing here decides. Whatever comes back (a result, a comparison, a refusal) returns to the loop as an event.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, assert_never

from dimnode.cabinets.policy import Request, Ruling, conditions_digest, decide, rows_mask
from dimnode.consensus.agreement import support
from dimnode.consensus.combining import Contribution
from dimnode.consensus.combining import combine as combined
from dimnode.errors import PeerFault, Refused
from dimnode.exec.orders import Busy, Condition, Finished, Order, Rows, Take
from dimnode.exec.pool import Pool
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
from dimnode.jobs.events import Combined, Compared, Event, Key, Ruled, RunFinished, RunRefused
from dimnode.limits import Limits
from dimnode.node.diary import Diary
from dimnode.node.library import Library
from dimnode.node.model_orders import LocalModel
from dimnode.node.receipts import gone
from dimnode.node.usage import CabinetUse
from dimnode.p2p.frames import TaskFrame
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid
from dimnode.records.receipt import Opening
from dimnode.records.tensors import decode_tensors
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault


class Door(Protocol):
    """What a token is: the place where somebody waits for a job."""

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over."""

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""


class Performer:
    """Performs effects; holds no job state."""

    def __init__(
        self,
        me: PeerId,
        vault: Vault,
        journal: Journal,
        library: Library,
        uses: CabinetUse,
        send: Callable[[PeerId, TaskFrame], None],
        put: Callable[[Event], None],
        note: Callable[[Note], None],
        task_timeout_seconds: float,
        limits: Limits,
        spec_of: Callable[[RecordId], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        self._me, self._vault, self._journal, self._library, self._uses = me, vault, journal, library, uses
        self._send, self._put, self._note = send, put, note
        self._timeout_seconds, self._limits = task_timeout_seconds, limits
        self._spec_of = spec_of
        self._coming: set[Key] = set()
        self._in_use: dict[Key, list[tuple[Cid, ...]]] = {}
        self.fetch: Callable[[Run], None] | None = None
        self.leased: Callable[[PeerId, PeerId, Iterable[RecordId]], None] = lambda _peer, _submitter, _models: None
        self._consults: dict[Key, Consult] = {}
        self.pool: Pool | None = None
        self.diary = Diary()
        self.model_to_run: Callable[[LocalModel], LocalModel] = lambda asked: asked

    def perform(self, effect: Effect) -> None:
        """One effect. Called by the loop, in order, after the commit."""
        match effect:
            case Send():
                self._send_frame(effect)
            case Run():
                self._run(effect)
            case Release():
                for identity in (*effect.records, *effect.blobs):
                    self._vault.release(identity)
            case Note():
                self._note(effect)
            case Reply():
                self._reply(effect)
            case Refuse():
                if effect.token is not None:
                    effect.token.refused(effect)
            case Compare():
                self._put(self._compare(effect))
            case Combine():
                self._put(self._combine(effect))
            case Consult():
                self._consult(effect)
            case Stop():
                self._coming.discard(effect.key)
                if self.pool is not None:
                    self.pool.cancel(effect.key)
            case Append() | Forget() | Remember():
                raise AssertionError("appends are committed, not performed")
            case _:
                assert_never(effect)

    def hold_blob(self, blob: bytes) -> Opening:
        """Hold new bytes for the event that will carry them, under a fresh salt."""
        cid = blob_cid(blob)
        self._vault.hold(cid, blob)
        return Opening.of(os.urandom(32), cid)

    # ---- peers

    def _send_frame(self, effect: Send) -> None:
        if effect.what == "answer" and any(self._held(opening.cid) is None for opening in effect.openings):
            # Asked for again after the journal has made room: an owner hears the same as after a restart.
            effect = Send(effect.peer, "unknown", effect.key)
        envelopes = tuple(self._bytes(identity) for identity in effect.records)
        blobs = tuple(self._bytes(opening.cid) for opening in effect.openings)
        words = (effect.code[:32], effect.text[:256], min(effect.retry_after_ms, self._limits.jobs.retry_after_ms_max))
        grants = self._grants(effect) if effect.what == "lease" and effect.peer != self._me else ()
        self._send(effect.peer, TaskFrame(effect.what, effect.key, envelopes, effect.openings, blobs, *words, grants))

    def _grants(self, effect: Send) -> tuple[bytes, ...]:
        """What the executor needs to see before it runs a model that is not everybody's."""
        spec = self._spec_of(effect.key[0])
        if spec is None:
            return ()
        asked = {RecordId(task["model"]): task["op"] for task in spec["tasks"] if "model" in task}
        if asked:
            self.leased(effect.peer, spec["by"], asked)
        return self._library.registry.passes(spec["by"], asked, self._uses.now_ms())

    def _bytes(self, identity: bytes) -> bytes:
        """Held, or in the journal: a policy record, or a result that nobody has acknowledged."""
        found = self._held(identity)
        assert found is not None, "an effect names bytes that nobody has"
        return found

    def _held(self, identity: bytes) -> bytes | None:
        found = self._vault.get(identity)
        return self._journal.envelope(identity) or self._journal.blob(identity) if found is None else found

    # ---- runs

    def _run(self, run: Run) -> None:
        rows = None
        if run.cabinet:
            rows = self._rows(run.cabinet, run.where)
        model = self._library.models.get(run.model) if run.model is not None else None
        if model is not None:
            access = self._library.registry.access(model.manifest.id, run.submitter, run.op, self._uses.now_ms())
            if not access.allowed:
                self._put(RunRefused(run.key, access.code, access.cause, 0))
                return
        if run.model is not None and model is None and self.fetch is not None and self.pool is not None:
            self._coming.add(run.key)
            self.fetch(run)
            return
        if (run.model is not None and model is None) or (run.cabinet and rows is None):
            what = "model" if model is None and run.model is not None else "cabinet"
            self._put(RunRefused(run.key, "E-exec-20", f"this node does not have the {what}", 0))
            return
        if model is not None:
            self._library.for_others.used(model.manifest.id)
            model = self.model_to_run(model)
        order = Order(
            key=run.key,
            op=run.op,  # type: ignore[arg-type]  # the spec's schema allows exactly the pool's operations
            model=model.order if model is not None else None,
            inputs=tuple(self._bytes(cid) for cid in run.inputs),
            take=tuple(Take(*row) for row in run.take),
            rows=rows,
            priority=run.priority,  # type: ignore[arg-type]
            timeout_seconds=self._timeout_seconds,
            deterministic=run.deterministic,
            client=run.client,
            deadline_seconds=run.deadline_ms / 1000,
        )
        self._offer(order, model.roots if model is not None else ())

    def fetched(self, run: Run, problem: Refused | None) -> None:
        """The model of a run that waited is here, or does not come; nothing when the task was called off meanwhile."""
        if run.key not in self._coming:
            return
        self._coming.discard(run.key)
        if problem is not None:
            said = problem.complaint
            text = f"{said.what}: {said.cause}" if said.cause else said.what
            self._put(RunRefused(run.key, said.code, text, 0))
        elif run.model in self._library.models:
            self._run(run)
        else:
            self._put(RunRefused(run.key, "E-exec-20", "this node does not have the model", 0))

    def _offer(self, order: Order, roots: tuple[Cid, ...] = ()) -> None:
        """roots: of the model's files, which nothing takes away until this order has ended."""
        busy = self.pool.offer(order) if self.pool else Busy("E-exec-04", "this node executes nothing", 0)
        key = (RecordId(order.key[0]), order.key[1], order.key[2])
        if busy is None:
            self._library.blobs.hold(*roots)
            # One that was called off is reported a moment later: the same lease may have come again by then.
            self._in_use.setdefault(key, []).append(roots)
        else:
            self._consults.pop(key, None)  # a full pool is no ruling: the owner may ask again later
            self._put(RunRefused(key, busy.code, busy.message, busy.retry_after_ms))

    def finished(self, done: Finished) -> None:
        """The pool's callback: a result becomes an event."""
        key = (RecordId(done.key[0]), done.key[1], done.key[2])
        in_use = self._in_use[key]
        self._library.blobs.release(*in_use.pop(0))
        if not in_use:
            del self._in_use[key]
        self.diary.task_ended(key, done.status)
        consult = self._consults.pop(key, None)
        if done.status == "refused":  # it did not run, and nothing was decided: the owner may ask again, or elsewhere
            self._put(RunRefused(key, done.code, done.message, self._limits.jobs.retry_after_ms_min))
            return
        if consult is not None:
            self._rule(consult, done)
            return
        if done.status == "cancelled":
            self.diary.write()  # no event follows, and so no pass of the loop
            return
        output = self.hold_blob(done.output) if done.status == "ok" else None
        event = RunFinished(
            key,
            done.status,
            done.code,
            done.message,
            output,
            done.rows,
            done.run_us,
            done.queue_us,
            done.cpu_us,
            done.rss_bytes,
            done.runtime,
            done.sandbox,
            done.gpu_bytes,
        )
        self._put(event)

    # ---- cabinets

    def _rows(self, name: str, where: tuple[tuple[str, str, int], ...]) -> Rows | None:
        cabinet = self._library.cabinets.by_name.get(name)
        if cabinet is None:
            return None
        conditions = tuple(Condition(column, op, micro) for column, op, micro in where)  # type: ignore[arg-type]
        return Rows(cabinet.path, cabinet.label, cabinet.exclude, conditions)

    def _consult(self, consult: Consult) -> None:
        rows = self._rows(consult.cabinet, consult.where)
        if rows is None:
            ruling = decide(None, self._request(consult, 0, 0), 0)
            self._put(_ruled(consult, ruling, None))
            return
        cabinet = self._library.cabinets.by_name[consult.cabinet]
        early = decide(cabinet.policy, self._request(consult, cabinet.policy.min_cohort, 0), 0)
        if not early.allowed:  # who may not ask at all makes nobody read the file, and uses up nobody's queries
            self._put(_ruled(consult, early, cabinet.policy_record.id))
            return
        self._consults[consult.key] = consult
        client = consult.submitter if consult.owner in (consult.submitter, self._me) else consult.owner
        order = Order(consult.key, "cohort", None, (), (), rows, "normal", self._timeout_seconds, client=client)
        self._offer(order)

    def _rule(self, consult: Consult, counted: Finished) -> None:
        cabinet = self._library.cabinets.by_name.get(consult.cabinet)
        if cabinet is None:  # its owner withdrew it while its rows were counted
            self._put(_ruled(consult, decide(None, self._request(consult, 0, 0), 0), None))
            return
        if counted.status != "ok":
            ruling = Ruling(False, counted.code, counted.message)
        else:
            named = {tensor.name: tensor for tensor in decode_tensors(counted.output)}
            mask = rows_mask(_set_bits(named["mask"].raw)) if "mask" in named else 0
            now_ms = self._uses.now_ms()
            conditions = conditions_digest(consult.where)
            request = self._request(consult, counted.rows, mask)
            request = replace(request, repeated=self._uses.repeated(consult.cabinet, mask, conditions))
            used, previous = self._uses.so_far(consult.cabinet, now_ms)
            ruling = decide(cabinet.policy, request, used, previous)
            self._uses.note(consult.cabinet, now_ms, consult.submitter, mask if ruling.allowed else 0, conditions)
        self._put(_ruled(consult, ruling, cabinet.policy_record.id))

    def _request(self, consult: Consult, cohort: int, mask: int) -> Request:
        return Request(
            submitter=consult.submitter,
            owner=consult.owner,
            operation=consult.op,
            model=consult.model or b"",
            cohort=cohort,
            purpose=consult.purpose,
            at_ms=self._uses.now_ms(),
            rows=mask,
            where=frozenset(column for column, _, _ in consult.where),
        )

    # ---- verdicts

    def _compare(self, compare: Compare) -> Compared:
        answers = [(part.answer, part.peer, self._bytes(part.output)) for part in compare.parts]
        try:
            found = support(answers, compare.comparator, compare.k)
        except PeerFault:  # outputs that no comparator can read support nothing
            return Compared(compare.job, compare.step, None, (), tuple(part.answer for part in compare.parts))
        if found.accepted is None:
            return Compared(compare.job, compare.step, None, (), tuple(part.answer for part in compare.parts))
        return Compared(
            compare.job,
            compare.step,
            RecordId(found.accepted),
            tuple(RecordId(answer) for answer in found.supporters),
            tuple(RecordId(answer) for answer in found.dissenters),
        )

    def _combine(self, combine: Combine) -> Combined:
        answers = tuple(part.answer for part in combine.parts)
        try:
            made = combined(combine.method, self._contributions(combine), combine.needed)
        except PeerFault as fault:
            return Combined(combine.job, None, answers, (), "E-consensus-01", f"the answers do not fit: {fault.rule}")
        dissent = tuple(answers[place] for place in made.dissent)
        supporters = tuple(answers[place] for place in made.counted if place not in made.dissent)
        return Combined(combine.job, self.hold_blob(made.output), supporters, dissent)

    def _contributions(self, combine: Combine) -> list[Contribution]:
        """Weights are the submitter's where the spec has some, else the sites' own where the rule is about these."""
        own = [part.weight if combine.method == "federated_average" else 1 for part in combine.parts]
        rows = zip(combine.parts, combine.weights_permille or own, strict=True)
        return [Contribution(part.peer, part.answer, weight, self._bytes(part.output)) for part, weight in rows]

    # ---- doors

    def _reply(self, reply: Reply) -> None:
        if reply.token is None:
            return
        outputs = [self._held(cid) for cid in reply.outputs]
        whole = tuple(output for output in outputs if output is not None)
        if len(whole) < len(outputs):  # a job that ended long ago was asked for again
            no = gone(reply.status).complaint
            reply.token.refused(Refuse(reply.token, reply.job, no.code, no.what, no.cause, no.hint))
            return
        reply.token.ended(reply, whole)


def _ruled(consult: Consult, ruling: Ruling, policy: RecordId | None) -> Ruled:
    return Ruled(consult.key, consult.cabinet, ruling.allowed, ruling.code, ruling.reason, policy)


def _set_bits(mask: bytes) -> list[int]:
    """Row numbers whose byte is 1."""
    return [index for index, byte in enumerate(mask) if byte]
