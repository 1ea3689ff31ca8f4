"""Yamux frames: bytes in, frames out, whatever way the bytes were cut.

Rule: Pure: no I/O, no clock. A frame that breaks the format raises `FrameError`; what the frame means for a stream is
decided by `yamux.py`.

Source: https://github.com/hashicorp/yamux/blob/master/spec.md (header: version, type, flags, stream id, length).
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!BBHII")
HEADER_BYTES: Final = HEADER.size
INITIAL_WINDOW_BYTES: Final = 256 * 1024  # fixed by the specification: a peer counts on it before the first update

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

_VIEW_BYTES_MIN: Final = 4096  # a view takes as long to make as so many bytes to copy


class Kind(IntEnum):
    """The four frame types."""

    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


# Plain integers for the parser's inner loop: comparing enum members costs more than parsing the header.
_DATA, _WINDOW, _PING, _GO_AWAY = (int(kind) for kind in Kind)


class FrameError(Exception):
    """The peer sent bytes that are no Yamux frame; the connection is beyond repair. `rule` names what was broken."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class DataPiece(NamedTuple):
    """Payload of one data frame, or a part; `length` is the whole. SYN counts when `first`, FIN and RST when `last`.

    Large payload is a view of the chunk that it came in: whoever keeps it, copies it.
    """

    stream_id: int
    flags: int
    length: int
    payload: bytes | memoryview
    first: bool
    last: bool


class WindowFrame(NamedTuple):
    """`delta` more bytes may be sent on the stream."""

    stream_id: int
    flags: int
    delta: int


class PingFrame(NamedTuple):
    """SYN asks, ACK answers with the same value."""

    flags: int
    value: int


class GoAwayFrame(NamedTuple):
    """The peer is about to close the connection; 0 is a normal end."""

    code: int


Frame = DataPiece | WindowFrame | PingFrame | GoAwayFrame


def encode_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the 12 header bytes; for `Kind.WINDOW` the length is the delta, for `Kind.PING` the value."""
    return HEADER.pack(0, kind, flags, stream_id, length)


class FrameParser:
    """Turns a byte stream into frames. Holds at most 11 bytes between calls: payload is handed on as it comes."""

    __slots__ = ("_flags", "_frame_bytes_max", "_head", "_length", "_missing", "_stream_id")

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._head = b""
        self._missing = 0  # payload bytes of the current data frame that have not arrived
        self._stream_id = self._flags = self._length = 0

    def whole(self, chunk: bytes | memoryview) -> tuple[int, bytes | memoryview] | None:
        """Stream and payload when `chunk` is one long data frame without flags and nothing else; else `feed` it.

        A long payload comes so, message for message, and this takes half the time.
        """
        size = len(chunk) - HEADER_BYTES
        if size < _VIEW_BYTES_MIN or self._missing or self._head or size > self._frame_bytes_max:
            return None
        version, kind, flags, stream_id, length = HEADER.unpack_from(chunk)
        if version or kind != _DATA or flags or length != size:
            return None
        return stream_id, memoryview(chunk)[HEADER_BYTES:]

    def feed(self, chunk: bytes | memoryview) -> list[Frame]:
        """Return the frames that `chunk` completes, and the payload pieces it carries, in order.

        Raises `FrameError` (the peer's fault); the parser must not be used afterwards.
        """
        if self._head:
            chunk = self._head + bytes(chunk)
            self._head = b""
        frames: list[Frame] = []
        at, end = 0, len(chunk)
        while at < end:
            if self._missing:
                at = self._continue(chunk, at, end, frames)
                continue
            if end - at < HEADER_BYTES:
                self._head = bytes(chunk[at:])
                break
            version, kind, flags, stream_id, length = HEADER.unpack_from(chunk, at)
            at += HEADER_BYTES
            if version:
                raise FrameError("yamux-version")
            if kind == _DATA:
                at = self._start(chunk, at, end, frames, stream_id, flags, length)
            elif kind == _WINDOW:
                frames.append(WindowFrame(stream_id, flags, length))
            elif kind == _PING:
                frames.append(PingFrame(flags, length))
            elif kind == _GO_AWAY:
                frames.append(GoAwayFrame(length))
            else:
                raise FrameError("yamux-frame-type")
        return frames

    def _start(
        self, chunk: bytes | memoryview, at: int, end: int, frames: list[Frame], stream_id: int, flags: int, length: int
    ) -> int:
        if length > self._frame_bytes_max:
            raise FrameError("yamux-frame-size")
        until = at + length
        if until <= end:
            frames.append(DataPiece(stream_id, flags, length, _cut(chunk, at, until), True, True))
            return until
        # The first piece may be empty (header alone): the window is then checked before any payload arrives.
        frames.append(DataPiece(stream_id, flags, length, _cut(chunk, at, end), True, False))
        self._missing = until - end
        self._stream_id, self._flags, self._length = stream_id, flags, length
        return end

    def _continue(self, chunk: bytes | memoryview, at: int, end: int, frames: list[Frame]) -> int:
        until = min(at + self._missing, end)
        self._missing -= until - at
        payload = _cut(chunk, at, until)
        frames.append(DataPiece(self._stream_id, self._flags, self._length, payload, False, self._missing == 0))
        return until


def _cut(chunk: bytes | memoryview, at: int, until: int) -> bytes | memoryview:
    return bytes(chunk[at:until]) if until - at < _VIEW_BYTES_MIN else memoryview(chunk)[at:until]
