"""What is read of the blob store: leaves of a blob, for whoever serves them, and its figures.

Rule: a reader has a descriptor of its own, so a blob may be finished, renamed or evicted while it is read.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dimnode.posix.files import read_at_once
from dimnode.records.unixfs import LEAF_BYTES, Tree
from dimnode.store import blob_files as files


@dataclass(frozen=True, slots=True)
class StoreStat:
    """Bytes on the disk: of whole blobs, of pinned ones among them, of unfinished ones; the bound on unpinned ones."""

    blobs: int
    bytes: int
    pinned_bytes: int
    parts: int
    part_bytes: int
    bytes_max: int
    free_bytes: int
    foreign: tuple[str, ...]


class Reader:
    """Leaves of a blob that is here, whole or in part, through a descriptor of its own. Close it."""

    def __init__(self, tree: Tree, descriptor: int, have: bytearray | None) -> None:
        self.tree, self.layout = tree, tree.layout
        self._descriptor, self._have = descriptor, have

    @property
    def whole(self) -> bool:
        """Whether every leaf is here."""
        return self._have is None or 0 not in self._have

    def have(self) -> bytes:
        """One byte a leaf: 1 when it is here."""
        return bytes([1]) * self.layout.leaves if self._have is None else bytes(self._have)

    def has(self, leaf: int) -> bool:
        """Whether this leaf is here."""
        return 0 <= leaf < self.layout.leaves and (self._have is None or bool(self._have[leaf]))

    def leaf(self, leaf: int) -> bytes:
        """Its bytes. Raises `OSError`."""
        return files.read_at(self._descriptor, leaf * LEAF_BYTES, self.layout.size(0, leaf))

    def leaf_at_once(self, leaf: int, places: Sequence[memoryview]) -> bool:
        """The same, into `places`, which are as long, if it is in memory: without waiting for the disk."""
        return read_at_once(self._descriptor, leaf * LEAF_BYTES, places)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
