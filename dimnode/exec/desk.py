"""The desk: which orders are open, and the one place where an outcome is written and handed over.

Rule: each open order is reported exactly once; a report for one that is no longer open (cancelled a moment ago) is
dropped without a word.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import trio

from dimnode.exec.member import Result
from dimnode.exec.memory import graphics_used_bytes
from dimnode.exec.orders import (
    BAD_ORDER,
    INPUT_TOO_LARGE,
    NO_RUNTIME,
    Finished,
    Key,
    Order,
    Status,
)
from dimnode.exec.queue import Ticket
from dimnode.exec.runtimes.choice import ALWAYS, PACKAGES
from dimnode.exec.shares import LEVELS
from dimnode.limits import ExecLimits

NOTHING: Mapping[str, str] = {}
NO_MODEL_RUNTIME = {"engine": "dimnode", "version": "rows/1", "dtype": "float64"}


def fault_of(order: Order, limits: ExecLimits) -> tuple[str, str] | None:
    """Code and message when the order contradicts itself or is too large, before anything is started for it."""
    needs_model = order.op in ("infer", "evaluate", "load", "measure")
    needs_rows = order.op in ("evaluate", "statistics", "cohort")
    if not needs_model and not needs_rows:
        return BAD_ORDER, f"unknown operation {order.op!r}"
    if needs_model != (order.model is not None) or needs_rows != (order.rows is not None):
        return BAD_ORDER, f"{order.op} needs {'a model' if needs_model else 'no model'} and " + (
            "rows" if needs_rows else "no rows"
        )
    if order.model is not None and order.runtime not in PACKAGES:
        return NO_RUNTIME, f"no version of dimnode known here runs the format {order.runtime!r}"
    if order.priority not in LEVELS or not 0 < order.timeout_seconds <= limits.timeout_seconds_max:
        return BAD_ORDER, f"priority low, normal or high; timeout above 0 and up to {limits.timeout_seconds_max:g} s"
    if order.rows is not None and len(order.rows.where) > limits.conditions_max:
        return BAD_ORDER, f"more than {limits.conditions_max} conditions"
    size = sum(map(len, order.inputs))
    if size > limits.input_bytes_max:
        return INPUT_TOO_LARGE, f"the input takes {size} bytes, the limit is {limits.input_bytes_max}"
    return None


class Desk:
    """Open orders by key, and the counts of how they ended."""

    def __init__(self, finished: Callable[[Finished], None], nursery: trio.Nursery) -> None:
        self._finished = finished
        self._nursery = nursery
        self._open: dict[Key, Ticket] = {}
        self.awaited: dict[Key, Callable[[Finished], None]] = {}
        self.counts: Counter[str] = Counter()
        self.runtimes: dict[str, Mapping[str, str]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def open(self, ticket: Ticket) -> None:
        """Take it in."""
        self._open[ticket.order.key] = ticket

    def close(self, key: Key, expected: Ticket | None = None) -> Ticket | None:
        """Take an order off the desk without a report yet; None when it is not open, or not this very ticket."""
        ticket = self._open.get(key)
        if ticket is None or (expected is not None and ticket is not expected):
            return None
        return self._open.pop(key)

    def answered(self, ticket: Ticket, result: Result, walls: str, traits: Mapping[str, str]) -> None:
        """A worker answered; `traits` are what its model adds to the class of its runtime."""
        if not self.close(ticket.order.key, ticket):
            return
        status: Status = "ok" if result.status == "ok" else "memory" if result.status == "memory" else "failed"
        runtime = self._runtime_of(ticket.order, result.batch, traits)
        self.tell(
            Finished(
                key=ticket.order.key,
                status=status,
                code=result.code,
                message=result.message,
                output=result.output,
                run_us=result.run_us,
                queue_us=_queue_us(ticket),
                cpu_us=result.cpu_us,
                rss_bytes=result.rss_bytes,
                rows=result.rows,
                runtime=runtime,
                sandbox=walls,
                gpu_bytes=_gpu_bytes(str(runtime.get("accelerator", "")), result.rss_bytes),
            )
        )

    def failed(
        self,
        ticket: Ticket,
        status: Status,
        code: str,
        message: str,
        run_us: int = 0,
        walls: str = "",
        used: tuple[int, int] = (0, 0),
    ) -> None:
        """It ended without an answer; `used` is processor time and peak memory, as the system says."""
        if self.close(ticket.order.key, ticket):
            self.tell(self._without_answer(ticket, status, code, message, run_us, walls, used))

    def fail_soon(self, ticket: Ticket, status: Status, code: str, message: str) -> None:
        """The same, for callers inside `offer`: the report comes from a task of its own."""
        if self.close(ticket.order.key, ticket):
            self.tell_soon(ticket, status, code, message)

    def tell_soon(self, ticket: Ticket, status: Status, code: str, message: str) -> None:
        """Report, from a task of its own, an order that is closed already."""
        self._nursery.start_soon(self._tell_later, self._without_answer(ticket, status, code, message))

    async def _tell_later(self, outcome: Finished) -> None:
        self.tell(outcome)

    def tell(self, outcome: Finished) -> None:
        """Hand it over, and count it when it was a task: what this node asks of its own pool (a benchmark) is none."""
        asker = self.awaited.pop(outcome.key, None)
        if asker is not None:
            return asker(outcome)
        self.counts[outcome.status] += 1
        return self._finished(outcome)

    def _without_answer(
        self,
        ticket: Ticket,
        status: Status,
        code: str,
        message: str,
        run_us: int = 0,
        walls: str = "",
        used: tuple[int, int] = (0, 0),
    ) -> Finished:
        return Finished(
            key=ticket.order.key,
            status=status,
            code=code,
            message=message,
            output=b"",
            run_us=run_us,
            queue_us=_queue_us(ticket),
            cpu_us=used[0],
            rss_bytes=used[1],
            rows=0,
            runtime=self._runtime_of(ticket.order, 0),
            sandbox=walls,
        )

    def _runtime_of(self, order: Order, batch: int, traits: Mapping[str, str] = NOTHING) -> Mapping[str, str | int]:
        known = self.runtimes.get(order.runtime or ALWAYS, NOTHING)
        own = traits if order.model is not None else NO_MODEL_RUNTIME
        if not known:
            return {}
        alone = ", alone" if order.deterministic and order.model is not None else ""
        return {**known, **own, "determinism": known["determinism"] + alone, "batch": batch}


def _gpu_bytes(accelerator: str, rss_bytes: int) -> int:
    """What CUDA says is in use now; on Apple silicon, where it is the same memory, the worker's."""
    if accelerator.startswith("cuda"):
        return graphics_used_bytes() or 0
    return rss_bytes if accelerator.startswith("mps") else 0


def _queue_us(ticket: Ticket) -> int:
    """Microseconds from the offer to the start of the run; 0 when it never started."""
    return max(0, int((ticket.started_at - ticket.offered_at) * 1e6)) if ticket.started_at >= 0 else 0
