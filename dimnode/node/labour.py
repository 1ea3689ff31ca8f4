"""This node as a worker for others: slots, drain, loaded models, how fast it is.

Rule: a drained node says so (0 slots in its advert), takes no lease, finishes what runs, and stays drained over a
restart until the operator says otherwise: a file in the home remembers it. What is warmed or measured goes through the
pool like any order, so that it can starve nobody.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import psutil

from dimnode.errors import Refused
from dimnode.exec.memory import graphics, graphics_used_bytes, machine_bytes
from dimnode.exec.orders import Finished, Order, PoolStats
from dimnode.exec.runtimes.choice import extras_installed
from dimnode.node.benches import bench_model, first_benchmark, own_key, read_benchmark, write_benchmark
from dimnode.records.ids import PeerId, RecordId, peer_text

if TYPE_CHECKING:
    from dimnode.node.model_orders import LocalModel
    from dimnode.node.node import Node

log = logging.getLogger(__name__)

DRAINED_FILE: Final = "drained"


class Labour:
    """One for each node; `describe` before the first advert, `run` when the node is ready."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.draining = (node.home / DRAINED_FILE).exists()
        self.measured: dict[str, Any] = {}
        self._benching = False

    # ---- what the others hear

    def describe(self) -> None:
        """What the advert says of this node's workers: only runtimes that work here, as far as that is known."""
        node = self._node
        if node.pool is None:
            return
        stats = node.pool.stats()
        node.swarm.sandbox = stats.sandbox
        node.swarm.runtimes = self._working(stats)
        node.swarm.extras, node.swarm.devices = extras_installed(), devices_of(stats)
        node.swarm.slots = 0 if self.draining else node.config.max_concurrent_jobs
        node.swarm.jobs_per_second = int(self.measured.get("jobs_per_second", 0))
        node.pool.draining = self.draining

    def _working(self, stats: PoolStats) -> tuple[str, ...]:
        walls = self._node.config.require_sandbox
        return tuple(name for name, state in stats.runtimes.items() if state.works(walls))

    def load(self) -> tuple[int, int]:
        """Free slots and load in permille, for the heartbeat, which also names the advert.

        A runtime may turn out not to work when it is first needed: then the advert is renewed before.
        """
        pool = self._node.pool
        if pool is None:
            return 0, 0
        stats = pool.stats()
        if (self._working(stats), devices_of(stats)) != (self._node.swarm.runtimes, self._node.swarm.devices):
            self.describe()
            self._node.swarm.renew_advert()
        try:
            load = int(psutil.cpu_percent() * 10)
        except OSError:  # no file is left to read it from: strangers' connections may have taken them all
            load = 1000
        return max(0, self._node.swarm.slots - stats.queued - stats.running), load

    def drain(self, on: bool) -> None:
        """Take no more leases, or take them again; the advert says so at once."""
        marker = self._node.home / DRAINED_FILE
        if on:
            marker.touch(mode=0o600)
        else:
            marker.unlink(missing_ok=True)
        self.draining = on
        log.info("draining" if on else "taking leases again")
        self.describe()
        self._node.swarm.renew_advert()

    # ---- what is loaded

    async def run(self) -> None:
        """Pin and load what the settings name; measure this machine when that was never done."""
        node = self._node
        if node.pool is None:
            return
        node.pool.pin(frozenset(model.manifest.id.hex() for model in self._named(node.config.pinned_models)))
        for model in self._named(node.config.prewarm):
            done = await self.warm(model)
            if done.status != "ok":
                log.warning("a model could not be loaded at the start: %s (%s)", done.message, done.code)
        self.measured = read_benchmark(node.home)
        if not self.measured and node.config.benchmark:
            self.measured = await first_benchmark(node.pool, node.me, node.limits.exec)
            if self.measured:
                write_benchmark(node.home, self.measured)
        if self.measured:
            self.describe()
            node.swarm.renew_advert()

    async def warm(self, model: LocalModel) -> Finished:
        """Load a model into a worker, now; how that ended."""
        assert self._node.pool is not None
        order = Order(
            own_key(),
            "load",
            model.order,
            (),
            (),
            None,
            "normal",
            self._node.config.task_timeout_seconds,
            client=self._node.me,
        )
        with self._node.library.in_use(model):
            return await self._node.pool.run(order)

    async def load_now(self, name: str) -> dict[str, Any]:
        """For the operator: load a model into a worker. Raises `Refused`."""
        model = self.local(name)
        if self._node.pool is None:
            raise Refused("E-exec-04", "this node executes nothing", "", "execute = true")
        done = await self.warm(model)
        if done.status != "ok":
            raise Refused(done.code, f"{name} was not loaded: {done.message}", done.status, "dim doctor")
        rows = [member for member in self._node.pool.stats().members if member.model == model.manifest.id.hex()]
        return {"model": name, "memory_bytes": max((row.memory_bytes for row in rows), default=0)}

    async def bench(self, name: str, batches: list[Any], free_size: int, seconds: float) -> dict[str, Any]:
        """For the operator: see `bench_model`. One at a time. Raises `Refused`."""
        model, limits = self.local(name), self._node.limits.exec
        if self._node.pool is None:
            raise Refused("E-exec-04", "this node executes nothing", "", "execute = true")
        fit = [batch for batch in batches if type(batch) is int and 0 < batch <= limits.bench_batch_max]
        if not fit or len(fit) != len(batches) or len(fit) > limits.bench_batches_max:
            what = f"batches are up to {limits.bench_batches_max} numbers from 1 to {limits.bench_batch_max}"
            raise Refused("E-exec-85", what, "", "--batches 1,2,4,8")
        if not 0 < free_size <= 4096 or not 0 < seconds < math.inf:
            what = "the size of free dimensions is 1 to 4096, and the seconds for a figure are more than 0"
            raise Refused("E-exec-85", what, "", "--size 16 --seconds 0.5")
        if self._benching:
            raise Refused("E-exec-85", "a benchmark is running already", "", "wait for it", 5000)
        self._benching = True
        try:
            seconds = min(max(seconds, 0.05), limits.bench_seconds_max)
            with self._node.library.in_use(model):
                found = await bench_model(self._node.pool, model.order, fit, free_size, seconds, self._node.me)
        finally:
            self._benching = False
        return {"model": name, **found}

    def local(self, name: str) -> LocalModel:
        """A model whose files are here. Raises `Refused`."""
        manifest = self._node.registry.find(name, self._node.library.chosen())
        found = self._node.library.models.get(RecordId(manifest.id))
        if found is None:
            raise Refused("E-models-01", f"this node does not have {name}", "only a peer offers it", "dim models ls")
        return found

    def _named(self, names: tuple[str, ...]) -> list[LocalModel]:
        found = []
        for name in names:
            try:
                found.append(self.local(name))
            except Refused as no:
                log.warning("the settings name a model that is not here: %s", no.complaint.what)
        return found

    # ---- what people see

    def status(self) -> dict[str, Any]:
        """The queue by identity and priority, the workers, memory and the graphics processor."""
        node = self._node
        stats = node.pool.stats() if node.pool is not None else None
        total, available = machine_bytes()
        return {
            "draining": self.draining,
            "slots": node.swarm.slots,
            "queue": [self._row(entry) for entry in stats.waiting] if stats else [],
            "members": [
                {
                    "pid": member.pid,
                    "model": self._label(member.model),
                    "runtime": member.runtime,
                    "state": member.state,
                    "orders": member.orders,
                    "memory_bytes": member.memory_bytes,
                    "pinned": member.pinned,
                    "idle_seconds": round(member.idle_seconds, 1),
                }
                for member in (stats.members if stats else ())
            ],
            "running_max": stats.running_max if stats else 0,
            "loaded_bytes": stats.memory_bytes if stats else 0,
            "loaded_bytes_max": stats.memory_bytes_max if stats else 0,
            "machine_bytes": total,
            "machine_free_bytes": available,
            "cache_bytes": sum(row[-1] for model in node.library.models.values() for row in _files(model)),
            "devices": devices_of(stats) if stats else {},
            "gpu": {**graphics(), "used_bytes": graphics_used_bytes()},
            "benchmark": self.measured,
            "costs": self._costs(),
        }

    def _costs(self) -> list[dict[str, Any]]:
        """What models cost here: of these measurements an order's admission is made."""
        costs = self._node.pool.costs if self._node.pool is not None else None
        if costs is None:
            return []
        names = [row.model for row in costs.rows()]
        parts = [(name, *name.rpartition(":")) for name in names]
        return [{"model": self._label(m), "operation": op or "infer", **costs.describe(n)} for n, op, _, m in parts]

    def _row(self, entry: Any) -> dict[str, Any]:
        node, client = self._node, PeerId(entry.client)
        member = node.swarm.members.get(client) if client else None
        mine = client in (node.me, b"")
        return {
            "identity": peer_text(client) if client else "",
            "name": "this node" if mine else member.name if member is not None else "",
            "high": entry.high,
            "normal": entry.normal,
            "low": entry.low,
            "running": entry.running,
            "share": entry.share,
        }

    def _label(self, model: str) -> str:
        """A lane's model as people call it."""
        if not model:
            return "rows"
        try:
            found = self._node.registry.manifests.get(RecordId(bytes.fromhex(model)))
        except ValueError:  # the model of the first benchmark, which nobody publishes
            return model
        return str(found.payload["name"]) if found is not None else model[-12:]


def _files(model: LocalModel) -> Any:
    files: Mapping[str, Any] | Any = model.manifest.payload["files"]
    return files


def devices_of(stats: PoolStats) -> dict[str, str]:
    """What each runtime computes on that has started here."""
    known = {name: state.traits for name, state in stats.runtimes.items() if state.known and not state.failure}
    return {name: traits["accelerator"] for name, traits in known.items()}
