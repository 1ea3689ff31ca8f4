"""A blob that is on its way: a sparse file that fills leaf by leaf, and which leaves it has.

Rule: a leaf is written only when its hash is the one that the tree names, and noted (one byte of the `.have` file) only
after it was written. So the death of the process costs nothing that was written, and what the file says of itself is a
hint: whoever opens it again checks each noted leaf's hash before it counts (a loss of power keeps no order).
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dimnode.errors import PeerFault, Refused
from dimnode.limits import StoreLimits
from dimnode.posix.files import NO_LINK, fchmod, pwrite
from dimnode.records.unixfs import LEAF_BYTES, Tree
from dimnode.store import blob_files as files
from dimnode.store.hashing import Progress, silent


class Part:
    """Made by `BlobStore.part`. Its methods block and may be called from several threads."""

    def __init__(self, folder: Path, tree: Tree, limits: StoreLimits, over: Callable[["Part"], None]) -> None:
        self.tree, self.layout = tree, tree.layout
        self.path = folder / (files.name_of(tree.root) + files.PART)
        self._have_path = folder / (files.name_of(tree.root) + files.HAVE)
        self._limits, self._over = limits, over
        self._lock = threading.Lock()
        self.have = bytearray(self.layout.leaves)
        self.done_bytes = 0
        self._file = self._notes = -1
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | NO_LINK
        try:
            for path in (self.path, self._have_path):
                if path.is_symlink() or (path.exists() and files.plain(path) is None):
                    raise Refused("E-store-32", f"{path} is no plain file", "somebody put it there", "move it away")
            self._file = os.open(self.path, flags, 0o600)
            self._notes = os.open(self._have_path, flags, 0o600)
            os.ftruncate(self._file, self.tree.file_bytes)  # sparse: holes take no room
            os.ftruncate(self._notes, self.layout.leaves)
        except OSError as error:
            self.close()
            raise files.refusal_of(error, "the blob cannot be taken in") from None

    def recheck(self, progress: Progress = silent) -> None:
        """Read what an earlier run has left: a noted leaf counts when its hash holds. Raises `Refused`."""
        try:
            noted = files.read_at(self._notes, 0, self.layout.leaves)
            for leaf in (leaf for leaf, note in enumerate(noted) if note):
                if hashlib.sha256(self.read(leaf)).digest() == self.tree.digest(leaf):
                    self._count(leaf)
                else:
                    pwrite(self._notes, b"\0", leaf)
                progress(self.done_bytes, self.tree.file_bytes)
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be taken up again") from None

    def write(self, leaf: int, pieces: Sequence[bytes | memoryview], digest: bytes | None = None) -> bool:
        """A leaf in pieces, in order; False when it was there already. digest: their SHA-256, when the caller has it.

        Raises `PeerFault` when it is not the leaf, and nothing was written; `Refused` E-store-31 when the disk is full.
        """
        # One hash and one write over the whole: each piece would wait for Python's lock twice.
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        digest = digest or hashlib.sha256(content).digest()
        if len(content) != self.layout.size(0, leaf) or digest != self.tree.digest(leaf):
            raise PeerFault("blob: wrong leaf")
        if self.have[leaf]:
            return False
        try:
            files.write_at(self._file, content, leaf * LEAF_BYTES)
            pwrite(self._notes, b"\1", leaf)  # not through a mapping: a full disk would kill the process
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be taken in") from None
        return self._count(leaf)

    def _count(self, leaf: int) -> bool:
        with self._lock:
            if self.have[leaf]:
                return False
            self.have[leaf] = 1
            self.done_bytes += self.layout.size(0, leaf)
            return True

    def read(self, leaf: int) -> bytes:
        """A leaf's bytes as they are in the file. Raises `OSError`."""
        return files.read_at(self._file, leaf * LEAF_BYTES, self.layout.size(0, leaf))

    def missing(self) -> list[int]:
        """Leaves that are not here."""
        return [leaf for leaf, here in enumerate(self.have) if not here]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return 0 not in self.have

    def sync(self) -> None:
        """What was written is on the disk when this returns. Raises `Refused`."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise files.refusal_of(error, "the blob cannot be taken in") from None

    def stamp(self) -> int:
        """Make it read-only, for it will not change again; when it was changed last, in ns."""
        fchmod(self._file, 0o400)
        return os.fstat(self._file).st_mtime_ns

    def close(self) -> None:
        """Stop; what is there stays for the next time. Idempotent."""
        for descriptor in (self._file, self._notes):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._notes = -1
        self._over(self)

    def discard(self) -> None:
        """Stop, and keep nothing."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._have_path.unlink(missing_ok=True)

    def done(self) -> None:
        """The file has its final name: the notes go."""
        self.close()
        self._have_path.unlink(missing_ok=True)
