"""Frames: bounds, the explicit end, and what a long frame costs."""

import time

import pytest

from dimnode.errors import PeerFault
from dimnode.wire import END, FrameDecoder, is_deeper, pack_frame, unpack_body


def test_a_frame_over_the_bound_is_refused_at_its_header() -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(PeerFault, match="too long"):
        decoder.feed((101).to_bytes(4, "big"))


def test_a_frame_of_exactly_the_bound_passes() -> None:
    frame = pack_frame(b"x" * 98, 100)
    assert len(frame) == 104
    assert [unpack_body(body) for body in FrameDecoder(100).feed(frame)] == [b"x" * 98]


def test_packing_too_much_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        pack_frame(b"x" * 100, 100)


def test_only_the_end_frame_ends_a_stream() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(pack_frame(1) + END[:3]) == [b"\x01"]
    assert not decoder.ended
    assert decoder.feed(END[3:]) == []
    assert decoder.ended


@pytest.mark.parametrize("chunks", [(END + b"x",), (END, b"x"), (END[:2], END[2:] + pack_frame(1)), (END, END)])
def test_bytes_after_the_end_frame_are_a_fault(chunks) -> None:
    decoder = FrameDecoder()
    with pytest.raises(PeerFault, match="after the end"):
        list(map(decoder.feed, chunks))


def test_frames_before_the_end_in_one_chunk_are_all_given() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(pack_frame(1) + pack_frame(2) + END) == [b"\x01", b"\x02"]
    assert decoder.ended


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x92\x01", b"\x01\x02", b"\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 3000]
)
def test_a_body_that_is_not_one_value_is_a_fault(body) -> None:
    with pytest.raises(PeerFault):
        unpack_body(body)


def test_a_long_frame_in_small_portions_is_not_copied_again_for_each() -> None:
    frame = pack_frame(b"x" * (8 * 2**20), 2**24)
    decoder, started = FrameDecoder(2**24), time.process_time()
    bodies = [body for at in range(0, len(frame), 4096) for body in decoder.feed(frame[at : at + 4096])]
    assert len(bodies) == 1
    assert time.process_time() - started < 0.5  # copying it for each of 2048 portions takes seconds


@pytest.mark.parametrize("inner", [[], {}, [1, [2], "x"], {"a": [1], "b": {"c": []}}])
def test_how_deep_lists_and_maps_lie_in_each_other_is_told_without_going_down(inner) -> None:
    deep = 1 + any(isinstance(part, list | dict) for part in (inner.values() if isinstance(inner, dict) else inner))
    deep += inner == {"a": [1], "b": {"c": []}}
    assert not is_deeper(inner, deep) and is_deeper(inner, deep - 1)
    for _ in range(10_000):
        inner = [inner, 1]
    assert is_deeper(inner, 10_000 + deep - 1) and not is_deeper(inner, 10_000 + deep)
