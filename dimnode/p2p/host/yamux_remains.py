"""What may still come for streams that are over on our side, in constant space.

A reset does not recall what the peer has sent meanwhile. How much that can be is known to the byte: a peer may send
what it was granted as window and did not use, and after the reset nothing is granted. So each ended stream leaves the
rest of its window behind, which pays for what is dropped. No clock and no round trip is needed: updates that are under
way to the peer are part of the window since they were written, and a peer that is slow to learn of the reset runs out
of window all the same.

Rule: Pure: no I/O, no clock. The bytes that we drop never exceed the window that we granted, `slack_bytes` excepted.
"""

from collections import OrderedDict

from dimnode.p2p.host.yamux_frames import FrameError


class Remains:
    """The unused windows of the streams that ended last, and one common rest of those that ended before them."""

    __slots__ = ("_older_bytes", "_older_bytes_max", "_streams_max", "_window_of")

    def __init__(self, streams_max: int, slack_bytes: int, older_bytes_max: int) -> None:
        self._streams_max = streams_max
        self._window_of: OrderedDict[int, int] = OrderedDict()
        self._older_bytes = slack_bytes
        self._older_bytes_max = older_bytes_max

    def leave(self, stream_id: int, window_bytes: int) -> None:
        """A stream is over; the peer could still send so much on it."""
        self._window_of[stream_id] = window_bytes
        if len(self._window_of) > self._streams_max:
            _, oldest = self._window_of.popitem(last=False)
            self._older_bytes = max(self._older_bytes, min(self._older_bytes + oldest, self._older_bytes_max))

    def charge(self, stream_id: int, length: int) -> None:
        """A data frame of `length` begins and is dropped. Raises `FrameError` when it was never granted."""
        left = self._window_of.get(stream_id)
        if left is None:
            self._older_bytes -= length
            if self._older_bytes < 0:
                raise FrameError("yamux-window-of-no-stream")
            return
        if length > left:
            raise FrameError("yamux-window-after-reset")
        self._window_of[stream_id] = left - length
