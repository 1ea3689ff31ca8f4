"""Whose clock is wrong: the median of the peers tells, where there are enough of them."""

import pytest

from dimnode.node.doctor import clocks


def test_without_a_peer_nothing_can_be_said() -> None:
    assert clocks([])["ok"]


@pytest.mark.parametrize("offsets", [[("a", 3.0)], [("a", -1900.0), ("b", 1900.0)], [("a", 150.0), ("b", 0), ("c", 9)]])
def test_small_differences_are_fine(offsets) -> None:
    found = clocks(offsets)
    assert found["ok"] and not found["mend"]


def test_when_most_peers_agree_that_we_are_off_it_is_most_likely_us() -> None:
    found = clocks([("a", 5000.0), ("b", 5100.0), ("c", 4900.0), ("d", 0.0)])
    assert not found["ok"] and not found["stops"]
    assert found["detail"].startswith("5.0 s behind the median of 4 peers: it is most likely this one")
    assert "timedatectl" in found["mend"]
    assert clocks([(name, -5000.0) for name in "abc"])["detail"].startswith("5.0 s ahead of")


def test_a_single_peer_far_from_the_others_is_named() -> None:
    found = clocks([("brio", 60_000.0), ("a", 10.0), ("b", -10.0)])
    assert not found["ok"]
    assert "brio's is 60.0 s ahead of the others" in found["detail"]


def test_with_fewer_than_three_peers_nobody_can_tell_who_is_wrong() -> None:
    for offsets in ([("brio", 9000.0)], [("brio", 9000.0), ("cara", 9100.0)]):
        found = clocks(offsets)
        assert not found["ok"]
        assert "nobody can tell" in found["detail"]


def test_a_clock_so_far_off_that_our_heartbeats_pass_for_replays_stops_work() -> None:
    assert clocks([(name, 700_000.0) for name in "abc"])["stops"]
