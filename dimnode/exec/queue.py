"""The waiting room: who is next, by fair share between identities and by priority, with ageing, within one.

Rule: nobody starves. Between identities the one that was charged least worker time goes first (see `shares`); within
one a ticket's rank is the moment it came plus one ageing period per level below high, fixed once: a low order waits
behind high ones of its identity for at most two ageing periods, and no heap is ever rebuilt for that.
Tickets of one lane (one model) keep together, so that a warm worker finds its next one at once.
Pure: no I/O, no clock (`now` is an argument).
"""

import heapq
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from dimnode.exec.batching import Batch
from dimnode.exec.orders import Key, Order
from dimnode.exec.shares import Account, Shares

Lane = tuple[str, Key | None]
"""(model id, None), or (model id, order key) for work that must have a worker of its own."""

BEHIND_MAX = 32
"""No batch is longer: more need not be counted."""

_Heap = list[tuple[float, int, "Ticket"]]
_Turn = tuple[float, float, int]
"""When a lane's turn comes: its identity's charged time and head start, then the rank and number of its ticket."""


@dataclass(slots=True, eq=False)
class Ticket:
    """An order inside the pool, from offer to outcome. Times in seconds of one monotonic clock.

    `expected_seconds` is what its identity is charged when it is taken out, `charged_seconds` what it was charged so
    far. `kind` is equal for orders that may run as one batch (None: runs alone), `rows` its leading dimension,
    `batch` the one that it is part of.
    """

    order: Order
    lane: Lane
    account: Account
    level: int
    offered_at: float
    rank: float
    number: int
    input_bytes: int
    deadline_at: float = math.inf
    expected_seconds: float = 0.001
    charged_seconds: float = 0.0
    kind: Hashable = None
    rows: int = 1
    queued: bool = True
    taken: bool = False
    cancelled: bool = False
    started_at: float = -1.0
    batch: Batch | None = None


def lane_of(order: Order) -> Lane:
    """Foreign code that saw a cabinet's rows must meet nobody else's order: such work gets a lane of its own."""
    if order.model is None:
        return ("", None)
    return (order.model.id, order.key if order.rows is not None else None)


class OrderQueue:
    """A heap per identity and lane; turns are compared by their heads."""

    def __init__(self, ageing_seconds: float, shares: Shares | None = None, head_start_seconds: float = 1.0) -> None:
        self.shares = shares if shares is not None else Shares()
        self._ageing_seconds = ageing_seconds
        self._head_start_seconds = head_start_seconds
        self._lanes: dict[Lane, dict[bytes, _Heap]] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._numbers = self._marks = 0
        self.count = 0
        self.bytes = 0

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._lanes

    def ticket(self, order: Order, now: float) -> Ticket:
        """A ticket for an order that came now; it is not in the queue yet."""
        self._numbers += 1
        account = self.shares.account(order.client)
        level = account.quota.level(order.priority)
        rank = now + level * self._ageing_seconds
        size = sum(map(len, order.inputs))
        return Ticket(
            order, lane_of(order), account, level, now, rank, self._numbers, size, now + order.deadline_seconds
        )

    def push(self, ticket: Ticket) -> None:
        """Put it in. One that comes back from a lost worker keeps its rank, and gets back what it was charged."""
        ticket.queued = True
        ticket.started_at, ticket.batch = -1.0, None
        if ticket.taken:
            self.landed(ticket, 0.0)
        heaps = self._lanes.setdefault(ticket.lane, {})
        heapq.heappush(heaps.setdefault(ticket.account.client, []), (ticket.rank, ticket.number, ticket))
        self.shares.enqueue(ticket.account, ticket.level, ticket.expected_seconds)
        self.count += 1
        self.bytes += ticket.input_bytes
        if ticket.deadline_at < math.inf:
            self._marks += 1  # it may stand here twice, once for each time it was put in
            heapq.heappush(self._deadlines, (ticket.deadline_at, self._marks, ticket))
            self._prune()

    def pop(self, lane: Lane) -> Ticket:
        """Take the head of this lane and charge its identity. Raises KeyError when the lane is empty."""
        heaps = self._lanes[lane]
        client = self._next_client(heaps) if len(heaps) > 1 else next(iter(heaps))
        self.shares.tick()
        return self._pop_from(lane, client)

    def behind(self, ticket: Ticket) -> int:
        """How many rows of the same kind wait behind this ticket, which was taken out: as far as batches care."""
        heap = self._lanes.get(ticket.lane, {}).get(ticket.account.client, ())
        return sum(entry[2].rows for entry in heap[:BEHIND_MAX] if entry[2].kind == ticket.kind)

    def mates(self, ticket: Ticket, rows_max: int) -> list[Ticket]:
        """Take out what stands right behind this ticket and may run in one batch with it, `rows_max` rows in all.

        Only of the same identity: a model could be built to let one row of a batch see another.
        """
        found: list[Ticket] = []
        rows = ticket.rows
        while ticket.kind is not None and (heaps := self._lanes.get(ticket.lane)) is not None:
            heap = heaps.get(ticket.account.client)
            if not heap or heap[0][2].kind != ticket.kind or rows + heap[0][2].rows > rows_max:
                break
            rows += heap[0][2].rows
            found.append(self._pop_from(ticket.lane, ticket.account.client))
        return found

    def remove(self, ticket: Ticket) -> None:
        """Take out a queued ticket wherever it stands: linear, and the queue is bounded."""
        heap = self._lanes[ticket.lane][ticket.account.client]
        heap.remove((ticket.rank, ticket.number, ticket))
        heapq.heapify(heap)
        self._took_out(ticket)

    def landed(self, ticket: Ticket, seconds: float) -> None:
        """One that was taken out used this much worker time: correct what its identity was charged."""
        if ticket.taken:
            ticket.taken = False
            ticket.account.running -= 1
            self.shares.charge(ticket.account, seconds - ticket.charged_seconds)
            ticket.charged_seconds = 0.0

    def lanes(self, count_max: int) -> Iterator[Lane]:
        """The first lanes in the order of their turns."""
        if len(self._lanes) == 1:
            return iter(tuple(self._lanes))
        urgency = self._urgencies()
        turns: list[tuple[_Turn, Lane]] = [
            (min(self._turn(urgency, client, heap) for client, heap in heaps.items()), lane)
            for lane, heaps in self._lanes.items()
        ]
        return (lane for _, lane in heapq.nsmallest(count_max, turns, key=lambda turn: turn[0]))

    def head(self, lane: Lane) -> Ticket:
        """The next ticket of this lane."""
        heaps = self._lanes[lane]
        client = self._next_client(heaps) if len(heaps) > 1 else next(iter(heaps))
        return heaps[client][0][2]

    # ---- bounds

    def last_of(self, account: Account) -> Ticket | None:
        """The ticket of this identity that would be served last: it is the one to give up when the room is full."""
        heaps = [heaps[account.client] for heaps in self._lanes.values() if account.client in heaps]
        last = max((entry for heap in heaps for entry in heap), key=lambda entry: entry[:2], default=None)
        return None if last is None else last[2]

    def next_deadline(self) -> float:
        """When `overdue` will have something, at the earliest; infinity when nothing has a deadline."""
        while self._deadlines and not self._deadlines[0][2].queued:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def overdue(self, now: float) -> list[Ticket]:
        """Take out every ticket that waits past its deadline."""
        found = []
        while self.next_deadline() <= now:
            ticket = heapq.heappop(self._deadlines)[2]
            self.remove(ticket)
            found.append(ticket)
        return found

    # ---- parts

    def _urgencies(self) -> dict[bytes, float]:
        """Per identity: charged time, and the level of its best ticket as a head start."""
        best: dict[bytes, tuple[float, int, int]] = {}
        for heaps in self._lanes.values():
            for client, heap in heaps.items():
                rank, number, ticket = heap[0]
                entry = (rank, number, ticket.level)
                if client not in best or entry < best[client]:
                    best[client] = entry
        return {
            account.client: account.virtual + best[account.client][2] * self._head_start_seconds
            for account in self.shares.waiting
        }

    def _turn(self, urgency: dict[bytes, float], client: bytes, heap: _Heap) -> _Turn:
        return (urgency[client], heap[0][0], heap[0][1])

    def _next_client(self, heaps: dict[bytes, _Heap]) -> bytes:
        urgency = self._urgencies()
        return min(heaps, key=lambda client: self._turn(urgency, client, heaps[client]))

    def _pop_from(self, lane: Lane, client: bytes) -> Ticket:
        ticket = heapq.heappop(self._lanes[lane][client])[2]
        self._took_out(ticket)
        ticket.taken = True
        ticket.account.running += 1
        ticket.charged_seconds = ticket.expected_seconds
        self.shares.charge(ticket.account, ticket.expected_seconds)
        return ticket

    def _took_out(self, ticket: Ticket) -> None:
        ticket.queued = False
        self.count -= 1
        self.bytes -= ticket.input_bytes
        self.shares.dequeue(ticket.account, ticket.level, ticket.expected_seconds)
        heaps = self._lanes[ticket.lane]
        if not heaps[ticket.account.client]:
            del heaps[ticket.account.client]
            if not heaps:
                del self._lanes[ticket.lane]

    def _prune(self) -> None:
        """Entries of tickets that are gone are dropped when they outnumber the others: the list stays bounded."""
        if len(self._deadlines) > 2 * self.count + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].queued]
            heapq.heapify(self._deadlines)
