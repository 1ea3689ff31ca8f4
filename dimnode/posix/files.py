"""Files: who owns them, how they are opened, and reading them at a place.

Rule: see `system.py`. Names of the standard library keep their name and their manual.
"""

import fcntl
import os
from collections.abc import Sequence
from typing import Final

NO_LINK: Final = os.O_NOFOLLOW
"""For `os.open`: fail when the last part of the path is a symbolic link."""
NO_WAIT: Final = os.O_NONBLOCK
"""For `os.open`: opening a pipe does not wait for somebody at its other end."""
_IN_MEMORY: Final[int] = getattr(os, "RWF_NOWAIT", 0)

fchmod = os.fchmod
pread = os.pread
pwrite = os.pwrite
set_blocking = os.set_blocking  # Windows has it since Python 3.12


def user() -> int:
    """The number of the user whose process this is."""
    return os.getuid()


def is_ours(found: os.stat_result) -> bool:
    """Whether it belongs to the user whose process this is."""
    return found.st_uid == os.getuid()


def read_at_once(descriptor: int, offset: int, places: Sequence[memoryview]) -> bool:
    """Fill `places` if all of it is in memory: without waiting for a disk. False when it is not, or nobody can tell
    (Linux can, since 4.14)."""
    try:
        return bool(_IN_MEMORY) and os.preadv(descriptor, places, offset, _IN_MEMORY) == sum(map(len, places))
    except OSError:  # also what a file system says that cannot tell
        return False


def lock_for_this_process(descriptor: int) -> None:
    """An exclusive lock that ends with the process. Raises BlockingIOError when another has it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
