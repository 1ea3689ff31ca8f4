"""Files that HTTP clients hand in ahead of a job or a model: named by their CID, for a day.

Rule: a file's name is made from its content, never from what a client says; it is whole or not there; all together
have a bound, and the oldest go first.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dimnode.errors import Refused
from dimnode.limits import HttpLimits
from dimnode.records.ids import BLOB_PREFIX, Cid, cid_text

log = logging.getLogger(__name__)

UPLOADS_FOLDER: Final = "uploads"


class Draft:
    """One upload that is not whole yet. `write` blocks as long as the disk does: call it in a thread.

    `over` is called once, when it is whole or dropped.
    """

    def __init__(self, folder: Path, bytes_max: int, free_bytes_min: int, over: Callable[[], None]) -> None:
        self._folder, self._bytes_max, self._free_bytes_min = folder, bytes_max, free_bytes_min
        self._over: Callable[[], None] | None = over
        self._path = folder / f"{os.urandom(8).hex()}.part"
        self._file = self._path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Raises `Refused` E-http-06 beyond the bound, E-jobs-24 when the disk is nearly full: a node that cannot write
        its journal ends."""
        self.bytes += len(chunk)
        if self.bytes > self._bytes_max:
            raise Refused("E-http-06", "the body is too large", f"at most {self._bytes_max} bytes", "send less")
        self._hash.update(chunk)
        if shutil.disk_usage(self._folder).free - len(chunk) < self._free_bytes_min:
            raise Refused("E-jobs-24", "the disk of this node is nearly full", "", "", 5000)
        try:
            while chunk:  # an unbuffered file may take less than all
                chunk = chunk[self._file.write(chunk) :]
        except OSError as error:
            raise Refused("E-jobs-24", "the disk of this node is full", error.strerror or "", "", 5000) from None

    def keep(self) -> Cid:
        """It is whole: on the disk under its name."""
        os.fsync(self._file.fileno())
        self._file.close()
        cid = Cid(BLOB_PREFIX + self._hash.digest())
        os.replace(self._path, self._folder / cid_text(cid))
        return cid

    def drop(self) -> None:
        """It never became whole. Harmless after `keep`, which it follows."""
        if self._over is not None:
            self._over()
            self._over = None
        self._file.close()
        self._path.unlink(missing_ok=True)


class Uploads:
    """The folder."""

    def __init__(self, home: Path, limits: HttpLimits, free_bytes_min: int = 0) -> None:
        self._folder, self._limits, self._free_bytes_min = home / UPLOADS_FOLDER, limits, free_bytes_min

    def begin(self, bytes_max: int = 2**62, over: Callable[[], None] = lambda: None) -> Draft:
        """A new one. Raises `Refused` when this file system takes none."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return Draft(self._folder, min(bytes_max, self._limits.upload_bytes_max), self._free_bytes_min, over)
        except OSError as error:
            raise Refused("E-jobs-24", "no upload can be taken now", error.strerror or "", "", 5000) from None

    def path(self, cid: Cid) -> Path | None:
        """Where it is, while it is."""
        path = self._folder / cid_text(cid)
        return path if path.is_file() else None

    def sweep(self, now: float | None = None) -> int:
        """Remove what is too old, what was never finished, and the oldest beyond the bound; how many went."""
        now, room, gone = time.time() if now is None else now, self._limits.uploads_bytes_max, 0
        try:
            for age, path, size in sorted(self._files(now)):  # youngest first
                room -= size
                if age > self._limits.upload_kept_seconds or room < 0:
                    path.unlink(missing_ok=True)
                    gone += 1
        except OSError as error:  # no file left to open, or a failing disk: it ends no node, and is looked at again
            log.warning("uploads cannot be looked through now: %s", error)
        return gone

    def _files(self, now: float) -> list[tuple[float, Path, int]]:
        found: list[Any] = []
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                said = path.stat()
            except FileNotFoundError:
                continue
            found.append((now - said.st_mtime, path, max(said.st_size, self._limits.upload_least_bytes)))
        return found
