"""Memory for a long payload, cut as it will travel: before the bytes of each frame is room for its header.

Whoever reads a file for a peer reads it into the slots; then a frame is encrypted where it lies, and nothing puts
header and payload together first.
"""

from typing import Final

from dimnode.p2p.host.noise_session import PLAIN_BYTES_MAX
from dimnode.p2p.host.yamux_frames import HEADER, HEADER_BYTES, Kind

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
