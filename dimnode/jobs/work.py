"""One lease as its executor holds it, and the bodies of the records that it leads to.

Rule: an answer binds the lease, the exact inputs, the model and the output; times and usage in it are claims.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dimnode.jobs.effects import Consult, Release, Run
from dimnode.jobs.events import Key, LeaseReceived, Ruled, RunFinished
from dimnode.jobs.states import WorkMove, WorkState, step_work
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.plan import local_take, step_of
from dimnode.records.receipt import Opening

_CODE_CHARACTERS: Final = 32
_TEXT_CHARACTERS: Final = 256
_SANDBOX_CHARACTERS: Final = 128


SAME_BITS: Final = "x_deterministic"
"""In a spec: each task runs alone, on one thread, at a fixed optimisation level. Peers from before read past it."""


@dataclass(slots=True)
class Work:
    """One lease that this node executes or has answered.

    `ttl_ms` is the lease's time to live, which each `accepted` renews at its owner; 0 when it is read from the journal.
    `spec` is None once there is a result: then nothing is held, and the result is named for whoever asks for it.
    `rulings` are this node's own, `refused` when the last of them said no.
    """

    owner: PeerId
    epoch: int
    lease: RecordId
    job: RecordId
    task: int
    state: WorkState
    ttl_ms: int = 0
    spec: Mapping[str, Any] | None = None
    inputs: tuple[Opening, ...] = ()
    answer: RecordId | None = None
    output: Opening | None = None
    rulings: tuple[RecordId, ...] = ()
    policy: RecordId | None = None
    refused: bool = False

    @property
    def key(self) -> Key:
        """The lease's key."""
        return (self.job, self.task, self.epoch)

    @property
    def template(self) -> Mapping[str, Any]:
        """What the spec says of the task's step."""
        assert self.spec is not None
        found: Mapping[str, Any] = self.spec["tasks"][step_of(self.spec, self.task)]
        return found

    def move(self, move: WorkMove) -> None:
        """Change state by the table; an impossible move is our own bug."""
        self.state = step_work(self.state, move)

    def settle(self) -> Release:
        """The result is in the journal: let go of all bytes. An owner that never acknowledges must not fill memory.

        The effect comes after the first sending of the result; whoever asks again gets it from the journal.
        """
        assert self.spec is not None
        release = Release(self.records(), self.blobs())
        self.spec, self.inputs = None, ()
        return release

    def records(self) -> tuple[RecordId, ...]:
        """Every record this work holds, once per hold: none once there is a result."""
        if self.spec is None:
            return ()
        return (self.lease, self.job, *((self.answer,) if self.answer else ()), *self.rulings)

    def blobs(self) -> tuple[Cid, ...]:
        """Every blob this work holds: none once there is a result."""
        if self.spec is None:
            return ()
        output = (self.output.cid,) if self.output else ()
        return (*(opening.cid for opening in self.inputs), *output)


def begun(event: LeaseReceived) -> Work:
    """The work that a lease asks for."""
    template = event.spec["tasks"][step_of(event.spec, event.task)]
    return Work(
        owner=event.peer,
        epoch=event.epoch,
        lease=event.lease,
        job=event.job,
        task=event.task,
        state=WorkState.CONSULTING if "cabinet" in template else WorkState.RUNNING,
        ttl_ms=event.ttl_ms,
        spec=event.spec,
        inputs=event.openings,
    )


def run_of(work: Work, me: PeerId) -> Run:
    """What the pool is asked to do."""
    template, spec = work.template, work.spec
    assert spec is not None
    return Run(
        key=work.key,
        lease=work.lease,
        owner=work.owner,
        submitter=spec["by"],
        op=template["op"],
        model=template.get("model"),
        inputs=tuple(opening.cid for opening in work.inputs),
        take=local_take(spec, step_of(spec, work.task)),
        cabinet=template.get("cabinet", ""),
        where=_where(template),
        priority=spec["priority"],
        client=_client(spec["by"], work.owner, me),
        deterministic=same_bits_wanted(spec),
        deadline_ms=spec["deadline_ms"],
    )


def _client(submitter: PeerId, owner: PeerId, me: PeerId) -> PeerId:
    """Whose share this uses: the submitter's, when it is known to have asked; else that of the peer who leases.

    A spec can be replayed by whoever has seen it, and a peer can sign specs with as many new keys as it likes: what a
    stranger leases in the name of others is charged to the stranger.
    """
    return submitter if owner in (submitter, me) else owner


def same_bits_wanted(spec: Mapping[str, Any]) -> bool:
    """The job asks for them, replicas are compared, or a comparator wants equal bytes: a batch, which changes bits, is
    out of place then.
    """
    comparator = spec.get("comparator")
    return spec.get(SAME_BITS) is True or "quorum" in spec or (comparator is not None and comparator["kind"] == "exact")


def consult_of(work: Work) -> Consult:
    """What the cabinet's policy is asked."""
    template, spec = work.template, work.spec
    assert spec is not None
    return Consult(
        key=work.key,
        submitter=spec["by"],
        owner=work.owner,
        cabinet=template["cabinet"],
        op=template["op"],
        model=template.get("model"),
        where=_where(template),
        purpose=template.get("purpose", ""),
    )


def ruling_body(work: Work, event: Ruled) -> dict[str, Any]:
    """The permission or refusal that the cabinet's owner signs."""
    return {
        "job": work.job,
        "task": work.task,
        "epoch": work.epoch,
        "cabinet": work.template["cabinet"],
        "allowed": event.allowed,
        "code": event.code[:_CODE_CHARACTERS],
        "reason": event.reason[:_TEXT_CHARACTERS],
        "parents": [work.lease, *([event.policy] if event.policy else [])],
    }


def answer_body(work: Work, event: RunFinished) -> dict[str, Any]:
    """The answer's fields beside the common ones."""
    body: dict[str, Any] = {
        "job": work.job,
        "task": work.task,
        "epoch": work.epoch,
        "inputs": [opening.ref for opening in work.inputs],
        "outputs": [event.output.ref] if event.output else [],
        "runtime": dict(event.runtime),
        "timing": {"run_us": event.run_us, "queue_us": event.queue_us},
        "usage": _usage(event),
        "sandbox": event.sandbox[:_SANDBOX_CHARACTERS],
        "status": event.status,
        "parents": [work.lease, *work.rulings],
    }
    if "model" in work.template:
        body["model"] = work.template["model"]
    if event.rows:
        body["weight"] = event.rows
    if event.status != "ok":
        body["code"] = event.code[:_CODE_CHARACTERS]
        body["error"] = event.message[:_TEXT_CHARACTERS]
    return body


def _usage(event: RunFinished) -> dict[str, int]:
    """What the run took; of a graphics processor only where one was used (an experimental key: docs/receipt.md)."""
    used = {"cpu_us": event.cpu_us, "rss_bytes": event.rss_bytes}
    return {**used, "x_gpu_bytes": event.gpu_bytes} if event.gpu_bytes else used


def _where(template: Mapping[str, Any]) -> tuple[tuple[str, str, int], ...]:
    return tuple((column, op, micro) for column, op, micro in template.get("where", ()))
