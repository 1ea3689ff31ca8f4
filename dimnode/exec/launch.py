"""The node's side of the zygote: start it, talk to it, end it.

Rule: what a zygote inherits is chosen, not left over. It gets one socket, a short environment and no terminal: a key
or token in the node's environment is never in a process that later runs foreign models.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType

from dimnode.exec import sandbox
from dimnode.exec.channel import FrameBuffer, pack_frame, send_with_descriptors
from dimnode.exec.orders import NO_ZYGOTE
from dimnode.exec.runtimes.choice import ALWAYS
from dimnode.exec.runtimes.devices import AUTO
from dimnode.exec.zygote import FRAME_BYTES_MAX
from dimnode.limits import LIMITS, ExecLimits

KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
# One thread; no telemetry; no compiler at run time (mlx writes C++ into a temporary directory and loads the result).
WORKER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "MLX_DISABLE_COMPILE": "1",
    "HF_HUB_OFFLINE": "1",
}
STOP_SECONDS_MAX = 1.0
NO_DEVICES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Hello:
    """What a zygote found out about this machine: the runtime's class, the walls that stand, what passes them.

    `failure` is not empty when it could not start, and `code` says of what kind; then nothing else is known. `note`:
    why it computes on something else than the best device here.
    """

    runtime: Mapping[str, str] = field(default_factory=dict)
    layers: frozenset[str] = frozenset()
    breaches: tuple[str, ...] = ()
    failure: str = ""
    code: str = NO_ZYGOTE
    note: str = ""

    @property
    def complete(self) -> bool:
        """True when every required wall stands and nothing that was tried got through."""
        return sandbox.complete(self.layers) and not self.breaches

    @property
    def sandbox(self) -> str:
        """For people and adverts: "landlock+seccomp+rlimits", "none", or with what leaks in brackets."""
        leaks = f" (leaks: {', '.join(self.breaches)})" if self.breaches else ""
        return sandbox.describe(self.layers) + leaks


def hello_from(report: Sequence[object]) -> Hello:
    """Read a zygote's first report."""
    match report:
        case ["hello", dict(runtime), list(layers), list(breaches), str(note)]:
            return Hello(runtime, frozenset(layers), tuple(breaches), note=note)
        case ["failed", str(reason), str(code)]:
            return Hello(failure=reason, code=code)
        case _:
            return Hello(failure="it did not say what it can")


class Zygote:
    """A running zygote of one runtime. Sends never block; reading is the pool's work. Ends with `stop` or with us."""

    hello: Hello | None

    def __init__(
        self,
        limits: ExecLimits,
        runtime: str = ALWAYS,
        tokens: "itertools.count[int] | None" = None,
        devices: Mapping[str, str] = NO_DEVICES,
    ) -> None:
        self.limits = limits
        self.devices = devices  # by runtime, what the operator asks for; where nothing is said, the best one
        self.runtime = runtime
        self.restarts = 0
        self.tokens = tokens if tokens is not None else itertools.count(1)  # shared by all zygotes of a pool
        self._process: subprocess.Popen[bytes] | None = None
        self.launch()

    def next_token(self) -> int:
        """A number for a worker, never used before."""
        return next(self.tokens)

    def launch(self) -> None:
        """Start the process (a few ms; it is ready when its hello arrives). Call from the main thread only.

        The kernel ties a child to the *thread* that started it: one started from a passing thread dies with it.
        """
        if self._process is not None:
            self.stop()
        self.hello = None
        mine, theirs = socket.socketpair()
        numbers = ",".join(str(getattr(self.limits, limit.name)) for limit in fields(self.limits))
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "dimnode.exec.zygote"),
                    *(str(theirs.fileno()), str(os.getpid()), self.runtime, numbers),
                    self.devices.get(self.runtime, AUTO),
                ],
                pass_fds=[theirs.fileno()],
                env={**kept, **WORKER_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        mine.setblocking(False)
        self.channel = mine
        self.frames = FrameBuffer(FRAME_BYTES_MAX)

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        assert self._process is not None
        return self._process.pid

    def start_worker(self, token: int, directory: str, sandbox_required: bool, memory_bytes: int, channel: int) -> None:
        """Ask for a worker at the other end of `channel`. Raises OSError.

        A zygote that is not ready yet finds the request when it is.
        """
        frame = pack_frame(["start", token, directory, sandbox_required, memory_bytes])
        if send_with_descriptors(self.channel, frame, [channel]) != len(frame):
            raise BlockingIOError("the zygote does not read")

    def end_worker(self, token: int) -> None:
        """Ask for a worker's death. Harmless when it or the zygote is dead already."""
        with contextlib.suppress(OSError):
            self.channel.send(pack_frame(["end", token]))

    def stop(self) -> None:
        """End it and with it all workers; waits at most a second. May be called twice."""
        self.channel.close()
        assert self._process is not None
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_zygote(
    limits: ExecLimits = LIMITS.exec, runtime: str = ALWAYS, devices: Mapping[str, str] = NO_DEVICES
) -> Zygote:
    """Start a zygote. Call it from the main thread, the first one before keys are read; returns at once."""
    return Zygote(limits, runtime, devices=devices)
