"""What waits to be sent on a stream, and memory for a long payload, cut as it will travel.

Before the bytes of each slot is room for a frame's header. Whoever reads a file for a peer reads it into slots; then
the frame is encrypted where it lies, and nothing puts header and payload together first.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from dimnode.p2p.host.noise_session import PLAIN_BYTES_MAX
from dimnode.p2p.host.yamux_frames import HEADER, HEADER_BYTES, Kind, encode_header

PAYLOAD_BYTES_MAX: Final = PLAIN_BYTES_MAX - HEADER_BYTES  # a full frame is exactly one full Noise message


class Slot:
    """One frame; its length is that of its payload."""

    __slots__ = ("_frame",)

    def __init__(self, frame: memoryview) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame) - HEADER_BYTES

    @property
    def payload(self) -> memoryview:
        """Where its bytes lie."""
        return self._frame[HEADER_BYTES:]

    def framed(self, stream_id: int) -> memoryview:
        """The frame, its header filled in."""
        HEADER.pack_into(self._frame, 0, 0, Kind.DATA, 0, stream_id, len(self))
        return self._frame


class Slots:
    """Memory for one payload at a time, of at most `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        count = -(-bytes_max // PAYLOAD_BYTES_MAX)
        memory = memoryview(bytearray(count * PLAIN_BYTES_MAX))
        self._frames = [memory[at : at + PLAIN_BYTES_MAX] for at in range(0, len(memory), PLAIN_BYTES_MAX)]
        self._whole = [Slot(frame) for frame in self._frames]

    def lay(self, head: bytes, size: int) -> tuple[list[Slot], list[memoryview]]:
        """Slots for `head`, which is put in, and `size` bytes after it; and where these go, in order."""
        last, rest = divmod(len(head) + size, PAYLOAD_BYTES_MAX)
        slots = self._whole[:last]
        if rest:
            slots.append(Slot(self._frames[last][: HEADER_BYTES + rest]))
        places = [slot.payload for slot in slots]
        places[0][: len(head)] = head
        places[0] = places[0][len(head) :]
        return slots, places


class Outbox:
    """What one `write` has still to send. Slices of it wait in the session, so what may change is copied first."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[memoryview | Slot] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, parts: Iterable[bytes | bytearray | memoryview | Slot]) -> None:
        """At its end; nothing for parts without bytes."""
        for part in parts:
            if isinstance(part, (bytes, bytearray)):
                part = memoryview(bytes(part))
            if part:
                self._waiting.append(part)

    def clear(self) -> None:
        """Nothing more of it is sent."""
        self._waiting.clear()

    def next_frame(self, stream_id: int, window: int) -> tuple[int, list[bytes | memoryview]]:
        """Bytes of payload, and the frame; in one piece when it lies in a slot and the window takes all of that."""
        pieces: list[bytes | memoryview] = []
        left = most = min(window, PAYLOAD_BYTES_MAX)
        while self._waiting and left:
            waits = self._waiting.popleft()
            if isinstance(waits, Slot) and not pieces and len(waits) <= left:
                return len(waits), [waits.framed(stream_id)]
            piece = waits.payload if isinstance(waits, Slot) else waits
            if len(piece) > left:
                self._waiting.appendleft(piece[left:])
                piece = piece[:left]
            pieces.append(piece)
            left -= len(piece)
        return most - left, [encode_header(Kind.DATA, 0, stream_id, most - left), *pieces]
