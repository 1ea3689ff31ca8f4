"""The Python client: everything the command line can do, as plain blocking calls over the control socket.

Rule: standard library, msgpack and the frame codec, nothing else; no thread of its own. Any number of requests may be
under way on one connection, from one thread or from several (`control_line.py`). Jobs belong to the node: they go on
when a client goes away.

    from dimnode import Client
    from dimnode.client import read_output, tensor_rows

    with Client() as node:
        ended = node.run({"tasks": [{"model": "triage"}]}, [tensor_rows([[0.1, 0.2]])])
        print(ended.status, read_output(ended.outputs[0]))
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import urandom
from pathlib import Path
from typing import Any, Self

from dimnode.batches import BatchRow, Plan, check_rows_per_job, model_row, numbered, run_rows, sources_from
from dimnode.control_line import Line, Slot
from dimnode.errors import ConfigError, DimError, Refused, RunFailed
from dimnode.limits import LIMITS
from dimnode.records.lists import read_output, tensor_rows

__all__ = ["BatchRow", "Client", "Ended", "Job", "Pending", "Watch", "read_output", "tensor_rows"]

Job = Mapping[str, Any]
"""A job as docs/job-files.md describes it: the map that a job file holds."""
Watch = Callable[[dict[str, Any]], None]
"""Called with each live event of a job: at_ms, job (bytes), what, task, epoch, peer (bytes or None), text."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended. `status` is a verdict's (ok, failed, refused, cancelled, expired, split), or `refused` with an
    empty `job` when the node did not take it in (only from `run_many`). `outputs` are tensors/1 blobs."""

    job: bytes
    status: str
    verdict: bytes = b""
    outputs: tuple[bytes, ...] = ()
    receipt: bytes | None = None
    code: str = ""
    reason: str = ""
    index: int = 0
    """Place among the jobs that were given to `run_many`."""
    seconds: float = 0.0
    """From sending the request to reading its answer, on this side."""


class Client:
    """One connection to the node of `home` (default: DIM_HOME). Raises `NoNode` when none answers.

    Every method raises `Refused`, `ConfigError` or `RunFailed` as the node said it, and `NoNode` when the connection
    breaks. May be shared by threads.
    """

    def __init__(self, home: Path | str | None = None, socket: Path | str | None = None) -> None:
        self._line = Line(home, socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Jobs go on."""
        self._line.close()

    # ---- the node

    def status(self) -> dict[str, Any]:
        """What the node is and has done so far."""
        return self.ask("status")

    def peers(self) -> list[dict[str, Any]]:
        """One map per peer that was heard lately."""
        return self._rows("peers", "peers")

    def doctor(self) -> list[dict[str, Any]]:
        """One map per check: check, ok, stops (work stops with it), detail, mend."""
        return self._rows("findings", "doctor")

    def connect(self, address: str) -> str:
        """Dial a multiaddress; the peer id that answered, as text."""
        return str(self.ask("connect", address=address)["peer"])

    def stop(self) -> None:
        """Ask the node to shut down in good order."""
        self.ask("stop")

    # ---- what is offered

    def models(self) -> list[dict[str, Any]]:
        """Every model that can be run now, here or on a peer."""
        return self._rows("models", "models.ls")

    def add_model(self, card: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
        """Offer a model file under this card (docs/operator.md); its id and label."""
        return self.ask("models.add", card=dict(card), path=str(Path(path).absolute()))

    def cabinets(self) -> list[dict[str, Any]]:
        """This node's cabinets."""
        return self._rows("cabinets", "data.ls")

    def add_data(
        self, name: str, path: Path | str, label: str = "", exclude: Sequence[str] = (), policy: Job | None = None
    ) -> dict[str, Any]:
        """Offer a CSV file as a cabinet under a policy. The file stays where it is."""
        where = str(Path(path).absolute())
        return self.ask(
            "data.add", name=name, path=where, label=label, exclude=list(exclude), policy=dict(policy or {})
        )

    def remove_data(self, name: str) -> dict[str, Any]:
        """Offer a cabinet no longer. Raises `Refused` E-data-05 when there is none of this name."""
        return self.ask("data.rm", name=name)

    def standing(self) -> list[dict[str, Any]]:
        """What this node thinks of its peers, one map per peer and context."""
        return self._rows("standing", "rep.ls")

    def explain(self, peer: str) -> dict[str, Any]:
        """Why: the events behind a peer's standing, each with the record that shows it."""
        return self.ask("rep.explain", peer=peer)

    # ---- jobs

    def validate(self, job: Job, blobs: Sequence[bytes] = ()) -> dict[str, Any]:
        """The plan, cost and residual risk of a job that is not run."""
        return self.ask("job.validate", job=_checked(job, blobs), blobs=list(blobs))

    def run(
        self,
        job: Job,
        blobs: Sequence[bytes] = (),
        *,
        nonce: bytes | None = None,
        receipt: bool = True,
        watch: Watch | None = None,
        timeout_seconds: float | None = None,
    ) -> Ended:
        """Submit and wait for the end. A job that failed is an `Ended`; one that was not taken in raises `Refused`.

        The same 16-byte `nonce` names the same submission: repeating it never runs a job twice. `watch` is called in
        this thread. After `timeout_seconds` this raises `RunFailed` E-cli-03 and the job goes on.
        """
        return self.submit(job, blobs, nonce=nonce, receipt=receipt, watch=watch).wait(timeout_seconds)

    def submit(
        self,
        job: Job,
        blobs: Sequence[bytes] = (),
        *,
        nonce: bytes | None = None,
        receipt: bool = True,
        watch: Watch | None = None,
    ) -> "Pending":
        """Submit without waiting; as `run` otherwise. Refusals are raised by `Pending.wait`."""
        extra: dict[str, Any] = {"nonce": nonce} if nonce is not None else {}
        if watch is not None:
            extra["watch"] = True
        slot = Slot()
        _, frame = self._line.frame(slot, "job.submit", job=_checked(job, blobs), blobs=blobs, receipt=receipt, **extra)
        self._line.send(frame, [slot])
        return Pending(self._line, slot, watch)

    def detach(self, job: Job, blobs: Sequence[bytes] = (), *, nonce: bytes | None = None) -> bytes:
        """Submit and return the job's id as soon as the node has begun with it."""
        extra = {"nonce": nonce} if nonce is not None else {}
        return bytes(self.ask("job.submit", job=_checked(job, blobs), blobs=blobs, wait=False, **extra)["job"])

    def run_many(
        self,
        jobs: Iterable[tuple[Job, Sequence[bytes]] | tuple[Job, Sequence[bytes], bytes]],
        concurrency: int = LIMITS.jobs.open_jobs_per_client,
        *,
        receipt: bool = False,
    ) -> Iterator[Ended]:
        """Run many jobs, `concurrency` at a time (a node takes 256), over this one connection; yields in the order in
        which they end.

        A job may come with its nonce: (job, blobs, nonce). One that is not taken in, here or by the node, is an `Ended`
        with status refused, as every other end is one; only a lost node raises, `NoNode`.
        """
        waiting = enumerate(jobs)
        sink: deque[Slot] = deque()
        under_way = self._fill(waiting, min(concurrency, LIMITS.jobs.open_jobs_per_client), sink, receipt)
        while under_way:
            self._line.advance(lambda: bool(sink), None)
            finished = [sink.popleft() for _ in range(len(sink))]
            # New jobs go out before the caller looks at the old ones, so that the node never runs dry.
            under_way += self._fill(waiting, len(finished), sink, receipt) - len(finished)
            for slot in finished:
                yield _ended(slot)
                self._line.catch_up()  # whatever the caller does with an answer, the others do not pile up at the node

    def run_batch(
        self, model: str, items: Iterable[Any], *, rows_per_job: int = LIMITS.batch.rows_per_job, job: Job | None = None
    ) -> Iterator[BatchRow]:
        """One model on any number of items, several to a job; a bad item does not cost the others their answer.

        An item is what the model takes: a text, a file's bytes, a row of numbers, or a map of them by input name. Rows
        come as their jobs end; `number` (from 1) says whose they are. `job`: more keys of a job file. Receipts stay
        with the node (`receipt(row.job)`). Raises `RunFailed` when the model itself is to blame, `ConfigError` for
        `rows_per_job` out of 1 to 4096.
        """
        check_rows_per_job(rows_per_job)
        row = model_row(self.models(), model)
        if row is None:
            raise Refused("E-models-01", f"unknown model {model!r}", "no peer heard so far offers it", "dim models ls")
        sources = sources_from(row)
        whole = {"tasks": [{"model": row["model"]}], **(job or {})}
        plan = Plan(whole, sources, urandom(16), rows_per_job, salt=urandom(16))
        many = partial(self.run_many, concurrency=LIMITS.batch.jobs_at_once)
        return run_rows(many, plan, numbered(items, sources), row.get("texts", ()))

    def jobs(self, most: int = 20) -> list[dict[str, Any]]:
        """The newest jobs that this node owns."""
        return self._rows("jobs", "job.ls", most=most)

    def job(self, job: bytes | str) -> dict[str, Any]:
        """A job's records, bytes on the wire, and end. Ids are bytes, text, or the last letters that tables show."""
        return self.ask("job.show", job=job)

    def events(self, job: bytes | str) -> list[dict[str, Any]]:
        """What has happened to a job so far."""
        return self._rows("events", "job.events", job=job)

    def follow(self, job: bytes | str, wait_seconds: float | None = None) -> Iterator[dict[str, Any] | None]:
        """Live events of a job from now on (`events` has those before), until its last one; of an ended job none.

        With `wait_seconds`, None whenever so long passes without one: who follows may have other things to do.
        """
        slot = Slot()
        number, frame = self._line.frame(slot, "job.watch", job=job)
        self._line.send(frame, [slot])
        return self._following(slot, number, wait_seconds)

    def _following(self, slot: Slot, number: int, wait_seconds: float | None) -> Iterator[dict[str, Any] | None]:
        try:
            while True:
                deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
                more = self._line.advance(lambda: bool(slot.events) or slot.done, deadline)
                if slot.error is not None:
                    raise _error_of(slot.error)
                while slot.events:
                    yield slot.events.popleft()
                if slot.result is not None:
                    return
                if not more:
                    yield None
        finally:
            self._line.forget(number)

    def result(self, job: bytes | str) -> Ended:
        """How a job ended. Raises `Refused` E-job-12 while it is open."""
        slot = Slot()
        slot.result = self.ask("job.result", job=job)
        return _ended(slot)

    def receipt(self, job: bytes | str) -> bytes:
        """The receipt of an ended job."""
        return bytes(self.ask("job.receipt", job=job)["receipt"])

    def cancel(self, job: bytes | str) -> dict[str, Any]:
        """Ask for the end of an open job. Raises `Refused` (E-jobs-11) when there is none with this id."""
        return self.ask("job.cancel", job=job)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Any operation by name: its result, or its error raised."""
        slot = Slot()
        _, frame = self._line.frame(slot, op, **arguments)
        self._line.send(frame, [slot])
        self._line.advance(lambda: slot.done, None)
        if slot.error is not None:
            raise _error_of(slot.error)
        assert slot.result is not None
        return slot.result

    def _rows(self, key: str, op: str, **arguments: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(op, **arguments)[key]
        return found

    # ---- the connection

    def _fill(self, waiting: Iterator[tuple[int, Any]], most: int, sink: "deque[Slot]", receipt: bool) -> int:
        """Send up to `most` more jobs in one write; how many there were, with those that are refused unsent."""
        slots, frames, taken = list[Slot](), list[bytes](), 0
        for index, (job, blobs, *nonce) in islice(waiting, most):
            slot = Slot(sink, index)
            extra: dict[str, Any] = {"nonce": nonce[0]} if nonce else {}
            taken += 1
            try:
                checked = _checked(job, blobs)
                _, frame = self._line.frame(slot, "job.submit", job=checked, blobs=blobs, receipt=receipt, **extra)
            except Refused as no:  # as if the node had said it: the others are under way, and their ends are wanted
                slot.error = {"code": no.complaint.code, "what": no.complaint.what}
                sink.append(slot)
                continue
            frames.append(frame)
            slots.append(slot)
        if frames:
            self._line.send(b"".join(frames), slots)
        return taken


class Pending:
    """A job under way."""

    def __init__(self, line: Line, slot: Slot, watch: Watch | None) -> None:
        self._line, self._slot, self._watch = line, slot, watch
        self.job: bytes | None = None
        """The job's id, once an event has told it (only with `watch`)."""

    def wait(self, timeout_seconds: float | None = None) -> Ended:
        """Until the job has ended. Raises `Refused` when it was not taken in, `RunFailed` E-cli-03 on timeout."""
        ended = self.poll(timeout_seconds)
        if ended is None:
            raise no_verdict(timeout_seconds or 0.0)
        return ended

    def poll(self, wait_seconds: float | None = 0.0) -> Ended | None:
        """As `wait`, but None when the job has not ended within `wait_seconds`; may be called again."""
        deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
        slot = self._slot
        while True:
            more = self._line.advance(lambda: bool(slot.events) or slot.done, deadline)
            while slot.events:
                event = slot.events.popleft()
                self.job = event.get("job", self.job)
                if self._watch is not None:
                    self._watch(event)
            if slot.error is not None:
                raise _error_of(slot.error)
            if slot.result is not None:
                return _ended(slot)
            if not more:
                return None


# ---- answers


def no_verdict(waited_seconds: float) -> RunFailed:
    """E-cli-03: the job goes on without whoever waited for so long."""
    words = ("the job goes on without you", "dim job ls, then dim job result JOB")
    return RunFailed("E-cli-03", f"no verdict within {waited_seconds:g} s", *words)


def _ended(slot: Slot) -> Ended:
    index, seconds, said = slot.index, slot.answered - slot.sent, slot.result
    if slot.error is not None:
        return Ended(b"", "refused", code=slot.error["code"], reason=slot.error["what"], index=index, seconds=seconds)
    assert said is not None
    outputs = tuple(output for output in said["outputs"] if output is not None)
    code, reason, receipt = said.get("code", ""), said.get("reason", ""), said.get("receipt")
    return Ended(said["job"], said["status"], said["verdict"], outputs, receipt, code, reason, index, seconds)


def _error_of(error: Mapping[str, Any]) -> DimError:
    """The exception that the node meant, by its exit code."""
    words = (error["code"], error["what"], error.get("cause", ""), error.get("hint", ""))
    match error.get("exit"):
        case 4:
            return Refused(*words, retry_after_ms=error.get("retry_after_ms", 0))
        case 2:
            return ConfigError(*words)
        case _:
            return RunFailed(*words)


def _checked(job: Job, blobs: Sequence[bytes]) -> Job:
    """What the node's frame decoder would drop the connection for is refused here with a reason."""
    size = sum(map(len, blobs))
    if size > LIMITS.exec.input_bytes_max:
        raise Refused("E-input-05", f"the input has {size} bytes", f"limit {LIMITS.exec.input_bytes_max}")
    named, most = job.get("input"), LIMITS.api.inline_rows_max
    hint = "give them as blobs=[tensor_rows(rows)], or in a file: input: {file: rows.csv}"
    for name, value in named.items() if isinstance(named, Mapping) else ():
        if isinstance(value, list) and len(value) > most:
            cause = f"at most {most} rows are written as numbers"
            raise Refused("E-cli-05", f"input {name!r} has {len(value)} rows", cause, hint)
        rows = value if isinstance(value, list) else ()
        if (widest := max((len(row) for row in rows if isinstance(row, list | tuple)), default=0)) > most:
            cause = f"at most {most} are written as numbers"
            raise Refused("E-cli-05", f"input {name!r} has {widest} numbers in a row", cause, hint)
    return job
