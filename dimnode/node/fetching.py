"""Task frames whose blobs were too large to travel in them: the blobs are fetched first.

Rule: all blobs of a frame together have one bound and one deadline, and leases that strangers send never keep an
answer waiting that this node asked for.
"""

import logging
from collections import Counter
from dataclasses import replace

import trio

from dimnode.jobs.events import Key
from dimnode.limits import Limits
from dimnode.p2p.blobs import fetch_blob
from dimnode.p2p.frames import TaskFrame
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.records.ids import Cid, PeerId, cid_text, peer_text

log = logging.getLogger(__name__)


class Fetching:
    """What is being fetched now: few leases, and every awaited answer in its turn."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._leases: Counter[PeerId] = Counter()
        self._answers: set[tuple[PeerId, Key]] = set()
        self._turn = trio.CapacityLimiter(limits.peers.blob_fetches_max)

    def begin(self, peer: PeerId, frame: TaskFrame) -> bool:
        """True when the blobs of this frame are to be fetched; then `fetch` must follow.

        Of answers only those come here whose lease is out, so there are no more of them than leases.
        """
        limits = self._limits.peers
        if frame.what == "answer":
            if (peer, frame.key) in self._answers:
                return False
            self._answers.add((peer, frame.key))
            return True
        if self._leases[peer] >= limits.blob_fetches_per_peer or self._leases.total() >= limits.blob_fetches_max:
            return False
        self._leases[peer] += 1
        return True

    async def fetch(self, host: Host, peer: PeerId, frame: TaskFrame) -> dict[Cid, bytes] | None:
        """The missing blobs; None when peer or time was lost. Raises `PeerFault`: refused, wrong or too many."""
        try:
            if frame.what != "answer":
                return await self._all(host, peer, frame)
            async with self._turn:
                return await self._all(host, peer, frame)
        except (DialFailed, StreamLost, trio.TooSlowError) as error:
            log.info("blobs did not come: %r", error)
            return None
        finally:
            self._end(peer, frame)

    async def _all(self, host: Host, peer: PeerId, frame: TaskFrame) -> dict[Cid, bytes]:
        fetched: dict[Cid, bytes] = {}
        room_bytes = self._limits.exec.input_bytes_max - sum(map(len, frame.blobs))
        with trio.fail_after(self._limits.peers.blob_seconds_max):
            for opening in frame.missing():
                fetched[opening.cid] = await fetch_blob(host, peer, opening.cid, room_bytes)
                room_bytes -= len(fetched[opening.cid])
        return fetched

    def _end(self, peer: PeerId, frame: TaskFrame) -> None:
        if frame.what == "answer":
            self._answers.discard((peer, frame.key))
            return
        self._leases[peer] -= 1
        if not self._leases[peer]:
            del self._leases[peer]


def busy(
    frame: TaskFrame, limits: Limits, code: str = "E-jobs-22", text: str = "too much is being fetched"
) -> TaskFrame:
    """What is said to a lease that cannot be taken in now."""
    return TaskFrame("refused", frame.key, code=code, text=text, retry_after_ms=limits.jobs.retry_after_ms_min)


def split_large(frame: TaskFrame, inline_bytes_max: int) -> tuple[TaskFrame, tuple[Cid, ...]]:
    """The frame without blobs that would make it too large, and their CIDs."""
    if sum(map(len, frame.blobs)) <= inline_bytes_max:
        return frame, ()
    pairs = list(zip(frame.openings, frame.blobs, strict=True))
    large = tuple(opening.cid for opening, blob in pairs if len(blob) > inline_bytes_max // max(len(pairs), 1))
    kept = tuple(blob for opening, blob in pairs if opening.cid not in large)
    return replace(frame, blobs=kept), large


def about(peer: PeerId, frame: TaskFrame) -> dict[str, str | int]:
    """For the log."""
    return {"peer": peer_text(peer), "job": cid_text(frame.key[0]), "task": frame.key[1]}
