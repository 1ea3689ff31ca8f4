"""Three processes, and what is promised when they die: an owner that executes nothing, and two executors."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dimnode.audit.verifier import verify
from dimnode.client import Client, Ended
from dimnode.config import socket_path
from dimnode.errors import NoNode
from dimnode.records.ids import peer_bytes
from dimnode.records.receipt import parse_receipt
from tests.e2e.books import Books, check_receipts
from tests.e2e.harness import JOB_SECONDS, NOISE, Nodes, bounded_client, nonce_of, patient, real_nodes, triage, until
from tests.e2e.stranger import Stranger

pytestmark = pytest.mark.slow
EXECUTORS = ("brio", "cara")
JOBS = int(os.environ.get("DIM_TEST_KILL_JOBS", "200"))
KILLS = int(os.environ.get("DIM_TEST_KILLS", "3"))


@pytest.fixture(scope="module")
def trio_of_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("crashes")
    with real_nodes(folder, {"alba": False, "brio": True, "cara": True}) as nodes:
        nodes.offer(*EXECUTORS)
        yield nodes


@pytest.fixture
def nodes(trio_of_nodes: Nodes) -> Nodes:
    trio_of_nodes.heal()
    return trio_of_nodes


class Batch:
    """Jobs that are submitted at once and watched by a thread, over a connection of its own."""

    def __init__(self, nodes: Nodes, label: str, count: int, peer: str = "") -> None:
        self.ended: dict[int, Ended] = {}
        self.broken = False
        self._client: Client = bounded_client(nodes["alba"].home)
        self._pending = {
            number: self._client.submit(
                triage(peer, label=label), [patient(number)], nonce=nonce_of(label, number), receipt=False
            )
            for number in range(count)
        }
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for number, pending in self._pending.items():
                self.ended[number] = pending.wait(10 * JOB_SECONDS)
        except NoNode:
            self.broken = True
        finally:
            self._client.close()

    def wait(self) -> list[Ended]:
        """Until all have ended, or the owner is gone."""
        self._thread.join()
        return list(self.ended.values())


def test_two_hundred_jobs_survive_executors_that_are_killed_at_random(nodes: Nodes) -> None:
    seed = int(os.environ.get("DIM_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"seed {seed}: {KILLS} kills in {JOBS} jobs")
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(1, JOBS * 4 // 5), KILLS))
    books = Books(nodes["alba"].home)
    before = len(books.accepted())
    batch = Batch(nodes, "kill", JOBS)
    for moment in moments:
        until(lambda m=moment: len(books.accepted()) - before >= m, JOB_SECONDS, f"{moment} answers")
        victim = chance.choice(EXECUTORS)
        nodes[victim].kill()
        nodes.restart(victim)
    ended = batch.wait()
    assert [one.status for one in ended] == ["ok"] * JOBS
    assert len({one.job for one in ended}) == JOBS
    nodes.wait_idle()
    assert books.check_once() >= JOBS
    again = [epoch for rows in books.accepted().values() for _, epoch, _ in rows if epoch > 1]
    print(f"{len(again)} answers of a second epoch or later")
    assert check_receipts(nodes["alba"].client, [one.job for one in ended]) == JOBS


def test_a_killed_owner_takes_up_its_jobs_and_the_answers_that_executors_kept(nodes: Nodes) -> None:
    count = 40
    alba, books = nodes["alba"], Books(nodes["alba"].home)
    began = books.last()
    for name in EXECUTORS:
        nodes[name].pause()  # what the owner sends now arrives when it is dead
    batch = Batch(nodes, "owner", count)
    until(lambda: len(books.records("spec", began)) >= count, JOB_SECONDS, "all jobs are written down")
    assert books.records("lease", began), "and some were given away"
    alba.kill()
    assert batch.wait() == [] and batch.broken
    killed_ms, killed = time.time_ns() // 1_000_000, books.last()
    for name in EXECUTORS:
        nodes[name].resume()
    until(lambda: sum(_unsent(nodes, name, killed_ms) for name in EXECUTORS) > 0, JOB_SECONDS, "a kept answer")
    started_ms = time.time_ns() // 1_000_000
    nodes.restart("alba", linked=False)  # who asks again need not wait until somebody could run it
    batch = Batch(nodes, "owner", count)
    ended = batch.wait()
    assert [one.status for one in ended] == ["ok"] * count
    nodes.wait_idle()
    specs = books.records("spec", began)
    assert {one.job for one in ended} == {spec.id for spec in specs} and len(specs) == count
    kept = [answer for answer in books.records("answer", killed) if answer.payload["at_ms"] < started_ms]
    print(f"{len(kept)} of {count} answers were kept by executors while the owner was dead")
    assert kept
    for answer in kept:
        (row,) = books.accepted()[answer.payload["job"]]
        assert row == (0, answer.payload["epoch"], answer.id)
    books.check_once()
    assert check_receipts(alba.client, [one.job for one in ended]) == count


def test_a_strangers_job_outlives_the_death_of_its_owner(nodes: Nodes) -> None:
    alba, books = nodes["alba"], Books(nodes["alba"].home)
    stranger, began = Stranger(alba), books.last()
    request = stranger.request(patient(77))
    for name in EXECUTORS:
        nodes[name].pause()
    stranger.hand_in(request, lambda: bool(books.records("spec", began)))
    (spec,) = books.records("spec", began)
    alba.kill()
    for name in EXECUTORS:
        nodes[name].resume()
    nodes.restart("alba", linked=False)

    async def ask_again(ask: Callable[[bytes], Any]) -> None:
        word, status, receipt = await ask(request)
        assert (word, status) == ("ended", "ok")
        assert spec.id in parse_receipt(receipt).records
        assert verify(receipt).status == 0

    stranger.run(ask_again)
    nodes.wait_linked()
    nodes.wait_idle()
    assert len(books.records("spec", began)) == 1
    books.check_once()


def _unsent(nodes: Nodes, name: str, since_ms: int) -> int:
    answers = Books(nodes[name].home).records("answer")
    return sum(answer.payload["at_ms"] >= since_ms for answer in answers)


def test_an_answer_journalled_but_never_sent_is_fetched_after_the_restart(nodes: Nodes) -> None:
    brio, books = nodes["brio"], Books(nodes["alba"].home)
    brio.kill()
    nodes.restart("brio", faults="kill-after-commit:answer:1")
    pending = nodes["alba"].client.submit(triage("brio"), [patient(1)])
    brio.wait_died()
    (answer,) = Books(brio.home).records("answer")[-1:]
    assert answer.payload["job"] not in books.accepted()
    nodes.restart("brio")
    ended = pending.wait(JOB_SECONDS)
    assert ended.status == "ok"
    assert answer.payload["job"] == ended.job
    assert books.accepted()[ended.job] == [(0, answer.payload["epoch"], answer.id)]
    nodes.wait_idle()
    assert len([a for a in Books(brio.home).records("answer") if a.payload["job"] == ended.job]) == 1, "it ran once"
    assert check_receipts(nodes["alba"].client, [ended.job]) == 1
    books.check_once()


def test_a_late_answer_of_an_older_epoch_is_kept_and_not_accepted(nodes: Nodes) -> None:
    brio, books = nodes["brio"], Books(nodes["alba"].home)
    brio.kill()
    nodes.restart("brio", faults="kill-after-commit:answer:1")
    began = Books(brio.home).last()
    batch = Batch(nodes, "late", 24)
    brio.wait_died()
    ended = batch.wait()
    assert [one.status for one in ended] == ["ok"] * 24
    late = Books(brio.home).records("answer", began)
    assert late
    nodes.restart("brio")
    nodes.wait_idle()
    for answer in late:
        executor, epoch = books.executor_of(answer.payload["job"])
        assert (executor, epoch) == (peer_bytes(nodes["cara"].peer), answer.payload["epoch"] + 1)
        (verdict,) = [v for v in books.records("verdict") if v.payload["job"] == answer.payload["job"]]
        assert verdict.payload["abandoned"] == [answer.payload["parents"][0]]
    books.check_once()
    check_receipts(nodes["alba"].client, [one.job for one in ended])


def test_leases_of_a_suspended_executor_move_and_its_late_answers_do_not_count(nodes: Nodes) -> None:
    count = 24
    brio, books = nodes["brio"], Books(nodes["alba"].home)
    began = books.last()
    brio.pause()
    paused = time.monotonic()
    batch = Batch(nodes, "stop", count)
    ended = batch.wait()
    seconds = time.monotonic() - paused
    print(f"all answers {seconds:.1f} s after an executor was suspended")
    assert seconds < 6.0 * NOISE
    assert [one.status for one in ended] == ["ok"] * count
    leases = [lease for lease in books.records("lease", began) if lease.payload["executor"] == peer_bytes(brio.peer)]
    assert leases, "it was given some"
    brio.resume()
    nodes.wait_linked()
    nodes.wait_idle()
    cara = peer_bytes(nodes["cara"].peer)
    assert {books.executor_of(lease.payload["job"]) for lease in leases} == {(cara, 2)}
    books.check_once()
    check_receipts(nodes["alba"].client, [one.job for one in ended])


def test_a_killed_peer_is_noticed_and_leaves_no_process_behind(nodes: Nodes) -> None:
    cara = nodes["cara"]
    assert nodes["alba"].client.run(triage("cara"), [patient(2)], timeout_seconds=JOB_SECONDS).status == "ok"
    assert len(cara.family()) >= 2, "a zygote and a worker"
    began = time.monotonic()
    cara.kill()
    until(lambda: "cara" not in nodes["alba"].linked(), 3.0 * NOISE, "the owner sees that a peer is gone")
    noticed = time.monotonic() - began
    until(lambda: not cara.family(), 2.0 * NOISE, "zygote and workers are gone")
    print(f"noticed after {noticed:.2f} s, its workers gone after {time.monotonic() - began:.2f} s")


def test_ctrl_c_ends_a_node_at_once_without_process_or_socket(nodes: Nodes) -> None:
    brio = nodes["brio"]
    assert nodes["alba"].client.run(triage("brio"), [patient(3)], timeout_seconds=JOB_SECONDS).status == "ok"
    assert len(brio.family()) >= 2
    assert socket_path(brio.home).is_socket()
    logged = len(brio.log.read_bytes())
    seconds = brio.interrupt()
    print(f"ended {seconds:.2f} s after Ctrl-C")
    assert seconds < 1.0 * NOISE
    assert brio.process is not None and brio.process.returncode == 0
    until(lambda: not brio.family(), 2.0 * NOISE, "zygote and workers are gone")
    assert not socket_path(brio.home).exists()
    assert b"Traceback" not in brio.log.read_bytes()[logged:]
    until(lambda: "brio" not in nodes["alba"].linked(), 3.0 * NOISE, "the owner sees that it has left")
