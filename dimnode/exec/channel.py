"""Frames between node, zygote and workers: 4 bytes of length, little endian, then one msgpack array.

Rule: what comes from a worker is untrusted. Lengths are checked before anything is kept, msgpack runs with its limits
on, nothing is unpickled, and file descriptors travel only downwards (the node never receives one).
"""

import socket
from collections.abc import Sequence
from typing import Any

import msgpack

from dimnode.posix.sockets import recv_fds, send_fds

HEADER_BYTES = 4
READ_BYTES = 64 * 1024
DESCRIPTORS_PER_READ_MAX = 96
CONTAINERS_MAX = 256


class BrokenFrame(Exception):
    """The other side sent something that is no frame of ours."""


def pack_frame(value: Sequence[Any]) -> bytes:
    """One frame."""
    body: bytes = msgpack.packb(value)
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def unpack_body(body: bytes) -> list[Any]:
    """The array in a frame. Raises `BrokenFrame` for anything but one array."""
    left = CONTAINERS_MAX

    def count(found: Any) -> Any:  # an empty list is one byte here and a hundred in the node's memory
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("too many lists and maps")
        return found

    try:
        value = msgpack.unpackb(
            body, list_hook=count, object_hook=count, max_array_len=4096, max_map_len=64, max_ext_len=0
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise BrokenFrame(type(error).__name__) from None
    if type(value) is not list or not value:
        raise BrokenFrame("not an array")
    return value


class FrameBuffer:
    """Cuts a stream of bytes into frame bodies. Holds at most one unfinished frame of `frame_bytes_max`."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._held = bytearray()
        self._wanted_bytes = HEADER_BYTES

    def feed(self, chunk: bytes) -> list[bytes]:
        """All bodies that are complete now. Raises `BrokenFrame` when a frame is too long."""
        held = self._held
        if held:
            held += chunk
            # A long frame arrives in many chunks: look again only when all of it is here.
            if len(held) < self._wanted_bytes:
                return []
            stream: bytes | bytearray = held
        else:
            stream = chunk
        bodies: list[bytes] = []
        start, size = 0, len(stream)
        self._wanted_bytes = HEADER_BYTES
        while size - start >= HEADER_BYTES:
            length = int.from_bytes(stream[start : start + HEADER_BYTES], "little")
            if length > self._frame_bytes_max:
                raise BrokenFrame(f"frame of {length} bytes")
            end = start + HEADER_BYTES + length
            if end > size:
                self._wanted_bytes = HEADER_BYTES + length
                break
            bodies.append(bytes(stream[start + HEADER_BYTES : end]))
            start = end
        self._held = bytearray(stream[start:])
        return bodies


def send_with_descriptors(channel: socket.socket, frame: bytes | memoryview, descriptors: Sequence[int]) -> int:
    """One `sendmsg`: the descriptors ride on the first byte. Returns how many bytes went; may raise BlockingIOError."""
    if not descriptors:
        return channel.send(frame)
    return send_fds(channel, [frame], list(descriptors))


def receive_with_descriptors(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One `recvmsg`: bytes, and the descriptors that came with them in order of sending. b"" at the end of stream."""
    chunk, found, _, _ = recv_fds(channel, READ_BYTES, DESCRIPTORS_PER_READ_MAX)
    return chunk, found
