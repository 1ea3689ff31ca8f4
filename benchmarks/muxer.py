"""The session and the muxer beside their physical limit: streams of our Noise and Yamux against trio TCP with TLS.

    python -m benchmarks.muxer [--rounds 3] [--seconds 1] [--megabytes 200] [--json]

Two processes on loopback, both kinds in the same run and in turns, so that a busy machine slows both: the ratio is what
counts.

    kept        100-byte round trips per second on one kept stream, and loop passes of the measuring side for each
    32 at once  the same on 32 streams of one connection (TLS: 32 connections)
    new         streams opened, used once and closed per second (TLS: connections); opened lazily, that is without a
                round trip to negotiate
    bulk        MB/s one way, and CPU of both processes for each MB
    beside      p99 of a round trip while another stream (TLS: connection) of the same peer sends as fast as it can
    connect     a new connection to a peer, ready for streams (TLS: handshake and first byte)
"""

import argparse
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import psutil
import trio

from benchmarks.streams import ECHO, MESSAGE, SINK, Opener, openers, read_exactly, serving_process
from dimnode.p2p.host.host import open_host

PIECE = bytes(1 << 20)
AT_ONCE = 32
CONNECTS = 10
SETTLE_SECONDS = 0.1
IDENTIFY_SECONDS = 1.5  # what follows a new connection, its first ping included, is over

# The bound of the ratio to TLS in the same round or, where that makes no sense, of the value on an idle machine.
AIMS: dict[str, tuple[str, float]] = {
    "kept_per_second": ("ratio >=", 0.8),
    "concurrent_per_second": ("ratio >=", 1.2),
    "new_per_second": ("ratio >=", 2.0),
    "bulk_mb_per_second": ("ratio >=", 0.9),
    "bulk_cpu_ms_per_mb": ("ratio <=", 1.1),
    "beside_bulk_p99_ms": ("value <=", 2.5),
    "kept_loop_passes": ("value <=", 4.0),
    "connect_ms": ("value <=", 10.0),
}


class LoopPasses(trio.abc.Instrument):
    """Counts how often the event loop waits for input."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def round_trip(stream: Any) -> None:
    """One message there and back."""
    await stream.write(MESSAGE)
    await read_exactly(stream, len(MESSAGE))


async def round_trips(stream: Any, until: float, took: list[float]) -> None:
    """Round trips one after the other; the seconds of each."""
    while (started := time.perf_counter()) < until:
        await round_trip(stream)
        took.append(time.perf_counter() - started)


async def kept(opener: Opener, seconds: float) -> dict[str, float]:
    """One stream, and 32 at once."""
    stream = await opener(ECHO)
    took: list[float] = []
    passes = LoopPasses()
    trio.lowlevel.add_instrument(passes)
    await round_trips(stream, time.perf_counter() + seconds, took)
    trio.lowlevel.remove_instrument(passes)
    await stream.close()
    result = {"kept_per_second": len(took) / seconds, "kept_p50_us": statistics.median(took) * 1e6}
    result["kept_loop_passes"] = passes.count / len(took)

    streams = [await opener(ECHO) for _ in range(AT_ONCE)]
    took = []
    until = time.perf_counter() + seconds
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(round_trips, stream, until, took)
    for stream in streams:
        await stream.close()
    return {**result, "concurrent_per_second": len(took) / seconds}


async def new(opener: Opener, seconds: float) -> dict[str, float]:
    """A stream for each message."""
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        stream = await opener(ECHO)
        await round_trip(stream)
        await stream.close()
        count += 1
    return {"new_per_second": count / seconds}


def cpu_seconds(server: psutil.Process) -> float:
    """CPU that both processes have used."""
    there = server.cpu_times()
    return time.process_time() + there.user + there.system


async def bulk(opener: Opener, megabytes: int, server: psutil.Process) -> dict[str, float]:
    """As much as goes in one direction."""
    size_mb = megabytes * 1.048576
    stream = await opener(SINK)
    started, used = time.perf_counter(), cpu_seconds(server)
    await stream.write((megabytes << 20).to_bytes(8, "big"))
    for _ in range(megabytes):
        await stream.write(PIECE)
    await read_exactly(stream, 1)
    result = {"bulk_mb_per_second": size_mb / (time.perf_counter() - started)}
    result["bulk_cpu_ms_per_mb"] = (cpu_seconds(server) - used) * 1000 / size_mb
    await stream.close()
    return result


async def beside_bulk(opener: Opener, seconds: float) -> dict[str, float]:
    """Round trips on one stream while another one is kept full."""
    stream, other = await opener(ECHO), await opener(SINK)
    took: list[float] = []
    async with trio.open_nursery() as nursery:

        async def pour() -> None:
            await other.write((1 << 62).to_bytes(8, "big"))
            while True:
                await other.write(PIECE)

        nursery.start_soon(pour)
        await round_trips(stream, time.perf_counter() + seconds, took)
        nursery.cancel_scope.cancel()
    await stream.close()
    await (other.reset() if hasattr(other, "reset") else other.close())
    took.sort()
    return {"beside_bulk_p50_ms": took[len(took) // 2] * 1000, "beside_bulk_p99_ms": took[int(len(took) * 0.99)] * 1000}


async def connects(address: str, open_tls: Opener) -> dict[str, float]:
    """Milliseconds until a new connection can be used, ours and TLS's in turns."""
    ours, theirs = [], []
    async with open_host(bytes([3]) * 32, [], {}, dht=False) as host:
        for _ in range(CONNECTS):
            started = time.perf_counter()
            peer = await host.connect(address)
            ours.append(time.perf_counter() - started)
            await trio.sleep(SETTLE_SECONDS)  # identify and the gossip streams that follow a connection
            await host.disconnect(peer)
            await trio.sleep(SETTLE_SECONDS)
            started = time.perf_counter()
            stream = await open_tls(ECHO)
            theirs.append(time.perf_counter() - started)
            await stream.close()
    return {"dimnode": statistics.median(ours) * 1000, "tls": statistics.median(theirs) * 1000}


async def compare(
    address: str, tls_port: int, server_pid: int, rounds: int, seconds: float, megabytes: int
) -> dict[str, dict[str, float]]:
    """Medians over all rounds by measurement: TLS's value, ours, and the ratio of the two in the same round."""
    server = psutil.Process(server_pid)
    measurements: list[Callable[[Opener], Awaitable[dict[str, float]]]] = [
        partial(kept, seconds=seconds),
        partial(new, seconds=seconds),
        partial(bulk, megabytes=megabytes, server=server),
        partial(beside_bulk, seconds=seconds),
    ]
    rows: dict[str, list[tuple[float, float]]] = {}
    async with openers(address, tls_port) as kinds:
        await trio.sleep(IDENTIFY_SECONDS)
        for _ in range(rounds):
            for measurement in measurements:
                theirs, ours = await measurement(kinds["tls"]), await measurement(kinds["dimnode lazy"])
                for name, value in ours.items():
                    rows.setdefault(name, []).append((theirs[name], value))
            connect_ms = await connects(address, kinds["tls"])
            rows.setdefault("connect_ms", []).append((connect_ms["tls"], connect_ms["dimnode"]))
    return {
        name: {
            "tls": round(statistics.median(pair[0] for pair in pairs), 3),
            "dimnode": round(statistics.median(pair[1] for pair in pairs), 3),
            "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 3),
        }
        for name, pairs in rows.items()
    }


def judged(name: str, value: float, ratio: float) -> str:
    """The aim of a figure and whether it is met, "" where there is none."""
    if name not in AIMS:
        return ""
    how, bound = AIMS[name]
    found = ratio if how.startswith("ratio") else value
    met = found >= bound if how.endswith(">=") else found <= bound
    return f"  aim {how} {bound:g}: {'met' if met else 'MISSED'}"


def print_table(result: dict[str, dict[str, float]]) -> None:
    """One line for each measurement; the ratio is ours to TLS's."""
    print(f"{'':24}{'tls':>14}{'dimnode':>14}{'ratio':>8}")
    for name, row in result.items():
        aim = judged(name, row["dimnode"], row["ratio"])
        print(f"{name:24}{row['tls']:14,.2f}{row['dimnode']:14,.2f}{row['ratio']:8.2f}{aim}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with serving_process() as (address, tls_port, pid):
        result = trio.run(compare, address, tls_port, pid, options.rounds, options.seconds, options.megabytes)
    print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()
