"""Large blobs between processes that die: by kill -9, at any moment, and nothing is ever half-written.

`DIM_TEST_KILLS` says how often (default 100), `DIM_TEST_BLOB_MEGABYTES` how large the large file is (default 2048; the
disk needs twice that), `DIM_TEST_SEED` repeats a run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from blob_stage import BRISK, LISTEN, STORE, Fetcher, Twisted, content_of, everybody, offer_all

from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.blobs import BLOB, Grants, serve_blobs
from dimnode.p2p.host.host import DialFailed, open_host
from dimnode.records.ids import Cid, PeerId
from dimnode.records.unixfs import LEAF_BYTES, root_of
from dimnode.store.blobs import BlobStore

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("DIM_TEST_KILLS", "100"))
MEGABYTES = int(os.environ.get("DIM_TEST_BLOB_MEGABYTES", "2048"))
SEED = int(os.environ.get("DIM_TEST_SEED", "0")) or random.SystemRandom().getrandbits(32)
LEAVES = 40
CONTENT = content_of(LEAVES)
ROOT = root_of(CONTENT)
Twist = Callable[[int, bytes], bytes]


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A folder that goes with the test: those of the last three runs are kept, and so would be twelve gigabytes."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        yield Path(folder)


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A process of its own that does this, quickly: everything is imported already. Killed at the end by its id."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@contextmanager
def providing(folder: Path, number: int, twist: Twist | None = None) -> Iterator[tuple[int, str]]:
    """A process that serves the content; its id and address."""
    folder.mkdir()
    with BlobStore(folder, 2**40, STORE) as store, tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.seek(0)
        store.add(file)
    read_end, write_end = os.pipe()

    async def serve() -> None:
        store = BlobStore(folder, 2**40, STORE)
        opened: Any = store.reader if twist is None else lambda root: Twisted(store.reader(root), twist)
        server = BlobServer(opened, everybody, BRISK)
        handlers = {BLOB: serve_blobs(Grants(), lambda _: None, large=server)}
        async with open_host(bytes([number]) * 32, LISTEN, handlers, dht=False) as host:
            os.write(write_end, host.addresses()[0].encode() + b"\n")
            await trio.sleep_forever()

    with child(lambda: trio.run(serve)) as pid, os.fdopen(read_end) as said:
        yield pid, said.readline().strip()
    os.close(write_end)


def fetch(folder: Path, addresses: list[str], root: Cid = ROOT) -> None:
    """What a fetching process does: take up what is there, fetch the rest, finish."""

    async def run() -> None:
        with BlobStore(folder, 2**40, STORE) as store:
            async with open_host(bytes([99]) * 32, [], {}, dht=False) as host:
                peers = []
                for address in addresses:
                    try:
                        peers.append(PeerId(await host.connect(address)))
                    except DialFailed:
                        continue
                fetcher = Fetcher(host, store)
                download = fetcher.download(root)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(offer_all, download, peers)
                    await download.run()
                    nursery.cancel_scope.cancel()
                assert fetcher.part is not None
                store.finish(fetcher.part)

    trio.run(run)


def leaves_kept(folder: Path) -> int:
    """What the next process will find, by checking every leaf as it will; nothing else may be there."""
    with BlobStore(folder, 2**40, STORE) as store:
        assert store.found.foreign == () and store.found.removed == 0, store.found
        blob = store.find(ROOT)
        if blob is not None:
            path = store.path(ROOT)
            assert path is not None and path.read_bytes() == CONTENT, "a corrupt file has a blob's name"
            return LEAVES
        tree = store.known_tree(ROOT)
        if tree is None:
            return 0
        part = store.part(tree)
        for leaf, here in enumerate(part.have):
            if here:
                assert part.read(leaf) == CONTENT[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]
        kept = sum(part.have)
        part.close()
        return kept


def until_killed(pid: int, folder: Path, leaves: int, more_seconds: float) -> tuple[int, int]:
    """Wait until it notes so many leaves, and a moment more; then it is killed, unless it ended before."""
    deadline = time.monotonic() + 10.0
    ended = status = 0
    while not ended and noted(folder) < leaves and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        time.sleep(more_seconds)  # the moment of the kill: any will do
        ended, status = os.waitpid(pid, os.WNOHANG)
    return ended, status


def noted(folder: Path) -> int:
    """Leaves that the process says it has."""
    for notes in (folder / "blobs").glob("*.have"):
        try:
            return sum(notes.read_bytes())
        except FileNotFoundError:
            pass
    return 0


def test_a_hundred_kills_leave_no_corrupt_file_and_cost_only_what_was_in_flight(tmp_path: Path) -> None:
    print(f"DIM_TEST_SEED={SEED} DIM_TEST_KILLS={KILLS}")
    rng = random.Random(SEED)
    kills = whole = 0
    kept = 0

    def slowly(leaf: int, content: bytes) -> bytes:
        time.sleep(0.005)  # so that a transfer lasts for some kills
        return content

    with providing(tmp_path / "a", 1, slowly) as (_, first), providing(tmp_path / "b", 2, slowly) as (_, second):
        while kills < KILLS:
            folder = tmp_path / f"f{whole}"
            folder.mkdir(exist_ok=True)
            with child(lambda folder=folder: fetch(folder, [first, second])) as pid:
                ended, status = until_killed(pid, folder, kept + rng.randrange(6), rng.uniform(0.0, 0.02))
                assert not ended or status == 0, f"the fetch failed: {status}"
            kills += not ended
            now = leaves_kept(folder)
            assert now >= kept, f"{kept - now} leaves were lost by a kill"
            kept = now
            if kept == LEAVES:
                whole, kept = whole + 1, 0
    print(f"{kills} kills, {whole} whole files, the last one has {kept} of {LEAVES} leaves")
    assert whole >= 1 or KILLS < 50


def test_of_three_processes_one_lies_and_one_is_killed_and_the_bytes_come(tmp_path: Path) -> None:
    def lie(leaf: int, content: bytes) -> bytes:
        return content[::-1] if leaf % 4 == 3 else content

    def slowly(leaf: int, content: bytes) -> bytes:
        time.sleep(0.02)
        return content

    folder = tmp_path / "f"
    folder.mkdir()
    with (
        providing(tmp_path / "a", 1, slowly) as (_, honest),
        providing(tmp_path / "b", 2, lie) as (_, liar),
        providing(tmp_path / "c", 3, slowly) as (dying, victim),
        child(lambda: fetch(folder, [victim, liar, honest])) as pid,
    ):
        deadline = time.monotonic() + 20
        while noted(folder) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(dying, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert status == 0
    assert leaves_kept(folder) == LEAVES


def test_a_large_file_between_processes_comes_once_and_in_little_memory(large: Path) -> None:
    """Two gigabytes in ten minutes would do: this is about memory and bytes on the wire, not about speed."""
    from benchmarks.blobs import Weights, open_store, provider

    (large / "a").mkdir()
    (large / "b").mkdir()
    (large / "f").mkdir()
    with open_store(large / "a") as store:
        blob = store.add(Weights(MEGABYTES * LEAF_BYTES))  # type: ignore[arg-type]
        path = store.path(blob.root)
        assert path is not None
        with open_store(large / "b") as other:
            other.take_over(path)
    with provider(large / "a", 1) as first, provider(large / "b", 2) as second:
        command = [sys.executable, "-m", "benchmarks.blobs", "--fetch", str(large / "f"), blob.root.hex()]
        done = subprocess.run(
            [*command, str(MEGABYTES), first, second], capture_output=True, text=True, check=True, timeout=600
        )
    found = json.loads(done.stdout)  # the process hashed the whole file once more at its end
    print(found)
    assert found["wire_ratio"] <= 1.02
    assert found["rss_mib"] <= 64
