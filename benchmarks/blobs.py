"""Large blobs between processes, beside what they are made of: a bare stream of our muxer, and SHA-256.

    python -m benchmarks.blobs [--megabytes 512] [--full]

Each figure stands beside its reference of the same run. One provider should reach 0.8 of 1/(1/stream + 1/sha256); two
are no slower, and 1.2 times as fast where one provider was the limit (it is slowed down for that, as a slow disk or
uplink would); bytes on the wire at most 1.02 of the blob; memory at most 64 MiB above the start. `--full`: 2 GB.

Before each fetch a file of the blob's size is written twice, and its memory is let go as the blob comes: the first rate
is what a new file costs as the machine was found, the second what it costs where memory is at hand. In a virtual
machine that gives free memory back to its host after two seconds they differ by ten times, and the fetch by two, which
is none of its doing.
"""

import argparse
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import trio

from dimnode.limits import LIMITS
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.blobs import BLOB, Grants, serve_blobs
from dimnode.p2p.host.host import Host, Stream, open_host
from dimnode.records.ids import Cid, PeerId
from dimnode.records.unixfs import LEAF_BYTES, Tree
from dimnode.store.blobs import BlobStore
from dimnode.store.part import Part

RAW = "/bench/raw/1"
SWITCH_SECONDS = 0.0005  # as a node sets it
_LISTEN = ["/ip4/127.0.0.1/tcp/0"]
_MANY = 2**50
AHEAD_MEGABYTES = 64  # of memory that is let go before it is needed
READ_BYTES = 256 * 1024


class Weights:
    """A file of `size` bytes whose leaves all differ, made as it is read."""

    def __init__(self, size: int) -> None:
        self._left, self._leaf, self._number = size, bytearray(os.urandom(LEAF_BYTES)), 0

    def readinto(self, room: memoryview) -> int:
        count = min(len(room), self._left)
        assert count in (LEAF_BYTES, self._left)
        self._leaf[:8] = self._number.to_bytes(8, "big")
        room[:count] = self._leaf[:count]
        self._left -= count
        self._number += 1
        return count


def open_store(folder: Path) -> BlobStore:
    return BlobStore(folder, _MANY, replace(LIMITS.store, free_bytes_min=0))


class SlowSource:
    """A source whose disk gives so many bytes a second."""

    def __init__(self, source: Any, bytes_per_second: float) -> None:
        self._source, self._seconds = source, LEAF_BYTES / bytes_per_second
        self._free_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def leaf_at_once(self, leaf: int, places: Sequence[memoryview]) -> bool:
        """A disk takes its time."""
        return False

    def leaf(self, leaf: int) -> bytes:
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + self._seconds
        time.sleep(max(0.0, self._free_at - now))
        return bytes(self._source.leaf(leaf))


# The providing process


async def provide(folder: Path, number: int, bytes_per_second: float) -> None:
    """Serve every blob of the store, and the bare stream."""
    store = open_store(folder)
    opened: Any = store.reader
    if bytes_per_second:
        opened = lambda root: SlowSource(store.reader(root), bytes_per_second)  # noqa: E731
    large = BlobServer(opened, lambda peer, root: True)

    async def raw(stream: Stream) -> None:
        count = int.from_bytes(await stream.read(8), "big")
        leaf = bytes(LEAF_BYTES)
        for _ in range(count):
            await stream.write(leaf)

    handlers = {BLOB: serve_blobs(Grants(), lambda _: None, large=large), RAW: raw}
    async with open_host(bytes([number]) * 32, _LISTEN, handlers, dht=False) as host:
        print(json.dumps({"address": host.addresses()[0]}), flush=True)
        await trio.sleep_forever()


@contextmanager
def provider(folder: Path, number: int, bytes_per_second: float = 0.0) -> Iterator[str]:
    """Run `provide` in a process of its own; where it listens."""
    command = [sys.executable, "-m", "benchmarks.blobs", "--provide", str(folder), str(number), str(bytes_per_second)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait()


# The fetching process


@asynccontextmanager
async def host_with(addresses: list[str]) -> AsyncIterator[tuple[Host, list[PeerId]]]:
    async with open_host(bytes([99]) * 32, [], {}, dht=False) as host:
        yield host, [PeerId(await host.connect(address)) for address in addresses]


async def bare_stream(address: str, megabytes: int) -> float:
    """MB/s of one stream that only carries."""
    async with host_with([address]) as (host, [peer]):
        stream = await host.open_stream(peer, RAW)
        began = time.perf_counter()
        await stream.write(megabytes.to_bytes(8, "big"))
        left = megabytes * LEAF_BYTES
        while left:
            left -= len(await stream.read(READ_BYTES))
        return megabytes * LEAF_BYTES / (time.perf_counter() - began) / 1e6


def sha256_rate(megabytes: int) -> float:
    """MB/s of one thread, in pieces as they come from a stream."""
    piece, count = os.urandom(65_000), megabytes * LEAF_BYTES // 65_000
    digest, began = hashlib.sha256(), time.perf_counter()
    for _ in range(count):
        digest.update(piece)
    return len(piece) * count / (time.perf_counter() - began) / 1e6


def write_rate(path: Path, megabytes: int) -> float:
    """MB/s of one thread that writes leaves into a new file; what was there is removed before."""
    path.unlink(missing_ok=True)
    leaf = os.urandom(LEAF_BYTES)
    with path.open("xb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(megabytes):
            file.write(leaf)
        seconds = time.perf_counter() - began
    return megabytes * LEAF_BYTES / seconds / 1e6


async def fetch(addresses: list[str], root: Cid, folder: Path, megabytes: int) -> dict[str, Any]:
    """Fetch into a new store; MB/s until the last leaf was checked and written, and until all is durable."""

    async def reached(peer: PeerId) -> None:
        pass

    spare = folder / "spare"
    written_at = [write_rate(spare, megabytes), write_rate(spare, megabytes)]
    store = open_store(folder)
    process = psutil.Process()
    async with host_with(addresses) as (host, peers):
        base, most, done = process.memory_info().rss, 0, trio.Event()

        async def watch_memory() -> None:
            nonlocal most
            while True:
                most = max(most, process.memory_info().rss)
                os.truncate(spare, max(0, (megabytes - AHEAD_MEGABYTES) * LEAF_BYTES - download.done_bytes))
                await trio.sleep(0.05)

        parts: list[Part] = []

        def open_sink(tree: Tree) -> Part:
            parts.append(store.part(tree))
            return parts[0]

        began, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        download = Download(host, root, open_sink, reached, lambda peer: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_memory)

            async def run() -> None:
                await download.run()
                done.set()

            nursery.start_soon(run)
            await trio.lowlevel.checkpoint()
            while download.idle_since is None:
                await trio.lowlevel.checkpoint()
            for peer in peers:
                download.offer(peer)
            await done.wait()
            written = time.perf_counter() - began
            cpu, loop = time.process_time() - cpu, time.thread_time() - loop
            await trio.to_thread.run_sync(store.finish, parts[0])
            durable = time.perf_counter() - began
            nursery.cancel_scope.cancel()
        size, bytes_in = download.all_bytes, download.bytes_in
        split = sorted(share.leaves for share in download.shares())
    assert store.verify(root)
    store.__exit__()
    return {
        "mb_per_second": size / written / 1e6,
        "durable_mb_per_second": size / durable / 1e6,
        "wire_ratio": bytes_in / size,
        "rss_mib": (most - base) / 2**20,
        "write_mb_per_second": written_at,
        "cpu_seconds": cpu,
        "loop_cpu_seconds": loop,
        "split": split,
    }


def fetched(addresses: list[str], root: Cid, folder: Path, megabytes: int) -> dict[str, Any]:
    """`fetch` in a process of its own, so that memory is its own, too; and what it cost the providers."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "benchmarks.blobs", "--fetch", place, root.hex(), str(megabytes), *addresses]
        before = children_cpu_seconds()
        found = dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        return found | {"providers_cpu_seconds": children_cpu_seconds() - before}


def children_cpu_seconds() -> float:
    """Of the children that are alive: between two fetches those are the providers."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def measure(megabytes: int, rounds: int, slow: float = 60e6) -> dict[str, Any]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(prefix="dim-bench-") as name:
        folder = Path(name)
        for number in (1, 2):
            (folder / str(number)).mkdir()
        with open_store(folder / "1") as store:
            began = time.perf_counter()
            blob = store.add(Weights(megabytes * LEAF_BYTES))  # type: ignore[arg-type]
            add_rate = blob.bytes / (time.perf_counter() - began) / 1e6
            path = store.path(blob.root)
            assert path is not None
            with open_store(folder / "2") as other:
                other.take_over(path)
        found: dict[str, Any] = {"megabytes": megabytes, "add_mb_per_second": add_rate}
        with provider(folder / "1", 1) as first, provider(folder / "2", 2) as second:
            rows = []
            for number in range(rounds):
                row: dict[str, Any] = {"stream": trio.run(bare_stream, first, megabytes), "sha256": sha256_rate(256)}
                row["bar"] = 0.8 / (1 / row["stream"] + 1 / row["sha256"])
                ways = [("one", [first]), ("two", [first, second])]
                for name, providers in ways if number % 2 == 0 else ways[::-1]:  # neither is always the first
                    row[name] = fetched(providers, blob.root, folder, megabytes)
                row["one_of_bar"] = row["one"]["mb_per_second"] / row["bar"]
                row["two_of_one"] = row["two"]["mb_per_second"] / row["one"]["mb_per_second"]
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
            found["rounds"] = rows
            found["medians"] = {
                key: statistics.median(row[key] for row in rows) for key in ("one_of_bar", "two_of_one")
            }
        with provider(folder / "1", 1, slow) as first, provider(folder / "2", 2, slow) as second:
            found["slow_one"] = fetched([first], blob.root, folder, megabytes)
            found["slow_two"] = fetched([first, second], blob.root, folder, megabytes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=512, help="MiB of the blob")
    parser.add_argument("--full", action="store_true", help="2 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--provide", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--fetch", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    if chosen.provide:
        trio.run(provide, Path(chosen.provide[0]), int(chosen.provide[1]), float(chosen.provide[2]))
    elif chosen.fetch:
        place, root, megabytes, *addresses = chosen.fetch
        print(json.dumps(trio.run(fetch, addresses, Cid(bytes.fromhex(root)), Path(place), int(megabytes))))
    else:
        print(json.dumps(measure(2048 if chosen.full else chosen.megabytes, chosen.rounds), indent=1))


if __name__ == "__main__":
    main()
