"""The first frame of a stream: what it leaves behind, and who is to blame when it does not come."""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.streams import StreamEnded, StreamLost
from dimnode.p2p.introduction import one_frame
from dimnode.wire import END, pack_frame


class Said:
    """A stream on which these pieces came, and then its end."""

    def __init__(self, *pieces: bytes, end: Callable[[], Exception] = StreamEnded) -> None:
        self._pieces, self._end = deque(pieces), end

    async def read(self, n: int) -> bytes:
        if not self._pieces:
            raise self._end()
        piece = self._pieces.popleft()
        if piece[n:]:
            self._pieces.appendleft(piece[n:])
        return piece[:n]


def heard(stream: Any, bytes_max: int = LIMITS.wire.question_bytes_max) -> bytes:
    return trio.run(one_frame, stream, bytes_max)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_frames_that_come_together_are_read_one_by_one(size: int) -> None:
    whole = pack_frame("first") + pack_frame("second") + END
    stream = Said(*(whole[at : at + size] for at in range(0, len(whole), size)))
    assert [heard(stream), heard(stream), heard(stream)] == [pack_frame("first")[4:], pack_frame("second")[4:], b""]


@pytest.mark.parametrize("pieces", [(), (b"\0\0",), (pack_frame("cut off")[:-1],)])
def test_who_ends_before_the_last_byte_is_at_fault_and_a_broken_connection_is_nobodys(pieces: tuple[bytes]) -> None:
    with pytest.raises(PeerFault):
        heard(Said(*pieces))
    with pytest.raises(StreamLost):
        heard(Said(*pieces, end=lambda: StreamLost("reset")))


def test_a_frame_over_the_bound_is_refused_before_it_is_read() -> None:
    stream = Said((101).to_bytes(4, "big"), end=lambda: AssertionError("it was read on"))
    with pytest.raises(PeerFault, match="too long"):
        heard(stream, 100)
