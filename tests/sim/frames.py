"""Frames between simulated nodes, and the events that a receiving loop makes of them.

Rule: like the real link, it checks what it can before an event exists: what does not fit its lease is a `BadRecord`.
"""

from dataclasses import dataclass

from dimnode.jobs.effects import Send
from dimnode.jobs.events import AnswerReceived, BadRecord, Event, LeaseReceived, RulingReceived, Told
from dimnode.records.codec import decode
from dimnode.records.ids import PeerId, RecordId, record_id
from dimnode.records.receipt import Opening

from .journal import Journal
from .vault import Vault


@dataclass(frozen=True, slots=True)
class Frame:
    """A `Send` with the bytes of what it names."""

    word: Send
    payloads: tuple[bytes, ...]
    blobs: tuple[bytes, ...]
    garbled: bool = False


def packed(word: Send, vault: Vault, journal: Journal, garbled: bool) -> Frame:
    """The frame of an effect: all that it names must be held, or be in the journal if it is a result."""
    kept = word.what in ("answer", "ruling")
    payloads = tuple(
        journal.payloads[identity] if kept and identity not in vault else vault.record(identity)
        for identity in word.records
    )
    blobs = tuple(
        journal.blobs[opening.cid] if kept and opening.cid not in vault else vault.blob(opening.cid)
        for opening in word.openings
    )
    return Frame(word, payloads, blobs, garbled and word.what in ("answer", "ruling"))


def unpacked(frame: Frame, peer: PeerId, vault: Vault) -> Event:
    """The event of a frame; what the event names is held once for it."""
    word = frame.word
    match word.what:
        case "lease":
            return _lease(frame, peer, vault)
        case "answer" | "ruling" if frame.garbled:
            return BadRecord(peer, word.key, "envelope: signature")
        case "answer":
            return _answer(frame, peer, vault)
        case "ruling":
            return _ruling(frame, peer, vault)
    return Told(peer, word.what, word.key, word.code, word.text, word.retry_after_ms)


def _lease(frame: Frame, peer: PeerId, vault: Vault) -> LeaseReceived:
    lease, spec = map(decode, frame.payloads)
    assert lease["executor"] and lease["by"] == peer and lease["job"] == record_id(frame.payloads[1])
    by_ref = {opening.ref: opening for opening in frame.word.openings}
    openings = tuple(by_ref[ref] for ref in lease["inputs"])
    identity, job = (vault.hold_record(payload) for payload in frame.payloads)
    _hold(frame, vault)
    return LeaseReceived(peer, identity, job, lease["task"], lease["epoch"], lease["ttl_ms"], spec, openings)


def _answer(frame: Frame, peer: PeerId, vault: Vault) -> Event:
    answer = decode(frame.payloads[0])
    assert answer["by"] == peer and (answer["job"], answer["task"], answer["epoch"]) == frame.word.key
    identity = vault.hold_record(frame.payloads[0])
    rulings, policies = _others(frame.payloads[1:], vault)
    return AnswerReceived(
        peer=peer,
        answer=identity,
        key=frame.word.key,
        lease=RecordId(answer["parents"][0]),
        status=answer["status"],
        code=answer.get("code", ""),
        error=answer.get("error", ""),
        weight=answer.get("weight", 0),
        rulings=rulings,
        output=_hold(frame, vault),
        policies=policies,
        inputs=tuple(answer["inputs"]),
        model=answer.get("model"),
    )


def _ruling(frame: Frame, peer: PeerId, vault: Vault) -> Event:
    ruling = decode(frame.payloads[0])
    identity = vault.hold_record(frame.payloads[0])
    _, policies = _others(frame.payloads[1:], vault)
    return RulingReceived(peer, identity, frame.word.key, ruling["code"], ruling["reason"], policies)


def _others(payloads: tuple[bytes, ...], vault: Vault) -> tuple[tuple[RecordId, ...], tuple[RecordId, ...]]:
    rulings, policies = [], []
    for payload in payloads:
        identity = vault.hold_record(payload)
        (policies if decode(payload)["kind"] == "policy" else rulings).append(identity)
    return tuple(rulings), tuple(policies)


def _hold(frame: Frame, vault: Vault) -> Opening | None:
    for blob in frame.blobs:
        vault.hold_blob(blob)
    return frame.word.openings[0] if frame.word.openings else None
