"""The frame codec of every dimnode stream: control socket and peer streams alike.

A frame is a big-endian u32 length and that many bytes; its body is one msgpack value. A frame of length 0 is the
explicit end of a stream: rule: whatever stops without it was cut off, never complete.
Pure: no I/O, no clock.
"""

from typing import Any, Final

import msgpack

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS

END: Final = b"\0\0\0\0"
HEADER_BYTES: Final = 4
_CONTAINERS: Final = frozenset({list, dict})


def pack_frame(body: Any, frame_bytes_max: int = LIMITS.wire.frame_bytes_max) -> bytes:
    """One frame around a msgpack value. A body over the limit is our own bug, hence an assertion."""
    packed: bytes = msgpack.packb(body)
    assert 0 < len(packed) <= frame_bytes_max, f"frame of {len(packed)} bytes exceeds {frame_bytes_max}"
    return len(packed).to_bytes(HEADER_BYTES, "big") + packed


def unpack_body(body: bytes, containers_max: int = LIMITS.wire.frame_containers_max) -> Any:
    """The msgpack value of a frame; raises `PeerFault` when it is none. Extension types are refused.

    `containers_max` bounds its lists and maps: an empty one is one byte here and a hundred in memory.
    """
    left = containers_max

    def count(found: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("too many lists and maps")
        return found

    try:
        return msgpack.unpackb(
            body,
            list_hook=count,
            object_hook=count,
            ext_hook=_no_extension,
            max_ext_len=0,
            max_array_len=4096,
            max_map_len=4096,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, TypeError) as error:
        raise PeerFault(f"frame body: {type(error).__name__}") from None


def is_deeper(value: Any, most: int = LIMITS.wire.frame_depth_max) -> bool:
    """Whether more than `most` lists and maps lie in each other: a thousand can be packed, which Python cannot print.

    Level by level and without recursion: whoever sent it chose the depth.
    """
    level = [value]
    for _ in range(most):
        below: list[Any] = []
        for part in level:
            inner = part.values() if type(part) is dict else part if type(part) is list else ()
            if not _CONTAINERS.isdisjoint(map(type, inner)):
                below += [entry for entry in inner if type(entry) in _CONTAINERS]
        if not below:
            return False
        level = below
    return True


def _no_extension(code: int, _: bytes) -> None:
    """An extension of no bytes is within every bound on its length; it is none of our types all the same."""
    raise ValueError(f"extension type {code}")


class FrameDecoder:
    """Bytes in, frame bodies out. `ended` turns true at the end frame, after which nothing may follow."""

    __slots__ = ("_buffer", "_frame_bytes_max", "ended")

    def __init__(self, frame_bytes_max: int = LIMITS.wire.frame_bytes_max) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max
        self.ended = False

    def allow(self, frame_bytes_max: int) -> None:
        """From now on frames may be this long: who was a stranger when the stream began is not one any more."""
        self._frame_bytes_max = frame_bytes_max

    def feed(self, chunk: bytes) -> list[bytes]:
        """All frame bodies completed by `chunk`. Raises `PeerFault` on a too long frame or bytes after the end."""
        buffer: bytes | bytearray = chunk
        if self._buffer:  # growing in place: a frame that comes in a thousand reads is not copied a thousand times
            self._buffer += chunk
            buffer = self._buffer
        bodies: list[bytes] = []
        position, size = 0, len(buffer)
        while size - position >= HEADER_BYTES and not self.ended:
            length = int.from_bytes(buffer[position : position + HEADER_BYTES], "big")
            if length > self._frame_bytes_max:
                raise PeerFault("frame too long")
            if length == 0:
                self.ended = True
                position += HEADER_BYTES
                break
            if size - position - HEADER_BYTES < length:
                break
            start = position + HEADER_BYTES
            bodies.append(bytes(buffer[start : start + length]))
            position = start + length
        if buffer is self._buffer:
            del self._buffer[:position]
        elif position < size:
            self._buffer += buffer[position:]
        if self.ended and self._buffer:
            raise PeerFault("bytes after the end frame")
        return bodies
