"""Receipts on their way to the submitters of foreign jobs, who may ask for them as often as they like.

Rule: one receipt is in memory once, however many streams it goes to, and what all of them take together has a bound. A
long one is made again only after a pause, and by one thread: the other is for this node's own people.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from dimnode.errors import Refused
from dimnode.node.foreign import Shares
from dimnode.records.ids import PeerId, RecordId

if TYPE_CHECKING:
    from dimnode.node.node import Node


class Outgoing:
    """One receipt while somebody waits for it or is sent it: `size` is what it may take, on the account of `group`."""

    def __init__(self, size: int, group: str, long: bool) -> None:
        self.size, self.group, self.long = size, group, long
        self.streams = 0
        self.making = trio.Lock()
        self.receipt: bytes | None = None


class ForeignReceipts:
    """All of them."""

    def __init__(self, node: Node) -> None:
        self._node, self._limits = node, node.limits.peers
        self._bytes = Shares(self._limits.foreign_receipts_bytes_max, self._limits)
        self._going: dict[RecordId, Outgoing] = {}
        self._made_at: OrderedDict[RecordId, float] = OrderedDict()  # of long ones
        self._long = trio.CapacityLimiter(1)

    @property
    def held(self) -> int:
        """Bytes of all of them together."""
        return self._bytes.held

    @asynccontextmanager
    async def of(self, job: RecordId, peer: PeerId, group: str) -> AsyncIterator[bytes]:
        """The receipt of an ended job, for one stream. Raises `Refused`: later."""
        going = self._going.get(job) or self._begin(job, peer, group)
        going.streams += 1
        try:
            async with going.making:
                if going.receipt is None:
                    going.receipt = await self._make(job, going.long)
            yield going.receipt
        finally:
            going.streams -= 1
            if not going.streams:
                del self._going[job]
                self._bytes.leave(peer, going.group, going.size)

    def _begin(self, job: RecordId, peer: PeerId, group: str) -> Outgoing:
        journal = self._node.journal
        size = min(journal.blob_bytes(job) + journal.record_bytes(job), self._node.limits.records.receipt_bytes_max)
        long = size > self._node.limits.store.read_in_loop_bytes_max
        pause = self._made_at.get(job, -math.inf) + self._limits.foreign_receipt_seconds_min - trio.current_time()
        if long and pause > 0:
            raise Refused("E-jobs-01", "this receipt was made just now", retry_after_ms=math.ceil(pause * 1000))
        if not self._bytes.take(peer, group, size):
            raise Refused("E-jobs-01", "too many receipts are on their way", retry_after_ms=1000)
        going = self._going[job] = Outgoing(size, group, long)
        return going

    async def _make(self, job: RecordId, long: bool) -> bytes:
        if not long:
            return await self._node.long_reads.receipt(job)
        async with self._long:
            self._made_at[job] = trio.current_time()
            self._made_at.move_to_end(job)
            if len(self._made_at) > self._limits.foreign_receipts_remembered_max:
                self._made_at.popitem(last=False)
            return await self._node.long_reads.receipt(job)
