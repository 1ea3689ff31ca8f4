"""How fast this machine runs models: the first benchmark for the advert, and `dim models bench` for the operator.

Rule: a figure is measured here, through the same pool that serves everybody, and beside the bare runtime inside the
same worker; each benchmark has a bound in time, and its orders are of low priority.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import trio

from dimnode.errors import PeerFault, Refused
from dimnode.exec.orders import NO_RUNTIME, Facts, Finished, Key, ModelFile, ModelOrder, Order
from dimnode.exec.pool import Pool
from dimnode.limits import LIMITS, ExecLimits
from dimnode.node.clock import wall_ms
from dimnode.records.ids import PeerId, blob_cid
from dimnode.records.shapes import integer
from dimnode.records.tensors import ITEM_BYTES, Tensor, decode_tensors, encode_tensors

log = logging.getLogger(__name__)

BENCHMARK_FILE: Final = "benchmark.json"
_RATE: Final = integer(0, 2**53)
_REFERENCE: Final = files("dimnode") / "demo" / "assets" / "models" / "classifier-mlp.onnx"
_REFERENCE_WIDTH: Final = 30
_OPEN_ORDERS: Final = 16
SETTLE_SECONDS: Final = 0.02
_KEYS = itertools.count(1)


def own_key() -> Key:
    """A key that no lease has: its job is no record id."""
    return (b"own", next(_KEYS), 0)


async def first_benchmark(pool: Pool, me: PeerId, limits: ExecLimits) -> dict[str, Any]:
    """Jobs per second of a small classifier, 16 open at a time; {} when this node cannot run it.

    The first run starts the worker: the pool bounds how long that takes, and it is no part of what is measured.
    """
    file = ModelFile("m.onnx", "model", str(_REFERENCE), blob_cid(_REFERENCE.read_bytes()))
    model = ModelOrder("first-benchmark", "onnx", (file,))
    row = np.zeros((1, _REFERENCE_WIDTH), np.float32)
    blob = encode_tensors([Tensor("x", "float32", row.shape, row.tobytes())])
    plain = Order(own_key(), "infer", model, (blob,), (), None, "low", 5.0, client=me)
    first = await pool.run(replace(plain, key=own_key()))
    if first.status != "ok":
        return {}
    bounds = limits.benchmark_seconds, limits.benchmark_seconds_max
    rate, count = await _rate(pool, plain, _OPEN_ORDERS, *bounds)
    pool.unload(model.id)
    if not count:
        return {}
    found = {"jobs_per_second": int(rate), "model": "classifier-mlp", "cores": os.cpu_count()}
    return {**found, "at_ms": wall_ms()}


def read_benchmark(home: Path) -> dict[str, Any]:
    """What an earlier start measured, on a machine with as many cores; {} for none, and for a file that is damaged."""
    try:
        found = json.loads((home / BENCHMARK_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if type(found) is dict and found.get("cores") == os.cpu_count() and _RATE(found.get("jobs_per_second")):
        return found
    return {}


def write_benchmark(home: Path, found: Mapping[str, Any]) -> None:
    """For the next start. A full disk costs the measurement, not the node."""
    partial = home / f"{BENCHMARK_FILE}.new"
    try:
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(home / BENCHMARK_FILE)
    except OSError as error:
        log.warning("what this machine does is not remembered: %s", error)
        partial.unlink(missing_ok=True)


async def bench_model(
    pool: Pool, model: ModelOrder, batches: Sequence[int], free_size: int, seconds: float, me: PeerId
) -> dict[str, Any]:
    """Latency by batch size, throughput with one order open and with two for each worker that may compute, the bare
    runtime beside them, cold start, memory.

    Raises `Refused` when no input can be made up for this model, or the pool refuses.
    """
    pool.unload(model.id)
    plain = Order(own_key(), "infer", model, (), (), None, "low", 60.0, client=me)
    started = time.perf_counter()
    loaded = await _must(pool, replace(plain, op="load"))
    cold_seconds = time.perf_counter() - started
    rows = []
    for batch in batches:
        blob = made_up(model.facts, batch, free_size)
        measured = await _must(pool, replace(plain, op="measure", inputs=(blob,), deadline_seconds=math.inf))
        direct = sorted(np.frombuffer(decode_tensors(measured.output)[0].raw, "<f8").tolist())
        row: dict[str, Any] = {"batch": batch, "direct": _summary(direct, batch)}
        if not model.facts.pre:
            order = replace(plain, inputs=(blob,))
            row["pool"] = await _latency(pool, order, batch, seconds)
            open_orders = pool.stats().running_max * 2
            await _settle(pool, order, open_orders)
            rate, _ = await _rate(pool, order, open_orders, seconds)
            row["throughput"] = {"1": row["pool"]["rows_per_second"], str(open_orders): round(rate * batch, 1)}
        rows.append(row)
    best = max(rows, key=lambda row: row["direct"]["rows_per_second"])
    worth = best["direct"]["rows_per_second"] > rows[0]["direct"]["rows_per_second"] * 1.03
    memory = [member.memory_bytes for member in pool.stats().members if member.model == model.id]
    return {
        "rows": rows,
        "recommended_batch": best["batch"] if worth else batches[0],
        "cold_ms": round(cold_seconds * 1000, 1),
        "memory_bytes": max(memory, default=0),
        "runtime": dict(loaded.runtime),
        "sandbox": loaded.sandbox,
    }


def made_up(facts: Facts, batch: int, free_size: int) -> bytes:
    """An input for this model: the first dimension is the batch, other free ones `free_size`; the same each time.

    Floats are normal, integers and flags zero (a valid token, class and pixel), but for what has to be another number.
    What keeps its first dimension beside an input that does not, as a state of layers does, has its batch in the next
    free one. Raises `Refused`.
    """
    rng, tensors, left = np.random.default_rng(0), [], LIMITS.exec.input_bytes_max
    several = any(shape[:1] == (-1,) for _, _, shape in facts.inputs)
    filling = _filling(facts)
    for name, dtype, shape in facts.inputs:
        at = 0
        if shape and shape[0] not in (-1, batch):
            if not several or -1 not in shape:
                what = f"input {name!r} has a fixed first dimension of {shape[0]}"
                raise Refused("E-exec-85", f"no batch of {batch}: {what}", "", f"--batches {shape[0]}")
            at = shape.index(-1)
        sizes = tuple(size if size >= 0 else batch if place == at else free_size for place, size in enumerate(shape))
        left -= math.prod(sizes) * ITEM_BYTES.get(dtype, 8)
        if left < 0 or dtype not in ITEM_BYTES or 0 in sizes:  # the manifest may be a stranger's
            what = f"no input can be made up for {dtype[:16]} {name!r} of the shape {list(sizes)}"
            cause = f"all inputs together take at most {LIMITS.exec.input_bytes_max} bytes, and none takes nothing"
            raise Refused("E-exec-85", what, cause, "--batches 1 --size 16")
        if name in filling:
            values = np.full(sizes, filling[name])
        else:
            values = rng.standard_normal(sizes) if dtype.startswith("float") else np.zeros(sizes)
        tensors.append(Tensor(name, dtype, sizes, values.astype(dtype).tobytes()))
    if not tensors:
        raise Refused("E-exec-85", "the model's manifest declares no inputs", "", "dim models add with a card")
    try:
        return encode_tensors(tensors)
    except PeerFault as fault:
        raise Refused("E-exec-85", "the model's manifest declares inputs that no order has", fault.rule) from None


def _filling(facts: Facts) -> dict[str, float]:
    """Inputs that hold one number all over: masks, which hide nothing, and what the manifest's own words put there."""
    found = {name: 1.0 for name, dtype, _ in facts.inputs if name.endswith("mask") and not dtype.startswith("float")}
    for op in facts.pre:
        numbers = op.get("values") or [number / 1e9 for number in op.get("values_nano", ())]
        if op["op"] == "constant" and len(numbers) == 1:
            found[op.get("into", op["name"])] = float(numbers[0])
    return found


async def _must(pool: Pool, order: Order) -> Finished:
    done = await pool.run(replace(order, key=own_key()))
    if done.status != "ok":
        hint = f"pip install 'dimnode[{order.runtime}]', then restart the node" if done.code == NO_RUNTIME else ""
        raise Refused(done.code or "E-exec-85", f"the benchmark ended: {done.message}", done.status, hint)
    return done


async def _latency(pool: Pool, order: Order, batch: int, seconds: float) -> dict[str, float]:
    """One order at a time, from its offer to its outcome."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < 3:
        before = time.perf_counter()
        await _must(pool, order)
        took.append(time.perf_counter() - before)
    return _summary(sorted(took), batch)


async def _settle(pool: Pool, order: Order, open_orders: int) -> None:
    """Work until no further worker is being started for this load: its start is no part of a throughput."""
    assert order.model is not None
    with trio.move_on_after(LIMITS.exec.worker_start_seconds_max):
        while True:
            await _rate(pool, order, open_orders, SETTLE_SECONDS)
            if not any(state.model == order.model.id and state.state == "loading" for state in pool.stats().members):
                return


async def _rate(
    pool: Pool, order: Order, open_orders: int, seconds: float, seconds_max: float = math.inf
) -> tuple[float, int]:
    """Orders per second with so many open all the time, and their number; those left after `seconds_max` count not."""
    count, started = 0, time.perf_counter()

    async def keep_one_open() -> None:
        nonlocal count
        while time.perf_counter() - started < seconds:
            done = await pool.run(replace(order, key=own_key()))
            count += done.status == "ok"
            if done.status == "refused":
                return

    with trio.move_on_after(seconds_max):
        async with trio.open_nursery() as nursery:
            for _ in range(open_orders):
                nursery.start_soon(keep_one_open)
    return count / (time.perf_counter() - started), count


def _summary(durations: Sequence[float], batch: int) -> dict[str, float]:
    middle = statistics.median(durations)
    return {
        "p50_ms": round(middle * 1000, 3),
        "p95_ms": round(durations[int(len(durations) * 0.95)] * 1000, 3),
        "rows_per_second": round(batch * len(durations) / sum(durations), 1),
        "runs": len(durations),
    }
