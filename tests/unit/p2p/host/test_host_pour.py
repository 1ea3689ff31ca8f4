"""Payload that goes to a taker the moment it comes: whatever it takes, leaves for later, or lives to see the end of."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trio
from host_pair import connections, pipe_carriers, read_exactly, run, socket_carriers
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from test_host_bulk import pair
from trio.testing import wait_all_tasks_blocked

from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.p2p.host.yamux_frames import INITIAL_WINDOW_BYTES
from dimnode.p2p.host.yamux_stream import YamuxStream

CONTENT = os.urandom(4 * INITIAL_WINDOW_BYTES + 17)


@dataclass
class Cup:
    """Takes as many bytes at a time as it is told, and notes when it heard that no more comes."""

    sips: Iterator[int]
    got: bytearray = field(default_factory=bytearray)
    over_at: list[int] = field(default_factory=list)

    def take(self, payload: bytes | memoryview) -> int:
        taken = min(next(self.sips), len(payload))
        self.got += payload[:taken]
        return taken

    def over(self) -> None:
        self.over_at.append(len(self.got))


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def drunk(seed: int) -> Iterator[int]:
    """All, nothing, or a part."""
    choices = random.Random(seed)
    while True:
        yield choices.choice([0, 1, 17, 60_000, 2**30])


ALL = 2**30


def settled(*streams: YamuxStream) -> None:
    """Nothing is unread, also in the books of the connections."""
    for stream in streams:
        assert stream.unread_bytes == 0
        assert stream.muxed_conn.unread_bytes == 0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await wait_all_tasks_blocked()


CARRIERS = pytest.mark.parametrize(
    "carriers", [socket_carriers, lambda: socket_carriers(8192), pipe_carriers], ids=["socket", "tight", "relay"]
)


@CARRIERS
def test_bytes_before_pouring_and_during_it_go_to_the_taker_and_those_after_it_to_the_reader(carriers: object) -> None:
    async def scenario() -> None:
        async with connections(carriers()) as (a, b), trio.open_nursery() as nursery:  # type: ignore[operator]
            ours, theirs = await pair(a, b)
            await ours.write(CONTENT[:1000])
            await until(lambda: theirs.unread_bytes == 1000)
            assert await read_exactly(theirs, 300) == CONTENT[:300]
            cup = Cup(always(ALL))
            theirs.pour(cup)
            assert cup.got == CONTENT[300:1000]
            nursery.start_soon(ours.write, CONTENT[1000:])
            await until(lambda: len(cup.got) == len(CONTENT) - 300)
            assert cup.got == CONTENT[300:]
            settled(theirs)
            theirs.pour(None)
            await ours.write(CONTENT)
            assert await read_exactly(theirs, len(CONTENT)) == CONTENT
            assert len(cup.got) == len(CONTENT) - 300 and not cup.over_at
            assert theirs.bytes_in == 2 * len(CONTENT) + 1
            settled(theirs)

    run(scenario)


def test_what_the_taker_left_goes_to_the_reader_when_pouring_ends() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            cup = Cup(iter([5, 7, *[0] * 1000]))
            theirs.pour(cup)
            nursery.start_soon(ours.write, CONTENT)
            await wait_all_tasks_blocked()
            theirs.resume()
            theirs.pour(None)
            room = bytearray(len(CONTENT) - len(cup.got))
            await theirs.fill(memoryview(room))
            assert len(cup.got) == 12 and cup.got + room == CONTENT
            settled(theirs)

    run(scenario)


@CARRIERS
@pytest.mark.parametrize("seed", range(3))
def test_a_taker_that_takes_a_part_and_goes_on_later_loses_nothing_and_gets_nothing_twice(
    carriers: object, seed: int
) -> None:
    async def scenario() -> None:
        async with connections(carriers()) as (a, b), trio.open_nursery() as nursery:  # type: ignore[operator]
            ours, theirs = await pair(a, b)
            cup = Cup(drunk(seed))
            theirs.pour(cup)
            nursery.start_soon(ours.write, CONTENT)
            while len(cup.got) < len(CONTENT):
                await wait_all_tasks_blocked()
                assert theirs.unread_bytes == b.unread_bytes <= theirs.window_target
                assert theirs.bytes_in == len(cup.got) + 1
                theirs.resume()
            assert cup.got == CONTENT
            settled(theirs)

    run(scenario)


def test_the_peer_gets_no_window_while_nothing_is_taken_and_other_streams_go_on() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            cup = Cup(always(0))
            theirs.pour(cup)
            written = trio.Event()

            async def write() -> None:
                await ours.write(CONTENT)
                written.set()

            nursery.start_soon(write)
            await until(lambda: theirs.unread_bytes >= INITIAL_WINDOW_BYTES - 1)
            other_ours, other_theirs = await pair(a, b)
            nursery.start_soon(other_ours.write, CONTENT)
            assert await read_exactly(other_theirs, len(CONTENT)) == CONTENT
            await wait_all_tasks_blocked()
            assert theirs.unread_bytes <= INITIAL_WINDOW_BYTES and not written.is_set()
            assert not cup.got and theirs.bytes_in == 1
            cup.sips = always(ALL)
            theirs.resume()
            await written.wait()
            await until(lambda: len(cup.got) == len(CONTENT))
            assert cup.got == CONTENT
            settled(theirs, other_theirs)

    run(scenario)


def test_the_end_is_told_after_the_last_byte_was_taken_and_how_it_ended_is_asked_then() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            outside = Stream(theirs, b"peer", "/x/1")
            cup = Cup(iter([0, 400, 0, ALL]))
            theirs.pour(cup)
            await ours.write(CONTENT[:1000])
            await ours.close()
            await until(lambda: theirs.finished_there)
            outside.check_readable()  # more is to come: it waits here
            assert not cup.over_at
            for _ in range(2):
                theirs.resume()
                assert not cup.over_at
                outside.check_readable()
            theirs.resume()
            assert cup.got == CONTENT[:1000] and set(cup.over_at) == {1000}
            with pytest.raises(StreamEnded):
                outside.check_readable()
            settled(theirs)

    run(scenario)


def test_bytes_before_a_finish_are_poured_also_when_the_connection_is_lost_while_they_wait() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            cup = Cup(iter([0, ALL]))
            theirs.pour(cup)
            await ours.write(CONTENT[:1000])
            await ours.close()
            await until(lambda: theirs.finished_there)
            await b.close()
            assert theirs.lost and not cup.over_at
            theirs.check_readable()
            theirs.resume()
            assert cup.got == CONTENT[:1000] and set(cup.over_at) == {1000}
            with pytest.raises(MuxedStreamEOF):
                theirs.check_readable()
            settled(theirs)

    run(scenario)


@pytest.mark.parametrize("how", ["reset", "connection"])
def test_of_a_stream_that_is_lost_while_bytes_wait_nothing_more_is_poured_and_the_taker_hears_of_it(how: str) -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            cup = Cup(iter([10, *[0] * 100]))
            theirs.pour(cup)
            await ours.write(CONTENT[:1000])
            await until(lambda: theirs.unread_bytes == 990)
            await (ours.reset() if how == "reset" else a.close())
            await until(lambda: bool(cup.over_at))
            assert set(cup.over_at) == {10}
            theirs.resume()
            assert cup.got == CONTENT[:10]
            with pytest.raises(MuxedStreamReset):
                theirs.check_readable()
            with pytest.raises(StreamLost):
                Stream(theirs, b"peer", "/x/1").check_readable()
            settled(theirs)

    run(scenario)


@pytest.mark.parametrize("ended", ["close", "reset"])
def test_a_taker_that_comes_after_the_end_is_told_of_it(ended: str) -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            await ours.write(b"last")
            await until(lambda: theirs.unread_bytes == 4)
            await getattr(ours, ended)()
            await until(lambda: theirs.finished_there or theirs.lost)
            cup = Cup(always(ALL))
            theirs.pour(cup)
            assert cup.got == (b"last" if ended == "close" else b"") and cup.over_at
            settled(theirs)

    run(scenario)


def test_who_is_cancelled_and_pours_no_more_leaves_the_rest_to_the_reader_and_the_connection_whole() -> None:
    async def scenario() -> None:
        async with connections() as (a, b), trio.open_nursery() as nursery:
            ours, theirs = await pair(a, b)
            cup = Cup(iter([0, 100_000, *[0] * 1000]))

            async def pour() -> None:
                theirs.pour(cup)
                try:
                    await wait_all_tasks_blocked()
                    theirs.resume()
                    await trio.sleep_forever()
                finally:
                    theirs.pour(None)

            async with trio.open_nursery() as inner:
                inner.start_soon(pour)
                nursery.start_soon(ours.write, CONTENT)
                await until(lambda: bool(cup.got))
                inner.cancel_scope.cancel()
            rest = await read_exactly(theirs, len(CONTENT) - len(cup.got))
            assert cup.got + rest == CONTENT
            settled(theirs)
            more_ours, more_theirs = await pair(a, b)
            await more_ours.write(b"hello")
            assert await read_exactly(more_theirs, 5) == b"hello"

    run(scenario)


def test_our_own_reset_while_bytes_wait_is_told_and_leaves_no_unread_bytes() -> None:
    async def scenario() -> None:
        async with connections() as (a, b):
            ours, theirs = await pair(a, b)
            cup = Cup(always(0))
            theirs.pour(cup)
            await ours.write(CONTENT[:1000])
            await until(lambda: theirs.unread_bytes == 1000)
            theirs.reset_nowait()
            assert cup.over_at and not cup.got
            theirs.pour(None)
            settled(theirs)
            with pytest.raises(MuxedStreamReset):
                await theirs.read(1)

    run(scenario)
