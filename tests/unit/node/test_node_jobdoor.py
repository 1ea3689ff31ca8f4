"""Jobs of strangers: one place for each job until it is over, however many streams wait for it and however they end."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from trio.testing import wait_all_tasks_blocked

from dimnode.errors import Refused
from dimnode.jobs.effects import Refuse
from dimnode.limits import LIMITS
from dimnode.wire import pack_frame
from tests.unit.node.jobdoor_stage import Line, Room, Stranger, on_stage

PEERS = LIMITS.peers


def limits(**changes: Any) -> Any:
    return replace(LIMITS, peers=replace(PEERS, **changes))


SMALL_HOUSE = limits(foreign_bytes_max=3 * 1024 * 1024, foreign_reading_bytes_max=1024 * 1024)
LARGE_ROWS = 60  # 60 kB: as much of it as a full frame is of the usual bound


def code_of(line: Line) -> str:
    return str(line.said[1]) if line.said and line.said[0] == "refused" else ""


def test_a_submitter_whose_link_breaks_again_and_again_still_gets_the_end_of_its_one_job(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonce = Stranger(), os.urandom(16)
        for _ in range(2 * PEERS.foreign_jobs_per_peer):
            (await room.open(stranger, stranger.request(nonce))).lose()
        last = await room.open(stranger, stranger.request(nonce))
        assert code_of(last) == ""
        assert len({id(event.token) for event in room.submitted}) == 1, "the engine knows one client"
        await room.end(room.submitted[0])
        assert last.said[:2] == ["ended", "ok"]

    on_stage(tmp_path, act)


def test_a_broken_stream_is_left_at_once_and_its_job_keeps_its_place(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger = Stranger()
        line = await room.open(stranger, stranger.request())
        line.lose()
        await wait_all_tasks_blocked()
        assert line.over
        other = await room.open(stranger, stranger.request())
        assert code_of(other) == "E-jobs-01"
        await room.end(room.submitted[0])
        assert code_of(await room.open(stranger, stranger.request())) == "", "the job is over, and its place is free"

    on_stage(tmp_path, act, limits(foreign_jobs_per_peer=1))


def test_of_too_many_streams_for_one_job_the_oldest_is_sent_away(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonce = Stranger(), os.urandom(16)
        most = PEERS.foreign_streams_per_job
        lines = [await room.open(stranger, stranger.request(nonce)) for _ in range(most + 1)]
        assert [code_of(line) for line in lines] == ["E-jobs-12"] + [""] * most
        await room.end(room.submitted[0])
        assert [line.said[0] for line in lines] == ["refused"] + ["ended"] * most

    on_stage(tmp_path, act)


def test_who_finished_its_side_waits_on_and_who_says_more_than_a_job_does_too(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger = Stranger()
        lines = [await room.open(stranger, stranger.request()) for _ in range(2)]
        lines[0].finished = True
        lines[0].send(b"")
        lines[1].send(b"more")
        await wait_all_tasks_blocked()
        for event in room.submitted:
            await room.end(event)
        assert [line.said[:2] for line in lines] == [["ended", "ok"]] * 2

    on_stage(tmp_path, act)


def test_all_who_wait_for_a_job_that_is_not_taken_hear_why_and_it_holds_nothing(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonce = Stranger(), os.urandom(16)
        lines = [await room.open(stranger, stranger.request(nonce)) for _ in range(2)]
        token: Any = room.submitted[0].token
        token.refused(Refuse(token, room.submitted[0].job, "E-jobs-04", "nobody offers it"))
        await wait_all_tasks_blocked()
        assert [code_of(line) for line in lines] == ["E-jobs-04"] * 2
        assert room.door.held == (0, 0, 0)

    on_stage(tmp_path, act)


def test_a_job_whose_inputs_do_not_fit_holds_nothing_and_may_be_mended(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonce = Stranger(), os.urandom(16)

        async def wrong(*_: Any) -> None:
            raise Refused("E-input-06", "another shape")

        room.door._check_inputs = wrong  # type: ignore[method-assign]
        assert code_of(await room.open(stranger, stranger.request(nonce))) == "E-input-06"
        assert room.door.held == (0, 0, 0)
        del room.door._check_inputs
        assert code_of(await room.open(stranger, stranger.request(nonce))) == ""
        assert len(room.submitted) == 1

    on_stage(tmp_path, act)


def test_one_strangers_large_jobs_leave_room_for_everybody_elses(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        greedy, other = Stranger(1), Stranger(2)
        lines = [await room.open(greedy, greedy.request(rows=LARGE_ROWS)) for _ in range(PEERS.foreign_jobs_per_peer)]
        refused = [code_of(line) for line in lines].count("E-jobs-01")
        assert 0 < refused < len(lines)
        assert code_of(await room.open(other, other.request(rows=LARGE_ROWS), ip="198.51.100.1")) == ""

    on_stage(tmp_path, act, SMALL_HOUSE)


def test_one_network_with_many_keys_leaves_room_for_another(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        for number in range(1, 30):
            greedy = Stranger(number)
            await room.open(greedy, greedy.request(rows=LARGE_ROWS), ip=f"192.0.2.{number}")
        other = Stranger(99)
        assert code_of(await room.open(other, other.request(rows=LARGE_ROWS), ip="192.0.2.99")) == "E-jobs-01"
        assert code_of(await room.open(other, other.request(rows=LARGE_ROWS), ip="198.51.100.1")) == ""

    on_stage(tmp_path, act, SMALL_HOUSE)


def begun(size: int = LIMITS.wire.frame_bytes_max) -> bytes:
    """A request of which nothing comes but how long it is."""
    return size.to_bytes(4, "big")


def test_what_is_still_being_read_counts_and_one_network_leaves_room_for_another(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        lines = [await room.open(Stranger(number), begun()) for number in range(1, 41)]
        taken = [line for line in lines if not line.over]
        assert [code_of(line) for line in lines if line.over] == ["E-jobs-01"] * (40 - len(taken))
        assert room.door.held[2] == len(taken) * LIMITS.wire.frame_bytes_max <= PEERS.foreign_reading_bytes_max
        assert not (await room.open(Stranger(99), begun(), ip="198.51.100.1")).over
        for line in taken:
            line.lose()
        await wait_all_tasks_blocked()
        assert not (await room.open(Stranger(50), begun())).over

    on_stage(tmp_path, act)


def test_who_has_all_its_bytes_in_open_jobs_may_still_ask_for_them_again(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonces = Stranger(), [os.urandom(16) for _ in range(PEERS.foreign_jobs_per_peer)]
        lines = [await room.open(stranger, stranger.request(nonce, LARGE_ROWS)) for nonce in nonces]
        taken = [nonce for nonce, line in zip(nonces, lines, strict=True) if not line.over]
        assert len(taken) < len(nonces)
        held = room.door.held[1:]
        for nonce in taken:
            assert not (await room.open(stranger, stranger.request(nonce, LARGE_ROWS))).over
        assert room.door.held[1:] == held

    on_stage(tmp_path, act, SMALL_HOUSE)


def test_a_request_that_breaks_off_or_makes_no_sense_leaves_nothing(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger = Stranger()
        half = await room.open(stranger, stranger.request()[:500])
        assert room.door.held[:2] == (1, 0)
        assert room.door.held[2] > 500
        half.lose()
        await wait_all_tasks_blocked()
        (await room.open(stranger, pack_frame(["no job"]))).lose()
        assert room.door.held == (0, 0, 0)

    on_stage(tmp_path, act)
