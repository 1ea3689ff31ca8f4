"""Models and workers that misbehave: only the order at fault pays, and nothing outlives the node."""

import contextlib
import gc
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio
from exec_tools import ENDLESS, LIMITS, QUICK, Rig, blob, hello_of, open_rig, rounds

from dimnode.exec import landlock, orders, sandbox
from dimnode.exec.channel import FrameBuffer, unpack_body
from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.orders import Order
from dimnode.exec.runtimes.choice import runtime_of
from dimnode.exec.sandbox import Walls
from dimnode.exec.worker import Post, serve

from exec_models import allocating, doubling, external, flooding  # isort: skip - on the path since exec_tools

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
SMALL = replace(LIMITS, output_bytes_max=100_000)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with start_zygote(SMALL) as started:
        yield started


@contextlib.asynccontextmanager
async def stopped(zygote: Zygote, rig: Rig) -> AsyncIterator[None]:
    """It starts nobody, and says nothing."""
    pid = zygote.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await rig.until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_an_endless_model_times_out_and_those_behind_it_run(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            first = await rig.pids()
            spin = rig.order(rounds(), ENDLESS, timeout_seconds=3.0)
            found = await rig.run(spin, *(rig.order(rounds(), QUICK, timeout_seconds=2.5) for _ in range(5)))
            assert [done.status for done in found] == ["timeout"] + ["ok"] * 5
            assert (found[0].code, found[0].message) == (orders.TIMED_OUT, "did not end within 3 s")
            assert found[0].run_us >= 3_000_000
            assert await rig.pids() != first

    trio.run(main)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGXCPU])
def test_a_worker_that_dies_takes_only_the_running_order_with_it(
    zygote: Zygote, tmp_path: Path, number: signal.Signals
) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            (pid,) = await rig.pids()
            running = rig.offer(rig.order(rounds(), ENDLESS))
            behind = [rig.offer(rig.order(rounds(), QUICK)) for _ in range(4)]
            os.kill(pid, number)
            ended = await rig.end_of(running)
            if number == signal.SIGXCPU:
                assert (ended.status, ended.code) == ("timeout", orders.TIMED_OUT)
            else:
                assert (ended.status, ended.code) == ("crashed", orders.CRASHED)
                assert number.name in ended.message
            assert [(await rig.end_of(key)).status for key in behind] == ["ok"] * 4

    trio.run(main)


def test_an_order_is_not_given_to_a_worker_that_died_before_it_came(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(SMALL, exit_report_seconds_max=1000.0)) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            (pid,) = await rig.pids()
            async with stopped(zygote, rig):  # nobody says how it died
                os.kill(pid, signal.SIGKILL)
                await rig.until(lambda: not rig.pool.stats().workers)
            (done,) = await rig.run(rig.order(rounds(), QUICK))
            assert done.status == "ok"

    trio.run(main)


def test_a_memory_bomb_ends_as_memory(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            bomb, fine = await rig.run(
                rig.order(allocating(10_000_000_000), blob([1])), rig.order(doubling(1), blob([[1]]))
            )
            assert (bomb.status, bomb.code) == ("memory", orders.OUT_OF_MEMORY)
            assert fine.status == "ok"

    trio.run(main)


def test_an_output_flood_fails_its_order(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=SMALL) as rig:
            flood, fine = await rig.run(rig.order(flooding(1_000_000), blob([1])), rig.order(rounds(), QUICK))
            assert (flood.status, flood.code) == ("failed", orders.OUTPUT_TOO_LARGE)
            assert fine.status == "ok"

    trio.run(main)


def test_a_worker_that_sends_more_than_it_may_is_ended(zygote: Zygote, tmp_path: Path) -> None:
    """The zygote's workers may send 100 kB; a pool that allows less sees a worker that breaks its bounds."""

    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(SMALL, output_bytes_max=1_000)) as rig:
            flood, fine = await rig.run(rig.order(flooding(20_000), blob([1])), rig.order(rounds(), QUICK))
            assert (flood.status, flood.code) == ("crashed", orders.BROKE_PROTOCOL)
            assert fine.status == "ok"

    trio.run(main)


def test_external_data_beside_the_model_stays_unread(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "weights.bin").write_bytes(b"secret-weights!!")
        async with open_rig(zygote, tmp_path) as rig:
            found = await rig.run(*(rig.order(external(name), blob([0, 0, 0, 0])) for name in ("weights.bin", "../x")))
            assert [(done.status, done.code) for done in found] == [("failed", orders.EXTERNAL_DATA)] * 2

    trio.run(main)


def test_a_model_that_takes_too_long_to_load_is_given_up(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, limits=replace(SMALL, worker_start_seconds_max=0.1)) as rig:
            async with stopped(zygote, rig):  # or a worker may be faster than this test
                (done,) = await rig.run(rig.order(doubling(1), blob([[1]])))
            assert (done.status, done.code) == ("timeout", orders.NOT_STARTED)

    trio.run(main)


def test_a_hundred_workers_that_die_leave_no_descriptor_and_no_process(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path, 2, replace(SMALL, cancel_grace_seconds=0.001)) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(50):
                keys = [rig.offer(rig.order(rounds(), ENDLESS)) for _ in range(2)]
                await rig.until(lambda: len(rig.pool.stats().worker_pids) == rig.pool.stats().workers)
                for key in keys:
                    rig.pool.cancel(key)
                await rig.until(lambda: rig.pool.stats().workers == 0)
            await rig.run(rig.order(rounds(), QUICK))
            await rig.until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
            await rig.until(lambda: len(psutil.Process(zygote.pid).children()) <= 2)

    trio.run(main)


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process can open so many files more, as when strangers' connections have taken the others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_node_without_a_file_left_fails_the_order_and_not_itself(zygote: Zygote, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            entry = blob([[1]])
            asked = [rig.order(doubling(1), entry) for _ in range(9)]
            gc.collect()  # what other tests left open is closed now, and not in between
            before = len(os.listdir("/proc/self/fd"))
            found = []
            for count, order in enumerate(asked):
                with descriptors_left(count):
                    found += await rig.run(order)
                assert order.model is not None
                rig.pool.unload(order.model.id)
                assert rig.pool.stats().workers == 0
                assert len(os.listdir("/proc/self/fd")) == before
            ends = [(done.status, done.code) for done in found]
            assert ends[:3] == [("crashed", orders.NOT_STARTED)] * 3  # the third one has a socket, and no file
            assert set(ends) == {("crashed", orders.NOT_STARTED), ("ok", "")}
            assert found[-1].status == "ok"

    trio.run(main)


def test_a_node_with_more_than_a_thousand_files_open_still_starts_a_zygote(tmp_path: Path) -> None:
    """A zygote keeps the number that its end of the socket has in the node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this system lets nobody open so many files")

    async def main() -> None:
        with start_zygote() as zygote:
            async with open_rig(zygote, tmp_path) as rig:
                (done,) = await rig.run(rig.order(doubling(1), blob([[1]])))
                assert (done.status, zygote.restarts) == ("ok", 0)

    with contextlib.ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1024):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        trio.run(main)


def test_a_dead_zygote_is_replaced_and_the_orders_run(tmp_path: Path) -> None:
    async def main(zygote: Zygote) -> None:
        async with open_rig(zygote, tmp_path) as rig:
            await rig.run(rig.order(rounds(), QUICK))
            old = zygote.pid
            async with stopped(zygote, rig):  # or a worker might be born, and die with an order
                keys = [rig.offer(rig.order(doubling(1), blob([[number]]))) for number in range(10)]
                os.kill(old, signal.SIGKILL)
            assert [(await rig.end_of(key)).status for key in keys] == ["ok"] * 10
            await rig.until(lambda: zygote.pid != old)
            (done,) = await rig.run(rig.order(rounds(), QUICK))
            assert done.status == "ok"

    with start_zygote() as zygote:
        trio.run(main, zygote)


def test_a_zygote_that_keeps_dying_is_given_up_with_a_reason(tmp_path: Path) -> None:
    async def main(zygote: Zygote) -> None:
        async with open_rig(zygote, tmp_path, limits=replace(LIMITS, zygote_restarts_max=0)) as rig:
            waiting = rig.offer(rig.order(rounds(), ENDLESS))
            os.kill(zygote.pid, signal.SIGKILL)
            assert (await rig.end_of(waiting)).code == orders.NO_ZYGOTE
            busy = rig.pool.offer(rig.order(rounds(), QUICK))
            assert busy is not None
            assert busy.code == orders.NO_ZYGOTE

    with start_zygote() as zygote:
        trio.run(main, zygote)


def test_in_chaos_every_order_still_ends_exactly_once(zygote: Zygote, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def main() -> None:
        limits = replace(SMALL, cancel_grace_seconds=0.01, worker_tenure_seconds=0.02, queue_tasks_max=100)
        async with open_rig(zygote, tmp_path, 3, limits) as rig:
            makers: list[Callable[[], Order]] = [
                lambda: rig.order(rounds(), QUICK),
                lambda: rig.order(doubling(1), blob([[1]]), priority=rng.choice(["low", "normal", "high"])),
                lambda: rig.order(doubling(2), blob(np.ones((30_000, 2)))),
                lambda: rig.order(doubling(1), blob([[float("nan")]])),
                lambda: rig.order(rounds(), ENDLESS, timeout_seconds=0.05),
                lambda: rig.order(allocating(10**10), blob([1])),
            ]
            taken, killed = [], set[int]()
            for _ in range(150):
                for _ in range(rng.randrange(4)):
                    order = rng.choices(makers, weights=[9, 9, 2, 2, 1, 1])[0]()
                    if rig.pool.offer(order) is None:
                        taken.append(order.key)
                if rng.random() < 0.1 and taken:
                    rig.pool.cancel(rng.choice(taken))
                pids = rig.pool.stats().worker_pids
                if rng.random() < 0.05 and pids:
                    killed.add(pid := rng.choice(pids))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await trio.sleep(rng.choice([0, 0, 0.002, 0.01]))
            ends = [(await rig.end_of(key)).status for key in taken]
            print(Counter(ends))
            assert len(rig.outcomes) == len(taken)
            await rig.until(lambda: not killed & set(rig.pool.stats().worker_pids))
            after = await rig.run(*(make() for make in makers))
            assert [done.status for done in after] == ["ok", "ok", "failed", "failed", "timeout", "memory"]
            assert (rig.pool.stats().queued, rig.pool.stats().running) == (0, 0)

    trio.run(main)


NODE = """
import sys, trio
from pathlib import Path
sys.path[:0] = [{tools!r}]
from exec_tools import ENDLESS, open_rig, rounds
from dimnode.exec.launch import start_zygote

async def main(zygote):
    async with open_rig(zygote, Path({folder!r}), workers=2) as rig:
        for _ in range(2):
            rig.offer(rig.order(rounds(), ENDLESS))
        pids = await rig.pids(2)
        await rig.until(lambda: rig.pool.stats().running == 2)
        print(zygote.pid, *pids, flush=True)
        await trio.sleep_forever()

zygote = start_zygote()
trio.run(main, zygote)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_when_the_node_is_killed_zygote_and_spinning_workers_are_gone_within_two_seconds(tmp_path: Path) -> None:
    code = NODE.format(tools=str(Path(__file__).parent), folder=str(tmp_path))
    node = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    with node.stdout:
        pids = [int(text) for text in node.stdout.readline().split()]
    assert len(pids) == 3
    assert not any(is_gone(pid) for pid in pids)
    node.kill()
    node.wait()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not all(is_gone(pid) for pid in pids):
        time.sleep(0.01)
    assert [pid for pid in pids if not is_gone(pid)] == []


# ---- the walls themselves, in a child of this test


def walls(folder: Path) -> Walls:
    return Walls(LIMITS.worker_memory_bytes_max, LIMITS.worker_file_bytes_max, 64, str(folder), False)


def inside(raise_walls: Callable[[], object], attempt: Callable[[], object]) -> str:
    """What happens to an attempt in a child behind walls: the name of its error, or "it worked"."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        child = os.fork()
        if child == 0:
            try:
                raise_walls()
                try:
                    attempt()
                    said = "it worked"
                except BaseException as error:
                    said = type(error).__name__
                theirs.sendall(said.encode())
            finally:
                os._exit(0)
        theirs.close()
        said = mine.recv(200).decode()
        os.waitpid(child, 0)
    return said


def attempts(secret: Path) -> dict[str, Callable[[], object]]:
    return {
        "read a secret": secret.read_text,
        "read its own folder": lambda: os.listdir("."),
        "write a file": lambda: open("here", "w"),
        "remove a file": lambda: os.unlink(secret),
        "change rights": lambda: os.chmod(secret, 0o777),
        "read its environment": lambda: open("/proc/self/environ"),
        "open a TCP socket": socket.socket,
        "open a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX),
        "start a program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": lambda: os.fork() or os._exit(0),
        "start a thread": lambda: threading.Thread(target=print).start(),
        "signal the node": lambda: os.kill(os.getppid(), 0),
        "become more": lambda: os.setuid(0),
    }


@pytest.mark.parametrize("name", list(attempts(Path())))
def test_behind_the_walls_nobody_can(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    rules = sandbox.build_filter()
    folder = tmp_path / "folder"
    folder.mkdir()
    said = inside(lambda: sandbox.install(walls(folder), rules), attempts(secret)[name])
    assert said in ("PermissionError", "BlockingIOError", "RuntimeError")
    assert secret.read_text() == "secret"


def test_landlock_alone_closes_every_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert landlock.abi_version() >= 1
    for name in ("read a secret", "write a file", "remove a file", "read its environment"):
        assert inside(landlock.deny_all_files, attempts(secret)[name]) == "PermissionError"


def test_what_is_open_already_stays_readable_behind_the_walls(tmp_path: Path) -> None:
    file = (tmp_path / "rows.csv").open("w+")
    file.write("a\n1\n")
    file.flush()
    rules = sandbox.build_filter()
    with file:
        assert inside(lambda: sandbox.install(walls(tmp_path), rules), lambda: os.pread(file.fileno(), 4, 0)) == (
            "it worked"
        )


def test_memory_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    rules = sandbox.build_filter()
    assert inside(lambda: sandbox.install(walls(tmp_path), rules), lambda: bytearray(3 * 1024**3)) == "MemoryError"


def test_the_report_names_what_stands_and_only_that(tmp_path: Path) -> None:
    assert sandbox.describe(frozenset()) == "none"
    assert sandbox.describe(frozenset({"rlimits", "landlock"})) == "landlock+rlimits"
    assert not sandbox.complete(frozenset({"rlimits", "landlock", "netns"}))
    assert sandbox.complete(frozenset({"rlimits", "landlock", "seccomp"}))


def test_a_worker_without_a_required_wall_refuses_to_work(tmp_path: Path) -> None:
    mine, theirs = socket.socketpair()
    with mine:
        child = os.fork()
        if child == 0:
            try:
                serve(
                    Post(theirs, runtime_of("onnx"), walls(tmp_path), LIMITS.worker_memory_bytes_max, True, LIMITS),
                    None,
                )
            finally:
                os._exit(0)
        theirs.close()
        said = b"".join(iter(lambda: mine.recv(1000), b""))
        os.waitpid(child, 0)
    (greeting,) = [unpack_body(body) for body in FrameBuffer(1000).feed(said)]
    assert greeting[:2] == [0, "refused"]
    assert "seccomp" not in greeting[2]


def test_the_zygote_tries_its_walls_before_it_says_what_stands() -> None:
    with start_zygote() as zygote:
        hello = hello_of(zygote, 120)
        assert (hello.failure, hello.breaches, hello.complete) == ("", (), True)
        assert hello.runtime["engine"] == "onnxruntime"
    with start_zygote() as zygote:
        os.kill(zygote.pid, signal.SIGKILL)
        assert hello_of(zygote, 120).failure == "it died"
