"""Which stream ids a peer has used, in constant space.

Rule: Pure: no I/O, no clock. An id is accepted once in the life of a connection. Ids may overtake each other a little
(go opens streams from several threads), so the ids left out below the highest one are remembered, and bounded.
"""

from dimnode.p2p.host.yamux_frames import FrameError


class InboundIds:
    """`first` is the lowest id of the peer's parity: 1 when the peer dialled, 2 when we did."""

    __slots__ = ("_gap_max", "_next", "_parity", "_skipped")

    def __init__(self, first: int, gap_max: int) -> None:
        self._next = first
        self._parity = first & 1
        self._gap_max = gap_max
        self._skipped: set[int] = set()

    def claim(self, stream_id: int) -> None:
        """Use up `stream_id`. Raises `FrameError` for wrong parity, zero, reuse, or too many ids left out."""
        if stream_id == 0 or stream_id & 1 != self._parity:
            raise FrameError("yamux-stream-id")
        if stream_id < self._next:
            if stream_id not in self._skipped:
                raise FrameError("yamux-stream-id-reuse")
            self._skipped.discard(stream_id)
            return
        left_out = (stream_id - self._next) // 2
        if len(self._skipped) + left_out > self._gap_max:
            raise FrameError("yamux-stream-id-gap")
        self._skipped.update(range(self._next, stream_id, 2))
        self._next = stream_id + 2
