"""A real node beside a daemon with Kubo's interface: what goes there, what comes from there, what goes wrong."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimnode.audit.verifier import verify
from dimnode.records.ids import TREE_PREFIX, blob_cid, cid_bytes, cid_text
from dimnode.records.kinds import open_record
from dimnode.records.manifest import Manifest
from dimnode.records.receipt import parse_receipt
from dimnode.records.unixfs import LEAF_BYTES, root_of
from tests.e2e.harness import MODEL, MODEL_FEATURES, Nodes, RealNode, real_nodes
from tests.fake_kubo import FakeKubo

pytestmark = pytest.mark.slow

LARGE = b"".join(bytes([number]) * LEAF_BYTES for number in range(5)) + b"end"


@pytest.fixture(scope="module")
def daemon() -> Iterator[FakeKubo]:
    with FakeKubo() as found:
        yield found


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, daemon: FakeKubo) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("kubo")
    (folder / "alba").mkdir(mode=0o700)
    (folder / "alba" / "config.toml").write_text(f'[kubo]\napi = "{daemon.api}"\n', encoding="utf-8")
    with real_nodes(folder, {"alba": True}) as found:
        found.offer("alba")
        yield found


@pytest.fixture
def alba(nodes: Nodes, daemon: FakeKubo) -> Iterator[RealNode]:
    yield nodes["alba"]
    daemon.fault = ""


def dim(node: RealNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command line, as typed."""
    command = [sys.executable, "-m", "dimnode.cli.main", *arguments, "--home", str(node.home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def said(node: RealNode, *arguments: str) -> dict:
    done = dim(node, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_goes_there_with_its_manifest_and_the_name_leads_to_it(alba: RealNode, daemon: FakeKubo) -> None:
    found = said(alba, "kubo", "push")
    assert not found["refused"], found
    [(key, value)] = daemon.names.items()
    assert found["name"] == f"/ipns/{key}"
    index = json.loads(daemon.blocks[value.removeprefix("/ipfs/")])
    [entry] = [entry for entry in index["models"] if entry["name"] == MODEL]
    manifest = Manifest.of(open_record(daemon.blocks[entry["envelope"]]))
    assert cid_text(manifest.id) == entry["manifest"]
    for file in manifest.files:
        assert len(daemon.whole(cid_text(file.root))) == file.size_bytes
        assert cid_text(file.root) in daemon.pins
    assert "everything was there already" in dim(alba, "kubo", "push").stderr


def test_a_receipt_goes_there_by_hand_at_once_and_without_inputs(alba: RealNode, daemon: FakeKubo) -> None:
    input_ = {"x": [[float(number) for number in range(MODEL_FEATURES)]]}
    job = {"tasks": [{"model": MODEL}], "input": input_}
    path = alba.home.parent / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    answered = said(alba, "job", "run", str(path))
    root = said(alba, "kubo", "push", answered["job"])["root"]
    receipt = daemon.whole(root)
    assert parse_receipt(receipt).blobs == {} and parse_receipt(receipt).openings == {}
    assert verify(receipt).status in (0, 3)  # authentic; what it spoke about is not in it
    private = {**job, "visibility": "participants"}
    path.write_text(json.dumps(private), encoding="utf-8")
    answered = said(alba, "job", "run", str(path))
    refused = dim(alba, "kubo", "push", answered["job"])
    assert refused.returncode == 4 and "E-kubo-11" in refused.stderr


def test_a_blob_that_no_peer_has_comes_from_there(alba: RealNode, daemon: FakeKubo, tmp_path: Path) -> None:
    root = daemon.draw(LARGE, LEAF_BYTES)
    assert root == cid_text(root_of(LARGE)) and cid_bytes(root).startswith(TREE_PREFIX)
    done = dim(alba, "blobs", "get", root, "--output", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").read_bytes() == LARGE


def test_status_and_doctor_say_how_it_stands(alba: RealNode, daemon: FakeKubo) -> None:
    assert "js-ipfs 0.18.1 at " in dim(alba, "kubo", "status").stdout
    assert "js-ipfs 0.18.1" in dim(alba, "status").stdout
    daemon.fault = "html"
    done = dim(alba, "kubo", "status")
    assert done.returncode == 1 and "E-kubo-04" in done.stderr
    [found] = [row for row in said_doctor(alba) if row["check"] == "kubo"]
    assert not found["ok"] and not found["stops"] and found["mend"]


def said_doctor(node: RealNode) -> list[dict]:
    return json.loads(dim(node, "doctor", "--json").stdout)["findings"]


@pytest.mark.parametrize("fault", ["lie", "cut", "slow:block/get", "endless", "redirect", "refuse"])
def test_whatever_is_wrong_with_it_the_store_stays_clean_and_the_node_goes_on(
    alba: RealNode, daemon: FakeKubo, fault: str
) -> None:
    content = f"nobody else has this {fault}".encode()
    root = daemon.put(content)
    daemon.fault = fault
    what = "block/stat" if fault in ("endless", "redirect", "refuse") else "block/get"
    before = daemon.asked.count(what)
    command = [sys.executable, "-m", "dimnode.cli.main", "blobs", "get", root, "--home", str(alba.home)]
    asking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        daemon.asked_for(what, before + 1)
        assert alba.client.status()["kubo"]["api"] == daemon.api
    finally:
        asking.terminate()
        asking.wait(60)
    assert root == cid_text(blob_cid(content))
    assert not (alba.home / "blobs" / root).exists()
    assert root not in [row["blob"] for row in said(alba, "blobs", "ls")["blobs"]]
