"""A worker asked for: its socket, its folder, its model's open files, and the request to the zygote.

Rule: all or nothing. What was opened for a worker that cannot be asked for is closed and removed again, also when the
zygote has just died or the machine has no file left.
"""

import math
import os
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from dimnode.exec import orders
from dimnode.exec.arena import Arena, open_arena
from dimnode.exec.channel import FrameBuffer
from dimnode.exec.launch import Zygote
from dimnode.exec.member import Member, open_regular
from dimnode.exec.orders import Order
from dimnode.exec.queue import Lane
from dimnode.limits import ExecLimits

FOLDER_PREFIX: Final = "worker-"
_FRAME_SLACK_BYTES: Final = 64 * 1024


def hire(
    zygote: Zygote,
    order: Order,
    lane: Lane,
    now: float,
    limits: ExecLimits,
    *,
    scratch: Path,
    sandbox_required: bool,
    memory_bytes: int,
) -> Member:
    """A worker for this order's lane, in a folder of its own below `scratch`. `flush` sends it its first frame.

    Raises `RunFailed` for a file of the model that is not there or no plain file, OSError when the system or the zygote
    gives no worker: then nothing of it is left.
    """
    with ExitStack() as opened:
        mine, theirs = socket.socketpair()  # first: where no file is left, that is not the model's fault
        opened.callback(mine.close)
        with theirs:
            files: list[int] = []
            for file in order.model.files if order.model is not None else ():
                files.append(open_regular(file.place, orders.NO_MODEL, f"model file {file.path}"))
                opened.callback(os.close, files[-1])
            directory = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=scratch)
            opened.callback(shutil.rmtree, directory, ignore_errors=True)
            token = zygote.next_token()
            zygote.start_worker(token, directory, sandbox_required, memory_bytes, theirs.fileno())
        opened.pop_all()  # from here on it is the member's to let go of
    mine.setblocking(False)
    frames = FrameBuffer(limits.output_bytes_max + _FRAME_SLACK_BYTES)
    member = Member(
        lane, now, zygote=zygote, token=token, channel=mine, frames=frames, directory=directory, deadline=math.inf
    )
    member.arena = _arena(directory, limits)
    member.bear(order.model, files)
    return member


def _arena(directory: str, limits: ExecLimits) -> Arena | None:
    """Memory to share with a worker; without any, large tensors take a file each."""
    try:
        return open_arena(directory, limits.input_bytes_max + limits.arena_slack_bytes, limits.output_bytes_max)
    except OSError:
        return None
