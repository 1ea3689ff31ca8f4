"""What comes for a stream that is over: honest peers are not cut off for it, nobody sends more than was granted."""

from collections import deque
from typing import Any

import pytest
import trio
import trio.testing
from host_pair import PEER, against_raw_peer, run, sessions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import MuxedStreamError

from dimnode.limits import HostLimits
from dimnode.p2p.host.yamux import StreamBudget, YamuxConnection
from dimnode.p2p.host.yamux_frames import RST, SYN, FrameError, Kind, PingFrame, WindowFrame, encode_header
from dimnode.p2p.host.yamux_remains import Remains

WINDOW = 256 * 1024
PIECE = 32 * 1024
SIDES = (0, 1)


def data(flags: int, stream_id: int, payload: bytes) -> bytes:
    return encode_header(Kind.DATA, flags, stream_id, len(payload)) + payload


# The exact bound


@pytest.mark.parametrize("before_bytes", [0, 3 * PIECE])
@pytest.mark.parametrize("beyond_bytes", [0, 1])
def test_after_our_reset_the_rest_of_the_window_may_come_and_not_one_byte_more(
    before_bytes: int, beyond_bytes: int
) -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            await peer.send(data(SYN, 1, bytes(before_bytes)))
            stream = await connection.accept_stream()
            await stream.reset()
            await peer.until(lambda frame: isinstance(frame, WindowFrame) and bool(frame.flags & RST))
            left = WINDOW - before_bytes
            await peer.send(*[data(0, 1, bytes(PIECE))] * (left // PIECE), data(0, 1, bytes(beyond_bytes)))
            if beyond_bytes:
                await connection.event_closed.wait()
                return
            await peer.send(encode_header(Kind.PING, SYN, 0, 42))
            await peer.until(lambda frame: frame == PingFrame(1 << 1, 42))
            assert connection.unread_bytes == 0

    run(scenario)


def test_a_refused_stream_is_worth_its_first_window_and_not_one_byte_more() -> None:
    async def scenario() -> None:
        async with against_raw_peer(inbound_streams_max=1) as (connection, peer):
            await peer.send(data(SYN, 1, b""), data(SYN, 3, bytes(PIECE)), data(0, 3, bytes(WINDOW - PIECE)))
            await peer.send(encode_header(Kind.PING, SYN, 0, 42))
            await peer.until(lambda frame: frame == PingFrame(1 << 1, 42))
            await peer.send(data(0, 3, b"x"))
            await connection.event_closed.wait()

    run(scenario)


def test_a_stream_that_is_reset_while_a_frame_arrives_pays_for_the_frame_once() -> None:
    async def scenario() -> None:
        async with against_raw_peer(connection_unread_bytes_max=4 * PIECE) as (connection, peer):
            # One frame as long as the window: it is too much unread in its midst, what follows of it is paid for.
            await peer.send(data(SYN, 1, bytes(WINDOW)), encode_header(Kind.PING, SYN, 0, 42))
            await peer.until(lambda frame: frame == PingFrame(1 << 1, 42))
            assert connection.unread_bytes == 0
            await peer.send(data(0, 1, b"x"))
            await connection.event_closed.wait()

    run(scenario)


def test_data_for_streams_that_never_were_is_bounded() -> None:
    async def scenario() -> None:
        async with against_raw_peer() as (connection, peer):
            for number in range(WINDOW // PIECE + 1):
                await peer.send(data(0, 2 * number + 1001, bytes(PIECE)))
            await connection.event_closed.wait()

    run(scenario)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 300)), max_size=60),
    st.integers(1, 4),
)
def test_what_is_dropped_is_never_more_than_what_was_granted(
    steps: list[tuple[bool, int, int]], remembered: int
) -> None:
    slack = 100
    remains = Remains(remembered, slack, 10_000)
    granted, dropped = slack, 0
    ended: dict[int, int] = {}
    for leaves, stream_id, size in steps:
        if leaves and stream_id not in ended:
            ended[stream_id] = size
            granted += size
            remains.leave(stream_id, size)
        elif not leaves:
            try:
                remains.charge(stream_id, size)
            except FrameError:
                break
            dropped += size
    assert dropped <= granted


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 300), st.lists(st.integers(0, 40), max_size=5)), max_size=40))
def test_whoever_keeps_to_its_windows_is_never_refused(streams: list[tuple[int, list[int]]]) -> None:
    remains = Remains(4, 0, 10**9)
    left: dict[int, int] = {}
    for number, (window, frames) in enumerate(streams):
        remains.leave(number, window)
        left[number] = window
        for at, size in enumerate(frames):
            target = (number * 7 + at * 3) % (number + 1)
            size = min(size, left[target])
            left[target] -= size
            remains.charge(target, size)


# Two honest muxers and a slow line between them


class SlowLine:
    """A carrier whose bytes arrive when the test lets them, so many at a time."""

    def __init__(self) -> None:
        self.other: SlowLine = self
        self._arrived: deque[bytes] = deque()
        self._under_way: deque[bytes] = deque()
        self._something = trio.Event()
        self._closed = False

    async def read(self, n: int | None = None) -> bytes:
        while not self._arrived and not self._closed:
            self._something = trio.Event()
            await self._something.wait()
        if not self._arrived:
            return b""
        chunk = self._arrived.popleft()
        if n is not None and len(chunk) > n:
            self._arrived.appendleft(chunk[n:])
            chunk = chunk[:n]
        return chunk

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.other._under_way.append(data)

    def deliver(self, size: int) -> None:
        """Let about so many bytes arrive here."""
        while size > 0 and self._under_way:
            chunk = self._under_way.popleft()
            if len(chunk) > size:
                self._under_way.appendleft(chunk[size:])
                chunk = chunk[:size]
            size -= len(chunk)
            self._arrived.append(chunk)
        self._something.set()

    async def close(self) -> None:
        self._closed = self.other._closed = True
        self._something.set()
        self.other._something.set()


class Pair:
    """Two muxers over a slow line, and what became of their streams."""

    def __init__(self, limits: HostLimits, nursery: trio.Nursery) -> None:
        self.lines = SlowLine(), SlowLine()
        self.lines[0].other, self.lines[1].other = self.lines[1], self.lines[0]
        self.offences: list[Any] = []
        budgets = [
            StreamBudget(limits.inbound_streams_total_max, lambda *what: self.offences.append(what)) for _ in SIDES
        ]
        made = zip(sessions((self.lines[0], self.lines[1])), budgets, strict=True)
        self.ends = [YamuxConnection(session, PEER, limits, budget) for session, budget in made]
        for end in self.ends:  # nothing is forgiven: honest peers need no slack
            end._remains = Remains(limits.ended_streams_remembered_max, 0, limits.connection_unread_bytes_max)
        self.streams: tuple[list[Any], list[Any]] = ([], [])
        self.nursery = nursery

    async def step(self, what: str, side: int, which: int, size: int) -> None:
        """One thing that a side does, or that the line does for it."""
        mine = self.streams[side]
        stream = mine[which % len(mine)] if mine else None
        match what:
            case "open":
                mine.append(await self.ends[side].open_stream())
            case "accept" if self.ends[side]._accepted.statistics().current_buffer_used:
                mine.append(await self.ends[side].accept_stream())
            case "deliver":
                self.lines[side].deliver(size * 16)
            case "write" if stream:
                self.nursery.start_soon(self._write, stream, bytes(size))
            case "read" if stream and stream.unread_bytes:
                await stream.read(size + 1)
            case "close" if stream:
                await stream.close()
            case "reset" if stream:
                await stream.reset()
            case "abandon" if stream:
                stream.abandon()
        await trio.testing.wait_all_tasks_blocked()

    async def _write(self, stream: Any, blob: bytes) -> None:
        try:
            await stream.write(blob)
        except MuxedStreamError:
            pass

    async def settle(self) -> None:
        """Everything that is under way arrives, until nothing is."""
        for _ in range(200):
            for line in self.lines:
                line.deliver(1 << 20)
            await trio.testing.wait_all_tasks_blocked()
            if not any(line._under_way or line._arrived for line in self.lines):
                return


ACTS = ("open", "accept", "deliver", "deliver", "write", "write", "read", "close", "reset", "abandon")
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS), st.sampled_from(SIDES), st.integers(0, 5), st.integers(0, 400_000)), max_size=40
)
RESET_BELOW_FULL_PIPE = [
    ("open", 0, 0, 0),
    ("deliver", 1, 0, 10**6),
    ("accept", 1, 0, 0),
    ("write", 0, 0, 400_000),
    ("deliver", 1, 0, 6_000),
    ("read", 1, 0, 200_000),
    ("deliver", 0, 0, 10**6),
    ("reset", 1, 0, 0),
]


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(STEPS, st.sampled_from([1, 3]))
@example(RESET_BELOW_FULL_PIPE, 3)
def test_two_muxers_never_cut_each_other_off_however_late_their_frames_arrive(
    steps: list[tuple[str, int, int, int]], remembered: int
) -> None:
    limits = HostLimits(ended_streams_remembered_max=remembered, keepalive_first_seconds=1e6)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            pair = Pair(limits, nursery)
            for end in pair.ends:
                nursery.start_soon(end.start)
                await end.event_started.wait()
            for step in steps:
                await pair.step(*step)
            await pair.settle()
            assert pair.offences == []
            assert not any(end.is_closed for end in pair.ends)
            nursery.cancel_scope.cancel()

    run(scenario, seconds=30)
