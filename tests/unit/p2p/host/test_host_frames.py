"""The frame parser: the same frames come out, however the bytes were cut."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.p2p.host.yamux_frames import (
    ACK,
    FIN,
    HEADER_BYTES,
    RST,
    SYN,
    DataPiece,
    Frame,
    FrameError,
    FrameParser,
    GoAwayFrame,
    Kind,
    PingFrame,
    WindowFrame,
    encode_header,
)

SIZE_MAX = 1000
SCENE = b"".join(
    [
        encode_header(Kind.WINDOW, SYN, 1, 0),
        encode_header(Kind.DATA, 0, 1, 5) + b"hello",
        encode_header(Kind.DATA, SYN, 3, 0),
        encode_header(Kind.PING, SYN, 0, 77),
        encode_header(Kind.DATA, FIN, 1, 3) + b"end",
        encode_header(Kind.DATA, RST, 3, 0),
        encode_header(Kind.WINDOW, ACK, 5, 2**32 - 1),
        encode_header(Kind.GO_AWAY, 0, 0, 2),
    ]
)


def joined(frames: list[Frame]) -> list[Frame]:
    """Put the pieces of each data frame together again, so that cuts do not show."""
    whole: list[Frame] = []
    for frame in frames:
        if isinstance(frame, DataPiece) and not frame.first:
            before = whole.pop()
            assert isinstance(before, DataPiece)
            assert not before.last
            assert before[:3] == frame[:3]
            whole.append(before._replace(payload=before.payload + frame.payload, last=frame.last))
        else:
            whole.append(frame)
    return whole


def parse(chunks: list[bytes]) -> list[Frame]:
    parser = FrameParser(SIZE_MAX)
    return joined([frame for chunk in chunks for frame in parser.feed(chunk)])


def test_frames_are_parsed_in_order_with_their_fields() -> None:
    assert parse([SCENE]) == [
        WindowFrame(1, SYN, 0),
        DataPiece(1, 0, 5, b"hello", True, True),
        DataPiece(3, SYN, 0, b"", True, True),
        PingFrame(SYN, 77),
        DataPiece(1, FIN, 3, b"end", True, True),
        DataPiece(3, RST, 0, b"", True, True),
        WindowFrame(5, ACK, 2**32 - 1),
        GoAwayFrame(2),
    ]


@pytest.mark.parametrize("cut", range(len(SCENE) + 1))
def test_a_cut_at_any_byte_changes_nothing(cut: int) -> None:
    assert parse([SCENE[:cut], SCENE[cut:]]) == parse([SCENE])


def test_single_bytes_change_nothing() -> None:
    assert parse([SCENE[at : at + 1] for at in range(len(SCENE))]) == parse([SCENE])


frame_bytes = st.one_of(
    st.builds(
        lambda flags, stream_id, payload: encode_header(Kind.DATA, flags, stream_id, len(payload)) + payload,
        st.integers(0, 15),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
    ),
    st.builds(
        encode_header,
        st.sampled_from([Kind.WINDOW, Kind.PING, Kind.GO_AWAY]),
        st.integers(0, 15),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    ),
)


@settings(max_examples=30, deadline=None)
@given(frames=st.lists(frame_bytes, max_size=12), seed=st.integers(0, 2**32))
def test_any_chunking_gives_the_same_frames(frames: list[bytes], seed: int) -> None:
    whole = b"".join(frames)
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(whole) + 1) for _ in range(rng.randrange(10)))
    chunks = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parse(chunks) == parse([whole])
    assert len(parse([whole])) == len(frames)


def test_the_header_alone_is_reported_before_its_payload() -> None:
    parser = FrameParser(SIZE_MAX)
    assert parser.feed(encode_header(Kind.DATA, 0, 1, 9)) == [DataPiece(1, 0, 9, b"", True, False)]
    assert parser.feed(b"123456789") == [DataPiece(1, 0, 9, b"123456789", False, True)]


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        (b"\x01" + bytes(HEADER_BYTES - 1), "yamux-version"),
        (encode_header(4, 0, 1, 0), "yamux-frame-type"),
        (encode_header(Kind.DATA, 0, 1, SIZE_MAX + 1), "yamux-frame-size"),
    ],
)
def test_bytes_that_are_no_frame_are_the_peers_fault(header: bytes, rule: str) -> None:
    with pytest.raises(FrameError) as caught:
        FrameParser(SIZE_MAX).feed(header)
    assert caught.value.rule == rule
