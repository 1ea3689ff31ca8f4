"""A blob out of the operator's Kubo daemon into the store: one more place to fetch from.

Rule: tree first, then leaves, each compared with the hash that names it before it is written. Whatever goes wrong, what
came until then stays for the peers to complete.
"""

import io
import logging
from collections.abc import Callable, Iterator

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import KuboLimits
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, cid_text
from dimnode.records.unixfs import LEAF_BYTES, NODE_BYTES_MAX, Tree, TreeReader
from dimnode.store.blobs import BlobStore
from dimnode.store.kubo import Kubo
from dimnode.store.part import Part

log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]
"""Bytes so far, and in all."""


class _Counted:
    """How far it is."""

    def __init__(self, done: int, of: int, tell: Tell) -> None:
        self._done, self._of, self._tell = done, of, tell

    def more(self, count: int) -> None:
        """Tell it."""
        self._done += count
        self._tell(self._done, self._of)


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
                return await self._fetched(root, size_bytes, tell, deadline)
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

    async def _fetched(self, root: Cid, size_bytes: int | None, tell: Tell, deadline: trio.CancelScope) -> bool:
        if not self._kubo.looks_further and not await self._kubo.has(root):
            return False
        if root.startswith(BLOB_PREFIX):
            await self._leaf(root, size_bytes, tell)
            return True
        tree = await trio.to_thread.run_sync(self._blobs.known_tree, root) or await self._tree(root)
        if size_bytes not in (None, tree.file_bytes):
            raise PeerFault("blob: size")
        deadline.deadline += tree.file_bytes / self._limits.fetch_bytes_per_second_min
        await self._blob(tree, tell)
        return True

    async def _leaf(self, root: Cid, size_bytes: int | None, tell: Tell) -> None:
        raw = await self._kubo.block(root)
        if size_bytes not in (None, len(raw)):
            raise PeerFault("blob: size")
        await trio.to_thread.run_sync(self._blobs.add, io.BytesIO(raw))
        tell(len(raw), len(raw))

    async def _blob(self, tree: Tree, tell: Tell) -> None:
        part = await trio.to_thread.run_sync(self._blobs.part, tree)
        try:
            missing = part.missing()
            here = tree.file_bytes - sum(tree.layout.size(0, leaf) for leaf in missing)
            queue, counted = iter(missing), _Counted(here, tree.file_bytes, tell)
            failures: list[Exception] = []
            async with trio.open_nursery() as nursery:
                for _ in range(self._limits.calls_at_once_max):
                    nursery.start_soon(self._take, part, queue, counted, failures)
            if failures:
                raise failures[0]
            await trio.to_thread.run_sync(self._blobs.finish, part)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(part.close)

    async def _tree(self, root: Cid) -> Tree:
        reader = TreeReader(root)
        reader.take_root(await self._kubo.block(root, NODE_BYTES_MAX))
        while reader.wanted:
            (level, index), link = next(iter(reader.wanted.items()))
            reader.take(level, index, await self._kubo.block(link.cid, NODE_BYTES_MAX))
        assert reader.tree is not None and root.startswith(TREE_PREFIX)
        return reader.tree

    async def _take(self, part: Part, queue: Iterator[int], counted: _Counted, failures: list[Exception]) -> None:
        """The next leaf, until there is none or somebody failed."""
        for leaf in queue:
            if failures:
                return
            try:
                raw = await self._kubo.block(Cid(BLOB_PREFIX + part.tree.digest(leaf)), LEAF_BYTES)
                await trio.to_thread.run_sync(part.write, leaf, (raw,))
            except (Refused, PeerFault) as error:
                failures.append(error)
                return
            counted.more(len(raw))
