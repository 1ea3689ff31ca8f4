"""Sockets within this machine, waiting for any of several, and what the kernel knows of a connection.

Rule: see `system.py`. Names of the standard library keep their name and their manual.
"""

import errno
import os
import select
import socket
import struct
from typing import Any, Final

READABLE: Final = select.POLLIN
WRITABLE: Final = select.POLLOUT
AT_ONCE: Final = socket.MSG_DONTWAIT
"""For one `send` or `recv`: BlockingIOError instead of waiting, whatever the socket does else."""

poll = select.poll
readv = os.readv
recv_fds = socket.recv_fds
send_fds = socket.send_fds


def local_socket() -> socket.socket:
    """A stream within this machine; its address is a path."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def connected(path: str, seconds: float) -> socket.socket:
    """A connection of which no connect or send makes no progress for longer than this: then it is BlockingIOError.

    Not by `settimeout`, for which connecting to a listener with a full backlog fails at once. Raises OSError.
    """
    made = local_socket()
    whole, part = divmod(seconds, 1.0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(whole), int(part * 1_000_000)))
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made


def tcp_info(connection: Any, size_bytes: int) -> bytes:
    """The kernel's `struct tcp_info` of this connection. Raises OSError, always where there is none (Linux has it)."""
    if not hasattr(socket, "TCP_INFO"):
        raise OSError(errno.ENOSYS, "no word of the kernel about a connection")
    said: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size_bytes)
    return said
