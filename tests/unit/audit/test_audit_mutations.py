"""Any change of any byte of a receipt is noticed, also when whoever changed it mended the checksum."""

import hashlib

import pytest
from scene import chain, plain

from dimnode.audit.report import Report
from dimnode.audit.verifier import verify

IRRELEVANT: frozenset[int] = frozenset()
"""Offsets of bytes of a receipt that may change unnoticed. There are none, and there should never be any."""
PLAIN = plain()


def failed(report: Report) -> set[str]:
    """The checks that failed, as `code subject`."""
    return {f"{check.code} {check.subject}" for check in report.checks if check.outcome == "fail"}


def flipped(raw: bytes, place: int, bits: int = 1) -> bytes:
    """The file with these bits of one byte turned over."""
    return raw[:place] + bytes([raw[place] ^ bits]) + raw[place + 1 :]


def mended(raw: bytes) -> bytes:
    """The file with a checksum that fits."""
    return raw[:-32] + hashlib.sha256(raw[:-32]).digest()


def unnoticed(places: range) -> set[int]:
    """Places at which a change, with or without mending the checksum, did not get the file refused."""
    found = set()
    for place in places:
        variants = [flipped(PLAIN, place)]
        if place < len(PLAIN) - 32:
            variants += [mended(variants[0]), mended(flipped(PLAIN, place, 0x80))]
        if any(verify(variant).status != 1 for variant in variants):
            found.add(place)
    return found


def test_the_plain_receipt_is_small() -> None:
    assert len(PLAIN) <= 4096


def test_a_sample_of_changed_bytes_is_refused() -> None:
    assert unnoticed(range(0, len(PLAIN), 97)) == IRRELEVANT


@pytest.mark.slow
def test_every_changed_byte_is_refused() -> None:
    assert unnoticed(range(len(PLAIN))) == IRRELEVANT


@pytest.mark.slow
def test_every_truncation_is_refused() -> None:
    accepted = [size for size in range(len(PLAIN)) if verify(PLAIN[:size]).status != 1]
    accepted += [size for size in range(32, len(PLAIN)) if verify(mended(PLAIN[:size])).status != 1]
    assert accepted == []


def test_bytes_after_the_end_are_refused() -> None:
    assert verify(PLAIN + b"\0").status == 1
    assert verify(mended(PLAIN[:-32] + b"\0" + bytes(32))).status == 1


def test_a_changed_byte_in_an_envelope_names_the_record_and_the_checksum() -> None:
    raw = chain()
    start = 6 + 37
    for _ in range(4):
        start += 5 + int.from_bytes(raw[start + 1 : start + 5], "big")
    report = verify(flipped(raw, start + 5 + 200))
    assert failed(report) == {"R-CHECKSUM file", "R-SIGNATURE record 5"}
    assert report.shown == ()
    assert any("was not looked at" in line for line in report.not_checked)


def test_a_changed_byte_in_an_opening_or_a_blob_names_it() -> None:
    blob_end = len(PLAIN) - 32 - 1
    assert failed(verify(mended(flipped(PLAIN, blob_end - 1)))) == {"R-BLOB blob 2"}
    opening = PLAIN.rindex(b"\x02\0\0\0\x64")
    assert failed(verify(mended(flipped(PLAIN, opening + 50)))) == {"R-OPENING opening 2"}


def test_what_is_no_receipt_at_all_is_refused() -> None:
    for raw in (b"", b"DIMR1\n", b"DIMR2\n" + PLAIN[6:], bytes(100), b"\x89PNG\r\n" + bytes(4000)):
        assert verify(raw).status == 1


def test_a_receipt_without_any_record_is_refused() -> None:
    assert failed(verify(mended(PLAIN[:43] + b"\0" + bytes(32)))) == {"R-PARENTS file"}


def test_a_proof_section_is_refused_until_proofs_are_defined() -> None:
    raw = mended(PLAIN[:-33] + b"\x04\0\0\0\x01p\0" + bytes(32))
    assert failed(verify(raw)) == {"R-CANONICAL section 10"}
