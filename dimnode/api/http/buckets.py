"""Token buckets: how often somebody may ask.

Rule: bounded memory, whoever asks; the one not seen for longest is forgotten first, and comes back with a full bucket.
Pure: no I/O, `now` is an argument.
"""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_mono: float


class Buckets:
    """One bucket per name; `per_minute` tokens flow in, and a bucket holds what flows in within `burst_seconds`."""

    def __init__(self, names_max: int, burst_seconds: float) -> None:
        self._names_max, self._burst_seconds = names_max, burst_seconds
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, name: str, per_minute: int, now_mono: float) -> float:
        """Take a token: 0.0, or without taking one the seconds until there is one."""
        per_second = per_minute / 60
        most = max(1.0, per_second * self._burst_seconds)
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._names_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[name] = _Bucket(most, now_mono)
        self._buckets.move_to_end(name)
        bucket.tokens = min(most, bucket.tokens + (now_mono - bucket.filled_mono) * per_second)
        bucket.filled_mono = now_mono
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / per_second
        bucket.tokens -= 1
        return 0.0
