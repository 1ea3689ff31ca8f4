"""A blob from somewhere that hands out single blocks: an operator's Kubo daemon, or an IPFS peer.

Rule: tree first, then leaves, each compared with the hash that names it before it is written. Whatever goes wrong, what
came until then stays for others to complete.
"""

import io
from collections.abc import Callable, Iterator
from typing import Protocol

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid
from dimnode.records.unixfs import LEAF_BYTES, NODE_BYTES_MAX, Tree, TreeReader
from dimnode.store.blobs import BlobStore
from dimnode.store.part import Part

Tell = Callable[[int, int], None]
"""Bytes so far, and in all."""


class BlockSource(Protocol):
    """Where blocks come from."""

    async def block(self, cid: Cid, bytes_max: int) -> bytes | memoryview:
        """One block, which has this hash. Raises `Refused`."""


class _Counted:
    """How far it is."""

    def __init__(self, done: int, of: int, tell: Tell) -> None:
        self._done, self._of, self._tell = done, of, tell

    def more(self, count: int) -> None:
        """Tell it."""
        self._done += count
        self._tell(self._done, self._of)


class BlockFetch:
    """A few blocks at a time."""

    def __init__(
        self,
        source: BlockSource,
        blobs: BlobStore,
        at_once: int,
        begun: Callable[[int], None] = lambda _: None,
    ) -> None:
        """begun: told the blob's size when that is known and its leaves are next."""
        self._source, self._blobs, self._at_once, self._begun = source, blobs, at_once, begun

    async def fetch(self, root: Cid, size_bytes: int | None, tell: Tell) -> None:
        """The blob is in the store when this returns. Raises `Refused`; `PeerFault` when it is none of ours."""
        if root.startswith(BLOB_PREFIX):
            await self._leaf(root, size_bytes, tell)
            return
        tree = await trio.to_thread.run_sync(self._blobs.known_tree, root) or await self._tree(root)
        if size_bytes not in (None, tree.file_bytes):
            raise PeerFault("blob: size")
        self._begun(tree.file_bytes)
        await self._blob(tree, tell)

    async def _leaf(self, root: Cid, size_bytes: int | None, tell: Tell) -> None:
        raw = await self._source.block(root, LEAF_BYTES)
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
                for _ in range(self._at_once):
                    nursery.start_soon(self._take, part, queue, counted, failures)
            if failures:
                raise failures[0]
            await trio.to_thread.run_sync(self._blobs.finish, part)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(part.close)

    async def _tree(self, root: Cid) -> Tree:
        reader = TreeReader(root)
        reader.take_root(bytes(await self._source.block(root, NODE_BYTES_MAX)))
        while reader.wanted:
            (level, index), link = next(iter(reader.wanted.items()))
            reader.take(level, index, bytes(await self._source.block(link.cid, NODE_BYTES_MAX)))
        assert reader.tree is not None and root.startswith(TREE_PREFIX)
        return reader.tree

    async def _take(self, part: Part, queue: Iterator[int], counted: _Counted, failures: list[Exception]) -> None:
        """The next leaf, until there is none or somebody failed."""
        for leaf in queue:
            if failures:
                return
            try:
                raw = await self._source.block(Cid(BLOB_PREFIX + part.tree.digest(leaf)), LEAF_BYTES)
                await trio.to_thread.run_sync(part.write, leaf, (raw,))
            except (Refused, PeerFault) as error:
                failures.append(error)
                return
            counted.more(len(raw))
