"""Deadlines that are kept, moved and dropped in constant time.

Rule: a deadline that is no longer needed leaves no trace; at 2,000 leases a second, timers that linger until they
fire would be 60,000 entries. Deadlines fall into buckets, so they fire up to one bucket late, never early.
Pure: no I/O, no clock.
"""

from heapq import heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")
_BUCKETS_PER_SECOND = 4


class Deadlines(Generic[K]):
    """At most one deadline per key. `buckets_per_second` is how exactly they fire; coarse ones wake the loop less."""

    __slots__ = ("_bucket_of", "_buckets", "_heap", "_queued", "_rate")

    def __init__(self, buckets_per_second: int = _BUCKETS_PER_SECOND) -> None:
        self._rate = buckets_per_second
        self._bucket_of: dict[K, int] = {}
        self._buckets: dict[int, dict[K, None]] = {}
        # Bucket numbers, the earliest first, each once; a number whose bucket is gone is dropped when it comes up.
        self._heap: list[int] = []
        self._queued: set[int] = set()

    def __len__(self) -> int:
        return len(self._bucket_of)

    def set(self, key: K, mono: float) -> None:
        """Set or move the deadline of `key`."""
        bucket = int(mono * self._rate) + 1
        before = self._bucket_of.get(key)
        if before == bucket:
            return
        if before is not None:
            self.drop(key)
        self._bucket_of[key] = bucket
        keys = self._buckets.get(bucket)
        if keys is not None:
            keys[key] = None
            return
        self._buckets[bucket] = {key: None}
        if bucket not in self._queued:
            self._queued.add(bucket)
            heappush(self._heap, bucket)

    def drop(self, key: K) -> None:
        """Forget the deadline of `key`, if it has one."""
        bucket = self._bucket_of.pop(key, None)
        if bucket is None:
            return
        keys = self._buckets[bucket]
        del keys[key]
        if not keys:
            del self._buckets[bucket]

    def due(self) -> float | None:
        """When the earliest deadline fires, or None."""
        heap, buckets = self._heap, self._buckets
        while heap:
            if heap[0] in buckets:
                return heap[0] / self._rate
            self._queued.discard(heappop(heap))
        return None

    def pop(self, mono: float) -> list[K]:
        """The keys whose deadlines have passed, earliest first; they have none any more."""
        fired: list[K] = []
        while (due := self.due()) is not None and due <= mono:
            keys = self._buckets.pop(self._heap[0])
            for key in keys:
                del self._bucket_of[key]
            fired.extend(keys)
        return fired


def earliest(*moments: float | None) -> float | None:
    """The first of several moments, or None when there is none."""
    first: float | None = None
    for moment in moments:
        if moment is not None and (first is None or moment < first):
            first = moment
    return first
