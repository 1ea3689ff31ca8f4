"""What effects do where an owner is not to be trusted: leases that come twice, answers asked for long afterwards."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.exec.orders import Busy, Finished, Order
from dimnode.jobs.effects import Run, Send, Stop
from dimnode.limits import LIMITS
from dimnode.node.perform import Performer
from dimnode.p2p.frames import TaskFrame
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid, record_id
from dimnode.records.receipt import Opening
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault

ME, OWNER = (SigningKey.from_seed(bytes([number]) * 32).peer for number in (1, 2))
JOB, MODEL = record_id(b"job"), record_id(b"model")
FILE = blob_cid(b"a file of the model")


@dataclass
class Pool:
    """Takes every order; what is called off is off the desk at once, and reported by the test."""

    offered: list[Order] = field(default_factory=list)

    def offer(self, order: Order) -> Busy | None:
        self.offered.append(order)
        return None

    def cancel(self, key: Any) -> bool:
        return True


class Files:
    """Of the store only who uses what."""

    def __init__(self) -> None:
        self.used: Counter[Cid] = Counter()

    def hold(self, *roots: Cid) -> None:
        self.used.update(roots)

    def release(self, *roots: Cid) -> None:
        self.used.subtract(roots)


@dataclass
class Bench:
    """A performer over a real journal; `sent` are its frames."""

    journal: Journal
    files: Files = field(default_factory=Files)
    vault: Vault = field(default_factory=Vault)
    sent: list[TaskFrame] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    pool: Pool = field(default_factory=Pool)

    def performer(self) -> Performer:
        model = SimpleNamespace(manifest=SimpleNamespace(id=MODEL), order=None, roots=(FILE,))
        registry = SimpleNamespace(access=lambda *_: SimpleNamespace(allowed=True))
        used = SimpleNamespace(used=lambda _: None)
        library: Any = SimpleNamespace(models={MODEL: model}, registry=registry, for_others=used, blobs=self.files)
        uses: Any = SimpleNamespace(now_ms=lambda: 0)
        found = Performer(
            ME,
            self.vault,
            self.journal,
            library,
            uses,
            lambda _, frame: self.sent.append(frame),
            self.events.append,
            lambda _: None,
            1.0,
            LIMITS,
        )
        found.pool = self.pool  # type: ignore[assignment]
        return found


@pytest.fixture
def bench(tmp_path: Path):
    with Journal(tmp_path / "journal.db") as journal:
        yield Bench(journal)


def run(epoch: int = 1) -> Run:
    return Run(
        key=(JOB, 0, epoch),
        lease=record_id(b"lease"),
        owner=OWNER,
        submitter=OWNER,
        op="infer",
        model=MODEL,
        inputs=(),
        take=(),
        cabinet="",
        where=(),
        priority="normal",
        client=OWNER,
        deterministic=False,
        deadline_ms=1000,
    )


def outcome(status: Any) -> Finished:
    return Finished((JOB, 0, 1), status, "", "", b"" if status != "ok" else b"output", 0, 0, 0, 0, 0, {}, "")


def test_a_lease_that_is_called_off_and_comes_again_at_once_leaves_no_file_of_the_model_in_use(bench: Bench) -> None:
    performer = bench.performer()
    for effect in (run(), Stop((JOB, 0, 1)), run()):
        performer.perform(effect)
    assert len(bench.pool.offered) == 2
    performer.finished(outcome("cancelled"))
    assert bench.files.used[FILE] == 1, "the second one runs"
    performer.finished(outcome("ok"))
    assert bench.files.used[FILE] == 0


def test_an_answer_that_the_journal_made_room_of_is_unknown_when_it_is_asked_for(bench: Bench) -> None:
    performer, cid = bench.performer(), Cid(blob_cid(b"output"))
    answer, opening = RecordId(record_id(b"answer")), Opening.of(random.Random(1).randbytes(32), cid)
    rows: Any = {"records": [("answer", answer, JOB, 0, 1, b"envelope")], "blobs": [(cid, b"output")]}
    trio.run(bench.journal.commit, rows)
    send = Send(PeerId(OWNER), "answer", (JOB, 0, 1), (answer,), (opening,))
    performer.perform(send)
    trio.run(bench.journal.drop_blobs, [cid], bench.journal.newest())
    performer.perform(send)
    assert [(frame.what, frame.envelopes, frame.blobs) for frame in bench.sent] == [
        ("answer", (b"envelope",), (b"output",)),
        ("unknown", (), ()),
    ]
