"""Random universes, each from one seed: what goes wrong there must not break a single rule."""

from collections import Counter

import pytest

from .checks import check_receipts
from .universe import Universe, calm, drawn, fetching, lying
from .world import World

SEEDS = range(20)
MORE_SEEDS = range(20, 220)
CALM_SEEDS = range(5)


def lived(universe: Universe, trace_lines: int = 400) -> World:
    """A universe after its end; its checks have passed, or `Broken` names the seed."""
    return World(universe, trace_lines).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_ends_once_and_nothing_is_left_whatever_fails(seed: int) -> None:
    check_receipts(lived(drawn(seed)))


def test_a_liar_of_any_kind_ends_no_job_for_which_the_others_are_enough() -> None:
    """`Broken` says when one did; here, that there were such lies, and jobs that went on without them."""
    left_out, ends = 0, Counter[str]()
    for seed in range(6):
        world = lived(lying(seed), trace_lines=100_000)
        left_out += sum("Note:left out" in line for line in world.lines)
        ends += check_receipts(world)
    assert left_out > 3, "it is not told by universes without such lies"
    assert ends["ok"] > sum(ends.values()) * 2 / 3


@pytest.mark.slow
def test_what_a_job_names_is_fetched_by_who_lacks_it_and_when_that_fails_another_does_it() -> None:
    fetched, ends = 0, Counter[str]()
    for seed in range(6):
        world = lived(fetching(seed))
        fetched += sum(node.fetched for node in world.nodes)
        ends += check_receipts(world)
    assert fetched > 10
    assert ends["ok"] > sum(ends.values()) / 2


@pytest.mark.slow
def test_two_hundred_more_universes_end_well() -> None:
    ends: Counter[str] = Counter()
    for seed in MORE_SEEDS:
        ends += check_receipts(lived(drawn(seed)))
    # The universes are worth something only when every way to end occurs in them.
    assert set(ends) >= {"ok", "failed", "refused", "cancelled", "expired", "split"}
    assert ends["ok"] > sum(ends.values()) / 2


@pytest.mark.parametrize("seed", [3, 13])
def test_one_seed_is_one_universe(seed: int) -> None:
    assert lived(drawn(seed)).hash == lived(drawn(seed)).hash


@pytest.mark.parametrize("seed", CALM_SEEDS)
def test_without_faults_no_lease_is_lost_and_every_job_succeeds_unless_a_policy_refuses(seed: int) -> None:
    world = lived(calm(seed), trace_lines=100_000)
    assert not [line for line in world.lines if "Note:lost" in line or "Note:busy" in line]
    assert set(check_receipts(world)) <= {"ok", "refused", "waited in vain"}
