"""What the sandboxed worker costs, beside a direct call of the runtime in the same run.

    python benchmarks/worker_hop.py [--workers N]

Prints: the direct call, hot and cold; the hop (one order at a time, from offer to outcome); orders per second with
1, 16 and 64 orders open; the start of a worker for a new model; a tensor of 1 and 16 MiB in.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trio

from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.orders import Facts, Finished, ModelFile, ModelOrder, Order
from dimnode.exec.pool import Pool, open_pool
from dimnode.exec.runtimes import onnx
from dimnode.exec.runtimes.base import one_file
from dimnode.limits import LIMITS
from dimnode.records.ids import BLOB_PREFIX
from dimnode.records.tensors import Tensor, encode_tensors

MODEL = Path(__file__).parents[1] / "dimnode" / "demo" / "assets" / "models" / "classifier-mlp.onnx"
SECONDS = 1.5
REST_SECONDS = 0.0005


def microseconds(call: Callable[[], object], times: int = 2000, rest_seconds: float = 0.0) -> list[float]:
    """Sorted durations of a call. With a rest before each, caches are as cold as for a lone order."""
    for _ in range(times // 10):
        call()
    durations = []
    for _ in range(times):
        if rest_seconds:
            time.sleep(rest_seconds)
        start = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - start) / 1000)
    return sorted(durations)


def show(label: str, durations: list[float]) -> None:
    middle, high = statistics.median(durations), durations[int(len(durations) * 0.95)]
    print(f"{label:<44} p50 {middle:8.0f} us   p95 {high:8.0f} us")


class Bench:
    """Keeps a number of orders open and counts what comes back."""

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self.digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
        self.numbers = 0
        self.done = 0
        self.news = trio.Event()

    def heard(self, outcome: Finished) -> None:
        assert outcome.status == "ok", outcome
        self.done += 1
        self.news.set()

    def offer(self, blob: bytes, path: Path = MODEL, digest: str = "") -> None:
        self.numbers += 1
        key = (b"bench", self.numbers, 1)
        digest = digest or self.digest
        files = (ModelFile("m.onnx", "model", str(path), BLOB_PREFIX + bytes.fromhex(digest)),)
        order = Order(key, "infer", ModelOrder(digest, "onnx", files), (blob,), (), None, "normal", 30.0)
        assert self.pool is not None
        assert self.pool.offer(order) is None

    async def one(self, blob: bytes, path: Path = MODEL, digest: str = "") -> float:
        """Microseconds from the offer to the outcome."""
        self.news = trio.Event()
        start = time.perf_counter_ns()
        self.offer(blob, path, digest)
        await self.news.wait()
        return (time.perf_counter_ns() - start) / 1000

    async def rate(self, blob: bytes, open_orders: int) -> tuple[float, float]:
        """Orders per second, and CPU microseconds of this process per order, with that many orders open."""
        base, start, cpu = self.done, time.perf_counter(), time.process_time()
        offered = 0
        while time.perf_counter() - start < SECONDS:
            while offered - (self.done - base) < open_orders:
                offered += 1
                self.offer(blob)
            self.news = trio.Event()
            await self.news.wait()
        count, took, used = self.done - base, time.perf_counter() - start, time.process_time() - cpu
        while self.done - base < offered:
            self.news = trio.Event()
            await self.news.wait()
        return count / took, used / count * 1e6


async def main(zygote: Zygote, workers: int) -> None:
    row = encode_tensors([Tensor("x", "float32", (1, 30), np.ones((1, 30), np.float32).tobytes())])
    model = onnx.load(one_file(MODEL.read_bytes()), Facts())
    array = np.ones((1, 30), np.float32)
    show("direct call of the runtime", microseconds(lambda: model.session.run(None, {"x": array})))
    cold = microseconds(lambda: model.session.run(None, {"x": array}), rest_seconds=REST_SECONDS)
    show("direct call after a rest of 0.5 ms", cold)
    bench = Bench()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        pool = open_pool(
            LIMITS.exec, scratch / "pool", bench.heard, zygote=zygote, workers=workers, require_sandbox=False
        )
        async with pool as bench.pool:
            print(f"sandbox: {bench.pool.stats().sandbox}; workers: {workers}")
            print(f"{'first order, worker started for it':<44}     {await bench.one(row):8.0f} us")
            show("hop: one order at a time", sorted([await bench.one(row) for _ in range(2000)]))
            for open_orders in (1, 16, 64):
                rate, used = await bench.rate(row, open_orders)
                print(f"{f'{open_orders} open':<44}     {rate:8.0f} /s   this process {used:4.0f} us each")
            for size in (2**20, 2**24):
                rows = size // 120
                large = encode_tensors([Tensor("x", "float32", (rows, 30), bytes(rows * 120))])
                show(f"{size // 2**20} MiB in, {rows} rows", sorted([await bench.one(large) for _ in range(10)]))
            await new_models(bench, row, scratch)
            show("direct call again", microseconds(lambda: model.session.run(None, {"x": array})))


async def new_models(bench: Bench, row: bytes, scratch: Path) -> None:
    """Twenty models nobody has seen: the same graph with another byte of padding each (an unknown protobuf field)."""
    starts = []
    for number in range(20):
        content = MODEL.read_bytes() + bytes([0x78, number])
        path = scratch / f"{number}.onnx"
        path.write_bytes(content)
        starts.append(await bench.one(row, path, hashlib.sha256(content).hexdigest()))
    show("a new model: fork, walls, load, run", sorted(starts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with start_zygote() as started:
        trio.run(main, started, arguments.workers)
