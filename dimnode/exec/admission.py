"""Whether an order is taken in: quota, memory and time, each a refusal with a code and when to come back.

Rule: what cannot be done in time is refused at the door, where its owner can still go elsewhere, instead of being
left to rot in the queue. Only measured costs count: of a model that never ran here nothing is assumed, but that it
needs memory for its files; and now and then
one is taken that would be refused for good, so that a measurement can be corrected.
Pure: no I/O, no clock.
"""

from dataclasses import dataclass
from typing import Final

from dimnode.exec import orders
from dimnode.exec.estimates import Estimates
from dimnode.exec.orders import Busy, Order
from dimnode.exec.shares import Account, Shares
from dimnode.limits import ExecLimits

RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Room:
    """What there is: workers that may run at once, bytes that loaded models may take, of them bytes that pins hold.

    `worker_bytes` is the most one worker may use; `free_bytes` what the machine has left, loaded idle models counted
    as free; `loaded`: a worker with this order's model lives already.
    """

    workers: int
    budget_bytes: int
    pinned_bytes: int
    worker_bytes: int
    free_bytes: int
    loaded: bool


def worker_bytes(order: Order, limits: ExecLimits, budget_bytes: int) -> int:
    """What a worker for this order may use: beside the usual its model's files three times, as far as models may take
    memory.

    Once as they are mapped, and twice as onnxruntime holds weights while it loads: 2.9 times was measured at 2 GB.
    """
    file_bytes = order.model.file_bytes if order.model is not None else 0
    return limits.worker_memory_bytes_max + min(3 * file_bytes, budget_bytes)


def cost_name(order: Order) -> str:
    """Under which name the costs of an order are kept: a model's runs and its evaluations cost differently."""
    model = order.model.id if order.model is not None else ""
    return model if order.op == "infer" else f"{order.op}:{model}"


def objection(order: Order, rows: int, account: Account, shares: Shares, costs: Estimates, room: Room) -> Busy | None:
    """Why this order is not taken now, or None."""
    level = account.quota.level(order.priority)
    wait = shares.wait_seconds(account, level, room.workers)
    if account.queued >= account.quota.queued_max:
        text = f"{account.queued} tasks of this identity wait here, its quota"
        return Busy(orders.QUOTA_FULL, text, _retry_ms(wait))
    no = _memory_objection(order, rows, costs, room, wait) or _time_objection(order, rows, costs, wait)
    # Where pins hold memory, an order that does not fit beside them would only wait for room that never comes.
    may_be_wrong = no is not None and not no.retry_after_ms and (no.code != orders.NO_MEMORY or not room.pinned_bytes)
    return None if may_be_wrong and costs.try_anyway(cost_name(order)) else no


def _memory_objection(order: Order, rows: int, costs: Estimates, room: Room, wait: float) -> Busy | None:
    if order.model is None:
        return None
    needed = costs.memory_bytes(cost_name(order), rows) or order.model.file_bytes
    if needed > room.worker_bytes or needed + room.pinned_bytes > room.budget_bytes:
        most = min(room.worker_bytes, room.budget_bytes - room.pinned_bytes)
        text = f"it needs about {_mib(needed)} MiB here, and a model may take {_mib(max(most, 0))}"
        return Busy(orders.NO_MEMORY, text, 0)
    if not room.loaded and needed > room.free_bytes:
        text = f"it needs about {_mib(needed)} MiB, and this machine has {_mib(room.free_bytes)} left"
        return Busy(orders.NO_MEMORY, text, _retry_ms(max(wait, 1.0)))
    return None


def _time_objection(order: Order, rows: int, costs: Estimates, wait: float) -> Busy | None:
    name, most = cost_name(order), order.timeout_seconds
    known = costs.known_seconds(name, rows)
    if known is None:
        return None
    if known > most and (costs.run_seconds_least(name, rows) or 0) > most:
        return Busy(orders.TOO_LATE, f"it takes about {_seconds(known)} here, and a run may take {_seconds(most)}", 0)
    if wait + known > order.deadline_seconds:
        text = f"it would end in about {_seconds(wait + known)}, and is wanted in {_seconds(order.deadline_seconds)}"
        return Busy(orders.TOO_LATE, text, _retry_ms(wait) if wait else 0)
    return None


def _seconds(count: float) -> str:
    return f"{count:.3g} s" if count < 100 else f"{count:.0f} s"


def _retry_ms(seconds: float) -> int:
    return int(min(max(seconds * 1000, RETRY_MS_MIN), RETRY_MS_MAX))


def _mib(count: int) -> int:
    return count // 1024**2
