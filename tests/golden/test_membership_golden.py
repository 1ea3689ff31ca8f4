"""The records of a private swarm and its invitation keep their bytes, and mean what they did."""

import json
from pathlib import Path

import pytest
from membership_vectors import T0, membership_text

from dimnode.errors import Refused
from dimnode.p2p.admission import MemberBook, key_hash
from dimnode.p2p.invitation import read_invitation
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import cid_text
from dimnode.records.kinds import open_record
from dimnode.records.membership_kinds import MEMBERSHIP_KINDS

TEXT = (Path(__file__).parent / "membership.json").read_text(encoding="utf-8")
VECTORS = json.loads(TEXT)
RECORDS = [open_record(bytes.fromhex(row["envelope"]), kind=row["kind"]) for row in VECTORS["records"]]
JOINER = SigningKey.from_seed(bytes.fromhex(VECTORS["seeds"]["joiner"])).peer


def test_the_membership_vectors_are_what_the_code_says_today() -> None:
    assert membership_text() == TEXT
    assert [cid_text(record.id) for record in RECORDS] == [row["id"] for row in VECTORS["records"]]
    assert {record.kind for record in RECORDS} == {"swarm", *MEMBERSHIP_KINDS}


def test_the_golden_joiner_is_a_member_until_it_is_removed() -> None:
    swarm, invite, joined, _, removed, _ = RECORDS
    book = MemberBook(swarm)
    assert book.admit(JOINER, [invite, joined], T0 + 10).expires_ms == T0 + 864_000_000
    book.learn([removed])
    with pytest.raises(Refused, match="E-swarm-12"):
        book.judge(JOINER, T0 + 10)
    assert book.key_hashes() == [key_hash(bytes.fromhex(VECTORS["next_pre_shared_key"]))]


def test_the_golden_invitation_says_what_it_said() -> None:
    found = read_invitation(VECTORS["invitation"], T0 + 10)
    assert (found.swarm.id, found.invite.id) == (RECORDS[0].id, RECORDS[1].id)
    assert found.seed.hex() == VECTORS["seeds"]["invite"]
    assert (found.addresses, found.key) == ((VECTORS["address"],), bytes.fromhex(VECTORS["pre_shared_key"]))
