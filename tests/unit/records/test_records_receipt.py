"""The receipt file: the same parts give the same bytes, and no other bytes are accepted."""

import hashlib
import random
import sys
from pathlib import Path

import pytest

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import blob_cid
from dimnode.records.links import blob_refs, record_links
from dimnode.records.receipt import MAGIC, Opening, Receipt, pack_receipt, parse_receipt, preorder

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
RAW = (GOLDEN / "collaborative.dimr").read_bytes()
HEAD = len(MAGIC) + 37


def mended(body: bytes) -> bytes:
    """A body with its checksum."""
    return body + hashlib.sha256(body).digest()


def sections(raw: bytes) -> list[bytes]:
    """The sections of a file, headers included."""
    found, place = [], HEAD
    while raw[place]:
        end = place + 5 + int.from_bytes(raw[place + 1 : place + 5], "big")
        found.append(raw[place:end])
        place = end
    return found


def file_of(parts: list[bytes]) -> bytes:
    """A file of these sections."""
    return mended(RAW[:HEAD] + b"".join(parts) + b"\0")


def rule_of(raw: bytes) -> str:
    """The rule by which a file is refused."""
    with pytest.raises(PeerFault) as caught:
        parse_receipt(raw)
    return caught.value.rule


def parts(receipt: Receipt) -> tuple[list, list, list]:
    """What pack_receipt takes."""
    return list(receipt.records.values()), list(receipt.openings.values()), list(receipt.blobs.values())


def test_the_order_of_the_parts_does_not_matter() -> None:
    receipt = parse_receipt(RAW)
    seed = random.randrange(2**32)
    print("seed", seed)
    shuffle = random.Random(seed).shuffle
    records, openings, blobs = parts(receipt)
    for group in (records, openings, blobs):
        shuffle(group)
    assert pack_receipt(receipt.root, records, openings, blobs) == RAW


def test_parts_that_the_root_does_not_reach_are_left_out() -> None:
    receipt = parse_receipt(RAW)
    stranger = next(iter(parse_receipt((GOLDEN / "plain.dimr").read_bytes()).records.values()))
    records, openings, blobs = parts(receipt)
    strange_opening = Opening.of(bytes(32), blob_cid(b"strange"))
    assert pack_receipt(receipt.root, [*records, stranger], [*openings, strange_opening], [*blobs, b"strange"]) == RAW


def test_envelopes_stand_in_preorder_each_at_its_first_visit() -> None:
    receipt = parse_receipt(RAW)
    kinds = [record.kind for record in receipt.records.values()]
    site = ["answer", "lease", "ruling", "policy"]
    assert kinds == ["verdict", "spec", "manifest", *site, *site, *site, "ruling", "lease", "policy"]
    assert [record.id for record in preorder(receipt.root, receipt.records)] == list(receipt.records)


def test_sections_in_another_order_are_refused() -> None:
    found = sections(RAW)
    for place in range(len(found) - 1):
        swapped = [*found[:place], found[place + 1], found[place], *found[place + 2 :]]
        assert rule_of(file_of(swapped)).startswith("receipt: ")


def test_a_section_twice_is_refused() -> None:
    found = sections(RAW)
    for place in range(len(found)):
        assert rule_of(file_of([*found[: place + 1], *found[place:]])).startswith("receipt: ")


def test_what_the_root_does_not_reach_is_refused() -> None:
    found = sections(RAW)
    other = sections((GOLDEN / "plain.dimr").read_bytes())
    envelopes = [part for part in found if part[0] == 1]
    rest = [part for part in found if part[0] != 1]
    assert rule_of(file_of([*envelopes, other[0], *rest])) == "receipt: envelopes out of order or unreachable"
    openings = sorted([part for part in rest if part[0] == 2] + [part for part in other if part[0] == 2])
    blobs = [part for part in rest if part[0] == 3]
    assert rule_of(file_of([*envelopes, *openings, *blobs])) == "receipt: opening of nothing"
    strange = b"\3\0\0\0\1s"
    for place in range(len(blobs) + 1):
        with_stranger = [*blobs[:place], strange, *blobs[place:]]
        rule = rule_of(file_of([*envelopes, *[part for part in rest if part[0] == 2], *with_stranger]))
        assert rule in ("receipt: blob of nothing", "receipt: order of sections")


def test_a_root_that_is_not_in_the_file_is_refused() -> None:
    assert rule_of(mended(RAW[:HEAD] + b"\0")) == "receipt: root missing"
    assert rule_of(mended(MAGIC + bytes(37) + RAW[HEAD:-32])) == "receipt: root"


def test_a_file_that_is_too_long_is_refused_before_it_is_hashed() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return LIMITS.records.receipt_bytes_max + 1

    assert rule_of(Long(RAW)) == "receipt: too long"


def test_an_opening_must_open() -> None:
    opening = Opening.of(bytes(32), blob_cid(b"x"))
    raw = opening.to_bytes()
    assert Opening.from_bytes(raw) == opening
    for place in range(len(raw)):
        with pytest.raises(PeerFault):
            Opening.from_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    for wrong in (b"", raw[:-1], raw + b"\0"):
        with pytest.raises(PeerFault):
            Opening.from_bytes(wrong)


def test_a_blob_is_found_by_its_blinded_reference() -> None:
    receipt = parse_receipt(RAW)
    for record in receipt.records.values():
        for ref in blob_refs(record):
            blob = receipt.blob_of(ref)
            assert blob is not None
            assert blob_cid(blob) == receipt.openings[ref].cid
    assert receipt.blob_of(bytes(32)) is None


def test_links_are_listed_once_and_a_lease_has_none() -> None:
    for record in parse_receipt(RAW).records.values():
        links = record_links(record)
        assert len(links) == len(set(links))
        assert record.kind not in ("lease", "policy", "manifest") or links == []


def test_a_receipt_refers_to_nothing_of_the_machine_that_made_it() -> None:
    for word in (sys.prefix.encode(), b"/home/", b"/tmp/"):
        assert word not in RAW
