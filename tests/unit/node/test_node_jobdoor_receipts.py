"""Receipts of strangers' jobs: a long one arrives whole, is in memory once, and is not made again and again."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dimnode.limits import LIMITS
from dimnode.node.foreign import Foreign
from dimnode.node.receipts import make_receipt
from dimnode.records.ids import RecordId
from tests.unit.node.jobdoor_stage import Line, Room, Stranger, on_stage

PEERS = LIMITS.peers
pytestmark = pytest.mark.slow
LARGE = bytes(3 * 1024 * 1024)
RECORD_BYTES = 200  # at least, of a verdict
MEDIUM = bytes(LIMITS.store.read_in_loop_bytes_max + 1)


def count_made(room: Room) -> Counter[RecordId]:
    made: Counter[RecordId] = Counter()
    make = room.node.long_reads.receipt

    async def counted(job: RecordId) -> bytes:
        made[job] += 1
        return bytes(await make(job))

    room.node.long_reads.receipt = counted
    return made


async def heard(line: Line) -> Any:
    """What it is told in the end; a long receipt is read in a thread, which no count of tasks shows."""
    with trio.fail_after(60):
        while not line.over:
            await trio.lowlevel.checkpoint()
    return line.said


async def ended_job(room: Room, stranger: Stranger, output: bytes, ip: str = "192.0.2.1") -> tuple[RecordId, bytes]:
    """A job that ended, and the request for it: its submitter's streams have broken."""
    request = stranger.request()
    line = await room.open(stranger, request, ip)
    line.lose()
    await wait_all_tasks_blocked()
    assert line.over
    event = room.submitted[-1]
    await room.end(event, output)
    return event.job, request


def test_a_receipt_that_is_longer_than_a_frame_arrives_whole_and_on_each_stream(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        stranger, nonce, made = Stranger(), os.urandom(16), count_made(room)
        lines = [await room.open(stranger, stranger.request(nonce)) for _ in range(PEERS.foreign_streams_per_job)]
        job = room.submitted[0].job
        await room.end(room.submitted[0], LARGE)
        receipt = make_receipt(room.journal, job)
        assert len(receipt) > len(LARGE) > LIMITS.wire.frame_bytes_max
        for line in lines:
            assert await heard(line) == ["ended", "ok", len(receipt), receipt]
        assert made == {job: 1}
        assert room.door.held == (0, 0, 0)

    on_stage(tmp_path, act)


def test_a_stranger_who_asks_for_a_long_receipt_again_and_again_has_it_made_once_in_a_while(tmp_path: Path) -> None:
    clock = MockClock()

    async def act(room: Room) -> None:
        stranger, made = Stranger(), count_made(room)
        job, request = await ended_job(room, stranger, LARGE)
        said = []
        for _ in range(10):
            said.append(await heard(await room.open(stranger, request)))
        assert made == {job: 1}
        assert said[0][0] == "ended"
        assert {tuple(each[:2]) for each in said[1:]} == {("refused", "E-jobs-01")}
        assert 0 < said[-1][3] <= PEERS.foreign_receipt_seconds_min * 1000
        clock.jump(PEERS.foreign_receipt_seconds_min)
        assert (await heard(await room.open(stranger, request)))[0] == "ended"
        short, asked = await ended_job(room, stranger, b"short")
        for _ in range(3):
            assert (await heard(await room.open(stranger, asked)))[0] == "ended"
        assert made == {job: 2, short: 3}

    on_stage(tmp_path, act, clock=clock)


def test_receipts_that_nobody_takes_are_bounded_for_all_and_one_network_leaves_room(tmp_path: Path) -> None:
    async def act(room: Room) -> None:
        asked = []
        for number in range(1, 10):
            stranger = Stranger(number)
            asked.append((stranger, (await ended_job(room, stranger, MEDIUM))[1]))
        other = Stranger(99)
        _, others = await ended_job(room, other, MEDIUM)
        lines = [await room.open(stranger, request, deaf=True) for stranger, request in asked]
        assert 2 * len(MEDIUM) + 2 * RECORD_BYTES <= room.door.held[2] <= 6 * len(MEDIUM)
        assert (await heard(await room.open(other, others, ip="198.51.100.1")))[0] == "ended"
        for line in lines:
            line.listen()
        words = [(await heard(line))[0] for line in lines]
        assert words == ["ended"] * words.count("ended") + ["refused"] * words.count("refused")
        assert 2 <= words.count("ended") <= 6
        assert room.door.held == (0, 0, 0)

    small = replace(LIMITS, peers=replace(PEERS, foreign_receipts_bytes_max=8 * len(MEDIUM)))
    on_stage(tmp_path, act, small)


def test_a_stream_that_broke_just_before_its_job_ended_is_not_answered() -> None:
    async def main() -> None:
        token, line, said = Foreign(1, lambda: None), Line(Stranger().peer), []

        async def wait() -> None:
            said.append(await token.wait(line))  # type: ignore[arg-type]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            line.lose()
            await trio.lowlevel.checkpoint()  # who listens to it has heard, and who waits has not left yet
            token.is_known(RecordId(b"job"))
        assert said == [False]

    trio.run(main)
