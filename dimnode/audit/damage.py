"""Where a file that does not parse is damaged: for people, after `parse_receipt` has already refused it.

Rule: this never decides whether a file is good; it only says more about one that is not, record by record.
Pure: no I/O, no clock.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice

from dimnode.audit.findings import Check
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import RECORD_ID_BYTES, blob_cid
from dimnode.records.kinds import open_record
from dimnode.records.manifest import file_roots
from dimnode.records.receipt import BLOB, ENVELOPE, MAGIC, OPENING, Opening

_NAMES = {ENVELOPE: "record", OPENING: "opening", BLOB: "blob"}
_DIGEST_BYTES = 32
_PLACES_TOLD_MAX = 64


def damage(raw: bytes, fault: PeerFault) -> list[Check]:
    """The failed checks of a refused file, at least one. `fault` is what `parse_receipt` raised."""
    if len(raw) > LIMITS.records.receipt_bytes_max or not raw.startswith(MAGIC):
        return [_failed("file", fault.rule)]
    body = raw[:-_DIGEST_BYTES]
    found = list(islice(_damaged_sections(body), _PLACES_TOLD_MAX))
    if hashlib.sha256(body).digest() != raw[-_DIGEST_BYTES:]:
        found.insert(0, _failed("file", "receipt: checksum"))
    return found or [_failed("file", fault.rule)]


def _damaged_sections(body: bytes) -> Iterator[Check]:
    counts = dict.fromkeys(_NAMES, 0)
    cids = set()
    intact = True  # whether a blob without a name is the blob's own fault
    position = len(MAGIC) + RECORD_ID_BYTES
    while position < len(body) and (kind := body[position]) in _NAMES:
        counts[kind] += 1
        if counts[ENVELOPE] > LIMITS.records.receipt_envelopes_max:  # each costs a signature: enough was looked at
            yield _failed("file", "receipt: envelopes too many")
            return
        subject = f"{_NAMES[kind]} {counts[kind]}"
        start = position + 5
        position = start + int.from_bytes(body[position + 1 : start], "big")
        section = body[start:position]
        try:
            if position > len(body):
                raise PeerFault("receipt: short section")
            if kind == ENVELOPE:
                record = open_record(section)
                cids |= set(file_roots(record))
            elif kind == OPENING:
                cids.add(Opening.from_bytes(section).cid)
            elif intact and blob_cid(section) not in cids:
                raise PeerFault("receipt: blob of nothing")
        except PeerFault as fault:
            intact = False
            yield _failed(subject, fault.rule)
    if position >= len(body):
        yield _failed("file", "receipt: no end")
    elif body[position] not in _NAMES and body[position:] != b"\0":
        rule = "receipt: bytes after the end" if body[position] == 0 else "receipt: section type"
        yield _failed(f"section {sum(counts.values()) + 1}", rule)


def _failed(subject: str, rule: str) -> Check:
    return Check(code_of(rule), subject, "fail", rule)


def code_of(rule: str) -> str:
    """The check that a broken rule of the file's form belongs to."""
    if rule.endswith(("too long", "too many", "too many items", "too deep")):
        return "R-LIMITS"
    match rule.partition(": ")[::2]:
        case ("receipt", "checksum"):
            return "R-CHECKSUM"
        case ("envelope", "signature" | "kind, v or by differ from the payload" | "key is not Ed25519"):
            return "R-SIGNATURE"
        case ("receipt", "envelopes out of order or unreachable" | "root missing"):
            return "R-PARENTS"
        case ("receipt", "blob of nothing"):
            return "R-BLOB"
        case ("opening", _) | ("receipt", "opening of nothing"):
            return "R-OPENING"
        case (_, "fields") if not rule.startswith("envelope"):
            return "R-SCHEMA"
        case _:
            return "R-CANONICAL"
