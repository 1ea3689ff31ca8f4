"""dim peers and its verbs, as far as they go without a real node."""

import json
from typing import Any

import pytest
from fake_node import FakeNode, refusal

from dimnode.cli.peers import changes

PEER = "12D3KooWGPUQnQmDsuQjDpZs7LiwNdTJxVmm1NjfaGkQN2rU1f7X"


def row(name: str, **more: Any) -> dict[str, Any]:
    """What a node says of a linked peer."""
    return {
        "peer": PEER[:-4] + name,
        "name": name,
        "linked": True,
        "path": "direct",
        "why_not": "",
        "linked_seconds": 4000.0,
        "heard_seconds_ago": 0.5,
        "rtt_ms": 1.25,
        "clock_ahead_ms": 3.0,
        "agent": "dimnode/0.1.0",
        "models": ["triage:1"],
        "cabinets": {"ward": ["age"]},
        "slots": 10,
        "free_slots": 9,
        "sandbox": "landlock+seccomp+rlimits",
        **more,
    }


LOST = {"linked": False, "path": "-", "linked_seconds": None, "rtt_ms": None, "why_not": "it was silent for 2 s"}


def test_peers_are_shown_with_path_age_agent_and_offers(dim, tmp_path):
    with FakeNode(tmp_path, peers={"result": {"peers": [row("brio"), row("cara", path="relayed")]}}):
        said = dim("peers")
    assert said.code == 0
    head, brio, cara = said.out.splitlines()
    assert head.split()[:4] == ["name", "peer", "path", "rtt"]
    assert "why" not in head
    for word in ("direct", "1.2", "dimnode/0.1.0", "9/10", "complete", "67 min", "triage:1, data ward"):
        assert word in brio
    assert "relayed" in cara
    assert f"…{row('brio')['peer'][-12:]}" in brio, "as many letters as commands take"


@pytest.mark.parametrize(
    ("said", "shown"),
    [("seatbelt+rlimits", "complete"), ("landlock+rlimits+netns", "landlock+rlimits+netns"), ("none", "none")],
)
def test_a_peers_sandbox_is_judged_by_the_walls_of_its_own_system(dim, tmp_path, said, shown):
    with FakeNode(tmp_path, peers={"result": {"peers": [row("brio", sandbox=said)]}}):
        line = dim("peers").out.splitlines()[1]
    assert shown in line.split()


def test_who_has_no_link_is_shown_with_the_reason(dim, tmp_path):
    with FakeNode(tmp_path, peers={"result": {"peers": [row("brio"), row("cara", **LOST)]}}):
        said = dim("peers")
    assert "why no link" in said.out
    assert "no link" in said.out.splitlines()[2]
    assert said.out.splitlines()[2].endswith("it was silent for 2 s")


def test_a_clock_that_is_far_off_is_mentioned(dim, tmp_path):
    with FakeNode(tmp_path, peers={"result": {"peers": [row("brio", clock_ahead_ms=-5000.0)]}}):
        assert "the clock of brio is 5.0 s behind ours" in dim("peers").err


def test_block_allow_and_blocked_say_what_the_node_did(dim, tmp_path):
    entry = {"target": PEER, "kind": "peer", "reason": "spam\x1b[2J", "at_ms": 1_800_000_000_000, "source": "command"}
    lists = {"blocked": [entry], "allowed": [{**entry, "at_ms": None, "source": "settings", "reason": ""}]}
    answers = {
        "peers__block": {"result": {**entry, "closed": [PEER]}},
        "peers__allow": {"result": entry},
        "peers__blocked": {"result": lists},
    }
    with FakeNode(tmp_path, **answers) as node:
        said = dim("peers", "block", PEER, "--reason", "spam")
        assert (said.code, said.out.strip()) == (0, PEER)
        assert "1 connection closed" in said.err
        assert dim("peers", "--home", tmp_path, "allow", PEER).out.strip() == PEER
        shown = dim("peers", "blocked")
        told = dim("peers", "blocked", "--json")
    assert node.asked("peers.block")[0]["reason"] == "spam"
    assert node.asked("peers.allow")[0]["target"] == PEER
    assert "2027-01-15" in shown.out
    assert "\x1b" not in shown.out
    assert "everybody who is not on it is refused" in shown.err
    assert json.loads(told.out)["allowed"][0]["source"] == "settings"


def test_a_refused_block_is_told_like_every_other_error(dim, tmp_path):
    with FakeNode(tmp_path, peers__block=refusal("E-peers-03", "'x/' is neither a peer nor an address")):
        said = dim("peers", "block", "x/")
    assert (said.code, said.err.split(":")[0]) == (4, "error E-peers-03")


def test_json_carries_every_fact_of_every_peer(dim, tmp_path):
    with FakeNode(tmp_path, peers={"result": {"peers": [row("brio")]}}):
        assert json.loads(dim("peers", "--json").out) == {"peers": [row("brio")]}


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ([], [row("a")], ["linked"]),
        ([], [row("a", **LOST)], ["heard"]),
        ([row("a", **LOST)], [row("a")], ["linked"]),
        ([row("a")], [row("a", **LOST)], ["lost"]),
        ([row("a", path="relayed")], [row("a")], ["path"]),
        ([row("a"), row("b")], [row("b")], ["gone"]),
        ([row("a")], [row("a", rtt_ms=9.0, free_slots=0)], []),
    ],
)
def test_watching_tells_each_change_once(before, after, what):
    assert [word for word, _ in changes({one["peer"]: one for one in before}, after)] == what
