"""Who is in the swarm: replays count for nothing, the silent are forgotten, the list is bounded."""

from dataclasses import replace

from dimnode.limits import LIMITS
from dimnode.p2p.membership import Members, heartbeat_seconds
from dimnode.records.ids import PEER_PREFIX, RECORD_PREFIX, PeerId, RecordId

ME = PeerId(PEER_PREFIX + bytes(32))
ADVERT = RecordId(RECORD_PREFIX + bytes(32))


def peer(number: int) -> PeerId:
    return PeerId(PEER_PREFIX + number.to_bytes(32, "big"))


def beat(members: Members, number: int, at_ms: int, mono: float, advert: RecordId = ADVERT) -> bool:
    return members.heartbeat(peer(number), advert, at_ms, 1, 0, mono)


def test_a_replayed_or_older_heartbeat_does_not_count() -> None:
    members = Members(ME)
    assert beat(members, 1, 1000, 1.0)
    assert not beat(members, 1, 1000, 5.0)
    assert not beat(members, 1, 999, 5.0)
    assert members.get(peer(1)).heard_mono == 1.0
    assert beat(members, 1, 1001, 5.0)


def test_our_own_heartbeat_does_not_make_us_our_own_member() -> None:
    members = Members(ME)
    assert not members.heartbeat(ME, ADVERT, 1, 1, 0, 1.0)
    assert len(members) == 0


def test_a_peer_is_gone_after_three_silent_intervals_unless_it_is_linked() -> None:
    members = Members(ME)
    beat(members, 1, 1, 100.0)
    beat(members, 2, 1, 100.0)
    members.entry(peer(2)).linked = True
    assert {member.peer for member in members.alive(102.9)} == {peer(1), peer(2)}
    assert {member.peer for member in members.alive(103.1)} == {peer(2)}
    members.forget_silent(103.1)
    assert members.get(peer(1)) is None
    assert members.get(peer(2)) is not None


def test_who_is_linked_for_six_intervals_without_a_heartbeat_is_unheard_and_who_is_new_or_heard_is_not() -> None:
    members = Members(ME)
    for number in (1, 2, 3, 4):
        members.entry(peer(number)).linked = True
    beat(members, 2, 1, 96.0)
    beat(members, 3, 1, 93.0)
    since = {peer(1): 90.0, peer(2): 90.0, peer(3): 90.0, peer(4): 95.0}
    assert [member.peer for member in members.unheard(since, 100.0)] == [peer(1), peer(3)]
    assert members.unheard({peer(9): 1.0}, 100.0) == []


def test_a_link_that_went_down_leaves_no_ghost() -> None:
    members = Members(ME)
    members.entry(peer(1)).linked = True
    members.entry(peer(1)).linked = False
    members.forget_silent(100.0)
    assert len(members) == 0


def test_the_interval_grows_with_the_swarm_within_its_bounds() -> None:
    assert [heartbeat_seconds(size) for size in (0, 5, 50, 10_000)] == [1.0, 1.0, 10.0, 30.0]


def test_the_list_is_bounded_and_the_longest_silent_stranger_goes_first() -> None:
    members = Members(ME, replace(LIMITS.peers, adverts_max=3))
    for number in (1, 2, 3):
        beat(members, number, 1, float(number))
    members.entry(peer(1)).linked = True
    beat(members, 4, 1, 4.0)
    assert members.get(peer(2)) is None
    assert members.get(peer(1)) is not None
    for number in range(10, 100):
        beat(members, number, 1, float(number))
    assert len(members) == 3


def test_a_stranger_takes_the_place_of_nobody_who_is_not_overdue() -> None:
    members = Members(ME, replace(LIMITS.peers, adverts_max=10))
    for number in range(1, 11):
        beat(members, number, 1, 0.1 * number)
    for flood in range(100, 300):
        assert not beat(members, flood, 1, 1.0)
    assert {members.get(peer(number)) is not None for number in range(1, 11)} == {True}
    overdue = 1.5 * heartbeat_seconds(11)
    assert beat(members, 300, 1, overdue + 0.15)
    assert members.get(peer(1)) is None
    assert members.get(peer(2)) is not None


def test_in_a_swarm_larger_than_the_list_heartbeats_do_not_push_each_other_out() -> None:
    members = Members(ME, replace(LIMITS.peers, adverts_max=50))
    for at in range(0, 60, 10):  # sixty peers, each beats every ten seconds
        kept = [beat(members, number, at * 1000, at + number / 6.1) for number in range(1, 61)]
    assert sum(kept) == 50
    assert len(members) == 50


def test_an_advert_is_wanted_from_a_linked_peer_that_says_one_we_have_not_read() -> None:
    members = Members(ME)
    assert not members.wants_advert(peer(1))
    beat(members, 1, 1, 1.0)
    assert not members.wants_advert(peer(1))
    members.entry(peer(1)).linked = True
    assert members.wants_advert(peer(1))
    members.entry(peer(1)).advert = ADVERT
    assert not members.wants_advert(peer(1))
    beat(members, 1, 2, 2.0, RecordId(ADVERT[:-1] + b"?"))
    assert members.wants_advert(peer(1))
