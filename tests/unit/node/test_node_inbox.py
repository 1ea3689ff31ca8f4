"""The inbox: what finishes work first, fairness among clients, bounds, and nothing lost."""

from collections import Counter
from dataclasses import replace

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.limits import LIMITS
from dimnode.node.inbox import Inbox

SMALL = replace(LIMITS.jobs, batch_events_max=4, inbox_events_max=6)


def run(scenario) -> None:
    async def bounded() -> None:
        with trio.fail_after(60):
            await scenario()

    trio.run(bounded)


def test_own_results_come_before_peers_and_peers_before_doors() -> None:
    async def scenario() -> None:
        inbox = Inbox(SMALL)
        await inbox.put_door("client", "door")
        await inbox.put_peer("peer")
        inbox.put_local("own")
        assert len(inbox) == 3
        assert await inbox.drain(None) == ["own", "peer", "door"]

    run(scenario)


def test_a_batch_is_bounded_and_the_rest_stays() -> None:
    async def scenario() -> None:
        inbox = Inbox(SMALL)
        for number in range(6):
            await inbox.put_peer(number)
        assert await inbox.drain(None) == [0, 1, 2, 3]
        assert await inbox.drain(None) == [4, 5]
        assert inbox.highest == 6

    run(scenario)


def test_a_busy_client_does_not_keep_a_quiet_one_waiting() -> None:
    async def scenario() -> None:
        inbox = Inbox(SMALL)
        for number in range(4):
            await inbox.put_door("busy", ("busy", number))
        await inbox.put_door("quiet", ("quiet", 0))
        assert await inbox.drain(None) == [("busy", 0), ("quiet", 0), ("busy", 1), ("busy", 2)]
        assert await inbox.drain(None) == [("busy", 3)]

    run(scenario)


def test_who_puts_into_a_full_lane_waits_until_there_is_room() -> None:
    async def scenario() -> None:
        inbox, done = Inbox(SMALL), []

        async def put(number: int) -> None:
            await (inbox.put_peer(number) if number % 2 else inbox.put_door(number, number))
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(put, number)
            await trio.testing.wait_all_tasks_blocked()
            assert len(done) == len(inbox) == 12
            got = []
            while len(got) < 40:
                got += await inbox.drain(None)
                await trio.testing.wait_all_tasks_blocked()
                assert len(inbox) <= 12
        assert sorted(got) == list(range(40))

    run(scenario)


def test_a_cancelled_put_leaves_no_event_and_takes_no_ones_place() -> None:
    async def scenario() -> None:
        inbox = Inbox(replace(SMALL, inbox_events_max=1))
        await inbox.put_peer("first")
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0):
                await inbox.put_peer("never")
            nursery.start_soon(inbox.put_peer, "second")
            await trio.testing.wait_all_tasks_blocked()
            assert await inbox.drain(None) == ["first"]
            assert await inbox.drain(None) == ["second"]

    run(scenario)


def test_a_drain_waits_for_an_event_or_for_its_moment() -> None:
    async def scenario() -> None:
        inbox = Inbox(SMALL)
        assert await inbox.drain(trio.current_time() + 0.01) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.put_peer, "event")
            assert await inbox.drain(None) == ["event"]

    run(scenario)


LANES = st.lists(st.tuples(st.sampled_from(["own", "peer", "a", "b", "c"]), st.integers(0, 3)), max_size=60)


@settings(max_examples=40, deadline=None)
@given(puts=LANES)
def test_nothing_is_lost_and_every_lane_keeps_its_order(puts) -> None:
    async def scenario() -> None:
        inbox = Inbox(replace(SMALL, inbox_events_max=3))
        events: dict[str, list[tuple[str, int]]] = {}
        for number, (lane, _) in enumerate(puts):
            events.setdefault(lane, []).append((lane, number))

        async def fill(lane: str) -> None:
            for event in events[lane]:
                if lane == "own":
                    inbox.put_local(event)
                elif lane == "peer":
                    await inbox.put_peer(event)
                else:
                    await inbox.put_door(lane, event)
                await trio.lowlevel.checkpoint()

        got: list[tuple[str, int]] = []
        async with trio.open_nursery() as nursery:
            for lane in events:
                nursery.start_soon(fill, lane)
            while len(got) < len(puts):
                batch = await inbox.drain(None)
                assert 0 < len(batch) <= SMALL.batch_events_max
                got += batch
        assert Counter(got) == Counter(event for lane in events.values() for event in lane)
        for lane, sent in events.items():
            assert [event for event in got if event[0] == lane] == sent

    run(scenario)
