"""Gossip that lies, repeats itself and floods, with real hosts over loopback: judged before it is passed on."""

import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from libp2p.utils import encode_varint_prefixed
from machine import within
from test_host import HANDLERS, LOOPBACK, assert_echo, run, seed
from test_host_swarm import PUBSUB, publish_until
from test_hostile_streams import gone, until

from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Judgement, Offence
from dimnode.p2p.gossip import HEARTBEAT_TOPIC, Freshness, heartbeat, judge_gossip
from dimnode.p2p.host.host import Host, Stream, StreamLost, open_host
from dimnode.p2p.host.yamux_frames import INITIAL_WINDOW_BYTES
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import RECORD_PREFIX, RecordId
from dimnode.records.kinds import OPEN_SWARM_ID

pytestmark = pytest.mark.slow

TOPIC = HEARTBEAT_TOPIC
ADVERT = RecordId(RECORD_PREFIX + bytes(32))


class Ear:
    """What one host was told by gossip."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes]] = []

    def hear(self, topic: str, source: bytes, data: bytes) -> None:
        self.heard.append((source, data))


class Row:
    """Three hosts in a row: the offender speaks to the middle one, which alone speaks to the end."""

    def __init__(self, offender: Host, middle: Host, end: Host, ears: dict[str, Ear]) -> None:
        self.offender, self.middle, self.end = offender, middle, end
        self.at_middle, self.at_end = ears["middle"], ears["end"]

    async def say(self, message: bytes) -> None:
        """The offender gossips until the end of the row has heard it."""
        await self.publish(message, lambda: (self.offender.peer, message) in self.at_end.heard, 0.5)

    async def publish(self, message: bytes, seen: Callable[[], bool], again_seconds: float) -> None:
        """The offender gossips until it is `seen`: a single message may be dropped by somebody's rate."""
        told = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_until, self.offender, TOPIC, message, told, again_seconds)
            await until(seen)
            told.set()

    async def inject(self, *messages: Any) -> Stream:
        """Write gossip messages past the offender's own pubsub."""
        rpc = rpc_pb2.RPC()
        for message in messages:
            rpc.publish.add().CopyFrom(message)
        packed = rpc.SerializeToString()
        stream = await self.offender.open_stream(self.middle.peer, PUBSUB, lazy=True)
        await stream.write(encode_varint_prefixed(packed))
        return stream

    def fate(self, what: str) -> int:
        return self.middle.conduct().gossip.get(TOPIC, {}).get(what, 0)


def row(scenario: Callable[[Row], Awaitable[None]], validates: bool = False) -> None:
    async def with_hosts() -> None:
        ears = {name: Ear() for name in ("offender", "middle", "end")}
        freshness = Freshness()

        def validate(topic: str, source: bytes, data: bytes) -> Judgement:
            return judge_gossip(topic, source, data, OPEN_SWARM_ID, freshness, time.time_ns() // 1_000_000)[0]

        def opened(name: str, validate: Any = None) -> Any:
            return open_host(
                seed(name),
                LOOPBACK,
                HANDLERS,
                topics=[TOPIC],
                on_gossip=ears[name].hear,
                validate_gossip=validate,
                dht=False,
            )

        async with (
            opened("offender") as offender,
            opened("middle", validate if validates else None) as middle,
            opened("end") as end,
        ):
            await offender.connect(middle.addresses()[0])
            await end.connect(middle.addresses()[0])
            # A heartbeat that the middle accepts before that is passed on to nobody, and no news when it comes again.
            await until(lambda: [len(host.gossip_neighbours(TOPIC)) for host in (offender, middle, end)] == [1, 2, 1])
            await scenario(Row(offender, middle, end, ears))

    run(with_hosts, seconds=60)


def message(source: bytes, data: bytes, number: int, topics: tuple[str, ...] = (TOPIC,)) -> Any:
    return rpc_pb2.Message(
        from_id=source, data=data, seqno=number.to_bytes(8, "big"), topicIDs=list(topics), signature=bytes(64)
    )


def signed(name: str, data: bytes, number: int) -> Any:
    """A message whose source is the peer of this name, whoever sends it on."""
    keys = create_new_key_pair(seed(name))
    made = rpc_pb2.Message(
        from_id=ID.from_pubkey(keys.public_key).to_bytes(), data=data, seqno=number.to_bytes(8, "big"), topicIDs=[TOPIC]
    )
    made.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString())
    made.key = keys.public_key.serialize()
    return made


def beat(name: str, at_ms: int) -> bytes:
    return heartbeat(SigningKey.from_seed(seed(name)), OPEN_SWARM_ID, at_ms, ADVERT, 1, 0)


def test_a_message_in_anothers_name_is_neither_heard_nor_passed_on_and_costs_its_forwarder_dearly() -> None:
    async def scenario(row: Row) -> None:
        for number in range(2):
            await row.inject(message(row.end.peer, b"not mine", number))
        await until(lambda: row.fate("forged") == 2)
        assert row.middle.conduct().offences == {Offence.FORGED.value: 2}
        await gone(row.middle, row.offender.peer)
        assert row.at_middle.heard == row.at_end.heard == []
        assert row.end.peer in row.middle.connected(), "whose name was used has done nothing"

    row(scenario)


def test_malformed_gossip_of_any_kind_is_held_against_its_forwarder() -> None:
    async def scenario(row: Row) -> None:
        own = row.offender.peer
        too_long = bytes(LIMITS.peers.gossip_message_bytes_max + 1)
        await row.inject(message(own, too_long, 1), message(own, b"x", 2, (TOPIC, "other")))
        await until(lambda: row.middle.conduct().offences.get(Offence.INVALID.value, 0) == 2)
        assert row.middle._gossip.score(own) < 0
        assert row.at_middle.heard == row.at_end.heard == []

    row(scenario)


def test_a_heartbeat_that_another_peer_kept_and_sends_again_is_not_passed_on_and_is_its_offence() -> None:
    async def scenario(row: Row) -> None:
        now_ms = time.time_ns() // 1_000_000
        kept = signed("somebody", beat("somebody", now_ms - 60_000), 1)
        newer = signed("somebody", beat("somebody", now_ms), 2)
        await row.inject(kept)
        await until(lambda: row.fate("accepted") == 1)
        await row.inject(newer)
        await until(lambda: row.fate("accepted") == 2)
        row.middle._gossip.pubsub.seen_messages.cache.clear()  # as two minutes later
        await row.inject(kept)
        await until(lambda: row.fate("replayed") == 1)
        assert len(row.at_middle.heard) == 2
        assert row.middle.conduct().offences == {Offence.REPLAYED.value: 1}
        assert row.offender.peer in row.middle.connected()

    row(scenario, validates=True)


def test_a_peer_whose_clock_was_set_back_is_not_heard_for_a_while_and_has_done_nothing_wrong() -> None:
    async def scenario(row: Row) -> None:
        now_ms = time.time_ns() // 1_000_000
        await row.say(beat("offender", now_ms))
        set_back = [beat("offender", now_ms - 60_000 + 1000 * second) for second in range(3)]
        for each in set_back:
            await row.offender.publish(TOPIC, each)
        await row.say(beat("offender", now_ms + 1))  # what was to be passed on before it has been
        assert row.fate("ignored") >= len(set_back)
        assert not set(set_back) & {data for _, data in row.at_end.heard}
        assert row.middle.conduct().offences == {}

    row(scenario, validates=True)


def test_a_record_of_another_author_than_the_gossips_is_not_passed_on() -> None:
    async def scenario(row: Row) -> None:
        now_ms = time.time_ns() // 1_000_000
        await row.say(beat("offender", now_ms))
        await row.publish(beat("somebody", now_ms + 1), lambda: row.fate("invalid") > 0, 10.0)  # not to be muted for it
        await row.say(beat("offender", now_ms + 2))  # what was to be passed on before it has been
        assert beat("somebody", now_ms + 1) not in [data for _, data in row.at_end.heard]

    row(scenario, validates=True)


def test_what_one_source_says_too_fast_is_counted_and_not_passed_on() -> None:
    async def scenario(row: Row) -> None:
        began = trio.current_time()
        await row.say(b"first")
        pubsub = row.offender._gossip.pubsub
        for number in count():  # past the offender's own rate limit
            await pubsub.publish(TOPIC, b"%d" % number)
            await trio.sleep(0.002)  # libp2p's own queue drops the surplus of a burst
            if row.fate("dropped-source-rate") + row.fate("dropped-muted") > 50:
                break
        passed_on = {data for _, data in row.at_end.heard}
        seconds = trio.current_time() - began
        limits = LIMITS.host
        assert len(passed_on) <= limits.gossip_messages_burst_max + limits.gossip_messages_per_second_max * seconds
        assert row.middle.conduct().offences[Offence.GOSSIP_FLOOD.value] > 10
        await assert_echo(row.end, row.middle.peer)

    row(scenario)


def test_our_own_messages_wait_for_their_turn_and_all_arrive() -> None:
    async def scenario(row: Row) -> None:
        await row.say(b"first")
        sent = [b"%d" % number for number in range(LIMITS.host.gossip_messages_burst_max + 4)]
        for each in sent:
            await row.offender.publish(TOPIC, each)
        with trio.move_on_after(15.0):
            await until(lambda: {data for _, data in row.at_end.heard} >= set(sent))
        assert {data for _, data in row.at_end.heard} >= set(sent), row.middle.conduct()
        assert row.offender.conduct().gossip[TOPIC]["published-late"] >= 3
        assert row.middle.conduct().offences == {}

    row(scenario)


def test_whom_gossipsub_scores_below_the_graylist_is_disconnected() -> None:
    async def scenario(row: Row) -> None:
        await row.say(b"first")
        for _ in range(8):
            row.middle._gossip.router.scorer.on_invalid_message(ID(row.offender.peer), TOPIC)
        await gone(row.middle, row.offender.peer)
        assert row.middle.conduct().offences == {Offence.LOW_SCORE.value: 1}

    row(scenario)


def test_control_messages_about_topics_that_a_peer_makes_up_leave_nothing_behind() -> None:
    async def scenario(row: Row) -> None:
        await row.say(b"first")
        rpc = rpc_pb2.RPC()
        for number in range(400):
            rpc.control.ihave.add(topicID=f"made up {number}", messageIDs=[bytes(10)])
            rpc.control.graft.add(topicID=f"made up {number}")
        stream = await row.offender.open_stream(row.middle.peer, PUBSUB, lazy=True)
        await stream.write(encode_varint_prefixed(rpc.SerializeToString()))
        await trio.sleep(0.3)
        router = row.middle._gossip.router
        peers_topics = router.ihave_message_limits.get(ID(row.offender.peer), {})
        assert set(peers_topics) <= {TOPIC}
        await assert_echo(row.end, row.middle.peer)

    row(scenario)


def test_a_peer_that_floods_us_with_frames_is_read_slowly_and_others_are_served() -> None:
    async def scenario(row: Row) -> None:
        stream = await row.offender.open_stream(row.middle.peer, PUBSUB, lazy=True)
        subscription = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid="nonsense")])
        frame = encode_varint_prefixed(subscription.SerializeToString())
        began = trio.current_time()
        with trio.move_on_after(2.0):
            while True:
                await stream.write(frame * 1000)
                with within(1.0):
                    await assert_echo(row.end, row.middle.peer)
        seconds = trio.current_time() - began + 1.0
        reads = LIMITS.host.service_reads_burst_max + seconds * LIMITS.host.service_reads_per_second_max
        held = stream.bytes_out
        assert held <= reads * len(frame) + 2 * INITIAL_WINDOW_BYTES
        with trio.move_on_after(0.1), pytest.raises(StreamLost):
            await stream.read(1)

    row(scenario)


def test_a_small_swarm_keeps_its_heartbeat_and_sends_a_newcomer_the_last_seconds_only() -> None:
    async def scenario() -> None:
        ear = Ear()
        async with (
            open_host(seed("old"), LOOPBACK, HANDLERS, topics=(TOPIC,)) as old,
            open_host(seed("new"), LOOPBACK, HANDLERS, topics=(TOPIC,), on_gossip=ear.hear) as newcomer,
        ):
            router = old._gossip.router
            router.last_health_update, router.network_health_score = 0, 0.3  # as after half a minute nearly alone
            router._update_network_health()
            router._adapt_gossip_parameters()
            assert router.heartbeat_interval == LIMITS.host.gossip_heartbeat_seconds
            for number in range(120):
                await old._gossip.pubsub.publish(TOPIC, b"%d" % number)  # past the rate of our own
                router.mcache.shift()  # what each heartbeat does
            router.mcache.shift = lambda: None  # or on a busy machine the newcomer comes too late for the last one
            await old._gossip.pubsub.publish(TOPIC, b"the last")
            await newcomer.connect(old.addresses()[0])
            await until(lambda: (old.peer, b"the last") in ear.heard)
            await trio.sleep(0.2)  # the rest of them
            assert len(set(ear.heard)) <= router.mcache.window_size
            assert not newcomer.conduct().offences

    run(scenario)
