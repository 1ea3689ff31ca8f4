"""Receipts from the journal: the record tree of an ended job, packed when somebody asks.

Rule: the journal alone is enough, so the same job gives the same file today and after a restart.
"""

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import Cid, RecordId, Ref
from dimnode.records.links import record_links
from dimnode.records.receipt import Opening, pack_receipt
from dimnode.store.journal import Journal


def make_receipt(journal: Journal, job: RecordId) -> bytes:
    """The receipt of an ended job. Raises `Refused` for one that is unknown or still open."""
    end = journal.end_of(job)
    if end is None:
        raise Refused("E-job-12", "this job has no verdict yet, or is not known here", "", "dim job ls")
    root = RecordId(end[0])
    records = _tree(journal, root)
    openings: list[Opening] = []
    blobs: dict[Cid, bytes] = {}
    for record in records:
        query = "SELECT ref, salt, cid FROM openings WHERE record=? ORDER BY position"
        for ref, salt, cid in journal.rows(query, (record.id,)):
            openings.append(Opening(Ref(ref), salt, Cid(cid)))
            blob = journal.blob(cid)
            if blob is not None:
                blobs[Cid(cid)] = blob
    packed = pack_receipt(root, records, openings, blobs.values())
    if len(packed) > LIMITS.records.receipt_bytes_max:  # large tensors may stay outside: `dim verify --blobs DIR`
        small = [blob for blob in blobs.values() if len(blob) <= LIMITS.jobs.inline_bytes_max]
        packed = pack_receipt(root, records, openings, small)
    return packed


def _tree(journal: Journal, root: RecordId) -> list[Record]:
    """Everything that the root reaches. Signatures were checked before the records were kept."""
    found: dict[RecordId, Record] = {}
    waiting = [root]
    while waiting:
        identity = waiting.pop()
        if identity in found:
            continue
        envelope = journal.envelope(identity)
        if envelope is None:  # a manifest of a model that no peer has shown us
            continue
        record = open_envelope(envelope, check_signature=False)
        found[identity] = record
        waiting.extend(record_links(record))
    return list(found.values())
