"""Keeping the journal within its bound: what is over makes room, oldest first.

Rule: the bound is on what rows take (`max_cache_gb`). Only blobs can go (see `store.pruning`); when records alone are
more than the bound, nothing is left to take out, and that is said once.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.store.journal import Journal
from dimnode.store.pruning import disposable

log = logging.getLogger(__name__)


class Upkeep:
    """Looks now and then. What was written since the look before is young and stays, whatever the bound is."""

    def __init__(self, journal: Journal, path: Path, bytes_max: int, limits: Limits) -> None:
        self._journal, self._path, self._limits = journal, path, limits
        self.bytes_max = bytes_max
        self._before = 0
        self._said = False

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(self._limits.store.prune_look_seconds)

    async def look(self) -> int:
        """Measure now, and take out what is too much. How many blobs went."""
        before, self._before = self._before, self._journal.newest()
        used_bytes = self._journal.used_bytes()
        if used_bytes <= self.bytes_max:
            return 0
        wanted_bytes = used_bytes - self.bytes_max * self._limits.store.prune_to_permille // 1000
        kept_since_ms = wall_ms() - int(self._limits.jobs.answer_keep_seconds * 1000)
        search = partial(disposable, self._path, before, kept_since_ms, wanted_bytes)
        # mypy 1.x loses the keywords that follow trio's variadic arguments.
        try:
            found = await trio.to_thread.run_sync(search, abandon_on_cancel=True)  # type: ignore[call-arg]
        except sqlite3.Error as error:  # no file is left to read the journal with, say: that passes
            log.warning("the journal cannot be looked through for what is over now: %s", error)
            return 0
        for cids in self._portions(found.blobs):
            await self._journal.drop_blobs(cids, found.seen)
        if found.blobs:
            log.info("%d blobs of ended jobs were taken out: the journal had %d bytes", len(found.blobs), used_bytes)
        elif before and not self._said:
            self._said = True
            log.warning("the journal has %d bytes and nothing that could be taken out: max_cache_gb", used_bytes)
        return len(found.blobs)

    def _portions(self, blobs: Sequence[tuple[bytes, int]]) -> Iterator[list[bytes]]:
        """Few at a time: the node's own commits wait for each."""
        limits = self._limits.store
        portion: list[bytes] = []
        portion_bytes = 0
        for cid, size in blobs:
            portion.append(cid)
            portion_bytes += size
            if len(portion) >= limits.prune_blobs_per_commit or portion_bytes >= limits.prune_bytes_per_commit:
                yield portion
                portion, portion_bytes = [], 0
        if portion:
            yield portion
