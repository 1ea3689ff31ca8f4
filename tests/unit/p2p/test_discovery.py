"""Finding peers, on a network of the imagination: who is dialled, how often, and what is remembered."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import trio
import trio.testing

from dimnode.limits import LIMITS
from dimnode.p2p.discovery import Discovery
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import PEER_PREFIX, PeerId, peer_text

ME = PeerId(PEER_PREFIX + bytes(32))


def peer(number: int) -> PeerId:
    return PeerId(PEER_PREFIX + number.to_bytes(32, "big"))


class Network:
    """A host as discovery sees it. Addresses are `/NUMBER`; whoever is in `alive` answers, the others refuse."""

    peer = ME

    def __init__(self, alive: Sequence[int] = ()) -> None:
        self.alive = set(alive)
        self.links: set[bytes] = set()
        self.dials: list[tuple[float, PeerId]] = []
        self.table: list[bytes] = []
        self.dead_seconds = 0.0

    def connected(self) -> list[bytes]:
        return sorted(self.links)

    def addresses_of(self, of: bytes) -> list[str]:
        return [f"/{int.from_bytes(of[-4:], 'big')}"]

    async def connect(self, address: str) -> bytes:
        await self.connect_peer(peer(int(address[1:])), [address])
        return peer(int(address[1:]))

    async def connect_peer(self, to: bytes, addresses: Sequence[str]) -> None:
        self.dials.append((trio.current_time(), PeerId(to)))
        if int(addresses[0][1:]) not in self.alive:
            await trio.sleep(self.dead_seconds)
            raise DialFailed("connection refused")
        await trio.lowlevel.checkpoint()
        self.links.add(to)

    async def dht_join(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self.table)

    def dht_peers(self) -> list[bytes]:
        return self.table

    async def dht_find(self, of: bytes) -> list[str]:
        return []

    def times(self, of: int) -> list[float]:
        return [at for at, to in self.dials if to == peer(of)]


def look(
    network: Any,
    story: Callable[[Discovery], Awaitable[None]],
    bootstrap: Sequence[str] = (),
    remembered: Sequence[str] = (),
    remember: Callable[[Mapping[PeerId, Sequence[str]]], None] = lambda _: None,
    **limits: Any,
) -> None:
    """Run a discovery beside the story, on a clock that jumps."""
    bounds = replace(LIMITS, peers=replace(LIMITS.peers, **limits))

    async def life() -> None:
        discovery = Discovery(network, bootstrap, remembered, remember, random.Random(1), bounds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discovery.run)
            await story(discovery)
            nursery.cancel_scope.cancel()

    trio.run(life, clock=trio.testing.MockClock(autojump_threshold=0))


def test_with_every_bootstrap_node_dead_the_remembered_peers_let_it_in_again_within_seconds() -> None:
    network = Network(alive=[7])
    network.dead_seconds = 5.0

    async def story(_: Discovery) -> None:
        await trio.sleep(1.0)
        assert network.connected() == [peer(7)]

    look(network, story, bootstrap=["/1", "/2", "/3"], remembered=["/4", "/5", "/7"])


def test_why_a_bootstrap_node_is_not_reached_is_known_also_when_it_is_won_back_apart() -> None:
    address = f"/4/p2p/{peer_text(peer(4))}"
    network: Any = Network()

    async def story() -> None:
        discovery = Discovery(network, [address], [], lambda _: None, random.Random(1))
        assert discovery.bootstrap_failure() == "not tried yet"
        discovery.found.bootstrap_tried = True
        assert discovery.bootstrap_failure() == "tried, without an answer yet"
        discovery._fail(peer(4), "connection refused")
        assert discovery.bootstrap_failure() == f"{address}: connection refused"
        await trio.lowlevel.checkpoint()

    trio.run(story)


def test_of_many_remembered_peers_some_are_tried_at_a_time_and_all_in_the_end() -> None:
    network = Network()

    async def story(_: Discovery) -> None:
        await trio.sleep(60.0)

    look(network, story, remembered=[f"/{number}" for number in range(1, 21)], dials_per_round_max=4)
    counts = Counter(to for _, to in network.dials)
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 1, "in turn"


def test_who_is_not_alone_dials_dead_bootstrap_nodes_and_leaves_the_remembered_ones_in_peace() -> None:
    network = Network(alive=[9])
    network.links = {peer(9)}

    async def story(_: Discovery) -> None:
        await trio.sleep(60.0)

    look(network, story, bootstrap=["/1"], remembered=["/2"])
    assert 3 < len(network.times(1)) < 60
    assert network.times(2) == []


def test_a_lost_peer_is_dialled_at_once_and_often_and_less_often_later_until_it_is_given_up() -> None:
    network = Network(alive=[9])
    network.links = {peer(9)}

    async def story(discovery: Discovery) -> None:
        await trio.sleep(20.0)
        discovery.lost(peer(1))
        discovery.lost(peer(1))
        await trio.sleep(1000.0)

    look(network, story)
    times = [at - network.dials[0][0] for at in network.times(1)]
    assert len(times) == len(set(times)), "one task for one peer"
    assert len([at for at in times if at < 3.0]) >= 4
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gap for gap, at in zip(gaps, times, strict=False) if at < 50) < 1.0
    assert min(gap for gap, at in zip(gaps, times, strict=False) if at > 70) >= LIMITS.peers.redial_seconds_max / 2
    assert times[-1] < LIMITS.peers.redial_lost_seconds_max + 2 * LIMITS.peers.redial_seconds_max


def test_a_lost_peer_that_answers_no_packet_is_knocked_at_every_two_seconds_while_it_is_fresh() -> None:
    network = Network(alive=[9])
    network.links, network.dead_seconds = {peer(9)}, 100.0

    async def story(discovery: Discovery) -> None:
        await trio.sleep(0.1)
        discovery.lost(peer(1))
        await trio.sleep(30.0)
        assert discovery.failure(peer(1)).startswith("no answer within")
        network.alive.add(1)
        mended = trio.current_time()
        while peer(1) not in network.connected():  # noqa: ASYNC110 nothing could set an event
            await trio.sleep(0.01)
        assert trio.current_time() - mended <= LIMITS.host.dial_seconds_max + 1.0

    look(network, story)
    times = network.times(1)
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    assert gaps[len(gaps) // 2] < 2.5


def test_a_peer_that_is_lost_while_the_node_stops_is_let_go() -> None:
    network = Network()

    async def life() -> None:
        discovery = Discovery(network, (), (), lambda _: None, random.Random(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discovery.run)
            await trio.sleep(1.0)
            nursery.cancel_scope.cancel()
            for _ in range(10):  # in whatever order tasks end
                await trio.lowlevel.cancel_shielded_checkpoint()
                discovery.lost(peer(1))

    trio.run(life, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not network.dials


def test_whose_dial_failed_just_now_is_not_dialled_again_for_every_heartbeat_of_it() -> None:
    network = Network(alive=[9])
    network.links = {peer(9)}

    async def story(discovery: Discovery) -> None:
        for _ in range(200):
            discovery.want(peer(1))
            await trio.sleep(0.1)
        assert discovery.failure(peer(1)) == "connection refused"
        network.alive.add(1)
        await trio.sleep(5.0)
        discovery.want(peer(1))
        await trio.sleep(1.0)
        assert peer(1) in network.connected()
        assert discovery.failure(peer(1)) == ""

    look(network, story)
    assert len(network.times(1)) <= 20.0 / LIMITS.peers.redial_failed_seconds + 2


def test_who_is_connected_is_remembered_with_its_addresses() -> None:
    network, told = Network(alive=[1]), dict[PeerId, Sequence[str]]()

    async def story(_: Discovery) -> None:
        await trio.sleep(5.0)

    look(network, story, bootstrap=["/1"], remember=told.update)
    assert told == {peer(1): ["/1"]}
