"""Room on the disk, and for open files: while little is left, only this node's own work is taken in.

Rule: what a stranger sends ends in the journal, so a stranger must not be able to fill the disk and so stop the node.
"""

import logging
import shutil
from pathlib import Path

import trio

from dimnode.limits import Limits, StoreLimits
from dimnode.posix import processes

log = logging.getLogger(__name__)


class Space:
    """Looks now and then; `scarce` is what it saw last."""

    def __init__(self, home: Path, limits: StoreLimits) -> None:
        self._home, self._limits = home, limits
        self.scarce, self.free_bytes = False, 0

    def look(self) -> None:
        """Measure now."""
        self.free_bytes = free_bytes = shutil.disk_usage(self._home).free
        scarce = free_bytes < self._limits.free_bytes_min
        if scarce and not self.scarce:
            log.warning("%d bytes are free at %s: no work of others is taken in", free_bytes, self._home)
        self.scarce = scarce

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await trio.sleep(self._limits.free_look_seconds)


def allow_open_files(limits: Limits) -> None:
    """Systems give a program 256 (macOS) or 1024 files unless it asks for more, and each connection takes one."""
    processes.allow_open_files(limits.host.open_files_wanted)
