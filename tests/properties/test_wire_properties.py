"""The frame codec: whatever the portions, the same frames come out, and nothing but frames."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=200),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@given(values=st.lists(VALUES, max_size=8), ended=st.booleans(), portions=st.lists(st.integers(1, 70), min_size=1))
def test_any_chunking_of_frames_gives_the_same_bodies(values, ended, portions) -> None:
    stream = b"".join(pack_frame(value) for value in values) + (END if ended else b"")
    decoder, bodies, position, turn = FrameDecoder(), [], 0, 0
    while position < len(stream):
        size = portions[turn % len(portions)]
        bodies += decoder.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert [unpack_body(body) for body in bodies] == values
    assert all(type(body) is bytes for body in bodies)
    assert decoder.ended == ended


@given(raw=st.binary(max_size=300), portion=st.integers(1, 50))
def test_random_bytes_are_frames_or_a_fault(raw, portion) -> None:
    decoder = FrameDecoder(100)
    try:
        for position in range(0, len(raw), portion):
            for body in decoder.feed(raw[position : position + portion]):
                assert 0 < len(body) <= 100
                unpack_body(body)
    except PeerFault:
        pass


@given(body=st.binary(max_size=80))
def test_a_garbage_body_is_a_fault_and_holds_no_extension(body) -> None:
    try:
        value = unpack_body(body)
    except PeerFault:
        return
    waiting = [value]
    while waiting:
        found = waiting.pop()
        assert type(found) in (type(None), bool, int, float, str, bytes, list, dict)
        waiting += found if type(found) is list else [*found, *found.values()] if type(found) is dict else []


@pytest.mark.parametrize("raw", [msgpack.ExtType(5, b""), msgpack.ExtType(5, b"1"), msgpack.Timestamp(1)])
def test_extension_types_are_refused_even_without_bytes(raw) -> None:
    with pytest.raises(PeerFault):
        unpack_body(msgpack.packb([raw]))
