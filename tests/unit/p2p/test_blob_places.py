"""Places at which large blobs are handed out: a crowd of keys at one address keeps nobody else away."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dimnode.limits import LIMITS
from dimnode.p2p.blob_places import Places, group_of
from dimnode.records.ids import PeerId

BOUNDS = LIMITS.exchange
ALL, EACH, SHARE = BOUNDS.serving_max, BOUNDS.serving_per_peer_max, BOUNDS.serving_per_group_share
CROWD, ELSEWHERE = "192.0.2.0/24", "198.51.100.0/24"


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(38))


def crowd(places: Places, group: str, *, owed: bool = False, first: int = 1000) -> int:
    """A hundred keys at one address take what they get; how much that is."""
    return sum(places.take(peer(first + number // EACH), group, owed) for number in range(100 * EACH))


def test_a_lone_peer_has_its_few_places_and_gets_them_back() -> None:
    places = Places()
    assert [places.take(peer(1), CROWD, owed=True) for _ in range(EACH + 1)] == [True] * EACH + [False]
    places.leave(peer(1), CROWD)
    assert places.take(peer(1), CROWD, owed=True)


@pytest.mark.parametrize(("owed", "group"), [(False, ELSEWHERE), (True, ELSEWHERE), (True, CROWD)])
def test_a_crowd_of_keys_at_one_address_leaves_places_for_others_and_for_leases(owed: bool, group: str) -> None:
    places = Places()
    assert SHARE < crowd(places, CROWD) < ALL
    assert sum(places.take(peer(number // EACH), group, owed) for number in range(2 * EACH)) == 2 * EACH


def test_crowds_of_strangers_from_many_networks_leave_places_for_leases() -> None:
    places = Places()
    taken = sum(crowd(places, f"10.0.{number}.0/24", first=1000 * number) for number in range(1, 9))
    assert taken < ALL
    assert all(places.take(peer(1), CROWD, owed=True) for _ in range(EACH))


def test_a_crowd_that_holds_leases_leaves_places_for_a_lease_from_elsewhere() -> None:
    places = Places()
    crowd(places, CROWD, owed=True)
    assert all(places.take(peer(1), ELSEWHERE, owed=True) for _ in range(EACH))


@given(some.lists(some.tuples(some.booleans(), some.integers(0, 5), some.integers(0, 2), some.booleans())))
def test_places_are_counted_right_whatever_comes_and_goes(steps: list[tuple[bool, int, int, bool]]) -> None:
    places, held = Places(), list[tuple[PeerId, str]]()
    for comes, who, where, owed in steps:
        if comes and places.take(peer(who), str(where), owed):
            held.append((peer(who), str(where)))
        elif not comes and held:
            places.leave(*held.pop(who % len(held)))
        assert len(held) <= ALL
        assert all(sum(1 for each, _ in held if each == peer(who)) <= EACH for who in range(6))
    while held:
        places.leave(*held.pop())
    assert places.take(peer(9), "elsewhere", owed=False)


@pytest.mark.parametrize(
    ("ip", "group"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_group_is_a_network(ip: str, group: str) -> None:
    assert group_of(ip) == group
