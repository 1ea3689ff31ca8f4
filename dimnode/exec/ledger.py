"""What the pool learns from its workers: costs of models, worth of batches, memory; and who is charged for a run.

Rule: memory is measured by this node, not believed; time is what passed here, so that a worker which understates its
runs earns its identity nothing, and one that overstates them is cut to what passed. Loading is worker time too: else
models that load for ever would be a way to be served before everybody.
"""

import os
from dataclasses import replace
from typing import Final

from dimnode.exec.admission import cost_name
from dimnode.exec.batching import Batches
from dimnode.exec.estimates import Estimates
from dimnode.exec.member import Member, Result
from dimnode.exec.memory import machine_bytes, process_bytes, process_use
from dimnode.exec.queue import Lane, OrderQueue, Ticket
from dimnode.limits import ExecLimits
from dimnode.posix.processes import process_peak_bytes

_CORES: Final = os.cpu_count() or 1  # asked once: the system reads a file for each answer


def believed(member: Member, result: Result, now: float) -> Result:
    """A worker's times as far as this node's clock lets them stand.

    All runs since it began to work after a pause took no longer than that is ago. One run alone cannot be bounded by
    when it seemed to start: orders are handed over ahead, and this node may hear of the end of one after the next
    began. No run uses more processors than there are.
    """
    left_us = max(0, int((now - member.serving_since) * 1e6) - member.claimed_us)
    run_us, cpu_us = min(result.run_us, left_us), min(result.cpu_us, left_us * _CORES)
    member.claimed_us += run_us
    if (run_us, cpu_us) == (result.run_us, result.cpu_us):
        return result
    return replace(result, run_us=run_us, cpu_us=cpu_us)


class Ledger:
    """One for each pool."""

    def __init__(self, limits: ExecLimits, queue: OrderQueue, memory_bytes_max: int) -> None:
        self.costs = Estimates(limits.models_estimated_max)
        self.batches = Batches(limits.batch_rows_max, limits.batch_seconds_max, limits.models_estimated_max)
        self.memory_bytes_max = memory_bytes_max
        self._limits, self._queue = limits, queue

    def needs(self, lane: Lane) -> int:
        """What a worker for this lane will take, as far as is known."""
        return self.costs.memory_bytes(lane[0]) or self._limits.worker_bytes_expected

    def measure(self, member: Member, now: float) -> None:
        """Look at its memory, now and at its highest: a run may take much and give it back before anybody looks."""
        found = process_bytes(member.pid) if member.pid else None
        if found is None:
            return
        member.looked_at = now
        member.memory_bytes = member.measured_bytes = found
        member.highest_bytes = max(member.highest_bytes, process_peak_bytes(member.pid))
        if member.last_cost is None:
            self.costs.weighed(member.lane[0], found)
        if member.idle:
            self._attribute(member)

    def _attribute(self, member: Member) -> None:
        """What its memory has grown to since this was last asked was the work of what ran last."""
        if member.highest_bytes > member.explained_bytes and member.last_cost is not None:
            member.explained_bytes = member.peaks[member.last_cost] = member.highest_bytes
            self.costs.peaked(*member.last_cost, member.highest_bytes)

    def became_ready(self, member: Member, now: float) -> None:
        """It has loaded its model, since it was asked for; the identity that it was started for pays."""
        self.measure(member, now)
        first = next(iter(member.flight.values()), None)
        if first is not None:
            self._queue.shares.charge(first.account, now - member.serving_since)
        self.costs.loaded(member.lane[0], now - member.serving_since)
        member.cpu_before_us, _ = process_use(member.pid)

    def landed(self, member: Member, ticket: Ticket, result: Result, now: float) -> None:
        """What this run says of its model's costs, and what its identity is charged for it."""
        batch, seconds = ticket.batch, result.run_us / 1e6
        member.cpu_before_us += result.cpu_us
        elapsed = now - ticket.started_at if ticket.started_at >= 0 else seconds
        self._queue.landed(ticket, elapsed / (batch.size if batch is not None else 1))
        if ticket.order.op == "load":
            return  # it ran nothing: what the model costs to load was noted when its worker became ready
        cost = cost_name(ticket.order), max(result.batch, 1) if batch is None else batch.rows
        member.last_cost = cost
        if now - member.looked_at > self._limits.memory_look_seconds:
            self.measure(member, now)
        self._attribute(member)
        if result.status != "ok":
            if batch is not None:
                batch.together = False
            return
        memory_bytes = max(member.measured_bytes, member.peaks.get(cost, 0))
        if batch is None:
            self.costs.ran(*cost, seconds, memory_bytes)
            if ticket.kind is not None:
                self.batches.of(member.lane[0]).ran(ticket.rows, seconds)
            return
        batch.left -= 1
        batch.seconds += seconds
        batch.together = batch.together and result.batch == batch.rows
        if not batch.left:
            self.costs.ran(*cost, batch.seconds, memory_bytes)
            self.batches.ended(member.lane[0], batch)

    def lost(self, member: Member, ticket: Ticket, now: float) -> tuple[int, int]:
        """Its worker is gone or is to go: this order is charged for its run, or for the load that never came to an end.

        Answers what it used: processor time in microseconds and the worker's peak of memory, as the system says.
        """
        began = ticket.started_at if ticket.started_at >= 0 else now if member.ready else member.serving_since
        self._queue.landed(ticket, now - began)
        cpu_us, peak_bytes = member.ended_with or process_use(member.pid)
        return max(0, min(cpu_us - member.cpu_before_us, int((now - began) * 1e6) * _CORES)), peak_bytes

    def lost_together(self, first: Ticket, now: float) -> None:
        """Its worker is gone, and it goes back to the queue with its batch: what the run took is charged all the same.

        A batch is of one identity.
        """
        if first.started_at >= 0:
            self._queue.shares.charge(first.account, now - first.started_at)

    def is_pressed(self, used_bytes: int) -> bool:
        """Loaded models take more than they may, or the machine has nearly nothing left."""
        return used_bytes > self.memory_bytes_max or machine_bytes()[1] < self._limits.memory_reserve_bytes
