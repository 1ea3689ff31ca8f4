"""Which system this is, and what it says of itself.

Rule of all files beside this one: what only some operating systems have stands here and nowhere else in dimnode
(tests/test_tidy.py), and nothing here decides. A function does one thing, and says by its result or an OSError that
this system does not have it; who asks knows what follows. What it must have is POSIX where nothing else is said.
Landlock's three system calls are in `exec/landlock.py`, which is about nothing else.
Tested on Linux; what is for macOS is written and not tested.
"""

import contextlib
import os
import sys
from typing import Final

LINUX: Final = sys.platform == "linux"
MACOS: Final = sys.platform == "darwin"


def cores() -> int:
    """How many processors this process may use; all that there are where the system does not say (Linux does)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """What the processor says that it can, in the kernel's words; empty where the kernel does not say."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as text:
        for line in text:
            if line.startswith(("flags", "Features")):
                return frozenset(line.split())
    return frozenset()
