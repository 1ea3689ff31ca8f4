"""Keys of the HTTP door from the command line."""

import json

import pytest
from fake_node import FakeNode, refusal


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_key_is_shown_though_the_door_of_the_running_node_stays_shut(dim, tmp_path, flags):
    with FakeNode(tmp_path, http__open=refusal("E-http-20", "cannot listen there", exit_code=2)):
        said = dim("keys", "new", "--name", "notebook", *flags)
    assert said.code == 1
    key = json.loads(said.out)["key"] if flags else said.out.strip()
    assert key.startswith("dim_")
    assert "error E-http-20: cannot listen there" in said.err
    [row] = json.loads(dim("keys", "ls", "--json").out)["keys"]
    assert (row["id"], row["valid"]) == (key.split("_")[1], True)


def test_a_key_made_while_no_node_runs_opens_the_door_with_the_next_start(dim):
    said = dim("keys", "new")
    assert said.code == 0 and "the door opens with: dim up" in said.err
