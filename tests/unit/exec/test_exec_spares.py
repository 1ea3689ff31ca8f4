"""A spare that hangs, at its imports or behind its walls, costs its bound of time and leaves no process."""

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from dimnode.errors import RunFailed
from dimnode.exec.channel import FrameBuffer, pack_frame, unpack_body
from dimnode.exec.spares import Spawning
from dimnode.exec.zygote import FRAME_BYTES_MAX
from dimnode.limits import ExecLimits

HANG = "import signal\nwhile True: signal.pause()\n"
OPEN = "import socket\nchannel = socket.socket(fileno=DESCRIPTOR)\n"
WARM = f"{OPEN}channel.sendall({pack_frame(['warm', {'accelerator': 'gpu'}])!r})\n"
TRY = f"channel.recv(65536)\nchannel.sendall({pack_frame([['seatbelt'], [], ''])!r})\n"
TAKE = "channel.recv(65536)\n"
DIE = "raise SystemExit(1)\n"


class Rehearsal(Spawning):
    """The real one, of which the spares are other programs; it begins without the zygote's process."""

    def __init__(self, *programs: str) -> None:
        self._channel, self.node = socket.socketpair()
        self.programs = list(programs)
        self._limits, self._pids = ExecLimits(worker_start_seconds_max=1.0), {}

    def _spare(self) -> tuple[int, socket.socket]:
        patient = self.programs[0] != HANG  # only what hangs costs its bound: a busy machine takes long to start Python
        pid, channel = super()._spare()
        if patient:
            channel.settimeout(60.0)
        return pid, channel

    def _program(self, descriptor: int) -> list[str]:
        return [sys.executable, "-c", self.programs.pop(0).replace("DESCRIPTOR", str(descriptor))]

    def starts(self, token: int) -> list[Any]:
        """What the node hears of it."""
        with contextlib.closing(socket.socket()) as worker:
            self._start(token, "/", True, 0, worker.fileno())
        [body] = FrameBuffer(FRAME_BYTES_MAX).feed(self.node.recv(FRAME_BYTES_MAX))
        return unpack_body(body)


@pytest.fixture
def nobody_left() -> Iterator[None]:
    """No process of the test outlives it."""
    before = set(psutil.Process().children())
    yield
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - before, timeout=30)
    assert not alive


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize(("program", "said"), [(HANG, "hangs"), (DIE, "died")])
def test_a_spare_that_does_not_get_through_its_imports_says_so_in_time_and_is_ended(program: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        Rehearsal(program).prove()


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_left")
@pytest.mark.parametrize("tried", [WARM + HANG, WARM + TRY + HANG])
def test_a_spare_that_hangs_behind_its_walls_has_proved_nothing(tried: str) -> None:
    zygote = Rehearsal(tried, WARM + HANG)
    with pytest.raises(RunFailed, match=r"gpu does not compute behind the walls of a worker: .* did not answer"):
        zygote.prove()
    zygote.end_all()


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_left")
def test_a_spare_that_hangs_or_died_is_no_worker_and_the_next_one_is() -> None:
    zygote = Rehearsal(HANG, DIE, WARM + TAKE + HANG, WARM + HANG)
    assert [zygote.starts(token)[:2] for token in (1, 2)] == [["unborn", 1], ["unborn", 2]]
    assert zygote.starts(3)[:2] == ["started", 3]
    zygote.end_all()
