"""A job handed in over HTTP: compiled, written to the caller's account, put into the inbox, waited for.

Rule: who asked is on the disk before the job is, and stands in no record. One idempotency key of one API key names one
submission for ever: the same body gives the same job, another body is refused.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio
from msgspec.structs import replace

from dimnode.api.compiling import compile_aside
from dimnode.api.http.caller import Caller, model_names
from dimnode.api.http.closing import Closing
from dimnode.api.jobfile import Compiled, JobFile, input_blob, new_nonce, read_job
from dimnode.api.port import Answer, NodePort
from dimnode.errors import Refused
from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import Submitted
from dimnode.limits import HttpLimits
from dimnode.records.ids import RecordId, cid_text

_NONCE_BYTES = 16
_REPEAT_LETTERS_MAX = 255


class Asked(Protocol):
    """A line of the account."""

    @property
    def job(self) -> bytes:
        """The job's id."""

    @property
    def key(self) -> str:
        """Who asked."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the request's body."""

    @property
    def at_ms(self) -> int:
        """When."""


class Account(Protocol):
    """Which key asked for which job."""

    def note(self, job: bytes, key: str, repeat: str, digest: bytes, at_ms: int) -> None:
        """Remember; harmless when repeated."""

    def job(self, job: bytes) -> Asked | None:
        """Who asked for this job."""

    def repeated(self, key: str, repeat: str) -> Asked | None:
        """The job of this idempotency key."""

    def jobs_of(self, key: str, most: int, before_ms: int) -> Sequence[Asked]:
        """The newest jobs of a key, newest first."""


class Waiting:
    """The token of one submission: `begun` when the job is durable, `over` when it ended or was not taken.

    `leave` is called once, at its end, however long ago its client went away.
    """

    __slots__ = ("answer", "begun", "leave", "no", "over")

    def __init__(self, leave: Callable[[], None]) -> None:
        self.begun, self.over, self.leave = trio.Event(), trio.Event(), leave
        self.answer: Answer | None = None
        self.no: Refused | None = None

    def hear(self, _: Answer) -> None:
        """A job's first event comes after the commit that made it durable."""
        self.begun.set()

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over."""
        ended: Answer = {"job": reply.job, "status": reply.status, "verdict": reply.verdict, "outputs": list(outputs)}
        if reply.code:
            ended |= {"code": reply.code, "reason": reply.reason}
        self.answer = ended
        self._finish()

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""
        self.no = Refused(refuse.code, refuse.what, refuse.cause, refuse.hint, refuse.retry_after_ms)
        self._finish()

    def _finish(self) -> None:
        self.leave()
        self.begun.set()
        self.over.set()


class Submission:
    """Hands in the jobs of all callers."""

    def __init__(self, node: NodePort, account: Account, limits: HttpLimits, closing: Closing) -> None:
        self._node, self._account, self._limits, self._closing = node, account, limits, closing
        self._open: dict[str, int] = {}
        self._under_way: dict[bytes, trio.Event] = {}

    async def submit(
        self,
        caller: Caller,
        job: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        repeat: str = "",
        digest: bytes = b"",
        wait_seconds: float = 0.0,
    ) -> tuple[RecordId, Answer | None]:
        """The job's id, and how it ended if that was within `wait_seconds`. The job is durable when this returns.

        Raises `Refused`. Cancelled before the job was durable, it may or may not run: ask again with the same `repeat`.
        """
        caller.need("submit")
        wanted = read_job(job)
        self.need_models(caller, wanted)
        wanted, blobs = await self.large_input(caller, wanted, blobs)
        compiled = await compile_aside(wanted, self._node, blobs)
        for task in compiled.body["tasks"] if caller.key.models else ():  # a name may mean another model by now
            caller.need_model(self.names_of(cid_text(task["model"])))
        nonce = self._nonce(caller, repeat, digest)
        while repeat and (first := self._under_way.get(nonce)) is not None and not first.is_set():
            await first.wait()  # the same submission a moment ago: until it is durable, nobody could say its job's id
            nonce = self._nonce(caller, repeat, digest)
        known = self._node.known_job(nonce) if repeat else None
        if known is not None and (ended := await self._node.fetch_end(known)) is not None:
            return known, ended
        if known is not None:
            waiting = Waiting(lambda: None)
            event = self._node.rejoin(known, waiting)
            waiting.begun.set()
        else:
            if not self._node.readiness()["disk_ok"]:  # a node that cannot write its journal ends
                raise Refused("E-jobs-24", "the disk of this node is nearly full", "", "", 5000)
            waiting = Waiting(self._take_place(caller))
            event = self._compose(compiled, caller, nonce, waiting)
            self._note(event, caller, repeat, digest, waiting)
            self._under_way[nonce] = waiting.begun
        try:
            await self._carry(caller, event, waiting, wait_seconds)
        finally:
            waiting.begun.set()
            if self._under_way.get(nonce) is waiting.begun:
                del self._under_way[nonce]
        return event.job, waiting.answer

    def names_of(self, model: str) -> Sequence[str]:
        """What a model goes by; of one that nobody offers, what was asked."""
        try:
            return model_names(self._node.find_model(model))
        except Refused:
            return (model,)

    async def large_input(
        self, caller: Caller, job: JobFile, blobs: Sequence[bytes]
    ) -> tuple[JobFile, Sequence[bytes]]:
        """The same job, with numbers that are many as a blob: a thread makes it, so that nobody else waits for that."""
        if blobs or not job.input or caller.load.held <= self._limits.input_in_loop_bytes_max:
            return job, blobs
        model = self._node.find_model(job.tasks[0].model) if job.tasks and job.tasks[0].model else None
        blob = await trio.to_thread.run_sync(input_blob, job.input, model)
        return replace(job, input={}), (blob,)

    def need_models(self, caller: Caller, job: JobFile) -> None:
        """Raises `Refused` E-http-02 unless the key may run every task: before anything is said about its models."""
        for task in job.tasks if caller.key.models else ():
            if not task.model:
                what = "this key may run its models and nothing else, and a task names none"
                raise Refused("E-http-02", what, "", "dim keys new without --model")
            caller.need_model(self.names_of(task.model))

    async def wait(self, job: RecordId, wait_seconds: float) -> Answer | None:
        """How a job ended, if it does within this time."""
        over = trio.Event()

        def hear(event: Answer) -> None:
            if self._node.has_ended(job):
                over.set()

        if wait_seconds > 0:
            stop = self._node.watch(job, hear)
            try:
                with trio.move_on_after(wait_seconds) as patience, self._closing.wakes(patience.cancel):
                    await over.wait()
            finally:
                stop()
        return await self._node.fetch_end(job)

    async def _carry(self, caller: Caller, event: Submitted, waiting: Waiting, wait_seconds: float) -> None:
        """Into the inbox; until it is durable, and then for its end as long as the caller wants."""
        stop = self._node.watch(event.job, waiting.hear)
        try:
            try:
                await self._node.submit(caller.key.id, event)
            except trio.Cancelled:  # the client hung up while the doors' lane was full
                self._node.abandon(event)
                waiting.leave()
                raise
            await waiting.begun.wait()
            with trio.move_on_after(wait_seconds) as patience, self._closing.wakes(patience.cancel):
                await waiting.over.wait()
        finally:
            stop()
        if waiting.no is not None:
            raise waiting.no

    def _compose(self, compiled: Compiled, caller: Caller, nonce: bytes, waiting: Waiting) -> Submitted:
        body = {**compiled.body, "nonce": nonce}
        if caller.trace_parent:  # an opaque number that the client chose: it joins traces, and names nobody
            body["x_traceparent"] = caller.trace_parent
        try:
            return self._node.compose_spec(body, compiled.inputs, waiting)
        except Refused:
            waiting.leave()
            raise

    def _note(self, event: Submitted, caller: Caller, repeat: str, digest: bytes, waiting: Waiting) -> None:
        try:
            self._account.note(event.job, caller.key.id, repeat, digest, time.time_ns() // 1_000_000)
        except Refused:  # the account cannot be written: then the job is not handed in either
            self._node.abandon(event)
            waiting.leave()
            raise

    def _take_place(self, caller: Caller) -> Callable[[], None]:
        """One of the jobs that a key may have open; call the result when it is over. Raises `Refused` E-http-08."""
        held, key, most = self._open, caller.key.id, caller.key.open_jobs
        if held.get(key, 0) >= most:
            raise Refused("E-http-08", f"this key has {most} jobs open", "", "wait for one to end", 1000)
        held[key] = held.get(key, 0) + 1

        def leave() -> None:
            held[key] -= 1
            if not held[key]:
                del held[key]

        return leave

    def _nonce(self, caller: Caller, repeat: str, digest: bytes) -> bytes:
        if not repeat:
            return new_nonce()
        if not 1 <= len(repeat) <= _REPEAT_LETTERS_MAX or not repeat.isascii() or not repeat.isprintable():
            raise Refused("E-http-13", f"an Idempotency-Key has 1 to {_REPEAT_LETTERS_MAX} plain letters")
        before = self._account.repeated(caller.key.id, repeat)
        if before is not None and before.digest != digest:
            what = "this Idempotency-Key was used for another request"
            raise Refused("E-http-09", what, "", "a new key for a new request")
        return hashlib.sha256(f"dim-http-repeat/1\n{caller.key.id}\n{repeat}".encode()).digest()[:_NONCE_BYTES]
