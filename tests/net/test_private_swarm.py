"""Membership on real connections: members work as ever, everybody else gets nothing but the reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from machine import within
from swarm_net import ECHO, TOPIC, Site, found, hasty, invitation, joined, now_ms, run, seed_of, site, until

from dimnode.limits import LIMITS
from dimnode.node.private_swarm import PrivateSwarm
from dimnode.p2p.host.host import DialFailed, StreamLost
from dimnode.p2p.host.multistream import proposal
from dimnode.p2p.member_door import MEMBER
from dimnode.records.envelope import SigningKey
from dimnode.records.kinds import open_record
from dimnode.store.swarm_state import load_state
from dimnode.wire import pack_frame

pytestmark = pytest.mark.slow
PROTOCOLS = ("/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/kad/1.0.0", "/meshsub/1.1.0", "/dim/ping/1", ECHO)


@asynccontextmanager
async def three(folder: Path, psk: bool = False) -> AsyncIterator[tuple[Site, Site, Site]]:
    """The founder anna, and bea and carl who joined; all connected with each other."""
    founder = found(folder, psk=psk)
    text = invitation(founder)
    others = [joined(folder, name, text) for name in ("bea", "carl")]
    async with site(founder) as anna, site(others[0]) as bea, site(others[1]) as carl:
        await bea.host.connect(anna.address)
        await carl.host.connect(anna.address)
        await carl.host.connect(bea.address)
        for each in (anna, bea, carl):
            await until(lambda each=each: len(each.host.connected()) == 2)
            await until(lambda each=each: len(members(each)) == 3)
        yield anna, bea, carl


def members(of: Site) -> list[bytes]:
    assert of.gatekeeper is not None
    return [member.peer for member in of.gatekeeper.swarm.book.members(now_ms())]


def refusals(of: Site) -> dict[str, int]:
    assert of.gatekeeper is not None
    return dict(of.gatekeeper.door.refused)


def test_members_that_never_met_work_together_and_know_of_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (anna, bea, carl):
            assert await bea.echoes(anna.peer)
            assert await bea.echoes(carl.peer)
            await until(lambda: len(anna.host.gossip_neighbours(TOPIC)) == 2)
            await anna.host.publish(TOPIC, b"hello")
            await until(lambda: carl.heard == [b"hello"])
            assert not refusals(anna)

    run(scenario)


def test_an_outsider_gets_no_answer_to_anything_and_hears_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path)
        async with site(founder, limits=hasty(0.5), dht=True) as anna, site(None, "zeno", dht=True) as zeno:
            await zeno.host.connect(anna.address)
            answers: list[str] = []

            async def try_it(protocol: str) -> None:
                try:
                    stream = await zeno.host.open_stream(anna.peer, protocol)
                    await stream.write(b"\x08hello...")
                    answers.append(f"{protocol}: {await stream.read(1)!r}")
                except (DialFailed, StreamLost):
                    return

            async with trio.open_nursery() as nursery:
                for protocol in PROTOCOLS:
                    nursery.start_soon(try_it, protocol)
            assert answers == []
            await until(lambda: not zeno.host.connected())
            await until(lambda: anna.peer in zeno.open_door.turned_away_by)
            assert zeno.open_door.turned_away_by[anna.peer].startswith("E-swarm-10")
            assert (anna.ups, anna.host.connected(), anna.host.dht_peers()) == ([], [], [])
            assert refusals(anna) == {"E-swarm-10": 1}

    run(scenario)


def test_a_member_that_dials_into_the_open_swarm_leaves_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(found(tmp_path)) as anna, site(None, "zeno") as zeno:
            with pytest.raises(DialFailed, match=r"E-swarm-16.*open swarm"):
                await anna.host.connect(zeno.address)
            assert anna.ups == []

    run(scenario)


def test_two_private_swarms_do_not_mix(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(found(tmp_path)) as anna, site(found(tmp_path, "dora")) as dora:
            with pytest.raises(DialFailed, match="E-swarm-16"):
                await dora.host.connect(anna.address)
            assert (refusals(anna), refusals(dora)) == ({"E-swarm-16": 1}, {})
            assert dora.gatekeeper is not None
            assert dora.gatekeeper.door.turned_away_by[anna.peer].startswith("E-swarm-16")

    run(scenario)


def test_before_admission_few_streams_and_bytes_are_taken_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(found(tmp_path)) as anna, site(None, "zeno") as zeno:
            await zeno.host.connect(anna.address)
            connection = zeno.host._dialler.live(next(iter(zeno.host._swarm.connections)))[0].muxed_conn
            streams = [await connection.open_stream() for _ in range(3 * LIMITS.swarm.streams_before_admission_max)]
            for stream in streams:
                await stream.write(b"x")
            await until(lambda: sum(not stream.gone for stream in streams) <= LIMITS.swarm.streams_before_admission_max)
            open_ones = [stream for stream in streams if not stream.gone]
            await open_ones[0].write(bytes(LIMITS.swarm.unread_before_admission_bytes_max))
            await until(lambda: open_ones[0].gone)

    run(scenario)


def test_an_exchange_that_is_broken_or_stops_midway_is_refused_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(found(tmp_path), limits=hasty(2.0)) as anna, site(None, "zeno") as zeno:
            for sent in (
                b"",
                b"\0\0\0\1\xc0",
                pack_frame(["chain", 1, 2, 3]),
                pack_frame(["news", [], []]),
                b"\xff" * 9,
            ):
                await zeno.host.connect(anna.address)
                connection = zeno.host._dialler.live(next(iter(zeno.host._swarm.connections)))[0].muxed_conn
                stream = await connection.open_stream()
                await stream.write(proposal(MEMBER) + sent)
                with within(4.0):
                    await connection.event_closed.wait()
                await until(lambda: not zeno.host.connected())
            assert refusals(anna) == {"E-swarm-18": 5}

    run(scenario)


def test_an_expired_membership_is_disconnected_when_it_expires(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path)
        guest = joined(tmp_path, "bea", invitation(founder, member_ms=7000))
        async with site(founder) as anna, site(guest) as bea:
            await bea.host.connect(anna.address)
            assert await bea.echoes(anna.peer)
            await until(lambda: not (anna.host.connected() or bea.host.connected()))
            assert "E-swarm-13" in refusals(anna) or "E-swarm-13" in refusals(bea)
            with pytest.raises(DialFailed, match="E-swarm-13"):
                await bea.host.connect(anna.address)

    run(scenario)


def test_a_removal_reaches_everybody_cuts_off_at_once_and_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path) as (anna, bea, carl):
            assert anna.gatekeeper is not None
            with within(5.0):
                await anna.gatekeeper.remove(carl.peer, "test")
                for other in (anna, bea):
                    await until(lambda other=other: carl.peer not in other.host.connected())
            assert await bea.echoes(anna.peer), "the others go on"
            await until(lambda: carl.peer not in members(carl) and not carl.host.connected())
            for other in (anna, bea):
                with pytest.raises(DialFailed, match="E-swarm-12"):
                    await carl.host.connect(other.address)
        again = PrivateSwarm.load(tmp_path / "bea", SigningKey.from_seed(seed_of("bea")))
        async with site(again) as bea, site(PrivateSwarm.load(tmp_path / "carl", carl_key())) as carl:
            with pytest.raises(DialFailed, match="E-swarm-12"):
                await carl.host.connect(bea.address)

    run(scenario)


def carl_key() -> SigningKey:
    return SigningKey.from_seed(seed_of("carl"))


def test_a_withdrawn_invite_is_refused_by_a_member_that_only_heard_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path)
        text = invitation(founder)
        late = joined(tmp_path, "late", text)
        early = joined(tmp_path, "bea", text)
        async with site(founder) as anna, site(early) as bea:
            await bea.host.connect(anna.address)
            assert anna.gatekeeper is not None
            assert bea.gatekeeper is not None
            invite = anna.gatekeeper.swarm.book.invites()[0].id
            await anna.gatekeeper.remove(invite, "")
            await until(bea.gatekeeper.swarm.book.removals)
            async with site(late) as newcomer:
                with pytest.raises(DialFailed, match="E-swarm-15"):
                    await newcomer.host.connect(bea.address)

    run(scenario)


def test_with_a_pre_shared_key_removal_rotates_it_for_those_who_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with three(tmp_path, psk=True) as (anna, bea, carl):
            assert anna.gatekeeper is not None
            assert bea.gatekeeper is not None
            assert carl.gatekeeper is not None
            old, net = anna.gatekeeper.keys(), bea.gatekeeper.swarm.book.net
            await anna.gatekeeper.remove(carl.peer, "")
            await until(lambda: len(bea.gatekeeper.keys()) == 2)
            assert bea.gatekeeper.keys() == anna.gatekeeper.keys() != old
            await until(lambda: carl.peer not in bea.host.connected() and not carl.host.connected())
            assert carl.gatekeeper.keys() == old, "the new key is not for who was removed"
            with pytest.raises(DialFailed, match="E-swarm-12"):
                await carl.host.connect(anna.address)
            state = load_state(tmp_path / "bea")
            assert state is not None
            assert open_record(state.swarm).id == net, "the swarm stays the same"
            assert state.keys[0][1] == 0
            assert 0 < state.keys[1][1] - now_ms() <= LIMITS.swarm.key_overlap_ms

    run(scenario)


def test_who_was_away_during_a_rotation_gets_the_new_key_within_the_overlap_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path, psk=True)
        text = invitation(founder)
        away, gone = joined(tmp_path, "bea", text), joined(tmp_path, "carl", text)
        async with site(founder) as anna:
            for swarm in (away, gone):
                async with site(swarm) as other:
                    await other.host.connect(anna.address)
                await until(lambda: not anna.host.connected())
            founder.remove(gone.me, now_ms())
            async with site(away) as bea:
                await anna.host.connect(bea.address)  # with the new key first, then with the old one
                await until(lambda: away.keys(now_ms()) == founder.keys(now_ms()))
                assert await bea.echoes(anna.peer)
            late = PrivateSwarm.load(tmp_path / "carl", gone.key)
            assert late is not None
            founder.state.keys = founder.state.keys[:1]  # the overlap is over
            async with site(late) as carl:
                with pytest.raises(DialFailed, match="E-swarm-30"):
                    await carl.host.connect(anna.address)

    run(scenario)


def test_without_the_pre_shared_key_there_is_no_handshake(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(found(tmp_path, psk=True)) as anna, site(None, "zeno") as zeno:
            with within(LIMITS.host.dial_seconds_max + 1):
                with pytest.raises(DialFailed):
                    await zeno.host.connect(anna.address)
                with pytest.raises(DialFailed, match="E-swarm-30"):
                    await anna.host.connect(zeno.address)
            assert (anna.ups, zeno.ups) == ([], [])

    run(scenario)


def test_a_megabyte_goes_through_a_private_network_and_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path, psk=True)
        guest = joined(tmp_path, "bea", invitation(founder))
        async with site(founder) as anna, site(guest) as bea:
            await bea.host.connect(anna.address)
            stream = await bea.host.open_stream(anna.peer, ECHO)
            blob, got = bytes(range(256)) * 4096, bytearray()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.write, blob)
                while len(got) < len(blob):
                    got += await stream.read(65536)
            assert bytes(got) == blob

    run(scenario)


def test_an_invitation_for_one_machine_is_refused_to_the_second(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder = found(tmp_path)
        text = invitation(founder, uses=1)
        first, second = joined(tmp_path, "bea", text), joined(tmp_path, "carl", text)
        async with site(founder) as anna, site(first) as bea, site(second) as carl:
            await bea.host.connect(anna.address)
            with pytest.raises(DialFailed, match="E-swarm-14"):
                await carl.host.connect(anna.address)
            await until(lambda: anna.host.connected() == [bea.peer])
            await until(lambda: (state := load_state(second.home)) and state.refused.startswith("E-swarm-14"))
        assert not (state := load_state(first.home)) or not state.refused
        third = joined(tmp_path, "carl", invitation(founder, uses=1))
        async with site(founder) as anna, site(third) as carl:
            await carl.host.connect(anna.address)
            await until(lambda: anna.host.connected() == [carl.peer])
            await until(lambda: len(members(carl)) == 3)

    run(scenario)
