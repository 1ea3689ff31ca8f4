"""The pool: the door of this room. Takes orders, and says how every one of them ended.

Rule: an order that was taken ends exactly once. `offer` and `cancel` never block and never call back: outcomes come
from the pool's own tasks, one pass of the loop per result.
"""

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from dimnode.exec import orders
from dimnode.exec.crew import FOLDER_PREFIX, Crew
from dimnode.exec.desk import Desk, fault_of
from dimnode.exec.launch import Hello, Zygote
from dimnode.exec.orders import Busy, Finished, Key, Order, PoolStats, RuntimeState
from dimnode.exec.queue import OrderQueue
from dimnode.exec.runtimes.choice import ALWAYS, PACKAGES, installed
from dimnode.limits import ExecLimits

RETRY_MS_MIN = 50


@asynccontextmanager
async def open_pool(
    limits: ExecLimits,
    scratch: Path,
    finished: Callable[[Finished], None],
    *,
    zygote: Zygote,
    warm: Sequence[Zygote] = (),
    workers: int,
    require_sandbox: bool,
) -> "AsyncIterator[Pool]":
    """A pool over a started zygote, open until the block ends; then its workers are dead and `scratch` is clean.

    `finished` is called inside trio, never from within `offer` or `cancel`; it must not raise. Orders still open at
    the end get no outcome. Cancelling leaves nothing behind. The zygote stays, as do those of other runtimes that
    were started beforehand (`warm`): whoever started them stops them. A runtime without one gets it when needed.
    """
    _clean(scratch)
    async with trio.open_nursery() as nursery:
        # In it live: the zygote's listener, the deadline keeper, a listener per worker, now and then a writer.
        desk, queue = Desk(finished, nursery), OrderQueue(limits.priority_ageing_seconds)
        workers_max = max(1, min(workers, limits.workers_max))
        crew = Crew((zygote, *warm), limits, scratch, workers_max, require_sandbox, queue, desk, nursery)
        try:
            crew.follow_all()
            nursery.start_soon(crew.keep_deadlines)
            with trio.move_on_after(limits.zygote_start_seconds_max):
                await crew.zygote_known.wait()
            yield Pool(limits, queue, desk, crew)
        finally:
            crew.dismiss_all()
            nursery.cancel_scope.cancel()


class Pool:
    """Made by `open_pool`. Synchronous, never blocking."""

    def __init__(self, limits: ExecLimits, queue: OrderQueue, desk: Desk, crew: Crew) -> None:
        self._limits = limits
        self._queue = queue
        self._desk = desk
        self._crew = crew
        self._installed = installed()

    def offer(self, order: Order) -> Busy | None:
        """Take an order in, or say why not. Its outcome comes later through `finished`."""
        refusal = self._refusal(order)
        if refusal is not None:
            return refusal
        ticket = self._queue.ticket(order, trio.current_time())
        self._desk.open(ticket)
        fault = fault_of(order, self._limits)
        if fault is not None:
            self._desk.fail_soon(ticket, "failed", *fault)
            return None
        # Behind others of its lane it changes nothing: those could not be handed over either.
        alone = ticket.lane not in self._queue
        self._queue.push(ticket)
        if alone:
            self._crew.dispatch()
        return None

    def cancel(self, key: Key) -> bool:
        """End an order: True when it was open, and then its outcome is `cancelled`, whatever its worker still says.

        One that runs gets `cancel_grace_seconds` to end by itself before its worker is killed.
        """
        ticket = self._desk.close(key)
        if ticket is None:
            return False
        self._desk.tell_soon(ticket, "cancelled", orders.CANCELLED, "cancelled")
        if ticket.queued:
            self._queue.remove(ticket)
        ticket.cancelled = True
        self._crew.hurry(ticket)
        return True

    def stats(self) -> PoolStats:
        """A snapshot."""
        hello, members = self._crew.zygotes[ALWAYS].hello or Hello(), self._crew.members
        return PoolStats(
            queued=self._queue.count,
            running=sum(1 for member in members if member.flight),
            workers=len(members),
            worker_pids=tuple(member.pid for member in members if member.pid),
            sandbox=hello.sandbox,
            sandbox_complete=hello.complete,
            runtimes={name: self._state_of(name) for name in self._installed},
            finished=dict(self._desk.counts),
        )

    def _state_of(self, runtime: str) -> RuntimeState:
        zygote = self._crew.zygotes.get(runtime)
        hello = zygote.hello if zygote is not None else None
        if hello is None:
            return RuntimeState(False, "", "", False, {})
        return RuntimeState(True, hello.failure, hello.sandbox, hello.complete, hello.runtime)

    def _refusal(self, order: Order) -> Busy | None:
        limits, first = self._limits, self._crew.zygotes[ALWAYS]
        if first.hello is None:
            return Busy(orders.NO_ZYGOTE, "no worker can be started: it is starting", RETRY_MS_MIN)
        for zygote in (first, self._crew.zygotes.get(order.runtime)):
            fault = self._crew.fault_of(zygote) if zygote is not None else None
            if fault is not None:
                return Busy(*fault, 0)
        if order.runtime in PACKAGES and order.runtime not in self._installed:
            return Busy(orders.NO_RUNTIME, f"this node has no runtime for the format {order.runtime}", 0)
        if order.key in self._desk:
            return Busy(orders.ALREADY_HERE, "this task and epoch is here already", 0)
        size = sum(map(len, order.inputs))
        if self._queue.count >= limits.queue_tasks_max or self._queue.bytes + size > limits.queue_bytes_max:
            known = [member.mean_run_us for member in self._crew.members if member.mean_run_us >= 0]
            mean_us = sum(known) / len(known) if known else 0.0
            wait_ms = int(self._queue.count * mean_us / 1000 / self._crew.workers_max)
            return Busy(orders.QUEUE_FULL, "the queue is full", max(RETRY_MS_MIN, wait_ms))
        return None


def _clean(scratch: Path) -> None:
    """Make the folder, and remove what a killed node left in it."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in scratch.glob(FOLDER_PREFIX + "*"):
        shutil.rmtree(left_over, ignore_errors=True)
