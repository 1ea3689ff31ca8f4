"""Memory that has a descriptor, so that it can be given to another process.

Rule: see `system.py`. Sources: man 2 memfd_create, fcntl; man 3 posix_fallocate.
"""

import errno
import fcntl
import mmap
import os
import tempfile
from typing import Final

_F_SEAL_FUTURE_WRITE: Final = 0x0010  # `fcntl` has a name for it since Python 3.13


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
