"""The shelf of IPNS records: only what its publisher signed lies there, the newest of it, within bounds."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.name_shelf import NameShelf
from dimnode.records.envelope import SigningKey
from dimnode.records.ipns import Name, read_name, routing_key, seal_name

FEW = replace(LIMITS.host, dht_values_max=4, dht_values_per_peer_max=2, dht_value_kept_seconds=1.0)
KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(8)]
KEY, TELLER = KEYS[0], KEYS[7].peer
NOW = 1_800_000_000_000
SOON = 500


def record(key: SigningKey = KEY, sequence: int = 1, ends_ms: int = NOW + SOON) -> bytes:
    return seal_name(key, Name("/ipfs/bafkreigh2akiscaildc", sequence, ends_ms, 0))


def lies(shelf: NameShelf, key: SigningKey = KEY, now_ms: int = NOW) -> bytes | None:
    found = shelf.get(routing_key(key.peer), now_ms)
    return None if found is None else found[0]


@pytest.mark.slow
@given(st.data())
def test_a_changed_record_is_refused_or_still_says_what_its_publisher_signed(data: st.DataObject) -> None:
    raw = bytearray(record())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        change = data.draw(st.sampled_from(("flip", "cut", "insert", "copy")))
        if change == "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif change == "cut":
            del raw[at : at + data.draw(st.integers(1, 8))]
        elif change == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            raw += raw[at:]
        if not raw:
            break
    shelf = NameShelf(FEW)
    try:
        shelf.put(routing_key(KEY.peer), bytes(raw), TELLER, NOW)
    except PeerFault:
        assert len(shelf._kept) == 0
    else:  # more was written around what is signed, as others write a V1 part
        assert read_name(lies(shelf) or b"", KEY.peer) == read_name(record(), KEY.peer)


def test_a_strangers_spelling_gives_way_to_the_publishers_and_not_the_other_way() -> None:
    shelf, around = NameShelf(FEW), b"\x18\x00" + record()
    assert shelf.put(routing_key(KEY.peer), around, TELLER, NOW) == around
    assert shelf.put(routing_key(KEY.peer), record(), KEY.peer, NOW) == record()
    assert shelf.put(routing_key(KEY.peer), around, TELLER, NOW) == record()


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, SOON)), min_size=1, max_size=12))
def test_of_all_that_came_the_newest_that_is_valid_lies_there(came: list[tuple[int, int]]) -> None:
    shelf = NameShelf(FEW)
    best = (-1, 0)
    for sequence, life_ms in came:
        best = max(best, (sequence, life_ms))
        after = shelf.put(routing_key(KEY.peer), record(KEY, sequence, NOW + life_ms), TELLER, NOW)
        assert after == lies(shelf) == record(KEY, best[0], NOW + best[1])


def test_a_record_that_is_over_is_neither_taken_nor_handed_out() -> None:
    shelf = NameShelf(FEW)
    with pytest.raises(PeerFault, match="over"):
        shelf.put(routing_key(KEY.peer), record(ends_ms=NOW), TELLER, NOW)
    shelf.put(routing_key(KEY.peer), record(), TELLER, NOW)
    assert lies(shelf, now_ms=NOW + SOON - 1) == record()
    assert lies(shelf, now_ms=NOW + SOON) is None
    assert len(shelf._kept) == 0


def test_what_is_valid_for_years_goes_after_the_shelfs_own_time() -> None:
    shelf = NameShelf(FEW)
    shelf.put(routing_key(KEY.peer), record(ends_ms=4_000_000_000_000), TELLER, NOW)
    assert lies(shelf, now_ms=NOW + 999) is not None
    assert lies(shelf, now_ms=NOW + 1000) is None


@pytest.mark.parametrize("key", [b"", b"/pk/" + KEY.peer, b"/ipns/", b"/ipns/" + KEY.peer[:-1], KEY.peer])
def test_there_are_no_other_keys_than_those_of_publishers(key: bytes) -> None:
    shelf = NameShelf(FEW)
    for use in (lambda: shelf.put(key, record(), TELLER, NOW), lambda: shelf.get(key, NOW)):
        with pytest.raises(PeerFault):
            use()


def test_a_record_under_another_publishers_key_is_refused() -> None:
    with pytest.raises(PeerFault, match="signature"):
        NameShelf(FEW).put(routing_key(KEYS[1].peer), record(KEY), TELLER, NOW)


def test_a_record_has_a_bound_below_that_of_its_format() -> None:
    long = seal_name(KEY, Name("/ipfs/" + "x" * FEW.dht_value_bytes_max, 1, NOW + SOON, 0))
    with pytest.raises(PeerFault, match="size"):
        NameShelf(FEW).put(routing_key(KEY.peer), long, TELLER, NOW)


def test_who_puts_many_displaces_only_its_own() -> None:
    shelf = NameShelf(FEW)
    shelf.put(routing_key(KEY.peer), record(KEY), KEY.peer, NOW)
    for key in KEYS[1:6]:
        shelf.put(routing_key(key.peer), record(key), TELLER, NOW)
    assert [lies(shelf, key) is not None for key in KEYS[:6]] == [True, False, False, False, True, True]


def test_a_publisher_that_brings_its_record_itself_takes_it_out_of_a_strangers_share() -> None:
    shelf = NameShelf(FEW)
    for teller in (TELLER, KEY.peer):
        shelf.put(routing_key(KEY.peer), record(KEY), teller, NOW)
    for key in KEYS[1:6]:
        shelf.put(routing_key(key.peer), record(key), TELLER, NOW)
    assert lies(shelf, KEY) is not None


@pytest.mark.slow
@settings(max_examples=50)
@example([(0, 1, 0), (1, 0, 0), (2, 1, 0), (1, 1, 0)])  # its own record, from another's share into a full one
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 3)), max_size=60))
def test_the_shelf_and_each_share_of_it_stay_within_their_bounds(puts: list[tuple[int, int, int]]) -> None:
    shelf = NameShelf(FEW)
    for which, teller, sequence in puts:
        shelf.put(routing_key(KEYS[which].peer), record(KEYS[which], sequence), KEYS[teller].peer, NOW)
        shares = Counter({peer: len(told) for peer, told in shelf._told.items()})
        assert len(shelf._kept) == shares.total() <= FEW.dht_values_max
        assert max(shares.values()) <= FEW.dht_values_per_peer_max
