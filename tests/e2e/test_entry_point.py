"""The entry point of bootstrap/: started as its service unit starts it, it executes nothing and lets others in."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from dimnode.client import Client
from dimnode.config import load_config
from dimnode.errors import NoNode
from tests.e2e.harness import LINK_SECONDS, READY_SECONDS, RealNode, bounded_client, until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "bootstrap" / "dimnode-bootstrap.service"


def unit() -> ConfigParser:
    """The unit's sections; keys keep their case."""
    parser = ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_starts_a_node_that_executes_nothing_and_stops_it_in_good_order() -> None:
    service = unit()["Service"]
    assert shlex.split(service["ExecStart"])[1:] == ["up", "--profile", "prod", "--no-execute"]
    assert service["Environment"] == "DIM_HOME=/var/lib/dimnode"
    assert service["StateDirectory"] == "dimnode"
    assert (service["KillSignal"], service["RestartPreventExitStatus"]) == ("SIGTERM", "2")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/dimnode/bin/dim", sys.executable)  # what is named has to exist
    (tmp_path / UNIT.name).write_text(text.replace("User=dimnode", f"User={os.getuid()}"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr + done.stdout) == (0, "")


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[Client]:
    """A process as the unit starts it, but for its home and its address: it listens on this machine alone."""
    home = tmp_path / "entry"
    home.mkdir(mode=0o700)
    words = shlex.split(unit()["Service"]["ExecStart"])[1:]
    settings = {"DIM_HOME": str(home), "DIM_LISTEN": "/ip4/127.0.0.1/tcp/0"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIM_")} | settings
    command = [sys.executable, "-m", "dimnode.cli.main", *words]
    with (tmp_path / "entry.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        yield until(lambda: _client(home, process), READY_SECONDS, "the entry point is up")
        process.send_signal(signal.SIGTERM)
        assert process.wait(float(unit()["Service"]["TimeoutStopSec"])) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _client(home: Path, process: subprocess.Popen[bytes]) -> Client | None:
    assert process.poll() is None, (home.parent / "entry.log").read_text()
    try:
        return bounded_client(home)
    except NoNode:
        return None


@pytest.mark.slow
def test_a_node_joins_through_an_entry_point_that_serves_dht_and_gossip_and_runs_nothing(
    tmp_path: Path, entry: Client
) -> None:
    alba = RealNode("alba", tmp_path / "alba", execute=False)
    try:
        alba.launch(entry.status()["addresses"])
        alba.wait_ready()
        (row,) = until(
            lambda: [row for row in alba.client.peers() if row["linked"] and row["agent"]], LINK_SECONDS, "met"
        )
        assert (row["peer"], row["slots"], row["path"]) == (entry.status()["peer"], 0, "direct")
        until(lambda: entry.status()["dht_peers"] == 1, LINK_SECONDS, "it takes part in the DHT")
        until(lambda: {row["check"]: row["ok"] for row in entry.doctor()}["swarm"], LINK_SECONDS, "and in gossip")
        found = {row["check"]: row for row in entry.doctor()}
        assert found["peers"]["detail"].startswith("1 linked (1 reverse)")
        assert (found["sandbox"]["detail"], entry.status()["workers"]) == ("this node executes nothing", 0)
    finally:
        alba.close()


def test_an_entry_point_relays_for_peers_that_cannot_be_dialled_once_it_was_seen_to_be_dialable(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"profile": "prod", "execute": False}).relay == "auto"
