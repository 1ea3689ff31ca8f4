"""Receipts from the journal: the record tree of an ended job, packed when somebody asks.

Rule: the journal alone is enough, so the same job gives the same file today and after a restart; when the journal has
let go of inputs and outputs to stay within its bound, the file lacks these bytes and every signature is still in it.
"""

from collections.abc import Mapping

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import Cid, RecordId, Ref
from dimnode.records.links import record_links
from dimnode.records.receipt import Opening, pack_receipt, receipt_bytes, section_bytes
from dimnode.store.reader import Reader


def make_receipt(journal: Reader, job: RecordId) -> bytes:
    """The receipt of an ended job. Raises `Refused` for one that is unknown or still open."""
    end = journal.end_of(job)
    if end is None:
        raise Refused("E-job-12", "this job has no verdict yet, or is not known here", "", "dim job ls")
    root = RecordId(end[0])
    records = _tree(journal, root)
    openings: list[Opening] = []
    sizes: dict[Cid, int] = {}
    for record in records:
        query = "SELECT o.ref, o.salt, o.cid, LENGTH(b.bytes) FROM openings o LEFT JOIN blobs b ON b.cid = o.cid"
        for ref, salt, cid, size in journal.rows(f"{query} WHERE o.record=? ORDER BY o.position", (record.id,)):
            openings.append(Opening(Ref(ref), salt, Cid(cid)))
            if size is not None:
                sizes[Cid(cid)] = size
    room = LIMITS.records.receipt_bytes_max - receipt_bytes((record.envelope for record in records), len(openings))
    blobs = (journal.blob(cid) for cid in _that_fit(sizes, room))
    return pack_receipt(root, records, openings, [blob for blob in blobs if blob is not None])


def gone(status: str) -> Refused:
    """The answer is no longer here; who signed what still is."""
    what = f"the answer of this job is no longer here (it ended {status})"
    cause = "the journal lets go of the oldest inputs and outputs when it is full (max_cache_gb)"
    return Refused("E-job-15", what, cause, "dim job show JOB: its records are kept")


def _that_fit(sizes: Mapping[Cid, int], room: int) -> list[Cid]:
    """The blobs for which a receipt has room, small ones first. Others stay outside: `dim verify --blobs DIR`."""
    kept = []
    for cid in sorted(sizes, key=lambda cid: sizes[cid]):
        room -= section_bytes(sizes[cid])
        if room < 0:
            break
        kept.append(cid)
    return kept


def _tree(journal: Reader, root: RecordId) -> list[Record]:
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
