"""Processes: how they begin and end, what they use, and which signals they get.

Rule: see `system.py`. Sources: man 2 prctl, fork, wait4, getrlimit; man 5 proc.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from typing import Final

from dimnode.posix.system import LINUX, MACOS

_PR_SET_PDEATHSIG: Final = 1
HOLD: Final = signal.SIGSTOP
"""The signal that stops a process where it is, until it gets `GO_ON`."""
GO_ON: Final = signal.SIGCONT
_OF_STATUS: Final = frozenset({"VmHWM", "RssFile", "RssShmem"})


def fork() -> int:
    """0 in the child. Only from a process with one thread. Raises OSError."""
    return os.fork()


def parent() -> int:
    """The process that started this one."""
    return os.getppid()


def spawn(arguments: list[str], inherited: int) -> int:
    """Start a program that gets this descriptor and our environment; its process id. Raises OSError."""
    os.set_inheritable(inherited, True)
    try:
        return os.posix_spawn(arguments[0], arguments, os.environ)
    finally:
        os.set_inheritable(inherited, False)


def ended_children() -> list[tuple[int, int, int, int]]:
    """(pid, wait status, processor time in microseconds, peak memory in bytes) of children that ended since the last
    look; empty when there are none."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            found.append((pid, status, int((used.ru_utime + used.ru_stime) * 1e6), _in_bytes(used.ru_maxrss)))
    return found


def wait_for(pid: int) -> int:
    """The wait status of this child, when it ends."""
    return os.waitpid(pid, 0)[1]


def kill(pid: int) -> None:
    """End this process at once; it is not asked. Raises ProcessLookupError when there is none."""
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def held_back(number: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, does not hear this signal; what came is heard afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(wait_status: int) -> tuple[int, str]:
    """(exit code, "") of a process that ended itself, (signal, its name) of one that was ended."""
    if not os.WIFSIGNALED(wait_status):
        return os.WEXITSTATUS(wait_status), ""
    number = os.WTERMSIG(wait_status)
    return number, signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def wake_on_ended_children(descriptor: int) -> None:
    """Write a byte to this descriptor whenever a child ends; -1: no longer."""
    if descriptor < 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    else:
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; end now if it is dead already.

    macOS has no such wish: there the zygote's stream ends, and it kills its workers.
    """
    if LINUX:
        import ctypes  # who only sends a signal does not need it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def offer_to_the_oom_killer() -> None:
    """When the machine runs out of memory, this process is the one to lose."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def address_space_bytes() -> int:
    """What this process occupies of addresses now; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as text:
        return int(text.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak_memory_bytes() -> int:
    """The most memory that this process ever had."""
    return _in_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def process_peak_bytes(pid: int) -> int:
    """The most that this process ever took for itself; 0 where the kernel does not say (Linux does).

    The high-water mark counts pages of files too (proc_pid_status(5), VmHWM); those that it maps now are taken off.
    """
    said: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name in _OF_STATUS:
                said[name] = int(rest.split()[0]) * 1024
    return max(0, said.get("VmHWM", 0) - said.get("RssFile", 0) - said.get("RssShmem", 0))


def _in_bytes(peak: int) -> int:
    """macOS counts in bytes, others in KiB."""
    return peak * (1 if MACOS else 1024)


def open_files_max() -> int | None:
    """How many files this process may have open; None: as many as it likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def allow_open_files(wanted: int) -> None:
    """Raise that number towards `wanted`, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
