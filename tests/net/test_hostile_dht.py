"""A DHT full of lies, and one that twenty hosts enter at the same moment: real hosts over loopback."""

import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.utils import encode_varint_prefixed
from machine import resting, within
from multiaddr import Multiaddr
from test_host import HANDLERS, LOOPBACK, assert_echo, read_exactly, run, seed

from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.host import Host, Stream, StreamEnded, StreamLost, open_host
from dimnode.p2p.host.kad_messages import KAD, message
from dimnode.p2p.host.lookup import GET_PROVIDERS
from dimnode.p2p.host.names import with_record
from dimnode.records.envelope import SigningKey
from dimnode.records.ipns import Name, seal_name

pytestmark = pytest.mark.slow

CONVERGED_SECONDS = 15.0
Answer = Callable[[Message], bytes]


def stranger(number: int) -> bytes:
    """The id of a peer that does not exist."""
    return b"\x00\x24\x08\x01\x12\x20" + number.to_bytes(32)


def naming(peers: dict[bytes, list[str]]) -> Message:
    found = Message()
    found.type = Message.MessageType.FIND_NODE
    for peer, addresses in peers.items():
        entry = found.closerPeers.add()
        entry.id = peer
        entry.addrs.extend(Multiaddr(address).to_bytes() for address in addresses)
    return found


async def read_message(stream: Stream) -> Message:
    size = (await stream.read(1))[0]
    if size > 127:
        size = size & 127 | (await stream.read(1))[0] << 7
    found = Message()
    found.ParseFromString(await read_exactly(stream, size))
    return found


def liar(answer: Answer) -> dict[str, Callable[[Stream], Awaitable[None]]]:
    """Serves the DHT's protocol with whatever `answer` returns."""

    async def serve(stream: Stream) -> None:
        await stream.write(answer(await read_message(stream)))

    return {KAD: serve}


def lied_to(answer: Answer, scenario: Callable[[Host, Host, Host], Awaitable[None]]) -> None:
    """Run `scenario(victim, liar, honest)`; the victim is connected to both of the others."""

    async def with_hosts() -> None:
        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS) as victim,
            open_host(seed("liar"), LOOPBACK, liar(answer), dht=False) as lying,
            open_host(seed("honest"), LOOPBACK, HANDLERS) as honest,
        ):
            for host in (lying, honest):
                await victim.connect(host.addresses()[0])
            await scenario(victim, lying, honest)

    run(with_hosts, seconds=60)


def test_an_answer_that_names_thousands_costs_few_dials_and_leaves_nothing_behind() -> None:
    with ExitStack() as stack:
        closed = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = closed.getsockname()[1]
        closed.close()
        crowd = naming({stranger(number): [f"/ip4/127.0.0.1/tcp/{port}"] for number in range(1500)})

        async def scenario(victim: Host, lying: Host, honest: Host) -> None:
            for _ in range(3):
                with within(5.0):
                    await victim.dht_join()
            dht: Any = victim._dht
            assert dht.lookup.dials <= 3 * LIMITS.host.dht_dials_per_answer_max
            assert set(victim.dht_peers()) <= {lying.peer, honest.peer}
            assert victim.addresses_of(stranger(7)) == []
            assert victim.conduct().offences[Offence.DHT.value] >= 1
            await assert_echo(victim, honest.peer)

        lied_to(lambda question: encode_varint_prefixed(crowd.SerializeToString()), scenario)


def test_an_answer_about_ourselves_or_with_wrong_addresses_changes_nothing() -> None:
    def answer(question: Message) -> bytes:
        honest = ID.from_pubkey(_public("honest")).to_bytes()
        victim = ID.from_pubkey(_public("victim")).to_bytes()
        wrong = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]
        return encode_varint_prefixed(naming({victim: wrong, honest: wrong}).SerializeToString())

    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        own, theirs = victim.addresses(), victim.addresses_of(honest.peer)
        await victim.dht_join()
        assert victim.addresses() == own
        assert victim.addresses_of(honest.peer) == theirs
        assert honest.addresses()[0] in await victim.dht_find(honest.peer)
        dht: Any = victim._dht
        assert dht.lookup.dials == 0

    lied_to(answer, scenario)


@pytest.mark.parametrize("way", ["/p2p-circuit", "/ip4/127.0.0.1/tcp/1/p2p-circuit"])
def test_a_provider_at_an_address_that_leads_nowhere_is_named_without_it(way: str) -> None:
    def answer(question: Message) -> bytes:
        found = Message()
        found.type = question.type
        if question.type == Message.MessageType.GET_PROVIDERS:
            entry = found.providerPeers.add()
            entry.id = stranger(7)
            entry.addrs.extend(Multiaddr(each).to_bytes() for each in (way, "/ip4/127.0.0.1/tcp/2"))
        return encode_varint_prefixed(found.SerializeToString())

    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        assert await victim.dht_providers(b"a key") == [stranger(7)]
        addresses = [address.partition("/p2p/")[0] for address in victim.addresses_of(stranger(7))]
        assert "/ip4/127.0.0.1/tcp/2" in addresses and not any("circuit" in address for address in addresses)
        await assert_echo(victim, honest.peer)

    lied_to(answer, scenario)


def test_a_hint_to_another_peers_address_is_found_out_by_the_dial() -> None:
    async def scenario() -> None:
        async with open_host(seed("somebody"), LOOPBACK, HANDLERS) as somebody:
            address = somebody.addresses()[0].split("/p2p/")[0]
            lie = encode_varint_prefixed(naming({stranger(1): [address]}).SerializeToString())
            async with (
                open_host(seed("victim"), LOOPBACK, HANDLERS) as victim,
                open_host(seed("liar"), LOOPBACK, liar(lambda question: lie), dht=False) as lying,
            ):
                await victim.connect(lying.addresses()[0])
                await victim.dht_join()
                assert victim.connected() == [lying.peer]
                assert stranger(1) not in victim.dht_peers()
                await victim.connect(somebody.addresses()[0])  # whose address it is can be reached all the same

    run(scenario, seconds=60)


@pytest.mark.parametrize(
    "lie",
    [
        encode_varint_prefixed(b"\xff" * 64),
        b"\xff" * 12,
        (LIMITS.host.dht_answer_bytes_max + 1).to_bytes(3, "little").replace(b"\x00", b"\x80") + b"\x7f",
    ],
)
def test_an_answer_that_is_none_is_an_offence(lie: bytes) -> None:
    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        await victim.dht_join()
        assert victim.conduct().offences == {Offence.DHT.value: 1}
        assert honest.peer in victim.dht_peers()

    lied_to(lambda question: lie, scenario)


def test_who_does_not_answer_delays_a_walk_by_a_bounded_time() -> None:
    async def scenario() -> None:
        async def silent(stream: Stream) -> None:
            await trio.sleep_forever()

        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS) as victim,
            open_host(seed("mute"), LOOPBACK, {KAD: silent}, dht=False) as mute,
            open_host(seed("honest"), LOOPBACK, HANDLERS) as honest,
        ):
            for host in (mute, honest):
                await victim.connect(host.addresses()[0])
            async with resting() as watch:
                await victim.dht_join()
                assert watch.seconds < LIMITS.host.dht_answer_seconds_max + 2.0
            assert honest.peer in victim.dht_peers()

    run(scenario, seconds=60)


def test_idle_streams_of_one_peer_do_not_close_the_dht_to_the_others() -> None:
    async def scenario() -> None:
        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS) as victim,
            open_host(seed("idle"), LOOPBACK, {}, dht=False) as idle,
            open_host(seed("honest"), LOOPBACK, HANDLERS) as honest,
        ):
            for host in (idle, honest):
                await host.connect(victim.addresses()[0])
            for _ in range(40):
                await idle.open_stream(victim.peer, KAD, lazy=True)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert await honest.dht_provide(b"key")
            assert honest.peer in await honest.dht_providers(b"key") or victim.conduct().offences == {}

    run(scenario, seconds=60)


def test_a_stranger_that_announces_more_than_there_is_room_for_closes_the_dht_to_nobody_else() -> None:
    few = replace(LIMITS, host=replace(LIMITS.host, dht_announcements_kept_max=20))

    async def scenario() -> None:
        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS, limits=few) as victim,
            open_host(seed("stranger"), LOOPBACK, HANDLERS) as many,
            open_host(seed("honest"), LOOPBACK, HANDLERS) as honest,
        ):
            for host in (many, honest):
                await host.connect(victim.addresses()[0])
            for number in range(30):
                assert await many.dht_provide(b"junk %d" % number)
            assert await honest.dht_provide(b"key")
            stream = await many.open_stream(victim.peer, KAD)
            await stream.write(encode_varint_prefixed(message(GET_PROVIDERS, b"key").SerializeToString()))
            assert [entry.id for entry in (await read_message(stream)).providerPeers] == [honest.peer]

    run(scenario, seconds=60)


def test_only_peers_that_were_admitted_enter_the_table() -> None:
    async def scenario() -> None:
        async with (
            open_host(seed("ours"), LOOPBACK, HANDLERS, dht_vouched=True) as ours,
            open_host(seed("foreign"), LOOPBACK, HANDLERS) as foreign,
            open_host(seed("kin"), LOOPBACK, HANDLERS) as kin,
        ):
            for host in (foreign, kin):
                await host.connect(ours.addresses()[0])
                await host.dht_join()  # asks us, by which libp2p takes it for a server
            await ours.dht_admit(kin.peer)
            assert await ours.dht_join() == 1
            assert ours.dht_peers() == [kin.peer]
            assert await ours.dht_provide(b"key"), "it is asked and answered all the same"

    run(scenario, seconds=60)


def record_of(name: str, sequence: int = 1, life_ms: int = 60_000) -> bytes:
    """An IPNS record of the host that `seed(name)` makes."""
    said = Name("/ipfs/bafkrei", sequence, time.time_ns() // 1_000_000 + life_ms, 0)
    return seal_name(SigningKey.from_seed(seed(name)), said)


def put(key: bytes, raw: bytes, inner: bytes | None = None) -> bytes:
    """A PUT_VALUE on the wire."""
    made = with_record(Message.MessageType.PUT_VALUE, key if inner is None else inner, raw, 0)
    made.key = key
    return encode_varint_prefixed(made.SerializeToString())


def test_of_values_only_records_that_their_publisher_signed_are_kept() -> None:
    """A lie is an offence; what is over, or of another kind, is refused and held against nobody."""

    async def scenario() -> None:
        async with (
            open_host(seed("victim"), LOOPBACK, HANDLERS) as victim,
            open_host(seed("other"), LOOPBACK, {}, dht=False) as other,
        ):
            await other.connect(victim.addresses()[0])

            async def answer(question: bytes) -> bytes:
                stream = await other.open_stream(victim.peer, KAD, lazy=True)
                await stream.write(question)
                try:
                    return await stream.read(4096)
                except (StreamLost, StreamEnded):
                    return b""

            mine = b"/ipns/" + other.peer
            assert await answer(put(b"/pk/" + other.peer, other.peer[2:])) == b""
            assert await answer(put(mine, record_of("other", life_ms=-1))) == b""
            assert victim.conduct().offences == {}
            second = record_of("other", 2)
            assert second in await answer(put(mine, second))
            assert second in await answer(put(mine, record_of("other", 1))), "its publisher learns of the newer one"
            lies = (record_of("victim"), record_of("other")[:-1], b"", bytes(2000))
            for lie in lies:
                assert await answer(put(mine, lie)) == b""
            assert await answer(put(mine, record_of("other", 3), inner=b"/ipns/" + victim.peer)) == b""
            assert victim.conduct().offences == {Offence.MALFORMED.value: len(lies) + 1}
            heard = await victim.dht_resolve(other.peer)
            assert heard.name is not None
            assert heard.name.sequence == 2

    run(scenario, seconds=60)


def test_a_record_is_found_while_its_publisher_is_away_and_the_newer_one_counts() -> None:
    async def scenario() -> None:
        async with (
            open_host(seed("keeper"), LOOPBACK, HANDLERS) as keeper,
            open_host(seed("second"), LOOPBACK, HANDLERS) as second,
        ):
            await second.connect(keeper.addresses()[0])
            for sequence in (1, 2):
                async with open_host(seed("publisher"), LOOPBACK, HANDLERS) as publisher:
                    await publisher.connect(keeper.addresses()[0])
                    if sequence == 1:
                        await publisher.connect(second.addresses()[0])
                    kept, heard = await publisher.dht_publish(record_of("publisher", sequence))
                    assert kept == 3 - sequence, "by both, then by one alone"
                    assert heard.name is None or heard.name.sequence == 1
            async with open_host(seed("reader"), LOOPBACK, HANDLERS) as reader:
                for host in (keeper, second):
                    await reader.connect(host.addresses()[0])
                found = await reader.dht_resolve(publisher.peer)
                assert found.name is not None
                assert (found.name.sequence, set(found.tellers)) == (2, {keeper.peer})
                assert (await second.dht_resolve(publisher.peer)).raw == found.raw, "the reader keeps it, too"

    run(scenario, seconds=60)


def test_a_publisher_that_forgot_its_number_hears_it_from_others() -> None:
    async def scenario() -> None:
        async with open_host(seed("keeper"), LOOPBACK, HANDLERS) as keeper:
            for sequence, kept_by, newest in ((7, 1, None), (1, 0, 7), (8, 1, 7)):
                async with open_host(seed("publisher"), LOOPBACK, HANDLERS) as publisher:
                    await publisher.connect(keeper.addresses()[0])
                    kept, heard = await publisher.dht_publish(record_of("publisher", sequence, 60_000 + sequence))
                    assert (kept, heard.name and heard.name.sequence) == (kept_by, newest)

    run(scenario, seconds=60)


def test_lies_about_a_record_cost_the_liar_and_change_nothing() -> None:
    lies = {
        "another's": record_of("liar"),
        "changed": record_of("honest")[:-1] + b"\x01",
        "garbage": b"\xff" * 300,
        "over": record_of("honest", 9, -1),
    }

    def answer(question: Message) -> bytes:
        lie = next(told)
        return encode_varint_prefixed(with_record(question.type, question.key, lie, 0).SerializeToString())

    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        for _ in lies:
            heard = await victim.dht_resolve(honest.peer)
            assert heard.name is None
        assert heard.over is not None
        assert victim.conduct().offences == {Offence.DHT.value: 3}

    told = iter(lies.values())
    lied_to(answer, scenario)


def test_a_record_that_is_too_long_to_keep_is_read_all_the_same() -> None:
    long = seal_name(SigningKey.from_seed(seed("honest")), Name("/ipfs/" + "x" * 2000, 1, 4_000_000_000_000, 0))

    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        heard = await victim.dht_resolve(honest.peer)
        assert (heard.raw, set(heard.tellers)) == (long, {lying.peer})
        assert victim.conduct().offences == {}

    def answer(question: Message) -> bytes:
        return encode_varint_prefixed(with_record(question.type, question.key, long, 0).SerializeToString())

    lied_to(answer, scenario)


def test_who_has_libp2ps_own_values_is_asked_for_a_record_and_brought_none() -> None:
    """A node of the last version, too: it takes such a put for an offence."""
    asked: list[int] = []

    def answer(question: Message) -> bytes:
        asked.append(question.type)
        answered = Message(type=question.type, key=question.key, senderRecord=b"signed addresses")
        return encode_varint_prefixed(answered.SerializeToString())

    async def scenario(victim: Host, lying: Host, honest: Host) -> None:
        kept, _ = await victim.dht_publish(record_of("victim"))
        assert kept == 1
        assert (await honest.dht_resolve(victim.peer)).name is not None

    lied_to(answer, scenario)
    assert Message.MessageType.GET_VALUE in asked
    assert Message.MessageType.PUT_VALUE not in asked


def test_eight_hosts_that_look_up_at_the_same_moment_all_find_each_other() -> None:
    """As many as one process carries in a test; twenty processes are measured by the benchmarks of the overlay."""
    number = random.randrange(2**32)
    print("seed", number)
    chance = random.Random(number)
    count = 8

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(open_host(seed(f"swarm{n}"), LOOPBACK, {}, dht=True))
                for n in range(count)
            ]
            began = trio.current_time()
            await _all_join(hosts, chance)
            print(f"{count} hosts converged in {trio.current_time() - began:.1f} s")
            assert all(len(host.dht_peers()) == count - 1 for host in hosts)

    run(scenario, seconds=120)


async def _all_join(hosts: list[Host], chance: random.Random) -> None:
    async def join(host: Host) -> None:
        if host is not hosts[0]:
            await host.connect(hosts[0].addresses()[0])
        while await host.dht_join() < len(hosts) - 1:  # noqa: ASYNC110 retries with jitter are what is tested
            await trio.sleep(chance.uniform(0.1, 0.5))

    with within(CONVERGED_SECONDS):
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(join, host)


def _public(name: str) -> Any:
    from libp2p.crypto.ed25519 import create_new_key_pair

    return create_new_key_pair(seed(name)).public_key
