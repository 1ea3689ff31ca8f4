"""Yamux streams between two of our own connections: how they carry, wait and end."""

import itertools
import random
from typing import Any

import pytest
import trio
import trio.testing
from host_pair import LIMITS, connections, pipe_carriers, read_exactly, run, socket_carriers
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_stream import YamuxStream


async def stream_pair(a: YamuxConnection, b: YamuxConnection) -> tuple[YamuxStream, YamuxStream]:
    outgoing = await a.open_stream()
    return outgoing, await b.accept_stream()


async def echo(stream: YamuxStream) -> None:
    try:
        while True:
            await stream.write(await stream.read(100_000))
    except MuxedStreamEOF:
        await stream.close()


@pytest.mark.parametrize("carriers", [socket_carriers, pipe_carriers])
def test_what_one_side_writes_the_other_reads(carriers: Any) -> None:
    async def scenario() -> None:
        async with connections(carriers()) as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)
            nursery.start_soon(echo, theirs)
            for size in (1, 100, 16_384, 16_385, 65_507, 65_508):
                nursery.start_soon(ours.write, bytes(size))
                assert await read_exactly(ours, size) == bytes(size)
            await ours.close()
            with pytest.raises(MuxedStreamEOF):
                await ours.read(1)

    run(scenario)


def test_a_megabyte_passes_the_window_and_is_counted() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)
            blob = bytes(range(256)) * 4096
            nursery.start_soon(ours.write, blob)
            assert await read_exactly(theirs, len(blob)) == blob
            assert (ours.bytes_out, theirs.bytes_in) == (len(blob), len(blob))
            assert (a.bytes_out, b.bytes_in, b.unread_bytes) == (len(blob), len(blob), 0)
            assert theirs.window_target > 256 * 1024, "a reader that keeps up gets a wider window"

    run(scenario)


def test_reading_in_portions_of_any_size_gives_the_same_bytes() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    blob = rng.randbytes(200_000)

    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)

            async def write() -> None:
                at = 0
                while at < len(blob):
                    size = rng.choice([1, 7, 100, 5000, 70_000])
                    await ours.write(blob[at : at + size])
                    at += size
                await ours.close()

            nursery.start_soon(write)
            got = bytearray()
            while len(got) < len(blob):
                size = rng.choice([1, 3, 4096, 16_384, 150_000])
                part = await theirs.read(size)
                assert 1 <= len(part) <= size
                got += part
            assert got == blob, f"seed {seed}"
            assert theirs.unread_bytes == b.unread_bytes == 0

    run(scenario)


def test_a_finished_stream_is_told_apart_from_a_lost_one() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            for ending, expected in (("close", MuxedStreamEOF), ("reset", MuxedStreamReset)):
                ours, theirs = await stream_pair(a, b)
                await ours.write(b"abc")
                assert await read_exactly(theirs, 3) == b"abc"
                await getattr(ours, ending)()
                with pytest.raises(expected):
                    await theirs.read(1)

    run(scenario)


def test_after_close_the_other_direction_stays_open_and_writing_is_refused() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await stream_pair(a, b)
            await ours.close()
            with pytest.raises(MuxedStreamClosed):
                await ours.write(b"x")
            await theirs.write(b"still")
            assert await read_exactly(ours, 5) == b"still"
            await theirs.close()
            with pytest.raises(MuxedStreamEOF):
                await ours.read(1)
            assert ours.gone
            assert theirs.gone

    run(scenario)


def test_closing_the_connection_sends_what_was_written() -> None:
    async def scenario() -> None:
        async with connections(socket_carriers(buffer_bytes=4096)) as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)
            await ours.write(bytes(200_000))
            await ours.close()
            nursery.start_soon(a.close)
            assert await theirs.read() == bytes(200_000)

    run(scenario)


def test_closing_the_connection_to_a_peer_that_does_not_read_is_bounded() -> None:
    async def scenario() -> None:
        carriers = socket_carriers(buffer_bytes=4096)
        async with connections(carriers) as (a, b):
            ours, _ = await stream_pair(a, b)
            b.session._socket = None  # its reader is parked on the socket already and sees one more batch at most
            await ours.write(bytes(250_000))
            started = trio.current_time()
            await a.close()
            assert trio.current_time() - started <= LIMITS.close_seconds_max + 0.1
            assert a.is_closed

    run(scenario, clock=trio.testing.MockClock(autojump_threshold=0.02))


def test_bytes_before_the_end_survive_the_loss_of_the_connection() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            finished_ours, finished = await stream_pair(a, b)
            open_ours, still_open = await stream_pair(a, b)
            await finished_ours.write(b"complete")
            await finished_ours.close()
            await open_ours.write(b"partial")
            await trio.testing.wait_all_tasks_blocked()
            await a.session.close()
            await b.event_closed.wait()
            assert await finished.read() == b"complete"
            with pytest.raises(MuxedStreamReset):
                await still_open.read(7)
            for stream in (finished, still_open):
                with pytest.raises(MuxedStreamError):
                    await stream.write(b"x")
            with pytest.raises(MuxedConnUnavailable):
                await b.open_stream()
            with pytest.raises(MuxedConnUnavailable):
                await b.accept_stream()

    run(scenario)


def test_a_writer_waits_while_nobody_reads_and_goes_on_afterwards() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)
            nursery.start_soon(ours.write, bytes(600_000))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert ours.bytes_out == theirs.unread_bytes == 256 * 1024
            assert not ours.write_nowait(b"x")
            await read_exactly(theirs, 600_000)

    run(scenario)


def test_a_write_cancelled_anywhere_leaves_the_connection_whole() -> None:
    async def scenario() -> None:
        async with connections(socket_carriers(buffer_bytes=4096)) as (a, b), trio.open_nursery() as nursery:
            kept_ours, kept = await stream_pair(a, b)
            nursery.start_soon(echo, kept)
            for steps in range(30):
                ours, theirs = await stream_pair(a, b)
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(ours.write, bytes(500_000))
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                await ours.reset()
                theirs.abandon()
                await kept_ours.write(b"alive")
                assert await read_exactly(kept_ours, 5) == b"alive"
            await kept_ours.close()

    run(scenario)


def test_two_writers_of_one_stream_do_not_mix_their_messages() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)
            nursery.start_soon(ours.write, b"a" * 300_000)
            nursery.start_soon(ours.write, b"b" * 300_000)
            nursery.start_soon(ours.write, b"c" * 10)
            got = await read_exactly(theirs, 600_010)
            assert len(list(itertools.groupby(got))) == 3

    run(scenario)


def test_writers_of_one_stream_take_turns_though_one_writes_in_a_loop() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await stream_pair(a, b)

            async def loop() -> None:
                for _ in range(6):
                    await ours.write(b"a" * 100_000)

            nursery.start_soon(loop)
            await trio.testing.wait_all_tasks_blocked()  # in the third: that is what the window takes
            for letter in (b"b", b"c"):
                nursery.start_soon(ours.write, letter * 100_000)
                await trio.testing.wait_all_tasks_blocked()
            assert not ours.write_nowait(b"x")
            got = await read_exactly(theirs, 800_000)
            runs = [(key, len(list(same))) for key, same in itertools.groupby(got)]
            assert bytes(key for key, _ in runs) == b"abca"
            assert [size for _, size in runs[1:3]] == [100_000, 100_000]

    run(scenario)


def test_a_writer_that_is_cancelled_before_or_when_its_turn_comes_passes_it_on() -> None:
    async def scenario() -> None:
        sent = [0]
        while sent[-1] < 600_000:  # until it is too late to cancel
            async with connections() as (a, b):
                ours, theirs = await stream_pair(a, b)
                scope = trio.CancelScope()

                async def write_within(scope: trio.CancelScope, stream: YamuxStream) -> None:
                    with scope:
                        await stream.write(b"b" * 200_000)

                async with trio.open_nursery() as nursery:  # it ends when all have written
                    nursery.start_soon(ours.write, b"a" * 300_000)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(write_within, scope, ours)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(ours.write, b"c" * 100_000)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(read_exactly, theirs, 400_000)
                    for _ in sent[1:]:
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                sent.append(ours.bytes_out)
                assert ours.write_nowait(b"x")
                await ours.reset()
        assert sent[1] == 400_000

    run(scenario)


def test_write_nowait_sends_small_messages_only() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await stream_pair(a, b)
            buffer = bytearray(b"abc")
            assert ours.write_nowait(buffer)
            buffer[:] = b"xyz"
            assert await read_exactly(theirs, 3) == b"abc"
            assert not ours.write_nowait(bytes(LIMITS.small_write_bytes_max + 1))
            while ours.write_nowait(bytes(LIMITS.small_write_bytes_max)):
                pass
            assert 100_000 < ours.bytes_out <= 256 * 1024
            await ours.reset()
            with pytest.raises(MuxedStreamReset):
                ours.write_nowait(b"x")

    run(scenario)


def test_answers_of_streams_woken_together_share_a_message() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            pairs = [await stream_pair(a, b) for _ in range(20)]
            for _, theirs in pairs:
                nursery.start_soon(echo, theirs)
            await trio.testing.wait_all_tasks_blocked()
            before = b.session._outgoing._nonce
            for ours, _ in pairs:
                ours.write_nowait(b"ping", later=True)
            for ours, _ in pairs:
                assert await read_exactly(ours, 4) == b"ping"
            assert b.session._outgoing._nonce - before <= 2
            for ours, _ in pairs:
                await ours.close()

    run(scenario)


def test_a_stream_left_by_its_reader_frees_its_place_and_its_bytes() -> None:
    async def scenario() -> None:
        async with connections(linger_seconds_max=30.0) as (a, b):
            ours, theirs = await stream_pair(a, b)
            await ours.write(b"unread")
            await trio.testing.wait_all_tasks_blocked()
            assert b.unread_bytes == 6
            await theirs.close()
            theirs.abandon()
            await ours.write(b"more")
            await trio.testing.wait_all_tasks_blocked()
            assert b.unread_bytes == 0
            await trio.sleep(60)  # virtual: two sweeps later
            assert theirs.gone
            with pytest.raises(MuxedStreamReset):
                await ours.write(b"x")

    run(scenario, clock=trio.testing.MockClock(autojump_threshold=0.01), seconds=100)


def test_unread_bytes_of_a_stream_both_sides_closed_do_not_count() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await stream_pair(a, b)
            await ours.write(b"unread")
            await ours.close()
            await theirs.close()
            await trio.testing.wait_all_tasks_blocked()
            assert b.unread_bytes == 0
            assert await theirs.read() == b"unread"
            assert b.unread_bytes == 0

    run(scenario)
