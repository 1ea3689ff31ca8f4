"""One worker as the node sees it: its socket, what was handed to it, and how its frames read.

Rule: nothing here waits in the node's loop. Small orders are written at once; what does not fit the socket, and what
is too large for it, leaves in a task of its own. A worker's frame is checked field by field before anything believes
it.
"""

import contextlib
import errno
import math
import os
import shutil
import socket
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.arena import Arena
from dimnode.exec.birth import birth_bytes
from dimnode.exec.channel import BrokenFrame, FrameBuffer, pack_frame, send_with_descriptors
from dimnode.exec.launch import Zygote
from dimnode.exec.orders import ModelOrder, Order, WorkerState
from dimnode.exec.placement import Place
from dimnode.exec.queue import Ticket
from dimnode.limits import LIMITS
from dimnode.posix.files import NO_WAIT
from dimnode.posix.memory import anonymous_file

_NONE_LEFT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

SPILL_CHUNK_BYTES = 1024 * 1024
JOIN_BYTES_MAX = 64 * 1024
STATUSES = frozenset({"ok", "failed", "memory"})
TRAITS = frozenset({"accelerator", "dtype", "quantisation"})
TRAIT_CHARACTERS_MAX = 32
CODE_CHARACTERS_MAX = 32
MEASURE_MAX = 2**53
"""More is no time, no memory and no count; beyond 2^63 it could not stand in a signed answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker claims about an order."""

    number: int
    status: str
    code: str
    message: str
    output: bytes
    run_us: int
    cpu_us: int
    rss_bytes: int
    rows: int
    batch: int


def read_result(fields: list[Any], output_bytes_max: int) -> Result:
    """Check types and bounds. Raises `BrokenFrame`: then the worker is not the program we started."""
    match fields:
        case [int(), str(), str(), str(), bytes(), int(), int(), int(), int(), int()]:
            result = Result(*fields)
        case _:
            raise BrokenFrame("not a result")
    if result.status not in STATUSES or len(result.output) > output_bytes_max:
        raise BrokenFrame("result out of bounds")
    measures = (result.run_us, result.cpu_us, result.rss_bytes, result.rows, result.batch)
    if not all(type(found) is int and 0 <= found <= MEASURE_MAX for found in measures):
        raise BrokenFrame("measure out of bounds")
    if len(result.code) > CODE_CHARACTERS_MAX or len(result.message) > LIMITS.exec.message_characters_max:
        raise BrokenFrame("reason out of bounds")
    return result


def open_regular(path: str, code: str, what: str) -> int:
    """Open a file for a worker to read. Raises `RunFailed` when it is missing or no plain file (a pipe would block).

    Raises OSError when the system has none left to open: that is not the file's fault.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT)
    except OSError as error:
        if error.errno in _NONE_LEFT:
            raise
        raise RunFailed(code, f"{what}: {os.strerror(error.errno or 0)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunFailed(code, f"{what}: not a plain file")
    return descriptor


def read_traits(found: dict[Any, Any]) -> dict[str, str]:
    """What a worker's model adds to the class of its runtime. Raises `BrokenFrame`."""
    known = all(
        name in TRAITS and type(word) is str and len(word) <= TRAIT_CHARACTERS_MAX for name, word in found.items()
    )
    if not known:
        raise BrokenFrame("traits out of bounds")
    return found


def birth_frame(model: ModelOrder | None, arena: Arena | None) -> bytes:
    """The first frame that a worker reads; the model's files come along, then the arena's two, if there is one."""
    sizes = [arena.input_bytes, arena.output_bytes] if arena is not None else None
    if model is None:
        return pack_frame(["load", None, 0, sizes])
    return pack_frame(["load", birth_bytes(model), len(model.files), sizes])


Blobs = Sequence[bytes] | Sequence[int] | Sequence[tuple[int, int]]


def request_frame(number: int, order: Order, blobs: Blobs, descriptors: int, taken: int = 0) -> bytes:
    """An order as a worker reads it: large blobs are places in the arena, or lengths in a file that comes along.

    `taken`: how many answers were taken out of the arena so far.
    """
    rows = order.rows
    return pack_frame(
        [
            number,
            order.op,
            blobs,
            [[take.name, take.source, take.tensor, take.start, take.stop] for take in order.take],
            rows and [rows.label, rows.exclude, [[entry.column, entry.op, entry.micro] for entry in rows.where]],
            int(order.timeout_seconds * 1000),
            descriptors,
            taken,
        ]
    )


def batch_frame(number: int, batch: Sequence[Order], taken: int) -> bytes:
    """Orders for one batch as a worker reads them: one frame, one answer for each, numbered on from `number`."""
    first = batch[0]
    take = [[entry.name, entry.source, entry.tensor, entry.start, entry.stop] for entry in first.take]
    timeout_ms = int(max(order.timeout_seconds for order in batch) * 1000)
    return pack_frame([number, "batch", [list(order.inputs) for order in batch], take, None, timeout_ms, 0, taken])


@dataclass(slots=True)
class _Parcel:
    """A frame on its way out, with the files that ride on its first byte. No frame yet: `order` is to be spilled."""

    frame: memoryview | None
    descriptors: list[int]
    number: int = 0
    order: Order | None = None


Cost = tuple[str, int]
"""The name under which the costs of an order are kept, and its rows."""


@dataclass(slots=True, eq=False, kw_only=True)
class Member(Place):
    """A worker. `deadline` is the moment at which the pool acts on it, whatever it is doing.

    `measured_bytes` is what it took when it was last looked at, 0 before: it may answer before the zygote has said
    which process it is, and `memory_bytes` is only what is expected of it by then. `highest_bytes` is the most that it
    was seen to have had, `peaks` which runs had that, `explained_bytes` the most of these; `last_cost` names the last
    run.
    """

    zygote: Zygote
    token: int
    channel: socket.socket
    frames: FrameBuffer
    directory: str
    deadline: float
    pid: int = 0
    looked_at: float = -math.inf
    measured_bytes: int = 0
    highest_bytes: int = 0
    explained_bytes: int = 0
    peaks: dict[Cost, int] = field(default_factory=dict)
    last_cost: Cost | None = None
    sandbox: str = ""
    traits: Mapping[str, str] = field(default_factory=dict)
    gone: bool = False
    wait_status: int | None = None
    exited: trio.Event = field(default_factory=trio.Event)
    arena: Arena | None = None
    taken: int = 0
    _in_arena: set[int] = field(default_factory=set)
    _outbox: deque[_Parcel] = field(default_factory=deque)
    _pumping: bool = False

    def state(self, now: float) -> WorkerState:
        """For people."""
        if self.idle:
            what = "idle"
        else:
            what = "pausing" if self.leaving else "running" if self.ready else "loading"
        idle_seconds = max(0.0, now - self.idle_since) if self.idle else 0.0
        model, _ = self.lane
        orders_held, memory = len(self.flight), self.memory_bytes
        return WorkerState(self.pid, model, self.zygote.runtime, what, orders_held, memory, self.pinned, idle_seconds)

    def bear(self, model: ModelOrder | None, files: list[int]) -> None:
        """Put the model and its open files, which are ours from now on, in front of all orders; `flush` sends them."""
        shared: list[int] = []
        if self.arena is not None:
            try:
                shared.append(os.dup(self.arena.inputs))
                shared.append(os.dup(self.arena.output))
            except OSError:  # no file is left: it works without
                self.arena.close()
                self.arena = None
                while shared:
                    os.close(shared.pop())
        self._outbox.append(_Parcel(memoryview(birth_frame(model, self.arena)), [*files, *shared]))

    def land(self, number: int) -> Ticket:
        """See `Place.land`; what it had in the arena is free again."""
        if number in self._in_arena:
            assert self.arena is not None
            self._in_arena.remove(number)
            self.arena.release()
        return Place.land(self, number)

    def result(self, fields: list[Any], output_bytes_max: int) -> Result:
        """What the worker said, checked; an output in the arena is copied out of it. Raises `BrokenFrame`."""
        match fields:
            case [_, _, _, _, int(length), *_] if type(length) is int and self.arena is not None:
                output = self.arena.read_output(length)
                if output is None:
                    raise BrokenFrame("an answer that is not there")
                self.taken += 1
                fields = [*fields[:4], output, *fields[5:]]
        return read_result(fields, output_bytes_max)

    def hand(self, number: int, ticket: Ticket, inline_bytes_max: int) -> None:
        """Put an order on its way; `flush` sends it. Raises as `open_regular` when its rows cannot be opened."""
        order = ticket.order
        if ticket.input_bytes > inline_bytes_max and order.rows is None:
            self._outbox.append(_Parcel(None, [], number, order))
        else:
            files = [] if order.rows is None else [open_regular(order.rows.path, orders.NO_ROWS_FILE, "rows file")]
            frame = memoryview(request_frame(number, order, order.inputs, len(files), self.taken))
            self._outbox.append(_Parcel(frame, files))
        self.take_off(number, ticket)

    def hand_together(self, number: int, tickets: Sequence[Ticket]) -> None:
        """Put orders on their way as one batch, numbered on from `number`: small ones, with the same take, no rows."""
        frame = batch_frame(number, [ticket.order for ticket in tickets], self.taken)
        self._outbox.append(_Parcel(memoryview(frame), []))
        for place, ticket in enumerate(tickets):
            self.take_off(number + place, ticket)

    def flush(self, nursery: trio.Nursery) -> None:
        """Write what the socket takes now, and leave the rest to a task."""
        if self._pumping or self.gone:
            return
        while self._outbox and self._outbox[0].frame is not None and self._write():
            pass
        if self._outbox:
            self._pumping = True
            nursery.start_soon(self._pump)

    def hang_up(self) -> None:
        """Close everything this side holds. Tasks that wait for the socket wake and end."""
        self.gone = True
        trio.lowlevel.notify_closing(self.channel.fileno())
        self.channel.close()
        for parcel in self._outbox:
            for descriptor in parcel.descriptors:
                os.close(descriptor)
        self._outbox.clear()
        if self.arena is not None:
            self.arena.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _pump(self) -> None:
        """Write what the socket did not take at once. Ends when all is written or the worker is gone."""
        try:
            await self._pump_all()
        finally:
            self._pumping = False

    async def _pump_all(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while self._outbox and not self.gone:
                parcel = self._outbox[0]
                if parcel.order is not None and parcel.frame is None:
                    try:
                        await self._spill(parcel, parcel.order)
                    except OSError:
                        # No memory for the copy: hang up, and the reading side ends this worker and its order.
                        self.channel.shutdown(socket.SHUT_RDWR)
                        return
                elif not self._write():
                    await trio.lowlevel.wait_writable(self.channel.fileno())

    def _write(self) -> bool:
        """Send the first parcel, or part of it. False when the socket is full."""
        self._join()
        parcel = self._outbox[0]
        assert parcel.frame is not None
        try:
            sent = send_with_descriptors(self.channel, parcel.frame, parcel.descriptors)
        except BlockingIOError:
            return False
        except OSError:
            # The worker is gone; the reading side sees the end of the stream and draws the conclusions.
            sent = len(parcel.frame)
        for descriptor in parcel.descriptors:
            os.close(descriptor)
        parcel.descriptors = []
        parcel.frame = parcel.frame[sent:]
        if not parcel.frame:
            self._outbox.popleft()
        return True

    def _join(self) -> None:
        """Make one parcel of the small ones in front: a call per write costs more than the copy."""
        if len(self._outbox) < 2:
            return
        pieces: list[memoryview] = []
        size = 0
        while self._outbox and size < JOIN_BYTES_MAX:
            parcel = self._outbox[0]
            if parcel.frame is None or parcel.descriptors:
                break
            pieces.append(parcel.frame)
            size += len(parcel.frame)
            self._outbox.popleft()
        if pieces:
            self._outbox.appendleft(_Parcel(memoryview(b"".join(pieces)), []))

    async def _spill(self, parcel: _Parcel, order: Order) -> None:
        """Put large inputs where the worker can read them: into the arena, or when it is full into a nameless file."""
        places = self.arena.reserve(order.inputs) if self.arena is not None else None
        if self.arena is None or places is None:
            await self._spill_into_file(parcel, order)
            return
        self._in_arena.add(parcel.number)
        await self.arena.fill(order.inputs, places)
        if self.gone:
            return
        parcel.frame = memoryview(request_frame(parcel.number, order, places, 0, self.taken))

    async def _spill_into_file(self, parcel: _Parcel, order: Order) -> None:
        """A piece at a time: 64 MiB at once would hold the loop for 20 ms."""
        file = anonymous_file(self.directory)
        parcel.descriptors.append(file)
        for blob in order.inputs:
            view = memoryview(blob)
            while view:
                view = view[os.write(file, view[:SPILL_CHUNK_BYTES]) :]
                await trio.lowlevel.checkpoint()
                if self.gone:
                    return
        lengths = [len(blob) for blob in order.inputs]
        parcel.frame = memoryview(request_frame(parcel.number, order, lengths, 1, self.taken))
