"""From the engine's `Append`s to the journal's rows, and back.

Rule: own records are sealed here, just before the commit that makes them durable; nothing is signed that is not kept.
"""

from collections.abc import Callable, Iterator

from dimnode.errors import PeerFault
from dimnode.jobs.effects import Append, Forget, Remember
from dimnode.jobs.events import Key
from dimnode.jobs.replay import JournalRow
from dimnode.records.envelope import SigningKey, open_envelope, seal
from dimnode.records.ids import Cid, RecordId, Ref
from dimnode.records.receipt import Opening
from dimnode.store.journal import Journal, Rows
from dimnode.store.vault import Vault


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


def journal_rows(journal: Journal, wanted: Callable[[RecordId], bool]) -> Iterator[JournalRow]:
    """Rows of open business in the order of their commits, for `Engine.restore`."""
    openings: dict[bytes, list[Opening]] = {}
    query = (
        "SELECT o.record, o.ref, o.salt, o.cid FROM openings o JOIN records r ON r.id = o.record ORDER BY 1, position"
    )
    for record, ref, salt, cid in journal.each(query):
        openings.setdefault(record, []).append(Opening(Ref(ref), salt, Cid(cid)))
    accepted = {row[0] for row in journal.each("SELECT answer FROM accepted")}
    for kind, identity, job, task, epoch, envelope in journal.each(
        "SELECT kind, id, job, task, epoch, envelope FROM records ORDER BY seq"
    ):
        if not wanted(RecordId(job)):
            continue
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
            tuple(openings.get(identity, ())),
            identity in accepted,
        )


def forgotten_keys(journal: Journal) -> set[Key]:
    """Leases whose answers were acknowledged."""
    return {(RecordId(job), task, epoch) for job, task, epoch in journal.each("SELECT * FROM forgotten")}
