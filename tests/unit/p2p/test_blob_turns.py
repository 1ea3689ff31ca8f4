"""A fetch whose leaves pour in, on a clock that stands still: who waits is woken, and by no clock."""

import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_leaves import LeafAnswers
from dimnode.p2p.blob_words import Have, Leaf
from dimnode.p2p.host.streams import StreamLost
from dimnode.records.ids import PeerId
from dimnode.records.unixfs import LEAF_BYTES, Tree, TreeBuilder
from dimnode.wire import pack_frame

A, B, C = PeerId(b"a"), PeerId(b"b"), PeerId(b"c")
TWO = replace(LIMITS.exchange, requests_first=2, keeper_linger_seconds=60.0)


def tree_of(leaves: int) -> Tree:
    builder = TreeBuilder()
    for _ in range(leaves):
        builder.add_digest(bytes(32), LEAF_BYTES)
    return builder.finish()


class Disk:
    """A sink that takes any leaf, once it is let."""

    done_bytes = 0

    def __init__(self, leaves: int) -> None:
        self.have = bytearray(leaves)
        self.gate = threading.Semaphore(0)

    def missing(self) -> list[int]:
        return [leaf for leaf, here in enumerate(self.have) if not here]

    def write(self, leaf: int, pieces: Sequence[bytes | memoryview], digest: bytes | None = None) -> bool:
        assert self.gate.acquire(timeout=30)
        if pieces[0][0] == ord("!"):
            raise PeerFault("blob: wrong leaf")
        self.have[leaf] = 1
        return True

    def stand_by(self, leaves: int) -> None:
        """The loop has no turn until so many are written."""
        late = time.monotonic() + 10
        while sum(self.have) < leaves:
            time.sleep(0.001)
            assert time.monotonic() < late


class Peer:
    """A stream to a provider whose every byte is said by the test."""

    bytes_in = 0

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.had: list[bytes] = []
        self.taker: LeafAnswers | None = None
        self.left = b""
        self.is_lost = False
        self.ended: Exception | None = None

    async def ask(self, *questions: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.asked += [asked.index for asked in questions if type(asked) is Leaf]
        assert self.had or not any(type(asked) is Have for asked in questions)

    async def have(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.had.pop()

    def pour(self, taker: Any) -> None:
        self.taker = taker
        self.resume()

    def resume(self) -> None:
        if self.taker is not None:
            self.left = self.left[self.taker.take(self.left) :]

    def check_readable(self) -> None:
        if self.is_lost:
            raise StreamLost("reset")

    def say(self, sent: bytes) -> None:
        assert self.taker is not None
        self.left += sent
        self.resume()

    def give(self, leaf: int, content: bytes = bytes(LEAF_BYTES)) -> None:
        self.say(pack_frame(["leaf", leaf, LEAF_BYTES]) + content)

    def lose(self) -> None:
        self.is_lost, self.left = True, b""
        assert self.taker is not None
        self.taker.over()


class Stage:
    """A download that is past its tree, and its providers."""

    def __init__(self, leaves: int, limits: Any) -> None:
        self.disk = Disk(leaves)
        nobody: Any = None
        self.lied = list[PeerId]()
        self.download = Download(
            nobody, tree_of(leaves).root, lambda _: self.disk, nobody, self.lied.append, limits=limits
        )
        self.streams: dict[PeerId, Peer] = {}
        self.landed = 0

    async def let(self, leaves: int) -> None:
        """So many are written, and everybody has done what follows."""
        until = sum(self.disk.have) + leaves
        self.disk.gate.release(leaves)
        late = time.monotonic() + 10
        while sum(self.disk.have) < until or self.download.exchange.missing > len(self.disk.missing()):  # type: ignore[union-attr]
            await trio.lowlevel.checkpoint()
            assert time.monotonic() < late, "nobody looks what became of the leaves"
        await wait_all_tasks_blocked()


@asynccontextmanager
async def staged(leaves: int, *peers: PeerId, limits: Any = TWO, have: Any = None) -> AsyncIterator[Stage]:
    stage = Stage(leaves, limits)
    download = stage.download
    await download.resume(tree_of(leaves))
    download._changed = trio.Event()  # as `run` does
    assert download.exchange is not None
    async with trio.open_nursery() as nursery:

        async def work(peer: PeerId, stream: Peer) -> None:
            try:
                await download._leaves(peer, stream)  # type: ignore[arg-type]
            except (PeerFault, StreamLost) as ended:
                stream.ended = ended

        nursery.start_soon(download._check)
        for peer in peers:
            stage.streams[peer] = download._streams[peer] = Peer()  # type: ignore[assignment]
            download.exchange.join(peer, (have or {}).get(peer))
            nursery.start_soon(work, peer, stage.streams[peer])
            await wait_all_tasks_blocked()
        try:
            yield stage
        finally:
            stage.disk.gate.release(1000)  # the thread is waited for
            nursery.cancel_scope.cancel()


def run(scenario: Any) -> None:
    trio.run(scenario, clock=MockClock())


def test_who_brought_all_that_it_was_asked_for_is_asked_for_more_when_any_leaf_is_written() -> None:
    async def scenario() -> None:
        async with staged(20, A, B) as stage:
            a, b = stage.streams[A], stage.streams[B]
            assert (len(a.asked), len(b.asked)) == (2, 2)
            b.give(b.asked[0])
            a.give(a.asked[0])
            a.give(a.asked[1])
            assert len(a.asked) == 2
            await stage.let(1)  # of B
            assert len(a.asked) >= 4

    run(scenario)


@pytest.mark.parametrize("sent", [pack_frame(["leaf", 5, 1]), pack_frame(["absent"]), b"\xff" * 4])
def test_who_says_something_while_nothing_is_asked_of_it_is_at_fault_at_once(sent: bytes) -> None:
    async def scenario() -> None:
        async with staged(2, B, A) as stage:
            a = stage.streams[A]
            assert not a.asked and len(stage.streams[B].asked) == 2
            a.say(sent)
            await wait_all_tasks_blocked()
            assert isinstance(a.ended, PeerFault)

    run(scenario)


def test_a_stream_that_is_lost_while_nothing_is_asked_over_it_gives_its_place_up_at_once() -> None:
    async def scenario() -> None:
        async with staged(2, B, A) as stage:
            stage.streams[A].lose()
            await wait_all_tasks_blocked()
            assert isinstance(stage.streams[A].ended, StreamLost)
            assert stage.download._answers.keys() == {B}

    run(scenario)


def test_what_a_provider_that_left_was_asked_for_is_asked_of_an_idle_one_at_once() -> None:
    async def scenario() -> None:
        async with staged(2, B, A) as stage:
            stage.download._end(B, stage.download._streams[B])
            await wait_all_tasks_blocked()
            assert sorted(stage.streams[A].asked) == [0, 1]

    run(scenario)


def test_of_one_that_left_the_leaves_that_wait_for_the_disk_are_asked_again_only_when_they_are_wrong() -> None:
    async def scenario() -> None:
        limits = replace(TWO, requests_first=3, leaves_waiting_max=3)
        async with staged(6, A, B, limits=limits) as stage:
            a, b = stage.streams[A], stage.streams[B]
            first, second, third = a.asked
            a.give(first)
            a.give(second, b"!" * LEAF_BYTES)
            stage.download._end(A, stage.download._streams[A])
            a.give(third)  # it was on its way
            await wait_all_tasks_blocked()
            assert stage.download._keeper.waiting == 2
            for leaf in list(b.asked):
                b.give(leaf)
            await stage.let(1)
            assert stage.disk.have[first] and stage.lied == []
            stage.disk.gate.release(4)  # the wrong one, and what B gave
            await until(lambda: stage.download._keeper.waiting == 0)
            await wait_all_tasks_blocked()
            assert stage.lied == [A] and sorted(b.asked[3:]) == sorted([second, third])
            for leaf in b.asked[3:]:
                b.give(leaf)
            await stage.let(2)
            assert stage.download.done and len(b.asked) == 5
            assert {each.peer: each.leaves for each in stage.download.shares()} == {A: 1, B: 5}

    run(scenario)


def test_what_came_from_two_at_the_end_is_written_once_and_its_memory_goes_to_who_waits() -> None:
    clock = MockClock()

    async def scenario() -> None:
        two = replace(TWO, leaves_held_max=2, requests_first=1)
        async with staged(3, A, B, C, limits=two) as stage:
            a, b, c = (stage.streams[peer] for peer in (A, B, C))
            b.give(b.asked[0])
            await stage.let(1)
            [late] = a.asked
            while late not in b.asked:
                clock.jump(1.0)
                await wait_all_tasks_blocked()
            a.give(late)
            b.say(pack_frame(["leaf", late, LEAF_BYTES]) + b"half")
            c.give(c.asked[0])
            assert c.left and stage.download._keeper.waiting == 1
            b.say(bytes(LEAF_BYTES - 4))
            assert not c.left and stage.download._keeper.waiting == 2
            await stage.let(2)
            assert stage.download.done and len(stage.download._rooms._free) == 2

    trio.run(scenario, clock=clock)


def test_what_one_has_not_is_asked_of_another_at_once() -> None:
    async def scenario() -> None:
        async with staged(2, B, A) as stage:
            stage.streams[B].say(pack_frame(["absent"]) * 2)
            await wait_all_tasks_blocked()
            assert sorted(stage.streams[A].asked) == [0, 1]

    run(scenario)


def test_when_the_disk_has_enough_to_do_nobody_is_asked_and_all_are_when_it_has_less() -> None:
    async def scenario() -> None:
        few = replace(TWO, leaves_waiting_max=2)
        async with staged(40, A, B, limits=few) as stage:
            a, b = stage.streams[A], stage.streams[B]
            for stream in (a, b):
                for leaf in list(stream.asked):
                    stream.give(leaf)
            await wait_all_tasks_blocked()
            assert (len(a.asked), len(b.asked)) == (2, 2)
            await stage.let(2)
            assert (len(a.asked), len(b.asked)) == (2, 2)
            await stage.let(1)
            assert len(a.asked) > 2  # and the other one rests

    run(scenario)


def test_half_a_leaf_of_every_provider_leaves_memory_for_a_whole_one() -> None:
    assert LIMITS.exchange.leaves_held_max > LIMITS.exchange.providers_max


@pytest.mark.parametrize("held_max", [3, 5])
def test_leaves_in_memory_are_never_more_than_the_bound_and_each_comes_once(held_max: int) -> None:
    async def scenario() -> None:
        bound = replace(TWO, leaves_waiting_max=2, leaves_held_max=held_max, requests_first=4)
        async with staged(24, A, B, limits=bound) as stage:
            download = stage.download
            assert download.exchange is not None
            told = {A: 0, B: 0}
            while not download.done:
                for peer, stream in stage.streams.items():
                    while told[peer] < len(stream.asked):
                        stream.give(stream.asked[told[peer]])
                        told[peer] += 1
                waiting = download._keeper.waiting
                assert 0 < waiting <= held_max
                await stage.let(1)
            assert sum(told.values()) == 24 and download.exchange.duplicates == 0

    run(scenario)


def test_the_memory_of_who_is_dropped_in_the_middle_of_a_leaf_goes_to_who_waits_for_it() -> None:
    async def scenario() -> None:
        one = replace(TWO, leaves_held_max=1)
        async with staged(8, A, B, limits=one) as stage:
            a, b = stage.streams[A], stage.streams[B]
            a.say(pack_frame(["leaf", a.asked[0], LEAF_BYTES]) + b"half")
            b.give(b.asked[0])
            assert b.left
            a.lose()
            await wait_all_tasks_blocked()
            assert not b.left and stage.download._keeper.waiting == 1

    run(scenario)


@pytest.mark.parametrize("providers", [1, 4])
def test_when_all_wait_for_memory_the_disk_is_heard_and_they_go_on(providers: int) -> None:
    """Each of them has much to bring, so nobody would look at what became of the leaves."""

    async def scenario() -> None:
        peers = [PeerId(bytes([number])) for number in range(providers)]
        bound = replace(TWO, leaves_held_max=2 * providers, requests_first=6)
        async with staged(24, *peers, limits=bound) as stage:
            for stream in stage.streams.values():
                assert len(stream.asked) == 6
                for leaf in stream.asked:
                    stream.give(leaf)
            assert all(stream.left for stream in stage.streams.values()) or providers > 1
            await stage.let(2 * providers)
            assert stage.download._keeper.waiting > 0

    run(scenario)


def test_what_became_of_leaves_is_heard_when_the_thread_ends_though_more_was_promised() -> None:
    async def scenario() -> None:
        brief = replace(TWO, requests_first=6, keeper_linger_seconds=0.01)
        async with staged(24, A, limits=brief) as stage:
            stage.streams[A].give(stage.streams[A].asked[0])
            await stage.let(1)  # and the other five do not come

    run(scenario)


def test_many_that_wait_go_on_in_one_turn_when_much_was_written_and_no_leaf_comes_twice_or_never() -> None:
    """Each that goes on brings leaves, in whose turn it is looked what else was written, and so on."""

    async def scenario() -> None:
        leaves, peers = 8 * 90, [PeerId(bytes([number])) for number in range(8)]
        wide = replace(TWO, leaves_held_max=200, leaves_waiting_max=1000, requests_first=90, requests_max=90)
        async with staged(leaves, *peers, limits=wide) as stage:
            streams = list(stage.streams.values())
            stage.disk.gate.release()
            said = [pack_frame(["leaf", leaf, 1]) + b"x" for leaf in streams[0].asked]
            streams[0].say(said[0])
            await until(lambda: sum(stage.disk.have) == 1)  # there is a thread
            streams[0].say(b"".join(said[1:]))
            for stream in streams[1:]:
                for leaf in stream.asked:
                    stream.say(pack_frame(["leaf", leaf, 1]) + b"x")
            stage.disk.gate.release(199)
            stage.disk.stand_by(200)
            assert sum(stream.left != b"" for stream in streams) > 4
            stage.disk.gate.release(leaves)
            await until(lambda: stage.download.done)
            assert all(not stream.left and len(stream.asked) == 90 for stream in streams)
            assert stage.download._keeper.waiting == 0 and stage.download._rooms._left == 0
            assert len(stage.download._rooms._free) == 200

    run(scenario)


async def until(condition: Any) -> None:
    late = time.monotonic() + 10
    while not condition():
        await trio.lowlevel.checkpoint()
        assert time.monotonic() < late
