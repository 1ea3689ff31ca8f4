"""A piece of memory that node and worker share, for tensors too large for their socket; used again and again.

Rule: the node never maps it. It writes with `pwrite` and takes a copy out with one `pread`, and only the copy is
looked at: a hostile worker may change or try to cut off this memory at any moment, and then all it reaches is its own
answer (a mapping could end the node with SIGBUS, and a check of shared bytes could be outrun). Its size is sealed
before the worker gets it. Pages exist once they are touched, so that the full size costs nothing until it is used.

The inputs' part is a ring: a worker answers in the order in which it was asked. The outputs' part holds one answer;
the next request says whether it was taken out.
"""

import contextlib
import mmap
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dimnode.errors import PeerFault
from dimnode.posix import anonymous_file
from dimnode.records.tensors import tensor_places

ALIGNMENT_BYTES: Final = 64


def open_arena(directory: str, size: int) -> int:
    """A descriptor of `size` bytes of zeros: memory where the system has it (then its size is sealed), else disk.

    Raises OSError.
    """
    return anonymous_file(directory, size)


def numbers_start(blob: bytes) -> int:
    """Where the largest tensor's numbers begin in a blob: they should lie well aligned. 0 for what is no blob."""
    try:
        places = tensor_places(blob)
    except PeerFault:
        return 0
    return max(places, key=lambda place: place[4] - place[3])[3]


@dataclass(slots=True)
class Arena:
    """The node's side. Inputs lie in [0, input_bytes), an output in [input_bytes, input_bytes + output_bytes)."""

    descriptor: int
    input_bytes: int
    output_bytes: int
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

    def write(self, offset: int, piece: memoryview) -> None:
        """Copy bytes in. Raises OSError when the machine has no memory for them."""
        while piece:
            done = os.pwrite(self.descriptor, piece, offset)
            piece, offset = piece[done:], offset + done

    def read_output(self, length: int) -> bytes | None:
        """A copy of the worker's answer; None when it says more than there can be."""
        if not 0 < length <= self.output_bytes:
            return None
        found = os.pread(self.descriptor, length, self.input_bytes)
        return found if len(found) == length else None

    def close(self) -> None:
        """Let go of it; the worker's mapping keeps the memory alive until that ends."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = -1

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


class SharedArena:
    """The worker's side: a mapping. What the node wrote stays as it is until its answer has been sent."""

    def __init__(self, descriptor: int, input_bytes: int, output_bytes: int) -> None:
        self._mapping = mmap.mmap(descriptor, input_bytes + output_bytes)
        self._view = memoryview(self._mapping)
        self._input_bytes = input_bytes
        os.close(descriptor)

    def view(self, offset: int, length: int) -> memoryview:
        """An input where it lies, read-only."""
        return self._view[offset : offset + length].toreadonly()

    def put(self, output: bytes) -> int:
        """Put an answer in; its length."""
        self._view[self._input_bytes : self._input_bytes + len(output)] = output
        return len(output)
