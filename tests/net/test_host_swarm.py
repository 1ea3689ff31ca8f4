"""Gossip, DHT and hostile strangers, with real hosts over loopback TCP."""

import random
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr
from test_host import ECHO, HANDLERS, LOOPBACK, assert_echo, read_exactly, run, seed

from dimnode.limits import LIMITS
from dimnode.p2p.host.host import DialFailed, Host, StreamLost, open_host

pytestmark = pytest.mark.slow

PUBSUB, KAD, IDENTIFY_PUSH, PING = "/meshsub/1.1.0", "/ipfs/kad/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"


async def publish_until(host: Host, topic: str, data: bytes, arrived: trio.Event, again_seconds: float = 0.5) -> None:
    """Gossip meshes form with the heartbeats: publish once a heartbeat until it arrives."""
    while not arrived.is_set():
        await host.publish(topic, data)
        with trio.move_on_after(again_seconds):
            await arrived.wait()


def test_gossip_reaches_three_hosts_in_a_row_with_its_source() -> None:
    async def scenario() -> None:
        arrived = {name: trio.Event() for name in "abc"}
        got: dict[str, set[tuple[str, bytes, bytes]]] = {name: set() for name in "abc"}

        def taker(name: str):
            def take(topic: str, source: bytes, data: bytes) -> None:
                got[name].add((topic, source, data))
                arrived[name].set()

            return take

        async with AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(
                    open_host(seed(name), LOOPBACK, {}, topics=["t"], on_gossip=taker(name), dht=False)
                )
                for name in "abc"
            ]
            await hosts[1].connect(hosts[0].addresses()[0])
            await hosts[2].connect(hosts[1].addresses()[0])
            await publish_until(hosts[0], "t", b"news", arrived["c"])
            assert got["b"] == got["c"] == {("t", hosts[0].peer, b"news")}
            assert got["a"] == set(), "a host is not told its own news"
            with pytest.raises(ValueError, match="not subscribed"):
                await hosts[0].publish("other", b"x")
            with pytest.raises(ValueError, match="bytes"):
                await hosts[0].publish("t", bytes(LIMITS.peers.gossip_message_bytes_max + 1))

    run(scenario)


def test_gossip_that_the_validator_refuses_is_not_delivered() -> None:
    async def scenario() -> None:
        good, got = trio.Event(), []

        def take(topic: str, source: bytes, data: bytes) -> None:
            got.append(data)
            good.set()

        async with (
            open_host(
                seed("a"),
                LOOPBACK,
                {},
                topics=["t"],
                on_gossip=take,
                validate_gossip=lambda *gossip: gossip[2] != b"bad",
            ) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
        ):
            await b.connect(a.addresses()[0])
            await b.publish("t", b"bad")
            await publish_until(b, "t", b"good", good)
            await b.publish("t", b"bad")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert set(got) == {b"good"}

    run(scenario)


def test_five_hosts_find_each_other_through_one() -> None:
    async def scenario() -> None:
        rng = random.Random(5)
        async with AsyncExitStack() as stack:
            hosts = [await stack.enter_async_context(open_host(seed(f"dht{n}"), LOOPBACK, HANDLERS)) for n in range(5)]
            for host in hosts[1:]:
                await host.connect(hosts[0].addresses()[0])

            async def join(host: Host) -> None:
                while await host.dht_join() < 4:  # noqa: ASYNC110 a retry with jitter is how it is used
                    await trio.sleep(rng.uniform(0.1, 0.4))

            async with trio.open_nursery() as nursery:
                for host in hosts:
                    nursery.start_soon(join, host)
            assert sorted(hosts[1].dht_peers()) == sorted(host.peer for host in hosts if host is not hosts[1])
            assert hosts[4].addresses()[0] in await hosts[1].dht_find(hosts[4].peer)

            assert await hosts[2].dht_provide(b"key")
            assert await hosts[3].dht_provide(b"key")
            assert hosts[2].peer in await hosts[4].dht_providers(b"key")
            assert await hosts[2].dht_providers(b"key") == [hosts[3].peer], "a provider finds the other ones"
            assert hosts[3].addresses()[0] in hosts[2].addresses_of(hosts[3].peer)

    run(scenario, seconds=90)


def rpc(payload: bytes) -> bytes:
    return bytes([len(payload)]) + payload


@pytest.mark.parametrize(
    ("protocol", "payload"),
    [
        (PUBSUB, rpc(b"\xff" * 64)),  # no protobuf: ends a stock process
        (PUBSUB, rpc(b"\x12\x04\x0a\x02hi")),  # a message without topic and signature
        (PUBSUB, rpc(bytes.fromhex("121a0a0362616412017822017422017422027462aa0101732a01733201 6b".replace(" ", "")))),
        (PUBSUB, b"\xff" * 12),
        (KAD, rpc(b"\xff" * 64)),
        (IDENTIFY_PUSH, rpc(b"\xff" * 64)),
        (PING, b"short"),
        ("/test/none/1", b""),
    ],
)
def test_malformed_frames_leave_the_host_alive(protocol: str, payload: bytes) -> None:
    async def scenario() -> None:
        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS, topics=["t"]) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
        ):
            await b.connect(a.addresses()[0])
            stream = await b.open_stream(a.peer, protocol, lazy=True)
            await stream.write(payload)
            await stream.close()
            await trio.sleep(0.2)
            await assert_echo(b, a.peer)

    run(scenario)


def test_a_signed_message_with_a_malformed_key_leaves_the_host_alive() -> None:
    async def scenario() -> None:
        from libp2p.pubsub.pb import rpc_pb2

        message = rpc_pb2.RPC()
        message.publish.add(from_id=b"bad", data=b"x", seqno=b"1", topicIDs=["t"], signature=b"s", key=b"k")
        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS, topics=["t"]) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
        ):
            await b.connect(a.addresses()[0])
            stream = await b.open_stream(a.peer, PUBSUB)
            await stream.write(rpc(message.SerializeToString()))
            await trio.sleep(0.2)
            await assert_echo(b, a.peer)

    run(scenario)


def test_random_frames_of_every_protocol_leave_the_host_alive_and_get_their_sender_refused() -> None:
    number = random.randrange(2**32)
    print("seed", number)
    rng = random.Random(number)

    async def scenario() -> None:
        async with (
            open_host(seed("a"), LOOPBACK, HANDLERS, topics=["t"]) as a,
            open_host(seed("b"), LOOPBACK, {}, topics=["t"]) as b,
            open_host(seed("c"), LOOPBACK, {}, topics=["t"]) as c,
        ):
            await c.connect(a.addresses()[0])
            for _ in range(1000):
                try:
                    if a.peer not in b.connected():
                        await b.connect(a.addresses()[0])
                    stream = await b.open_stream(a.peer, rng.choice([PUBSUB, KAD, IDENTIFY_PUSH, PING]), lazy=True)
                    await stream.write(rpc(rng.randbytes(rng.randrange(120))))
                    await rng.choice([stream.close, stream.reset])()
                except (DialFailed, StreamLost):
                    pass
                await trio.sleep(0.005)
                if a.conduct().bans:
                    break
            assert [ban.peer for ban in a.conduct().banned] == [b.peer], a.conduct()
            await assert_echo(c, a.peer)

    run(scenario)


def test_places_of_inbound_connections_come_back() -> None:
    async def scenario() -> None:
        async with open_host(seed("a"), LOOPBACK, HANDLERS) as a, open_host(seed("b"), [], {}) as b:
            for _ in range(5):
                await b.connect(a.addresses()[0])
                await assert_echo(b, a.peer)
                await b.disconnect(a.peer)
            while a._swarm._inbound_limiter.borrowed_tokens:  # noqa: ASYNC110 what is waited for is a counter
                await trio.sleep(0.02)

    run(scenario)


def test_garbage_on_the_port_leaves_the_host_alive() -> None:
    async def scenario() -> None:
        async with open_host(seed("a"), LOOPBACK, HANDLERS) as a, open_host(seed("b"), [], {}) as b:
            port = int(a.addresses()[0].split("/")[4])
            for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(5000), b"\xff" * 5000):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(garbage)
                await stream.aclose()
            await b.connect(a.addresses()[0])
            await assert_echo(b, a.peer)

    run(scenario)


def test_a_plaintext_peer_is_refused() -> None:
    async def scenario() -> None:
        key_pair = create_new_key_pair(seed("plain"))
        plain = new_host(key_pair=key_pair, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)})
        async with open_host(seed("a"), LOOPBACK, HANDLERS) as a, plain.run(listen_addrs=[]):
            with pytest.raises(SwarmException):
                await plain.connect(info_from_p2p_addr(Multiaddr(a.addresses()[0])))
            assert a.connected() == []

    run(scenario)


def stock_host(name: str):
    """Return libp2p as it comes, but for the choice of Noise."""
    from libp2p.crypto.x25519 import create_new_key_pair as noise_key_pair
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
    from libp2p.security.noise.transport import Transport as Noise

    key_pair = create_new_key_pair(seed(name))
    noise = Noise(libp2p_keypair=key_pair, noise_privkey=noise_key_pair().private_key)
    return new_host(key_pair=key_pair, sec_opt={NOISE_ID: noise}, muxer_preference="YAMUX")


async def stock_echo(stream) -> None:
    from libp2p.network.stream.exceptions import StreamEOF

    try:
        while True:
            await stream.write(await stream.read(65536))
    except StreamEOF:
        await stream.close()


BLOB = bytes(range(256)) * 4096


def test_a_stock_host_is_served() -> None:
    async def scenario() -> None:
        stock = stock_host("stock")
        async with open_host(seed("a"), LOOPBACK, HANDLERS) as a, stock.run(listen_addrs=[]):
            info = info_from_p2p_addr(Multiaddr(a.addresses()[0]))
            await stock.connect(info)
            stream = await stock.new_stream(info.peer_id, [ECHO])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, BLOB)
                assert await read_exactly(stream, len(BLOB)) == BLOB
            await stream.close()
            assert a.conduct().offences == {}, "a foreign implementation is none of the hostile ones"

    run(scenario)


def test_a_stock_host_serves_us() -> None:
    async def scenario() -> None:
        stock = stock_host("stock")
        stock.set_stream_handler(ECHO, stock_echo)
        async with stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]), open_host(seed("a"), LOOPBACK, HANDLERS) as a:
            peer = await a.connect(str(stock.get_addrs()[0]))
            for lazy in (False, True):
                stream = await a.open_stream(peer, ECHO, lazy=lazy)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.write, BLOB)
                    assert await read_exactly(stream, len(BLOB)) == BLOB
                await stream.close()
            assert a.conduct().offences == {}

    run(scenario)
