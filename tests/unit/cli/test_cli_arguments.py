"""The tree of commands, and how errors leave it."""

import argparse
import json
from importlib import import_module
from types import SimpleNamespace

import pytest
from fake_node import FakeNode, refusal

from dimnode.cli.arguments import build_parser
from dimnode.cli.main import complain, exit_code, main
from dimnode.errors import ConfigError, NoNode, Refused, RunFailed


def leaves(parser, name="dim"):
    """Every command that does something, by name."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not found or parser.get_default("run"):
        yield name, parser
    for action in found:
        for word, inner in action.choices.items():
            yield from leaves(inner, f"{name} {word}")


LEAVES = dict(leaves(build_parser()))


@pytest.mark.parametrize(
    "words", [["status", "--js"], ["peers", "block", "x", "--rea", "y"], ["run", "m", "--prio", "1"]]
)
def test_flags_have_one_name_each_and_no_shorter_one(words, capsys):
    assert main(words) == 2
    assert "error E-cli-10: " in capsys.readouterr().err


def test_whoever_wants_json_gets_mistakes_in_the_arguments_as_json_too(capsys):
    assert main(["status", "--js", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E-cli-10"


def test_the_commands_are_those_that_the_documents_name():
    node = {"init", "up", "status", "peers", "doctor", "connect", "stop", "drain"}
    node |= {"peers block", "peers allow", "peers blocked"}
    node |= {f"swarm {verb}" for verb in ("new", "invite", "join", "members", "remove", "show", "leave")}
    offers = {"data add", "data ls", "data rm", "rep ls", "rep explain"}
    verbs = ("add", "ls", "show", "pull", "update", "verify", "withdraw", "rm", "grant", "revoke", "warm")
    offers |= {f"models {verb}" for verb in verbs}
    offers |= {f"blobs {verb}" for verb in ("add", "get", "ls", "pin", "unpin", "rm", "verify", "gc", "stat")}
    offers |= {"keys new", "keys ls", "keys revoke", "kubo status", "kubo push"}
    offers |= {"models load", "models bench"}
    jobs = {"run", "job validate", "job run", "job ls", "job show", "job events", "job result", "job cancel"}
    receipts = {"verify", "receipt show", "receipt redact"}
    assert set(LEAVES) == {f"dim {name}" for name in node | offers | jobs | receipts | {"demo"}}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_takes_home_and_json_and_has_its_function(name):
    parser = LEAVES[name]
    options = {option for action in parser._actions for option in action.option_strings}
    assert {"--home", "--json", "--help"} <= options
    room, _, function = parser.get_default("run").partition(":")
    assert callable(getattr(import_module(f"dimnode.cli.{room}"), function))


def test_help_shows_the_first_steps_and_the_exit_codes(dim, capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "dim demo" in said
    assert "5 no node running" in said


def test_the_version_is_printed(dim):
    assert dim("--version").out.startswith("dimnode 0.")


@pytest.mark.parametrize("typed", [["nonsense"], ["run"], ["job"], ["job", "show"], ["init", "--profile", "x"]])
def test_a_usage_mistake_is_two_lines_and_exit_code_2(dim, typed):
    said = dim(*typed)
    assert said.code == 2
    assert said.err.startswith("error E-cli-10: dim")
    assert said.err.splitlines()[-1].startswith("hint: dim")
    assert len(said.err.splitlines()) == 2


def test_a_slip_in_a_command_is_answered_with_the_one_that_is_meant(dim):
    assert dim("stats").err.splitlines() == [
        "error E-cli-10: dim: argument COMMAND: invalid choice: 'stats'; did you mean 'status'?",
        "hint: dim --help",
    ]
    assert "did you mean 'blocked'?" in dim("peers", "bloked").err
    assert "(choose from 'low', 'normal', 'high')" in dim("run", "m", "x.csv", "--priority", "urgent").err


def test_an_argument_that_a_command_does_not_know_is_the_commands_own_mistake(dim):
    ended = dim("blobs", "get", "bafk", "--frum", "x")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "error E-cli-10: dim blobs get: there is no argument --frum x",
        "hint: dim blobs get --help",
    ]


def test_each_family_of_errors_has_its_exit_code():
    codes = {ConfigError: 2, Refused: 4, NoNode: 5, RunFailed: 1}
    assert {kind: exit_code(kind("E-x-01", "what")) for kind in codes} == codes


def test_a_file_that_cannot_be_read_is_a_mistake_in_typing_whoever_looked():
    assert {exit_code(Refused(code, "what")) for code in ("E-store-32", "E-models-05", "E-cli-41")} == {2}


def test_an_error_is_at_most_three_lines(capsys):
    assert complain(Refused("E-x-01", "what", "why", "then")) == 4
    assert capsys.readouterr().err == "error E-x-01: what\ncause: why\nhint: then\n"


@pytest.mark.parametrize("typed", [["status"], ["peers"], ["stop"], ["job", "ls"], ["models", "ls"], ["rep", "ls"]])
def test_without_a_node_every_question_ends_with_5_and_the_next_command(dim, typed):
    said = dim(*typed)
    assert (said.code, said.out) == (5, "")
    assert said.err.splitlines()[0].startswith("error E-cli-01")
    assert "hint: dim up" in said.err


def test_an_error_with_json_is_a_document_too(dim):
    said = dim("status", "--json")
    assert '"code": "E-cli-01"' in said.out


def test_home_chooses_the_node(dim, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with FakeNode(other, job__ls={"result": {"jobs": []}}) as node:
        assert dim("job", "ls", "--home", other).code == 0
    assert len(node.requests) == 1


def test_a_refusal_of_the_node_is_shown_in_its_own_words(dim, tmp_path):
    with FakeNode(tmp_path, job__show=refusal("E-job-13", "no such job")):
        said = dim("job", "show", "xyz")
    assert (said.code, said.err) == (4, "error E-job-13: no such job\ncause: a cause\nhint: a hint\n")


def test_a_story_that_does_not_exist_yet_is_said_so(dim):
    assert dim("demo", "--story", "llm").code == 2


@pytest.mark.parametrize("words", [["doctor"], ["status", "--json"]])
def test_a_system_that_is_no_posix_is_refused_in_words(words, monkeypatch, capsys):
    monkeypatch.setattr("dimnode.cli.main.os", SimpleNamespace(name="nt"))
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "E-cli-08" in said
    assert "Traceback" not in said
