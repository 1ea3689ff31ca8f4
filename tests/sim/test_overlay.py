"""Membership over a model of gossipsub: all are heard, no ghost outlives its time, views agree after a partition."""

import numpy as np
import pytest

from .overlay import Overlay, Setting, member_bytes
from .overlay_mesh import DEGREE_HIGH, Mesh, Wire


def lived(setting: Setting) -> dict[str, object]:
    found = Overlay(setting).run().report()
    print(found)  # the seed is in it
    return found


def test_in_a_calm_swarm_every_heartbeat_reaches_nearly_everybody_within_a_second() -> None:
    found = lived(Setting(nodes=60, seconds=30, churn_per_second=0.0, seed=1))
    assert found["reached"] >= 0.9999
    assert found["reached_within_1_s"] >= 0.99
    assert found["living_not_listed"] == 0
    assert found["ghosts"] == found["heartbeats_without_room"] == 0


@pytest.mark.parametrize("seed", [2, 3])
def test_under_churn_and_loss_no_ghost_outlives_three_missed_heartbeats_and_the_living_are_listed(seed: int) -> None:
    found = lived(Setting(nodes=60, seconds=60, seed=seed))
    assert found["reached_within_1_s"] >= 0.95
    assert found["ghosts"] == 0
    assert found["dead_still_listed"] > 0, "deaths are only noticed by their silence: the run was no test"
    assert found["living_not_listed"] <= 0.01


@pytest.mark.parametrize("seed", [4, 5])
def test_after_a_partition_of_thirty_seconds_views_agree_within_three_heartbeats(seed: int) -> None:
    found = lived(Setting(nodes=20, seconds=54, churn_per_second=0, part_at=10, part_seconds=30, seed=seed))
    assert found["living_not_listed"] > 0, "the two halves never forgot each other: the run was no test"
    assert found["agreed_after_seconds"] is not None
    assert found["agreed_after_seconds"] <= 3 * found["interval_seconds"]


def test_the_same_seed_lives_the_same_life() -> None:
    setting = Setting(nodes=30, seconds=12, seed=9)
    assert lived(setting) == lived(setting)


def test_the_mesh_stays_within_its_degrees_and_forgets_the_dead() -> None:
    rng = np.random.default_rng(5)
    mesh, live = Mesh(80, rng, Wire()), np.ones(80, dtype=bool)
    for place in range(80):
        mesh.link(place, rng.permutation(80)[:20])
    np.fill_diagonal(mesh.linked, val=False)
    mesh.mend(live)
    assert 4 <= mesh.degrees(live).min() <= mesh.degrees(live).max() <= DEGREE_HIGH
    live[7] = False
    mesh.cut(7)
    mesh.mend(live)
    arrival = mesh.spread(3, 0.0, 500, live)
    assert not np.isfinite(arrival[7])
    assert np.isfinite(arrival[live]).all()


def test_an_entry_of_the_member_list_takes_less_than_two_kilobytes() -> None:
    assert member_bytes() < 2048


@pytest.mark.slow
def test_three_hundred_nodes_under_churn_and_loss() -> None:
    found = lived(Setting(nodes=300, seconds=100, seed=6))
    assert found["reached_within_1_s"] >= 0.95
    assert found["ghosts"] == 0
    assert found["living_not_listed"] <= 0.01
