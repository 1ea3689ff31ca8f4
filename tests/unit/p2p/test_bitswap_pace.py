"""How fast a peer's messages of bitswap are read, whatever is in them: no socket, and a clock that jumps."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from dimnode.limits import LIMITS
from dimnode.p2p.bitswap import Bitswap
from dimnode.p2p.bitswap_server import BitswapServer, BlockPlace
from dimnode.p2p.bitswap_words import pack_answer
from dimnode.p2p.blob_places import Places
from dimnode.p2p.host.streams import Stream, StreamEnded
from dimnode.records.ids import Cid
from dimnode.records.varint import varint

RATE = LIMITS.bitswap.entries_per_second_max


class Nothing:
    """Blocks of nobody."""

    changes = 0

    async def look_again(self) -> None:
        """Nothing came."""

    def place(self, cid: Cid) -> BlockPlace | None:
        """Nowhere."""
        return None

    def open(self, root: Cid) -> None:
        """It is not here."""


class Said:
    """A stream of bytes that are all there, so that no read waits."""

    peer, comes_from = b"peer", "10.0.0.1"

    def __init__(self, said: bytes) -> None:
        self._said, self._at = said, 0

    async def read(self, n: int) -> bytes:
        """The next ones."""
        if self._at == len(self._said):
            raise StreamEnded
        self._at += n
        return self._said[self._at - n : self._at]

    async def fill(self, room: memoryview) -> None:
        """As `read`."""
        room[:] = self._said[self._at : self._at + len(room)]
        self._at += len(room)


def presences(count: int) -> bytes:
    """A message of so many words that nobody asked for."""
    return b"".join(pack_answer([], [(b"\1%d" % number, True) for number in range(count)]))


def unknown_fields(count: int) -> bytes:
    """A message of so many fields of later versions, two bytes each."""
    return varint(2 * count) + b"\x28\x01" * count


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (lambda: bytes(1000), 1000 / RATE),
        (lambda: 5 * presences(2000), 10_000 / RATE),
        (lambda: 5 * unknown_fields(20_000), 5000 / RATE),
    ],
)
def test_what_asks_for_nothing_is_read_no_faster_than_wants(said: Callable[[], bytes], seconds: float) -> None:
    async def scenario() -> float:
        bitswap = Bitswap(BitswapServer(Nothing(), Places()))
        began = trio.current_time()
        await bitswap.serve(cast(Stream, Said(said())))
        return trio.current_time() - began

    clock: Any = trio.testing.MockClock(autojump_threshold=0)
    assert trio.run(scenario, clock=clock) >= 0.99 * seconds
