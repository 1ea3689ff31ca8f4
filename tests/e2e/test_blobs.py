"""Blobs as a person uses them: two real nodes and `dim blobs …`."""

import fcntl
import hashlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from cli_nodes import DIM, STOP_SECONDS_MAX, WAIT_SECONDS_MAX, Nodes, Started, dim, environment, wait_for

from dimnode.client import Client
from dimnode.exec.runtimes.onnx import IDENTITY

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
    assert first.dim("blobs", "add", source, "--json").json == {"blob": blob, "bytes": len(content), "shared": True}

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
    assert refused.code == 2 and "E-store-32" in refused.err


def test_ctrl_c_stops_a_fetch_at_once(nodes: Nodes) -> None:
    alone = nodes.start("alone", "--no-execute")
    missing = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    asking = subprocess.Popen(
        [*DIM, "blobs", "get", missing, "--home", str(alone.home)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with Client(alone.home) as client:  # no command for each look: nobody has it, and the fetch gives up in the end
        wait_for(lambda: bool(client.ask("blobs.stat")["fetching"]), "the fetch began")
    os.kill(asking.pid, signal.SIGINT)
    assert asking.stderr is not None
    assert "goes on where" in asking.stderr.read()
    assert asking.wait(STOP_SECONDS_MAX) == 130
    # Nobody waits any more: the node stopped it.
    wait_for(lambda: not alone.dim("blobs", "stat", "--json").json["fetching"], "the fetch ended")
    assert dim("blobs", "ls", "--home", alone.home).code == 0


LARGE_BYTES = 320 << 20
IN_FLIGHT_BYTES = 16 << 20
"""Leaves that were asked for when a fetch stopped: they are asked for again."""
DRAWN = re.compile(r"\d+(?:\.\d)?/320\.0 MiB +\d+(?:\.\d)? [kMG]B/s +0:00:\d\d")
"""How far it is, the rate, the time left."""


def interrupted(node: Started, *words: object) -> str:
    """Type a command on a terminal of its own and press Ctrl-C once a bar is drawn with a rate; what was drawn."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    its_own = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
    typing = subprocess.Popen(
        [sys.executable, "-c", its_own, *DIM, *map(str, words), "--home", str(node.home)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment() | {"TERM": "xterm"},
    )
    os.close(theirs)
    drawn, pressed = "", False
    try:
        while select.select([ours], [], [], WAIT_SECONDS_MAX)[0]:
            try:
                drawn += os.read(ours, 65536).decode()
            except OSError:  # EIO: nobody has the other end any more
                break
            if not pressed and DRAWN.search(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)):
                pressed = os.write(ours, b"\x03") == 1
        assert typing.wait(STOP_SECONDS_MAX) == 130, drawn[-500:]
    finally:
        typing.kill()
        typing.wait()
        os.close(ours)
    return drawn


def test_ctrl_c_in_the_middle_costs_nothing_that_came(nodes: Nodes, tmp_path: Path) -> None:
    first = nodes.start("first")
    second = nodes.start("second", "--bootstrap", first.address)
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(IDENTITY)
    for number, place in enumerate((tmp_path / "blob.bin", folder / "z.table")):
        with place.open("wb") as file:
            file.write(bytes([number + 1]))
            file.truncate(LARGE_BYTES)
    blob = first.dim("blobs", "add", tmp_path / "blob.bin", "--share").out.strip()
    added = first.dim("models", "add", folder)
    assert added.code == 0, added.err
    wait_for(lambda: "large" in second.dim("models", "ls").out, "the model is heard of")
    out = tmp_path / "out.bin"
    get = ("blobs", "get", blob, "-o", out, "--from", "first")
    pull = ("models", "pull", "large")
    for words in (get, pull):
        served = first.dim("blobs", "stat", "--json").json["served_bytes"]
        drawn = interrupted(second, *words)
        assert "goes on where" in drawn
        wait_for(lambda: not second.dim("blobs", "stat", "--json").json["fetching"], "the node stopped the fetch")
        stat = second.dim("blobs", "stat", "--json").json
        assert stat["parts"] == 1 and stat["part_bytes"] > 0
        assert not out.exists() or words is pull
        whole = [row for row in second.dim("blobs", "ls", "--json").json["blobs"] if row["bytes"] == LARGE_BYTES]
        assert len(whole) == (words is pull)
        done = second.dim(*words)
        assert done.code == 0, done.err
        both = first.dim("blobs", "stat", "--json").json["served_bytes"] - served
        assert LARGE_BYTES <= both <= LARGE_BYTES + IN_FLIGHT_BYTES
        assert second.dim("blobs", "stat", "--json").json["parts"] == 0
    assert out.stat().st_size == LARGE_BYTES
    assert second.dim("models", "verify", "large").code == 0
    assert not list(tmp_path.glob("*.part"))
