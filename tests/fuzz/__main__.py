"""`python -m tests.fuzz --seconds N [--seed S]`: hostile peers against one node, an honest client beside them.

Exit code 1 when the node died, an honest job did not end, memory or files leaked, or the log shows a bug of ours.
"""

import argparse
import json
import logging
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import trio

from dimnode.client import Client
from dimnode.records.ids import cid_bytes, peer_bytes
from tests.e2e.harness import JOB_SECONDS, NOISE, Nodes, RealNode, bounded_client, patient, real_nodes, triage, until

from .stranger import Stranger

RSS_GROWTH_BYTES_MAX = 50 * 1024 * 1024
OPEN_FILES_GROWTH_MAX = 8
HONEST_SECONDS_MAX = 1.0
WAKES = 8
"""How often a question over a new connection wakes either side, at most: each time as late as the machine lets it."""
OUR_BUGS = re.compile(
    r"Traceback|(?<!no )(AssertionError|AttributeError|IndexError|KeyError|NameError|TypeError|ValueError|UnboundLocal"
    r"|RuntimeError|OverflowError|ZeroDivision|UnicodeError|RecursionError|MemoryError|NotImplemented|struct.error)"
)


class HonestClient:
    """A job each second on the node under attack; a second one that anybody may take, whatever becomes of it."""

    def __init__(self, node: RealNode) -> None:
        self._node = node
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self.rss: list[int] = []
        self.failure = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with bounded_client(self._node.home) as client:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    bait = client.submit(triage(deadline_seconds=3), [patient(number)], receipt=False)
                    ended = client.run(triage("alba"), [patient(number)], timeout_seconds=JOB_SECONDS)
                    self.seconds.append(ended.seconds)
                    self.rss.append(self._node.rss_bytes())
                    assert ended.status == "ok", ended
                    assert bait.wait(JOB_SECONDS).status
                    self._stop.wait(1.0)
        except Exception as error:
            self.failure = repr(error)

    def stop(self) -> None:
        """After the job that is under way."""
        self._stop.set()
        self._thread.join()


class HonestPeer:
    """A peer in a process of its own that is answered, or not, while the node is attacked (tests/fuzz/honest.py)."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "tests.fuzz.honest", address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # that it is connected, or that it died: `stop` says which

    def stop(self) -> list[str]:
        """Let it tell how long it waited; what is wrong with that."""
        said, _ = self._process.communicate("", timeout=30.0 * NOISE)
        if self._process.returncode:
            return [f"the honest peer died with {self._process.returncode}"]
        found = json.loads(said)
        problems = [f"the honest peer was not answered: {failure}" for failure in found["failures"][:5]]
        late = sorted(found["late"])
        most = HONEST_SECONDS_MAX + WAKES * late[int(len(late) * 0.95)]
        print(f"a sleep of the honest peer ends {late[int(len(late) * 0.95)]:.3f} s late (p95)")
        for what, seconds in found["seconds"].items():
            times = sorted(seconds)
            if not times:
                problems.append(f"the honest peer never asked over a {what}")
                continue
            worst, p95 = times[-1], times[int(len(times) * 0.95)]
            print(
                f"honest peer, {what}: {len(times)} asked, median {times[len(times) // 2]:.3f}, p95 {p95:.3f}, "
                f"worst {worst:.3f} s"
            )
            if p95 > most:
                problems.append(f"the honest peer waited {p95:.2f} s (p95) over a {what}, at most {most:.2f} s")
        return problems


async def attack(node: RealNode, models: list[bytes], seconds: float, seed: int) -> Stranger:
    """Two sessions at a time, and half-open sockets beside them, for so long."""
    stranger = Stranger(node.addresses[0], peer_bytes(node.peer), models, random.Random(seed))
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.run)
            nursery.start_soon(stranger.run)
            nursery.start_soon(stranger.hold_sockets)
    return stranger


async def warm(node: RealNode, models: list[bytes], seed: int) -> None:
    """One session of each kind, and as many floods as there will be at once."""
    stranger = Stranger(node.addresses[0], peer_bytes(node.peer), models, random.Random(seed))
    async with trio.open_nursery() as nursery:
        plans = (stranger.talk_garbage, stranger.lie, stranger.trade, stranger.flood, stranger.flood)
        for plan in (*plans, *stranger.brute.plans):
            nursery.start_soon(stranger.try_session, plan)
        with trio.move_on_after(2.0):
            await stranger.hold_sockets()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    logging.disable(logging.CRITICAL)  # the stock peer complains about how it is treated
    with tempfile.TemporaryDirectory() as folder, _attacked(Path(folder)) as nodes:
        node = nodes["alba"]
        nodes.offer("alba")
        models = [cid_bytes(row["model"]) for row in node.client.models()]
        _offer_cabinet(node.client, Path(folder))
        node.client.run(triage("alba"), [patient(0)], timeout_seconds=JOB_SECONDS)
        honest = HonestClient(node)
        # What is imported, cached or allocated once is no leak: each plan is carried out before anything is measured.
        trio.run(warm, node, models, options.seed + 1)
        rss, files = node.rss_bytes(), node.open_files()
        peer = HonestPeer(node.addresses[0])
        stranger = trio.run(attack, node, models, options.seconds, options.seed)
        problems = peer.stop()
        honest.stop()
        problems += [honest.failure] if honest.failure else []
        problems += _aftermath(node, rss, files)
        problems += _consequences(node, stranger)
        for what, count in sorted(stranger.sent.items()):
            print(f"  {count:7,} {what}")
        print("memory over time, MB:", *[rss // 1_000_000 for rss in honest.rss[:: max(1, len(honest.rss) // 20)]])
        times = sorted(honest.seconds)
        print(f"{len(times)} honest jobs, median {times[len(times) // 2]:.3f} s, slowest {times[-1]:.3f} s")
    print("\n".join(problems) or "the node took it")
    return 1 if problems else 0


def _attacked(folder: Path) -> AbstractContextManager[Nodes]:
    """A node that answers IPFS peers, too."""
    (folder / "alba").mkdir(mode=0o700)
    (folder / "alba" / "config.toml").write_text("[bitswap]\nserve = true\n")
    return real_nodes(folder, {"alba": True})


def _offer_cabinet(client: Client, folder: Path) -> None:
    path = folder / "patients.csv"
    rows = [",".join([f"c{column}" for column in range(10)] + ["label"])]
    rows += [",".join([str(row + column / 10) for column in range(10)] + [str(row % 2)]) for row in range(40)]
    path.write_text("\n".join(rows) + "\n")
    policy = {"operations": ["evaluate", "statistics"], "submitters": "any", "models": "any", "min_cohort": 10}
    client.add_data("patients", path, "label", (), policy)


def _aftermath(node: RealNode, rss_before: int, files_before: int) -> list[str]:
    """What is wrong afterwards."""
    if not node.running:
        return [f"the node died: {node.log_end()}"]
    problems = []
    try:
        until(lambda: node.open_files() <= files_before + OPEN_FILES_GROWTH_MAX, 15.0 * NOISE, "files closed")
    except AssertionError:
        problems.append(f"open files: {files_before} before, {node.open_files()} after")
    growth = node.rss_bytes() - rss_before
    print(f"memory {rss_before / 1e6:.0f} MB, {growth / 1e6:+.0f} MB; files {files_before}, {node.open_files()} after")
    if growth > RSS_GROWTH_BYTES_MAX:
        problems.append(f"memory grew by {growth / 1e6:.0f} MB")
    lines = node.log.read_text(errors="replace").splitlines()
    bugs = [line for line in lines if OUR_BUGS.search(line.replace(": ValueError", ""))]
    problems += [f"in the log: {line[:2000]}" for line in dict.fromkeys(bugs)][:10]
    problems += _still_held(node)
    return problems


def _consequences(node: RealNode, stranger: Stranger) -> list[str]:
    """Whether those who did it were sent away, and the node can say for what."""
    said = node.client.status()["conduct"]
    print("offences:", ", ".join(f"{count} {name.split()[1]}" for name, count in said["offences"].items()))
    print(f"refusals: {said['refusals']}; {said['bans']} bans, {len(said['refused'])} refused now")
    print("gossip:", {topic: dict(sorted(fates.items())) for topic, fates in said["gossip"].items()})
    problems = [
        f"{what} after it: {count}" for what, count in stranger.sent.items() if what.endswith("still connected")
    ]
    if not said["bans"]:
        problems.append("nobody was refused")
    expected = ("malformed", "window", "stream_flood", "forged", "half_open")
    seen = {name.split()[1] for name in said["offences"]}
    return problems + [f"no {each} was noticed" for each in expected if each not in seen]


def _still_held(node: RealNode) -> list[str]:
    """What the node holds although every job is over."""

    def idle() -> bool:
        said = node.client.status()
        return not (said["jobs_open"] or said["tasks_running"] or said["tasks_queued"])

    began = time.monotonic()
    try:
        until(idle, 10.0 * NOISE, "all jobs over")
    except AssertionError:
        said = node.client.status()
        return [f"after {time.monotonic() - began:.0f} s: {said['jobs_open']} jobs, {said['tasks_running']} tasks"]
    said = node.client.status()
    print(
        f"held: {said['held_entries']} entries, {said['tasks_held']} tasks of strangers; inbox {said['inbox_highest']}"
    )
    return []


if __name__ == "__main__":
    sys.exit(main())
