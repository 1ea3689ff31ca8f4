"""Files that HTTP clients hand in ahead of a job or a model: named by their CID, for a day.

Rule: a file's name is made from its content, never from what a client says; it is whole or not there; all together
have a bound, and the oldest go first.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any, Final

from dimnode.errors import Refused
from dimnode.limits import HttpLimits
from dimnode.records.ids import BLOB_PREFIX, Cid, cid_text

UPLOADS_FOLDER: Final = "uploads"


class Draft:
    """One upload that is not whole yet. `write` blocks as long as the disk does: call it in a thread."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder, self._bytes_max = folder, bytes_max
        self._path = folder / f"{os.urandom(8).hex()}.part"
        self._file = self._path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Raises `Refused` E-http-06 beyond the bound, E-jobs-24 when the disk is full."""
        self.bytes += len(chunk)
        if self.bytes > self._bytes_max:
            raise Refused("E-http-06", "the body is too large", f"at most {self._bytes_max} bytes", "send less")
        self._hash.update(chunk)
        try:
            self._file.write(chunk)
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
        """It never became whole. Harmless after `keep`."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Uploads:
    """The folder."""

    def __init__(self, home: Path, limits: HttpLimits) -> None:
        self._folder, self._limits = home / UPLOADS_FOLDER, limits

    def begin(self) -> Draft:
        """A new one. Raises `Refused` when this file system takes none."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return Draft(self._folder, self._limits.upload_bytes_max)
        except OSError as error:
            raise Refused("E-jobs-24", "no upload can be taken now", error.strerror or "", "", 5000) from None

    def path(self, cid: Cid) -> Path | None:
        """Where it is, while it is."""
        path = self._folder / cid_text(cid)
        return path if path.is_file() else None

    def sweep(self, now: float | None = None) -> int:
        """Remove what is too old, what was never finished, and the oldest beyond the bound; how many went."""
        now, room, gone = time.time() if now is None else now, self._limits.uploads_bytes_max, 0
        if not self._folder.is_dir():
            return 0
        for age, path, size in sorted(self._files(now)):  # youngest first
            room -= size
            if age > self._limits.upload_kept_seconds or room < 0:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _files(self, now: float) -> list[tuple[float, Path, int]]:
        found: list[Any] = []
        for path in self._folder.iterdir():
            try:
                said = path.stat()
            except FileNotFoundError:
                continue
            found.append((now - said.st_mtime, path, said.st_size))
        return found
