"""Large reads into the caller's memory, and large writes out of it: what is copied when, and whose turn it is."""

import os
import socket

import pytest
import trio
from host_pair import LIMITS, against_raw_peer, connections, pipe_carriers, read_exactly, run, socket_carriers
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset

from dimnode.p2p.host.noise_session import let_kernel_hold
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_frames import INITIAL_WINDOW_BYTES, SYN, DataPiece, Kind, encode_header
from dimnode.p2p.host.yamux_stream import YamuxStream

CONTENT = os.urandom(4 * INITIAL_WINDOW_BYTES + 17)


async def pair(a: YamuxConnection, b: YamuxConnection) -> tuple[YamuxStream, YamuxStream]:
    """Both ends of one stream."""
    ours = await a.open_stream()
    await ours.write(b"!")
    theirs = await b.accept_stream()
    assert await read_exactly(theirs, 1) == b"!"
    return ours, theirs


def test_memory_is_filled_to_its_end_and_what_comes_behind_stays_for_the_next_read() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            room = bytearray(len(CONTENT) - 10)
            nursery.start_soon(ours.write, CONTENT)
            await theirs.fill(memoryview(room))
            assert room == CONTENT[:-10]
            assert await read_exactly(theirs, 10) == CONTENT[-10:]
            assert theirs.unread_bytes == b.unread_bytes == 0
            assert theirs.bytes_in == len(CONTENT) + 1

    run(scenario)


def test_who_waits_for_much_is_woken_once() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            woken = 0

            class Turns(trio.abc.Instrument):
                def before_task_step(self, task: trio.lowlevel.Task) -> None:
                    nonlocal woken
                    woken += task is filling

            async def fill() -> None:
                nonlocal filling
                filling = trio.lowlevel.current_task()
                await theirs.fill(memoryview(bytearray(len(CONTENT))))

            filling: trio.lowlevel.Task | None = None
            trio.lowlevel.add_instrument(Turns())
            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            await ours.write(CONTENT)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == 1

    run(scenario)


@pytest.mark.parametrize("ended", [MuxedStreamEOF, MuxedStreamReset])
def test_a_stream_that_ends_before_the_memory_is_full_says_how_it_ended(ended: type[Exception]) -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            nursery.start_soon(ours.write, CONTENT[:1000])

            async def end() -> None:
                await trio.testing.wait_all_tasks_blocked()
                await (ours.close() if ended is MuxedStreamEOF else ours.reset())

            nursery.start_soon(end)
            with pytest.raises(ended):
                await theirs.fill(memoryview(bytearray(1001)))

    run(scenario)


def test_a_cancelled_wait_leaves_the_callers_memory_alone() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            room = bytearray(1000)
            with trio.CancelScope() as scope:
                scope.cancel()
                await theirs.fill(memoryview(room))
            await ours.write(b"late")
            assert await read_exactly(theirs, 4) == b"late"
            assert room == bytes(1000)

    run(scenario)


def test_what_comes_after_a_reader_left_half_way_does_not_touch_its_memory_and_is_counted_once() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            room, scope = bytearray(1000), trio.CancelScope()

            async def fill() -> None:
                with scope:
                    await theirs.fill(memoryview(room))

            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            await ours.write(b"x" * 400)
            await trio.testing.wait_all_tasks_blocked()
            assert room == b"x" * 400 + bytes(600)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            room[:] = b"-" * 1000  # somebody else's by now
            await ours.write(b"y" * 600)
            await trio.testing.wait_all_tasks_blocked()
            assert (theirs.unread_bytes, b.unread_bytes) == (600, 600)
            assert await read_exactly(theirs, 600) == b"y" * 600
            assert room == b"-" * 1000
            assert (theirs.unread_bytes, b.unread_bytes, theirs.bytes_in) == (0, 0, 1001)

    run(scenario)


@pytest.mark.parametrize("carriers", [lambda: socket_carriers(8192), pipe_carriers], ids=["socket", "relay"])
def test_memory_that_was_written_may_be_used_again_at_once(carriers: object) -> None:
    async def scenario() -> None:
        async with connections(carriers()) as (a, b), trio.open_nursery() as nursery:  # type: ignore[operator]
            ours, theirs = await pair(a, b)
            got = bytearray(3 * (len(CONTENT) + 4))

            async def write() -> None:
                room = bytearray(len(CONTENT))
                for _ in range(3):
                    room[:] = CONTENT
                    await ours.write(b"head", memoryview(room))
                    room[:] = bytes(len(room))

            nursery.start_soon(write)
            await theirs.fill(memoryview(got))
            assert got == 3 * (b"head" + CONTENT)

    run(scenario)


def test_window_that_comes_after_the_end_sends_nothing() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)

            async def write() -> None:
                with pytest.raises(Exception, match="closed here"):
                    await ours.write(CONTENT)

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            await ours.close()
            assert len(await theirs.read()) < len(CONTENT)
            assert await read_exactly((await pair(a, b))[1], 0) == b""  # nobody broke the format

    run(scenario)


def test_only_to_a_near_peer_may_much_wait_in_the_kernel() -> None:
    lowat = trio.socket.TCP_NOTSENT_LOWAT
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        near.setsockopt(socket.IPPROTO_TCP, lowat, 2**14)
        let_kernel_hold(near, 0.0, LIMITS.near_window_bytes_max)
        assert near.getsockopt(socket.IPPROTO_TCP, lowat) == 2**14
        let_kernel_hold(near, 5.0, LIMITS.near_window_bytes_max)
        assert near.getsockopt(socket.IPPROTO_TCP, lowat) == LIMITS.near_window_bytes_max
    for end in socket.socketpair():  # no TCP: nothing to be asked, and nothing raised
        with end:
            let_kernel_hold(end, 5.0, LIMITS.near_window_bytes_max)


def test_a_peer_that_grants_single_bytes_gets_one_frame_for_all_that_it_grants_at_once() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer), trio.open_nursery() as nursery:
            await peer.send(encode_header(Kind.WINDOW, SYN, 1, 0))
            stream = await connection.accept_stream()
            nursery.start_soon(stream.write, CONTENT)
            got = 0
            while got < INITIAL_WINDOW_BYTES:
                got += sum(len(frame.payload) for frame in await peer.next_frames() if isinstance(frame, DataPiece))
            peer.frames.clear()
            await peer.send(encode_header(Kind.WINDOW, 0, 1, 1) * 1000)
            while got < INITIAL_WINDOW_BYTES + 1000:
                got += sum(len(frame.payload) for frame in await peer.next_frames() if isinstance(frame, DataPiece))
            assert sum(isinstance(frame, DataPiece) for frame in peer.frames) <= 3
            nursery.cancel_scope.cancel()

    run(scenario)
