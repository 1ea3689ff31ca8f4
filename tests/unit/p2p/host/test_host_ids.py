"""A stream id serves once in the life of a connection."""

import random

import pytest

from dimnode.p2p.host.yamux_frames import FrameError
from dimnode.p2p.host.yamux_ids import InboundIds


def broken_rule(ids: InboundIds, stream_id: int) -> str:
    with pytest.raises(FrameError) as caught:
        ids.claim(stream_id)
    return caught.value.rule


def test_ids_may_overtake_each_other_and_count_once() -> None:
    seed = random.randrange(2**32)
    order = list(range(1, 201, 2))
    for start in range(0, 100, 10):  # shuffled within tens, as threads of a go peer would
        part = order[start : start + 10]
        random.Random(seed + start).shuffle(part)
        order[start : start + 10] = part
    ids = InboundIds(1, gap_max=20)
    for stream_id in order:
        ids.claim(stream_id)
    assert all(broken_rule(ids, stream_id) == "yamux-stream-id-reuse" for stream_id in order), f"seed {seed}"


@pytest.mark.parametrize(("first", "bad"), [(1, 2), (2, 1), (1, 0), (2, 0)])
def test_an_id_of_the_wrong_side_is_refused(first: int, bad: int) -> None:
    assert broken_rule(InboundIds(first, 10), bad) == "yamux-stream-id"


def test_ids_left_out_are_bounded() -> None:
    ids = InboundIds(2, gap_max=3)
    ids.claim(8)  # leaves out 2, 4 and 6
    assert broken_rule(ids, 12) == "yamux-stream-id-gap"
    ids.claim(4)
    ids.claim(12)
    assert broken_rule(ids, 4) == "yamux-stream-id-reuse"
