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
from typing import Any

from dimnode import posix
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


class Spawning(Zygote):
    """A zygote that starts programs instead of forking itself."""

    _reserve: tuple[int, socket.socket] | None = None

    def _prepare(self) -> None:
        """Nothing is imported here."""

    def prove(self) -> tuple[dict[str, str], list[str], list[str]]:
        """See `Zygote.prove`."""
        pid, channel = self._spare()
        with channel, tempfile.TemporaryDirectory() as directory:
            said = _next_frame(channel)
            if not said:
                raise RuntimeError("a process that was to import the runtime died")
            _, traits = said
            channel.sendall(pack_frame(["prove", directory]))
            reply = b"".join(iter(lambda: channel.recv(FRAME_BYTES_MAX), b""))
        posix.wait_for(pid)
        self._reserve = self._spare()
        layers, leaks, fault = read_walls(reply)
        if fault:  # only a process of its own can choose again
            raise RunFailed(
                NO_DEVICE, f"{traits['accelerator']} does not compute behind the walls of a worker: {fault}"
            )
        return traits, layers, leaks

    def end_all(self) -> None:
        """Workers, and the spare."""
        if self._reserve is not None:
            self._pids[0] = self._reserve[0]  # no worker has the token 0
        super().end_all()

    def _start(self, token: int, directory: str, required: bool, memory_bytes: int, channel: int) -> None:
        try:
            pid, spare = self._reserve or self._spare()
            with spare:
                if not _next_frame(spare):  # waits for its imports, which are over but for the first
                    raise OSError("it died")
                start = pack_frame(["start", token, directory, required, memory_bytes])
                send_with_descriptors(spare, start, [channel])
            self._reserve = self._spare()
        except OSError as error:
            self._channel.sendall(pack_frame(["unborn", token, error.strerror or "no process"]))
            return
        self._pids[token] = pid
        self._channel.sendall(pack_frame(["started", token, pid]))

    def _spare(self) -> tuple[int, socket.socket]:
        mine, theirs = socket.socketpair()
        numbers = ",".join(str(getattr(self._limits, limit.name)) for limit in fields(self._limits))
        program = [sys.executable, "-P", "-m", "dimnode.exec.spares", str(theirs.fileno())]
        with theirs:
            return posix.spawn([*program, self._runtime.FORMAT, numbers, self._device], theirs.fileno()), mine


def _next_frame(channel: socket.socket) -> list[Any]:
    """One frame, empty at the end of the stream."""
    frames = FrameBuffer(FRAME_BYTES_MAX)
    while chunk := channel.recv(FRAME_BYTES_MAX):
        for body in frames.feed(chunk):
            return unpack_body(body)
    return []


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
                spare.become_worker(posix.parent(), directory, required, memory_bytes, found[0])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:5])
