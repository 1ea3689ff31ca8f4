"""The zygote: a small process with one thread that imports everything once and then only forks.

Rule: it holds no secret and obeys one socket. It starts before the node has threads or keys, forks a worker per
request (a ready fork takes milliseconds where a fresh interpreter takes half a second), ends workers on request and
reports their ends. At the end of that socket it ends, and the kernel ends its workers with it.

There is one for each runtime, so that no worker is larger than its own. Where forking after the imports is not safe
(Apple's frameworks), the zygote imports nothing and keeps a spare instead (`spares.py`).

Frames down: ["start", token, directory, sandbox_required, memory_bytes] with the worker's socket; ["end", token]. Up:
["hello", runtime, layers, breaches] or ["failed", reason], ["started", token, pid], ["unborn", token, reason],
["exited", token, wait status].
"""

import contextlib
import gc
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from dimnode import posix
from dimnode.exec import sandbox
from dimnode.exec.channel import FrameBuffer, pack_frame, receive_with_descriptors, unpack_body
from dimnode.exec.runtimes.base import Runtime
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.sandbox import Walls
from dimnode.limits import ExecLimits

FRAME_BYTES_MAX = 64 * 1024


def main(channel_descriptor: int, parent_pid: int, name: str, numbers: str) -> None:
    """Serve the node until its end. Runs as `python -m dimnode.exec.zygote`."""
    limits = limits_from(numbers)
    posix.die_with_parent(parent_pid)
    # A Ctrl-C or a stop of the service is for the node; it hangs up on us when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=channel_descriptor)
    try:
        runtime = runtime_of(name)
        zygote = Zygote(channel, runtime, limits) if runtime.FORKS else _with_spares(channel, runtime, limits)
        traits, layers, breaches = zygote.prove()
    except Exception as error:  # noqa: BLE001 - boundary: whatever is wrong here, the node must be able to say it
        channel.sendall(pack_frame(["failed", f"{type(error).__name__}: {error}"[: limits.message_characters_max]]))
        return
    channel.sendall(pack_frame(["hello", traits, layers, breaches]))
    gc.collect()
    gc.freeze()
    try:
        zygote.serve()
    finally:
        zygote.end_all()


def _with_spares(channel: socket.socket, runtime: Runtime, limits: ExecLimits) -> "Zygote":
    from dimnode.exec.spares import Spawning

    return Spawning(channel, runtime, limits)


def import_everything(runtime: Runtime) -> dict[str, str]:
    """Load all that a worker may need: behind its walls it can open no file. Returns the runtime's class."""
    from dimnode.exec import worker  # noqa: F401
    from dimnode.exec.transforms import warm

    warm.warm_up()
    "".encode("utf-8-sig").decode("utf-8-sig")
    version = runtime.version()
    if version:
        runtime.warm_up()
    return {
        "version": version,
        "os": sys.platform,
        "arch": platform.machine(),
        "isa": _instruction_set(),
        "determinism": "single-thread",
        **runtime.traits(),
    }


def _instruction_set() -> str:
    """The widest vector unit: results are bit-identical only within one."""
    flags = posix.processor_flags()
    for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("sve", "sve"), ("asimd", "neon")):
        if flag in flags:
            return name
    return "neon" if platform.machine() == "arm64" else "base"


class Zygote:
    """The one that forks."""

    def __init__(self, channel: socket.socket, runtime: Runtime, limits: ExecLimits) -> None:
        self._channel = channel
        self._runtime = runtime
        self._limits = limits
        self._networkless = posix.leave_network()
        self._prepare()
        self._pids: dict[int, int] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    def _prepare(self) -> None:
        self.traits = import_everything(self._runtime)
        self._born_bytes = posix.address_space_bytes()
        self._filter = sandbox.build_filter()

    def try_walls(self, directory: str) -> bytes:
        """Raise the walls around this process and try to pass them: a frame of what stands and what leaks."""
        layers = sandbox.install(
            self._walls(directory, self._limits.worker_memory_bytes_max), self._filter, self._runtime.settle
        )
        # Without these there is nothing to prove, and the attempts would be real.
        leaks = sandbox.breaches() if layers & {"seccomp", "seatbelt"} else ()
        return pack_frame([sorted(layers), list(leaks)])

    def prove(self) -> tuple[dict[str, str], list[str], list[str]]:
        """Fork a child that tries its walls: the runtime's class, what stands, what leaks."""
        import tempfile

        mine, theirs = socket.socketpair()
        with tempfile.TemporaryDirectory() as directory, mine, theirs:
            pid = posix.fork()
            if pid == 0:
                with _ending():
                    theirs.sendall(self.try_walls(directory))
            theirs.close()
            reply = b"".join(iter(lambda: mine.recv(FRAME_BYTES_MAX), b""))
            posix.wait_for(pid)
        return self.traits, *read_walls(reply)

    def serve(self) -> None:
        """Until the node hangs up."""
        posix.wake_on_ended_children(self._wake_write)
        frames = FrameBuffer(FRAME_BYTES_MAX)
        descriptors: list[int] = []
        while True:
            ready, _, _ = select.select([self._channel.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._channel.fileno() not in ready:
                continue
            chunk, found = receive_with_descriptors(self._channel)
            if not chunk:
                return
            descriptors.extend(found)
            for body in frames.feed(chunk):
                self._obey(unpack_body(body), descriptors)

    def end_all(self) -> None:
        """Kill what still lives (where the kernel does not do it for us)."""
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _obey(self, request: list[Any], descriptors: list[int]) -> None:
        match request:
            case ["start", token, directory, required, memory_bytes]:
                channel = descriptors.pop(0)
                self._start(token, directory, required, memory_bytes, channel)
                os.close(channel)
            case ["end", token]:
                # Not reaped yet, so the number is still this worker's.
                if token in self._pids:
                    os.kill(self._pids[token], signal.SIGKILL)

    def _start(self, token: int, directory: str, required: bool, memory_bytes: int, channel: int) -> None:
        parent = os.getpid()
        try:
            pid = posix.fork()
        except OSError as error:
            self._channel.sendall(pack_frame(["unborn", token, os.strerror(error.errno or 0)]))
            return
        if pid == 0:
            with _ending():
                self.become_worker(parent, directory, required, memory_bytes, channel)
        self._pids[token] = pid
        self._channel.sendall(pack_frame(["started", token, pid]))

    def become_worker(self, parent: int, directory: str, required: bool, memory_bytes: int, channel: int) -> None:
        """This process is a worker from now on; returns when it is over."""
        from dimnode.exec import worker

        posix.wake_on_ended_children(-1)
        posix.die_with_parent(parent)
        for inherited in (self._channel.fileno(), self._wake_read, self._wake_write):
            os.close(inherited)
        worker.serve(
            worker.Post(
                channel=socket.socket(fileno=channel),
                runtime=self._runtime,
                walls=self._walls(directory, memory_bytes),
                memory_bytes=memory_bytes,
                sandbox_required=required,
                limits=self._limits,
            ),
            self._filter,
        )

    def _walls(self, directory: str, memory_bytes: int) -> Walls:
        limits = self._limits
        return Walls(
            # What the runtime's own libraries occupy is not the model's to pay for.
            self._born_bytes + memory_bytes,
            limits.worker_file_bytes_max,
            limits.worker_open_files_max,
            directory,
            self._networkless,
        )

    def _reap(self) -> None:
        tokens = {pid: token for token, pid in self._pids.items()}
        for pid, status in posix.ended_children():
            token = tokens.get(pid)
            if token is not None:
                del self._pids[token]
                self._channel.sendall(pack_frame(["exited", token, status]))


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """A forked child never returns into its parent's code: it ends here, 0 when all went well, else 1."""
    try:
        yield
    except BaseException:  # noqa: BLE001 - boundary: nothing may climb past the fork
        os._exit(1)
    os._exit(0)


def read_walls(reply: bytes) -> tuple[list[str], list[str]]:
    """What `try_walls` said; a process that said nothing has proved nothing."""
    bodies = FrameBuffer(FRAME_BYTES_MAX).feed(reply)
    if not bodies:
        return [], ["probe"]
    layers, leaks = unpack_body(bodies[0])
    return layers, leaks


def limits_from(numbers: str) -> ExecLimits:
    """The node's limits as given on the command line, in the order of the fields."""
    standard = ExecLimits()
    pairs = zip((field.name for field in fields(standard)), numbers.split(","), strict=True)
    # Each bound is an int or a float, as its default says.
    return replace(standard, **{name: type(getattr(standard, name))(text) for name, text in pairs})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
