"""How jobs ended, their receipts and blobs, from the journal: what is long is read in a thread.

Rule: the loop reads what is small itself, because a thread costs more than that; nothing else keeps it waiting.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

from dimnode.api.port import Answer
from dimnode.limits import StoreLimits
from dimnode.node.receipts import gone, make_receipt
from dimnode.records.envelope import open_envelope
from dimnode.records.ids import Cid, RecordId
from dimnode.store.reader import Reader

T = TypeVar("T")


class LongReads:
    """Reads of one journal; a few at a time, because each holds its bytes."""

    def __init__(self, journal: Reader, limits: StoreLimits) -> None:
        self._journal, self._limits = journal, limits
        self._places = trio.CapacityLimiter(limits.long_reads_at_once_max)

    async def whatever_is_left(self, job: RecordId) -> Answer | None:
        """See `end_of`."""
        return await self._read(job, lambda reader: end_of(reader, job))

    async def end(self, job: RecordId) -> Answer | None:
        """As `end_of`. Raises `Refused` E-job-15 when the output's bytes made room for newer jobs."""
        ended = await self.whatever_is_left(job)
        if ended is not None and None in ended["outputs"]:
            raise gone(ended["status"])
        return ended

    async def receipt(self, job: RecordId) -> bytes:
        """See `make_receipt`."""
        return await self._read(job, lambda reader: make_receipt(reader, job))

    async def blob(self, job: RecordId, cid: Cid) -> bytes | None:
        """An input or output of a job, when its bytes are here."""
        query = "SELECT 1 FROM openings o JOIN records r ON r.id = o.record WHERE r.job=? AND o.cid=? LIMIT 1"
        if not self._journal.rows(query, (job, cid)):
            return None
        return await self._read(job, lambda reader: reader.blob(cid))

    async def _read(self, job: RecordId, read: Callable[[Reader], T]) -> T:
        if self._journal.blob_bytes(job) <= self._limits.read_in_loop_bytes_max:
            return read(self._journal)

        def apart() -> T:
            with self._journal.apart() as reader:
                return read(reader)

        async with self._places:
            return await trio.to_thread.run_sync(apart)


def end_of(journal: Reader, job: RecordId) -> Answer | None:
    """Verdict, status and output bytes of an ended job; None for bytes that the journal let go of."""
    found = journal.end_of(job)
    if found is None:
        return None
    verdict, status = found
    envelope = journal.envelope(verdict)
    assert envelope is not None
    said = open_envelope(envelope, check_signature=False).payload
    cids = {}
    query = "SELECT o.ref, o.cid FROM openings o JOIN records r ON r.id = o.record WHERE r.job=?"
    for ref, cid in journal.rows(query, (job,)):
        cids[ref] = Cid(cid)
    outputs = [journal.blob(cids[ref]) for ref in said["outputs"] if ref in cids]
    ended: Answer = {"job": job, "status": status, "verdict": verdict, "outputs": outputs}
    if "code" in said:
        ended |= {"code": said["code"], "reason": said.get("reason", "")}
    return ended
