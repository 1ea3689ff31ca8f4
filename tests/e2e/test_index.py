"""A publisher's index among real nodes: found while its publisher is away, by who never heard it speak of a model."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dimnode.client import Client
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.errors import DimError
from tests.e2e.harness import LINK_SECONDS, MODEL, Nodes, real_nodes, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Who executes nothing names no models in its advert: they are in its index alone."""
    with real_nodes(tmp_path_factory.mktemp("index"), {"alba": False, "brio": False}) as started:
        yield started


def publish(client: Client, name: str) -> str:
    card = read_model_card(MODEL)
    return str(client.add_model({**card_map(card), "name": name}, card.path)["model"])


def index_of(nodes: Nodes, who: str) -> dict[str, Any]:
    return dict(nodes[who].client.status()["index"] or {"kept_by": 0, "root": None})


def listed(nodes: Nodes, who: str, publisher: str) -> dict[str, Any]:
    return dict(nodes[who].client.ask("models.ls", publisher=publisher))


def code_of(nodes: Nodes, who: str, op: str, **arguments: Any) -> str:
    with pytest.raises(DimError) as caught:
        nodes[who].client.ask(op, **arguments)
    return caught.value.complaint.code


def test_what_a_publisher_published_is_found_while_it_is_away_and_its_withdrawals_count(nodes: Nodes) -> None:
    alba = nodes["alba"].client
    assert code_of(nodes, "brio", "models.ls", publisher=nodes["alba"].peer) == "E-models-42"
    assert code_of(nodes, "brio", "models.ls", publisher="nobody") == "E-models-41"
    assert alba.status()["index"] is None
    kept, gone = publish(alba, "atlas"), publish(alba, "mistake")
    publisher = nodes["alba"].peer

    def brio_lists(*names: str) -> bool:
        try:
            found = listed(nodes, "brio", "alba")
        except DimError:
            return False
        own = index_of(nodes, "alba")
        same = (found["index"] or {}).get("root") == own["root"] and own["kept_by"] == 1
        return same and [row["name"] for row in found["models"]] == [f"{name}:1.0.0" for name in names]

    until(lambda: brio_lists("atlas", "mistake"), LINK_SECONDS, "brio keeps the index of alba")
    first = index_of(nodes, "alba")["root"]
    alba.ask("models.withdraw", model=gone, reason="wrong labels")
    until(lambda: index_of(nodes, "alba")["root"] != first, LINK_SECONDS, "alba says so in its index")
    until(lambda: brio_lists("atlas"), LINK_SECONDS, "brio keeps the index without what was withdrawn")
    assert nodes["brio"].client.ask("models.show", model=gone)["withdrawn"] == "wrong labels"
    before = index_of(nodes, "alba")
    nodes["alba"].kill()
    nodes.start({"cato": False})
    until(lambda: "brio" in nodes["cato"].linked(), LINK_SECONDS, "cato and brio are linked")
    assert nodes["cato"].client.models() == [], "nobody who is here offers anything"
    assert nodes["cato"].client.ask("models.show", model=f"{publisher}/atlas:1.0.0")["model"] == kept
    found = listed(nodes, "cato", publisher[-12:])
    assert [row["model"] for row in found["models"]] == [kept]
    assert (found["publisher"], found["problem"]) == (publisher, None)
    assert {key: found["index"][key] for key in ("root", "sequence")} == {
        key: before[key] for key in ("root", "sequence")
    }
    for name in (f"{publisher}/mistake", f"{publisher}/nothing", "zzzzzzzz/atlas"):
        assert code_of(nodes, "cato", "models.show", model=name) == "E-models-01"


def test_after_a_kill_the_publishers_disk_goes_on_counting(nodes: Nodes) -> None:
    before = listed(nodes, "cato", nodes["alba"].peer)["index"]
    nodes.restart("alba", linked=False)
    publish(nodes["alba"].client, "borealis")

    def told() -> dict[str, Any]:
        own = index_of(nodes, "alba")  # the one of before the kill goes round again first
        return own if own["kept_by"] == 2 and own["root"] != before["root"] else {}

    assert until(told, LINK_SECONDS, "both keep the new one")["sequence"] > before["sequence"]


def test_the_command_line_lists_what_one_publisher_publishes(nodes: Nodes) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dimnode.cli.main", "models", "ls", "--home", str(nodes["brio"].home)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)

    until(lambda: "alba" in nodes["brio"].linked(), LINK_SECONDS, "brio knows again who calls itself so")
    told = run("--publisher", "alba")
    assert told.returncode == 0
    assert "borealis:1.0.0" in told.stdout
    said = json.loads(run("--publisher", "alba", "--json").stdout)
    assert {row["name"] for row in said["models"]} == {"atlas:1.0.0", "borealis:1.0.0"}
    assert (said["publisher"], said["index"]["left_out"]) == (nodes["alba"].peer, 0)
    with pytest.raises(DimError) as by_name:  # a name is anybody's
        nodes["brio"].client.ask("models.show", model="alba/atlas")
    assert "what a peer calls itself" in by_name.value.complaint.cause
    assert by_name.value.complaint.hint == f"dim models ls --publisher {nodes['alba'].peer}"
    unknown = run("--publisher", "nobody")
    assert (unknown.returncode, "E-models-41" in unknown.stderr) == (4, True)
