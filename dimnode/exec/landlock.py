"""Landlock through ctypes: after `deny_all_files` this process can open no path and no TCP port, for ever.

Rule: the rule set is empty. A worker gets everything it may read as an open descriptor, so there is no path to
allow. Needs no privilege; the three system calls have the same number on every architecture.
Source: docs.kernel.org/userspace-api/landlock.html (ABI 1 in Linux 5.13; 4 adds TCP; 6 adds signals and abstract
sockets).
"""

import ctypes
import os
import struct
import sys

CREATE_RULESET = 444
RESTRICT_SELF = 446
VERSION_FLAG = 1
PR_SET_NO_NEW_PRIVS = 38


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def abi_version() -> int:
    """0 where the kernel has no Landlock (or it is switched off)."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_library().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def _everything(abi: int) -> bytes:
    """`struct landlock_ruleset_attr` that handles every access this ABI knows, cut to the size the ABI knows."""
    files = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}.get(abi, (1 << 16) - 1)
    tcp_bind_and_connect = 0b11
    abstract_sockets_and_signals = 0b11
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    return struct.pack("<QQQ", files, tcp_bind_and_connect, abstract_sockets_and_signals)[:size]


def deny_all_files() -> int:
    """Close every path to this process and its future. Returns the ABI used. Raises OSError when it cannot."""
    abi = abi_version()
    if abi < 1:
        raise OSError("no Landlock in this kernel")
    library = _library()
    attributes = _everything(abi)
    ruleset = library.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        if library.syscall(RESTRICT_SELF, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return abi
