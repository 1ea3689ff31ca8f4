"""The receipt file `.dimr`: a job's whole record tree in one file.

Rule: the same parts give the same bytes. Envelopes stand in depth-first preorder from the root, each at its first
visit; openings, blobs and proofs follow, sorted; nothing twice, nothing that the root does not reach; a SHA-256 of all
before ends the file. Pure: no I/O, no clock. Specification: docs/receipt.md.
"""

import hashlib
import io
import struct
from collections.abc import Iterable, Mapping, Set
from typing import Final, NamedTuple

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
from dimnode.records.manifest import file_roots

MAGIC: Final = b"DIMR1\n"
ENVELOPE, OPENING, BLOB, PROOF, END = 1, 2, 3, 4, 0
OPENING_BYTES: Final = REF_BYTES + SALT_BYTES + CID_BYTES
_DIGEST_BYTES: Final = 32
_PIECE_BYTES: Final = 512 * 1024
_SECTION: Final = struct.Struct(">BI")


class Opening(NamedTuple):
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
        ref, salt, cid = raw[:REF_BYTES], raw[REF_BYTES:-CID_BYTES], Cid(raw[-CID_BYTES:])
        if not cid.startswith(BLOB_PREFIX) or blob_ref(salt, cid) != ref:
            raise PeerFault("opening: does not open")
        return Opening(Ref(ref), salt, cid)


class Receipt(NamedTuple):
    """The parts of a receipt: the root's id, records by id in file order, openings by ref, blobs by CID.

    `refs` are the blinded names that stand in the records, whether the file opens them or not; `links` are the ids
    that each record stands on.
    """

    root: RecordId
    records: Mapping[RecordId, Record]
    openings: Mapping[Ref, Opening]
    blobs: Mapping[Cid, bytes]
    refs: Set[Ref]
    links: Mapping[RecordId, list[RecordId]]

    def blob_of(self, ref: Ref) -> bytes | None:
        """The bytes behind a reference, when both its opening and its blob are here."""
        opening = self.openings.get(ref)
        return None if opening is None else self.blobs.get(opening.cid)


def preorder(root: RecordId, records: Mapping[RecordId, Record]) -> list[Record]:
    """Records reachable from the root, depth first, parents in listed order; ids that are not here are skipped."""
    links = {identity: record_links(record) for identity, record in records.items()}
    return [records[identity] for identity in _reached(root, links)]


def _reached(root: RecordId, links: Mapping[RecordId, list[RecordId]]) -> list[RecordId]:
    ordered: dict[RecordId, None] = {}
    stack = [root]
    while stack:
        identity = stack.pop()
        if identity not in ordered and identity in links:
            ordered[identity] = None
            stack += links[identity][::-1]
    return list(ordered)


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
    for cid in sorted(by_cid.keys() & named):
        out += [_section_head(BLOB, len(by_cid[cid])), by_cid[cid]]
    out.append(bytes([END]))
    return _with_checksum(out)


def receipt_bytes(envelopes: Iterable[bytes], openings: int) -> int:
    """What a receipt of these parts takes, without blobs."""
    sections = sum(section_bytes(len(envelope)) for envelope in envelopes) + openings * section_bytes(OPENING_BYTES)
    return len(MAGIC) + RECORD_ID_BYTES + sections + len(bytes([END])) + _DIGEST_BYTES


def section_bytes(length: int) -> int:
    """What a section with so long a content takes."""
    return _SECTION.size + length


def _with_checksum(parts: Iterable[bytes]) -> bytes:
    """In pieces: no step of it keeps other threads waiting for long."""
    whole, checksum = io.BytesIO(), hashlib.sha256()
    for part in parts:
        checksum.update(part)
        for start in range(0, len(part), _PIECE_BYTES):
            whole.write(memoryview(part)[start : start + _PIECE_BYTES])
    whole.write(checksum.digest())
    return whole.getvalue()


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt and check its form: limits, checksum, order, every record by itself, openings, blobs.

    Raises `PeerFault` naming the first broken rule. What the records say to each other is the verifier's work.
    """
    body = _checked_body(raw)
    root = RecordId(body[len(MAGIC) : len(MAGIC) + RECORD_ID_BYTES])
    if not root.startswith(RECORD_PREFIX):
        raise PeerFault("receipt: root")
    envelopes, opened, contents = _sections(body, len(MAGIC) + RECORD_ID_BYTES)
    if len(envelopes) > LIMITS.records.receipt_envelopes_max:
        raise PeerFault("receipt: envelopes too many")
    records: dict[RecordId, Record] = {}
    links: dict[RecordId, list[RecordId]] = {}
    refs: set[Ref] = set()
    for envelope in envelopes:
        record = open_record(envelope)
        records[record.id] = record
        links[record.id] = record_links(record)
        refs.update(blob_refs(record))
    if len(records) != len(envelopes):
        raise PeerFault("receipt: envelope repeated")
    openings = {opening.ref: opening for opening in map(Opening.from_bytes, opened)}
    blobs = {blob_cid(content): content for content in contents}
    for found, sections in ((list(openings), opened), (list(blobs), contents)):
        if len(found) != len(sections) or found != sorted(found):
            raise PeerFault("receipt: order of sections")
    receipt = Receipt(root, records, openings, blobs, refs, links)
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


def _sections(body: bytes, position: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Envelopes, openings and blobs: whole, one type after the other, up to the end byte."""
    found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    last, size = ENVELOPE, len(body)
    while position + _SECTION.size <= size and body[position] != END:
        kind, length = _SECTION.unpack_from(body, position)
        start = position + _SECTION.size
        position = start + length
        if position > size:
            raise PeerFault("receipt: short section")
        if kind > BLOB:
            raise PeerFault("receipt: section type")
        if kind < last:
            raise PeerFault("receipt: order of sections")
        found[kind - ENVELOPE].append(body[start:position])
        last = kind
    if body[position:] != bytes([END]):
        raise PeerFault("receipt: no end, or bytes after it")
    return found


def _check_reach(receipt: Receipt) -> None:
    """Everything in the file is reached from the root, and the envelopes stand in preorder."""
    if receipt.root not in receipt.records:
        raise PeerFault("receipt: root missing")
    if _reached(receipt.root, receipt.links) != list(receipt.records):
        raise PeerFault("receipt: envelopes out of order or unreachable")
    if not receipt.openings.keys() <= receipt.refs:
        raise PeerFault("receipt: opening of nothing")
    named = {opening.cid for opening in receipt.openings.values()}
    if not receipt.blobs.keys() <= named and not receipt.blobs.keys() <= named | _file_cids(receipt.records.values()):
        raise PeerFault("receipt: blob of nothing")


def _file_cids(records: Iterable[Record]) -> set[Cid]:
    return {root for record in records for root in file_roots(record)}


def _section(kind: int, content: bytes) -> bytes:
    return _section_head(kind, len(content)) + content


def _section_head(kind: int, length: int) -> bytes:
    return _SECTION.pack(kind, length)
