"""The pool: the door of this room. Takes orders, and says how every one of them ended.

Rule: an order that was taken ends exactly once. `offer` and `cancel` never block and never call back: outcomes come
from the pool's own tasks, one pass of the loop per result.
"""

import math
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from dimnode.exec import orders
from dimnode.exec.admission import RETRY_MS_MIN, Room, cost_name, objection, worker_bytes
from dimnode.exec.batching import batch_kind
from dimnode.exec.crew import Crew
from dimnode.exec.desk import Desk, fault_of
from dimnode.exec.estimates import Estimates
from dimnode.exec.hiring import FOLDER_PREFIX
from dimnode.exec.launch import Hello, Zygote
from dimnode.exec.memory import machine_bytes
from dimnode.exec.orders import Busy, Finished, Key, Order, PoolStats, RuntimeState, Waiting
from dimnode.exec.queue import OrderQueue
from dimnode.exec.runtimes.choice import ALWAYS, PACKAGES, installed
from dimnode.exec.shares import Account, Quotas, Shares
from dimnode.limits import ExecLimits

EXPECTED_SECONDS = 0.001
"""What an identity is charged for a run of a model that never ran here, until it is known how long it took."""


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
    quotas: Quotas | None = None,
    memory_bytes_max: int = 0,
    runtime_idle_seconds: float = math.inf,
) -> "AsyncIterator[Pool]":
    """A pool over a started zygote, open until the block ends; then its workers are dead and `scratch` is clean.

    `finished` is called inside trio, never from within `offer` or `cancel`; it must not raise. Orders still open at
    the end get no outcome. Cancelling leaves nothing behind. The zygote stays, as do those of other runtimes that
    were started beforehand (`warm`): whoever started them stops them. A runtime without one gets it when needed.
    `workers` run at once, and never more than there are cores; `memory_bytes_max` is what loaded models may take in
    all (0: half of the machine's memory). A runtime that was started here and had no worker for `runtime_idle_seconds`
    is ended.
    """
    _clean(scratch)
    async with trio.open_nursery() as nursery:
        # In it live: the zygote's listener, the deadline keeper, a listener per worker, now and then a writer.
        shares = Shares(quotas if quotas is not None else Quotas(), limits.accounts_max)
        desk = Desk(finished, nursery)
        queue = OrderQueue(limits.priority_ageing_seconds, shares, limits.head_start_seconds)
        workers_max = max(1, min(workers, limits.workers_max, os.cpu_count() or 1))
        memory_bytes = memory_bytes_max or machine_bytes()[0] // 2
        bounds = workers_max, memory_bytes, runtime_idle_seconds
        crew = Crew((zygote, *warm), limits, scratch, *bounds, require_sandbox, queue, desk, nursery)
        try:
            crew.zygotes.follow_all()
            nursery.start_soon(crew.keep_deadlines)
            nursery.start_soon(crew.keep_memory)
            with trio.move_on_after(limits.zygote_start_seconds_max):
                await crew.zygotes.first_known.wait()
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
        self._refused: Counter[str] = Counter()
        self.draining = False

    @property
    def costs(self) -> Estimates:
        """What its models cost, learned from runs."""
        return self._crew.ledger.costs

    def offer(self, order: Order) -> Busy | None:
        """Take an order in, or say why not. Its outcome comes later through `finished`."""
        kind, rows = batch_kind(order)
        refusal = self._refusal(order, rows)
        if refusal is not None:
            self._refused[refusal.code] += 1
            return refusal
        ticket = self._queue.ticket(order, trio.current_time())
        self._desk.open(ticket)
        fault = fault_of(order, self._limits)
        if fault is not None:
            self._desk.fail_soon(ticket, "failed", *fault)
            return None
        ticket.kind, ticket.rows = kind, rows
        ticket.expected_seconds = self.costs.run_seconds(cost_name(order), ticket.rows) or EXPECTED_SECONDS
        # Behind others of its lane it changes nothing: those could not be handed over either.
        alone = ticket.lane not in self._queue
        self._queue.push(ticket)
        if alone:
            self._crew.dispatch()
        if ticket.queued:
            self._crew.wake_before(ticket.deadline_at)
        return None

    async def run(self, order: Order) -> Finished:
        """An order of the node's own, and its outcome: `finished` does not hear of it. A cancel ends the order.

        What the pool does not take is `refused`.
        """
        heard, found = trio.Event(), []

        def hear(outcome: Finished) -> None:
            found.append(outcome)
            heard.set()

        busy = self.offer(order)
        if busy is not None:
            return refused(order.key, busy)
        self._desk.awaited[order.key] = hear
        try:
            await heard.wait()
            return found[0]
        finally:
            if not found:  # its outcome comes a moment later, and is still nobody else's
                self.cancel(order.key)

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
        hello, members = self._crew.zygotes.first.hello or Hello(), self._crew.members
        return PoolStats(
            queued=self._queue.count,
            running=sum(1 for member in members if member.flight),
            workers=len(members),
            worker_pids=tuple(member.pid for member in members if member.pid),
            sandbox=hello.sandbox,
            sandbox_complete=hello.complete,
            runtimes={name: self._state_of(name) for name in self._installed},
            finished=dict(self._desk.counts),
            refused=dict(self._refused),
            members=tuple(member.state(trio.current_time()) for member in members),
            waiting=tuple(_waiting(account) for account in self._queue.shares.present()),
            memory_bytes=sum(member.memory_bytes for member in members),
            memory_bytes_max=self._crew.ledger.memory_bytes_max,
            running_max=self._crew.workers_max,
            failure=hello.failure,
        )

    async def prove(self) -> None:
        """Have every installed runtime try its walls, also those that nothing has needed yet. Takes seconds."""
        await self._crew.zygotes.prove(self._installed)

    def unload(self, model: str) -> None:
        """End the idle workers that hold this model."""
        self._crew.unload(model)

    def pin(self, models: frozenset[str]) -> None:
        """Models that stay loaded, whatever is used more."""
        self._crew.pin(models)

    def _state_of(self, runtime: str) -> RuntimeState:
        hello = self._crew.zygotes.said(runtime)
        if hello is None:
            return RuntimeState(False, "", "", False, {})
        return RuntimeState(True, hello.failure, hello.sandbox, hello.complete, hello.runtime, hello.note)

    def _refusal(self, order: Order, rows: int) -> Busy | None:
        limits, zygotes = self._limits, self._crew.zygotes
        if zygotes.first.hello is None:
            return Busy(orders.NO_ZYGOTE, "no worker can be started: it is starting", RETRY_MS_MIN)
        for runtime in (ALWAYS, order.runtime):
            fault = zygotes.fault_of(runtime)
            if fault is not None:
                return Busy(*fault, 0)
        if order.runtime in PACKAGES and order.runtime not in self._installed:
            return Busy(orders.NO_RUNTIME, f"this node has no runtime for {order.runtime} models", 0)
        if order.key in self._desk:
            return Busy(orders.ALREADY_HERE, "this task and epoch is here already", 0)
        if self.draining:
            return Busy(orders.DRAINING, "this node is being drained", limits.drain_retry_ms)
        account = self._queue.shares.peek(order.client)
        no = objection(order, rows, account, self._queue.shares, self._crew.ledger.costs, self._room(order))
        return no or self._crowding(order, account)

    def _room(self, order: Order) -> Room:
        """What there is for it now. The machine's free memory is only asked for when it may matter."""
        crew, limits = self._crew, self._limits
        idle = sum(member.memory_bytes for member in crew.members if member.idle and not member.pinned)
        lane = order.model.id if order.model is not None else ""
        loaded = any(member.lane[0] == lane for member in crew.members)
        free = idle if loaded else idle + machine_bytes()[1] - limits.memory_reserve_bytes
        pinned = sum(member.memory_bytes for member in crew.members if member.pinned and member.lane[0] != lane)
        budget = crew.ledger.memory_bytes_max
        return Room(crew.workers_max, budget, pinned, worker_bytes(order, limits, budget), free, loaded)

    def _crowding(self, order: Order, account: Account) -> Busy | None:
        """When the room is full, whoever has most in it gives up its last order to one who has less; or nobody does."""
        limits, queue = self._limits, self._queue
        size = sum(map(len, order.inputs))
        if size > limits.input_bytes_max:  # it will only be told so: nobody gives way for that
            return None
        while queue.count >= limits.queue_tasks_max or queue.bytes + size > limits.queue_bytes_max:
            crowd = queue.shares.crowd()
            mine = (account.queued + 1) / account.quota.share
            if crowd is None or crowd.client == account.client or (crowd.queued - 1) / crowd.quota.share < mine:
                wait = queue.shares.wait_seconds(account, account.quota.level(order.priority), self._crew.workers_max)
                return Busy(orders.QUEUE_FULL, "the queue is full", max(RETRY_MS_MIN, int(wait * 1000)))
            last = queue.last_of(crowd)
            assert last is not None, "an account that waits has a ticket"
            queue.remove(last)
            self._desk.fail_soon(last, "refused", orders.DISPLACED, "the queue is full, and others have less in it")
        return None


def _waiting(account: Account) -> Waiting:
    high, normal, low = account.by_level
    return Waiting(account.client, high, normal, low, account.running, account.quota.share)


def refused(key: Key, busy: Busy) -> Finished:
    """As if it had been taken in and given back."""
    return Finished(key, "refused", busy.code, busy.message, b"", 0, 0, 0, 0, 0, {}, "")


def _clean(scratch: Path) -> None:
    """Make the folder, and remove what a killed node left in it."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in scratch.glob(FOLDER_PREFIX + "*"):
        shutil.rmtree(left_over, ignore_errors=True)
