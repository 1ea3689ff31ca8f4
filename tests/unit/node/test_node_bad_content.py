"""What strangers and typos say of content: one spelling of a CID, and no manifest beyond the bound of a record."""

import base64

import pytest

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.node.blob_answers import read_cid
from dimnode.records.codec import encode
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import RECORD_PREFIX, TREE_PREFIX, blob_cid, cid_text, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, open_record

KEY = SigningKey.from_seed(bytes([1]) * 32)
CID = blob_cid(b"bytes")
TEXT = cid_text(CID)
OTHER_HASH = cid_text(b"\x01\x55\x13\x40" + bytes(64))
OTHER_CODEC = cid_text(b"\x01\x71\x12\x20" + bytes(32))
LONG_VERSION = cid_text(b"\x81\x00\x55\x12\x20" + bytes(32))


def test_a_blob_is_named_in_one_way() -> None:
    for cid in (CID, TREE_PREFIX + bytes(32)):
        assert read_cid(cid_text(cid)) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        TEXT.upper(),
        TEXT[:-1],
        TEXT + "a",
        TEXT + "=" * 6,
        TEXT + "\n",
        " " + TEXT,
        f"/ipfs/{TEXT}",
        f"../{TEXT}",
        TEXT[:-1] + chr(ord(TEXT[-1]) ^ 1),  # the last letter has bits that name nothing
        "z" + peer_text(CID),  # base58btc, as some daemons answer
        "f" + CID.hex(),
        "m" + base64.b64encode(CID).decode().rstrip("="),
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnAPdT",  # version 0
        OTHER_HASH,
        OTHER_CODEC,
        LONG_VERSION,
        cid_text(RECORD_PREFIX + bytes(32)),  # a record is no blob
        TEXT[0] + "\u0430" + TEXT[2:],  # a Cyrillic letter that looks like one of ours
    ],
)
def test_any_other_spelling_is_refused_by_name(text: str) -> None:
    with pytest.raises(Refused) as no:
        read_cid(text)
    assert no.value.complaint.code == "E-p2p-65"


def test_a_last_letter_with_bits_that_name_nothing_is_named_as_the_reason() -> None:
    with pytest.raises(Refused) as no:
        read_cid(TEXT[:-1] + chr(ord(TEXT[-1]) ^ 1))
    assert no.value.complaint.cause == "its last letter was altered: no CID ends so; copy it again"


def test_a_manifest_beyond_the_bound_of_a_record_is_never_read() -> None:
    said = {"kind": "manifest", "v": 2, "net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 1}
    most = LIMITS.records.record_bytes_max
    small, large = (
        seal(KEY, "manifest", encode({**said, "summary": "x" * 200}) + b"x" * padding, 2) for padding in (0, most)
    )
    with pytest.raises(PeerFault, match="fields"):
        open_record(small, kind="manifest")
    with pytest.raises(PeerFault) as fault:
        open_record(large, kind="manifest")
    assert "fields" not in fault.value.rule
