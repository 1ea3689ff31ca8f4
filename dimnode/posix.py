"""Every call that only some operating systems have, in one place.

Rule: nothing here decides. A function does one thing, and says by its result or an OSError that this system does not
have it; who asks knows what follows. Everything else in dimnode is portable Python (tests/test_tidy.py); Landlock's
three system calls are in `exec/landlock.py`, which is about nothing else.
Tested on Linux; what is for macOS is written and not tested.
Sources: man 2 prctl, unshare, capset, setrlimit, fork, flock; macOS: sandbox.h (deprecated by Apple, still in use).
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from typing import Final

LINUX: Final = sys.platform == "linux"
MACOS: Final = sys.platform == "darwin"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWUSER: Final = 0x10000000
_CAPABILITY_VERSION_3: Final = 0x20080522
_F_SEAL_FUTURE_WRITE: Final = 0x0010  # `fcntl` has a name for it since Python 3.13

# ---- processes


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


def _in_bytes(peak: int) -> int:
    """macOS counts in bytes, others in KiB."""
    return peak * (1 if MACOS else 1024)


def processor_flags() -> frozenset[str]:
    """What the processor says that it can, in the kernel's words; empty where the kernel does not say."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as text:
        for line in text:
            if line.startswith(("flags", "Features")):
                return frozenset(line.split())
    return frozenset()


# ---- walls


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


# ---- files


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


def lock_for_this_process(descriptor: int) -> None:
    """An exclusive lock that ends with the process. Raises BlockingIOError when another has it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def anonymous_file(directory: str, size_bytes: int | None = None) -> int:
    """A file without a name: memory where the system has it, else disk. With a size: of so many zeros, sealed if it is
    memory. Raises OSError.
    """
    if hasattr(os, "memfd_create"):
        sealable = 0 if size_bytes is None else os.MFD_ALLOW_SEALING
        descriptor = os.memfd_create("dim-tensors", os.MFD_CLOEXEC | sealable)
        if size_bytes is not None:
            os.ftruncate(descriptor, size_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return descriptor
    descriptor, path = tempfile.mkstemp(dir=directory)
    os.unlink(path)
    if size_bytes is not None:
        os.ftruncate(descriptor, size_bytes)
    return descriptor


def written_here_alone(size_bytes: int) -> tuple[int, mmap.mmap]:
    """Memory of so many zeros, sealed in size: a descriptor for who may read it, and the only mapping that can write.

    From then on nobody can map it to write, write to the descriptor, or punch a hole. Raises OSError where the system
    does not have that (Linux has it since 5.1).
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "no memory that can be sealed")
    descriptor = os.memfd_create("dim-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size_bytes)
        mapping = mmap.mmap(descriptor, size_bytes)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, mapping


def allocate(descriptor: int, start: int, size_bytes: int) -> None:
    """Have this part of a file's memory now. Raises OSError when there is none; touching it would then be a SIGBUS."""
    os.posix_fallocate(descriptor, start, size_bytes)
