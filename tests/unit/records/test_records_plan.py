"""How a spec unfolds: steps, tasks and what each step reads."""

from typing import Any

from dimnode.records.plan import local_take, replicas_per_step, sources_exist, step_of, step_sources, tasks_of


def spec(pattern: str, tasks: list[dict[str, Any]], inputs: int = 1, **more: Any) -> dict[str, Any]:
    """As much of a spec as a plan reads."""
    return {"pattern": pattern, "tasks": tasks, "inputs": [bytes(32)] * inputs, "tier": "signed", **more}


def test_a_step_of_tier_signed_is_one_task() -> None:
    chain = spec("chained", [{}, {}, {}])
    assert [step_of(chain, task) for task in range(3)] == [0, 1, 2]
    assert list(tasks_of(chain, 1)) == [1]


def test_a_spec_of_tier_quorum_without_a_quorum_unfolds_like_one_without_replicas() -> None:
    """Its schema allows it and R-SPEC refuses it; whoever only draws the receipt must not fail on it."""
    spec = {"tier": "quorum", "pattern": "chained", "inputs": [], "tasks": [{}, {}]}
    assert replicas_per_step(spec) == 1


def test_a_step_of_tier_quorum_has_room_for_two_rounds() -> None:
    chain = spec("chained", [{}, {}], tier="quorum", quorum={"n": 3, "k": 2})
    assert replicas_per_step(chain) == 6
    assert list(tasks_of(chain, 1)) == [6, 7, 8, 9, 10, 11]
    assert all(step_of(chain, task) == 1 for task in tasks_of(chain, 1))


def test_a_chain_reads_its_predecessor_and_parallel_steps_read_every_input() -> None:
    assert step_sources(spec("chained", [{}, {}], inputs=2), 0) == (0, 1)
    assert step_sources(spec("chained", [{}, {}], inputs=2), 1) == (2,)
    assert step_sources(spec("comparative", [{}, {}], inputs=2), 1) == (0, 1)


def test_a_declared_mapping_names_sources_and_positions() -> None:
    task = {"take": [["x", 3, "p", 0, 1], ["y", 0, "q", 0, -1], ["z", 3, "p", 1, 2]]}
    chain = spec("chained", [{}, {}, task], inputs=2)
    assert step_sources(chain, 2) == (0, 3)
    assert local_take(chain, 2) == (("x", 1, "p", 0, 1), ("y", 0, "q", 0, -1), ("z", 1, "p", 1, 2))


def test_a_step_may_not_read_itself_a_later_step_or_a_parallel_one() -> None:
    assert sources_exist(spec("chained", [{}, {"take": [["x", 1, "p", 0, -1]]}]))
    assert not sources_exist(spec("chained", [{"take": [["x", 1, "p", 0, -1]]}]))
    assert not sources_exist(spec("chained", [{"take": [["x", 2, "p", 0, -1]]}, {}]))
    assert not sources_exist(spec("comparative", [{}, {"take": [["x", 1, "p", 0, -1]]}]))
