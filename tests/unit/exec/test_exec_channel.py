"""Frames."""

import random
import socket

import pytest

from dimnode.exec.channel import (
    BrokenFrame,
    FrameBuffer,
    pack_frame,
    receive_with_descriptors,
    send_with_descriptors,
    unpack_body,
)


def test_frames_come_out_whole_however_the_stream_is_cut() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sent = [[number, rng.randbytes(rng.choice([0, 1, 300, 5000]))] for number in range(40)]
    stream = b"".join(map(pack_frame, sent))
    buffer, got = FrameBuffer(10_000), []
    while stream:
        cut = rng.choice([1, 3, 4, 100, 4096])
        got += [unpack_body(body) for body in buffer.feed(stream[:cut])]
        stream = stream[cut:]
    assert got == sent


def test_a_frame_that_is_too_long_is_refused_at_its_header() -> None:
    with pytest.raises(BrokenFrame):
        FrameBuffer(100).feed((101).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "body", [b"", b"\x01", b"\x90", b"\x91", b"\x80", b"\xc1", b"\x91\xc7\x01\x05\x00", b"\x91" * 5000]
)
def test_a_body_that_is_no_array_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenFrame):
        unpack_body(body)


def test_descriptors_arrive_with_their_frames_in_order() -> None:
    left, right = socket.socketpair()
    first, second = socket.socketpair()
    with left, right, first, second:
        plain = pack_frame([1])
        send_with_descriptors(left, plain, [])
        send_with_descriptors(left, pack_frame([2]), [first.fileno()])
        send_with_descriptors(left, pack_frame([3]), [second.fileno()])
        buffer, numbers, found = FrameBuffer(100), [], []
        while len(numbers) < 3:
            chunk, descriptors = receive_with_descriptors(right)
            numbers += [unpack_body(body)[0] for body in buffer.feed(chunk)]
            found += descriptors
        assert numbers == [1, 2, 3]
        received = [socket.socket(fileno=descriptor) for descriptor in found]
        received[0].send(b"x")
        assert second.recv(1) == b"x"
        for end in received:
            end.close()
