"""What can happen to a node's jobs: the only inputs of the engine.

Rule: an event carries ids, references and sizes, never input, output or key bytes. Whoever makes an event has already
checked it: a frame from a Noise-authenticated peer, and every record inside with its signature and schema.
Each blob or record named by an event is held once for that event; exactly one path of the engine releases it.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dimnode.records.ids import Cid, PeerId, RecordId, Ref
from dimnode.records.receipt import Opening

Key = tuple[RecordId, int, int]
"""(job, task, epoch): names one lease and everything that follows from it."""
Token = Any
"""What a door uses to find its client again; the engine only carries it."""


@dataclass(frozen=True, slots=True)
class Now:
    """Both clocks, read once per batch: `mono` seconds for waits, `wall_ms` for records."""

    mono: float
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A door accepted a job: `payload` is the spec to seal, or b"" when a peer signed it (its envelope is held).

    `openings` are in the order of the spec's inputs; the input blobs are held. `token` is comparable by ==.
    """

    token: Token
    job: RecordId
    spec: Mapping[str, Any]
    payload: bytes
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A client of ours no longer wants the job."""

    token: Token
    job: RecordId


@dataclass(frozen=True, slots=True)
class LeaseReceived:
    """The owner `peer` offers a task; lease and spec envelopes and the input blobs are held.

    `openings` are in the order of the lease's inputs, and open to them.
    """

    peer: PeerId
    lease: RecordId
    job: RecordId
    task: int
    epoch: int
    ttl_ms: int
    spec: Mapping[str, Any]
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Ruled:
    """This node's policy for a cabinet has decided about a lease, after its cohort was counted in a worker."""

    key: Key
    cabinet: str
    allowed: bool
    code: str
    reason: str
    policy: RecordId | None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The pool finished a run. `output` is the opening of the output blob, None unless status is ok.

    `gpu_bytes`: memory in use on the graphics processor that it ran on, 0 for none.
    """

    key: Key
    status: str
    code: str
    message: str
    output: Opening | None
    rows: int
    run_us: int
    queue_us: int
    cpu_us: int
    rss_bytes: int
    runtime: Mapping[str, Any]
    sandbox: str
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunRefused:
    """The pool would not take the run, or the count that a policy needs: queue full, model not here, no sandbox."""

    key: Key
    code: str
    message: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """An executor answered. Held: the envelopes of answer, rulings and policies, and the output blob if there is one.

    `inputs` and `model` are what the answer says it read and ran, `walls` behind which layers of a sandbox; None means
    that the maker of the event has checked them against the lease already.
    """

    peer: PeerId
    answer: RecordId
    key: Key
    lease: RecordId
    status: str
    code: str
    error: str
    weight: int
    rulings: tuple[RecordId, ...]
    output: Opening | None
    policies: tuple[RecordId, ...] = ()
    inputs: tuple[Ref, ...] | None = None
    model: RecordId | None = None
    cabinets: tuple[str, ...] | None = None
    walls: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class RulingReceived:
    """The owner of a cabinet refused a lease by its policy; the envelopes of the ruling and its policies are held.

    `lease` and `cabinet` are what the ruling says it is about; None: the maker of the event has checked them.
    """

    peer: PeerId
    ruling: RecordId
    key: Key
    code: str
    reason: str
    policies: tuple[RecordId, ...] = ()
    lease: RecordId | None = None
    cabinet: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """A short word from a peer about a lease: accepted, progress, refused, ack, resume, unknown, cancel, cancelled."""

    peer: PeerId
    what: str
    key: Key
    code: str = ""
    text: str = ""
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A peer sent a record about this lease that does not hold. The link stays; the task goes elsewhere.

    `blame` is False when the fault may be the submitter's, who chose the model: an output that its rule cannot read.
    """

    peer: PeerId
    key: Key
    rule: str
    blame: bool = True


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A link to the peer stands."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The link to the peer is gone or silent."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class AdvertHeard:
    """What a peer (or this node itself) says it offers; replaces what it said before.

    `models` by their class, the format; `sizes` in bytes, as far as manifests were heard. It runs models of `formats`,
    and of them those whose `asks` (extras by model) are among its `extras`; None: it did not say, as peers of the last
    version do not, and is taken at its offer. It would fetch a model with at most `fetch_bytes` that it can run when a
    job names one that it lacks (0: it would not). `walls` are the layers of its sandbox. `resting`: what this node
    itself would run, were it not drained.
    """

    peer: PeerId
    models: Mapping[RecordId, str]
    cabinets: frozenset[str]
    slots: int
    sizes: Mapping[RecordId, int] = field(default_factory=dict)
    formats: frozenset[str] | None = None
    fetch_bytes: int = 0
    extras: frozenset[str] | None = None
    asks: Mapping[RecordId, frozenset[str]] = field(default_factory=dict)
    walls: frozenset[str] = frozenset()
    resting: frozenset[RecordId] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """One contribution to a verdict: who, its answer record, its weight, and where its bytes are."""

    peer: PeerId
    answer: RecordId
    weight: int
    output: Cid


@dataclass(frozen=True, slots=True)
class Compared:
    """Replicas of a step were compared; `accepted` is None on a split."""

    job: RecordId
    step: int
    accepted: RecordId | None
    supporters: tuple[RecordId, ...]
    dissent: tuple[RecordId, ...]


@dataclass(frozen=True, slots=True)
class Combined:
    """Parts became one output (a tally or an aggregate), held as a blob; or could not (`code`).

    A part that is neither in `supporters` nor in `dissent` had another form than these, and was left out.
    """

    job: RecordId
    output: Opening | None
    supporters: tuple[RecordId, ...]
    dissent: tuple[RecordId, ...]
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The moment that `Engine.due` asked for has come, or a second went by."""


Event = (
    Submitted
    | CancelAsked
    | LeaseReceived
    | Ruled
    | RunFinished
    | RunRefused
    | AnswerReceived
    | RulingReceived
    | Told
    | BadRecord
    | PeerUp
    | PeerDown
    | AdvertHeard
    | Compared
    | Combined
    | TimePassed
)
