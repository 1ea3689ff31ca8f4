"""The blob folder at the start: what a crash left is finished or removed.

Rule: a file under a blob's name without a row counts when hashing it gives that name, and goes otherwise; what is not
ours is neither opened nor removed.
"""

import logging
import os
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from dimnode.limits import StoreLimits
from dimnode.records.ids import Cid
from dimnode.store import blob_files as files
from dimnode.store.blob_book import BlobBook
from dimnode.store.hashing import hash_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """How many blobs were taken in by their files, how many went, names that are not ours, and altered blobs."""

    adopted: int
    removed: int
    foreign: tuple[str, ...]
    damaged: tuple[Cid, ...] = ()


def scan(folder: Path, book: BlobBook, limits: StoreLimits) -> Found:
    """Make folder and book agree. Blocks; hashes only files that the book does not know as they are."""
    whole: set[Cid] = set()
    foreign: list[str] = []
    damaged: list[Cid] = []
    adopted = removed = 0
    for path in sorted(folder.iterdir()):
        named, said = files.root_of_name(path.name), files.plain(path)
        if said is not None and path.name.endswith(files.ADDING):
            path.unlink()
        elif named is None or said is None or named[1] not in ("", files.TREE, files.PART, files.HAVE):
            foreign.append(path.name)
            log.warning("%r does not belong into the blob folder: it is left alone", path.name)
        elif not named[1]:
            blob = book.find(named[0])
            if blob is None or (said.st_size, said.st_mtime_ns) != (blob.bytes, blob.file_ns):
                if not _holds(named[0], path, limits.blob_bytes_max):
                    log.warning("%s is not what its name says: removed", path.name)
                    path.unlink()
                    removed += 1
                    if blob is not None:
                        damaged.append(named[0])
                    continue
                book.put(named[0], said.st_size, said.st_mtime_ns, time.time_ns() // 1_000_000)
                adopted += 1
            whole.add(named[0])
    for blob in book.all():
        if blob.root not in whole:
            book.forget(blob.root)
            removed += 1
    sweep_rests(folder, whole, (), limits)
    return Found(adopted, removed, tuple(foreign), tuple(damaged[: limits.blobs_damaged_told_max]))


def sweep_rests(folder: Path, whole: Container[Cid], coming: Container[Cid], limits: StoreLimits) -> None:
    """Parts that nobody came back for, and trees and notes that belong to nothing. `coming`: left alone."""
    oldest = time.time() - limits.blob_part_kept_seconds
    for path in sorted(folder.iterdir(), reverse=True):  # .part before .have and .dag
        named, said = files.root_of_name(path.name), files.plain(path)
        if named is None or said is None or named[0] in coming:
            continue
        root, ending = named
        part = folder / (files.name_of(root) + files.PART)
        stale = ending == files.PART and (root in whole or said.st_mtime < oldest)
        lone = ending == files.HAVE and not part.exists()
        treeless = ending == files.TREE and root not in whole and not part.exists()
        if stale or lone or treeless:
            path.unlink(missing_ok=True)


def left_parts(folder: Path, coming: Container[Cid | None]) -> list[tuple[Path, os.stat_result]]:
    """Parts that nobody takes up now, the oldest first. `coming`: left out."""
    found = []
    for path in folder.glob("*" + files.PART):
        named, said = files.root_of_name(path.name), files.plain(path)
        if named is not None and said is not None and named[0] not in coming:
            found.append((path, said))
    return sorted(found, key=lambda each: each[1].st_mtime)


def _holds(root: Cid, path: Path, bytes_max: int) -> bool:
    try:
        with os.fdopen(files.open_plain(path), "rb", buffering=0) as file:
            return hash_stream(file, bytes_max)[0].root == root
    except OSError:
        return False
