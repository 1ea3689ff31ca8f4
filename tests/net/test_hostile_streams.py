"""Peers that open, hold and send too much, against real hosts over loopback: bounded, refused by name, sent away."""

import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from libp2p.peer.id import ID
from machine import Watch, within
from test_host import ECHO, HANDLERS, HOLD, LOOPBACK, WAIT, assert_echo, run, seed

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.conduct import BANNED_CODE, CODES, Offence
from dimnode.p2p.host.host import DialFailed, Host, Stream, StreamLost, open_host
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_frames import ACK, SYN, Kind, encode_header

pytestmark = pytest.mark.slow

HONEST_SECONDS = 1.0
BROKEN = "/test/broken/1"


def host_limits(**changed: Any):
    return replace(LIMITS, host=replace(LIMITS.host, **changed))


async def malformed(stream) -> None:
    await stream.read(1)
    raise PeerFault("as the test wants")


def three_hosts(scenario: Callable[[Host, Host, Host], Awaitable[None]], limits: Any = LIMITS, seconds: float = 60):
    """Run `scenario(victim, offender, honest)`; both of the others are connected to the victim."""

    async def with_hosts() -> None:
        async with (
            open_host(seed("victim"), LOOPBACK, {**HANDLERS, BROKEN: malformed}, limits=limits) as victim,
            open_host(seed("offender"), LOOPBACK, {}) as offender,
            open_host(seed("honest"), [], {}) as honest,
        ):
            for host in (offender, honest):
                await host.connect(victim.addresses()[0])
            await scenario(victim, offender, honest)

    run(with_hosts, seconds)


def raw(host: Host, peer: bytes) -> YamuxConnection:
    """The muxer below all manners."""
    muxed: YamuxConnection = host._dialler.live(ID(peer))[0].muxed_conn
    return muxed


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 what is waited for is a counter
        await trio.sleep(0.02)


async def gone(host: Host, peer: bytes) -> None:
    """Wait until `peer` has no connection any more."""
    while peer in host.connected():  # noqa: ASYNC110 as in any program that only has the list
        await trio.sleep(0.01)


async def dial_and_read(host: Host, other: Host) -> None:
    """libp2p may take a dial for made before it hears of the end, so something is read as well."""
    await host.connect(other.addresses()[0])
    await (await host.open_stream(other.peer, ECHO)).read(1)


async def assert_banned(victim: Host, offender: Host) -> None:
    """Neither side can connect, and both are told why as far as they may know."""
    await gone(victim, offender.peer)
    assert [ban.peer for ban in victim.conduct().banned] == [offender.peer]
    with pytest.raises(DialFailed, match=BANNED_CODE):
        await victim.connect(offender.addresses()[0])
    await gone(offender, victim.peer)
    with pytest.raises((DialFailed, StreamLost)):
        await dial_and_read(offender, victim)
    assert victim.conduct().refusals[BANNED_CODE] >= 1
    assert offender.peer not in victim.connected()


async def assert_served(honest: Host, victim: Host) -> None:
    with within(HONEST_SECONDS):
        await assert_echo(honest, victim.peer)


def test_who_overruns_the_window_is_cut_off_and_refused_at_its_relapse() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        for _ in range(2):
            await offender.connect(victim.addresses()[0])
            stream = await offender.open_stream(victim.peer, HOLD)
            muxed = raw(offender, victim.peer)
            for _ in range(10):
                muxed.session.put(encode_header(Kind.DATA, 0, stream._muxed.stream_id, 60_000), bytes(60_000))
            muxed.session.flush()
            await gone(victim, offender.peer)
            await gone(offender, victim.peer)
            await assert_served(honest, victim)
        assert victim.conduct().offences == {Offence.WINDOW.value: 2}
        await assert_banned(victim, offender)

    three_hosts(scenario)


def test_ten_thousand_streams_are_refused_without_a_task_for_each() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        before, most = trio.lowlevel.current_statistics().tasks_living, 0
        for _ in range(4):
            if victim.conduct().bans:  # the first times it is only cut off
                break
            await offender.connect(victim.addresses()[0])
            muxed = raw(offender, victim.peer)
            for first in range(0, 10_000, 100):
                for number in range(first, first + 100):
                    muxed.session.put(encode_header(Kind.WINDOW, SYN, 1001 + 2 * number, 0))
                muxed.session.flush()
                await trio.lowlevel.checkpoint()
                most = max(most, trio.lowlevel.current_statistics().tasks_living)
                if victim.peer not in offender.connected():
                    break
            await assert_served(honest, victim)
            await gone(offender, victim.peer)
            await gone(victim, offender.peer)
        assert most - before < 3 * LIMITS.host.inbound_streams_max
        assert victim.conduct().offences[Offence.STREAM_FLOOD.value] >= 4
        await assert_banned(victim, offender)

    three_hosts(scenario, host_limits(stream_id_gap_max=20_000))


def test_a_stream_beyond_the_cap_is_refused_at_once_over_all_connections_of_a_peer() -> None:
    async def scenario() -> None:
        limits = host_limits(inbound_streams_max=20)
        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS, limits=limits, dht=False) as victim,
            open_host(seed("twin"), [], {}, dht=False) as one,
            open_host(seed("twin"), [], {}, dht=False) as two,
        ):
            opened = []
            for host in (one, two):
                await host.connect(victim.addresses()[0])
            refused = False
            with within(HONEST_SECONDS):
                for number in range(30):
                    try:
                        opened.append(await (one, two)[number % 2].open_stream(victim.peer, WAIT))
                    except StreamLost:
                        refused = True
                        break
            assert refused
            assert 8 <= len(opened) <= 20
            for stream in opened:
                await stream.reset()
            budget = victim._swarm.upgrader.muxer_multistream._budget
            await until(lambda: budget.left > limits.host.inbound_streams_total_max - len(opened))
            await assert_echo(one, victim.peer)

    run(scenario)


def test_unread_bytes_are_bounded_over_all_streams_of_a_peer() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        lost = 0

        async def fill(stream: Stream) -> None:
            nonlocal lost
            try:
                await stream.write(bytes(200_000))
                await stream.read(1)
            except StreamLost:
                lost += 1

        async with trio.open_nursery() as nursery:
            for stream in [await offender.open_stream(victim.peer, HOLD) for _ in range(4)]:
                nursery.start_soon(fill, stream)
            await until(lambda: lost >= 2)
            nursery.cancel_scope.cancel()
        assert sum(connection.unread_bytes for connection in [raw(victim, offender.peer)]) <= 300_000
        assert victim.conduct().offences[Offence.UNREAD.value] >= 2
        await assert_served(honest, victim)
        assert offender.peer in victim.connected(), "it costs the streams, not the connection"

    three_hosts(scenario, host_limits(connection_unread_bytes_max=300_000))


def test_unread_bytes_of_all_peers_together_are_bounded_too() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        for host in (offender, honest):
            for _ in range(2):
                stream = await host.open_stream(victim.peer, HOLD)
                with suppress(StreamLost):
                    await stream.write(bytes(200_000))
        await trio.sleep(0.3)  # whatever is to be lost may be on its way
        held = sum(raw(victim, host.peer).unread_bytes for host in (offender, honest))
        assert held <= 500_000
        await assert_served(honest, victim)

    three_hosts(scenario, host_limits(unread_bytes_total_max=500_000, unread_share_bytes=50_000))


def test_a_flood_of_pings_ends_the_connection() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        muxed = raw(offender, victim.peer)
        for _ in range(LIMITS.host.idle_frames_max + 1):
            muxed.session.put(encode_header(Kind.PING, ACK, 0, 7))
        muxed.session.flush()
        await gone(victim, offender.peer)
        assert victim.conduct().offences == {Offence.MUXER.value: 1}
        await assert_served(honest, victim)

    three_hosts(scenario)


def test_malformed_questions_send_a_peer_away_and_a_single_one_does_not() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        stream = await honest.open_stream(victim.peer, BROKEN)
        await stream.write(b"x")
        with pytest.raises(StreamLost):
            await stream.read(1)
        for _ in range(30):
            try:
                await offender.connect(victim.addresses()[0])
                stream = await offender.open_stream(victim.peer, BROKEN, lazy=True)
                await stream.write(b"x")
                await stream.read(1)
            except (StreamLost, DialFailed):
                await trio.sleep(0.02)
            if victim.conduct().bans:
                break
        await assert_banned(victim, offender)
        await assert_served(honest, victim)
        assert victim.conduct().offences[Offence.MALFORMED.value] >= 6

    three_hosts(scenario)


def test_a_stream_on_which_nothing_is_agreed_is_an_offence_and_an_unknown_protocol_is_none() -> None:
    async def scenario(victim: Host, offender: Host, honest: Host) -> None:
        with pytest.raises(DialFailed):
            await honest.open_stream(victim.peer, "/test/newer/2")
        raw(offender, victim.peer).session.put(encode_header(Kind.WINDOW, SYN, 5001, 0))
        raw(offender, victim.peer).session.flush()
        await until(lambda: bool(victim.conduct().offences))
        assert victim.conduct().offences == {Offence.SLOW.value: 1}

    three_hosts(scenario, host_limits(negotiate_seconds_max=2.0, stream_id_gap_max=20_000))


def test_five_hundred_half_open_sockets_keep_nobody_out_and_are_all_closed() -> None:
    async def scenario() -> None:
        limits = host_limits(negotiate_seconds_max=2.0)
        async with (
            AsyncExitStack() as stack,
            open_host(seed("victim"), LOOPBACK, HANDLERS, limits=limits) as victim,
            open_host(seed("honest"), [], {}) as honest,
        ):
            port = int(victim.addresses()[0].split("/")[4])
            sockets = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
            watch = Watch()
            sockets += [stack.enter_context(open_socket(port)) for _ in range(400)]
            with within(HONEST_SECONDS):
                await honest.connect(victim.addresses()[0])
                await assert_echo(honest, victim.peer)
            assert victim.conduct().half_open <= LIMITS.host.half_open_per_source_max
            await until(lambda: not victim.conduct().half_open)
            assert watch.seconds < 5.0 + HONEST_SECONDS
            report = victim.conduct()
            assert 300 <= report.refusals[CODES[Offence.HALF_OPEN]] <= 500  # the kernel may keep some waiting
            assert report.bans == 0, "an address may be that of many peers"
            for stream in sockets[:100]:
                try:
                    assert await stream.receive_some(1) == b""
                except trio.BrokenResourceError:
                    pass
                await stream.aclose()
            await assert_echo(honest, victim.peer)

    run(scenario)


def open_socket(port: int) -> socket.socket:
    found = socket.socket()
    found.setblocking(False)
    found.connect_ex(("127.0.0.1", port))
    return found


def test_a_source_address_has_only_so_many_connections_and_a_peer_as_well() -> None:
    async def scenario() -> None:
        limits = host_limits(connections_per_source_max=3, connections_per_peer_max=2)
        async with AsyncExitStack() as stack:
            victim = await stack.enter_async_context(open_host(seed("v"), LOOPBACK, HANDLERS, limits=limits, dht=False))

            async def visitor(name: str) -> Host:
                host = await stack.enter_async_context(open_host(seed(name), [], {}, dht=False))
                await host.connect(victim.addresses()[0])
                return host

            first, second, third = [await visitor("same") for _ in range(3)]
            await gone(first, victim.peer)  # the newest stay
            await assert_echo(second, victim.peer)
            await assert_echo(third, victim.peer)
            await visitor("other")
            with pytest.raises(DialFailed):
                await visitor("one too many")
            assert victim.conduct().refusals[CODES[Offence.CROWDING]] == 2

    run(scenario)


def test_a_source_that_dials_many_times_at_once_gets_no_more_connections_than_one_by_one() -> None:
    async def scenario() -> None:
        limits = host_limits(connections_per_source_max=3)
        async with AsyncExitStack() as stack:
            victim = await stack.enter_async_context(open_host(seed("v"), LOOPBACK, HANDLERS, limits=limits, dht=False))
            crowd = [
                await stack.enter_async_context(open_host(seed(f"{number}"), [], {}, dht=False)) for number in range(8)
            ]

            async def dial(host: Host) -> None:
                with suppress(DialFailed):
                    await host.connect(victim.addresses()[0])

            async with trio.open_nursery() as nursery:
                for host in crowd:
                    nursery.start_soon(dial, host)
            await until(lambda: not victim.conduct().half_open)
            await until(lambda: len(victim.connected()) == 3)
            await until(lambda: victim.conduct().refusals[CODES[Offence.CROWDING]] == 5)
            assert victim.conduct().offences == {Offence.CROWDING.value: 5}
            await until(lambda: sum(len(host.connected()) for host in crowd) == 3)

    run(scenario)


def test_a_slow_reader_slows_its_writer_and_is_not_cut_off() -> None:
    size = 900_000

    async def sip(stream) -> None:
        """Read nothing for longer than stock libp2p waits for window, then slowly."""
        await trio.sleep(5.2)
        got = 0
        while got < size:
            got += len(await stream.read(100_000))
            await trio.sleep(0.02)
        await stream.write(b"!")

    async def scenario() -> None:
        async with (
            open_host(seed("a"), LOOPBACK, {"/test/sip/1": sip}, dht=False) as a,
            open_host(seed("b"), [], {}, dht=False) as b,
        ):
            await b.connect(a.addresses()[0])
            began = trio.current_time()
            stream = await b.open_stream(a.peer, "/test/sip/1")
            await stream.write(bytes(size))
            assert trio.current_time() - began > 5.0
            assert await stream.read(1) == b"!"
            assert a.conduct().offences == b.conduct().offences == {}

    run(scenario)


def test_peers_that_only_make_use_of_each_other_commit_no_offence() -> None:
    number = random.randrange(2**32)
    print("seed", number)
    chance = random.Random(number)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(open_host(seed(f"good{n}"), LOOPBACK, HANDLERS, topics=["t"]))
                for n in range(4)
            ]
            for host in hosts[1:]:
                await host.connect(hosts[0].addresses()[0])

            async def live(host: Host) -> None:
                for _ in range(8):
                    await host.dht_join()
                    await host.publish("t", chance.randbytes(20))
                    peer = chance.choice(hosts[:1] if host is not hosts[0] else hosts[1:]).peer
                    if peer in host.connected():
                        # A use that is cancelled, or whose connection its peer closes, is no offence either.
                        with trio.move_on_after(chance.random() * 0.1), suppress(StreamLost, DialFailed):
                            await assert_echo(host, peer, lazy=bool(chance.randrange(2)))
                    if host is hosts[3]:
                        await host.disconnect(hosts[0].peer)
                        await host.connect(hosts[0].addresses()[0])

            async with trio.open_nursery() as nursery:
                for host in hosts:
                    nursery.start_soon(live, host)
            assert [host.conduct().offences for host in hosts] == [{}] * 4

    run(scenario, seconds=90)
