"""Names of peers: the operator's own list goes before what peers call themselves."""

import json
from pathlib import Path

import pytest
from fake_node import FakeNode, refusal

from dimnode.records.ids import peer_of_key, peer_text

ALBA, BRIO = (peer_text(peer_of_key(letter * 32)) for letter in (b"a", b"b"))


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    path = tmp_path / "peers.toml"
    path.write_text(f'[peers]\nalba = "{ALBA}"\n')
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([[1.0]]))
    return path


def test_a_name_of_the_list_is_an_id_before_the_node_hears_of_it(dim, tmp_path, trust, rows):
    nobody = refusal("E-jobs-04", "nobody")
    known = {"result": {"inputs": [], "withdrawn": None}}
    with FakeNode(tmp_path, models__ls={"result": {"models": []}}, models__show=known, job__validate=nobody) as node:
        dim("run", "triage", rows, "--peer", "alba", "--trust", trust)
        dim("run", "triage", rows, "--peer", "brio", "--trust", trust)
        dim("run", "triage", rows, "--peer", "alba")
    asked = [request["job"]["tasks"][0]["peer"] for request in node.asked("job.validate")]
    assert asked == [ALBA, "brio", "alba"]


def test_the_names_of_a_job_file_are_looked_up_in_the_list_too(dim, tmp_path, trust):
    job = tmp_path / "job.yaml"
    job.write_text("tasks: [{model: m, peer: alba}, {model: m, peer: cara}, {model: m}]\ninput: {x: [[1]]}\n")
    with FakeNode(tmp_path, job__validate=refusal("E-jobs-04", "nobody")) as node:
        dim("job", "validate", job, "--trust", trust)
    [request] = node.asked("job.validate")
    assert [task.get("peer") for task in request["job"]["tasks"]] == [ALBA, "cara", None]


def test_a_list_that_gives_two_peers_one_name_is_refused(dim, tmp_path, trust):
    trust.write_text(f'[peers]\nalba = "{ALBA}"\nalba = "{BRIO}"\n')
    with FakeNode(tmp_path) as node:
        said = dim("rep", "explain", "alba", "--trust", trust)
    assert said.code == 2
    assert said.err.startswith("error E-verify-02")
    assert not node.requests


def test_names_outside_the_table_of_peers_are_refused_and_not_passed_over(dim, tmp_path, trust):
    trust.write_text(f'alba = "{ALBA}"\n')
    with FakeNode(tmp_path):
        said = dim("rep", "explain", "alba", "--trust", trust)
    assert said.code == 2
    assert "there is no table [peers]" in said.err
