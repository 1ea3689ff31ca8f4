"""A blob out of the operator's Kubo daemon into the store: one more place to fetch from.

Rule: it is asked before all peers and has a bounded time; whatever goes wrong, what came until then stays for them to
complete.
"""

import logging

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import KuboLimits
from dimnode.node.block_fetch import BlockFetch, Tell
from dimnode.records.ids import Cid, cid_text
from dimnode.store.blobs import BlobStore
from dimnode.store.kubo import Kubo

log = logging.getLogger(__name__)


class KuboFetch:
    """A few requests at a time."""

    def __init__(self, kubo: Kubo, blobs: BlobStore, limits: KuboLimits) -> None:
        self._kubo, self._blobs, self._limits = kubo, blobs, limits

    async def fetch(self, root: Cid, size_bytes: int | None, tell: Tell) -> bool:
        """Whether the blob is in the store now. False: the daemon does not have it, or failed on the way.

        All calls together have a deadline, which the blob's size moves: each alone has one, too, but a daemon that
        takes nearly that long for every leaf would keep peers from being asked. Raises `Refused` only for what is wrong
        here: the disk is full, too many parts are open.
        """
        try:
            with trio.move_on_after(self._limits.fetch_seconds_min) as deadline:

                def more_time(file_bytes: int) -> None:
                    deadline.deadline += file_bytes / self._limits.fetch_bytes_per_second_min

                if not self._kubo.looks_further and not await self._kubo.has(root):
                    return False
                fetch = BlockFetch(self._kubo, self._blobs, self._limits.calls_at_once_max, more_time)
                await fetch.fetch(root, size_bytes, tell)
                return True
        except PeerFault as fault:
            log.warning("kubo: %s is not a blob of ours: %s", cid_text(root), fault.rule)
            return False
        except Refused as no:
            if not no.complaint.code.startswith("E-kubo-"):
                raise
            log.info("kubo: %s did not come: %s", cid_text(root), no)
            return False
        log.info("kubo: %s did not come in time", cid_text(root))
        return False
