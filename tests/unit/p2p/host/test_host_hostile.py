"""A peer that breaks the rules of Yamux, frame by frame: what it costs it, and what it does not cost us."""

import contextlib
import random

import pytest
import trio
import trio.testing
from host_pair import LIMITS, RawPeer, against_raw_peer, read_exactly, run
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.multistream import proposal
from dimnode.p2p.host.noise_session import SessionLost
from dimnode.p2p.host.yamux_frames import (
    ACK,
    FIN,
    RST,
    SYN,
    DataPiece,
    Kind,
    PingFrame,
    WindowFrame,
    encode_header,
)
from dimnode.p2p.host.yamux_stream import ProtocolRefused

WINDOW = 256 * 1024


def data(flags: int, stream_id: int, payload: bytes) -> bytes:
    return encode_header(Kind.DATA, flags, stream_id, len(payload)) + payload


def is_reset_of(stream_id: int):
    return lambda frame: isinstance(frame, WindowFrame) and frame.stream_id == stream_id and bool(frame.flags & RST)


def test_a_stream_may_begin_carry_and_end_in_one_frame() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(data(SYN | FIN, 1, b"all at once"))
            stream = await connection.accept_stream()
            assert await stream.read() == b"all at once"
            await peer.until(lambda frame: frame == WindowFrame(1, ACK, 0))

    run(scenario)


def test_a_reset_on_a_data_frame_loses_the_stream() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(data(SYN, 1, b"some"), data(RST, 1, b"more"))
            stream = await connection.accept_stream()
            with pytest.raises(MuxedStreamReset):
                await stream.read()
            assert connection.unread_bytes == 0
            assert stream.gone

    run(scenario)


def test_a_reset_after_the_end_keeps_what_came_before_the_end() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(data(SYN | FIN, 1, b"complete"), encode_header(Kind.WINDOW, RST, 1, 0))
            stream = await connection.accept_stream()
            assert await stream.read() == b"complete"
            with pytest.raises(MuxedStreamEOF):
                await stream.read(1)
            with pytest.raises(MuxedStreamReset):
                await stream.write(b"x")

    run(scenario)


@pytest.mark.parametrize(
    "offence",
    [
        data(SYN, 1, b"") + data(0, 1, bytes(WINDOW)) + data(0, 1, b"x"),  # beyond the window
        data(SYN, 1, b"") + encode_header(Kind.DATA, 0, 1, WINDOW + 1),  # the header alone is enough
        data(SYN, 1, b"") + data(SYN, 1, b""),  # an id that is in use
        data(SYN | RST, 1, b"") + data(SYN, 1, b""),  # an id that was used
        data(SYN, 2, b""),  # an id of our side
        data(SYN, 0, b""),
        data(SYN, 9_001, b""),  # leaves out more ids than we care to remember
        data(SYN | FIN, 1, b"") + data(0, 1, b"x"),  # goes on after its end
        data(SYN, 1, b"") + 2 * encode_header(Kind.WINDOW, 0, 1, 2**32 - 1),  # a window that cannot be
        encode_header(9, 0, 0, 0),
        b"\x07" * 12,
        encode_header(Kind.DATA, 0, 1, LIMITS.frame_bytes_max + 1),
        encode_header(Kind.GO_AWAY, 0, 0, 0),
    ],
)
def test_a_broken_rule_ends_the_connection(offence: bytes) -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            ours = await connection.open_stream()
            await peer.send(offence)
            await connection.event_closed.wait()
            with pytest.raises(MuxedStreamReset):
                await ours.read(1)

    run(scenario)


@pytest.mark.parametrize(
    "harmless",
    [
        data(0, 77, b"for a stream that was never there"),
        encode_header(Kind.WINDOW, 0, 77, 5),
        encode_header(Kind.WINDOW, FIN, 77, 0),
        encode_header(Kind.WINDOW, RST, 77, 0),
        encode_header(Kind.PING, ACK, 0, 12345),
    ],
)
def test_frames_about_nothing_are_passed_over(harmless: bytes) -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(harmless, encode_header(Kind.PING, SYN, 0, 42))
            await peer.until(lambda frame: frame == PingFrame(ACK, 42))
            assert not connection.is_closed

    run(scenario)


def test_more_unread_bytes_than_fit_cost_the_stream_and_not_the_connection() -> None:
    async def scenario() -> None:
        async with against_raw_peer(connection_unread_bytes_max=100_000) as (connection, peer):
            await peer.send(data(SYN, 1, bytes(60_000)), data(SYN, 3, bytes(60_000)), data(SYN, 5, b"ok"))
            await peer.until(is_reset_of(3))
            first, second, third = [await connection.accept_stream() for _ in range(3)]
            with pytest.raises(MuxedStreamReset):
                await second.read(1)
            assert await read_exactly(first, 60_000) == bytes(60_000)
            assert await read_exactly(third, 2) == b"ok"
            assert connection.unread_bytes == 0

    run(scenario)


def test_inbound_streams_beyond_the_cap_are_reset_and_places_come_back() -> None:
    async def scenario() -> None:
        async with against_raw_peer(inbound_streams_max=3) as (connection, peer):
            await peer.send(*[data(SYN, stream_id, b"") for stream_id in (1, 3, 5, 7)])
            await peer.until(is_reset_of(7))
            streams = [await connection.accept_stream() for _ in range(3)]
            await peer.send(data(RST, 3, b""), data(SYN, 9, b"in again"))
            assert await read_exactly(await connection.accept_stream(), 8) == b"in again"
            assert [stream.gone for stream in streams] == [False, True, False]

    run(scenario)


def test_the_budget_of_the_host_is_shared_and_given_back() -> None:
    async def scenario() -> None:
        async with against_raw_peer(inbound_streams_total_max=1) as (connection, peer):
            await peer.send(data(SYN, 1, b""), data(SYN, 3, b""))
            await peer.until(is_reset_of(3))
            await peer.session.close()
            await connection.event_closed.wait()
            assert connection._budget.left == 1

    run(scenario)


def test_a_peer_that_asks_and_never_reads_is_dropped() -> None:
    async def scenario() -> None:
        async with against_raw_peer(session_unsent_bytes_max=10_000) as (connection, peer):
            pings = encode_header(Kind.PING, SYN, 0, 1) * 4000
            with contextlib.suppress(SessionLost):
                while True:
                    await peer.send(pings)
            await connection.event_closed.wait()

    run(scenario)


def test_a_silent_peer_is_dropped_and_a_talking_one_is_not() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(data(SYN, 1, b""))
            for _ in range(8):  # says something every five seconds, and answers no ping
                await trio.sleep(5)
                await peer.send(data(0, 1, b"."))
            assert not connection.is_closed
            started = trio.current_time()
            await connection.event_closed.wait()
            assert trio.current_time() - started <= 2 * LIMITS.keepalive_seconds + LIMITS.keepalive_wait_seconds

    run(scenario, clock=trio.testing.MockClock(autojump_threshold=0.01), seconds=1000)


def test_an_answered_ping_gives_the_round_trip() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.until(lambda frame: isinstance(frame, PingFrame))
            await trio.sleep(0.25)
            await peer.send(encode_header(Kind.PING, ACK, 0, 1))
            await trio.testing.wait_all_tasks_blocked()
            assert 0.2 < connection.rtt() < 0.3

    run(scenario, clock=trio.testing.MockClock(autojump_threshold=0.01), seconds=1000)


def test_a_protocol_is_agreed_on_in_one_round_trip() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer), trio.open_nursery() as nursery:

            async def agree() -> None:
                hello = await peer.until(lambda frame: isinstance(frame, DataPiece))
                assert isinstance(hello, DataPiece)
                assert hello.payload == proposal("/x/1")
                await peer.send(data(0, 2, hello.payload + b"and payload"))

            nursery.start_soon(agree)
            stream = await open_negotiated(connection, "/x/1", lazy=False)
            assert await stream.read(100) == b"and payload"
            assert (stream.bytes_in, stream.bytes_out) == (11, 0)

    run(scenario)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_refused_protocol_is_told_at_the_first_byte_that_differs(lazy: bool) -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):

            async def ask() -> None:
                stream = await open_negotiated(connection, "/x/1", lazy=lazy)
                await stream.write(b"payload")
                await stream.read(10)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(refuse, peer)
                with pytest.raises(ProtocolRefused):
                    await ask()
            await peer.until(is_reset_of(2))

    async def refuse(peer: RawPeer) -> None:
        await peer.until(lambda frame: isinstance(frame, DataPiece))
        await peer.send(data(0, 2, b"\x13/multistream/1.0.0\n\x03na\n"))

    run(scenario)


def test_lazy_payload_travels_with_the_proposal() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            stream = await open_negotiated(connection, "/x/1", lazy=True)
            await stream.write(b"payload")
            frames = await peer.next_frames()
            assert [frame.payload for frame in frames if isinstance(frame, DataPiece)] == [proposal("/x/1"), b"payload"]
            assert isinstance(frames[0], WindowFrame)
            assert frames[0].flags == SYN
            await peer.send(data(FIN, 2, proposal("/x/1") + b"answer"))
            assert await stream.read() == b"answer"

    run(scenario)


def test_random_frames_end_the_connection_or_leave_it_in_order() -> None:
    number = random.randrange(2**32)
    print("seed", number)
    rng = random.Random(number)

    def random_frame() -> bytes:
        kind = rng.choice([*Kind, Kind.DATA, Kind.DATA, 9])
        flags, stream_id = rng.randrange(16), rng.choice([0, 1, 2, 3, 5, 7, 9, 11, 99_999])
        length = rng.choice([0, 1, 100, 60_000, 2**31])
        payload = rng.randbytes(length) if kind == Kind.DATA and length <= 60_000 and rng.random() < 0.9 else b""
        return encode_header(kind, flags, stream_id, length) + payload

    async def session() -> None:
        async with against_raw_peer(inbound_streams_max=4) as (connection, peer):
            ours = await connection.open_stream()
            ours.write_nowait(b"hello")
            await peer.send(*[random_frame() for _ in range(rng.randrange(1, 30))])
            await trio.testing.wait_all_tasks_blocked()
            known = list(connection._streams.values())
            inbound = sum(not stream.is_initiator for stream in known)
            assert inbound == LIMITS.inbound_streams_total_max - connection._budget.left <= 4
            assert connection.unread_bytes == sum(stream.unread_bytes for stream in known)
            assert not (connection.is_closed and known)

    async def scenario() -> None:
        for _ in range(25):
            await session()

    run(scenario)
