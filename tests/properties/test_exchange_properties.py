"""The exchange against a made-up swarm: liars, deaths, slow and partial providers, on a clock that is made up, too."""

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.limits import LIMITS
from dimnode.p2p.exchange import Exchange
from dimnode.records.ids import PeerId

BOUNDS = LIMITS.exchange


@dataclass
class Peer:
    """A provider on the made-up clock: it answers in order, one leaf each `seconds`."""

    name: PeerId
    seconds: float
    have: bytes | None = None
    lies_after: int = 10**9
    dies_after: int = 10**9
    mute: bool = False
    queue: list[int] = field(default_factory=list)
    busy: bool = False
    answered: int = 0
    gone: bool = False


class Swarm:
    """Runs an exchange to its end."""

    def __init__(
        self, leaves: int, missing: list[int], peers: list[Peer], seed: int, crowded: float = 0.0, disk: float = 0.0
    ) -> None:
        """crowded: which share of all leaves comes before there is room. disk: seconds for each leaf."""
        self.random, self.crowded, self.disk = random.Random(seed), crowded, disk
        self.exchange = Exchange(leaves, missing, self.random.randrange(max(1, leaves)))
        self.peers = {peer.name: peer for peer in peers}
        self.now, self.order = 0.0, 0
        self.events: list[tuple[float, int, str, PeerId]] = []
        self.taken: dict[int, int] = {}
        self.held: list[tuple[Peer, int, bool]] = []  # came, in this order, and wait for the disk
        self.dropped = self.wrong = self.most_held = 0
        self.asked: dict[int, int] = {}
        self.lost = 0
        self.looks = False
        for peer in peers:
            self.exchange.join(peer.name, peer.have)

    def at(self, seconds: float, what: str, peer: PeerId) -> None:
        self.order += 1
        heapq.heappush(self.events, (self.now + seconds, self.order, what, peer))

    def fill(self) -> None:
        for peer in self.peers.values():
            while not (peer.gone or self.is_full) and (leaf := self.exchange.ask(peer.name, self.now)) is not None:
                assert peer.have is None or peer.have[leaf]
                assert leaf not in peer.queue
                assert leaf not in [held for _, held, _ in self.held], "it is here"
                self.asked[leaf] = self.asked.get(leaf, 0) + 1
                peer.queue.append(leaf)
                assert len(peer.queue) <= BOUNDS.requests_max
            if peer.queue and not peer.busy and not peer.gone:
                peer.busy = True
                self.at(60.0 if peer.mute else peer.seconds, "answer", peer.name)

    @property
    def is_full(self) -> bool:
        """Whether the disk has enough to do: no more is asked then."""
        return len(self.held) >= BOUNDS.leaves_waiting_max

    def drop(self, peer: Peer) -> None:
        peer.gone = True
        self.lost += len(peer.queue)
        self.exchange.leave(peer.name)

    def run(self) -> None:
        for _ in range(100_000):
            if self.exchange.done:
                return
            self.fill()
            if not self.looks:  # a late leaf is looked for now and then, and who rested is asked again
                self.looks = True
                self.at(0.1, "look", PeerId(b""))
            self.now, _, what, name = heapq.heappop(self.events)
            if what == "look":
                self.looks = False
                self.fill()
                resting = any(self.exchange.rests_until(name) > self.now for name in self.peers)
                if all(peer.gone or not peer.queue for peer in self.peers.values()) and not resting and not self.held:
                    return
            elif what == "disk":
                self.check()
            else:
                self.answer(self.peers[name])
        raise AssertionError("it does not end")

    def answer(self, peer: Peer) -> None:
        peer.busy = False
        if peer.gone:
            return
        if peer.mute or peer.answered >= peer.dies_after:
            self.drop(peer)
            return
        leaf = peer.queue.pop(0)
        peer.answered += 1
        if self.random.random() < self.crowded or self.is_full:
            self.exchange.crowd(peer.name, self.now)
        if not self.exchange.came(peer.name, leaf, self.now):
            self.dropped += 1
            return
        self.held.append((peer, leaf, peer.answered <= peer.lies_after))
        self.most_held = max(self.most_held, len(self.held))
        if not self.disk:
            self.check()
        elif len(self.held) == 1:
            self.at(self.disk, "disk", peer.name)

    def check(self) -> None:
        """The disk is done with a leaf, whoever gave it may have left meanwhile."""
        peer, leaf, right = self.held.pop(0)
        if right:
            self.exchange.take(leaf)
            self.taken[leaf] = self.taken.get(leaf, 0) + 1
        else:
            self.wrong += 1
            self.exchange.wrong(leaf)
            if not peer.gone:
                self.drop(peer)
        if self.held:
            self.at(self.disk, "disk", self.held[0][0].name)


@st.composite
def swarms(draw: st.DrawFn) -> Swarm:
    leaves = draw(st.integers(1, 120))
    missing = draw(st.one_of(st.just(list(range(leaves))), st.lists(st.integers(0, leaves - 1), unique=True)))
    peers = [Peer(PeerId(b"honest"), draw(st.floats(0.001, 1.0)))]
    for number in range(draw(st.integers(0, 6))):
        peer = Peer(PeerId(b"peer %d" % number), draw(st.floats(0.001, 3.0)))
        match draw(st.integers(0, 4)):
            case 0:
                peer.lies_after = draw(st.integers(0, 20))
            case 1:
                peer.dies_after = draw(st.integers(0, 20))
            case 2:
                peer.mute = True
            case 3:
                peer.have = bytes(draw(st.lists(st.integers(0, 1), min_size=leaves, max_size=leaves)))
        peers.append(peer)
    crowded, disk = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.0, 0.01, 1.0]))
    return Swarm(leaves, missing, peers, draw(st.integers(0, 2**16)), crowded, disk)


@pytest.mark.slow
@given(swarm=swarms())
@settings(max_examples=150, deadline=None)
def test_every_leaf_is_taken_exactly_once_whoever_lies_dies_or_sleeps(swarm: Swarm) -> None:
    wanted = set(swarm.exchange._missing)
    swarm.run()
    assert swarm.exchange.done
    assert swarm.taken == dict.fromkeys(wanted, 1)
    assert swarm.exchange.duplicates <= BOUNDS.duplicates_max
    asked_again = sum(swarm.asked.values()) - len(wanted)
    assert asked_again <= swarm.exchange.duplicates + swarm.lost + swarm.wrong, "only what never came, or was wrong"
    assert swarm.dropped <= swarm.exchange.duplicates
    assert sum(share.leaves for share in swarm.exchange.shares()) == len(wanted)


@pytest.mark.slow
@given(leaves=st.integers(20, 200), ratio=st.floats(1.5, 20.0))
@settings(max_examples=60, deadline=None)
def test_a_fast_provider_takes_more_and_two_are_faster_than_one(leaves: int, ratio: float) -> None:
    fast, slow = Peer(PeerId(b"fast"), 0.01), Peer(PeerId(b"slow"), 0.01 * ratio)
    both = Swarm(leaves, list(range(leaves)), [fast, slow], 0)
    both.run()
    assert fast.answered >= slow.answered
    alone = 0.01 * leaves
    ideal = alone * ratio / (1 + ratio)
    assert both.now <= min(ideal + 2 * slow.seconds + 0.3, alone + 3 * slow.seconds)


@pytest.mark.parametrize("seconds", [(0.01, 0.01), (0.01, 0.03)])
def test_where_this_node_is_the_limit_one_provider_does_nearly_all(seconds: tuple[float, float]) -> None:
    first, second = Peer(PeerId(b"first"), seconds[0]), Peer(PeerId(b"second"), seconds[1])
    swarm = Swarm(400, list(range(400)), [first, second], 0, crowded=1.0)
    swarm.run()
    assert swarm.exchange.done
    assert sorted([first.answered, second.answered])[0] < 40


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("seconds", [0.001, 0.02])
def test_nobody_outruns_a_slow_disk_and_one_provider_feeds_it_nearly_alone(seconds: float, others: int) -> None:
    peers = [Peer(PeerId(b"peer %d" % number), seconds) for number in range(1 + others)]
    swarm = Swarm(400, list(range(400)), peers, 0, disk=0.03)
    swarm.run()
    assert swarm.exchange.done and swarm.exchange.duplicates == 0
    assert swarm.now < 400 * 0.03 * 1.05, "the disk is never idle"
    assert swarm.most_held < BOUNDS.leaves_waiting_max + BOUNDS.requests_max * len(peers)
    assert sum(sorted(peer.answered for peer in peers)[:-1]) < 100, [peer.answered for peer in peers]


@pytest.mark.parametrize("leaves", [100, 107, 111])
def test_at_the_end_one_that_keeps_its_pace_is_left_alone_and_a_slow_one_is_helped(leaves: int) -> None:
    for one, other, asked_twice in ((0.003, 0.003, 0), (0.01, 0.03, BOUNDS.duplicates_max)):
        swarm = Swarm(leaves, list(range(leaves)), [Peer(PeerId(b"one"), one), Peer(PeerId(b"other"), other)], 0)
        swarm.run()
        assert swarm.exchange.duplicates == asked_twice
        assert swarm.now <= leaves / (1 / one + 1 / other) + 0.1


def give_right(exchange: Exchange, peer: PeerId, leaf: int, now: float) -> bool:
    """It came, and there was nothing to wait for. Whether it was wanted."""
    wanted = exchange.came(peer, leaf, now)
    if wanted:
        exchange.take(leaf)
    return wanted


def test_a_provider_rests_longer_each_time_and_is_back_at_once_when_the_other_leaves() -> None:
    best, more = PeerId(b"best"), PeerId(b"more")
    exchange = Exchange(100, range(100))
    exchange.join(best, None)
    now = 0.0

    def give(peer: PeerId, seconds: float = 0.01) -> None:
        nonlocal now
        leaf = exchange.ask(peer, now)
        assert leaf is not None
        now += seconds
        give_right(exchange, peer, leaf, now)

    give(best)
    exchange.crowd(best, now)
    assert exchange.rests_until(best) <= now, "alone, nobody else brings what it would not"
    give(best)
    exchange.join(more, None)
    rests = []
    for _ in range(7):
        give(more, 0.001)
        kept = exchange.ask(best, now)
        assert kept is not None
        exchange.crowd(best, now)
        exchange.crowd(more, now)
        assert exchange.rests_until(best) <= now, "it gave more"
        assert exchange.ask(more, now) is None
        rests.append(round(exchange.rests_until(more) - now, 6))
        now = exchange.rests_until(more)
        give_right(exchange, best, kept, now)
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    give(more, 2.5)  # at work for longer than it rested, and in nobody's way
    assert exchange.ask(best, now) is not None
    exchange.crowd(more, now)
    assert round(exchange.rests_until(more) - now, 6) == 0.1
    exchange.leave(best)
    give(more)


def test_when_nobody_has_a_leaf_it_stays_missing_and_is_asked_when_somebody_gets_it() -> None:
    peer = PeerId(b"partial")
    exchange = Exchange(3, [0, 1, 2])
    exchange.join(peer, b"\1\0\0")
    assert exchange.ask(peer, 0.0) == 0
    assert exchange.ask(peer, 0.0) is None
    assert give_right(exchange, peer, 0, 1.0)
    assert not exchange.useful(peer) and exchange.missing == 2
    exchange.update(peer, b"\1\1\0")
    assert exchange.ask(peer, 2.0) == 1
    exchange.absent(peer, 1)
    assert exchange.ask(peer, 3.0) is None
    exchange.update(peer, None)
    first = exchange.ask(peer, 4.0)
    assert first in {1, 2} and give_right(exchange, peer, first, 5.0)
    assert exchange.ask(peer, 5.0) == 3 - first and give_right(exchange, peer, 3 - first, 6.0)
    assert exchange.done


def test_a_leaf_that_comes_twice_counts_once() -> None:
    slow, fast = PeerId(b"slow"), PeerId(b"fast")
    exchange = Exchange(2, [0, 1])
    exchange.join(slow, None)
    exchange.join(fast, None)
    assert exchange.ask(slow, 0.0) == 0
    assert exchange.ask(fast, 0.0) == 1
    assert give_right(exchange, fast, 1, 0.1)
    assert exchange.ask(fast, 0.15) is None  # not late yet
    assert exchange.ask(fast, 1.0) == 0
    assert exchange.duplicates == 1
    assert give_right(exchange, fast, 0, 1.1)
    assert exchange.done
    assert not give_right(exchange, slow, 0, 9.0)


def test_a_leaf_that_is_held_is_asked_again_once_when_it_is_wrong_and_never_when_it_is_right() -> None:
    liar, honest, third = PeerId(b"liar"), PeerId(b"honest"), PeerId(b"third")
    exchange = Exchange(3, range(3))
    exchange.join(liar, None)
    assert [exchange.ask(liar, 0.0), exchange.ask(liar, 0.0)] == [0, 1]
    assert exchange.came(liar, 0, 0.1) and exchange.came(liar, 1, 0.2)
    exchange.leave(liar)
    exchange.join(honest, None)
    exchange.join(third, b"\1\1\1")
    assert exchange.ask(honest, 1.0) == 2 and give_right(exchange, honest, 2, 1.1)
    assert exchange.ask(honest, 9.0) is None and exchange.ask(third, 9.0) is None
    assert exchange.missing == 2 and exchange.useful(third)
    exchange.take(0)
    exchange.wrong(1)
    assert exchange.ask(third, 9.0) == 1 and exchange.ask(honest, 9.0) is None
    assert not exchange.came(liar, 1, 9.1), "it left"
    assert give_right(exchange, third, 1, 9.2) and exchange.done and exchange.duplicates == 0
    assert {share.peer: share.leaves for share in exchange.shares()} == {liar: 1, honest: 1, third: 1}


def test_a_copy_that_is_on_its_way_is_taken_when_the_first_was_wrong_and_dropped_while_it_is_held() -> None:
    slow, fast = PeerId(b"slow"), PeerId(b"fast")
    for first_is_right in (True, False):
        exchange = Exchange(1, [0])
        exchange.join(slow, None)
        exchange.join(fast, None)
        assert exchange.ask(slow, 0.0) == 0 and exchange.ask(fast, 1.0) == 0
        assert exchange.came(fast, 0, 1.1)
        if first_is_right:
            assert not exchange.came(slow, 0, 2.0) and not exchange.done
            exchange.take(0)
        else:
            exchange.wrong(0)
            assert exchange.came(slow, 0, 2.0)
            exchange.take(0)
        assert exchange.done and exchange.duplicates == 1


@pytest.mark.parametrize("have", [None, b"\1" * 4])
def test_what_a_provider_that_left_was_asked_for_goes_to_the_next(have: bytes | None) -> None:
    first, second = PeerId(b"first"), PeerId(b"second")
    exchange = Exchange(4, range(4))
    exchange.join(first, have)
    asked = [exchange.ask(first, 0.0), exchange.ask(first, 0.0)]
    exchange.join(second, have)
    exchange.leave(first)
    exchange.leave(first)
    exchange.update(first, None)
    assert exchange.ask(first, 0.0) is None and not exchange.useful(first)
    again = []
    while (leaf := exchange.ask(second, 1.0)) is not None:
        again.append(leaf)
        give_right(exchange, second, leaf, 1.0 + len(again))
    assert sorted(again) == [0, 1, 2, 3] and set(asked) <= set(again)


def test_a_provider_that_lacks_one_leaf_after_another_costs_no_look_at_the_whole_queue_each_time() -> None:
    exchange, peer = Exchange(1000, range(1000)), PeerId(b"poor")
    exchange.join(peer, None)
    asked = [exchange.ask(peer, 0.0) for _ in range(2)]
    assert None not in asked
    exchange.absent(peer, asked[0] or 0)
    candidates = exchange._providers[peer].candidates
    exchange.absent(peer, asked[1] or 0)
    assert exchange._providers[peer].candidates is candidates
    left = set()
    while (leaf := exchange.ask(peer, 0.0)) is not None:
        left.add(leaf)
        exchange.absent(peer, leaf)
    assert left == set(range(1000)) - set(asked) and exchange.missing == 1000
