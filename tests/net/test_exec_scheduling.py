"""The pool as it schedules, with real workers: batches, quotas, shares, deadlines, memory, kill -9."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import trio
from exec_tools import ENDLESS, LIMITS, QUICK, Rig, arrays, blob, open_rig, rounds

from dimnode.exec import orders, pool
from dimnode.exec.estimates import CostRow
from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.orders import Key
from dimnode.exec.queue import OrderQueue
from dimnode.exec.shares import Quota, Quotas
from dimnode.store.costs import CostBook, MeasuredModel

from exec_models import allocating, doubling, mixing, threshold  # isort: skip - its folder is on the path since exec_tools

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with start_zygote() as started:
        yield started


async def warm(rig: Rig, model: bytes, width: int, times: int = 8) -> None:
    """Enough single runs that the pool knows what one costs."""
    for _ in range(times):
        await rig.run(rig.order(model, blob([[0.0] * width]), deterministic=False))


def rows_of(number: int, width: int) -> list[list[float]]:
    return [[float(number)] * width]


def test_orders_that_wait_share_batches_and_each_gets_its_own_answer(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            model = doubling(256)
            await warm(rig, model, 256)
            asked = [rig.order(model, blob(rows_of(number, 256)), deterministic=False) for number in range(200)]
            found = await rig.run(*asked)
            assert [arrays(done.output)["y"][0, 0] for done in found] == [2.0 * number for number in range(200)]
            assert max(int(done.runtime["batch"]) for done in found) > 1
            assert {done.rows for done in found} == {1}
            assert max(int(done.runtime["batch"]) for done in found) <= LIMITS.batch_rows_max

    trio.run(main)


def test_what_asked_for_equal_bits_is_never_batched(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            model = doubling(256)
            await warm(rig, model, 256)
            found = await rig.run(*(rig.order(model, blob(rows_of(number, 256))) for number in range(100)))
            assert {done.runtime["batch"] for done in found} == {1}

    trio.run(main)


def test_nobody_shares_a_batch_with_another_identity(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            model = doubling(256)
            await warm(rig, model, 256)
            asked = [
                rig.order(model, blob(rows_of(number, 256)), deterministic=False, client=bytes([number]))
                for number in range(32)
            ]
            found = await rig.run(*asked)
            assert {done.runtime["batch"] for done in found} == {1}

    trio.run(main)


def test_one_poisonous_input_in_a_batch_fails_alone(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            model = doubling(256)
            await warm(rig, model, 256)
            asked = [rig.order(model, blob(rows_of(number, 256)), deterministic=False) for number in range(64)]
            poison = rig.order(model, blob([[np.nan] * 256]), deterministic=False)
            found = await rig.run(*asked[:30], poison, *asked[30:])
            assert [done.status for done in found].count("failed") == 1
            assert (found[30].status, found[30].code) == ("failed", orders.NOT_FINITE)
            others = found[:30] + found[31:]
            assert [arrays(done.output)["y"][0, 0] for done in others] == [2.0 * number for number in range(64)]

    trio.run(main)


def test_a_model_whose_rows_see_each_other_answers_as_if_alone(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            model = mixing(4)
            await warm(rig, model, 4)
            asked = [rig.order(model, blob(rows_of(number, 4)), deterministic=False) for number in range(100)]
            found = await rig.run(*asked)
            assert all((arrays(done.output)["y"] == 0).all() for done in found), "a row less its own mean"
            assert {done.runtime["batch"] for done in found} == {1}

    trio.run(main)


async def kill_one(rig: Rig, killed: set[int], last: Key) -> None:
    """Kill another worker while orders run; nobody, when all were over before anybody looked."""

    def next_one() -> int:
        stats = rig.pool.stats()
        return next((pid for pid in stats.worker_pids if stats.running and pid not in killed), 0)

    await rig.until(lambda: next_one() or last in rig.outcomes)
    if pid := next_one():
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)


def test_kill_9_of_a_worker_in_a_batch_costs_no_order(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, quotas=Quotas(Quota(queued_max=1000))) as rig:
            model = doubling(4096)
            await warm(rig, model, 4096)
            keys: list[Key] = []
            killed: set[int] = set()
            while len(killed) < 3:
                numbers = range(len(keys), len(keys) + 200)
                asked = [rig.order(model, blob(rows_of(number, 4096)), deterministic=False) for number in numbers]
                keys += [rig.offer(order) for order in asked]
                await kill_one(rig, killed, keys[-1])
            found = [await rig.end_of(key) for key in keys]
            crashed = [done for done in found if done.status == "crashed"]
            assert len(crashed) <= 3, "at most the one that ran alone, per kill"
            for number, done in enumerate(found):
                assert done.status == "crashed" or arrays(done.output)["y"][0, 0] == 2.0 * number
            assert rig.pool.stats().queued == 0

    trio.run(main)


def test_an_identity_has_its_quota_and_others_are_not_refused(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        quotas = Quotas(Quota(queued_max=3))
        async with open_rig(zygote, tmp_path, quotas=quotas) as rig:
            running = rig.offer(rig.order(rounds(), ENDLESS, timeout_seconds=1.0, client=b"a"))
            await rig.until(lambda: rig.pool.stats().running)
            for _ in range(3):
                rig.offer(rig.order(rounds(), QUICK, client=b"a"))
            busy = rig.pool.offer(rig.order(rounds(), QUICK, client=b"a"))
            assert busy is not None
            assert (busy.code, busy.retry_after_ms > 0) == (orders.QUOTA_FULL, True)
            other = rig.offer(rig.order(rounds(), QUICK, client=b"b"))
            assert (await rig.end_of(running)).status == "timeout"
            assert (await rig.end_of(other)).status == "ok"

    trio.run(main)


def test_a_newcomer_displaces_the_last_order_of_whoever_fills_the_room(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(LIMITS, queue_tasks_max=8)) as rig:
            rig.offer(rig.order(rounds(), ENDLESS, timeout_seconds=1.0, client=b"flood"))
            await rig.until(lambda: rig.pool.stats().running)
            flood = [rig.offer(rig.order(rounds(), QUICK, client=b"flood")) for _ in range(8)]
            full = rig.pool.offer(rig.order(rounds(), QUICK, client=b"flood"))
            assert full is not None
            assert full.code == orders.QUEUE_FULL
            newcomer = rig.offer(rig.order(rounds(), QUICK, client=b"new"))
            given_up = await rig.end_of(flood[-1])
            assert (given_up.status, given_up.code) == ("refused", orders.DISPLACED)
            assert (await rig.end_of(newcomer)).status == "ok"
            assert [(await rig.end_of(key)).status for key in flood[:-1]] == ["ok"] * 7

    trio.run(main)


def test_an_order_too_large_to_run_displaces_nobody(zygote: Zygote, tmp_path: Path) -> None:
    limits = replace(LIMITS, input_bytes_max=1000, queue_bytes_max=2000)

    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=limits) as rig:
            rig.offer(rig.order(rounds(), ENDLESS, timeout_seconds=1.0, client=b"first"))
            await rig.until(lambda: rig.pool.stats().running)
            waiting = [rig.offer(rig.order(rounds(), QUICK, client=b"first")) for _ in range(8)]
            large = rig.offer(rig.order(rounds(), blob([0] * 500, "int64"), client=b"other"))
            assert (await rig.end_of(large)).code == orders.INPUT_TOO_LARGE
            assert [(await rig.end_of(key)).status for key in waiting] == ["ok"] * 8

    trio.run(main)


def test_an_order_that_gets_a_worker_just_as_that_was_idle_for_too_long_runs(zygote: Zygote, tmp_path: Path) -> None:
    """Both moments pass while the loop has something else to do."""

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            await rig.run(rig.order(doubling(1), blob([[1]])))
            running = rig.offer(rig.order(rounds(), ENDLESS))
            waiting = rig.offer(rig.order(doubling(1), blob([[2]])))
            for member in rig.pool._crew.members:
                rig.pool._crew._set_deadline(member, trio.current_time())
            assert (await rig.end_of(running)).status == "timeout"
            assert (await rig.end_of(waiting)).status == "ok"

    trio.run(main)


def test_an_order_that_waits_past_its_deadline_is_given_back_unrun(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            running = rig.offer(rig.order(rounds(), ENDLESS, timeout_seconds=200.0))
            await rig.until(lambda: rig.pool.stats().running)
            late = rig.offer(rig.order(rounds(), QUICK, deadline_seconds=0.1))
            patient = rig.offer(rig.order(rounds(), QUICK, deadline_seconds=200.0))
            done = await rig.end_of(late)
            assert (done.status, done.code, done.run_us) == ("refused", orders.TOO_LATE, 0)
            assert running not in rig.outcomes, "at its deadline, not when its turn came"
            assert rig.pool.cancel(running)
            assert (await rig.end_of(patient)).status == "ok"

    trio.run(main)


def test_what_cannot_end_in_time_is_refused_at_the_door(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        slow = blob([600_000], "int64")
        async with open_rig(zygote, tmp_path) as rig:
            (done,) = await rig.run(rig.order(rounds(), slow))
            assert done.status == "ok"
            seconds = done.run_us / 1e6
            never = rig.pool.offer(rig.order(rounds(), slow, deadline_seconds=seconds / 4))
            assert never is not None
            assert (never.code, never.retry_after_ms) == (orders.TOO_LATE, 0)
            for _ in range(3):
                rig.offer(rig.order(rounds(), slow))
            later = rig.pool.offer(rig.order(rounds(), slow, deadline_seconds=seconds * 1.5))
            assert later is not None
            assert later.code == orders.TOO_LATE
            assert later.retry_after_ms > 50

    trio.run(main)


def test_memory_pressure_unloads_the_model_used_longest_ago_and_no_pinned_one(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        limits = replace(LIMITS, memory_look_seconds=0.05)
        async with open_rig(zygote, tmp_path, limits=limits) as rig:
            models = [doubling(1), threshold(1, 0.0), mixing(1)]
            for model in models:
                await rig.run(rig.order(model, blob([[1]])))
            assert rig.pool.stats().workers == 3
            ids = [rig.order(model).model.id for model in models]  # type: ignore[union-attr]
            rig.pool.pin(frozenset(ids[:1]))
            crew = rig.pool._crew
            await rig.until(lambda: all(member.measured_bytes for member in crew.members))
            one = max(member.memory_bytes for member in crew.members)
            crew.ledger.memory_bytes_max = int(one * 2.5)
            await rig.until(lambda: rig.pool.stats().workers == 2)
            assert [state.model for state in rig.pool.stats().members] == [ids[0], ids[2]], "pinned, and used last"
            (done,) = await rig.run(rig.order(models[1], blob([[1]])))
            assert done.status == "ok"

    trio.run(main)


def test_a_worker_is_measured_as_soon_as_its_process_is_known_though_it_was_ready_first(
    zygote: Zygote, tmp_path: Path
) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(doubling(1), blob([[1]])))
            crew = rig.pool._crew
            (member,) = crew.members
            await rig.until(lambda: member.pid)
            pid, member.pid, member.measured_bytes = member.pid, 0, 0
            crew.hear_of_worker(["started", member.token, pid])
            assert member.measured_bytes > 1_000_000

    trio.run(main)


def test_a_model_that_took_more_than_there_is_is_refused_also_after_a_restart(zygote: Zygote, tmp_path: Path) -> None:
    """It gives all of it back before its first answer: nobody who looks then sees it."""
    limits, hungry = replace(LIMITS, memory_look_seconds=0.01), allocating(60_000_000)
    small, large = 128 * 1024**2, 1024**3

    async def life(memory_bytes_max: int, taken: bool) -> None:
        book = CostBook(tmp_path, "this/machine")
        more: dict[str, Any] = {"limits": limits, "memory_bytes_max": memory_bytes_max}
        async with open_rig(zygote, tmp_path, **more) as rig:
            for row in book.models():
                rig.pool.costs.recall(CostRow(*msgspec.structs.astuple(row)))
            order = rig.order(hungry, blob([1.0]))
            busy = rig.pool.offer(order)
            if taken:
                assert busy is None
                assert (await rig.end_of(order.key)).status == "ok"
                assert order.model is not None
                name = order.model.id
                await rig.until(lambda: (rig.pool.costs.memory_bytes(name) or 0) > 240_000_000)
                expected_bytes = rig.pool.costs.memory_bytes(name) or 0
                assert expected_bytes < 700_000_000
                await rig.until(lambda: rig.pool.stats().memory_bytes < expected_bytes // 2)
                busy = rig.pool.offer(rig.order(hungry, blob([1.0])))
            assert busy is not None
            assert (busy.code, busy.retry_after_ms) == (orders.NO_MEMORY, 0), "it will never fit"
            assert "and a model may take 128" in busy.message
            assert rig.pool.stats().refused == {orders.NO_MEMORY: 1}
            (other,) = await rig.run(rig.order(doubling(1), blob([[1]])))
            assert other.status == "ok", "what fits is taken"
            book.keep([MeasuredModel(*row) for row in rig.pool.costs.rows()])

    async def not_now() -> None:
        """It would fit, and somebody else has the machine's memory."""
        async with open_rig(zygote, tmp_path, limits=limits, memory_bytes_max=large) as rig:
            for row in CostBook(tmp_path, "this/machine").models():
                rig.pool.costs.recall(CostRow(*msgspec.structs.astuple(row)))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pool, "machine_bytes", lambda: (large, LIMITS.memory_reserve_bytes + small))
                busy = rig.pool.offer(rig.order(hungry, blob([1.0])))
            assert busy is not None
            assert (busy.code, busy.retry_after_ms >= 1000) == (orders.NO_MEMORY, True)
            assert "this machine has 128 left" in busy.message
            assert (await rig.run(rig.order(hungry, blob([1.0]))))[0].status == "ok", "later there is room"

    trio.run(life, small, True)
    trio.run(life, small, False)
    trio.run(not_now)


def threads_of(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids if os.path.exists(f"/proc/{pid}"))


def test_workers_that_compute_have_no_more_threads_than_there_are_cores_however_many_are_loaded(
    zygote: Zygote, tmp_path: Path
) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, workers=8) as rig:
            cores, most = min(os.cpu_count() or 1, 8), 0
            models = [doubling(1), threshold(1, 0.0), mixing(1), allocating(1000), rounds()]
            some = [blob([[1.0]])] * 3 + [blob([1.0]), blob([3000], "int64")]
            keys = [
                rig.offer(rig.order(model, content, client=bytes([place % 3])))
                for place in range(60)
                for model, content in zip(models, some, strict=True)
            ]
            with trio.fail_after(120):
                while len(rig.outcomes) < len(keys):
                    busy = [state.pid for state in rig.pool.stats().members if state.state != "idle" and state.pid]
                    most = max(most, threads_of(busy))
                    assert threads_of(busy) <= cores
                    await trio.sleep(0.001)
            assert {done.status for done in rig.outcomes.values()} == {"ok"}
            assert most >= min(cores, 2), "more than one was used"
            assert len({state.model for state in rig.pool.stats().members}) == len(models), "all are still loaded"

    trio.run(main)


def test_what_a_task_used_is_in_its_outcome(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            quick, long, large = await rig.run(
                rig.order(rounds(), QUICK),
                rig.order(rounds(), blob([200_000], "int64")),
                rig.order(allocating(60_000_000), blob([1.0])),
            )
            assert 20_000 < long.cpu_us <= 1.05 * long.run_us, "it has one thread"
            assert quick.cpu_us < long.cpu_us / 4
            assert large.rss_bytes - quick.rss_bytes > 200_000_000

    trio.run(main)


def test_what_a_task_used_is_in_its_outcome_also_where_its_worker_did_not_survive_it(
    zygote: Zygote, tmp_path: Path
) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), blob([200_000], "int64")))  # what others used is not its own
            ended = [*await rig.run(rig.order(rounds(), ENDLESS, timeout_seconds=1.0))]
            await rig.run(rig.order(rounds(), QUICK))
            (pid,) = await rig.pids()
            running, before = rig.offer(rig.order(rounds(), ENDLESS)), psutil.Process(pid).cpu_times().user
            await rig.until(lambda: psutil.Process(pid).cpu_times().user > before + 0.2)
            os.kill(pid, signal.SIGKILL)
            ended.append(await rig.end_of(running))
            assert [done.status for done in ended] == ["timeout", "crashed"]
            for done in ended:
                assert 100_000 < done.cpu_us <= 1.05 * done.run_us, "it has one thread"
                assert 10_000_000 < done.rss_bytes < 500_000_000

    trio.run(main)


def test_a_model_is_loaded_on_request_and_answers_warm(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            done = await rig.pool.run(rig.order(doubling(1), op="load"))
            assert (done.status, rig.outcomes) == ("ok", {})
            assert rig.pool.stats().workers == 1
            broken = await rig.pool.run(rig.order(b"junk", op="load"))
            assert (broken.status, broken.code) == ("failed", orders.NOT_ONNX)
            rig.pool.draining = True
            no = await rig.pool.run(rig.order(doubling(1), op="load"))
            assert (no.status, no.code) == ("refused", orders.DRAINING)

    trio.run(main)


def test_an_order_of_the_nodes_own_that_is_called_off_is_still_nobody_elses(zygote: Zygote, tmp_path: Path) -> None:
    """Ctrl-C in the first benchmark, or one that took too long: the performer knew no such key, and ended the node."""

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            async with trio.open_nursery() as nursery:
                for _ in range(3):  # one runs, two wait
                    nursery.start_soon(rig.pool.run, rig.order(rounds(), ENDLESS))
                await rig.until(lambda: rig.pool.stats().running == 1 and rig.pool.stats().queued == 2)
                nursery.cancel_scope.cancel()
            await rig.run(rig.order(doubling(1), blob([[1]])))
            assert [done.status for done in rig.outcomes.values()] == ["ok"]

    trio.run(main)


def test_a_flood_of_ten_thousand_orders_does_not_delay_another_identity(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is charged what was expected: one that a busy machine held up would be paid for with a hundred turns."""
    landed = OrderQueue.landed
    monkeypatch.setattr(OrderQueue, "landed", lambda queue, ticket, _: landed(queue, ticket, ticket.charged_seconds))

    async def main() -> None:
        limits = replace(LIMITS, queue_tasks_max=12_000)
        quotas = Quotas(Quota(queued_max=10_000))
        async with open_rig(zygote, tmp_path, limits=limits, quotas=quotas) as rig:
            model = doubling(1)
            entry = blob([[1]])
            await rig.run(rig.order(model, entry))
            for _ in range(10_000):
                rig.offer(rig.order(model, entry, client=b"flood"))
            mine = [rig.offer(rig.order(model, entry, client=b"quiet")) for _ in range(50)]
            for key in mine:
                await rig.end_of(key)
            served = rig.order_of_arrival.index(mine[-1][1])
            # Half of the turns, and what was with the worker already.
            assert served <= 2 * 50 + 2 * LIMITS.worker_inflight_max

    trio.run(main)
