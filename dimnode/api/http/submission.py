"""A job handed in over HTTP: compiled, written to the caller's account, put into the inbox, waited for.

Rule: who asked is on the disk before the job is, and stands in no record. One idempotency key of one API key names one
submission for ever: the same body gives the same job, another body is refused.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from dimnode.api.http.caller import Caller, model_names
from dimnode.api.jobfile import Compiled, compile_job, new_nonce, read_job
from dimnode.api.port import Answer, NodePort
from dimnode.errors import Refused
from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import Submitted
from dimnode.limits import HttpLimits
from dimnode.records.ids import RecordId

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

    def __init__(self, node: NodePort, account: Account, limits: HttpLimits) -> None:
        self._node, self._account, self._limits = node, account, limits
        self._open: dict[str, int] = {}

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
        compiled = compile_job(read_job(job), self._node, blobs)
        for model in compiled.models:
            if model is not None:
                caller.need_model(model_names(model))
        nonce = self._nonce(caller, repeat, digest)
        known = self._node.known_job(nonce) if repeat else None
        if known is not None and (ended := self._node.job_end(known)) is not None:
            return known, ended
        if known is not None:
            waiting = Waiting(lambda: None)
            event = self._node.rejoin(known, waiting)
            waiting.begun.set()
        else:
            waiting = Waiting(self._take_place(caller))
            event = self._compose(compiled, caller, nonce, waiting)
            self._account.note(event.job, caller.key.id, repeat, digest, time.time_ns() // 1_000_000)
        await self._carry(caller, event, waiting, wait_seconds)
        return event.job, waiting.answer

    async def wait(self, job: RecordId, wait_seconds: float) -> Answer | None:
        """How a job ended, if it does within this time."""
        over = trio.Event()

        def hear(event: Answer) -> None:
            if self._node.job_end(job) is not None:
                over.set()

        if wait_seconds > 0:
            stop = self._node.watch(job, hear)
            try:
                with trio.move_on_after(wait_seconds):
                    await over.wait()
            finally:
                stop()
        return self._node.job_end(job)

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
            with trio.move_on_after(wait_seconds):
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
