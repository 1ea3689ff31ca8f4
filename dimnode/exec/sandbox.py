"""The walls around a worker, and an honest report of which of them stand.

Rule: fail closed, report what is. Every layer is installed on its own; a layer that could not be installed is missing
from the report, and whoever requires it refuses to run. Order matters: all imports come first, because afterwards
this process can open no file. The layers overlap on purpose: files are closed by landlock and by seccomp, the
network by seccomp and by a network namespace, new processes by seccomp and by a limit.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dimnode.exec import landlock

LINUX = sys.platform == "linux"
REQUIRED = frozenset({"landlock", "seccomp", "rlimits"})
ORDER = ("landlock", "seccomp", "rlimits", "netns", "nocaps")

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000
CAPABILITY_VERSION_3 = 0x20080522

# What arithmetic on descriptors that are already open needs, and nothing else: no open, no socket, no process or
# thread, no signal. Everything not listed fails with EPERM, also system calls that do not exist yet.
SYSTEM_CALLS = (
    "read readv pread64 write writev recvfrom recvmsg sendto sendmsg shutdown close fcntl fstat newfstatat lseek "
    "mmap munmap mprotect mremap madvise brk futex membarrier rseq set_robust_list sched_yield sched_getaffinity "
    "getcpu getrandom getpid gettid getppid getuid geteuid exit exit_group restart_syscall "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack poll ppoll select pselect6 "
    "clock_gettime clock_nanosleep nanosleep gettimeofday getrusage sysinfo uname"
)


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


def build_filter() -> Any:
    """The seccomp filter, built once in the zygote (the loader of libseccomp reads files); None where it is missing."""
    if not LINUX:
        return None
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)  # all threads of the worker, or none
    for name in SYSTEM_CALLS.split():
        # A few names do not exist on every architecture (aarch64 has no `poll`): then there is nothing to allow.
        with contextlib.suppress(OSError, ValueError):
            rules.add_rule(pyseccomp.ALLOW, name)
    # Limits may be read and lowered for oneself (pid 0), and for nobody else.
    rules.add_rule(pyseccomp.ALLOW, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))
    return rules


def leave_network() -> bool:
    """Move this single-threaded process into a network namespace with nothing in it. Optional: False when refused."""
    if not LINUX:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.unshare(CLONE_NEWNET) == 0 or library.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)


def address_space_bytes() -> int:
    """What this process occupies of addresses now; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as text:
        return int(text.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; end now if it is dead already."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def offer_to_the_oom_killer() -> None:
    """When the machine runs out of memory, a worker is the one to lose, not the node."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def install(walls: Walls, seccomp_filter: Any, settle: Callable[[], None] = lambda: None) -> frozenset[str]:
    """Raise every wall that this system has, and return the names of those that stand. Cannot be undone.

    `settle` starts the threads that a runtime cannot do without: behind all walls that a thread inherits from its
    maker (capabilities, Landlock), before those that apply to all threads at once (limits) or are told to (seccomp).
    """
    import resource  # noqa: F401 - while files can still be opened

    layers = {"netns"} if walls.networkless else set()
    os.chdir(walls.directory)
    os.environ["TMPDIR"] = walls.directory
    if LINUX and _drop_capabilities():
        layers.add("nocaps")
    if LINUX:
        with contextlib.suppress(OSError):
            landlock.deny_all_files()
            layers.add("landlock")
    settle()
    with contextlib.suppress(OSError, ValueError):
        _limit_resources(walls)
        layers.add("rlimits")
    if seccomp_filter is not None:
        with contextlib.suppress(OSError):
            seccomp_filter.load()
            layers.add("seccomp")
    return frozenset(layers)


def breaches() -> tuple[str, ...]:
    """What an installed sandbox still lets through; empty is good. Tries the things themselves."""
    import socket

    found = []
    with contextlib.suppress(OSError):
        os.close(os.open(sys.executable, os.O_RDONLY))
        found.append("read")
    with contextlib.suppress(OSError):
        os.close(os.open("breach", os.O_WRONLY | os.O_CREAT))
        found.append("write")
    with contextlib.suppress(OSError):
        socket.socket().close()
        found.append("socket")
    with contextlib.suppress(OSError):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        found.append("process")
    return tuple(found)


def arm_cpu_limit(seconds: float) -> None:
    """Let this process use that much more CPU time: a second fence behind the wall clock of the node."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _limit_resources(walls: Walls) -> None:
    import resource

    wanted = {
        resource.RLIMIT_AS: walls.memory_bytes,
        resource.RLIMIT_FSIZE: walls.file_bytes,
        resource.RLIMIT_CORE: 0,
        # Counts all processes of the user; zero lets this one start none. The superuser is exempt, seccomp is not.
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: walls.open_files,
    }
    for limit, value in wanted.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _drop_capabilities() -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "capset"):
        return False
    library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    return bool(library.capset(header, nothing) == 0)
