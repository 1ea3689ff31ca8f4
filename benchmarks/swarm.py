"""Twenty real nodes on one machine: how they find each other, and how fast their heartbeats arrive.

    python -m benchmarks.swarm [--nodes 20] [--beats 6] [--json]            (make scale)

Every node is a process of its own with its home, journal, host, links, discovery and gossip (`dim up --no-execute`),
and knows the address of the first one. The processes are forked from one that has imported the program and begin at the
same moment: all of them listen, dial and look themselves up at once. A probe in each process writes down when a link
came, when a heartbeat was heard and how many bytes passed through the sessions; it changes nothing.

    converged   seconds until a node has a link to, and has read the advert of, every other node: from the moment all
                listen (the aim), and from the start; CPU seconds of all nodes together in the former time
    latency     from the signing of a heartbeat to its arrival at another node, at the interval of the formula; "within
                1 s" counts every pair of a heartbeat and a node that lived meanwhile, so what never arrived counts too
    late one    one more node joins the settled swarm: from its start, until it is linked with all
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

import dimnode.node.node as node_module
from dimnode.node.starting import run_node as run_a_node
from dimnode.node.swarm import Swarm
from dimnode.p2p.gossip import HEARTBEAT_TOPIC, read_gossip
from dimnode.p2p.host.noise_session import NoiseSession
from dimnode.p2p.membership import heartbeat_seconds
from dimnode.records.ids import peer_text

CONVERGE_SECONDS_MAX = 60.0
SETTLE_SECONDS = 5.0
READY_SECONDS_MAX = 60.0
AIM_CONVERGED_SECONDS = 15.0
AIM_WITHIN_SECOND = 0.95


class Probe:
    """What one node's process writes down: a line of JSON for each event, in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self.bytes_out = self.bytes_in = 0

    def note(self, what: str, **more: Any) -> None:
        """One event, with the wall clock that all processes of a machine share."""
        self._file.write(json.dumps({"what": what, "at": time.time(), **more}) + "\n")

    def install(self) -> None:
        """Put itself around what a node calls when something happens."""
        self._around(Swarm, "link", lambda swarm, peer, up, *_: self.note("link", peer=peer_text(peer), up=up))
        self._around(Swarm, "_take", lambda swarm, peer, *_: self.note("advert", peer=peer_text(peer)))
        self._around(Swarm, "hear", self._hear)
        write, read = NoiseSession._write_socket, NoiseSession._read_socket

        def counted_write(session: NoiseSession, view: memoryview) -> int:
            sent = write(session, view)
            self.bytes_out += sent
            return sent

        async def counted_read(session: NoiseSession, target: memoryview) -> int:
            got = await read(session, target)
            self.bytes_in += got
            return got

        NoiseSession._write_socket, NoiseSession._read_socket = counted_write, counted_read  # type: ignore[method-assign]

    def _around(self, owner: Any, name: str, tell: Callable[..., None]) -> None:
        inner = getattr(owner, name)

        def around(*arguments: Any) -> Any:
            tell(*arguments)
            return inner(*arguments)

        setattr(owner, name, around)

    def _hear(self, swarm: Any, topic: str, source: bytes, message: bytes) -> None:
        if topic == HEARTBEAT_TOPIC:
            at_ms = read_gossip(topic, source, message, swarm._net).payload["at_ms"]
            self.note("heard", peer=peer_text(source), at_ms=at_ms)

    def sample(self) -> None:
        """CPU, memory and bytes so far, once a second."""
        me = psutil.Process()
        while True:
            cpu = me.cpu_times()
            self.note(
                "sample", cpu=cpu.user + cpu.system, rss=me.memory_info().rss, out=self.bytes_out, into=self.bytes_in
            )
            time.sleep(1.0)


def run_node(folder: Path, number: int, bootstrap: Sequence[str], begin: Event) -> None:
    """The body of a node's process."""
    log = os.open(folder / f"{number}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 2)
    begin.wait(READY_SECONDS_MAX)
    probe = Probe(folder / f"{number}.jsonl")
    probe.install()
    probe.note("start")
    threading.Thread(target=probe.sample, daemon=True).start()
    flags = {
        "execute": False,
        "name": f"node-{number}",
        "listen": ["/ip4/127.0.0.1/tcp/0"],
        "bootstrap": list(bootstrap),
    }

    def ready(said: node_module.Ready) -> None:
        probe.note("ready", peer=peer_text(said.peer), addresses=said.addresses)

    run_a_node(folder / f"home-{number}", flags, ready)


class Swarms:
    """The processes of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fork = multiprocessing.get_context("fork")
        self.processes: list[ForkProcess] = []

    def start(self, count: int, bootstrap: Sequence[str]) -> None:
        """So many more nodes, all at the same moment."""
        begin = self._fork.Event()
        for _ in range(count):
            number = len(self.processes)
            process = self._fork.Process(target=run_node, args=(self.folder, number, bootstrap, begin))
            process.start()
            self.processes.append(process)
        begin.set()

    def events(self, number: int) -> list[dict[str, Any]]:
        """What a node's probe wrote down so far."""
        path = self.folder / f"{number}.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def ready(self, number: int) -> dict[str, Any]:
        """Wait for a node's ready line."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            for event in self.events(number):
                if event["what"] == "ready":
                    return event
            assert self.processes[number].is_alive(), (self.folder / f"{number}.log").read_text()[-2000:]
            time.sleep(0.05)
        raise TimeoutError(f"node {number} is not ready")

    def close(self) -> None:
        """End all nodes."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        for process in self.processes:
            process.join(10)
            process.kill()


def complete_at(events: list[dict[str, Any]], others: int) -> float | None:
    """When a node first had a link and an advert of so many others, None when it never had."""
    linked: set[str] = set()
    adverts: set[str] = set()
    for event in events:
        if event["what"] == "link":
            (linked.add if event["up"] else linked.discard)(event["peer"])
        elif event["what"] == "advert":
            adverts.add(event["peer"])
        if len(linked) >= others and len(adverts & linked) >= others:
            return float(event["at"])
    return None


def wait_complete(swarm: Swarms, numbers: Sequence[int], others: int) -> dict[int, float]:
    """Seconds from the moment all of these listen until each was linked with all; who did not make it is left out."""
    found: dict[int, float] = {}
    listening = max(swarm.ready(number)["at"] for number in numbers)
    deadline = time.monotonic() + CONVERGE_SECONDS_MAX
    while len(found) < len(numbers) and time.monotonic() < deadline:
        time.sleep(1.0)
        for number in numbers:
            if number not in found and (at := complete_at(swarm.events(number), others)) is not None:
                found[number] = at - listening
    return found


def heartbeats(swarm: Swarms, since: float, until: float) -> dict[str, Any]:
    """How late the heartbeats signed in this time arrived at all other nodes."""
    count = len(swarm.processes)
    sent: dict[tuple[str, int], dict[int, float]] = {}
    for number in range(count):
        for event in swarm.events(number):
            if event["what"] == "heard" and since <= event["at_ms"] / 1000 < until:
                late = event["at"] - event["at_ms"] / 1000
                sent.setdefault((event["peer"], event["at_ms"]), {}).setdefault(number, late)
    delays = sorted(late for heard in sent.values() for late in heard.values())
    pairs = len(sent) * (count - 1)
    return {
        "heartbeats": len(sent),
        "heartbeats_per_node": round(len(sent) / count, 1),
        "within_1_s": round(sum(late <= 1.0 for late in delays) / pairs, 4) if pairs else 0.0,
        "reached": round(len(delays) / pairs, 4) if pairs else 0.0,
        "latency_p50_ms": round(statistics.median(delays) * 1000, 1) if delays else None,
        "latency_p99_ms": round(delays[int(len(delays) * 0.99)] * 1000, 1) if delays else None,
    }


def costs(swarm: Swarms, since: float, until: float) -> dict[str, float]:
    """CPU, traffic and memory of a node between two times."""
    cpu, traffic, rss = [], [], []
    for number in range(len(swarm.processes)):
        samples = [
            event for event in swarm.events(number) if event["what"] == "sample" and since <= event["at"] < until
        ]
        if len(samples) > 1:
            first, last = samples[0], samples[-1]
            seconds = last["at"] - first["at"]
            cpu.append((last["cpu"] - first["cpu"]) / seconds)
            traffic.append((last["out"] - first["out"]) / seconds / 1000)
            rss.append(last["rss"] / 1e6)
    return {
        "cpu_of_a_core_percent": round(statistics.mean(cpu) * 100, 2),
        "sent_kb_per_second": round(statistics.mean(traffic), 2),
        "sent_kb_per_second_most": round(max(traffic), 2),
        "rss_mb": round(statistics.mean(rss), 1),
    }


def measure(count: int, beats: int) -> dict[str, Any]:
    """One run, from the first node's start to the end of all."""
    interval = heartbeat_seconds(count)
    with tempfile.TemporaryDirectory(prefix="dim-swarm-") as folder:
        swarm = Swarms(Path(folder))
        try:
            swarm.start(1, ())
            first = swarm.ready(0)["addresses"]
            began = time.time()
            swarm.start(count - 1, first[:1])
            listening = max(swarm.ready(number)["at"] for number in range(count))
            before = cpu_seconds(swarm)
            took = wait_complete(swarm, range(count), count - 1)
            joined = cpu_seconds(swarm) - before
            time.sleep(max(SETTLE_SECONDS, 2 * interval))
            since = time.time()
            time.sleep(beats * interval + 1.5)
            until = time.time()
            found = {
                "nodes": count,
                "interval_seconds": interval,
                "converged_nodes": len(took),
                "converged_seconds_median": round(statistics.median(took.values()), 2) if took else None,
                "converged_seconds_max": round(max(took.values()), 2) if took else None,
                "converged_seconds_max_from_start": round(max(took.values()) + listening - began, 2) if took else None,
                "converged_cpu_seconds": round(joined, 1),
                **heartbeats(swarm, since, until - 1.5),
                **costs(swarm, since, until),
                **late_one(swarm, first, count),
            }
        finally:
            swarm.close()
    return found


def cpu_seconds(swarm: Swarms) -> float:
    """What all nodes have used so far."""
    used = [psutil.Process(process.pid).cpu_times() for process in swarm.processes]
    return sum(each.user + each.system for each in used)


def late_one(swarm: Swarms, first: Sequence[str], count: int) -> dict[str, Any]:
    """One more node joins a settled swarm."""
    swarm.start(1, first[:1])
    ready = swarm.ready(count)
    start = next(event["at"] for event in swarm.events(count) if event["what"] == "start")
    took = wait_complete(swarm, [count], count)
    links = [event["at"] - start for event in swarm.events(count) if event["what"] == "link"]
    return {
        "late_one_ready_seconds": round(ready["at"] - start, 3),
        "late_one_first_link_seconds": round(min(links), 3) if links else None,
        "late_one_linked_with_all_seconds": round(ready["at"] - start + took[count], 3) if took else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--beats", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.nodes, options.beats)
    print(json.dumps(found) if options.json else "\n".join(f"{name:36}{value}" for name, value in found.items()))
    converged = found["converged_nodes"] == found["nodes"] and found["converged_seconds_max"] <= AIM_CONVERGED_SECONDS
    heard = found["within_1_s"] >= AIM_WITHIN_SECOND
    if not options.json:
        said = "met" if converged else "MISSED"
        print(f"aim: all converged within {AIM_CONVERGED_SECONDS:g} s from when all listen: {said}")
        print(f"aim: {AIM_WITHIN_SECOND:.0%} heard within 1 s: {'met' if heard else 'MISSED'}")
    sys.exit(0 if converged and heard else 1)


if __name__ == "__main__":
    main()
