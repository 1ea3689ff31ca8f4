"""The node's side of the memory that it shares with a worker, for tensors too large for their socket.

Rule: nothing that a worker does to this memory reaches the node. There are two pieces, each used again and again:

Inputs. The node has the only writable mapping there can ever be (`written_here_alone`), and gets its pages before
it touches them: no worker can change what it was given or take a page away, and a machine without memory says so by
an OSError. (A page that is not there would end the node by SIGBUS.) Where the system has no such memory, the node maps
nothing and writes with `pwrite`. It is a ring: a worker answers in the order in which it was asked.

Output. One answer, written by the worker, which may change it at any moment. The node never maps it: it takes a copy
out with one `pread`, and only the copy is looked at. The next request says whether it was taken out.

The sizes are sealed before a worker gets them. Pages exist once they are needed: until then the size costs nothing.
"""

import contextlib
import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import trio

from dimnode.errors import PeerFault
from dimnode.posix import memory
from dimnode.posix.files import pread, pwrite
from dimnode.records.tensors import tensor_places

ALIGNMENT_BYTES: Final = 64
PIECE_BYTES: Final = 1024**2
"""What is copied, or got from the system, before others have a turn: at most a millisecond of the loop."""
APART_BYTES_MIN: Final = 4 * 1024**2
"""From here on two threads copy; what is smaller is copied before they would have begun."""
THREADS: Final = 2

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def numbers_start(blob: bytes) -> int:
    """Where the largest tensor's numbers begin in a blob: they should lie well aligned. 0 for what is no blob."""
    try:
        places = tensor_places(blob)
    except PeerFault:
        return 0
    return max(places, key=lambda place: place[4] - place[3])[3]


@dataclass(slots=True)
class Arena:
    """Of one worker. `inputs` and `output` are descriptors."""

    input_bytes: int
    output_bytes: int
    inputs: int = -1
    output: int = -1
    _mapped: Bytes | None = None
    _allocated: int = 0
    _threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(THREADS))
    _rooms: deque[tuple[int, int]] = field(default_factory=deque)

    def reserve(self, blobs: tuple[bytes, ...]) -> list[tuple[int, int]] | None:
        """Room for these blobs, each as (offset, length), or None when there is none now.

        Blobs lie so that the numbers of the largest tensor of each are aligned.
        """
        sizes = [len(blob) for blob in blobs]
        start = self._fit(sum(sizes) + 2 * ALIGNMENT_BYTES * len(blobs))
        if start is None:
            return None
        at, found = start, []
        for blob, size in zip(blobs, sizes, strict=True):
            at += -(at + numbers_start(blob)) % ALIGNMENT_BYTES
            found.append((at, size))
            at += size
        self._rooms.append((start, at))
        return found

    def release(self) -> None:
        """The oldest reservation is no longer needed."""
        self._rooms.popleft()

    async def fill(self, blobs: tuple[bytes, ...], places: list[tuple[int, int]]) -> None:
        """Copy blobs to where they have room, and never hold the loop for long. Ends early when it is closed meanwhile.

        Raises OSError when the machine has no memory for them.
        """
        for blob, (offset, size) in zip(blobs, places, strict=True):
            if self._mapped is not None:
                await self._allocate(offset + size)
            if self._mapped is not None and size >= APART_BYTES_MIN:
                await self._copy_apart(self._mapped[offset : offset + size], np.frombuffer(blob, np.uint8))
                continue
            for start in range(0, size, PIECE_BYTES):
                if self.inputs < 0:
                    return
                self._write(offset + start, memoryview(blob)[start : start + PIECE_BYTES])
                await trio.lowlevel.checkpoint()

    def read_output(self, length: int) -> bytes | None:
        """A copy of the worker's answer; None when it says more than there can be."""
        if not 0 < length <= self.output_bytes:
            return None
        found = pread(self.output, length, 0)
        return found if len(found) == length else None

    def close(self) -> None:
        """Let go of it. The memory ends with its last mapping: the worker's, or one that a thread still writes to."""
        for descriptor in (self.inputs, self.output):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self.inputs = self.output = -1
        self._mapped = None

    async def _allocate(self, end: int) -> None:
        """Have all pages up to here: touching one that the machine has no memory for would end this process."""
        while self._allocated < end and self.inputs >= 0:
            size = min(PIECE_BYTES, self.input_bytes - self._allocated)
            memory.allocate(self.inputs, self._allocated, size)
            self._allocated += size
            await trio.lowlevel.checkpoint()

    async def _copy_apart(self, target: Bytes, source: Bytes) -> None:
        """Half by half, each in a thread. A cancel waits for both."""
        half = len(source) // 2
        async with trio.open_nursery() as nursery:
            for part in (slice(None, half), slice(half, None)):
                nursery.start_soon(self._copy_in_thread, target[part], source[part])

    async def _copy_in_thread(self, target: Bytes, source: Bytes) -> None:
        copy = partial(np.copyto, target, source)
        try:
            await trio.to_thread.run_sync(copy, limiter=self._threads)
        except RuntimeError:  # the system has no thread left
            copy()

    def _write(self, offset: int, piece: memoryview) -> None:
        if self._mapped is not None:
            self._mapped[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
            return
        while piece:
            done = pwrite(self.inputs, piece, offset)
            piece, offset = piece[done:], offset + done

    def _fit(self, size: int) -> int | None:
        """Where so many bytes can begin: at the start when nothing is in it, so that the same pages are used again."""
        if not self._rooms:
            return 0 if size <= self.input_bytes else None
        first, last = self._rooms[0][0], self._rooms[-1][1]
        if last > first:
            if last + size <= self.input_bytes:
                return last
            return 0 if size < first else None
        return last if last + size < first else None


def open_arena(directory: str, input_bytes: int, output_bytes: int) -> Arena:
    """Two pieces of zeros: memory where the system has it, else disk. Raises OSError."""
    try:
        inputs, mapping = memory.written_here_alone(input_bytes)
        mapped = np.frombuffer(mapping, np.uint8)
    except OSError:
        inputs, mapped = memory.anonymous_file(directory, input_bytes), None
    try:
        output = memory.anonymous_file(directory, output_bytes)
    except OSError:
        os.close(inputs)
        raise
    return Arena(input_bytes, output_bytes, inputs, output, mapped)
