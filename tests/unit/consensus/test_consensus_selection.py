"""Who gets a task."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from dimnode.consensus.selection import Candidate, Need, NewcomerLane, choose
from dimnode.limits import LIMITS

MODEL = b"model"
NEED = Need(MODEL, "infer")
OFFERS = frozenset({MODEL, "wdbc"})
SEED = 4710


def peer(name: str, *, inflight: int = 0, free_slots: int = 4, offers=OFFERS, operator: str = "") -> Candidate:
    return Candidate(name.encode(), free_slots, inflight, offers, operator)


def pick(
    candidates: Sequence[Candidate],
    need: Need = NEED,
    *,
    means: dict[bytes, float] | None = None,
    barred: frozenset[bytes] = frozenset(),
    new: frozenset[bytes] = frozenset(),
    lane: NewcomerLane | None = None,
    rng: random.Random | None = None,
) -> bytes | None:
    return choose(
        candidates,
        need,
        standing_mean=lambda name: (means or {}).get(name, 0.5),
        barred=barred.__contains__,
        newcomer=new.__contains__,
        lane=lane or NewcomerLane(),
        rng=rng or random.Random(SEED),
    )


def test_the_peer_of_the_best_standing_is_chosen():
    assert pick([peer("a"), peer("b"), peer("c")], means={b"b": 0.9}) == b"b"


def test_a_busy_peer_of_good_standing_loses_to_an_idle_one_of_fair_standing():
    assert pick([peer("a", inflight=2), peer("b")], means={b"a": 0.9, b"b": 0.4}) == b"b"
    assert pick([peer("a", inflight=1), peer("b")], means={b"a": 0.9, b"b": 0.4}) == b"a"


def test_equal_scores_go_to_the_fewest_in_flight():
    assert pick([peer("a", inflight=1), peer("b")], means={b"a": 0.8, b"b": 0.4}) == b"b"
    assert pick([peer("b"), peer("a", inflight=1)], means={b"a": 0.8, b"b": 0.4}) == b"b"


def test_complete_ties_are_spread_by_chance_and_the_seed_repeats_them():
    print("seed", SEED)
    rng, candidates = random.Random(SEED), [peer("a"), peer("b"), peer("c")]
    picks = [pick(candidates, rng=rng) for _ in range(300)]
    assert min(Counter(picks).values()) > 60
    rng = random.Random(SEED)
    assert picks == [pick(candidates, rng=rng) for _ in range(300)]


def test_a_barred_peer_gets_nothing_not_even_what_is_pinned_to_it():
    barred = frozenset({b"a"})
    assert pick([peer("a"), peer("b")], means={b"a": 0.99}, barred=barred) == b"b"
    assert pick([peer("a"), peer("b")], replace(NEED, pinned=b"a"), barred=barred) is None


def test_a_pinned_task_goes_to_its_peer_or_to_nobody():
    assert pick([peer("a"), peer("b")], replace(NEED, pinned=b"b"), means={b"a": 0.99}) == b"b"
    assert pick([peer("a")], replace(NEED, pinned=b"b")) is None


def test_only_peers_that_offer_the_model_and_the_cabinet_are_asked():
    without = [peer("a", offers=frozenset({MODEL})), peer("b", offers=frozenset({"wdbc"}))]
    need = replace(NEED, cabinet="wdbc")
    assert pick(without, need) is None
    assert pick([*without, peer("c")], need) == b"c"
    assert pick(without, Need(b"", "statistics", "wdbc")) == b"b"


def test_replicas_of_a_task_go_to_different_peers():
    candidates = [peer("a"), peer("b"), peer("c")]
    assert pick(candidates, replace(NEED, exclude=frozenset({b"a", b"c"}))) == b"b"


def test_the_lease_window_of_a_peer_is_respected():
    window = LIMITS.jobs.lease_window_per_peer
    assert pick([peer("a", inflight=window)]) is None
    assert pick([peer("a", inflight=window - 1)]) == b"a"


def test_a_peer_without_free_slots_is_the_last_resort():
    assert pick([peer("a", free_slots=0), peer("b")], means={b"a": 0.9, b"b": 0.1}) == b"b"
    assert pick([peer("a", free_slots=0)]) == b"a"


def test_nobody_is_chosen_from_nobody():
    assert pick([]) is None


def test_newcomers_compete_freely_while_fewer_than_three_are_established():
    new = frozenset({b"n"})
    assert pick([peer("a"), peer("b"), peer("n")], means={b"n": 0.9}, new=new) == b"n"


@pytest.mark.parametrize("newcomers", [1, 4, 100])
def test_however_many_newcomers_share_a_tenth_of_the_choices(newcomers):
    names = [f"n{i}" for i in range(newcomers)]
    candidates = [peer("a"), peer("b"), peer("c"), *map(peer, names)]
    new = frozenset(name.encode() for name in names)
    lane, rng, picks = NewcomerLane(), random.Random(SEED), 0
    for choice in range(1, 301):
        # Even newcomers that somehow look better than everybody are held to their lane.
        picks += pick(candidates, means=dict.fromkeys(new, 0.99), new=new, lane=lane, rng=rng) in new
        assert picks * 1000 <= choice * LIMITS.standing.newcomer_share_permille
    assert picks == 30


def test_newcomers_get_their_lane_even_when_the_established_are_idle_and_better():
    candidates = [peer("a"), peer("b"), peer("c"), peer("n")]
    lane, new = NewcomerLane(), frozenset({b"n"})
    picks = [pick(candidates, means={b"n": 0.33}, new=new, lane=lane) for _ in range(20)]
    assert picks.count(b"n") == 2


def test_a_long_time_without_newcomers_saves_no_burst_for_them():
    lane, new = NewcomerLane(), frozenset({b"n"})
    established = [peer("a"), peer("b"), peer("c")]
    for _ in range(1000):
        pick(established, new=new, lane=lane)
    picks = [pick([*established, peer("n")], new=new, lane=lane) for _ in range(20)]
    assert picks.count(b"n") <= 3


def test_claiming_free_slots_does_not_widen_the_lane():
    candidates = [*(peer(name, free_slots=0) for name in "abc"), peer("n", free_slots=99)]
    lane, new = NewcomerLane(), frozenset({b"n"})
    assert sum(pick(candidates, new=new, lane=lane) == b"n" for _ in range(100)) == 10


def test_a_pinned_task_does_not_touch_the_lane():
    lane = NewcomerLane()
    candidates = [peer("a"), peer("b"), peer("c"), peer("n")]
    assert pick(candidates, replace(NEED, pinned=b"n"), new=frozenset({b"n"}), lane=lane) == b"n"
    assert lane.credit_permille == 0
