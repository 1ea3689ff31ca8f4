"""The waiting room: who is next, by priority, with ageing.

Rule: nobody starves. A ticket's rank is the moment it came plus one ageing period per level below high, fixed once:
a low order therefore waits behind high ones for at most two ageing periods, and no heap is ever rebuilt.
Tickets of one lane (one model) keep together, so that a warm worker finds its next one at once.
Pure: no I/O, no clock (`now` is an argument).
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from dimnode.exec.orders import Key, Order

LEVELS = {"high": 0, "normal": 1, "low": 2}

Lane = tuple[str, Key | None]
"""(model id, None), or (model id, order key) for work that must have a worker of its own."""


@dataclass(slots=True, eq=False)
class Ticket:
    """An order inside the pool, from offer to outcome. Times in seconds of one monotonic clock."""

    order: Order
    lane: Lane
    offered_at: float
    rank: float
    number: int
    input_bytes: int
    queued: bool = True
    cancelled: bool = False
    started_at: float = field(default=-1.0)


def lane_of(order: Order) -> Lane:
    """Foreign code that saw a cabinet's rows must meet nobody else's order: such work gets a lane of its own."""
    if order.model is None:
        return ("", None)
    return (order.model.id, order.key if order.rows is not None else None)


class OrderQueue:
    """A heap per lane; the lanes themselves are compared by their heads."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._lanes: dict[Lane, list[tuple[float, int, Ticket]]] = {}
        self._numbers = 0
        self.count = 0
        self.bytes = 0

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._lanes

    def ticket(self, order: Order, now: float) -> Ticket:
        """A ticket for an order that came now; it is not in the queue yet."""
        self._numbers += 1
        rank = now + LEVELS[order.priority] * self._ageing_seconds
        return Ticket(order, lane_of(order), now, rank, self._numbers, sum(map(len, order.inputs)))

    def push(self, ticket: Ticket) -> None:
        """Put it in. One that comes back from a lost worker keeps its rank, and so stands in front."""
        ticket.queued = True
        ticket.started_at = -1.0
        heapq.heappush(self._lanes.setdefault(ticket.lane, []), (ticket.rank, ticket.number, ticket))
        self.count += 1
        self.bytes += ticket.input_bytes

    def pop(self, lane: Lane) -> Ticket:
        """Take the head of this lane. Raises KeyError when the lane is empty."""
        heap = self._lanes[lane]
        ticket = heapq.heappop(heap)[2]
        self._took_out(ticket, heap)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a queued ticket wherever it stands: linear, and the queue is bounded."""
        heap = self._lanes[ticket.lane]
        heap.remove((ticket.rank, ticket.number, ticket))
        heapq.heapify(heap)
        self._took_out(ticket, heap)

    def lanes(self, count_max: int) -> Iterator[Lane]:
        """The first lanes in the order of their heads."""
        if len(self._lanes) == 1:
            return iter(tuple(self._lanes))
        heads = ((heap[0][0], heap[0][1], lane) for lane, heap in self._lanes.items())
        return (lane for _, _, lane in heapq.nsmallest(count_max, heads, key=lambda head: head[:2]))

    def head(self, lane: Lane) -> Ticket:
        """The next ticket of this lane."""
        return self._lanes[lane][0][2]

    def _took_out(self, ticket: Ticket, heap: list[tuple[float, int, Ticket]]) -> None:
        ticket.queued = False
        self.count -= 1
        self.bytes -= ticket.input_bytes
        if not heap:
            del self._lanes[ticket.lane]
