"""A private swarm as its people type it: three real nodes, a job, an outsider, a removal, a restart; and with a key."""

import json
import time
from typing import Any

import pytest
from cli_nodes import MODELS, PATIENTS, Nodes, Started, dim, wait_for

from dimnode.client import Client
from dimnode.records.ids import cid_bytes

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(tmp_path):
    started = Nodes(tmp_path)
    yield started
    started.end_all()


def founded(nodes: Nodes, *more: object) -> Started:
    """`dim swarm new`, then `dim up`."""
    home = nodes.folder / "anna"
    made = dim("swarm", "new", "clinic", *more, "--home", home, "--json")
    assert made.code == 0, made.err
    assert made.json["swarm"] == "clinic"
    node = nodes.start("anna", "--no-execute")
    assert node.ready["swarm"] == "clinic"
    return node


def joined(nodes: Nodes, name: str, text: str, *more: object) -> Started:
    """`dim swarm join`, then `dim up`: all that a second machine needs. `ready` waits for it."""
    said = dim("swarm", "join", "-", "--home", nodes.folder / name, "--json", stdin=text)
    assert said.code == 0, said.err
    assert said.json["standing"] == "member"
    return nodes.launch(name, "--json", *more)


def ready(*started: Started) -> None:
    """Until these are; they start side by side."""
    for node in started:
        assert node.process.stdout is not None
        line = node.process.stdout.readline()
        assert line, (node.home / "log").read_text()
        node.ready = json.loads(line)


def ask(node: Started, question: str) -> Any:
    """What the node answers to a client: a command line of its own for every look would take seconds."""
    with Client(node.home) as client:
        return client.ask(question)


def linked(node: Started) -> set[str]:
    """Names of the members that this node has a link with."""
    return {row["name"] for row in ask(node, "swarm.members")["members"] if row["linked"]}


def test_three_machines_found_invite_join_work_and_part(nodes, tmp_path):
    anna = founded(nodes)
    invited = anna.dim("swarm", "invite", "--uses", 2, "--json")
    text = invited.json["invitation"]
    assert text.startswith("dim1:")
    bea = joined(nodes, "bea", text)
    carl = joined(nodes, "carl", text, "--no-execute")
    ready(bea, carl)
    for node, others in ((anna, {"bea", "carl"}), (bea, {"anna", "carl"}), (carl, {"anna", "bea"})):
        wait_for(lambda node=node, others=others: linked(node) == others, "all members are linked")

    # A job within the swarm, with a receipt that names it.
    assert bea.dim("models", "add", MODELS / "triage.toml").code == 0
    wait_for(lambda: ask(carl, "models.ls")["models"], "carl hears of bea's model")
    rows, receipt = tmp_path / "rows.csv", tmp_path / "run.dimr"
    lines = [line.split(",") for line in PATIENTS.read_text().splitlines()]
    rows.write_text("\n".join(",".join(line[1:11]) for line in lines[:3]) + "\n")
    ran = carl.dim("run", "triage", rows, "--receipt", receipt, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["status"] == "ok"
    assert dim("verify", receipt).code == 0
    assert cid_bytes(ask(carl, "swarm.show")["net"]) in receipt.read_bytes()

    # An outsider who knows an address gets nothing, and hears why.
    zeno = nodes.launch("zeno", "--json", "--no-execute", "--bootstrap", anna.address)
    late = joined(nodes, "late", text, "--no-execute")  # used up is not written on the invitation: members know
    ready(zeno, late)
    assert zeno.ready["swarm"] == "open"
    wait_for(lambda: ask(zeno, "swarm.show")["turned_away_by"], "zeno hears why")
    assert "E-swarm-10" in zeno.dim("swarm", "show").err
    turned_away = zeno.dim("connect", anna.address)
    assert (turned_away.code, "E-swarm-10" in turned_away.err) == (4, True), turned_away.err
    met = ("peers_linked", "peers_known", "dht_peers")  # while it is being turned away, it may count for a moment
    wait_for(lambda: not any(seen for name, seen in ask(zeno, "status").items() if name in met), "zeno knows nobody")
    assert ask(zeno, "peers")["peers"] == []
    wait_for(lambda: "E-swarm-14" in str(ask(late, "swarm.show")["turned_away_by"]), "the third machine is told")

    # One is removed: cut off within seconds, the others go on, and nobody forgets.
    said = anna.dim("swarm", "remove", "carl", "--reason", "left", "--json")
    removed_at = time.monotonic()
    assert said.json["peers"] == [carl.ready["peer"]]
    wait_for(lambda: (linked(anna), linked(bea)) == ({"bea"}, {"anna"}), "carl is cut off, the others go on")
    assert time.monotonic() - removed_at < 20  # seconds, not minutes
    wait_for(lambda: "E-swarm-12" in ask(carl, "swarm.show")["standing"], "carl hears why")
    wait_for(lambda: not any(row["linked"] for row in ask(carl, "peers")["peers"]), "carl has no link left")
    assert "✗ membership" in (doctor := carl.dim("doctor").out)
    assert "E-swarm-12" in doctor
    bea.end()
    bea = nodes.start("bea")
    wait_for(lambda: linked(bea) == {"anna"}, "bea comes back")
    assert carl.ready["peer"] in [row["id"] for row in ask(bea, "swarm.show")["removed"]]
    tried = carl.dim("connect", bea.address)
    assert (tried.code, "E-swarm-12" in tried.err) == (4, True), tried.err

    # What only a stopped node may do, and leaving.
    assert "E-swarm-22" in carl.dim("swarm", "leave").err
    carl.end()
    assert carl.dim("swarm", "leave", "--json").json["left"] == "clinic"
    assert carl.dim("swarm", "show", "--json").json["swarm"] == "open"
    assert (carl.home / "left" / "clinic-1" / "journal.db").exists()


def test_with_a_pre_shared_key_members_meet_and_a_removal_rotates_it(nodes):
    anna = founded(nodes, "--psk")
    bea = joined(nodes, "bea", anna.dim("swarm", "invite", "--json").json["invitation"], "--no-execute")
    ready(bea)
    wait_for(lambda: linked(bea) == {"anna"}, "bea is linked")
    removed = anna.dim("swarm", "remove", "bea", "--json").json
    assert removed["key_rotated"] is True
    wait_for(lambda: linked(bea) == set(), "bea is cut off")
    assert (ask(anna, "swarm.show")["pre_shared_keys"], ask(bea, "swarm.show")["pre_shared_keys"]) == (2, 1)
