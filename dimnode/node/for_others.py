"""Models that are here because others needed them: how much room they take, and which of them may go.

Rule: one stays as long as tasks run it now and then. What nobody needs any more makes room for what somebody needs, so
that the room of others is never full for good.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import RecordId
from dimnode.records.manifest import Manifest


class ForOthers:
    """Which, and when a task ran them last, on the monotonic clock; a start counts as use.

    manifest: of a model that is here whole. usable: whether its publisher did not take it back.
    """

    def __init__(
        self,
        manifest: Callable[[RecordId], Record | None],
        usable: Callable[[Record], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manifest, self._usable, self._now = manifest, usable, now
        self._used: dict[RecordId, float] = {}

    def add(self, model: RecordId) -> None:
        """It came for others."""
        self._used[model] = self._now()

    def discard(self, model: RecordId) -> None:
        """It is here for its own sake from now on, or no longer here."""
        self._used.pop(model, None)

    def used(self, model: RecordId) -> None:
        """A task runs it."""
        if model in self._used:
            self._used[model] = self._now()

    def __contains__(self, model: object) -> bool:
        return model in self._used

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._here())

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return _bytes(self._here().values())

    @property
    def spare_bytes(self) -> int:
        """Of those that go when others need room."""
        here = self._here()
        return _bytes(here[model] for model in self.spare())

    def spare(self) -> list[RecordId]:
        """Those that may go: withdrawn ones, then those that no task ran for long, the longest first."""
        idle_since = self._now() - LIMITS.peers.model_for_others_seconds
        found = [(self._usable(record), self._used[model], model) for model, record in self._here().items()]
        return [model for usable, used, model in sorted(found) if not usable or used < idle_since]

    def _here(self) -> Mapping[RecordId, Record]:
        return {model: record for model in self._used if (record := self._manifest(model)) is not None}


def _bytes(records: Iterable[Record]) -> int:
    return sum(Manifest.of(record).size_bytes for record in records)
