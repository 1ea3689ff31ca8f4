"""The receipt file `.dimr`: a job's whole record tree in one file.

Rule: the same parts give the same bytes. Envelopes stand in depth-first preorder from the root, each at its first
visit; openings, blobs and proofs follow, sorted; nothing twice, nothing that the root does not reach; a SHA-256 of all
before ends the file. Pure: no I/O, no clock. Specification: docs/receipt.md.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import (
    BLOB_PREFIX,
    CID_BYTES,
    RECORD_ID_BYTES,
    RECORD_PREFIX,
    REF_BYTES,
    SALT_BYTES,
    Cid,
    RecordId,
    Ref,
    blob_cid,
    blob_ref,
)
from dimnode.records.kinds import open_record
from dimnode.records.links import blob_refs, record_links

MAGIC: Final = b"DIMR1\n"
ENVELOPE, OPENING, BLOB, PROOF, END = 1, 2, 3, 4, 0
OPENING_BYTES: Final = REF_BYTES + SALT_BYTES + CID_BYTES
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opening:
    """What turns a blinded reference back into a CID: ref = SHA-256(tag ‖ salt ‖ cid)."""

    ref: Ref
    salt: bytes
    cid: Cid

    @staticmethod
    def of(salt: bytes, cid: Cid) -> "Opening":
        """The opening of `cid` under this salt."""
        return Opening(blob_ref(salt, cid), salt, cid)

    def to_bytes(self) -> bytes:
        """ref ‖ salt ‖ cid, 100 bytes."""
        return self.ref + self.salt + self.cid

    @staticmethod
    def from_bytes(raw: bytes) -> "Opening":
        """Raises `PeerFault` when the lengths are wrong or the reference does not open to the CID."""
        if len(raw) != OPENING_BYTES:
            raise PeerFault("opening: length")
        cid = Cid(raw[REF_BYTES + SALT_BYTES :])
        opening = Opening(Ref(raw[:REF_BYTES]), raw[REF_BYTES : REF_BYTES + SALT_BYTES], cid)
        if not cid.startswith(BLOB_PREFIX) or blob_ref(opening.salt, cid) != opening.ref:
            raise PeerFault("opening: does not open")
        return opening


@dataclass(frozen=True, slots=True)
class Receipt:
    """The parts of a receipt: the root's id, records by id in file order, openings by ref, blobs by CID."""

    root: RecordId
    records: Mapping[RecordId, Record]
    openings: Mapping[Ref, Opening]
    blobs: Mapping[Cid, bytes]

    def blob_of(self, ref: Ref) -> bytes | None:
        """The bytes behind a reference, when both its opening and its blob are here."""
        opening = self.openings.get(ref)
        return None if opening is None else self.blobs.get(opening.cid)


def preorder(root: RecordId, records: Mapping[RecordId, Record]) -> list[Record]:
    """Records reachable from the root, depth first, parents in listed order; ids that are not here are skipped."""
    ordered: list[Record] = []
    seen: set[RecordId] = set()
    stack = [root]
    while stack:
        identity = stack.pop()
        record = records.get(identity)
        if identity in seen or record is None:
            continue
        seen.add(identity)
        ordered.append(record)
        stack.extend(reversed(record_links(record)))
    return ordered


def pack_receipt(
    root: RecordId, records: Iterable[Record], openings: Iterable[Opening], blobs: Iterable[bytes]
) -> bytes:
    """The file made of these parts; parts that the root does not reach are left out. The root must be among them."""
    by_id = {record.id: record for record in records}
    assert root in by_id, "a receipt needs its root"
    ordered = preorder(root, by_id)
    wanted = {ref for record in ordered for ref in blob_refs(record)}
    kept = {opening.ref: opening for opening in openings if opening.ref in wanted}
    named = {opening.cid for opening in kept.values()} | _file_cids(ordered)
    by_cid = {blob_cid(blob): blob for blob in blobs}
    out = [MAGIC, root]
    out += [_section(ENVELOPE, record.envelope) for record in ordered]
    out += [_section(OPENING, kept[ref].to_bytes()) for ref in sorted(kept)]
    out += [_section(BLOB, by_cid[cid]) for cid in sorted(by_cid) if cid in named]
    out.append(bytes([END]))
    body = b"".join(out)
    return body + hashlib.sha256(body).digest()


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt and check its form: limits, checksum, order, every record by itself, openings, blobs.

    Raises `PeerFault` naming the first broken rule. What the records say to each other is the verifier's work.
    """
    body = _checked_body(raw)
    root = RecordId(body[len(MAGIC) : len(MAGIC) + RECORD_ID_BYTES])
    if not root.startswith(RECORD_PREFIX):
        raise PeerFault("receipt: root")
    records: dict[RecordId, Record] = {}
    openings: dict[Ref, Opening] = {}
    blobs: dict[Cid, bytes] = {}
    last = (ENVELOPE, b"")
    for kind, section in _sections(body, len(MAGIC) + RECORD_ID_BYTES):
        match kind:
            case 1:
                record = open_record(section)
                if record.id in records or len(records) >= LIMITS.records.receipt_envelopes_max:
                    raise PeerFault("receipt: envelope repeated or too many")
                records[record.id] = record
                place = (ENVELOPE, b"")
            case 2:
                opening = Opening.from_bytes(section)
                openings[opening.ref] = opening
                place = (OPENING, bytes(opening.ref))
            case 3:
                cid = blob_cid(section)
                blobs[cid] = section
                place = (BLOB, bytes(cid))
            case _:
                raise PeerFault("receipt: section type")
        if place < last or (place == last and kind != ENVELOPE):
            raise PeerFault("receipt: order of sections")
        last = place
    receipt = Receipt(root, records, openings, blobs)
    _check_reach(receipt)
    return receipt


def _checked_body(raw: bytes) -> bytes:
    if len(raw) > LIMITS.records.receipt_bytes_max:
        raise PeerFault("receipt: too long")
    if len(raw) < len(MAGIC) + RECORD_ID_BYTES + 1 + _DIGEST_BYTES or not raw.startswith(MAGIC):
        raise PeerFault("receipt: not a DIMR1 file")
    body = raw[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != raw[-_DIGEST_BYTES:]:
        raise PeerFault("receipt: checksum")
    return body


def _sections(body: bytes, position: int) -> Iterable[tuple[int, bytes]]:
    while position < len(body):
        kind = body[position]
        if kind == END:
            if position + 1 != len(body):
                raise PeerFault("receipt: bytes after the end")
            return
        length = int.from_bytes(body[position + 1 : position + 5], "big")
        start = position + 5
        if start + length > len(body):
            raise PeerFault("receipt: short section")
        yield kind, body[start : start + length]
        position = start + length
    raise PeerFault("receipt: no end")


def _check_reach(receipt: Receipt) -> None:
    """Everything in the file is reached from the root, and the envelopes stand in preorder."""
    if receipt.root not in receipt.records:
        raise PeerFault("receipt: root missing")
    ordered = preorder(receipt.root, receipt.records)
    if [record.id for record in ordered] != list(receipt.records):
        raise PeerFault("receipt: envelopes out of order or unreachable")
    wanted = {ref for record in ordered for ref in blob_refs(record)}
    if not receipt.openings.keys() <= wanted:
        raise PeerFault("receipt: opening of nothing")
    named = {opening.cid for opening in receipt.openings.values()} | _file_cids(ordered)
    if not receipt.blobs.keys() <= named:
        raise PeerFault("receipt: blob of nothing")


def _file_cids(ordered: Iterable[Record]) -> set[Cid]:
    return {Cid(row[1]) for record in ordered if record.kind == "manifest" for row in record.payload["files"]}


def _section(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(4, "big") + content
