"""The pool beside the bare runtime, in one run: overhead, throughput, hand-over of 20 MB, cold start, batching.

    python benchmarks/exec_speed.py [--seconds S] [--model FILE.onnx --shape 1,2048 --dtype int32]

Without --model it takes magika's classifier (Apache-2.0, about 4 ms a run) when that package is installed, else only
the demo's classifier. Each line names its reference, measured in the same run on the same inputs, and the aim.
"""

import argparse
import hashlib
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trio

from dimnode.exec.arena import open_arena
from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.mapping import as_array, open_blobs
from dimnode.exec.orders import Facts, ModelFile, ModelOrder, Order
from dimnode.exec.pool import Pool, open_pool
from dimnode.exec.runtimes import onnx
from dimnode.exec.runtimes.base import Model, one_file
from dimnode.exec.shared_arena import SharedArena
from dimnode.limits import LIMITS
from dimnode.records.ids import BLOB_PREFIX
from dimnode.records.tensors import Tensor, encode_tensors

DEMO = Path(__file__).parents[1] / "dimnode" / "demo" / "assets" / "models" / "classifier-mlp.onnx"


def loaded(path: Path) -> Model:
    """In this process, without walls: the reference."""
    return onnx.load(one_file(path.read_bytes()), Facts())


def timed(call: Callable[[], object], seconds: float, least: int = 5) -> list[float]:
    """Sorted seconds of each call."""
    call()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < least:
        before = time.perf_counter()
        call()
        took.append(time.perf_counter() - before)
    return sorted(took)


async def timed_async(
    call: Callable[[], Awaitable[object]], seconds: float, before_each: Callable[[], object] = lambda: None
) -> list[float]:
    """The same of what waits."""
    await call()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < 5:
        before_each()
        before = time.perf_counter()
        await call()
        took.append(time.perf_counter() - before)
    return sorted(took)


def middle(found: list[float]) -> str:
    return f"p50 {statistics.median(found) * 1000:8.3f} ms  p95 {found[int(len(found) * 0.95)] * 1000:8.3f} ms"


def say(label: str, text: str) -> None:
    print(f"{label:<46} {text}", flush=True)


def order_of(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Order:
    """An order for a model of one file on these inputs."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    model = ModelOrder(digest.hex(), "onnx", (ModelFile("m.onnx", "model", str(path), BLOB_PREFIX + digest),))
    tensors = [Tensor(name, str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()]
    blob = encode_tensors(tensors)
    return Order((b"bench", 0, 1), "infer", model, (blob,), (), None, "normal", 30.0, client=b"bench")


class Bench:
    """Runs orders under keys of their own."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        self.pool, self.seconds, self.numbers = pool, seconds, 0

    async def one(self, order: Order) -> Any:
        self.numbers += 1
        done = await self.pool.run(replace(order, key=(b"bench", self.numbers, 1)))
        assert done.status == "ok", done
        return done

    async def latency(self, order: Order) -> list[float]:
        return await timed_async(lambda: self.one(order), self.seconds)

    async def rate(self, order: Order, open_orders: int) -> tuple[float, int]:
        """Orders per second with so many open, and the largest batch that was seen."""
        count, largest, started = 0, 1, time.perf_counter()

        async def keep_one() -> None:
            nonlocal count, largest
            while time.perf_counter() - started < self.seconds:
                done = await self.one(order)
                count += 1
                largest = max(largest, int(done.runtime["batch"]))

        async with trio.open_nursery() as nursery:
            for _ in range(open_orders):
                nursery.start_soon(keep_one)
        return count / (time.perf_counter() - started), largest


async def small(bench: Bench) -> None:
    """What the pool adds to a small tensor."""
    row = {"x": np.ones((1, 30), np.float32)}
    model = loaded(DEMO)
    direct = timed(lambda: model.run(row), bench.seconds)
    found = await bench.latency(order_of(DEMO, row))
    added = statistics.median(found) - statistics.median(direct)
    say("small tensor, direct call", middle(direct))
    say("small tensor, through the pool", middle(found))
    say("  added (aim: at most 0.5 ms p50)", f"{added * 1000:.3f} ms")


async def throughput(bench: Bench, path: Path, arrays: dict[str, np.ndarray[Any, Any]], name: str) -> None:
    """One worker busy all the time beside the same calls in a row, alternating so that both meet the same machine."""
    model: Model = loaded(path)
    order = order_of(path, arrays)
    shares, gains = [], []
    for _ in range(3):
        direct = timed(lambda: model.run(arrays), bench.seconds)
        own = len(direct) / sum(direct)
        alone, _ = await bench.rate(order, 2)
        shares.append(alone / own)
        together, largest = await bench.rate(replace(order, deterministic=False), 16)
        gains.append((together / alone, largest, own, alone, together))
    gain, largest, own, alone, together = sorted(gains)[1]
    say(f"{name}, direct calls in a row", f"{own:8.1f} /s  ({1000 / own:.2f} ms each)")
    say(f"{name}, through one worker", f"{alone:8.1f} /s  share {statistics.median(shares):.3f} (aim: 0.9)")
    say(f"{name}, 16 open, batches allowed", f"{together:8.1f} /s  x{gain:.2f} of single runs, up to {largest} rows")


async def hand_over(folder: Path, seconds: float) -> None:
    """20 MB into the memory that is shared with a worker, found there as an array, by the way that orders take.

    Beside a plain copy, in turns of many; the tensor is another one than the time before. Last with the processor's
    caches full of something else each time.
    """
    values = [np.random.default_rng(seed).random(5_000_000, np.float32) for seed in range(3)]
    blobs = itertools.cycle([encode_tensors([Tensor("x", "float32", one.shape, one.tobytes())]) for one in values])
    arena = open_arena(str(folder), 64 * 1024**2, 1024**2)
    shared = SharedArena(os.dup(arena.inputs), os.dup(arena.output), arena.input_bytes, arena.output_bytes)
    target = memoryview(bytearray(len(next(blobs))))

    def plain() -> None:
        target[:] = next(blobs)  # one copy; into the bytearray itself it would be two

    async def through_arena() -> np.ndarray[Any, Any]:
        blob = next(blobs)
        places = arena.reserve((blob,))
        assert places is not None
        await arena.fill((blob,), places)
        arena.release()
        return as_array(open_blobs([shared.view(*places[0])])[0]["x"])

    direct, warm, cold = [], [], []
    for _ in range(4):
        direct += timed(plain, seconds / 2)
        warm += await timed_async(through_arena, seconds / 2)
        cold += await timed_async(through_arena, seconds / 2, plain)
    arrived = await through_arena()
    assert any(np.array_equal(arrived, one) for one in values)
    say("20 MB, one plain copy in this process", middle(sorted(direct)))
    say("20 MB, hand-over to a worker (aim: 2 ms p50)", middle(sorted(warm)))
    say("  with 20 MB of something else before each", middle(sorted(cold)))
    arena.close()


async def whole(bench: Bench) -> None:
    """An order of 19 MB with its run beside the direct call: added are both ways, and what the worker checks."""
    large = {"x": np.ones((160_000, 30), np.float32)}
    model = loaded(DEMO)
    direct = timed(lambda: model.run(large), bench.seconds)
    found = await bench.latency(order_of(DEMO, large))
    say("19 MB, direct call", middle(direct))
    say("19 MB, a whole order through the pool", middle(found))
    added = statistics.median(found) - statistics.median(direct)
    say("  added: both ways, checks for NaN", f"{added * 1000:.1f} ms")


async def cold(bench: Bench, path: Path, arrays: dict[str, np.ndarray[Any, Any]], name: str) -> None:
    """From nothing to the first answer, beside creating a session and calling it once in this process."""
    order = order_of(path, arrays)
    assert order.model is not None
    own, found = [], []
    for _ in range(7):
        before = time.perf_counter()
        loaded(path).run(arrays)
        own.append(time.perf_counter() - before)
        bench.pool.unload(order.model.id)
        before = time.perf_counter()
        await bench.one(order)
        found.append(time.perf_counter() - before)
    added = statistics.median(found) - statistics.median(own)
    say(f"{name}, session and first call here", middle(sorted(own)))
    say(f"{name}, cold worker to first answer", middle(sorted(found)))
    say("  added (aim: at most 30 ms)", f"{added * 1000:.1f} ms")


def real_model(chosen: argparse.Namespace) -> tuple[Path, dict[str, np.ndarray[Any, Any]], str] | None:
    """The model that --model names, else magika's."""
    if chosen.model is not None:
        session = loaded(chosen.model)
        return chosen.model, {session.inputs[0].name: np.ones(chosen.shape, chosen.dtype)}, chosen.model.stem
    spec = importlib.util.find_spec("magika")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = sorted(Path(places[0]).glob("models/*/model.onnx")) if places else []
    if not found:
        return None
    name = loaded(found[-1]).inputs[0].name
    return found[-1], {name: np.ones((1, 2048), np.int32)}, "magika"


async def main(zygote: Zygote, chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await hand_over(Path(folder), chosen.seconds)
        opened = open_pool(
            LIMITS.exec, Path(folder) / "pool", lambda _: None, zygote=zygote, workers=1, require_sandbox=False
        )
        async with opened as pool:
            print(f"sandbox: {pool.stats().sandbox}; one worker", flush=True)
            bench = Bench(pool, chosen.seconds)
            await small(bench)
            await whole(bench)
            found = real_model(chosen)
            if found is None:
                say("real model", "none: pip install magika, or --model")
                return
            await throughput(bench, *found)
            await cold(bench, *found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(1, 2048))
    parser.add_argument("--dtype", default="int32")
    arguments = parser.parse_args()
    with start_zygote() as started:
        trio.run(main, started, arguments)
