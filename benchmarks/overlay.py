"""The overlay beside its limits and its rival, all in one run and in turns.

    python -m benchmarks.overlay [--rounds 3] [--seconds 0.5] [--megabytes 100] [--peers 2 10 20] [--json]

1. Session and muxer against trio TCP with TLS (benchmarks/muxer.py).
2. Requests and replies against hivemind's unary call through its go daemon: 100 bytes with one caller and with 32, and
   1 MB each way. Ours once on kept streams, as links use them, and once on a new stream for each call.
3. The DHT of 2, 10 and 20 peers against hivemind's (benchmarks/dht.py): one node joining, storing, getting.

hivemind needs torch (1.2 GB): `make rivals` installs it into an environment of its own. Without that (or with
`--no-rival`) its columns are left out, with the reason. DIM_RIVALS_PYTHON names the interpreter of another environment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks import muxer
from benchmarks.streams import CALL, Opener, call, openers, serving_process

HERE = Path(__file__).parent
RIVAL = HERE / "hivemind_rival.py"
RIVAL_PYTHON = HERE.parent / ".venv-rivals" / "bin" / "python"
RIVAL_SECONDS_MAX = 240.0
KEYS = 30
# Name, bytes each way, callers.
CALLS = (("100 B, 1 caller", 100, 1), ("100 B, 32 callers", 100, 32), ("1 MB, 1 caller", 1_000_000, 1))
AIM_TIMES_FASTER = 2.0


class Rival:
    """hivemind in its own environment."""

    def __init__(self, python: Path) -> None:
        self._python = python
        self._process: subprocess.Popen[str] | None = None

    @staticmethod
    def find() -> "Rival | str":
        """The rival, or why there is none."""
        python = Path(os.environ.get("DIM_RIVALS_PYTHON", RIVAL_PYTHON))
        if not python.exists():
            return "hivemind is not installed: `make rivals` does that (1.2 GB)"
        probe = subprocess.run([python, "-c", "import hivemind"], check=False, capture_output=True, text=True)
        if probe.returncode:
            return f"hivemind cannot be imported: {probe.stderr.strip().splitlines()[-1]}"
        return Rival(python)

    def start_calls(self) -> None:
        """Its two processes and their daemons; `ask` may follow."""
        command = [self._python, RIVAL, "calls"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._line()

    def ask(self, size: int, callers: int, seconds: float) -> dict[str, float]:
        """One measurement of unary calls."""
        assert self._process is not None and self._process.stdin is not None
        print(json.dumps({"size": size, "callers": callers, "seconds": seconds}), file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "hivemind ended"
        return json.loads(line)

    def dht(self, peers: int) -> dict[str, Any]:
        """Its DHT with so many peers."""
        command = [self._python, RIVAL, "dht", str(peers), str(KEYS)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RIVAL_SECONDS_MAX)
        assert done.returncode == 0 and done.stdout, done.stderr[-2000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def close(self) -> None:
        """End its call processes; closing its input lets it end its daemons."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()


# Calls


async def kept_calls(opener: Opener, size: int, callers: int, seconds: float) -> list[float]:
    """Seconds of each call, every caller on its own kept stream."""
    streams = [await opener(CALL) for _ in range(callers)]
    body, took = bytes(size), list[float]()
    for stream in streams:
        await call(stream, b"warm")
    until = time.perf_counter() + seconds

    async def caller(stream: Any) -> None:
        while (began := time.perf_counter()) < until:
            await call(stream, body)
            took.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(caller, stream)
    for stream in streams:
        await stream.close()
    return took


async def new_stream_calls(opener: Opener, size: int, callers: int, seconds: float) -> list[float]:
    """Seconds of each call, each on a new stream."""
    body, took = bytes(size), list[float]()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            stream = await opener(CALL)
            await call(stream, body)
            await stream.close()
            took.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return took


def figures(took: Sequence[float], seconds: float) -> dict[str, float]:
    """As the rival says them."""
    ordered = sorted(took)
    return {
        "p50_ms": statistics.median(ordered) * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "per_second": len(ordered) / seconds,
    }


async def compare_calls(
    address: str, tls_port: int, rival: Rival | None, rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds: by kind of call, by who, by figure."""
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    async with openers(address, tls_port) as kinds:
        for _ in range(rounds):
            for name, size, callers in CALLS:
                took = await kept_calls(kinds["dimnode"], size, callers, seconds)
                rows.setdefault((name, "kept stream"), []).append(figures(took, seconds))
                took = await new_stream_calls(kinds["dimnode lazy"], size, callers, seconds)
                rows.setdefault((name, "new stream"), []).append(figures(took, seconds))
                if rival is not None:
                    said = await trio.to_thread.run_sync(rival.ask, size, callers, seconds)
                    rows.setdefault((name, "hivemind"), []).append(said)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (name, who), measured in rows.items():
        middle = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        found.setdefault(name, {})[who] = {key: round(value, 3) for key, value in middle.items()}
    return found


def print_calls(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """One line for each kind of call and figure."""
    for name, by_who in found.items():
        for key in ("p50_ms", "p99_ms", "per_second"):
            line = "".join(f"{who} {row[key]:>10,.2f}   " for who, row in by_who.items())
            print(f"{name:20}{key:12}{line}{times_faster(key, by_who)}")


def times_faster(key: str, by_who: dict[str, dict[str, float]]) -> str:
    """Ours on kept streams beside the rival's."""
    if "hivemind" not in by_who or key == "p99_ms":
        return ""
    ours, theirs = by_who["kept stream"][key], by_who["hivemind"][key]
    times = ours / theirs if key == "per_second" else theirs / ours
    return f"{times:.1f} times as fast, aim {AIM_TIMES_FASTER:g}: {'met' if times >= AIM_TIMES_FASTER else 'MISSED'}"


# DHT


def our_dht(peers: int) -> dict[str, Any]:
    """benchmarks/dht.py in a process of its own, because it forks."""
    command = [sys.executable, "-m", "benchmarks.dht", "--json", "--peers", str(peers), "--keys", str(KEYS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RIVAL_SECONDS_MAX)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def print_dht(found: list[dict[str, Any]]) -> None:
    """One line for each size and operation."""
    for row in found:
        ours, theirs = row["dimnode"], row.get("hivemind")
        for name in ("join", "first_get", "linked", "store", "get"):
            line = f"{row['peers']:>3} peers  {name:12}dimnode {ours[name]['p50_ms']:>9.1f} ms"
            if theirs is not None and name in theirs:
                ahead = ours[name]["p50_ms"] <= theirs[name]["p50_ms"]
                line += f"   hivemind {theirs[name]['p50_ms']:>9.1f} ms   {'ahead' if ahead else 'BEHIND'}"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--peers", type=int, nargs="*", default=[2, 10, 20])
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rival = "not asked for" if options.no_rival else Rival.find()
    other = rival if isinstance(rival, Rival) else None
    found: dict[str, Any] = {"rival": "hivemind" if other else f"skipped: {rival}"}
    with serving_process() as (address, tls_port, pid):
        arguments = (options.rounds, options.seconds, options.megabytes)
        found["muxer"] = trio.run(muxer.compare, address, tls_port, pid, *arguments)
        try:
            if other is not None:
                other.start_calls()
            found["calls"] = trio.run(compare_calls, address, tls_port, other, options.rounds, options.seconds)
        finally:
            if other is not None:
                other.close()
    found["dht"] = []
    for peers in options.peers:
        row: dict[str, Any] = {"peers": peers, "dimnode": our_dht(peers)}
        if other is not None:
            row["hivemind"] = other.dht(peers)
        found["dht"].append(row)
    if options.json:
        print(json.dumps(found))
        return
    muxer.print_table(found["muxer"])
    print(f"\nrequests and replies; rival: {found['rival']}")
    print_calls(found["calls"])
    print("\nDHT, one node joining a settled swarm (p50)")
    print_dht(found["dht"])


if __name__ == "__main__":
    main()
