"""Real hosts in one process: a relay in the middle, two peers that nobody can dial."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Reservation, Status
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from machine import within
from multiaddr import Multiaddr
from test_host import HANDLERS, LOOPBACK, assert_echo, read_exactly, run, seed

from dimnode.limits import LIMITS, Limits
from dimnode.p2p.host.circuit_messages import DCUTR, HOP, hop_status, punch_connect, read_message, write_message
from dimnode.p2p.host.core import adapt
from dimnode.p2p.host.host import DialFailed, Host, ProtocolRefused, Stream, StreamLost, open_host
from dimnode.p2p.host.multistream import proposal
from dimnode.p2p.host.punching import free_port
from dimnode.records.envelope import SigningKey

pytestmark = pytest.mark.slow

ECHO = "/test/echo/1"


def limits(**changed: Any) -> Limits:
    """Without hole punching, which has its own tests, and with `changed` bounds of relays."""
    return replace(LIMITS, reach=replace(LIMITS.reach, punch_rounds_max=0, **changed))


@dataclass(slots=True)
class Three:
    """`hidden` has a place at `relay`, `visitor` is not connected yet; neither of the two listens."""

    relay: Host
    hidden: Host
    visitor: Host
    way: str

    async def meet(self) -> None:
        """The visitor connects to the hidden one."""
        assert await self.visitor.connect(self.way) == self.hidden.peer


@asynccontextmanager
async def three(**changed: Any) -> AsyncIterator[Three]:
    bounds = limits(**changed)
    async with (
        open_host(seed("relay"), LOOPBACK, HANDLERS, limits=bounds) as relay,
        open_host(seed("hidden"), [], HANDLERS, limits=bounds) as hidden,
        open_host(seed("visitor"), [], HANDLERS, limits=bounds) as visitor,
    ):
        relay.reach.relay_when(lambda: True)
        await hidden.connect(relay.addresses()[0])
        await hidden.reach.reserve(relay.peer)
        yield Three(relay, hidden, visitor, hidden.addresses()[-1])


async def carry_for_ever(stream: Stream) -> None:
    while True:
        await stream.write(bytes(65536))
        await stream.read(65536)


def with_three(scenario: Callable[[Three], Awaitable[None]], **changed: Any) -> None:
    async def whole() -> None:
        async with three(**changed) as hosts:
            await scenario(hosts)

    run(whole)


def test_two_that_nobody_can_dial_meet_through_a_relay_and_prove_themselves_to_each_other() -> None:
    async def scenario(hosts: Three) -> None:
        assert "/p2p-circuit/p2p/" in hosts.way
        await hosts.meet()
        await assert_echo(hosts.visitor, hosts.hidden.peer)
        await assert_echo(hosts.hidden, hosts.visitor.peer)
        assert hosts.visitor.path_of(hosts.hidden.peer) == hosts.hidden.path_of(hosts.visitor.peer) == "relayed"
        assert hosts.hidden.path_of(hosts.relay.peer) == "direct"
        assert hosts.relay.path_of(hosts.hidden.peer) == "reverse"

    with_three(scenario)


def test_a_megabyte_comes_back_through_a_relay_and_is_counted() -> None:
    async def scenario(hosts: Three) -> None:
        await hosts.meet()
        stream = await hosts.visitor.open_stream(hosts.hidden.peer, ECHO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, bytes(1 << 20))
            assert await read_exactly(stream, 1 << 20) == bytes(1 << 20)
        use = hosts.relay.reach.relay.use()
        assert (use.reservations, use.circuits) == (1, 1)
        assert use.bytes_copied > 2 << 20

    with_three(scenario)


def test_who_says_to_be_somebody_else_is_not_reached_through_a_relay() -> None:
    async def scenario(hosts: Three) -> None:
        async with open_host(seed("other"), [], {}) as other:
            await other.connect(hosts.relay.addresses()[0])
            await other.reach.reserve(hosts.relay.peer)
            wrong = hosts.way.rpartition("/")[0] + other.addresses()[-1][-53:]
            peer = await hosts.visitor.connect(wrong)
            assert peer == other.peer != hosts.hidden.peer

    with_three(scenario)


def noise_message(content: bytes) -> bytes:
    """What agrees on Noise, and then says this."""
    return proposal("/noise") + len(content).to_bytes(2, "big") + content


UNREADABLE = noise_message(bytes(range(200)))  # no tag of it is right
NO_KEY = noise_message(bytes(200))  # nothing can be agreed on with a key of zeros


def test_a_relay_that_puts_garbage_into_a_circuit_is_a_dial_that_failed() -> None:
    async def garble(stream: Stream) -> None:
        await read_message(stream, HopMessage)
        await write_message(stream, hop_status(Status.OK))
        await stream.write(UNREADABLE)
        await trio.sleep_forever()

    async def scenario(hosts: Three) -> None:
        hosts.relay._core.set_stream_handler(HOP, adapt(HOP, garble))
        with pytest.raises(DialFailed, match="through a relay"):
            await hosts.visitor.connect(hosts.way)
        with pytest.raises(DialFailed):  # and where a neighbour is merely asked
            await hosts.visitor.connect_peer(hosts.hidden.peer, [])
        assert hosts.visitor.path_of(hosts.relay.peer) == "direct"

    with_three(scenario)


@pytest.mark.parametrize("behind_seconds", [-7200, 0, 3590, 7200, 10**9])
def test_a_place_at_a_relay_whose_clock_is_far_off_is_a_place_for_at_least_two_minutes(behind_seconds: int) -> None:
    async def reserve(stream: Stream) -> None:
        await read_message(stream, HopMessage)
        place = Reservation(expire=int(time.time()) + 3600 - behind_seconds)
        await write_message(stream, hop_status(Status.OK, place))

    async def scenario(hosts: Three) -> None:
        hosts.relay._core.set_stream_handler(HOP, adapt(HOP, reserve))
        place = await hosts.hidden.reach.reserve(hosts.relay.peer)
        assert hosts.hidden.reach.places() == [place]
        assert 120 <= place.until - place.began <= 3600
        assert abs(place.began - trio.current_time()) < 60

    with_three(scenario)


@pytest.mark.parametrize(("dialler", "garbage"), [(True, UNREADABLE), (False, NO_KEY)])
def test_garbage_where_a_hole_is_punched_ends_nothing_but_the_attempt(dialler: bool, garbage: bytes) -> None:
    knocks: list[trio.SocketStream] = []

    async def garble(stream: trio.SocketStream) -> None:
        knocks.append(stream)
        await stream.send_all(garbage)
        await trio.sleep_forever()

    async def scenario() -> None:
        bounds = replace(LIMITS, reach=replace(LIMITS.reach, punch_seconds_max=2.0))
        async with trio.open_nursery() as nursery, open_host(seed("puncher"), [], {}, limits=bounds) as host:
            [listener] = await nursery.start(partial(trio.serve_tcp, garble, 0, host="127.0.0.1"))
            there = Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")
            here = ("127.0.0.1", free_port("127.0.0.1"))
            peer = SigningKey.from_seed(seed("other")).peer
            await host.reach.punching._meet(ID(peer), here, [there], dialler)
            assert knocks
            nursery.cancel_scope.cancel()

    run(scenario)


def test_nobody_knocks_in_a_network_that_the_operator_blocks() -> None:
    knocks: list[trio.SocketStream] = []

    async def answer(stream: trio.SocketStream) -> None:
        knocks.append(stream)

    def refuse(_: bytes, ip: str) -> str:
        return "blocked" if ip == "127.0.0.1" else ""

    async def scenario() -> None:
        bounds = replace(LIMITS, reach=replace(LIMITS.reach, punch_seconds_max=0.5))
        async with (
            trio.open_nursery() as nursery,
            open_host(seed("puncher"), [], {}, limits=bounds, refusal=refuse) as host,
        ):
            [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
            there = Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")
            peer = ID(SigningKey.from_seed(seed("other")).peer)
            await host.reach.punching._meet(peer, ("127.0.0.1", free_port("127.0.0.1")), [there], True)
            nursery.cancel_scope.cancel()

    run(scenario)
    assert not knocks


def test_without_a_reservation_or_a_willing_relay_there_is_no_circuit() -> None:
    async def scenario(hosts: Three) -> None:
        hosts.hidden.reach.release(hosts.relay.peer)
        with pytest.raises(DialFailed, match="E-net-05"):  # the hidden one does not take the visit
            await hosts.meet()
        hosts.relay.reach.relay_when(lambda: False)
        with pytest.raises(DialFailed, match="E-net-02"):
            await hosts.meet()
        with pytest.raises(DialFailed, match="E-net-02"):
            await hosts.hidden.reach.reserve(hosts.relay.peer)
        await hosts.hidden.disconnect(hosts.relay.peer)
        while hosts.hidden.peer in hosts.relay.connected():  # noqa: ASYNC110 as in any program that only has the list
            await trio.sleep(0.01)
        hosts.relay.reach.relay_when(lambda: True)
        with pytest.raises(DialFailed, match="E-net-03"):
            await hosts.meet()

    with_three(scenario)


def test_a_relay_keeps_to_its_number_of_reservations_and_circuits() -> None:
    async def scenario(hosts: Three) -> None:
        await hosts.visitor.connect(hosts.relay.addresses()[0])
        with pytest.raises(DialFailed, match="E-net-01"):
            await hosts.visitor.reach.reserve(hosts.relay.peer)
        await hosts.hidden.reach.reserve(hosts.relay.peer)  # renewing needs no further place
        await hosts.meet()
        async with open_host(seed("third"), [], {}) as third:
            with pytest.raises(DialFailed, match="E-net-04"):
                await third.connect(hosts.way)

    with_three(scenario, relay_reservations_max=1, relay_circuits_per_peer_max=1)


def test_a_circuit_that_has_used_up_its_bytes_is_cut_and_the_way_to_the_relay_stays() -> None:
    async def scenario(hosts: Three) -> None:
        await hosts.meet()
        stream = await hosts.visitor.open_stream(hosts.hidden.peer, ECHO)
        with pytest.raises(StreamLost):
            await carry_for_ever(stream)
        assert hosts.visitor.path_of(hosts.relay.peer) == "direct"
        await hosts.meet()

    with_three(scenario, relay_circuit_bytes_max=300_000)


def test_an_idle_circuit_ends_when_its_time_is_up() -> None:
    async def scenario(hosts: Three) -> None:
        await hosts.meet()
        stream = await hosts.visitor.open_stream(hosts.hidden.peer, ECHO)
        with within(5.0), pytest.raises(StreamLost):
            await stream.read(1)
        assert hosts.relay.reach.relay.use().circuits == 0

    with_three(scenario, relay_circuit_seconds_max=3)


def test_nobody_reserves_or_connects_through_a_relayed_connection() -> None:
    async def scenario(hosts: Three) -> None:
        hosts.hidden.reach.relay_when(lambda: True)
        await hosts.meet()
        with pytest.raises(DialFailed, match="E-net-07"):
            await hosts.visitor.reach.reserve(hosts.hidden.peer)
        twice = f"{hosts.way}/p2p-circuit/p2p/{hosts.relay.addresses()[0][-52:]}"
        with pytest.raises(DialFailed, match="E-net-06"):
            await hosts.visitor.connect(twice)

    with_three(scenario)


def test_a_peer_that_nobody_can_dial_is_looked_for_at_our_own_neighbours() -> None:
    async def scenario(hosts: Three) -> None:
        await hosts.visitor.connect(hosts.relay.addresses()[0])
        await hosts.visitor.connect_peer(hosts.hidden.peer, [])
        assert hosts.visitor.path_of(hosts.hidden.peer) == "relayed"

    with_three(scenario)


def test_a_host_that_never_relays_says_so_and_foreign_peers_say_that_they_do_not_speak_it() -> None:
    async def scenario() -> None:
        async with open_host(seed("a"), LOOPBACK, {}) as a, open_host(seed("b"), [], {}) as b:
            await b.connect(a.addresses()[0])
            with pytest.raises(DialFailed, match="E-net-02"):
                await b.reach.reserve(a.peer)
            a._core.remove_stream_handler("/libp2p/circuit/relay/0.2.0/hop")
            with pytest.raises(ProtocolRefused, match="E-net-08"):
                await b.reach.reserve(a.peer)

    run(scenario)


def test_gossip_goes_on_when_a_write_is_the_first_to_find_out_that_its_stream_is_dead() -> None:
    """As for a node that was stopped: the peer, back on a new connection, has said by then what it wants to hear."""

    async def scenario() -> None:
        heard: list[bytes] = []

        def hear(topic: str, source: bytes, message: bytes) -> None:
            heard.append(message)

        async with (
            open_host(seed("a"), LOOPBACK, {}, topics=["t"], on_gossip=hear) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
        ):
            await b.connect(a.addresses()[0])
            while not b.gossip_neighbours("t"):  # noqa: ASYNC110 libp2p has no event for it
                await trio.sleep(0.02)
            dead = b._gossip.pubsub.peers[ID(a.peer)]
            await dead.reset()
            for number in count():
                await b.publish("t", b"%d" % number)
                await trio.sleep(0.1)
                if b._gossip.pubsub.peers.get(ID(a.peer)) not in (None, dead) and heard:
                    break

    run(scenario)


def test_gossip_goes_on_over_the_other_connection_when_one_of_two_ends() -> None:
    async def scenario() -> None:
        heard, arrived = [], trio.Event()

        def hear(topic: str, source: bytes, message: bytes) -> None:
            heard.append(message)
            arrived.set()

        async with (
            open_host(seed("a"), LOOPBACK, {}, topics=["t"], on_gossip=hear) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
        ):
            await b.connect(a.addresses()[0])
            while not b.gossip_neighbours("t"):  # noqa: ASYNC110 libp2p has no event for it
                await trio.sleep(0.02)
            first = b._dialler.live(b._dialler.peers()[0])[0].muxed_conn
            peer, address = first.peer_id, b.addresses_of(a.peer)[0]
            await b._swarm.dial_addr(b._dialler._targets(peer, [address])[0], peer)
            await first.close()
            while not heard:
                arrived = trio.Event()
                await b.publish("t", b"still here %d" % len(heard))
                with trio.move_on_after(0.2):
                    await arrived.wait()

    run(scenario)


OLD_KEY, NEW_KEY = bytes([1]) * 32, bytes([2]) * 32


@asynccontextmanager
async def three_while_a_key_is_replaced() -> AsyncIterator[Three]:
    """The hidden one was away when the new key was told; all listen."""
    both = [NEW_KEY, OLD_KEY]
    async with (
        open_host(seed("relay"), LOOPBACK, HANDLERS, limits=limits(), network_keys=lambda: both) as relay,
        open_host(seed("hidden"), LOOPBACK, HANDLERS, limits=limits(), network_keys=lambda: [OLD_KEY]) as hidden,
        open_host(seed("visitor"), LOOPBACK, HANDLERS, limits=limits(), network_keys=lambda: both) as visitor,
    ):
        relay.reach.relay_when(lambda: True)
        for each in (hidden, visitor):
            await each.connect(relay.addresses()[0])
            await each.reach.reserve(relay.peer)
        yield Three(relay, hidden, visitor, hidden.addresses()[-1])


def test_while_a_key_is_replaced_who_has_only_the_old_one_is_met_over_a_relay() -> None:
    async def scenario() -> None:
        async with three_while_a_key_is_replaced() as hosts:
            await hosts.meet()
            await assert_echo(hosts.visitor, hosts.hidden.peer)
            assert hosts.visitor.path_of(hosts.hidden.peer) == "relayed"

    run(scenario)


def test_while_a_key_is_replaced_a_hole_is_punched_with_the_key_of_the_circuit() -> None:
    async def scenario() -> None:
        async with three_while_a_key_is_replaced() as hosts:
            hidden, visitor = hosts.hidden, hosts.visitor
            await hidden.connect(visitor.addresses()[-1])
            stream = await hidden.open_stream(visitor.peer, DCUTR)
            await write_message(stream, punch_connect([Multiaddr(hidden.addresses()[0].partition("/p2p/")[0])]))
            await read_message(stream, HolePunch)
            await write_message(stream, HolePunch(type=HolePunch.SYNC))
            while visitor.path_of(hidden.peer) != "direct":  # noqa: ASYNC110 what anybody can see from outside
                await trio.sleep(0.01)
            await assert_echo(visitor, hidden.peer)

    run(scenario, 20)
