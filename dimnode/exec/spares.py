"""Workers where forking after the imports is not safe: warm processes of their own, one of them always in reserve.

Rule: a spare has its imports done and knows nothing of any order. It gets exactly one request, becomes that worker and
ends with it; the zygote starts the next spare at once, so that the following order does not wait for the imports.
Runs as `python -m dimnode.exec.spares`; frames down: ["prove", directory] or ["start", token, directory, required,
memory_bytes] with
the worker's socket; up: ["warm", traits] once, then what `Zygote.try_walls` says, or nothing.
"""

import signal
import socket
import sys
import tempfile
from dataclasses import fields

from dimnode.errors import RunFailed
from dimnode.exec.channel import (
    FrameBuffer,
    pack_frame,
    receive_with_descriptors,
    send_with_descriptors,
    unpack_body,
)
from dimnode.exec.orders import NO_DEVICE
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.zygote import FRAME_BYTES_MAX, Zygote, limits_from, read_walls
from dimnode.posix import processes


class Spawning(Zygote):
    """A zygote that starts programs instead of forking itself."""

    _reserve: tuple[int, socket.socket] | None = None

    def _prepare(self) -> None:
        """Nothing is imported here."""

    def prove(self) -> tuple[dict[str, str], list[str], list[str]]:
        """See `Zygote.prove`. Raises `RuntimeError` when the runtime cannot be imported, or takes too long for it."""
        pid, channel = self._spare()
        try:
            with channel, tempfile.TemporaryDirectory() as directory:
                traits = _warm(channel)
                layers, leaks, fault = self._tried_by(channel, directory)
        finally:  # it has said all that it will, and may hang
            processes.kill(pid)
            processes.wait_for(pid)
        self._reserve = self._spare()
        if fault:  # only a process of its own can choose again
            raise RunFailed(
                NO_DEVICE, f"{traits['accelerator']} does not compute behind the walls of a worker: {fault}"
            )
        return traits, layers, leaks

    def _tried_by(self, spare: socket.socket, directory: str) -> tuple[list[str], list[str], str]:
        spare.settimeout(self._limits.worker_start_seconds_max / 2)
        try:
            spare.sendall(pack_frame(["prove", directory]))
            return read_walls(b"".join(iter(lambda: spare.recv(FRAME_BYTES_MAX), b"")))
        except TimeoutError:  # a driver may hang
            layers, leaks, _ = read_walls(b"")
            return layers, leaks, "the process that tried it did not answer"

    def end_all(self) -> None:
        """Workers, and the spare."""
        if self._reserve is not None:
            self._pids[0] = self._reserve[0]  # no worker has the token 0
        super().end_all()

    def _start(self, token: int, directory: str, required: bool, memory_bytes: int, channel: int) -> None:
        pid = 0
        try:
            (pid, spare), self._reserve = self._reserve or self._spare(), None
            with spare:
                _warm(spare)  # waits for its imports, which are over but for the first
                start = pack_frame(["start", token, directory, required, memory_bytes])
                send_with_descriptors(spare, start, [channel])
            self._reserve = self._spare()
        except (OSError, RuntimeError) as error:
            if pid:  # nobody would ever end it: it is no worker
                processes.kill(pid)
            self._channel.sendall(pack_frame(["unborn", token, str(error)]))
            return
        self._pids[token] = pid
        self._channel.sendall(pack_frame(["started", token, pid]))

    def _spare(self) -> tuple[int, socket.socket]:
        mine, theirs = socket.socketpair()
        mine.settimeout(self._limits.worker_start_seconds_max)
        with theirs:
            return processes.spawn(self._program(theirs.fileno()), theirs.fileno()), mine

    def _program(self, descriptor: int) -> list[str]:
        numbers = ",".join(str(getattr(self._limits, limit.name)) for limit in fields(self._limits))
        program = [sys.executable, "-P", "-m", "dimnode.exec.spares", str(descriptor)]
        return [*program, self._runtime.FORMAT, numbers, self._device]


def _warm(channel: socket.socket) -> dict[str, str]:
    """The traits of a spare that has its imports done. Raises `RuntimeError` for one that died, or takes too long."""
    frames = FrameBuffer(FRAME_BYTES_MAX)
    try:
        while chunk := channel.recv(FRAME_BYTES_MAX):
            for body in frames.feed(chunk):
                _, traits = unpack_body(body)
                return dict(traits)
    except TimeoutError:
        raise RuntimeError("a process that was to import the runtime hangs") from None
    raise RuntimeError("a process that was to import the runtime died")


def main(descriptor: int, name: str, numbers: str, device: str) -> None:
    """A spare, from its imports to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    spare = Zygote(channel, runtime_of(name), limits_from(numbers), device)
    channel.sendall(pack_frame(["warm", spare.traits]))
    frames = FrameBuffer(FRAME_BYTES_MAX)
    chunk, found = receive_with_descriptors(channel)
    for body in frames.feed(chunk):
        match unpack_body(body):
            case ["prove", str(directory)]:
                channel.sendall(spare.try_walls(directory))
            case ["start", _, str(directory), bool(required), int(memory_bytes)]:
                spare.become_worker(processes.parent(), directory, required, memory_bytes, found[0])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:5])
