"""IPNS records: what is signed is what is read, and nothing else is read at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.records.ipns import IPNSValidator

from dimnode.errors import PeerFault
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import peer_text
from dimnode.records.ipns import NAME_BYTES_MAX, Name, open_name, routing_key, seal_name

KEY, OTHER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2))
NAME = Name("/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", 7, 1_800_000_000_123, 60_000)
YEARS_MS = st.integers(1, 253_402_300_799_999)


@given(st.text(max_size=200), st.integers(0, 2**64 - 1), YEARS_MS, st.integers(0, (2**64 - 1) // 1_000_000))
def test_what_is_signed_is_what_is_read(value, sequence, valid_until_ms, ttl_ms):
    name = Name(value, sequence, valid_until_ms, ttl_ms)
    raw = seal_name(KEY, name)
    assert open_name(raw, KEY.peer, valid_until_ms - 1) == name
    with pytest.raises(PeerFault, match="over"):
        open_name(raw, KEY.peer, valid_until_ms)


def test_every_byte_that_is_changed_and_every_cut_is_refused():
    raw = seal_name(KEY, NAME)
    for at in range(len(raw)):
        for changed in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
            with pytest.raises(PeerFault):
                open_name(changed, KEY.peer, 0)


def test_a_name_is_its_publishers_alone():
    with pytest.raises(PeerFault, match="signature"):
        open_name(seal_name(OTHER, NAME), KEY.peer, 0)


def test_the_later_record_counts_then_the_one_that_is_valid_longer():
    later = Name(NAME.value, 8, 1, 0)
    longer = Name(NAME.value, 7, NAME.valid_until_ms + 1, 0)
    assert max((NAME, later, longer), key=lambda name: name.age_key) == later
    assert max((NAME, longer), key=lambda name: name.age_key) == longer


def test_a_v1_part_beside_it_is_passed_over_and_anything_twice_is_refused():
    raw = seal_name(KEY, NAME)
    beside = b"\x0a\x03abc\x18\x00\x28\x07"
    assert open_name(beside + raw, KEY.peer, 0) == NAME
    for twice in (raw + raw, beside + beside + raw):
        with pytest.raises(PeerFault, match="field"):
            open_name(twice, KEY.peer, 0)


def test_a_record_has_a_bound():
    with pytest.raises(PeerFault, match="size"):
        open_name(seal_name(KEY, NAME) + b"\x52" + bytes(NAME_BYTES_MAX), KEY.peer, 0)


def test_the_librarys_own_validator_takes_it():
    far = Name(NAME.value, 7, 4_000_000_000_000, 60_000)
    IPNSValidator().validate(f"/ipns/{peer_text(KEY.peer)}", seal_name(KEY, far))
    assert routing_key(KEY.peer) == b"/ipns/" + KEY.peer


@given(st.binary(max_size=300))
def test_garbage_is_refused(raw):
    with pytest.raises(PeerFault):
        open_name(raw, KEY.peer, 0)
