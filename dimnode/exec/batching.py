"""Micro-batches: which orders may run together, how many at a time, and when that is not worth it.

Rule: nobody can tell from an answer's value whether it was computed in a batch, beyond float rounding, and a model
whose rows are not independent is never batched. An order that asked for the same bits runs alone.
The window is the run before: orders that come while all workers of a model are busy are what the next batch is made
of. An idle worker never waits for a second order, because a batch on a CPU gains a quarter at best.
Pure: no I/O, no clock.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from dimnode.errors import PeerFault
from dimnode.exec.estimates import Mean
from dimnode.exec.orders import Order
from dimnode.records.tensors import tensor_heads
from dimnode.records.transforms import of_numbers

GAIN_MIN: Final = 0.03
"""A larger batch has to save this share of the time per row to be worth making others wait for it."""
TRIALS: Final = 4
APART_MAX: Final = 6
"""So many batches in a row that a worker did not run as such; the first two are checked, see `together`."""
RETRY_BATCHES: Final = 512
"""After so many batches the sizes next to the chosen one are measured anew: machines get busy and idle again."""


def batch_kind(order: Order) -> tuple[Hashable, int]:
    """What has to be equal for orders of one lane to share a batch (None: runs alone), and the rows of this one.

    The rows are the leading dimension that all tensors of all inputs have in common, 1 where there is none: what an
    order costs depends on them, also of one that runs alone because it asked for the same bits.
    """
    if order.op != "infer" or order.rows is not None or not order.inputs:
        return None, 1
    if order.model is not None and not of_numbers(order.model.facts.pre):
        return None, 1
    parts: list[Hashable] = []
    rows = -1
    for blob in order.inputs:
        try:
            heads = tensor_heads(blob)
        except PeerFault:
            return None, 1  # the worker says what is wrong with it
        for name, dtype, shape in heads:
            if not shape or 0 in shape or rows not in (-1, shape[0]):  # empty rows would seem to be cheap
                return None, 1
            rows = shape[0]
            parts.append((name, dtype, shape[1:]))
        parts.append(None)
    # The columns of a vector are its rows: a slice of them would be cut out of somebody else's.
    if any(take.start >= 0 for take in order.take) and any(part is not None and not part[2] for part in parts):  # type: ignore[index]
        return None, 1
    return None if order.deterministic else (order.take, tuple(parts)), rows


@dataclass(slots=True)
class BatchSizes:
    """How many rows a model's batches should have, learned from their times. One per model.

    Sizes double from 1 to `rows_max`. Each is tried a few times when there are orders for it, also where the one below
    it did not pay: one odd run must not hide that a larger one does.
    """

    rows_max: int
    seconds_max: float
    off: str = ""
    _per_row: dict[int, Mean] = field(default_factory=dict)
    _batches: int = 0

    def rows(self, waiting: int) -> int:
        """How many rows to put together when so many wait: 1 means one order at a time."""
        if self.off or waiting < 2:
            return 1
        size, best = 1, 1
        while size * 2 <= min(waiting, self.rows_max):
            size *= 2
            mean = self._per_row.get(size)
            if mean is None or mean.count < TRIALS:
                return size if self._bearable(size) else best
            if self._pays(size, best):
                best = size
        return best

    def ran(self, rows: int, seconds: float) -> None:
        """A run of this many rows took so long; counted under the size that it nearly filled."""
        size = 1 << (min(rows, self.rows_max).bit_length() - 1) if rows > 0 else 1
        self._per_row.setdefault(size, Mean()).add(seconds / max(rows, 1))
        self._batches += rows > 1
        if self._batches >= RETRY_BATCHES:
            self._batches = 0
            for known in self._per_row.values():
                known.count = min(known.count, TRIALS - 1)

    def switch_off(self, why: str) -> None:
        """Never again in this process: the rows are not independent, or the first dimension is fixed."""
        self.off = why

    def best(self) -> int:
        """The size that the measurements so far speak for."""
        best = 1
        for size in sorted(self._per_row):
            if size > 1 and self._pays(size, best):
                best = size
        return 1 if self.off else best

    def _pays(self, size: int, than: int) -> bool:
        one, other = self._per_row.get(size), self._per_row.get(than)
        if one is None or not self._bearable(size):
            return False
        return other is None or one.value < other.value * (1 - GAIN_MIN)

    def _bearable(self, size: int) -> bool:
        """A batch must not hold its first order for long."""
        per_row = self._per_row.get(size) or self._per_row.get(1)
        return per_row is None or per_row.value * size <= self.seconds_max


def share_of(waiting: int, free_workers: int) -> int:
    """How many of the waiting orders one of the free workers should take: the others want work too."""
    return -(-waiting // max(free_workers, 1))


@dataclass(slots=True)
class Batch:
    """`size` orders of `rows` rows in all, handed over as one; `left` of them are still to be answered.

    `seconds` is what their runs took so far; `together`: all that answered ran in one batch.
    """

    rows: int
    size: int
    left: int = -1
    seconds: float = 0.0
    together: bool = True

    def __post_init__(self) -> None:
        self.left = self.size


class Batches:
    """What has been learned about batches, by model; of the models used last."""

    def __init__(self, rows_max: int, seconds_max: float, models_max: int) -> None:
        self._rows_max, self._seconds_max, self._models_max = rows_max, seconds_max, models_max
        self._sizes: OrderedDict[str, BatchSizes] = OrderedDict()
        self._apart: Counter[str] = Counter()

    def of(self, model: str) -> BatchSizes:
        """This model's sizes."""
        found = self._sizes.get(model)
        if found is None:
            found = self._sizes[model] = BatchSizes(self._rows_max, self._seconds_max)
            if len(self._sizes) > self._models_max:
                forgotten, _ = self._sizes.popitem(last=False)
                del self._apart[forgotten]
        else:
            self._sizes.move_to_end(model)
        return found

    def ended(self, model: str, batch: Batch) -> None:
        """A batch is done. When its worker ran the orders one by one, again and again, there is nothing to be had."""
        if batch.together:
            self._apart[model] = 0
            self.of(model).ran(batch.rows, batch.seconds)
            return
        self._apart[model] += 1
        if self._apart[model] >= APART_MAX:
            self.of(model).switch_off("its worker runs orders one by one")
