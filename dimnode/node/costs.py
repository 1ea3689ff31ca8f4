"""What the pool learned about models, taken over from the run before and kept for the next one.

Rule: read before the first order is taken, written once a minute and at the end: a crash costs a minute of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import trio

from dimnode.exec.estimates import CostRow
from dimnode.exec.memory import graphics
from dimnode.exec.pool import Pool
from dimnode.exec.runtimes.choice import ALWAYS
from dimnode.limits import ExecLimits
from dimnode.store.costs import CostBook, MeasuredModel


def device_class(traits: Mapping[str, str], torch_device: str, graphics_name: str) -> str:
    """What a measurement depends on beside the model: system, processor, cores, and what runtimes compute on here.

    `traits` are ONNX's. Other runtimes have not started yet: what they will choose follows from what they may choose.
    """
    words = [traits.get(name, "") for name in ("os", "arch", "isa", "accelerator")]
    return "/".join([*words, torch_device, graphics_name, str(os.cpu_count())])


class KnownCosts:
    """Of one pool, for as long as it is open."""

    def __init__(self, home: Path, pool: Pool, limits: ExecLimits, torch_device: str) -> None:
        self._pool, self._limits = pool, limits
        always = pool.stats().runtimes.get(ALWAYS)
        traits = always.traits if always is not None else {}
        self._book = CostBook(home, device_class(traits, torch_device, str(graphics().get("name", ""))))
        for found in self._book.models():
            pool.costs.recall(CostRow(*msgspec.structs.astuple(found)))

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._limits.costs_written_seconds)
            self.keep()

    def keep(self) -> None:
        """Write now what is known."""
        self._book.keep([MeasuredModel(*row) for row in self._pool.costs.rows()])
