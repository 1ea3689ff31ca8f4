"""Answers to leaves however they are cut, whoever has no memory for them, and whatever else a peer sends."""

import itertools
import os
import random
from dataclasses import dataclass, field
from hashlib import sha256

import msgpack
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.p2p.blob_leaves import LeafAnswers, Rooms
from dimnode.p2p.blob_words import Refusal
from dimnode.records.unixfs import LEAF_BYTES
from dimnode.wire import END, pack_frame

NOISE = os.urandom(LEAF_BYTES)
SIZES = st.one_of(st.integers(1, 300), st.sampled_from([4095, 65_536, LEAF_BYTES - 1, LEAF_BYTES]))
ANSWERS = st.lists(st.one_of(SIZES, st.just(0)), min_size=1, max_size=6)
"""Sizes of leaves; 0: it is absent."""


class Counted(Rooms):
    """Knows who has what: nothing is given twice, or twice at once, and never more than the bound is out."""

    def __init__(self, rooms_max: int) -> None:
        super().__init__(rooms_max)
        self.rooms_max, self.out = rooms_max, dict[int, bytearray]()

    def take(self) -> bytearray | None:
        room = super().take()
        if room is None:
            assert len(self.out) == self.rooms_max, "there was memory"
            return None
        assert id(room) not in self.out
        self.out[id(room)] = room
        assert len(self.out) <= self.rooms_max
        return room

    def give(self, room: bytearray) -> None:
        assert self.out.pop(id(room)) is room
        super().give(room)


@dataclass
class Feed:
    """One stream that pours: what its taker left waits, and goes to it again before all that comes later."""

    rooms: Counted
    told: list[tuple[int, bytes | None]] = field(default_factory=list)
    held: list[bytearray] = field(default_factory=list)
    taken: int = 0
    hashes: bool = False
    left: list[bytes | memoryview] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = LeafAnswers(self.rooms, self.came, lambda leaf: self.told.append((leaf, None)), self.hash_here)

    def hash_here(self) -> bool:
        self.hashes = not self.hashes
        return self.hashes

    def came(self, leaf: int, content: memoryview, room: bytearray, digest: bytes | None) -> None:
        assert content.obj is room
        assert digest == (sha256(content).digest() if self.hashes else None)
        self.told.append((leaf, bytes(content)))
        self.held.append(room)

    def arrive(self, piece: bytes | memoryview) -> None:
        self.left.append(piece)
        if len(self.left) == 1:
            self.resume()

    def resume(self) -> None:
        while self.left:
            piece = self.left[0]
            taken = self.answers.take(piece)
            assert 0 <= taken <= len(piece)
            self.taken += taken
            if taken < len(piece):
                self.left[0] = piece[taken:]
                return
            self.left.pop(0)

    def land(self) -> None:
        self.rooms.give(self.held.pop(0))


def wire(sizes: list[int], first: int = 0) -> tuple[bytes, list[tuple[int, bytes | None]], list[int]]:
    """What a peer sends, what is to be told of it, and where contents begin."""
    sent, told, starts = bytearray(), list[tuple[int, bytes | None]](), list[int]()
    for leaf, size in enumerate(sizes, first):
        if not size:
            sent += pack_frame(["absent"])
            told.append((leaf, None))
            continue
        content = NOISE[leaf % 97 : leaf % 97 + size] if size < LEAF_BYTES - 97 else NOISE[:size]
        sent += pack_frame(["leaf", leaf, size])
        starts.append(len(sent))
        sent += content
        told.append((leaf, content))
    return bytes(sent), told, starts


def pieces_of(drawn: st.DataObject, sent: bytes) -> list[bytes | memoryview]:
    cuts = sorted(drawn.draw(st.sets(st.integers(1, max(1, len(sent) - 1)), max_size=12), "cuts"))
    if len(sent) < 400 and drawn.draw(st.booleans(), "in single bytes"):
        cuts = list(range(1, len(sent)))
    edges = [0, *cuts, len(sent)]
    pieces = [sent[at:until] for at, until in itertools.pairwise(edges) if at < until]
    views = drawn.draw(st.integers(0, 2**16), "which are views")
    return [memoryview(piece) if views >> at % 17 & 1 else piece for at, piece in enumerate(pieces)]


def in_trio(check) -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        check()

    trio.run(main)


@settings(max_examples=50)
@given(ANSWERS, st.data())
def test_what_was_answered_is_told_of_in_its_order_however_it_is_cut(sizes: list[int], drawn: st.DataObject) -> None:
    sent, told, _ = wire(sizes)
    pieces = pieces_of(drawn, sent)

    def check() -> None:
        feed = Feed(Counted(len(sizes)))
        for leaf in range(len(sizes)):
            feed.answers.expect(leaf)
        for piece in pieces:
            feed.arrive(piece)
        assert feed.told == told and feed.taken == len(sent)
        assert not feed.answers.asked and feed.answers.began() is None
        feed.answers.leave()
        assert len(feed.rooms.out) == len(feed.held)

    in_trio(check)


@settings(max_examples=50)
@given(ANSWERS, st.integers(1, 2), st.data())
def test_without_memory_it_stops_before_the_first_byte_of_a_leaf_and_goes_on_from_there(
    sizes: list[int], rooms_max: int, drawn: st.DataObject
) -> None:
    sent, told, starts = wire(sizes)
    pieces = pieces_of(drawn, sent)
    chance = random.Random(drawn.draw(st.integers(0, 2**32), "when one lands"))

    def check() -> None:
        feed = Feed(Counted(rooms_max))
        for leaf in range(len(sizes)):
            feed.answers.expect(leaf)

        def pauses() -> None:
            waits = feed.answers.waits_for_room
            assert waits == bool(feed.left)
            if waits:
                assert feed.taken == starts[sum(content is not None for _, content in feed.told)]
                assert len(feed.held) == rooms_max and feed.answers.began() is None
                before = feed.taken
                feed.resume()
                assert feed.taken == before, "there is no memory yet"

        for piece in pieces:
            feed.arrive(piece)
            pauses()
            if feed.held and chance.random() < 0.5:
                feed.land()
                feed.resume()
                pauses()
        while feed.left:
            feed.land()
            feed.resume()
            pauses()
        assert feed.told == told and feed.taken == len(sent)

    in_trio(check)


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=5), min_size=2, max_size=4), st.data())
def test_several_streams_have_no_more_memory_together_and_all_of_them_come_to_their_end(
    answers: list[list[int]], drawn: st.DataObject
) -> None:
    rooms_max = drawn.draw(st.integers(len(answers), len(answers) + 2))
    wires = [wire(sizes, 100 * at) for at, sizes in enumerate(answers)]
    pieces = [pieces_of(drawn, sent) for sent, _, _ in wires]
    chance = random.Random(drawn.draw(st.integers(0, 2**32), "whose turn it is"))

    def check() -> None:
        rooms = Counted(rooms_max)
        feeds = [Feed(rooms) for _ in answers]
        for at, (feed, sizes) in enumerate(zip(feeds, answers, strict=True)):
            for leaf in range(len(sizes)):
                feed.answers.expect(100 * at + leaf)
        while any(pieces) or any(feed.left for feed in feeds):
            going = [at for at, rest in enumerate(pieces) if rest]
            landing = [feed for feed in feeds if feed.held]
            assert going or landing, "nobody can go on"
            if landing and (not going or chance.random() < 0.5):
                chance.choice(landing).land()
                for feed in feeds:
                    if feed.answers.waits_for_room:
                        feed.resume()
            else:
                at = chance.choice(going)
                feeds[at].arrive(pieces[at].pop(0))
        for feed, (sent, told, _) in zip(feeds, wires, strict=True):
            assert feed.told == told and feed.taken == len(sent)

    in_trio(check)


@settings(max_examples=30)
@given(st.lists(SIZES, min_size=1, max_size=3), st.data())
def test_who_leaves_in_the_middle_gives_back_the_memory_of_the_half_leaf_once_and_takes_nothing_any_more(
    sizes: list[int], drawn: st.DataObject
) -> None:
    sent, _, _ = wire(sizes)
    until = drawn.draw(st.integers(0, len(sent) - 1))

    def check() -> None:
        feed = Feed(Counted(3))
        for leaf in range(len(sizes)):
            feed.answers.expect(leaf)
        feed.arrive(sent[:until])
        told = list(feed.told)
        for _ in range(2):
            feed.answers.leave()
            assert len(feed.rooms.out) == len(feed.held), "each room that is out is the caller's"
        feed.arrive(sent[until:])
        assert feed.told == told and not feed.left

    in_trio(check)


def frame(value: object) -> bytes:
    packed = msgpack.packb(value)
    return len(packed).to_bytes(4, "big") + packed


WRONG = {
    "another leaf": frame(["leaf", 8, 5]),
    "a leaf that has no number": frame(["leaf", "7", 5]),
    "a leaf below nothing": frame(["leaf", -1, 5]),
    "a leaf of no bytes": frame(["leaf", 7, 0]),
    "a leaf of less": frame(["leaf", 7, -1]),
    "a leaf that is too large": frame(["leaf", 7, LEAF_BYTES + 1]),
    "a leaf without an end": frame(["leaf", 7, 2**63]),
    "a size that is a truth": frame(["leaf", 7, True]),
    "a size that is a fraction": frame(["leaf", 7, 1.0]),
    "a leaf without a size": frame(["leaf", 7]),
    "a leaf with more": frame(["leaf", 7, 5, 5]),
    "an absence with more": frame(["absent", 7]),
    "another answer": frame(["have", b""]),
    "a word that is bytes": frame([b"leaf", 7, 5]),
    "no list": frame("absent"),
    "a map": frame({"leaf": 7}),
    "lists in lists": frame([[["leaf"]], 7, 5]),
    "an empty list": frame([]),
    "a long head": frame(["leaf", 7, 5, bytes(64)]),
    "a head of gigabytes": b"\xff\xff\xff\xff" + bytes(200),
    "no message": b"\0\0\0\1\xc1",
    "half a message": b"\0\0\0\3\x93\xa4l",
    "more than a message": b"\0\0\0\3\x01\x01\x01",
    "no text": b"\0\0\0\3\x91\xa1\xff",
    "an extension": b"\0\0\0\6\xd6\xff\0\0\0\0",
    "a number of many digits": frame(["leaf", 2**64 - 1, 5]),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_what_was_not_asked_for_ends_the_answers_with_a_fault_of_the_peer(name: str, step: int) -> None:
    async def main() -> None:
        feed = Feed(Counted(2))
        feed.answers.expect(6)
        feed.answers.expect(7)
        sent = wire([9], 6)[0] + WRONG[name] + wire([9, 9], 7)[0]
        for at in range(0, len(sent), step):
            feed.arrive(sent[at : at + step])
        assert [leaf for leaf, _ in feed.told] == [6]
        assert feed.taken == len(sent), "it is dropped, and holds nothing up"
        assert len(feed.rooms.out) == 1
        for _ in range(2):
            with trio.fail_after(1), pytest.raises(PeerFault):
                await feed.answers.news()

    trio.run(main)


@settings(max_examples=100)
@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_no_bytes_at_all_raise_where_they_are_taken(body: bytes, framed: bool) -> None:
    async def main() -> None:
        feed = Feed(Counted(1))
        feed.answers.expect(0)
        sent = (len(body).to_bytes(4, "big") if framed else b"") + body
        for at in range(len(sent)):
            feed.arrive(sent[at : at + 1])
        if framed:
            with trio.fail_after(1), pytest.raises(PeerFault):
                await feed.answers.news()

    trio.run(main)


def test_a_leaf_that_comes_twice_and_one_that_nobody_asked_for_are_faults() -> None:
    async def main() -> None:
        for asked in (0, 1):
            feed = Feed(Counted(2))
            for leaf in range(asked):
                feed.answers.expect(leaf)
            feed.arrive(wire([5])[0] * 2)
            assert len(feed.told) == asked
            with pytest.raises(PeerFault):
                await feed.answers.news()

    trio.run(main)


@pytest.mark.parametrize("step", [1, 100])
def test_after_the_end_frame_nothing_is_told_of_and_who_waits_hears_that_no_more_is_said(step: int) -> None:
    async def main() -> None:
        feed = Feed(Counted(2))
        feed.answers.expect(0)
        feed.answers.expect(1)

        async def wait() -> None:
            with pytest.raises(Refusal):
                await feed.answers.news()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            sent = wire([5])[0] + END + wire([5], 1)[0]
            for at in range(0, len(sent), step):
                feed.arrive(sent[at : at + step])
        assert [leaf for leaf, _ in feed.told] == [0] and feed.taken == len(sent)

    trio.run(main)


def test_who_waits_is_woken_by_the_end_of_the_stream_and_by_a_wake_before_it_waited() -> None:
    async def main() -> None:
        feed = Feed(Counted(1))
        feed.answers.wake()
        with trio.fail_after(1):
            await feed.answers.news()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.answers.news)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            feed.answers.over()
        with trio.fail_after(1):
            await feed.answers.news()  # for ever: it is over

    trio.run(main)


def test_a_leaf_that_had_to_wait_for_memory_is_not_late_when_it_has_some() -> None:
    """The peer was made to wait: what it is owed begins now."""

    async def main() -> None:
        feed = Feed(Counted(1))
        for leaf in range(2):
            feed.answers.expect(leaf)
        sent = wire([50, 50])[0]
        feed.arrive(sent[:-20])
        assert feed.answers.waits_for_room and feed.answers.began() is None
        await trio.sleep(100)
        feed.land()
        feed.resume()
        assert feed.answers.asked and feed.answers.began() == trio.current_time()
        await trio.sleep(7)
        assert feed.answers.began() == trio.current_time() - 7

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
