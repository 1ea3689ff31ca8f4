"""One pass over a stream: its tree of hashes, and on the way a copy of it.

Rule: what is hashed is what is written; the bytes are read once and held a leaf at a time.
"""

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO

from dimnode.errors import Refused
from dimnode.records.ids import BLOB_PREFIX, Cid
from dimnode.records.unixfs import LEAF_BYTES, Tree, TreeBuilder
from dimnode.store import blob_files as files

Progress = Callable[[int, int], None]
"""Bytes so far, bytes in all; called from the thread that works."""


def silent(_done_bytes: int, _all_bytes: int) -> None:
    """Nobody watches."""


def hash_stream(
    file: BinaryIO,
    bytes_max: int,
    progress: Progress = silent,
    target: int | None = None,
    room_for: Callable[[int], None] = lambda _: None,
    *,
    whole: bool = False,
) -> tuple[Tree, Cid | None]:
    """Read to the end, writing to `target` on the way; the tree, and with `whole` the plain CID of all bytes.

    Raises `Refused` E-store-33 beyond `bytes_max`, `OSError` as the file does. `room_for` is asked before each leaf.
    """
    builder, all_bytes = TreeBuilder(), hashlib.sha256()
    size, total = 0, _size_of(file)
    check_size(total, bytes_max)
    leaf = memoryview(bytearray(LEAF_BYTES))
    while filled := _fill(file, leaf):
        size += filled
        check_size(size, bytes_max)
        builder.add(leaf[:filled])
        if whole:
            all_bytes.update(leaf[:filled])
        if target is not None:
            room_for(filled)
            files.write_all(target, leaf[:filled])
        progress(size, max(total, size))
        if filled < LEAF_BYTES:
            break
    return builder.finish(), Cid(BLOB_PREFIX + all_bytes.digest()) if whole else None


def check_size(size_bytes: int, bytes_max: int) -> None:
    """Raises `Refused` E-store-33: no disk that is large enough would help."""
    if size_bytes > bytes_max:
        raise Refused("E-store-33", "the blob is too large", f"at most {bytes_max} bytes", "split it")


def _fill(file: BinaryIO, leaf: memoryview) -> int:
    filled = 0
    while filled < len(leaf) and (count := file.readinto(leaf[filled:])):  # type: ignore[attr-defined]
        filled += count
    return filled


def _size_of(file: BinaryIO) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except (OSError, AttributeError):  # a stream in memory
        return 0
