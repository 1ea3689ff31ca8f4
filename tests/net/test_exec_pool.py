"""The pool with real workers: answers, pipelining, priorities, warm models, rows."""

import csv
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio
from exec_tools import ENDLESS, LIMITS, QUICK, arrays, blob, onnx_order, open_rig, rounds

from dimnode.exec import arena, hiring, operations, orders
from dimnode.exec.launch import Hello, Zygote, start_zygote
from dimnode.exec.orders import Condition, Facts, Rows, Take
from dimnode.exec.runtimes import onnx
from dimnode.exec.runtimes.base import one_file
from dimnode.posix import memory

from exec_models import doubling, lookup, threshold  # isort: skip - its folder is on the path since exec_tools

pytestmark = pytest.mark.slow
ASSETS = Path(orders.__file__).parents[1] / "demo" / "assets"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with start_zygote() as started:
        yield started


def test_an_order_is_answered_with_what_was_run_where_and_how_fenced(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            (done,) = await rig.run(rig.order(doubling(), blob([[1, 2, 3], [4, 5, 6]])))
            assert (done.status, done.code, done.rows) == ("ok", "", 2)
            assert arrays(done.output)["y"].tolist() == [[2, 4, 6], [8, 10, 12]]
            assert done.runtime["engine"] == "onnxruntime"
            assert done.runtime["batch"] == 2
            assert done.runtime["determinism"] == "single-thread, optimised fully, alone"
            assert {"landlock", "seccomp", "rlimits"} <= set(done.sandbox.split("+"))
            assert done.run_us > 0
            assert done.queue_us > 0
            assert done.rss_bytes > 1_000_000
            stats = rig.pool.stats()
            assert (stats.queued, stats.running, stats.workers, stats.finished) == (0, 0, 1, {"ok": 1})
        assert list((tmp_path / "scratch").iterdir()) == []

    trio.run(main)


def test_two_hundred_orders_are_pipelined_into_one_worker_in_order(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            found = await rig.run(*(rig.order(doubling(1), blob([[number]])) for number in range(200)))
            assert [arrays(done.output)["y"].tolist() for done in found] == [[[2 * number]] for number in range(200)]
            assert rig.order_of_arrival == list(range(1, 201))
            assert len(await rig.pids()) == 1

    trio.run(main)


def test_a_worker_that_cannot_be_asked_for_leaves_no_folder_and_no_open_file(tmp_path: Path) -> None:
    """The zygote is dead, and the pool has not heard of it yet."""

    async def main() -> None:
        with start_zygote() as lost:
            async with open_rig(lost, tmp_path) as rig:
                order = rig.order(doubling(1), blob([[1]]))
                gc.collect()  # what other tests left open is closed now, and not in between
                before = len(os.listdir("/proc/self/fd"))
                os.kill(lost.pid, signal.SIGKILL)
                os.waitid(os.P_PID, lost.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - before the pool hears of it
                rig.offer(order)
                assert list((tmp_path / "scratch").iterdir()) == []
                assert len(os.listdir("/proc/self/fd")) == before
                done = await rig.end_of(order.key)
                assert (done.status, done.code) == ("crashed", orders.NOT_STARTED)

    trio.run(main)


def test_columns_of_two_sources_reach_the_named_inputs(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            order = rig.order(doubling(2), inputs=(blob([[1]], name="a"), blob([[5, 6, 7, 8]], "float64", name="b")))
            (done,) = await rig.run(replace(order, take=(Take("x", 1, "b", 1, 3),)))
            assert arrays(done.output)["y"].tolist() == [[12, 14]]

    trio.run(main)


@pytest.mark.parametrize("without", [None, "memory written here alone", "memory that is shared"])
def test_inputs_and_outputs_of_megabytes_arrive_whole(
    without: str | None, zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: object) -> None:
        raise OSError("none in this system")

    if without == "memory written here alone":
        monkeypatch.setattr(memory, "written_here_alone", none_here)
    elif without is not None:
        monkeypatch.setattr(hiring, "open_arena", none_here)

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            values = np.arange(3_500_000, dtype=np.float32).reshape(-1, 2)
            small, large, after = await rig.run(
                rig.order(doubling(2), blob([[1, 2]])),
                rig.order(doubling(2), blob(values)),
                rig.order(doubling(2), blob([[3, 4]])),
            )
            assert np.array_equal(arrays(large.output)["y"], values * 2)
            assert arrays(small.output)["y"].tolist() == [[2, 4]]
            assert arrays(after.output)["y"].tolist() == [[6, 8]]

    trio.run(main)


def test_a_worker_that_is_ended_while_its_order_is_copied_leaves_nothing_behind(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, may = threading.Event(), threading.Event()
    stock = np.copyto

    def slow(*pair: object) -> None:
        copying.set()
        assert may.wait(60)
        stock(*pair)  # type: ignore[arg-type]

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            values = np.arange(3_500_000, dtype=np.float32).reshape(-1, 2)
            await rig.run(rig.order(doubling(2), blob([[1, 2]])))
            gc.collect()
            before = len(os.listdir("/proc/self/fd"))
            with monkeypatch.context() as patch:
                patch.setattr(arena.np, "copyto", slow)
                key = rig.offer(rig.order(doubling(2), blob(values)))
                await rig.until(copying.is_set)
                rig.pool.cancel(key)
                await rig.until(lambda: rig.pool.stats().workers == 0)
                may.set()
            (done,) = await rig.run(rig.order(doubling(2), blob(values)))
            assert np.array_equal(arrays(done.output)["y"], values * 2)
            await rig.until(lambda: len(os.listdir("/proc/self/fd")) == before)

    trio.run(main)


def test_more_than_the_socket_holds_waits_without_blocking_the_node(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            values = np.arange(25_000, dtype=np.float32).reshape(-1, 1)
            await rig.run(rig.order(doubling(1), blob([[1]])))
            found = await rig.run(*(rig.order(doubling(1), blob(values + number)) for number in range(40)))
            for number, done in enumerate(found):
                assert np.array_equal(arrays(done.output)["y"], (values + number) * 2)

    trio.run(main)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"inputs": (blob([[np.nan, 1, 2]]),)}, orders.NOT_FINITE, "input has NaN"),
        ({"inputs": (blob([[1, 2]]),)}, orders.BAD_SHAPE, "expected shape [any, 3], got [1, 2]"),
        ({"inputs": ()}, orders.NO_TENSOR, "has no tensor of its name"),
        ({"inputs": (b"junk",)}, orders.BAD_INPUT, "not a tensors/1 blob"),
        ({"model": onnx_order(Path(__file__), 64 * "0")}, orders.WRONG_HASH, "not 0000"),
        ({"model": onnx_order(Path("/nowhere/m.onnx"), 64 * "0")}, orders.NO_MODEL, "No such file"),
        ({"op": "train"}, orders.BAD_ORDER, "unknown operation"),
    ],
)
def test_a_bad_order_fails_with_its_reason_and_the_next_one_runs(
    zygote: Zygote, tmp_path: Path, change: dict[str, object], code: str, words: str
) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            good = rig.order(doubling(), blob([[1, 2, 3]]))
            bad = replace(good, key=(b"bad", 0, 1), **change)  # type: ignore[arg-type]
            failed, fine = await rig.run(bad, good)
            assert (failed.status, failed.code, failed.output) == ("failed", code, b"")
            assert words in failed.message
            assert fine.status == "ok"

    trio.run(main)


def test_high_priority_overtakes_what_has_not_started(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            first = rig.order(rounds(), ENDLESS, timeout_seconds=0.3)
            low = rig.order(rounds(), QUICK, priority="low")
            high = rig.order(rounds(), QUICK, priority="high")
            await rig.run(first, low, high)
            assert rig.order_of_arrival == [first.key[1], high.key[1], low.key[1]]

    trio.run(main)


def test_a_full_queue_says_when_to_come_back_and_keeps_its_promises(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(LIMITS, queue_tasks_max=5)) as rig:
            taken = [rig.order(doubling(1), blob([[number]])) for number in range(6)]
            keys = [rig.offer(order) for order in taken]
            busy = rig.pool.offer(rig.order(doubling(1), blob([[9]])))
            assert busy is not None
            assert busy.code == orders.QUEUE_FULL
            assert busy.retry_after_ms > 0
            again = rig.pool.offer(taken[0])
            assert again is not None
            assert again.code == orders.ALREADY_HERE
            assert {(await rig.end_of(key)).status for key in keys} == {"ok"}

    trio.run(main)


def test_a_worker_serves_one_model_and_two_models_share_one_place(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        limits = replace(LIMITS, worker_tenure_seconds=0.05, workers_loaded_max=1)
        async with open_rig(zygote, tmp_path, limits=limits) as rig:
            one, two = doubling(1), threshold(1, 0.0)
            mixed = [rig.order(model, blob([[number]])) for number in range(60) for model in (one, two)]
            found = await rig.run(*mixed)
            assert {done.status for done in found} == {"ok"}
            assert {name for done in found for name in arrays(done.output)} == {"y", "label"}
            assert rig.pool.stats().workers == 1

    trio.run(main)


def test_an_idle_worker_is_ended(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(LIMITS, worker_idle_seconds_max=0.05)) as rig:
            await rig.run(rig.order(doubling(1), blob([[1]])))
            await rig.until(lambda: rig.pool.stats().workers == 0)
            (done,) = await rig.run(rig.order(doubling(1), blob([[1]])))
            assert done.status == "ok"

    trio.run(main)


def test_a_queued_order_is_cancelled_at_once_and_never_runs(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            running = rig.offer(rig.order(rounds(), ENDLESS, timeout_seconds=0.5))
            waiting = rig.offer(rig.order(rounds(), QUICK))
            assert rig.pool.cancel(waiting)
            assert not rig.pool.cancel(waiting)
            assert waiting not in rig.outcomes, "cancel never calls back"
            assert (await rig.end_of(waiting)).status == "cancelled"
            assert rig.pool.stats().queued == 0
            assert (await rig.end_of(running)).status == "timeout"
            assert not rig.pool.cancel((b"unknown", 0, 0))

    trio.run(main)


def test_cancelling_the_running_order_frees_the_worker_for_the_next(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            running = rig.offer(rig.order(rounds(), ENDLESS))
            behind = [rig.offer(rig.order(rounds(), QUICK)) for _ in range(3)]
            assert rig.pool.cancel(running)
            assert (await rig.end_of(running)).status == "cancelled"
            assert [(await rig.end_of(key)).status for key in behind] == ["ok"] * 3

    trio.run(main)


def write_csv(path: Path, matrix: np.ndarray, labels: np.ndarray) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"f{index}" for index in range(matrix.shape[1])), "label"])
        writer.writerows([*row, label] for row, label in zip(matrix.tolist(), labels.tolist(), strict=True))
    return path


def test_operations_over_rows_equal_the_direct_computation(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        rng = np.random.default_rng(11)
        matrix, labels = rng.normal(size=(700, 4)).round(3), rng.integers(0, 2, 700)
        path = write_csv(tmp_path / "rows.csv", matrix, labels)
        rows = Rows(str(path), "label", ("f3",), (Condition("f0", "le", 500_000),))
        keep = matrix[:, 0] <= 0.5
        async with open_rig(zygote, tmp_path, workers=2) as rig:
            evaluated, means, count = await rig.run(
                rig.order(threshold(3, 0.1), op="evaluate", rows=rows),
                rig.order(op="statistics", rows=rows),
                rig.order(op="cohort", rows=rows),
            )
            predicted = (matrix[:, :3].astype(np.float32).sum(axis=1) > 0.1).astype(int)
            expected = [[int(((labels == a) & (predicted == p) & keep).sum()) for p in (0, 1)] for a in (0, 1)]
            assert arrays(evaluated.output)["counts"].tolist() == expected
            assert evaluated.rows == means.rows == count.rows == keep.sum()
            assert np.allclose(arrays(means.output)["mean"], matrix[keep, :3].mean(axis=0))
            assert means.runtime["engine"] == "dimnode"
            assert arrays(count.output)["mask"].astype(bool).tolist() == keep.tolist()

    trio.run(main)


def test_the_demos_model_over_the_demos_rows_gives_the_same_counts_in_and_out_of_a_worker(
    zygote: Zygote, tmp_path: Path
) -> None:
    model, path = (ASSETS / "models" / "classifier-mlp.onnx").read_bytes(), ASSETS / "wdbc.csv"
    rows = Rows(str(path), "diagnosis", ("patient", "seen_in_training"), (Condition("seen_in_training", "eq", 0),))
    with path.open(encoding="utf-8-sig", newline="") as stream:
        direct = operations.evaluate(onnx.load(one_file(model), Facts()), rows, stream, LIMITS)

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            (done,) = await rig.run(rig.order(model, op="evaluate", rows=rows))
            assert (done.status, done.output, done.rows) == ("ok", direct.output, direct.rows)

    trio.run(main)


def test_a_worker_that_saw_rows_with_a_foreign_model_serves_nobody_else(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        rows = Rows(str(write_csv(tmp_path / "r.csv", np.ones((5, 2)), np.ones(5, dtype=int))), "label")
        async with open_rig(zygote, tmp_path) as rig:
            model = threshold(2, 0.0)
            evaluated, inferred = await rig.run(
                rig.order(model, op="evaluate", rows=rows), rig.order(model, blob([[1, 1]]))
            )
            assert (evaluated.status, inferred.status) == ("ok", "ok")
            pids = await rig.pids()
            (again,) = await rig.run(rig.order(model, op="evaluate", rows=rows))
            assert again.status == "ok"
            assert await rig.pids() == pids, "the other one is still loaded"

    trio.run(main)


def test_faults_over_rows_quote_nothing_from_the_file(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        secret = write_csv(tmp_path / "r.csv", np.array([[4711.0]]), np.array([0]))
        async with open_rig(zygote, tmp_path) as rig:
            failed, missing, pipe = await rig.run(
                rig.order(lookup(), op="evaluate", rows=Rows(str(secret), "label")),
                rig.order(op="cohort", rows=Rows(str(tmp_path / "none.csv"), "label")),
                rig.order(op="cohort", rows=Rows("/dev/null", "label")),
            )
            assert (failed.code, missing.code, pipe.code) == (
                orders.RUN_FAILED,
                orders.NO_ROWS_FILE,
                orders.NO_ROWS_FILE,
            )
            assert "4711" not in failed.message
            assert failed.output == b""

    trio.run(main)


def test_offers_are_refused_while_a_required_wall_is_missing(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            whole = zygote.hello
            zygote.hello = Hello(layers=frozenset({"rlimits", "seccomp"}))
            busy = rig.pool.offer(rig.order(doubling(1), blob([[1]])))
            zygote.hello = whole
            assert busy is not None
            assert (busy.code, busy.retry_after_ms) == (orders.NO_SANDBOX, 0)
            assert "seccomp+rlimits" in busy.message

    trio.run(main)


def test_neither_zygote_nor_worker_imports_the_network_or_keys() -> None:
    code = (
        "import sys; from dimnode.exec import zygote; zygote.import_everything(zygote.runtime_of(sys.argv[1]));"
        "print([m for m in sys.modules if m.split('.')[0] in ('libp2p', 'trio', 'cryptography', 'nacl', 'sqlite3')"
        " or m.startswith(('dimnode.p2p', 'dimnode.store', 'dimnode.jobs', 'dimnode.node'))])"
    )
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code, "onnx"], capture_output=True, text=True, env=environment, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_zygote_has_one_thread_and_none_of_the_nodes_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIM_TOKEN", "secret")

    def look(zygote: Zygote) -> tuple[int, bytes]:
        return len(os.listdir(f"/proc/{zygote.pid}/task")), Path(f"/proc/{zygote.pid}/environ").read_bytes()

    async def main(zygote: Zygote) -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(doubling(1), blob([[1]])))
            threads, environment = look(zygote)
            assert threads == 1
            assert b"secret" not in environment

    with start_zygote() as zygote:
        trio.run(main, zygote)
