"""The zygote: a small process with one thread that imports everything once and then only forks.

Rule: it holds no secret and obeys one socket. It starts before the node has threads or keys, forks a worker per
request (a ready fork takes milliseconds where a fresh interpreter takes half a second), ends workers on request and
reports their ends. At the end of that socket it ends, and the kernel ends its workers with it.

There is one for each runtime, so that no worker is larger than its own. Where forking after the imports is not safe
(Apple's frameworks), the zygote imports nothing and keeps a spare instead (`spares.py`).

Frames down: ["start", token, directory, sandbox_required, memory_bytes] with the worker's socket; ["end", token]. Up:
["hello", runtime, layers, breaches, note] or ["failed", reason, code], ["started", token, pid], ["unborn", token,
reason], ["exited", token, wait status, processor time, peak memory].
"""

import contextlib
import gc
import os
import platform
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from dimnode.errors import RunFailed
from dimnode.exec import sandbox
from dimnode.exec.channel import FrameBuffer, pack_frame, receive_with_descriptors, unpack_body
from dimnode.exec.orders import NO_DEVICE, NO_ZYGOTE
from dimnode.exec.runtimes.base import Runtime
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.runtimes.devices import AUTO, CPU
from dimnode.exec.sandbox import Walls
from dimnode.limits import ExecLimits
from dimnode.posix import processes
from dimnode.posix.files import set_blocking
from dimnode.posix.sockets import READABLE, poll
from dimnode.posix.system import MACOS, processor_flags
from dimnode.posix.walls import leave_network

FRAME_BYTES_MAX = 64 * 1024
FAULTS = (RuntimeError, OSError, ValueError, TypeError, LookupError, RunFailed, MemoryError)
"""What libraries raise for a device that they cannot use."""


def main(channel_descriptor: int, parent_pid: int, name: str, numbers: str, device: str) -> None:
    """Serve the node until its end. Runs as `python -m dimnode.exec.zygote`."""
    limits = limits_from(numbers)
    processes.die_with_parent(parent_pid)
    # A Ctrl-C or a stop of the service is for the node; it hangs up on us when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=channel_descriptor)
    try:
        runtime = runtime_of(name)
        # Apple's frameworks, of which its devices are, do not survive a fork.
        forks = runtime.FORKS and not (MACOS and device != CPU)
        zygote = (Zygote if forks else _spawning())(channel, runtime, limits, device)
        traits, layers, breaches = zygote.prove()
    except RunFailed as fault:
        said = fault.complaint
        channel.sendall(pack_frame(["failed", said.what[: limits.message_characters_max], said.code]))
        return
    except Exception as error:  # noqa: BLE001 - boundary: whatever is wrong here, the node must be able to say it
        reason = f"{type(error).__name__}: {error}"[: limits.message_characters_max]
        channel.sendall(pack_frame(["failed", reason, NO_ZYGOTE]))
        return
    channel.sendall(pack_frame(["hello", traits, layers, breaches, zygote.note]))
    gc.collect()
    gc.freeze()
    try:
        zygote.serve()
    finally:
        zygote.end_all()


def _spawning() -> "type[Zygote]":
    from dimnode.exec.spares import Spawning

    return Spawning


def import_everything(runtime: Runtime, device: str = AUTO) -> dict[str, str]:
    """Load all that a worker may need: behind its walls it can open no file. Returns the runtime's class.

    What is warmed up is warmed up on the processor. Raises `RunFailed`: a device that is not there.
    """
    from dimnode.exec import worker  # noqa: F401
    from dimnode.exec.transforms import warm

    warm.warm_up()
    "".encode("utf-8-sig").decode("utf-8-sig")
    version = runtime.version()
    if version:
        runtime.warm_up()
        runtime.DEVICE.choose(device)
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
    flags = processor_flags()
    for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("sve", "sve"), ("asimd", "neon")):
        if flag in flags:
            return name
    return "neon" if platform.machine() == "arm64" else "base"


class Zygote:
    """The one that forks."""

    note = ""
    """Why it computes on something else than what was best."""

    def __init__(self, channel: socket.socket, runtime: Runtime, limits: ExecLimits, device: str = AUTO) -> None:
        self._channel = channel
        self._device = device
        self._runtime = runtime
        self._limits = limits
        self._networkless = leave_network()
        self._prepare()
        self._pids: dict[int, int] = {}
        self._wake_read, self._wake_write = os.pipe()
        set_blocking(self._wake_write, False)
        set_blocking(self._wake_read, False)

    def _prepare(self) -> None:
        self.traits = import_everything(self._runtime, self._device)
        self._born_bytes = processes.address_space_bytes()
        self._filter = sandbox.build_filter(device=self._runtime.DEVICE.accelerated)

    def try_walls(self, directory: str) -> bytes:
        """Raise the walls around this process and try to pass them: a frame of what stands, what leaks, and why its
        device does not compute behind them."""
        device, fault = self._runtime.DEVICE, ""
        try:
            device.open()
        except FAULTS as error:
            fault = str(error) or type(error).__name__
        walls = self._walls(directory, self._limits.worker_memory_bytes_max)
        layers = sandbox.install(walls, self._filter, self._runtime.settle)
        try:
            if device.accelerated and not fault:
                device.try_out()
        except FAULTS as error:
            fault = str(error) or type(error).__name__
        # Without these there is nothing to prove, and the attempts would be real.
        leaks = sandbox.breaches() if layers & {"seccomp", "seatbelt"} else ()
        return pack_frame([sorted(layers), list(leaks), fault[: self._limits.message_characters_max]])

    def prove(self) -> tuple[dict[str, str], list[str], list[str]]:
        """Fork a child that tries its walls: the runtime's class, what stands, what leaks.

        A device on which nothing can be computed behind them gives way to the processor, unless it was asked for.
        Raises `RunFailed` when it was.
        """
        layers, leaks, fault = self._tried()
        if self._runtime.DEVICE.accelerated and not layers:
            fault = "the process that tried it ended or did not answer"
        if fault:
            word = self._runtime.DEVICE.word
            what = f"{word} does not compute behind the walls of a worker: {fault}"
            if self._device != AUTO:
                raise RunFailed(NO_DEVICE, what)
            self.note, self._device = what, CPU
            self._prepare()
            layers, leaks, _ = self._tried()
        return self.traits, layers, leaks

    def _tried(self) -> tuple[list[str], list[str], str]:
        import tempfile

        mine, theirs = socket.socketpair()
        with tempfile.TemporaryDirectory() as directory, mine, theirs:
            pid = processes.fork()
            if pid == 0:
                with _ending():
                    theirs.sendall(self.try_walls(directory))
            theirs.close()
            mine.settimeout(self._limits.worker_start_seconds_max / 2)
            try:
                reply = b"".join(iter(lambda: mine.recv(FRAME_BYTES_MAX), b""))
            except TimeoutError:  # a driver may hang
                reply = b""
                processes.kill(pid)
            processes.wait_for(pid)
        return read_walls(reply)

    def serve(self) -> None:
        """Until the node hangs up."""
        processes.wake_on_ended_children(self._wake_write)
        frames = FrameBuffer(FRAME_BYTES_MAX)
        descriptors: list[int] = []
        waiting = poll()  # not select(): a node with a thousand files open gives its zygote a high number
        for each in (self._channel.fileno(), self._wake_read):
            waiting.register(each, READABLE)
        while True:
            ready = {descriptor for descriptor, _ in waiting.poll()}
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
                processes.kill(pid)

    def _obey(self, request: list[Any], descriptors: list[int]) -> None:
        match request:
            case ["start", token, directory, required, memory_bytes]:
                channel = descriptors.pop(0)
                self._start(token, directory, required, memory_bytes, channel)
                os.close(channel)
            case ["end", token]:
                # Not reaped yet, so the number is still this worker's.
                if token in self._pids:
                    processes.kill(self._pids[token])

    def _start(self, token: int, directory: str, required: bool, memory_bytes: int, channel: int) -> None:
        parent = os.getpid()
        try:
            pid = processes.fork()
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

        processes.wake_on_ended_children(-1)
        processes.die_with_parent(parent)
        for inherited in (self._channel.fileno(), self._wake_read, self._wake_write):
            os.close(inherited)
        self._runtime.DEVICE.open()
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
            # What the runtime's own libraries occupy is not the model's to pay for, nor what a driver does.
            self._own_bytes() + memory_bytes,
            limits.worker_file_bytes_max,
            limits.worker_open_files_max,
            directory,
            self._networkless,
        )

    def _own_bytes(self) -> int:
        return processes.address_space_bytes() if self._runtime.DEVICE.accelerated else self._born_bytes

    def _reap(self) -> None:
        tokens = {pid: token for token, pid in self._pids.items()}
        for pid, *end in processes.ended_children():
            token = tokens.get(pid)
            if token is not None:
                del self._pids[token]
                self._channel.sendall(pack_frame(["exited", token, *end]))


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """A forked child never returns into its parent's code: it ends here, 0 when all went well, else 1."""
    try:
        yield
    except BaseException:  # noqa: BLE001 - boundary: nothing may climb past the fork
        os._exit(1)
    os._exit(0)


def read_walls(reply: bytes) -> tuple[list[str], list[str], str]:
    """What `try_walls` said; a process that said nothing has proved nothing."""
    bodies = FrameBuffer(FRAME_BYTES_MAX).feed(reply)
    if not bodies:
        return [], ["probe"], ""
    layers, leaks, fault = unpack_body(bodies[0])
    return layers, leaks, fault


def limits_from(numbers: str) -> ExecLimits:
    """The node's limits as given on the command line, in the order of the fields."""
    standard = ExecLimits()
    pairs = zip((field.name for field in fields(standard)), numbers.split(","), strict=True)
    # Each bound is an int or a float, as its default says.
    return replace(standard, **{name: type(getattr(standard, name))(text) for name, text in pairs})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6])
