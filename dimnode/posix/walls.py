"""What a process gives away for ever: the network, capabilities, memory, time.

Rule: see `system.py`. Sources: man 2 prctl, unshare, capset, setrlimit; macOS: sandbox.h (deprecated by Apple, still in
use).
"""

import ctypes
import resource
from collections.abc import Mapping
from typing import Final

from dimnode.posix.system import LINUX, MACOS

_PR_SET_DUMPABLE: Final = 4
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWUSER: Final = 0x10000000
_CAPABILITY_VERSION_3: Final = 0x20080522


def leave_network() -> bool:
    """Move this single-threaded process into a network namespace with nothing in it. Optional: False when refused."""
    if not LINUX:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.unshare(_CLONE_NEWNET) == 0 or library.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def drop_capabilities() -> bool:
    """For this thread and those that it starts."""
    library = ctypes.CDLL(None, use_errno=True)
    if not LINUX or not hasattr(library, "capset"):
        return False
    library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    return bool(library.capset(header, nothing) == 0)


def enter_seatbelt(profile: str) -> None:
    """Put this process under a profile of macOS's sandbox, for ever. Raises OSError. Written, not tested."""
    if not MACOS:
        raise OSError("no such sandbox in this system")
    library = ctypes.CDLL("/usr/lib/libsandbox.1.dylib", use_errno=True)
    complaint = ctypes.c_char_p()
    if library.sandbox_init(profile.encode(), ctypes.c_uint64(0), ctypes.byref(complaint)) != 0:
        raise OSError((complaint.value or b"sandbox_init").decode(errors="replace"))


def set_limits(memory_bytes: int, file_bytes: int, open_files: int) -> None:
    """Of this process, for ever; also no core file and no further process. Raises OSError, ValueError."""
    wanted: Mapping[int, int] = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        # Counts all processes of the user; zero lets this one start none. The superuser is exempt, seccomp is not.
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: open_files,
    }
    for limit, value in wanted.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def arm_cpu_limit(seconds: float) -> None:
    """Let this process use that much more CPU time, then SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))
