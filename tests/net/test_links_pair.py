"""Links between two real hosts: one stands, it is reported once, and each way to end it is told apart."""

import logging
import time

import pytest
import trio
import trio.testing
from link_stage import SEEDS, linked, linked_again, pair, patient, run, site, soon
from machine import resting

from dimnode.errors import PeerFault
from dimnode.p2p.host.streams import DialFailed, StreamEnded, StreamLost
from dimnode.p2p.links import BLOCKED, LEFT, TASK
from dimnode.p2p.pings import PING, PING_BYTES
from dimnode.wire import END, pack_frame

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dialler", [0, 1])
def test_a_link_stands_after_connect_whichever_side_dials(dialler) -> None:
    async def scenario() -> None:
        async with pair() as sites:
            await sites[dialler].host.connect(sites[1 - dialler].host.addresses()[0])
            for here, there in (sites, reversed(sites)):
                await here.until(lambda here=here: here.notices == [True])
                assert here.links.send(there.peer, pack_frame(b"hello"))
                await there.until(lambda there=there: bool(there.heard))
                assert there.heard == [(here.peer, pack_frame(b"hello")[4:])]
                assert len(here.links.all()) == 1

    run(scenario)


def test_both_may_dial_at_the_same_moment() -> None:
    async def scenario() -> None:
        async with pair() as (a, b), trio.open_nursery() as nursery:

            async def dial(here, there) -> None:
                try:
                    await here.host.connect(there.host.addresses()[0])
                except DialFailed:
                    pass

            nursery.start_soon(dial, a, b)
            nursery.start_soon(dial, b, a)
            while True:
                await a.until(lambda: a.links.get(b.peer) is not None)
                await b.until(lambda: b.links.get(a.peer) is not None)
                a.links.send(b.peer, pack_frame(1))
                with trio.move_on_after(1):
                    await b.until(lambda: bool(b.heard))
                    return
                if not a.host.connected():
                    await a.host.connect(b.host.addresses()[0])

    run(scenario)


async def refused_stream(here, there) -> None:
    """The reset comes at once or with the first read: whichever is first."""
    try:
        stream = await here.host.open_stream(there.peer, TASK)
        await stream.read(1)
    except (StreamLost, StreamEnded):
        return
    raise AssertionError("the stream lives")


def test_only_the_smaller_id_opens_the_link() -> None:
    async def scenario() -> None:
        async with pair() as (smaller, larger):
            await linked(smaller, larger)
            await refused_stream(larger, smaller)
            assert smaller.notices == larger.notices == [True]

    run(scenario)


def test_connections_from_before_the_links_are_linked_when_they_attach() -> None:
    async def scenario() -> None:
        async with site(SEEDS[0], attached=False) as a, site(SEEDS[1]) as b, trio.open_nursery() as nursery:
            await b.host.connect(a.host.addresses()[0])
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert a.links.all() == []
            a.links.attach(a.host, nursery)
            await a.until(lambda: a.notices == [True])
            nursery.cancel_scope.cancel()

    run(scenario)


def test_frames_keep_their_order_and_arrive_together() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            for number in range(500):
                a.links.send(b.peer, pack_frame([number, b"x" * (number * 7)]))
            await b.until(lambda: len(b.heard) == 500)
            assert [body for _, body in b.heard] == [pack_frame([n, b"x" * (n * 7)])[4:] for n in range(500)]

    run(scenario)


def test_a_frame_to_a_peer_without_a_link_is_dropped() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            assert not a.links.send(b.peer, pack_frame(1))
            await linked(a, b)
            link = a.links.get(b.peer)
            link.cut()
            assert not a.links.send(b.peer, pack_frame(1))

    run(scenario)


def test_a_cut_link_is_reported_down_once_on_both_sides_and_takes_its_connection_along() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            a.links.get(b.peer).cut()
            for here in (a, b):
                await here.until(lambda here=here: len(here.notices) > 1)
            await soon(lambda: a.host.connected() == b.host.connected() == [])
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert a.notices == b.notices == [True, False]
            assert a.links.all() == b.links.all() == []

    run(scenario)


def test_after_a_lost_connection_a_new_one_brings_a_new_link() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            for round_number in range(1, 4):
                await a.host.disconnect(b.peer)
                for here in (a, b):
                    await here.until(lambda here=here, n=round_number: len(here.notices) == 2 * n)
                await b.host.connect(a.host.addresses()[0])
                for here in (a, b):
                    await here.until(lambda here=here, n=round_number: len(here.notices) == 2 * n + 1)
            assert a.notices == b.notices == [True, False, True, False, True, False, True]

    run(scenario)


def test_an_end_frame_ends_a_link_cleanly_even_when_the_node_goes_at_once(caplog) -> None:
    async def scenario() -> None:
        async with site(SEEDS[1]) as b:
            async with site(SEEDS[0]) as a:
                await linked(a, b)
                a.links.send(b.peer, pack_frame(b"last words"))
                await a.links.close()
            await b.until(lambda: b.notices == [True, False])
            assert [body for _, body in b.heard] == [pack_frame(b"last words")[4:]]

    with caplog.at_level(logging.INFO, "dimnode.p2p.links"):
        run(scenario)
    assert not [text for text in caplog.messages if "link" in text], "an end that was said is no loss"


def test_nothing_follows_the_end_frame_though_the_node_goes_on_for_a_moment() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            for link in a.links.all():
                link.end()  # queued, and not written yet
            assert not a.links.send(b.peer, pack_frame(b"a word too many"))
            await b.until(lambda: not b.notices[-1])
            assert (b.links.parting(a.peer), b.heard) == (LEFT, [])

    run(scenario)


def test_the_end_of_a_stream_without_an_end_frame_is_a_fault(caplog) -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            await a.links.get(b.peer).stream.close()
            await b.until(lambda: b.notices == [True, False])

    with caplog.at_level(logging.WARNING, "dimnode.p2p.links"):
        run(scenario)
    assert "link dropped: stream ended without its end frame" in caplog.messages


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", END + b"x", pack_frame(b"refused by the reader")])
def test_a_malformed_frame_drops_only_its_link(raw) -> None:
    async def scenario() -> None:
        async with pair() as (a, b), site(bytes([9]) * 32) as c:
            await linked(a, b)
            await c.host.connect(b.host.addresses()[0])
            await b.until(lambda: len(b.notices) == 2)
            await c.until(lambda: c.notices == [True])

            def fault(body: bytes) -> None:
                if b"refused" in body:
                    raise PeerFault("as asked")

            b.fault = fault
            a.links.send(b.peer, raw)
            await b.until(lambda: b.notices == [True, True, False])
            c.links.send(b.peer, pack_frame(b"still here"))
            await b.until(lambda: bool(b.heard))
            assert b.heard == [(c.peer, pack_frame(b"still here")[4:])]

    run(scenario)


def test_a_peer_that_reads_nothing_is_cut_off_at_the_bound_though_it_answers_pings() -> None:
    async def scenario() -> None:
        async def never_read(stream) -> None:
            await trio.sleep_forever()

        limits = patient(link_outgoing_bytes_max=4 * 2**20)
        async with pair(limits, task=never_read) as (a, b):
            await a.host.connect(b.host.addresses()[0])
            await a.until(lambda: a.notices == [True])
            frame, sent = pack_frame(bytes(2**20 - 64)), 0
            while a.links.send(b.peer, frame):
                sent += 1
                assert sent < 20
                await trio.testing.wait_all_tasks_blocked(0.01)
            await a.until(lambda: a.notices == [True, False])
            assert a.links.parting(b.peer) == "it did not read what we sent", "the pings were not needed for it"
            assert a.links.all() == []

    run(scenario)


def test_a_silent_peer_is_noticed_within_three_seconds() -> None:
    async def scenario() -> None:
        async def swallow_pings(stream) -> None:
            while True:
                await stream.read(PING_BYTES)

        async with pair(ping=swallow_pings) as (a, b):
            await linked(a, b)
            async with resting() as watch:
                await a.until(lambda: a.notices == [True, False])
                assert watch.seconds <= 3.0
            await b.until(lambda: b.notices == [True, False])

    run(scenario)


def test_a_peer_that_pings_no_more_is_noticed_by_the_one_that_waits() -> None:
    async def scenario() -> None:
        async with site(SEEDS[0], attached=False) as a, site(SEEDS[1]) as b:
            await a.host.connect(b.host.addresses()[0])
            await a.host.open_stream(b.peer, TASK)
            ping = await a.host.open_stream(b.peer, PING)
            await b.until(lambda: b.notices == [True])
            started = trio.current_time()
            async with resting() as watch:
                for _ in range(2):
                    await trio.sleep(1.5)  # the test is about this silence
                    await ping.write(b"p" * PING_BYTES)
                await b.until(lambda: b.notices == [True, False])
                assert trio.current_time() - started > 6.0
                assert watch.seconds < 7.5

    run(scenario)


def test_a_healthy_link_measures_its_round_trip_and_stays() -> None:
    async def scenario() -> None:
        async with pair(patient(ping_interval_seconds=0.05, ping_wait_seconds=1.0)) as (a, b):
            await linked(a, b)
            await trio.sleep(4)  # more than twice the patience of either side
            await soon(lambda: a.links.get(b.peer).rtt_ms < 200)
            assert a.notices == b.notices == [True]

    run(scenario)


def test_both_sides_of_a_link_measure_how_far_the_others_clock_is_ahead() -> None:
    async def scenario() -> None:
        limits = patient(ping_interval_seconds=0.05)
        async with pair(limits, wall_ms=lambda: time.time_ns() // 1_000_000 + 5000) as (a, b):
            await linked(a, b)

            def measured(here, there) -> float:
                return here.links.get(there.peer).clock.ahead_ms or 0.0

            # The measure with the shortest round trip counts: of a busy machine the first ones may be far off.
            await soon(lambda: abs(measured(a, b) - 5000) < 100)
            await soon(lambda: abs(measured(b, a) + 5000) < 100)

    run(scenario)


def test_a_peer_of_an_older_version_that_only_echoes_pings_tells_no_clock() -> None:
    async def scenario() -> None:
        async def echo(stream) -> None:
            while True:
                await stream.write(await stream.read(PING_BYTES))

        async with pair(patient(ping_interval_seconds=0.05), ping=echo) as (a, b):
            await linked(a, b)
            await soon(lambda: a.links.get(b.peer).rtt_ms is not None)
            assert a.links.get(b.peer).clock.ahead_ms is None

    run(scenario)


def test_each_way_to_end_a_link_leaves_its_reason_and_only_a_loss_is_worth_redialling() -> None:
    async def scenario() -> None:
        async with pair() as (a, b):
            await linked(a, b)
            a.links.end_with(b.peer, BLOCKED)
            await b.until(lambda: b.notices == [True, False])
            await a.until(lambda: a.notices == [True, False])
            assert (a.links.parting(b.peer), a.links.was_lost(b.peer)) == (BLOCKED, False)
            assert b.links.was_lost(a.peer), b.links.parting(a.peer)
            await soon(lambda: a.host.connected() == b.host.connected() == [])
            await linked_again(a, b)
            await a.links.close()
            await b.until(lambda: not b.notices[-1])
            assert (b.links.parting(a.peer), b.links.was_lost(a.peer)) == (LEFT, False)

    run(scenario)


def test_a_connection_that_brought_no_notice_is_linked_all_the_same() -> None:
    async def scenario() -> None:
        async with site(SEEDS[0], patient(ping_interval_seconds=0.05)) as a, site(SEEDS[1]) as b:
            a.links._opening.add(b.peer)  # as when the notice comes while a link over an older connection is opened
            await b.host.connect(a.host.addresses()[0])
            await soon(lambda: bool(a.host.connected()))
            assert a.notices == []
            a.links._opening.discard(b.peer)
            await a.until(lambda: a.notices == [True])

    run(scenario)


def test_a_stranger_that_opens_two_task_streams_replaces_its_own_link_and_that_one_lives_on() -> None:
    async def scenario() -> None:
        async with site(SEEDS[0], attached=False) as a, site(SEEDS[1]) as b, site(bytes([9]) * 32) as c:
            await c.host.connect(b.host.addresses()[0])
            await b.until(lambda: b.notices == [True])
            await a.host.connect(b.host.addresses()[0])
            first = await a.host.open_stream(b.peer, TASK)
            await b.until(lambda: b.notices == [True, True])
            second = await a.host.open_stream(b.peer, TASK)
            await b.until(lambda: len(b.notices) == 3)
            with pytest.raises(StreamLost):
                await first.read(1)
            await second.write(pack_frame(b"over the second"))
            await b.until(lambda: bool(b.heard))
            assert b.links.get(a.peer) is not None
            assert b.links.get(c.peer) is not None

    run(scenario)


def test_a_replaced_link_does_not_take_the_pings_of_its_successor_with_it() -> None:
    async def scenario() -> None:
        limits = patient(ping_interval_seconds=0.1, ping_wait_seconds=1.0)
        async with site(SEEDS[0], limits, attached=False) as a, site(SEEDS[1], limits) as b:
            await a.host.connect(b.host.addresses()[0])
            ping = await a.host.open_stream(b.peer, PING)
            await a.host.open_stream(b.peer, TASK)
            await b.until(lambda: b.notices == [True])
            await a.host.open_stream(b.peer, TASK)
            await b.until(lambda: b.notices == [True, True])
            for _ in range(25):  # longer than b's patience
                await ping.write(b"p" * PING_BYTES)
                await trio.sleep(0.1)
            assert b.notices == [True, True]
            assert b.links.get(a.peer) is not None

    run(scenario)


def test_a_peer_that_does_not_speak_the_protocol_is_left_and_not_kept_as_a_dead_connection() -> None:
    async def scenario() -> None:
        async with pair(ping=None) as (a, b):
            await a.host.connect(b.host.addresses()[0])
            await b.until(lambda: b.notices == [True, False])
            assert b.links.parting(a.peer) == "its connection broke", "missing pings would show it later"
            await soon(lambda: not a.host.connected())
            assert a.links.all() == b.links.all() == []

    run(scenario)
