"""Blobs as a person uses them: two real nodes and `dim blobs …`."""

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cli_nodes import DIM, Nodes, dim, environment, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(tmp_path: Path):
    started = Nodes(tmp_path)
    yield started
    started.end_all()


def test_a_blob_is_added_fetched_kept_and_let_go(nodes: Nodes, tmp_path: Path) -> None:
    content = hashlib.shake_256(b"weights").digest(5 * 1024 * 1024 + 17)
    source = tmp_path / "weights.bin"
    source.write_bytes(content)
    first = nodes.start("first", "--no-execute")
    second = nodes.start("second", "--no-execute", "--bootstrap", first.address)

    added = first.dim("blobs", "add", source, "--share")
    assert added.code == 0, added.err
    blob = added.out.strip()
    assert blob.startswith("bafybei")
    assert first.dim("blobs", "add", source, "--json").json == {"blob": blob, "bytes": len(content)}

    out = tmp_path / "copy.bin"
    got = second.dim("blobs", "get", blob, "-o", out, "--from", "first")
    assert got.code == 0, got.err
    assert out.read_bytes() == content
    [row] = second.dim("blobs", "ls", "--json").json["blobs"]
    assert (row["blob"], row["bytes"], row["pins"]) == (blob, len(content), [])
    assert first.dim("blobs", "stat", "--json").json["served_bytes"] == len(content)
    assert second.dim("blobs", "verify", blob).code == 0

    assert second.dim("blobs", "pin", blob, "--reason", "demo", "--json").json["pins"] == ["demo"]
    assert second.dim("blobs", "gc", "--all", "--json").json["removed"] == []
    pinned = second.dim("blobs", "rm", blob)
    assert pinned.code == 4 and "E-store-36" in pinned.err
    assert second.dim("blobs", "unpin", blob, "--reason", "demo").code == 0
    assert second.dim("blobs", "gc", "--all", "--json").json["removed"] == [blob]

    private = tmp_path / "private.bin"
    private.write_bytes(b"for nobody")
    kept = first.dim("blobs", "add", private).out.strip()
    for name, code in (
        (kept, "E-p2p-61"),
        (blob.upper(), "E-p2p-65"),
        ("Qm" + "Y" * 44, "E-p2p-65"),
        ("../x", "E-p2p-65"),
    ):
        refused = second.dim("blobs", "get", name)
        assert refused.code == 4 and code in refused.err, refused.err
        assert "hint:" in refused.err
    link = tmp_path / "link"
    link.symlink_to(source)
    refused = first.dim("blobs", "add", link)
    assert refused.code == 4 and "E-store-32" in refused.err


def test_ctrl_c_stops_a_fetch_at_once(nodes: Nodes) -> None:
    alone = nodes.start("alone", "--no-execute")
    missing = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    asking = subprocess.Popen(
        [*DIM, "blobs", "get", missing, "--home", str(alone.home)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for(lambda: bool(alone.dim("blobs", "stat", "--json").json["fetching"]), "the fetch began")
    os.kill(asking.pid, signal.SIGINT)
    assert asking.stderr is not None
    assert "goes on where" in asking.stderr.read()
    assert asking.wait(10) == 130
    # Nobody waits any more: the node stopped it.
    wait_for(lambda: not alone.dim("blobs", "stat", "--json").json["fetching"], "the fetch ended")
    assert dim("blobs", "ls", "--home", alone.home).code == 0
