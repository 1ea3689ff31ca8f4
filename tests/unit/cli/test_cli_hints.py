"""Hints for the node that was spoken to."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimnode.cli.arguments import build_parser
from dimnode.cli.hints import speak_for, with_home


@pytest.fixture(autouse=True)
def _a_home_on_the_command_line() -> Iterator[None]:
    speak_for(Path("my node"))
    yield
    speak_for(None)


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ("dim",)) -> Iterator[str]:
    """Every command that takes --home, as it is typed."""
    if "--home" in parser._option_string_actions:
        yield " ".join(words)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*words, name))


ABOUT_FILES = {"dim verify", "dim receipt show", "dim receipt redact", "dim demo"}


@pytest.mark.parametrize("command", sorted(set(commands(build_parser())) - ABOUT_FILES))
def test_every_command_about_a_node_gets_the_home_that_was_given(command: str) -> None:
    assert with_home(f"{command} FILE, or wait") == f"{command} --home 'my node' FILE, or wait"


@pytest.mark.parametrize(
    "text",
    [
        "`dim swarm invite` makes one",  # talked about
        "dim run --help",
        "dim status, then dim up --home /other/place"[12:],  # has one
        "there: dim swarm join dim1:… and then dim up",  # another machine
        "its publisher can: dim models grant m PEER, this node's peer id in dim status",
        "its operator can: dim models pull, or dim blobs pin CID --share",
        "ask its owner for the id (dim status there), and give it whole",
        "dim verify a.dimr",  # about a file
        "a dim model",
        "dim run: a model and its input are needed",
    ],
)
def test_a_command_that_needs_no_home_gets_none(text: str) -> None:
    assert with_home(text) == text


def test_each_command_of_a_hint_gets_it() -> None:
    assert with_home("dim stop, dim up") == "dim stop --home 'my node', dim up --home 'my node'"


def test_the_hint_about_broken_settings_names_the_home_whose_settings_are_broken(dim, tmp_path):
    home = tmp_path / "other"
    home.mkdir()
    (home / "config.toml").write_text("= broken")
    said = dim("up", "--home", home, "--json")
    hint = f"mend it there; dim init --home {home} --force writes a new one, without what you set"
    assert f"hint: {hint}" in said.err
    assert json.loads(said.out)["error"]["hint"] == hint
    (tmp_path / "config.toml").write_text("= broken")
    assert "; dim init --force writes" in dim("up").err


def test_a_line_of_talk_names_the_home_too(dim, tmp_path):
    dim("init", "--home", tmp_path / "b")
    assert f"the door opens with: dim up --home {tmp_path / 'b'}" in dim("keys", "new", "--home", tmp_path / "b").err
