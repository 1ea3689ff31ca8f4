"""What the engine wants done: imperatives that the loop performs after the commit.

Rule: nothing but `Append` happens before the batch is on disk. Then what people wait for is performed (`Note`, `Reply`,
`Refuse`), then the rest, either in its order; no effect may need another one of its batch to have been performed. A
`Send` to a peer without a link is dropped: the owner's `resume` on the next link repairs it; there is no retry queue.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dimnode.consensus.standing import Evidence
from dimnode.jobs.events import Key, Part, Token
from dimnode.records.ids import Cid, PeerId, RecordId
from dimnode.records.receipt import Opening


@dataclass(frozen=True, slots=True)
class Append:
    """Remember a record and all that a restart needs with it, in the batch's one transaction.

    `payload` of an own record is sealed by the loop; of others' records the envelope is held already (payload b"").
    `lazy` rows need no fsync of their own: they ride on the next commit, at latest after a second. `end` is the status
    with which a verdict ends its job.
    """

    kind: str
    id: RecordId
    key: Key
    payload: bytes = b""
    openings: tuple[Opening, ...] = ()
    blobs: tuple[Cid, ...] = ()
    nonce: tuple[PeerId, bytes] | None = None
    accepted: tuple[tuple[int, int, RecordId], ...] = ()
    lazy: bool = False
    end: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """The executor need not keep its answer any longer (acknowledged or cancelled): a lazy row."""

    key: Key


@dataclass(frozen=True, slots=True)
class Remember:
    """Evidence about a peer, for the standing book: a lazy row."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Send:
    """A frame to a peer: a word about a lease, with records, openings and the blobs that they open to."""

    peer: PeerId
    what: str
    key: Key
    records: tuple[RecordId, ...] = ()
    openings: tuple[Opening, ...] = ()
    code: str = ""
    text: str = ""
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Start a task in the pool; `RunFinished` or `RunRefused` follows.

    `owner` gave the `lease`, `submitter` is who signed the job's spec, `client` the identity whose share of this node
    it uses. `deterministic`: somebody will compare the answer's bits, so that it runs alone. After `deadline_ms` from
    now nobody wants it.
    """

    key: Key
    lease: RecordId
    owner: PeerId
    submitter: PeerId
    op: str
    model: RecordId | None
    inputs: tuple[Cid, ...]
    take: tuple[tuple[str, int, str, int, int], ...]
    cabinet: str
    where: tuple[tuple[str, str, int], ...]
    priority: str
    client: PeerId
    deterministic: bool
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask the cabinet's policy about a lease (its cohort is counted in a worker); `Ruled` or `RunRefused` follows.

    `submitter` signed the spec, `owner` gets the answer.
    """

    key: Key
    submitter: PeerId
    owner: PeerId
    cabinet: str
    op: str
    model: RecordId | None
    where: tuple[tuple[str, str, int], ...]
    purpose: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a run that nobody waits for any more."""

    key: Key


@dataclass(frozen=True, slots=True)
class Compare:
    """Find the largest agreeing set among replicas of a step; `Compared` follows."""

    job: RecordId
    step: int
    parts: tuple[Part, ...]
    comparator: Mapping[str, Any]
    k: int


@dataclass(frozen=True, slots=True)
class Combine:
    """Make one output by the rule's method, of at least `needed` parts that fit together; `Combined` follows."""

    job: RecordId
    method: str
    parts: tuple[Part, ...]
    weights_permille: tuple[int, ...]
    needed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The job ended: tell the client. `outputs` name blobs in the journal or the vault."""

    token: Token
    job: RecordId
    status: str
    verdict: RecordId
    outputs: tuple[Cid, ...]
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The job was not taken: nothing of it is kept."""

    token: Token
    job: RecordId
    code: str
    what: str
    cause: str = ""
    hint: str = ""
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """One line in the life of a job, for those who watch it."""

    job: RecordId
    what: str
    task: int = 0
    epoch: int = 0
    peer: PeerId | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """These held records and blobs are no longer needed by what held them."""

    records: tuple[RecordId, ...] = ()
    blobs: tuple[Cid, ...] = ()


Effect = Append | Forget | Remember | Send | Run | Consult | Stop | Compare | Combine | Reply | Refuse | Note | Release
