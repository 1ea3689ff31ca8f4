"""A worker whose runtime has been taken over: it tries everything, from where a hostile model would.

    python hostile_runtime.py FORMAT SECRET FOLDER

The real runtime is imported and settled, the real worker raises its walls, and what loads the model is ours: the most
that a model could become. Prints what worked, as JSON; nothing should.
"""

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from dimnode.errors import RunFailed
from dimnode.exec import sandbox
from dimnode.exec.birth import birth_bytes
from dimnode.exec.channel import FrameBuffer, pack_frame, unpack_body
from dimnode.exec.orders import Facts, ModelOrder
from dimnode.exec.runtimes.base import Files, Model, Runtime
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.sandbox import Walls
from dimnode.exec.worker import Post, serve
from dimnode.exec.zygote import import_everything
from dimnode.limits import LIMITS
from dimnode.posix import processes
from dimnode.posix.walls import leave_network

IO_URING_SETUP, OPENAT2, PROCESS_VM_READV = 425, 437, 310


def attempts(secret: str) -> dict[str, Callable[[], Any]]:
    """By name. Whatever does not raise has worked."""
    library = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: Any) -> None:
        if library.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "system call")

    def raise_limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        bytearray(3 * 1024**3)

    return {
        "read a secret": lambda: open(secret).read(),
        "read passwords": lambda: open("/etc/passwd").read(),
        "read memory of its own by path": lambda: open("/proc/self/mem", "rb"),
        "list a folder": lambda: os.listdir("/"),
        "write outside": lambda: open(secret, "w"),
        "write inside": lambda: open("note", "w"),
        "remove a file": lambda: os.unlink(secret),
        "make a link": lambda: os.symlink(secret, "link"),
        "memory that is a file": lambda: os.memfd_create("x"),
        "TCP": lambda: socket.create_connection(("127.0.0.1", 9), 1),
        "UDP": lambda: socket.socket(type=socket.SOCK_DGRAM),
        "a local socket": lambda: socket.socket(socket.AF_UNIX),
        "fork": lambda: os.fork() or os._exit(0),
        "a program": lambda: subprocess.run(["/bin/true"], check=True),
        "a shell": lambda: [][os.system("true")],
        "a thread": lambda: threading.Thread(target=print).start(),
        "a signal to its parent": lambda: os.kill(os.getppid(), 0),
        "another user": lambda: os.setuid(65534),
        "40 GB": lambda: bytearray(40 * 1024**3),
        "a higher limit": raise_limit,
        "io_uring": lambda: call(IO_URING_SETUP, 1, ctypes.create_string_buffer(120)),
        "openat2": lambda: call(OPENAT2, -100, b"/etc/passwd", ctypes.create_string_buffer(24), 24),
        "memory of its parent": lambda: call(PROCESS_VM_READV, os.getppid(), None, 0, None, 0, 0),
    }


class TakenOver:
    """The runtime as it is, but for how it loads."""

    def __init__(self, real: Runtime, secret: str) -> None:
        self._real, self._secret = real, secret

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def load(self, files: Files, facts: Facts) -> Model:
        """Try everything, and say what worked."""
        worked = []
        for name, attempt in attempts(self._secret).items():
            try:
                attempt()
            except (OSError, MemoryError, RuntimeError, ValueError, IndexError):
                continue
            worked.append(name)
        raise RunFailed("worked", json.dumps(worked))


def main(form: str, secret: str, folder: str) -> None:
    """One worker, one order."""
    real = runtime_of(form)
    import_everything(real)
    rules, networkless = sandbox.build_filter(), leave_network()
    born = processes.address_space_bytes()
    limits = LIMITS.exec
    walls = Walls(born + limits.worker_memory_bytes_max, limits.worker_file_bytes_max, 64, folder, networkless)
    mine, theirs = socket.socketpair()
    if os.fork() == 0:
        mine.close()
        try:
            serve(Post(theirs, TakenOver(real, secret), walls, limits.worker_memory_bytes_max, True, limits), rules)  # type: ignore[arg-type]
        finally:
            os._exit(0)
    theirs.close()
    mine.settimeout(120)
    model = ModelOrder("m", form, (), Facts())
    mine.sendall(pack_frame(["load", birth_bytes(model), 0, None]))
    mine.sendall(pack_frame([1, "infer", [], [], None, 5000, 0, 0]))
    frames, bodies = FrameBuffer(100_000), []
    while len(bodies) < 2:
        chunk = mine.recv(10_000)
        if not chunk:
            break
        bodies += [unpack_body(body) for body in frames.feed(chunk)]
    print(json.dumps({"walls": bodies[0][2], "said": bodies[1][2:4] if len(bodies) > 1 else ["died", ""]}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
