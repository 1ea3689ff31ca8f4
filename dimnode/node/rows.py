"""From the engine's `Append`s to the journal's rows, and back.

Rule: own records are sealed here, just before the commit that makes them durable; nothing is signed that is not kept.
"""

from collections.abc import Iterator
from typing import Final

from dimnode.errors import PeerFault
from dimnode.jobs.effects import Append, Forget, Remember
from dimnode.jobs.events import Key
from dimnode.jobs.replay import JournalRow
from dimnode.records.envelope import SigningKey, open_envelope, seal
from dimnode.records.ids import Cid, RecordId, Ref
from dimnode.records.receipt import Opening
from dimnode.store.journal import Journal, Rows
from dimnode.store.schema import OPEN_BUSINESS
from dimnode.store.vault import Vault

_RECORDS: Final = f"""
SELECT r.kind, r.id, r.job, r.task, r.epoch, r.envelope FROM records r WHERE r.job != x'' AND {OPEN_BUSINESS}
ORDER BY r.seq
"""
_OPENINGS: Final = "SELECT ref, salt, cid FROM openings WHERE record=? ORDER BY position"
_ACCEPTED: Final = "SELECT answer FROM accepted a WHERE NOT EXISTS(SELECT 1 FROM ends e WHERE e.job = a.job)"
_FORGOTTEN: Final = """
SELECT f.job, f.task, f.epoch FROM forgotten f
WHERE EXISTS(SELECT 1 FROM records s WHERE s.id = f.job) AND NOT EXISTS(SELECT 1 FROM ends e WHERE e.job = f.job)
"""


def rows_of(append: Append, envelope: bytes, vault: Vault) -> Rows:
    """The rows of one append. Blobs come from the vault, where the event put them."""
    job, task, epoch = append.key
    rows: Rows = {"records": [(append.kind, append.id, job, task, epoch, envelope)]}
    if append.openings:
        rows["openings"] = [
            (append.id, position, opening.ref, opening.salt, opening.cid)
            for position, opening in enumerate(append.openings)
        ]
    if append.blobs:
        rows["blobs"] = [(cid, vault.get(cid)) for cid in append.blobs]  # one that nobody holds fails the commit
    if append.nonce:
        rows["nonces"] = [(*append.nonce, job)]
    if append.accepted:
        rows["accepted"] = [(job, number, reached, answer) for number, reached, answer in append.accepted]
    if append.end:
        rows["ends"] = [(job, append.id, append.end)]
    return rows


def seal_into(append: Append, key: SigningKey, vault: Vault) -> bytes:
    """The envelope of an append: sealed now and held, or held since it was received."""
    if append.payload:
        envelope = seal(key, append.kind, append.payload)
        vault.hold(append.id, envelope)
        return envelope
    held = vault.get(append.id)
    assert held is not None, f"{append.kind} was appended but nobody holds it"
    return held


def lazy_rows(effect: Forget | Remember) -> Rows:
    """Rows that need no fsync of their own."""
    if isinstance(effect, Forget):
        return {"forgotten": [effect.key]}
    return {"evidence": [effect.evidence.row]}


def journal_rows(journal: Journal) -> Iterator[JournalRow]:
    """Rows of open business in the order of their commits, for `Engine.restore`.

    SQLite leaves out the rest: a node that has run for months starts in the time that its open business takes.
    """
    accepted = {row[0] for row in journal.each(_ACCEPTED)}
    for kind, identity, job, task, epoch, envelope in journal.each(_RECORDS):
        try:  # this node checked the signature before it kept the record
            record = open_envelope(envelope, check_signature=False)
        except PeerFault:
            continue
        yield JournalRow(
            kind,
            RecordId(identity),
            (RecordId(job), task, epoch),
            record.by,
            record.payload,
            tuple(Opening(Ref(ref), salt, Cid(cid)) for ref, salt, cid in journal.rows(_OPENINGS, (identity,))),
            identity in accepted,
        )


def forgotten_keys(journal: Journal) -> set[Key]:
    """Leases of open jobs of this node whose answers, its own, were acknowledged."""
    return {(RecordId(job), task, epoch) for job, task, epoch in journal.each(_FORGOTTEN)}
