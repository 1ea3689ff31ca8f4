"""Real nodes for tests: processes in temporary homes, started, killed, stopped and restarted like anybody's.

Rule: a process is signalled by the id under which it was started here, and none is left behind, whatever a test does.
Waiting is always for a condition, with a deadline.
"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import SO_RCVTIMEO, SOL_SOCKET
from typing import Any

import psutil

from dimnode.client import Client, tensor_rows
from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map

NOISE = float(os.environ.get("DIM_TEST_NOISE", "4"))
"""How much slower than promised a loaded machine may be before a test complains."""
READY_SECONDS = 30.0 * NOISE
LINK_SECONDS = 15.0 * NOISE
JOB_SECONDS = 15.0 * NOISE
MODEL = "triage"
MODEL_FEATURES = 10
LISTEN = "/ip4/127.0.0.1/tcp/0"
_ANSWER_SECONDS = int(60 * NOISE)


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask again and again until it holds; its value. Fails when it did not hold `seconds` from now: a look that began
    before then and took long says nothing about that."""
    deadline = time.monotonic() + seconds
    while True:
        looked_at = time.monotonic()
        if found := holds():
            return found
        assert looked_at < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def bounded_client(home: Path) -> Client:
    """A client whose node may hang without hanging the test: then it raises `NoNode` after some minutes."""
    client = Client(home)
    client._line._socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", _ANSWER_SECONDS, 0))
    return client


class RealNode:
    """One node: a home that outlives its processes."""

    def __init__(self, name: str, home: Path, execute: bool = True) -> None:
        self.name, self.home, self.execute = name, home, execute
        self.peer = ""
        self.addresses: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None
        self._family: dict[int, psutil.Process] = {}

    # ---- life

    def launch(self, bootstrap: Sequence[str] = (), faults: str = "") -> None:
        """Start a process; `wait_ready` must follow."""
        assert not self.running
        self.drop_client()
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dimnode.cli.main", "up", "--json", "--home", str(self.home)]
        command += ["--name", self.name, "--listen", LISTEN]
        command += [] if self.execute else ["--no-execute"]
        for address in bootstrap:
            command += ["--bootstrap", address]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DIM_")}
        environment["DIM_BENCHMARK"] = "false"  # half a second of work that no test but its own is about
        if faults:
            environment["DIM_FAULTS"] = faults
        with self.log.open("ab") as log:
            # A process group of its own, so that a test can press Ctrl-C on it and on nobody else.
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
            )

    def wait_ready(self) -> "RealNode":
        """Read the ready line."""
        assert self.process is not None and self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        assert poll.poll(READY_SECONDS * 1000), f"{self.name} is not ready after {READY_SECONDS:g} s: {self.log_end()}"
        line = self.process.stdout.readline()
        assert line, f"{self.name} did not start: {self.log_end()}"
        ready = json.loads(line)
        assert "peer" in ready, f"{self.name} did not start: {ready}"
        self.peer, self.addresses = ready["peer"], ready["addresses"]
        self.family()
        return self

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self.process is not None
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """Its zygote and workers, those of earlier looks included."""
        if self.running:
            for child in psutil.Process(self.pid).children(recursive=True):
                self._family[child.pid] = child
        return [child for child in self._family.values() if _lives(child)]

    def signal(self, number: int) -> None:
        """Signal the node's process."""
        assert self.running and self.process is not None
        self.process.send_signal(number)

    def pause(self) -> None:
        """Stop it without ending it, as a suspended laptop does."""
        self.family()
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self.family()
        self.drop_client()
        if self.process is not None and self.running:
            self.process.kill()
            self.process.wait()

    def interrupt(self) -> float:
        """Ctrl-C for it and its workers; the seconds until it has ended."""
        self.family()
        self.drop_client()
        assert self.process is not None
        began = time.monotonic()
        os.killpg(self.pid, signal.SIGINT)
        self.process.wait(30.0 * NOISE)
        return time.monotonic() - began

    def wait_died(self) -> None:
        """Until its process has ended by itself."""
        until(lambda: not self.running, JOB_SECONDS, f"{self.name} ends")
        self.drop_client()

    def close(self) -> None:
        """Whatever happened, nothing of it runs afterwards."""
        self.drop_client()
        if self.process is not None and self.running:
            self.family()
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5.0 * NOISE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        deadline = time.monotonic() + 2.0 * NOISE
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for child in left:
            child.kill()

    # ---- what it says

    @property
    def client(self) -> Client:
        """A connection to its control socket."""
        if self._client is None:
            self._client = bounded_client(self.home)
        return self._client

    def drop_client(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def log(self) -> Path:
        """What it and its workers write to stderr, over all its lives."""
        return self.home.with_suffix(".log")

    def log_end(self) -> str:
        """The last lines, for the message of a failed assertion."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-4:]) if self.log.exists() else ""

    def rss_bytes(self) -> int:
        """Resident memory of the node itself."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def open_files(self) -> int:
        """File descriptors of the node itself."""
        return int(psutil.Process(self.pid).num_fds())

    def linked(self) -> set[str]:
        """Names of the peers it has a link to and has read the advert of."""
        return {row["name"] for row in self.client.peers() if row["linked"] and row["name"]}


class Nodes:
    """The nodes of one test module, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_name: dict[str, RealNode] = {}

    def __getitem__(self, name: str) -> RealNode:
        return self.by_name[name]

    def start(self, executes: Mapping[str, bool]) -> None:
        """Start these together; each knows the addresses of those that were there before."""
        known = self._addresses()
        first, *others = [RealNode(name, self.folder / name, execute) for name, execute in executes.items()]
        for node in (first, *others):
            self.by_name[node.name] = node
        if not known:
            first.launch()
            known = first.wait_ready().addresses
            fresh = others
        else:
            fresh = [first, *others]
        for node in fresh:
            node.launch(known)
        for node in fresh:
            node.wait_ready()

    def restart(self, *names: str, faults: str = "", linked: bool = True) -> None:
        """Start again who has ended, and wait until all nodes are `linked`."""
        known = self._addresses()
        for name in names:
            self[name].launch(known, faults)
        for name in names:
            self[name].wait_ready()
        if linked:
            self.wait_linked()

    def heal(self) -> None:
        """Whatever the last test left: everybody runs and is linked to everybody."""
        for node in self.by_name.values():
            if node.running:
                node.resume()
        self.restart(*[name for name, node in self.by_name.items() if not node.running])

    def wait_linked(self) -> None:
        """Until everybody that runs has a link to everybody else."""
        running = {name: node for name, node in self.by_name.items() if node.running}

        def all_linked() -> bool:
            return all(node.linked() >= running.keys() - {name} for name, node in running.items())

        until(all_linked, LINK_SECONDS, f"links among {', '.join(running)}")

    def offer(self, *names: str, model: str = MODEL) -> None:
        """The first one publishes a model of the demo, the others pull it; everybody hears of it."""
        card = read_model_card(model)
        self[names[0]].client.add_model(card_map(card), card.path)
        self.wait_offered(model, 1)
        for name in names[1:]:
            self[name].client.ask("models.pull", model=model)
        self.wait_offered(model, len(names))

    def wait_offered(self, model: str, count: int) -> None:
        """Until everybody knows of so many nodes that offer the model, itself included."""

        def offers(node: RealNode) -> int:
            rows = [row for row in node.client.models() if row["name"].split(":")[0] == model]
            return sum(len(row["peers"]) + row["here"] for row in rows)

        running = [node for node in self.by_name.values() if node.running]
        until(lambda: min(map(offers, running)) >= count, LINK_SECONDS, f"{count} offers of {model} heard by all")

    def wait_idle(self) -> None:
        """Until no job is open, no task is held, and no byte is held for one."""

        def idle(node: RealNode) -> bool:
            said = node.client.status()
            return not (said["jobs_open"] or said["tasks_held"] or said["held_entries"])

        running = [node for node in self.by_name.values() if node.running]
        until(lambda: all(map(idle, running)), JOB_SECONDS, "all nodes let go of everything")

    def close(self) -> None:
        """End all."""
        for node in self.by_name.values():
            node.close()

    def _addresses(self) -> list[str]:
        return [address for node in self.by_name.values() if node.running for address in node.addresses]


@contextmanager
def real_nodes(folder: Path, executes: Mapping[str, bool]) -> Iterator[Nodes]:
    """Nodes that run as long as the block, by name: whether each executes."""
    nodes = Nodes(folder)
    try:
        nodes.start(executes)
        nodes.wait_linked()
        yield nodes
    finally:
        nodes.close()


def triage(peer: str = "", **more: Any) -> dict[str, Any]:
    """A job of one task with the tiny model."""
    task = {"model": MODEL, "peer": peer} if peer else {"model": MODEL}
    return {"tasks": [task], **more}


def patient(number: int, rows: int = 1) -> bytes:
    """Input rows that are like no other number's."""
    return tensor_rows([[number + row / 1000 + column / 10 for column in range(MODEL_FEATURES)] for row in range(rows)])


def nonce_of(label: str, number: int) -> bytes:
    """16 bytes that name a submission."""
    return f"{label}{number:0{16 - len(label)}d}".encode()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
