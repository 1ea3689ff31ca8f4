"""Real nodes on the machines of a laboratory: `dim up` inside a namespace, commands typed from outside.

Rule: a command reaches its node through the control socket, a file, so no packet of the test enters the laboratory.
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimnode.client import Client
from tests.e2e.cli_nodes import DIM, MODELS, PATIENTS, Typed, dim
from tests.netns.lab import Lab, Lan, Place

SECONDS_MAX = 90.0
ANYWHERE = "/ip4/0.0.0.0/tcp/4710"


@dataclass(slots=True)
class Machine:
    """A node in a place."""

    name: str
    place: Place
    home: Path
    process: subprocess.Popen[bytes]
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def peer(self) -> str:
        """Its peer id as text."""
        return str(self.ready["peer"])

    @property
    def address(self) -> str:
        """Where others dial it."""
        return str(self.ready["addresses"][0])

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.home / "log").read_text()

    def dim(self, *arguments: object, stdin: str = "") -> Typed:
        """Type a command for this node."""
        return dim(*arguments, "--home", self.home, stdin=stdin)

    def seen(self, other: "Machine") -> dict[str, Any] | None:
        """The other node's row in our `dim peers`."""
        with Client(self.home) as client:
            return next((row for row in client.peers() if row["peer"] == other.peer), None)

    def path_to(self, other: "Machine") -> str:
        """How we reach it: direct, reverse or relayed; "" without a link."""
        row = self.seen(other)
        return str(row["path"]) if row is not None and row["linked"] else ""

    def linked(self, other: "Machine") -> bool:
        """A link stands."""
        return self.path_to(other) != ""

    def offer_triage(self) -> None:
        """Offer a model."""
        done = self.dim("models", "add", MODELS / "triage.toml")
        assert done.code == 0, done.err

    def run_triage(self, executor: "Machine", rows: Path) -> Typed:
        """A job of ours, run by `executor` and nobody else."""
        return self.dim("run", "triage", rows, "--row", 1, "--peer", executor.peer, "--json", "--timeout", 60)


class Machines:
    """Starts nodes in a laboratory; they end with it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder

    def start(self, name: str, lan: Lan, *more: object, **settings: str) -> Machine:
        """A node on a new machine on `lan`, not yet ready. `settings` are DIM_ variables."""
        home = self.folder / name
        home.mkdir(mode=0o700, exist_ok=True)  # it may have joined a swarm already
        place = self.lab.place(lan)
        words = ["up", "--json", "--home", home, "--name", name, "--listen", ANYWHERE, *more]
        given = {"DIM_MDNS": "false", **settings}
        process = place.start([*DIM, *map(str, words)], log=home / "log", environment=given)
        return Machine(name, place, home, process)

    @staticmethod
    def wait_ready(*machines: Machine) -> None:
        """Until each has said that it is ready."""
        for machine in machines:

            def said(machine: Machine = machine) -> bool:
                assert machine.process.poll() is None, machine.log
                line = next((line for line in machine.log.splitlines() if line.startswith('{"peer"')), "")
                machine.ready = json.loads(line) if line else {}
                return bool(line)

            until(said, f"{machine.name} is ready", machine)


def until(holds: Callable[[], bool], what: str, *machines: Machine) -> None:
    """Ask again until it holds. Patient, because a loaded computer starts five nodes slowly; logs tell of a failure."""
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline, "\n".join([f"{what}: never", *(machine.log for machine in machines)])
        time.sleep(0.05)


def triage_rows(folder: Path) -> Path:
    """The ten measures that the model takes, of two patients."""
    path = folder / "rows.csv"
    lines = [line.split(",") for line in PATIENTS.read_text().splitlines()[:3]]
    path.write_text("\n".join(",".join(line[1:11]) for line in lines) + "\n")
    return path


__all__ = ["Machine", "Machines", "triage_rows", "until"]
