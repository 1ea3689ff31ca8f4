"""What a node concludes about its own reachability, and what it does about it."""

import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.circuits import Place
from dimnode.p2p.host.relay import RelayUse
from dimnode.p2p.host.streams import DialFailed, StreamEnded
from dimnode.p2p.host.visitors import Visitors, plain_ip
from dimnode.p2p.reach import DIALBACK, Reach
from dimnode.wire import END, pack_frame

FAR, OTHER, NEAR, HERE = b"far", b"other", b"near", b"here"
PUBLIC, PUBLIC2, PRIVATE, LOOPBACK = "44.1.1.1", "44.1.1.2", "10.255.255.254", "127.0.0.1"


@dataclass(slots=True)
class Answering:
    """A dial-back stream of a peer that says `tried`, and comes by when it can."""

    tried: bool
    come: Callable[[], None]
    sent: bytes = b""
    read_bytes: int = 0

    async def write(self, chunk: bytes) -> None:
        self.sent += chunk

    async def read(self, n: int) -> bytes:
        self.come()
        answer, self.read_bytes = (pack_frame(self.tried) + END)[self.read_bytes :], self.read_bytes + n
        return answer[:n]

    async def reset(self) -> None:
        pass


@dataclass(slots=True)
class Neighbours:
    """A host with neighbours at given IP addresses; those in `reaching` get through to our port."""

    ips: dict[bytes, str]
    reaching: set[bytes] = field(default_factory=set)
    relays: set[bytes] = field(default_factory=set)
    tried: bool = True
    asked: list[bytes] = field(default_factory=list)
    held: dict[bytes, Place] = field(default_factory=dict)
    place_seconds: float = 3600.0
    reserved: list[bytes] = field(default_factory=list)
    willing: Callable[[], bool] = lambda: False
    visitors: Visitors = field(default_factory=lambda: Visitors(16))

    @property
    def reach(self) -> Any:
        return self

    @property
    def relay(self) -> Any:
        return SimpleNamespace(use=lambda: RelayUse(self.willing(), 0, 0, 0))

    def connected(self) -> list[bytes]:
        return list(self.ips)

    def remote_ip(self, peer: bytes) -> str:
        return self.ips[peer]

    def path_of(self, peer: bytes) -> str:
        return "direct"

    def ports(self) -> list[int]:
        return [4710]

    def places(self) -> list[Place]:
        return list(self.held.values())

    def release(self, relay: bytes) -> None:
        self.held.pop(relay, None)

    def relay_when(self, willing: Callable[[], bool]) -> None:
        self.willing = willing

    async def reserve(self, relay: bytes) -> Place:
        self.reserved.append(relay)
        if relay not in self.relays:
            raise DialFailed("no relay")
        now = trio.current_time()
        self.held[relay] = Place(relay, now, now + self.place_seconds, (f"/ip4/{self.ips[relay]}/…",))
        return self.held[relay]

    async def open_stream(self, peer: bytes, protocol: str) -> Answering:
        assert protocol == DIALBACK
        self.asked.append(peer)
        come = (lambda: self.visitors.note(self.ips[peer])) if peer in self.reaching else (lambda: None)
        return Answering(self.tried, come)


def looks(host: Neighbours, seconds: float = 3, relay: str = "auto") -> tuple[Reach, list[int]]:
    """Run a `Reach` for a while of virtual time; it, and a list with one entry per announced change."""
    changes: list[int] = []
    reach = Reach(relay, lambda: changes.append(1), random.Random(1))  # type: ignore[arg-type]

    async def for_a_while() -> None:
        with trio.move_on_after(seconds):
            await reach.run(host)  # type: ignore[arg-type]

    trio.run(for_a_while, clock=trio.testing.MockClock(autojump_threshold=0))
    return reach, changes


def test_without_peers_elsewhere_nothing_is_concluded() -> None:
    for ips in ({}, {HERE: LOOPBACK}, {HERE: ""}):
        host = Neighbours(ips)
        reach, changes = looks(host)
        assert (reach.reachability().state, host.asked, changes) == ("unknown", [], [])


def test_who_is_reached_by_a_peer_that_it_asked_is_dialable_and_relays() -> None:
    host = Neighbours({FAR: PUBLIC}, reaching={FAR})
    reach, changes = looks(host)
    assert (reach.reachability().state, host.asked, changes) == ("dialable", [FAR], [])
    assert host.willing()


def test_who_is_not_reached_is_hidden_and_reserves_at_two_relays_and_says_so() -> None:
    third = b"third"
    host = Neighbours({FAR: PUBLIC, OTHER: PUBLIC2, third: "44.1.1.3"}, relays={FAR, OTHER, third})
    reach, changes = looks(host)
    found = reach.reachability()
    assert (found.state, len(found.relays), len(changes)) == ("hidden", 2, 1)
    assert "did not reach our port" in found.because
    assert not host.willing()


def test_a_peer_that_did_not_try_proves_nothing() -> None:
    reach, _ = looks(Neighbours({FAR: PUBLIC}, tried=False))
    assert reach.reachability().state == "unknown"


def test_a_claim_without_a_visit_makes_nobody_dialable() -> None:
    host = Neighbours({FAR: PUBLIC})  # it answers that it tried; nobody came
    assert looks(host)[0].reachability().state == "hidden"


def test_a_neighbour_in_the_same_network_counts_only_while_nobody_from_the_internet_is_there() -> None:
    assert looks(Neighbours({NEAR: PRIVATE}, reaching={NEAR}))[0].reachability().state == "dialable"
    host = Neighbours({NEAR: PRIVATE, FAR: PUBLIC}, reaching={NEAR})
    assert looks(host)[0].reachability().state == "hidden"
    assert host.asked == [FAR]


def test_a_lost_relay_is_replaced_and_announced() -> None:
    host = Neighbours({FAR: PUBLIC}, relays={FAR, OTHER})
    reach, changes = looks(host)
    assert reach.reachability().relays == (FAR,)
    del host.ips[FAR], host.held[FAR]
    host.ips[OTHER] = PUBLIC2

    async def again() -> None:
        await reach._look(host)  # type: ignore[arg-type]

    trio.run(again, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (reach.reachability().relays, len(changes)) == ((OTHER,), 2)


@pytest.mark.parametrize("place_seconds", [120.0, pytest.param(3600.0, marks=pytest.mark.slow)])
def test_a_place_is_renewed_when_half_of_its_time_is_over_and_not_before(place_seconds: float) -> None:
    host = Neighbours({FAR: PUBLIC}, relays={FAR}, place_seconds=place_seconds)
    looks(host, seconds=2.9 * place_seconds)
    assert 5 <= len(host.reserved) <= 6


def test_a_relay_that_does_not_renew_a_place_is_not_asked_each_second() -> None:
    host = Neighbours({FAR: PUBLIC}, relays={FAR})

    async def refuse_after_a_while() -> None:
        reach = Reach("auto", lambda: None, random.Random(1))
        with trio.move_on_after(1800 + 60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reach.run, host)
                await trio.sleep(5)
                assert host.reserved == [FAR]
                host.relays.clear()

    trio.run(refuse_after_a_while, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 3 <= len(host.reserved) <= 1 + 60 / LIMITS.reach.check_seconds_min + 1


@pytest.mark.parametrize(("relay", "willing"), [("on", True), ("auto", False), ("off", False)])
def test_relaying_is_the_operators_choice(relay: str, willing: bool) -> None:
    host = Neighbours({})
    looks(host, relay=relay)
    assert host.willing() is willing
    host = Neighbours({FAR: PUBLIC}, reaching={FAR})
    looks(host, relay=relay)
    assert host.willing() is (relay != "off")


def test_being_dialled_back_is_asked_for_more_rarely_as_long_as_nothing_changes() -> None:
    host = Neighbours({FAR: PUBLIC})
    looks(host, seconds=900)
    assert 4 <= len(host.asked) <= 14


@dataclass(slots=True)
class Asking:
    """The stream of a peer that asks to be dialled."""

    peer: bytes
    asked: bytes
    answer: bytes = b""

    async def read(self, n: int) -> bytes:
        if not self.asked:
            raise StreamEnded
        asked, self.asked = self.asked[:n], self.asked[n:]
        return asked

    async def write(self, chunk: bytes) -> None:
        self.answer += chunk


def test_a_server_dials_the_asker_only_now_and_then_and_only_where_it_sees_it() -> None:
    async def scenario() -> None:
        reached = trio.Event()

        async def accept(stream: trio.SocketStream) -> None:
            reached.set()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                trio.serve_tcp,
                accept,
                0,
            )
            port = listeners[0].socket.getsockname()[1]
            reach = Reach("auto", lambda: None, random.Random(1))
            reach._host = Neighbours({HERE: LOOPBACK, FAR: ""})  # type: ignore[assignment]
            first, again, relayed = (Asking(peer, pack_frame([port])) for peer in (HERE, HERE, FAR))
            for asking in (first, again, relayed):
                await reach.serve_dialback(asking)  # type: ignore[arg-type]
            assert reached.is_set()
            assert first.answer == pack_frame(True) + END
            assert again.answer == relayed.answer == pack_frame(False) + END
            nursery.cancel_scope.cancel()

    run_quickly(scenario)


@pytest.mark.parametrize("ports", [[], "4710", [0], [65536], [True], [4710, None], {}])
def test_a_question_without_ports_is_a_fault(ports: Any) -> None:
    async def scenario() -> None:
        reach = Reach("auto", lambda: None, random.Random(1))
        reach._host = Neighbours({HERE: LOOPBACK})  # type: ignore[assignment]
        asking = Asking(HERE, pack_frame(ports))
        with pytest.raises(PeerFault):
            await reach.serve_dialback(asking)  # type: ignore[arg-type]
        assert not asking.answer

    run_quickly(scenario)


def test_an_asker_that_resets_the_dial_back_is_told_that_it_was_tried() -> None:
    async def scenario() -> None:
        async def refuse(stream: trio.SocketStream) -> None:
            await trio.testing.wait_all_tasks_blocked()  # until the one who dials waits for the first byte
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, refuse, 0)
            reach = Reach("auto", lambda: None, random.Random(1))
            reach._host = Neighbours({HERE: LOOPBACK})  # type: ignore[assignment]
            asking = Asking(HERE, pack_frame([listeners[0].socket.getsockname()[1]]))
            await reach.serve_dialback(asking)  # type: ignore[arg-type]
            assert asking.answer == pack_frame(True) + END
            nursery.cancel_scope.cancel()

    run_quickly(scenario)


def run_quickly(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(60):
            await scenario()

    trio.run(bounded)


def test_visitors_are_bounded_and_known_by_their_plain_address() -> None:
    visitors = Visitors(2)
    for ip in ("1.1.1.1", "2.2.2.2", "1.1.1.1", "3.3.3.3"):
        visitors.note(ip)
    assert visitors.since(0) == {"1.1.1.1", "3.3.3.3"}
    assert visitors.since(time.monotonic() + 1) == set()
    assert (plain_ip("::ffff:1.2.3.4"), plain_ip("fe80::1%eth0"), plain_ip("")) == ("1.2.3.4", "fe80::1", "")
    assert LIMITS.reach.visitors_remembered_max > 2
