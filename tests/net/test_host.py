"""Real hosts in one process, over loopback TCP: streams, failures, connections."""

import hashlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from dimnode.limits import LIMITS
from dimnode.p2p.host.host import (
    DialFailed,
    Host,
    ListenFailed,
    ProtocolRefused,
    Stream,
    StreamEnded,
    StreamLost,
    open_host,
)
from dimnode.p2p.host.yamux_frames import INITIAL_WINDOW_BYTES

pytestmark = pytest.mark.slow

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO, HOLD, ACT, FAIL = "/test/echo/1", "/test/hold/1", "/test/act/1", "/test/fail/1"
WAIT = "/test/wait/1"


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 40) -> None:
    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded)


async def read_exactly(stream: Stream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += await stream.read(size - len(got))
    return bytes(got)


async def echo(stream: Stream) -> None:
    while True:
        await stream.write(await stream.read(65536))


async def hold(stream: Stream) -> None:
    await trio.sleep_forever()


async def wait(stream: Stream) -> None:
    await stream.read(1)


async def act(stream: Stream) -> None:
    """Write three bytes and end in the way that is asked for."""
    order = await stream.read(1)
    await stream.write(b"abc")
    if order == b"r":
        await stream.reset()


async def fail(stream: Stream) -> None:
    raise RuntimeError("as the test wants")


HANDLERS = {ECHO: echo, HOLD: hold, ACT: act, FAIL: fail, WAIT: wait}


async def assert_echo(host: Host, peer: bytes, *, lazy: bool = False) -> None:
    stream = await host.open_stream(peer, ECHO, lazy=lazy)
    await stream.write(b"hello")
    assert await read_exactly(stream, 5) == b"hello"
    assert (stream.bytes_in, stream.bytes_out) == (5, 5)
    await stream.close()


def two_hosts(scenario: Callable[[Host, Host], Awaitable[None]], seconds: float = 40) -> None:
    """Run `scenario(a, b)` with b connected to a."""

    async def with_hosts() -> None:
        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS) as a,
            open_host(seed("b"), LOOPBACK, HANDLERS) as b,
        ):
            assert await b.connect(a.addresses()[0]) == a.peer
            await scenario(a, b)

    run(with_hosts, seconds)


def test_streams_open_both_ways_over_one_connection() -> None:
    async def scenario(a: Host, b: Host) -> None:
        for lazy in (False, True):
            await assert_echo(b, a.peer, lazy=lazy)
            await assert_echo(a, b.peer, lazy=lazy)
        assert (a.connected(), b.connected()) == ([b.peer], [a.peer])

    two_hosts(scenario)


def test_a_megabyte_comes_back() -> None:
    async def scenario(a: Host, b: Host) -> None:
        blob = bytes(range(256)) * 4096
        stream = await b.open_stream(a.peer, ECHO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, blob)
            assert await read_exactly(stream, len(blob)) == blob

    two_hosts(scenario)


def test_an_end_is_told_apart_from_a_loss() -> None:
    async def scenario(a: Host, b: Host) -> None:
        for order, expected in ((b"c", StreamEnded), (b"r", StreamLost)):
            stream = await b.open_stream(a.peer, ACT)
            await stream.write(order)
            if order == b"c":
                assert await read_exactly(stream, 3) == b"abc"
            with pytest.raises(expected):
                await read_exactly(stream, 4)

    two_hosts(scenario)


def test_a_lost_connection_loses_its_streams_at_once() -> None:
    async def scenario(a: Host, b: Host) -> None:
        stream = await b.open_stream(a.peer, HOLD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.disconnect, b.peer)
            with pytest.raises(StreamLost):
                await stream.read(1)
        with pytest.raises(StreamLost):
            await stream.write(b"x")
        with pytest.raises(DialFailed, match="not connected"):
            await b.open_stream(a.peer, ECHO)

    two_hosts(scenario)


def test_thirty_writes_cancelled_midway_leave_the_connection_usable() -> None:
    async def scenario(a: Host, b: Host) -> None:
        blob = bytes(4_000_000)
        for number in range(30):
            stream = await b.open_stream(a.peer, ECHO)
            with trio.move_on_after(number / 5000):
                await stream.write(blob)
            await stream.reset()
            await assert_echo(b, a.peer)

    two_hosts(scenario)


def test_a_writer_waits_when_the_reader_stops() -> None:
    async def scenario(a: Host, b: Host) -> None:
        stream = await b.open_stream(a.peer, HOLD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, bytes(8_000_000))
            while stream._muxed._send_window:  # noqa: ASYNC110 what is waited for is a counter
                await trio.sleep(0.02)
            await trio.sleep(0.1)  # it could go on
            nursery.cancel_scope.cancel()
        assert stream.bytes_out <= INITIAL_WINDOW_BYTES
        assert not stream.write_nowait(b"x")
        await assert_echo(b, a.peer)

    two_hosts(scenario)


def test_a_failing_handler_costs_its_stream_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(a: Host, b: Host) -> None:
        stream = await b.open_stream(a.peer, FAIL, lazy=True)
        await stream.write(b"x")
        with pytest.raises(StreamLost):
            await stream.read(1)
        await assert_echo(b, a.peer)
        assert [record.message for record in caplog.records if FAIL in record.message and record.levelname == "WARNING"]

    two_hosts(scenario)


def test_an_unknown_protocol_is_refused() -> None:
    async def scenario(a: Host, b: Host) -> None:
        with pytest.raises(ProtocolRefused, match="/test/none/1"):
            await b.open_stream(a.peer, "/test/none/1")
        stream = await b.open_stream(a.peer, "/test/none/1", lazy=True)
        await stream.write(b"x")
        with pytest.raises(StreamLost, match="does not speak"):
            await stream.read(1)

    two_hosts(scenario)


def test_a_peer_gets_only_so_many_inbound_streams() -> None:
    limits = replace(LIMITS, host=replace(LIMITS.host, inbound_streams_max=8))

    async def scenario() -> None:
        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS, limits=limits) as a,
            open_host(seed("b"), [], {}) as b,
        ):
            await b.connect(a.addresses()[0])
            opened, refused = [], 0
            for _ in range(12):
                try:
                    opened.append(await b.open_stream(a.peer, WAIT))
                except StreamLost:
                    refused += 1
            assert refused >= 4
            for stream in opened:
                await stream.reset()
            budget = a._swarm.upgrader.muxer_multistream._budget
            while budget.left <= limits.host.inbound_streams_total_max - len(opened):  # noqa: ASYNC110 it is a counter
                await trio.sleep(0.02)
            await assert_echo(b, a.peer)

    run(scenario)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "not a multiaddr"),
        ("/ip4/127.0.0.1/tcp/4001", "names no peer"),
        ("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D", "refused"),
    ],
)
def test_a_failed_dial_says_why(address: str, reason: str) -> None:
    async def scenario() -> None:
        async with open_host(seed("b"), [], {}) as b:
            for _ in range(2):  # the second time as well: no peer is put on a list of the unreachable
                with pytest.raises(DialFailed) as caught:
                    await b.connect(address)
                assert reason in caught.value.reason.lower()

    run(scenario)


def test_another_peer_at_the_address_is_not_taken_for_the_one_wanted() -> None:
    async def scenario(a: Host, b: Host) -> None:
        async with open_host(seed("c"), [], {}) as c:
            wrong = a.addresses()[0].replace(a.addresses()[0].split("/p2p/")[1], b.addresses()[0].split("/p2p/")[1])
            with pytest.raises(DialFailed, match="another peer answers there"):
                await c.connect(wrong)
            with pytest.raises(DialFailed, match="another peer"):
                await c.connect_peer(a.peer, [wrong])
            assert c.connected() == []

    two_hosts(scenario)


def test_a_dial_to_a_silent_port_ends_in_time() -> None:
    limits = replace(LIMITS, host=replace(LIMITS.host, dial_seconds_max=0.3))

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with open_host(seed("b"), [], {}, limits=limits) as b:
                peer = "12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D"
                with pytest.raises(DialFailed, match="no answer within"):
                    await b.connect(f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{peer}")

    run(scenario)


def test_the_second_address_is_tried_when_the_first_is_dead() -> None:
    async def scenario(a: Host, b: Host) -> None:
        async with open_host(seed("c"), [], {}) as c:
            dead = f"/ip4/127.0.0.1/tcp/1/p2p/{a.addresses()[0].split('/p2p/')[1]}"
            await c.connect_peer(a.peer, [dead, *a.addresses()])
            await c.connect_peer(a.peer, [dead])  # connected already
            await assert_echo(c, a.peer)
            assert a.addresses()[0] in c.addresses_of(a.peer)

    two_hosts(scenario)


def test_two_callers_of_one_peer_share_a_connection() -> None:
    async def scenario(a: Host, b: Host) -> None:
        async with open_host(seed("c"), [], {}) as c:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(c.connect, a.addresses()[0])
            assert len(c._swarm.connections[next(iter(c._swarm.connections))]) == 1

    two_hosts(scenario)


def test_connections_are_announced_when_they_come_and_go() -> None:
    async def scenario() -> None:
        notes: list[tuple[bytes, bool]] = []
        sender, receiver = trio.open_memory_channel[tuple[bytes, bool]](10)

        def note(peer: bytes, up: bool) -> None:
            notes.append((peer, up))
            sender.send_nowait((peer, up))

        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS, on_connection=note) as a,
            open_host(seed("b"), [], {}) as b,
        ):
            for _ in range(2):
                await b.connect(a.addresses()[0])
                assert await receiver.receive() == (b.peer, True)
                await b.disconnect(a.peer)
                assert await receiver.receive() == (b.peer, False)
            assert a.connected() == b.connected() == []

    run(scenario)


def test_a_taken_port_is_a_clear_failure() -> None:
    async def scenario() -> None:
        async with open_host(seed("a"), LOOPBACK, {}) as a:
            taken = a.addresses()[0].split("/p2p/")[0]
            with pytest.raises(ListenFailed) as caught:
                async with open_host(seed("b"), [taken], {}):
                    pass
            assert caught.value.complaint.code == "E-p2p-02"
            assert taken in caught.value.complaint.what
            assert "port" in caught.value.complaint.cause

    run(scenario)


def test_an_exception_of_the_block_leaves_it_unwrapped() -> None:
    async def scenario() -> None:
        with pytest.raises(KeyError):
            async with open_host(seed("a"), LOOPBACK, {}):
                raise KeyError("ours")

    run(scenario)


def test_what_was_written_arrives_when_the_host_stops_right_after() -> None:
    async def scenario() -> None:
        got = trio.Event()
        size = 200_000

        async def take(stream: Stream) -> None:
            await stream.write(b"!")
            assert await read_exactly(stream, size) == bytes(size)
            with pytest.raises(StreamEnded):
                await stream.read(1)
            got.set()

        patient = replace(LIMITS, host=replace(LIMITS.host, close_seconds_max=10.0))
        async with open_host(seed("a"), LOOPBACK, {"/test/take/1": take}) as a:
            async with open_host(seed("b"), [], {}, limits=patient) as b:
                await b.connect(a.addresses()[0])
                stream = await b.open_stream(a.peer, "/test/take/1")
                await read_exactly(stream, 1)
                await stream.write(bytes(size))
                await stream.close()
            await got.wait()

    run(scenario)


def test_wildcard_addresses_are_announced_as_those_of_the_interfaces() -> None:
    async def scenario() -> None:
        async with open_host(seed("a"), ["/ip4/0.0.0.0/tcp/0"], HANDLERS) as a, open_host(seed("b"), [], {}) as b:
            assert a.addresses()
            assert not [address for address in a.addresses() if "0.0.0.0" in address]
            await b.connect_peer(a.peer, a.addresses())
            await assert_echo(b, a.peer)

    run(scenario)


def test_addresses_that_a_peer_says_of_itself_and_that_lead_nowhere_are_not_its_addresses() -> None:
    async def scenario() -> None:
        nowhere = ["/ip4/1.2.3.4/tcp/1/dns4/p2p-circuit-x", "/tls/sni/p2p-circuit.example", "/p2p-circuit"]
        async with open_host(seed("a"), [], {}, dht=False) as a, open_host(seed("b"), LOOPBACK, HANDLERS) as b:
            told = b.addresses()
            b._core.get_addrs = lambda: [Multiaddr(address) for address in (*nowhere, "/ip4/1.2.3.4/tcp/1", *told)]
            await a.connect(told[0])
            store = a._core.get_peerstore()
            while len(store.addrs(ID(b.peer))) < len(nowhere) + 2:  # noqa: ASYNC110 identify tells nobody when it is done
                await trio.sleep(0.02)
            addresses = [address.partition("/p2p/")[0] for address in a.addresses_of(b.peer)]
            assert sorted(addresses) == sorted(["/ip4/1.2.3.4/tcp/1", told[0].partition("/p2p/")[0]])

    run(scenario)


class LoopPasses(trio.abc.Instrument):
    """Counts how often the event loop waits for input."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


def test_a_round_trip_on_a_kept_stream_takes_at_most_four_loop_passes_per_side() -> None:
    async def scenario(a: Host, b: Host) -> None:
        stream = await b.open_stream(a.peer, ECHO)
        await stream.write(b"warm")
        await read_exactly(stream, 4)
        await trio.sleep(0.5)  # identify and the first gossip heartbeats are over
        passes = LoopPasses()
        trio.lowlevel.add_instrument(passes)
        for _ in range(300):
            await stream.write(bytes(100))
            await read_exactly(stream, 100)
        trio.lowlevel.remove_instrument(passes)
        assert passes.count / 300 / 2 <= 4  # both sides run in this loop; measured: 2.0 per side

    two_hosts(scenario)
