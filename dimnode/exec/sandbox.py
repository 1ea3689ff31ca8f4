"""The walls around a worker, and an honest report of which of them stand.

Rule: fail closed, report what is. Every layer is installed on its own; a layer that could not be installed is missing
from the report, and whoever requires it refuses to run. Order matters: all imports come first, because afterwards
this process can open no file. The layers overlap on purpose: files are closed by landlock and by seccomp, the
network by seccomp and by a network namespace, new processes by seccomp and by a limit.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dimnode.exec import landlock
from dimnode.posix import processes
from dimnode.posix.system import LINUX, MACOS
from dimnode.posix.walls import drop_capabilities, enter_seatbelt, set_limits

WALLS = {"linux": frozenset({"landlock", "seccomp", "rlimits"}), "macos": frozenset({"seatbelt", "rlimits"})}
"""What a complete sandbox has, by operating system."""
REQUIRED = WALLS["macos" if MACOS else "linux"]
ORDER = ("landlock", "seccomp", "seatbelt", "rlimits", "netns", "nocaps")
# macOS, written and not tested. Allowed is what the system's own frameworks need; denied is what a model must not:
# the network, other programs, people's files, and writing outside its own folder.
SEATBELT = """
(version 1)
(allow default)
(deny network*)
(deny process-fork)
(deny process-exec*)
(deny signal (target others))
(deny file-write*)
(deny file-read* (subpath "/Users") (subpath "/Volumes") (subpath "/private/var/db"))
(allow file-read* (subpath "{python}") (subpath "{packages}"))
(allow file-read* file-write* (subpath "{folder}"))
"""

# What arithmetic on descriptors that are already open needs, and nothing else: no open, no socket, no process or
# thread, no signal. Everything not listed fails with EPERM, also system calls that do not exist yet.
SYSTEM_CALLS = (
    "read readv pread64 write writev recvfrom recvmsg sendto sendmsg shutdown close fcntl fstat newfstatat lseek "
    "mmap munmap mprotect mremap madvise brk futex membarrier rseq set_robust_list sched_yield sched_getaffinity "
    "getcpu getrandom getpid gettid getppid getuid geteuid exit exit_group restart_syscall "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack poll ppoll select pselect6 "
    "clock_gettime clock_nanosleep nanosleep gettimeofday getrusage sysinfo uname"
)

DEVICE_CALLS = ("ioctl",)


@dataclass(frozen=True, slots=True)
class Walls:
    """Sizes of the limits, and whether the zygote already left the network."""

    memory_bytes: int
    file_bytes: int
    open_files: int
    directory: str
    networkless: bool


def complete(layers: frozenset[str]) -> bool:
    """True when every required layer stands."""
    return layers >= REQUIRED


def describe(layers: frozenset[str]) -> str:
    """The report: layers joined by "+", or "none"."""
    return "+".join(name for name in ORDER if name in layers) or "none"


def build_filter(*, device: bool = False) -> Any:
    """The seccomp filter, built once in the zygote (the loader of libseccomp reads files); None where it is missing.

    Workers that compute on a `device` may also talk to its driver, over descriptors that were opened before.
    """
    if not LINUX:
        return None
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)  # all threads of the worker, or none
    for name in (*SYSTEM_CALLS.split(), *(DEVICE_CALLS if device else ())):
        # A few names do not exist on every architecture (aarch64 has no `poll`): then there is nothing to allow.
        with contextlib.suppress(OSError, ValueError):
            rules.add_rule(pyseccomp.ALLOW, name)
    # Limits may be read and lowered for oneself (pid 0), and for nobody else.
    rules.add_rule(pyseccomp.ALLOW, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))
    return rules


def install(walls: Walls, seccomp_filter: Any, settle: Callable[[], None] = lambda: None) -> frozenset[str]:
    """Raise every wall that this system has, and return the names of those that stand. Cannot be undone.

    `settle` starts the threads that a runtime cannot do without: behind all walls that a thread inherits from its
    maker (capabilities, Landlock), before those that apply to all threads at once (limits) or are told to (seccomp).
    """
    layers = {"netns"} if walls.networkless else set()
    os.chdir(walls.directory)
    os.environ["TMPDIR"] = walls.directory
    if drop_capabilities():
        layers.add("nocaps")
    if LINUX:
        with contextlib.suppress(OSError):
            landlock.deny_all_files()
            layers.add("landlock")
    settle()
    with contextlib.suppress(OSError, ValueError):
        set_limits(walls.memory_bytes, walls.file_bytes, walls.open_files)
        layers.add("rlimits")
    if seccomp_filter is not None:
        with contextlib.suppress(OSError):
            seccomp_filter.load()
            layers.add("seccomp")
    if MACOS:
        with contextlib.suppress(OSError):
            enter_seatbelt(seatbelt(walls.directory))
            layers.add("seatbelt")
    return frozenset(layers)


def seatbelt(directory: str) -> str:
    """The profile for a worker with this folder. Raises OSError for a path that cannot stand in one."""
    places = {"python": sys.base_prefix, "packages": sys.prefix, "folder": os.path.realpath(directory)}
    if any(character in place for place in places.values() for character in '"\\\n'):
        raise OSError("a path with a quote or a backslash in it")
    return SEATBELT.format(**places)


def breaches() -> tuple[str, ...]:
    """What an installed sandbox still lets through; empty is good. Tries the things themselves."""
    import socket

    found = []
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.expanduser("~") if MACOS else sys.executable, os.O_RDONLY))
        found.append("read")
    with contextlib.suppress(OSError):
        os.close(os.open("../breach" if MACOS else "breach", os.O_WRONLY | os.O_CREAT))
        found.append("write")
    with contextlib.suppress(OSError):
        socket.socket().close()
        found.append("socket")
    with contextlib.suppress(OSError):
        child = processes.fork()
        if child == 0:
            os._exit(0)
        processes.wait_for(child)
        found.append("process")
    return tuple(found)
