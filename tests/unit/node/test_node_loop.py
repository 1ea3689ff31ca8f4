"""THE loop lets others run while a batch takes long, a pass that began is whole, and people are answered first."""

import logging
import time
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from dimnode.jobs.effects import Append, Effect, Note, Release, Reply, Send
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import Event, Now, TimePassed
from dimnode.limits import LIMITS
from dimnode.node.diary import Diary
from dimnode.node.inbox import Inbox
from dimnode.node.loop import Loop
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId, RecordId, cid_text
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault

EVENTS = LIMITS.jobs.batch_events_max
EACH_SECONDS = 0.003


class SlowEngine:
    """What the loop needs of an engine; each event takes its time and gives one effect."""

    def __init__(self, each_seconds: float) -> None:
        self.each_seconds = each_seconds
        self.handled = 0

    def handle(self, event: Event, now: Now) -> list[Effect]:
        until = time.perf_counter() + self.each_seconds
        while time.perf_counter() < until:
            pass
        self.handled += 1
        return [Note(RecordId(b"job"), "leased", self.handled)]

    def due(self) -> float | None:
        return None


class Bench:
    """A loop with a full batch waiting; `seen` are the effects that it performed."""

    def __init__(self, journal: Journal, each_seconds: float) -> None:
        self.seen: list[Any] = []
        self.engine = SlowEngine(each_seconds)
        self.inbox = Inbox(LIMITS.jobs)
        for _ in range(EVENTS):
            self.inbox.put_local(TimePassed())
        key = SigningKey.from_seed(bytes(32))
        engine = cast(Engine, self.engine)
        self.loop = Loop(engine, self.inbox, journal, Vault(), key, self.seen.append, lambda _: None, LIMITS)


def turns_of_others(bench: Bench, until_handled: int, *, cancel: bool = False) -> int:
    """How often another task ran while the batch was handled."""
    turns = 0

    async def main() -> None:
        nonlocal turns
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.loop.run)
            while bench.engine.handled < until_handled:
                await trio.lowlevel.checkpoint()
                turns += 1
            if not cancel:
                while len(bench.seen) < EVENTS:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    trio.run(main)
    return turns


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    with Journal(tmp_path / "j.db") as opened:
        yield opened


def test_others_run_between_the_events_of_a_batch_that_takes_long(journal: Journal) -> None:
    bench = Bench(journal, EACH_SECONDS)
    assert turns_of_others(bench, EVENTS) >= EVENTS
    assert [note.task for note in bench.seen] == list(range(1, EVENTS + 1))
    assert bench.loop.passes == 1


def test_a_batch_is_handled_to_its_end_also_when_the_node_stops_meanwhile(journal: Journal) -> None:
    bench = Bench(journal, EACH_SECONDS)
    turns_of_others(bench, 2, cancel=True)
    assert bench.engine.handled == EVENTS


def test_people_are_answered_before_peers_and_the_log_comes_last(journal: Journal) -> None:
    job, peer, seen = RecordId(b"job"), PeerId(b"peer"), list[Any]()
    send, note, reply = Send(peer, "ack", (job, 0, 1)), Note(job, "answered"), Reply(None, job, "ok", job, ())
    release, verdict = Release(), Append("verdict", job, (job, 0, 0), b"payload", end="ok")
    bench = Bench(journal, 0.0)
    bench.loop._perform = seen.append
    bench.loop.diary.job_ended(job, "ok")
    bench.loop.diary.write = lambda: seen.append("log")  # type: ignore[method-assign]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.loop.start, [send, verdict, note, reply, release])
            while "log" not in seen:
                await trio.lowlevel.checkpoint()
                if seen and seen[-1] in (reply, release):
                    seen.append("a writer")

    trio.run(main)
    assert seen == [note, reply, "a writer", send, release, "a writer", "log"]


def test_the_diary_writes_each_line_once_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    diary, job = Diary(), RecordId(b"job")
    with caplog.at_level(logging.INFO, "dimnode.node.diary"):
        diary.job_began(job)
        diary.task_ended((job, 3, 1), "ok")
        diary.job_ended(job, "failed")
        assert not caplog.records
        diary.write()
        diary.write()
    found = [(line.getMessage(), vars(line)["job"], vars(line)["status"]) for line in caplog.records]
    name = cid_text(job)
    assert found == [("a job began", name, "open"), ("a task ended", name, "ok"), ("a job ended", name, "failed")]
    assert vars(caplog.records[1])["task"] == 3
