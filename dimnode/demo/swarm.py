"""Five real nodes on this machine: five processes, libp2p over loopback, one bootstrap address.

Rule: whatever happens, no process is left behind; only processes started here are ever signalled, by their id.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dimnode.client import Client
from dimnode.errors import ConfigError, DimError
from dimnode.posix.processes import GO_ON
from dimnode.records.ids import peer_text
from dimnode.store.home import load_key, locked

JOIN_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 3.0
MARKER: Final = ".dimnode-demo"
RECEIPTS: Final = "receipts"
RECEIPTS_BEFORE: Final = "receipts.before"
LISTEN: Final = "/ip4/127.0.0.1/tcp/0"


@dataclass(slots=True)
class Member:
    """One node of the demo."""

    name: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    peer: str = ""
    addresses: list[str] = field(default_factory=list)
    listen: str = LISTEN
    _client: Client | None = None

    @property
    def client(self) -> Client:
        """A connection to this node's control socket."""
        if self._client is None:
            self._client = Client(self.home)
        return self._client

    def choose_address(self) -> str:
        """Make the node's key and choose its port before it starts, so that all can start at once. Its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"
        return f"{self.listen}/p2p/{peer_text(load_key(self.home).peer)}"

    def launch(self, bootstrap: str, faults: str = "") -> None:
        """Start the process; `wait_ready` must follow. `faults`: how it misbehaves (node.faults)."""
        command = [sys.executable, "-m", "dimnode.cli.main", "up", "--json", "--home", str(self.home)]
        command += ["--name", self.name, "--listen", self.listen]
        if bootstrap:
            command += ["--bootstrap", bootstrap]
        environment = os.environ | ({"DIM_FAULTS": faults} if faults else {})
        with (self.home / "node.log").open("ab") as log:
            # A process group of its own: Ctrl-C reaches the story, and the story ends its nodes in order.
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, start_new_session=True, env=environment
            )

    def wait_ready(self) -> None:
        """Read the ready line. Raises `ConfigError` with the log's end when the node did not start."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = (self.home / "node.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise ConfigError("E-demo-10", f"node {self.name} did not start", " | ".join(tail), "dim doctor")
        ready = json.loads(line)
        if "error" in ready:
            said = ready["error"]
            raise ConfigError(said["code"], f"node {self.name}: {said['what']}", said["cause"], said["hint"])
        self.peer, self.addresses = ready["peer"], ready["addresses"]

    def send_signal(self, number: int) -> None:
        """Signal this node's process, by its id."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.drop_client()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ask it to end."""
        self.drop_client()
        self.send_signal(GO_ON)
        self.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait for the end; kill when it takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def drop_client(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None


class Swarm:
    """The five, by name."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        self.folder = folder
        self.members = {name: Member(name, folder / "nodes" / name) for name in names}
        self.first = next(iter(self.members))

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def name_of(self, peer: str) -> str:
        """The name behind a peer id, as this machine's operator knows it."""
        return next((member.name for member in self.members.values() if member.peer == peer), peer[-8:])

    def start(self) -> float:
        """Start all; the first one is the bootstrap node. Returns the seconds from start to all joined."""
        began = time.monotonic()
        first = self[self.first]
        entry = first.choose_address()
        for member in self.members.values():
            member.launch("" if member is first else entry)
        for member in self.members.values():
            member.wait_ready()
        self.wait_joined()
        return time.monotonic() - began

    def wait_joined(self) -> None:
        """Until every node that runs has a link to every other and knows its name."""
        running = [member for member in self.members.values() if member.process and member.process.poll() is None]
        self.wait_for(lambda: min(map(self._linked, running)) >= len(running) - 1, "the swarm did not form")

    def wait_offered(self, asker: str, wanted: Mapping[str, int]) -> None:
        """Until `asker` knows at least so many peers (itself included) for each model name."""

        def offered() -> bool:
            rows = self[asker].client.models()
            found = {row["name"].split(":")[0]: len(row["peers"]) + row["here"] for row in rows}
            return all(found.get(name, 0) >= count for name, count in wanted.items())

        self.wait_for(offered, f"{asker} has not heard of {dict(wanted)}")

    def wait_for(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Ask again until it holds. Raises `ConfigError` after `JOIN_SECONDS_MAX`."""
        deadline = time.monotonic() + JOIN_SECONDS_MAX
        while not holds():
            if time.monotonic() > deadline:
                raise ConfigError("E-demo-11", otherwise, "", f"see the logs below {self.folder}/nodes")
            time.sleep(0.05)

    def _linked(self, member: Member) -> int:
        rows: list[dict[str, Any]] = member.client.peers()
        return sum(1 for row in rows if row["linked"] and row["name"])

    def stop(self) -> None:
        """End all, together."""
        for member in self.members.values():
            member.stop()
        for member in self.members.values():
            member.wait_stopped()


@contextmanager
def running_swarm(folder: Path, names: Mapping[str, str]) -> Iterator[Swarm]:
    """Fresh homes under `folder`/nodes, and the swarm's processes gone afterwards."""
    prepare(folder, names)
    swarm = Swarm(folder, names)
    try:
        yield swarm
    finally:
        swarm.stop()


def prepare(folder: Path, names: Mapping[str, str]) -> None:
    """Remove what an earlier demo left, and nothing else; its receipts stay aside until `settle`.

    What stands aside already is of the last story that held: then the receipts here are of one that did not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / MARKER).exists():
        raise ConfigError(
            "E-demo-13", f"{folder} is not a folder of the demo", "it holds other files", "--folder OTHER"
        )
    (folder / MARKER).touch()
    for name in names:  # a swarm that still runs here must not lose its homes under its feet
        home = folder / "nodes" / name
        if home.exists():
            with locked(home):
                pass
    shutil.rmtree(folder / "nodes", ignore_errors=True)
    if (folder / RECEIPTS).exists() and not (folder / RECEIPTS_BEFORE).exists():
        (folder / RECEIPTS).rename(folder / RECEIPTS_BEFORE)
    shutil.rmtree(folder / RECEIPTS, ignore_errors=True)
    (folder / RECEIPTS).mkdir()
    for name in names:
        os.makedirs(folder / "nodes" / name, mode=0o700)


def settle(folder: Path) -> None:
    """The story held: its receipts take the place of those before."""
    shutil.rmtree(folder / RECEIPTS_BEFORE, ignore_errors=True)


def kept_before(folder: Path) -> Path | None:
    """Where the receipts of the last story that held are, when this one did not."""
    found = folder / RECEIPTS_BEFORE
    return found if found.is_dir() and any(found.iterdir()) else None


def complain(error: DimError) -> str:
    """An error in one line."""
    return "; ".join(error.complaint.lines())
