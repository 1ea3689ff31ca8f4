"""What models cost here: time by model and batch size, memory by model, learned from runs alone.

Rule: an estimate comes from measured runs or there is none; nothing is refused on a guess. Sizes are grouped by powers
of two, means follow a change within some ten runs, and only the models used last are remembered.
The mean and its deviation are kept as TCP keeps its round trip (RFC 6298: an eighth and a quarter).
Pure: no I/O, no clock.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

SIZE_CLASSES: Final = 24
TRIAL_EVERY: Final = 16
"""Of so many refusals for good of one model's orders, one is no refusal."""
FAR: Final = 8
"""No estimate reaches further than to so many times the rows that were measured."""
_MEAN_SHARE: Final = 8
_DEVIATION_SHARE: Final = 4


def size_class(rows: int) -> int:
    """1, 2, 3-4, 5-8, 9-16 … rows: the exponent of the next power of two."""
    return min(max(rows - 1, 0).bit_length(), SIZE_CLASSES - 1)


@dataclass(slots=True)
class Mean:
    """A running mean with its mean deviation."""

    value: float = 0.0
    deviation: float = 0.0
    count: int = 0

    def add(self, found: float) -> None:
        """One more measurement."""
        self.count += 1
        if self.count == 1:
            self.value, self.deviation = found, found / 2
            return
        # The first few count fully, so that one odd start does not stay for long.
        share = min(self.count, _MEAN_SHARE)
        self.deviation += (abs(found - self.value) - self.deviation) / min(self.count, _DEVIATION_SHARE)
        self.value += (found - self.value) / share


@dataclass(slots=True)
class _Cost:
    """One model. `base_bytes` is a worker's memory with the model loaded and nothing run, `peak_bytes` the most."""

    load: Mean = field(default_factory=Mean)
    run: dict[int, Mean] = field(default_factory=dict)
    rows_of: dict[int, Mean] = field(default_factory=dict)
    base_bytes: int = 0
    peak_bytes: dict[int, int] = field(default_factory=dict)
    refusals: int = 0

    def seconds_per_row(self, small: int, large: int) -> float:
        """By two sizes that ran; of one alone, what its rows cost if each costs the same."""
        if small == large:
            return self.run[large].value / self.rows_of[large].value
        rows = self.rows_of[large].value - self.rows_of[small].value
        return max(0.0, self.run[large].value - self.run[small].value) / rows


class CostRow(NamedTuple):
    """What is known of one model, in plain numbers, to be kept over a restart.

    `load` is mean seconds, deviation and count; `runs` are size class, mean seconds, deviation, count and mean rows;
    `peaks` size class and bytes.
    """

    model: str
    load: tuple[float, float, int]
    runs: tuple[tuple[int, float, float, int, float], ...]
    base_bytes: int
    peaks: tuple[tuple[int, int], ...]


class Estimates:
    """Costs by model (any hashable name: the pool uses the lane's model hash)."""

    def __init__(self, models_max: int) -> None:
        self._models_max = models_max
        self._costs: OrderedDict[str, _Cost] = OrderedDict()

    def __len__(self) -> int:
        return len(self._costs)

    # ---- what was measured

    def loaded(self, model: str, seconds: float) -> None:
        """A worker got this model ready."""
        self._of(model).load.add(seconds)

    def weighed(self, model: str, memory_bytes: int) -> None:
        """A worker with this model loaded takes so much, and has run nothing yet."""
        self._of(model).base_bytes = memory_bytes

    def ran(self, model: str, rows: int, seconds: float, memory_bytes: int = 0) -> None:
        """A run of this many rows took so long; `memory_bytes` is the worker's peak, 0: not measured."""
        cost, group = self._of(model), size_class(rows)
        cost.run.setdefault(group, Mean()).add(seconds)
        cost.rows_of.setdefault(group, Mean()).add(float(max(rows, 1)))
        if memory_bytes:
            # A peak never falls while its worker lives: only what a new worker reaches may lower it, and slowly.
            known = cost.peak_bytes.get(group, 0)
            cost.peak_bytes[group] = max(memory_bytes, known - known // _MEAN_SHARE)

    def peaked(self, model: str, rows: int, memory_bytes: int) -> None:
        """A worker was seen to take so much while it ran so many rows."""
        peaks, group = self._of(model).peak_bytes, size_class(rows)
        peaks[group] = max(memory_bytes, peaks.get(group, 0))

    # ---- over a restart

    def rows(self) -> list[CostRow]:
        """All that is known, the models used longest ago first."""
        return [_row(model, cost) for model, cost in self._costs.items()]

    def recall(self, row: CostRow) -> None:
        """What an earlier run measured. It counts as a few measurements, so that a change is soon seen."""
        cost = self._of(row.model)
        cost.load, cost.base_bytes, cost.peak_bytes = _mean(*row.load), row.base_bytes, dict(row.peaks)
        for group, value, deviation, count, rows in row.runs:
            cost.run[group], cost.rows_of[group] = _mean(value, deviation, count), _mean(rows, 0.0, count)

    def try_anyway(self, model: str) -> bool:
        """An order is about to be refused for good by what is known of this model; true for one in `TRIAL_EVERY`.

        What is refused is not measured: without a trial, an estimate that somebody's few heavy inputs drove up would
        keep everybody else out for as long as this process lives.
        """
        cost = self._costs.get(model)
        if cost is None:
            return False
        cost.refusals += 1
        return cost.refusals % TRIAL_EVERY == 0

    # ---- what is to be expected

    def run_seconds(self, model: str, rows: int) -> float | None:
        """The time to count with for a run of so many rows, or None when this model never ran here.

        From other sizes: fewer rows take at most as long as the least that was measured. More follow the line through
        the smallest and the largest size below, or are in proportion to the one there is; and no further than
        `FAR` times what was measured, because most of a small run is what every run costs, whatever its rows.
        """
        cost = self._costs.get(model)
        if cost is None or not cost.run:
            return None
        group = size_class(rows)
        if group in cost.run:
            return cost.run[group].value
        below = [known for known in cost.run if known < group]
        if not below:
            return cost.run[min(cost.run)].value
        most, seconds = cost.rows_of[max(below)].value, cost.run[max(below)].value
        return seconds + cost.seconds_per_row(min(below), max(below)) * max(min(rows, FAR * most) - most, 0.0)

    def known_seconds(self, model: str, rows: int) -> float | None:
        """What is known, not guessed, of how long such a run takes: the mean of its own size, or what a smaller size
        hardly beats, which may be nothing at all; None when this model never ran here."""
        cost = self._costs.get(model)
        known = cost.run.get(size_class(rows)) if cost is not None else None
        return known.value if known is not None else self.run_seconds_least(model, rows)

    def run_seconds_least(self, model: str, rows: int) -> float | None:
        """A time that a run of so many rows will hardly beat: the mean less twice its deviation, never negative."""
        cost = self._costs.get(model)
        if cost is None or not cost.run:
            return None
        known = cost.run.get(size_class(rows))
        if known is None:
            smaller = [mean for group, mean in cost.run.items() if group < size_class(rows)]
            known = max(smaller, key=lambda mean: mean.value, default=None)
        return max(0.0, known.value - 2 * known.deviation) if known is not None else 0.0

    def memory_bytes(self, model: str, rows: int = 1) -> int | None:
        """What a worker with this model takes while it runs so many rows; None when it was never measured."""
        cost = self._costs.get(model)
        if cost is None:
            return None
        peaks = [peak for group, peak in cost.peak_bytes.items() if group <= size_class(rows)]
        found = max(peaks, default=0) or cost.base_bytes
        return found or None

    def describe(self, model: str) -> Mapping[str, Any]:
        """For people: milliseconds by rows, and memory."""
        cost = self._costs.get(model)
        if cost is None:
            return {}
        runs = {str(2**group): round(mean.value * 1000, 3) for group, mean in sorted(cost.run.items())}
        return {
            "load_ms": round(cost.load.value * 1000, 1) if cost.load.count else None,
            "run_ms_by_rows": runs,
            "memory_bytes": max((cost.base_bytes, *cost.peak_bytes.values())) or None,
        }

    def _of(self, model: str) -> _Cost:
        found = self._costs.get(model)
        if found is None:
            found = self._costs[model] = _Cost()
            if len(self._costs) > self._models_max:
                self._costs.popitem(last=False)
        else:
            self._costs.move_to_end(model)
        return found


def _row(model: str, cost: _Cost) -> CostRow:
    runs = [(group, mean.value, mean.deviation, mean.count) for group, mean in cost.run.items()]
    load = cost.load.value, cost.load.deviation, cost.load.count
    with_rows = tuple((*run, cost.rows_of[run[0]].value) for run in runs)
    return CostRow(model, load, with_rows, cost.base_bytes, tuple(cost.peak_bytes.items()))


def _mean(value: float, deviation: float, count: int) -> Mean:
    return Mean(value, deviation, min(count, _MEAN_SHARE))
