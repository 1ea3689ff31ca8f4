"""Task frames: what two nodes say to each other about a lease, and how it becomes an event.

Rule: nothing unauthenticated passes. A frame comes from a Noise-authenticated peer; every record in it is opened, its
signature and schema checked and compared with the frame and the peer; every blob matches its opening. A bad *frame* is
a `PeerFault` (the link drops); a bad *record* is a `RecordFault` (refused by name, the link stays). A later version may
say more: an unknown *word* is an `UnknownWord` (passed over, the link stays), further fields are not read.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dimnode.errors import PeerFault
from dimnode.jobs.events import AnswerReceived, Event, Key, LeaseReceived, RulingReceived, Told
from dimnode.jobs.job import walls_in
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import RECORD_ID_BYTES, RECORD_PREFIX, Cid, PeerId, RecordId, blob_cid
from dimnode.records.kinds import open_record
from dimnode.records.plan import replicas_per_step, step_of, step_sources
from dimnode.records.receipt import Opening
from dimnode.wire import pack_frame, unpack_body

WORDS: Final = frozenset({"accepted", "progress", "refused", "ack", "resume", "unknown", "cancel", "cancelled"})
WITH_RECORDS: Final = frozenset({"lease", "answer", "ruling"})
_FIELDS = 10
_FIELDS_MAX = 16
_WORD_CHARACTERS = 16
_CODE_CHARACTERS = 32
_TEXT_CHARACTERS = 256


class UnknownWord(Exception):
    """A frame of a later version of the protocol: nothing in it is for us, and nothing is wrong with it."""


class RecordFault(Exception):
    """A record in a well-formed frame does not hold. `rule` says why."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class TaskFrame:
    """One frame of /dim/task/1. Blobs over the inline limit are absent and fetched over /dim/blob/1.

    `grants` go with a lease: what its submitter may use the models by. A peer of the last version does not read them.
    """

    what: str
    key: Key
    envelopes: tuple[bytes, ...] = ()
    openings: tuple[Opening, ...] = ()
    blobs: tuple[bytes, ...] = ()
    code: str = ""
    text: str = ""
    retry_after_ms: int = 0
    grants: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The frame with its length in front."""
        job, task, epoch = self.key
        openings = [opening.to_bytes() for opening in self.openings]
        # A worker's message may be longer than what a frame carries: the reader would drop the link over it.
        code, text = self.code[:_CODE_CHARACTERS], self.text[:_TEXT_CHARACTERS]
        row = [self.what, job, task, epoch, self.envelopes, openings, self.blobs, code, text]
        row.append(min(self.retry_after_ms, LIMITS.jobs.retry_after_ms_max))
        return pack_frame([*row, self.grants] if self.grants else row)

    def missing(self) -> tuple[Opening, ...]:
        """Openings whose blob did not travel inline."""
        if not self.openings:
            return ()
        here = {blob_cid(blob) for blob in self.blobs}
        return tuple(opening for opening in self.openings if opening.cid not in here)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and the bytes that it holds: (id, envelope or blob), once per mention in the event."""

    event: Event
    held: tuple[tuple[bytes, bytes], ...]


def read_task_frame(body: bytes) -> TaskFrame:
    """The frame of these bytes. Raises `PeerFault` when its form is wrong, `UnknownWord` when it is not for us."""
    row = unpack_body(body, LIMITS.wire.peer_frame_containers_max)
    if type(row) is not list or not 1 <= len(row) <= _FIELDS_MAX:
        raise PeerFault("task frame: fields")
    if type(row[0]) is not str or not 1 <= len(row[0]) <= _WORD_CHARACTERS:
        raise PeerFault("task frame: word")
    if row[0] not in WORDS and row[0] not in WITH_RECORDS:
        raise UnknownWord(row[0])
    if len(row) < _FIELDS:
        raise PeerFault("task frame: fields")
    what, job, task, epoch, envelopes, openings, blobs, code, text, retry = row[:_FIELDS]
    if type(job) is not bytes or len(job) != RECORD_ID_BYTES or not job.startswith(RECORD_PREFIX):
        raise PeerFault("task frame: job")
    for number, most in ((task, 1023), (epoch, 1_000_000), (retry, LIMITS.jobs.retry_after_ms_max)):
        if type(number) is not int or not 0 <= number <= most:
            raise PeerFault("task frame: number")
    for entries, most in ((envelopes, 8), (openings, 64), (blobs, 64)):
        if type(entries) is not list or len(entries) > most or any(type(entry) is not bytes for entry in entries):
            raise PeerFault("task frame: list")
    for words, most in ((code, _CODE_CHARACTERS), (text, _TEXT_CHARACTERS)):
        if type(words) is not str or len(words) > most:
            raise PeerFault("task frame: text")
    if what in WORDS and (envelopes or openings or blobs):
        raise PeerFault("task frame: a word carries nothing")
    opened = tuple(Opening.from_bytes(raw) for raw in openings)
    key = (RecordId(job), task, epoch)
    return TaskFrame(what, key, tuple(envelopes), opened, tuple(blobs), code, text, retry, _grants(row))


def _grants(row: list[Any]) -> tuple[bytes, ...]:
    """The field behind the first ten. What is no list of a few records is of a later version, and not read."""
    found = row[_FIELDS] if row[0] == "lease" and len(row) > _FIELDS else ()
    if type(found) is not list or len(found) > LIMITS.peers.grants_per_frame_max:
        return ()
    return tuple(entry for entry in found if type(entry) is bytes)


def arrival(
    frame: TaskFrame,
    peer: PeerId,
    me: PeerId,
    net: RecordId,
    fetched: Mapping[Cid, bytes] | None = None,
    *,
    trusted: bool = False,
) -> Arrival:
    """The event of a frame, with the bytes it holds. Raises `RecordFault` when a record in it does not hold.

    `fetched` are blobs that came over /dim/blob/1. `trusted` is for frames of this node to itself.
    """
    if frame.what in WORDS:
        return Arrival(Told(peer, frame.what, frame.key, frame.code, frame.text, frame.retry_after_ms), ())
    blobs = {blob_cid(blob): blob for blob in frame.blobs}
    blobs.update(fetched or {})
    try:
        match frame.what:
            case "lease":
                return _lease(frame, peer, me, net, blobs, not trusted)
            case "answer":
                return _answer(frame, peer, net, blobs, not trusted)
            case _:
                return _ruling(frame, peer, net, not trusted)
    except PeerFault as fault:
        raise RecordFault(fault.rule) from None


def _lease(
    frame: TaskFrame, peer: PeerId, me: PeerId, net: RecordId, blobs: Mapping[Cid, bytes], check: bool
) -> Arrival:
    _count(frame.envelopes, 2, 2)
    lease = open_record(frame.envelopes[0], kind="lease", check_signature=check)
    # One signature suffices when both records are the owner's: the signed lease names the spec's hash.
    spec = open_record(frame.envelopes[1], kind="spec", check_signature=False)
    if check and spec.by != peer:
        spec = open_record(frame.envelopes[1], kind="spec")
    said = lease.payload
    _match(lease, frame.key)
    if lease.by != peer or said["executor"] != me or said["job"] != spec.id:
        raise PeerFault("lease: not for this executor, owner or spec")
    if said["net"] != net or spec.payload["net"] != net:
        raise PeerFault("lease: another swarm")
    if (spec.payload["tier"] == "quorum") != ("quorum" in spec.payload):  # its schema does not say so
        raise PeerFault("lease: the spec's tier and quorum do not fit each other")
    if frame.key[1] >= replicas_per_step(spec.payload) * len(spec.payload["tasks"]):
        raise PeerFault("lease: no such task")
    step = step_of(spec.payload, frame.key[1])
    if len(said["inputs"]) != len(step_sources(spec.payload, step)):
        raise PeerFault("lease: inputs differ from the spec's mapping")
    pinned = spec.payload["tasks"][step].get("peer")
    if pinned is not None and pinned != me:
        raise PeerFault("lease: the spec names another peer")
    held = [(bytes(lease.id), frame.envelopes[0]), (bytes(spec.id), frame.envelopes[1])]
    held += _opened(said["inputs"], frame.openings, blobs)
    job, task, epoch = frame.key
    event = LeaseReceived(peer, lease.id, job, task, epoch, said["ttl_ms"], spec.payload, frame.openings)
    return Arrival(event, tuple(held))


def _answer(frame: TaskFrame, peer: PeerId, net: RecordId, blobs: Mapping[Cid, bytes], check: bool) -> Arrival:
    _count(frame.envelopes, 1, 3)
    answer = open_record(frame.envelopes[0], kind="answer", check_signature=check)
    said = answer.payload
    _match(answer, frame.key)
    if answer.by != peer or said["net"] != net or not said["parents"]:
        raise PeerFault("answer: not by this peer or for this swarm")
    ok = said["status"] == "ok"
    if len(said["outputs"]) != (1 if ok else 0) or len(frame.openings) != len(said["outputs"]):
        raise PeerFault("answer: outputs")
    rulings, policies, held = _rulings(frame.envelopes[1:], frame.key, peer, net, check)
    if said["parents"][1:] != [ruling.id for ruling in rulings]:
        raise PeerFault("answer: rulings differ from its parents")
    if any(not r.payload["allowed"] or r.payload["parents"][0] != said["parents"][0] for r in rulings):
        raise PeerFault("answer: a ruling does not permit this lease")
    held = [(bytes(answer.id), frame.envelopes[0]), *held, *_opened(said["outputs"], frame.openings, blobs)]
    event = AnswerReceived(
        peer=peer,
        answer=answer.id,
        key=frame.key,
        lease=said["parents"][0],
        status=said["status"],
        code=said.get("code", ""),
        error=said.get("error", ""),
        weight=said.get("weight", 0),
        rulings=tuple(ruling.id for ruling in rulings),
        output=frame.openings[0] if ok else None,
        policies=policies,
        inputs=tuple(said["inputs"]),
        model=said.get("model"),
        cabinets=tuple(ruling.payload["cabinet"] for ruling in rulings),
        walls=walls_in(said["sandbox"]),
    )
    return Arrival(event, tuple(held))


def _ruling(frame: TaskFrame, peer: PeerId, net: RecordId, check: bool) -> Arrival:
    _count(frame.envelopes, 1, 2)
    rulings, policies, held = _rulings(frame.envelopes, frame.key, peer, net, check)
    said = rulings[0].payload
    if len(rulings) > 1 or said["allowed"]:  # what no event names, nobody would ever let go of
        raise PeerFault("ruling: not one refusal")
    event = RulingReceived(
        peer, rulings[0].id, frame.key, said["code"], said["reason"], policies, said["parents"][0], said["cabinet"]
    )
    return Arrival(event, tuple(held))


def _rulings(
    envelopes: Sequence[bytes], key: Key, peer: PeerId, net: RecordId, check: bool
) -> tuple[list[Record], tuple[RecordId, ...], list[tuple[bytes, bytes]]]:
    """Rulings, each followed by the policy that it names, all signed by the peer; then all of them as held."""
    rulings: list[Record] = []
    held: list[tuple[bytes, bytes]] = []
    expected: dict[RecordId, str] = {}
    policies: list[RecordId] = []
    for envelope in envelopes:
        record = open_record(envelope, check_signature=check)
        if record.by != peer or record.kind not in ("ruling", "policy") or record.payload["net"] != net:
            raise PeerFault("ruling: signer, kind or swarm")
        if record.kind == "policy":
            if expected.pop(record.id, None) != record.payload["cabinet"]:
                raise PeerFault("ruling: a policy that nothing names, or of another cabinet")
            policies.append(record.id)
        else:
            _match(record, key)
            parents = record.payload["parents"]  # lease and policy; default deny needs no policy
            if expected or len(parents) not in ((2,) if record.payload["allowed"] else (1, 2)):
                raise PeerFault("ruling: its parents are not a lease and a policy")
            rulings.append(record)
            expected = dict.fromkeys(parents[1:], record.payload["cabinet"])
        held.append((bytes(record.id), envelope))
    if expected or (envelopes and not rulings):
        raise PeerFault("ruling: none, or without its policy")
    return rulings, tuple(policies), held


def _opened(refs: list[Any], openings: Sequence[Opening], blobs: Mapping[Cid, bytes]) -> list[tuple[bytes, bytes]]:
    if [opening.ref for opening in openings] != refs:
        raise PeerFault("openings differ from the references")
    found = []
    for opening in openings:
        blob = blobs.get(opening.cid)
        if blob is None:
            raise PeerFault("a blob is missing")
        found.append((bytes(opening.cid), blob))
    return found


def _match(record: Record, key: Key) -> None:
    said = record.payload
    if (said["job"], said["task"], said["epoch"]) != key:
        raise PeerFault(f"{record.kind}: job, task or epoch differ from the frame")


def _count(envelopes: Sequence[bytes], least: int, most: int) -> None:
    if not least <= len(envelopes) <= most:
        raise PeerFault("number of records")
