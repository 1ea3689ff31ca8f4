"""Real nodes as real processes, and `dim` as a person types it.

Rule: whatever happens in a test, every process started here is ended by its id.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.harness import NOISE, until

COMMAND_SECONDS_MAX = 90.0 * NOISE
STOP_SECONDS_MAX = 10.0 * NOISE
WAIT_SECONDS_MAX = 30.0 * NOISE
ANY_PORT = "/ip4/127.0.0.1/tcp/0"
DIM = [sys.executable, "-m", "dimnode.cli.main"]
ASSETS = Path(__file__).resolve().parents[2] / "dimnode" / "demo" / "assets"
PATIENTS = ASSETS / "wdbc.csv"
MODELS = ASSETS / "models"
NO_FEATURES = "patient,diagnosis,seen_in_training"


@dataclass(frozen=True, slots=True)
class Typed:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its document."""
        return json.loads(self.out)


def environment() -> dict[str, str]:
    """This process's, without settings of a node."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIM_")}
    return {**kept, "DIM_BENCHMARK": "false"}


def dim(*arguments: object, stdin: str = "") -> Typed:
    """Type a command and wait for its end."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(
        [*DIM, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        env=environment(),
        check=False,
    )
    return Typed(done.returncode, done.stdout, done.stderr)


@dataclass(slots=True)
class Started:
    """A node's process."""

    home: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)

    def dim(self, *arguments: object, stdin: str = "") -> Typed:
        """Type a command for this node."""
        return dim(*arguments, "--home", self.home, stdin=stdin)

    @property
    def address(self) -> str:
        """Where others reach it."""
        return str(self.ready["addresses"][0])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it by its id and wait; kill it when it does not listen. Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.returncode


class Nodes:
    """Starts nodes below a folder and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Started] = []

    def start(self, name: str, *more: object) -> Started:
        """A node that said it is ready."""
        node = self.launch(name, "--json", *more)
        assert node.process.stdout is not None
        line = node.process.stdout.readline()
        assert line, (node.home / "log").read_text()
        node.ready = json.loads(line)
        return node

    def launch(self, name: str, *more: object) -> Started:
        """A node's process; nobody waits for it."""
        home = self.folder / name
        home.mkdir(mode=0o700, exist_ok=True)
        words = ["up", "--home", home, "--name", name, "--listen", ANY_PORT, *more]
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [*DIM, *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
                start_new_session=True,  # a Ctrl-C at the tests is not one at the nodes
            )
        node = Started(home, process)
        self._started.append(node)
        return node

    def end_all(self) -> None:
        """Every one, newest first."""
        for node in reversed(self._started):
            node.end()


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Ask again until it holds; fails in the end."""
    until(holds, WAIT_SECONDS_MAX, what)
