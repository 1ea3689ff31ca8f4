"""Leaves that pour in between real hosts: whatever a provider does meanwhile, and however slow the disk."""

import io
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from blob_stage import BRISK, LISTEN, Fetcher, Provider, content_of, offer_all, provider, run, staged
from trio.testing import wait_all_tasks_blocked

from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_words import Have, Leaf, Node, Open, read_question
from dimnode.p2p.blobs import BLOB
from dimnode.p2p.host.host import open_host
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.records.ids import Cid, PeerId
from dimnode.records.unixfs import LEAF_BYTES, Tree, root_of, tree_of
from dimnode.store.blobs import BlobStore
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

pytestmark = pytest.mark.slow
LEAVES = 12
CONTENT = content_of(LEAVES)
TREE = tree_of(io.BytesIO(CONTENT).read)
ROOT = root_of(CONTENT)


def full(folder: Path, **more: Any) -> Provider:
    made = provider(folder, **more)
    made.store.add(io.BytesIO(CONTENT))
    return made


def answer(leaf: int, whole: bytes = CONTENT) -> bytes:
    content = whole[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]
    return pack_frame(["leaf", leaf, len(content)]) + content


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 threads and sockets change it
            await trio.sleep(0.005)


Behave = Callable[[Stream, list[int]], Awaitable[bool]]
"""What it does with the leaves that it was asked for and did not answer. Whether it goes on."""


def by_hand(behave: Behave, tree: Tree) -> Callable[[Stream], Awaitable[None]]:
    """A provider that is honest about the tree."""
    nodes = dict(zip(tree.layout.places(), tree.nodes, strict=True))

    async def serve(stream: Stream) -> None:
        decoder, asked = FrameDecoder(), list[int]()
        try:
            while True:
                for body in decoder.feed(await stream.read(4096)):
                    match read_question(unpack_body(body)):
                        case Open():
                            await stream.write(pack_frame(["here", tree.file_bytes, b""]))
                        case Node(level, index):
                            await stream.write(pack_frame(["node", nodes[level, index]]))
                        case Have():
                            await stream.write(pack_frame(["have", b""]))
                        case Leaf(index):
                            asked.append(index)
                if asked and not await behave(stream, asked):
                    return
        except (StreamEnded, StreamLost):
            return

    return serve


@asynccontextmanager
async def beside(fetcher: Fetcher, behave: Behave, tree: Tree = TREE) -> AsyncIterator[PeerId]:
    """One more provider, by hand."""
    async with open_host(bytes([77]) * 32, LISTEN, {BLOB: by_hand(behave, tree)}, dht=False) as bad:
        await fetcher.host.connect(bad.addresses()[0])
        yield PeerId(bad.peer)


async def give_twice(stream: Stream, asked: list[int]) -> bool:
    leaf = asked.pop(0)
    await stream.write(answer(leaf) * 2)
    return True


async def give_more(stream: Stream, asked: list[int]) -> bool:
    """All that was asked for, and what may be asked for next."""
    most = max(asked)
    for leaf in [*asked, (most + 1) % LEAVES, (most + 2) % LEAVES]:
        await stream.write(answer(leaf))
    asked.clear()
    return True


async def give_backwards(stream: Stream, asked: list[int]) -> bool:
    if len(asked) > 1:
        for leaf in reversed(asked):
            await stream.write(answer(leaf))
        asked.clear()
    return True


async def give_a_long_leaf(stream: Stream, asked: list[int]) -> bool:
    leaf = asked.pop(0)
    await stream.write(pack_frame(["leaf", leaf, LEAF_BYTES + 1]) + bytes(LEAF_BYTES + 1))
    return True


@pytest.mark.parametrize("lie", [give_twice, give_more, give_backwards, give_a_long_leaf])
def test_who_gives_what_was_not_asked_for_is_a_liar_and_the_bytes_come_from_another(tmp_path: Path, lie: Any) -> None:
    caught = threading.Event()

    class Lied(list[PeerId]):
        def append(self, liar: PeerId) -> None:
            super().append(liar)
            caught.set()

    def wait(leaf: int, content: bytes) -> bytes:
        assert caught.wait(20)
        return content

    async def scenario() -> None:
        honest = full(tmp_path / "a", twist=wait)
        async with staged(tmp_path / "b", honest) as fetcher, beside(fetcher, lie) as liar:
            fetcher.lied = Lied()
            await fetcher.fetch(ROOT, [liar, honest.peer])
            assert fetcher.lied == [liar]
            assert_whole(fetcher.store)

    run(scenario)


def assert_whole(store: BlobStore, root: Cid = ROOT) -> None:
    path = store.path(root)
    assert path is not None and path.read_bytes() == CONTENT


async def stay_silent(stream: Stream, asked: list[int]) -> bool:
    await stream.write(answer(asked[0])[: LEAF_BYTES // 2])
    await trio.sleep_forever()
    return False


async def reset(stream: Stream, asked: list[int]) -> bool:
    await stream.write(answer(asked[0])[: LEAF_BYTES // 2])
    await stream.reset()
    return False


async def finish(stream: Stream, asked: list[int]) -> bool:
    await stream.write(answer(asked[0])[: LEAF_BYTES // 2])
    await stream.close()
    return False


async def say_no_more(stream: Stream, asked: list[int]) -> bool:
    await stream.write(answer(asked[0]) + END)
    await stream.close()
    return False


async def have_nothing(stream: Stream, asked: list[int]) -> bool:
    await stream.write(pack_frame(["absent"]) * len(asked))
    asked.clear()
    return True


@pytest.mark.parametrize("end", [stay_silent, reset, finish, say_no_more, have_nothing])
def test_who_breaks_off_is_no_liar_and_what_it_was_asked_for_comes_from_another(tmp_path: Path, end: Any) -> None:
    broke_off = threading.Event()

    async def break_off(stream: Stream, asked: list[int]) -> bool:
        broke_off.set()
        return bool(await end(stream, asked))

    def wait(leaf: int, content: bytes) -> bytes:
        assert broke_off.wait(20)
        return content

    async def scenario() -> None:
        honest = full(tmp_path / "a", twist=wait)
        hasty = replace(BRISK, silence_seconds_max=1.0)
        async with staged(tmp_path / "b", honest) as fetcher, beside(fetcher, break_off) as other:
            await fetcher.fetch(ROOT, [other, honest.peer], limits=hasty)
            assert not fetcher.lied
            assert_whole(fetcher.store)

    run(scenario)


class SlowDisk:
    """A sink that writes when it is let."""

    def __init__(self, part: Any, gate: threading.Semaphore) -> None:
        self.part, self.have, self._gate = part, part.have, gate

    @property
    def done_bytes(self) -> int:
        return int(self.part.done_bytes)

    def missing(self) -> list[int]:
        return list(self.part.missing())

    def write(self, leaf: int, pieces: Sequence[bytes | memoryview], digest: bytes | None = None) -> bool:
        assert self._gate.acquire(timeout=60)
        return bool(self.part.write(leaf, pieces, digest))


@asynccontextmanager
async def slowly(
    fetcher: Fetcher, peers: list[PeerId], limits: Any, root: Cid = ROOT
) -> AsyncIterator[tuple[Download, Any]]:
    """A fetch whose disk writes nothing until it is let; it ends with what is inside."""
    gate, open_sink = threading.Semaphore(0), fetcher.open_sink
    fetcher.open_sink = lambda tree: SlowDisk(open_sink(tree), gate)  # type: ignore[assignment, method-assign, return-value]
    download = fetcher.download(root, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer_all, download, peers)
        nursery.start_soon(download.run)
        try:
            yield download, gate
        finally:
            nursery.cancel_scope.cancel()
            gate.release(10_000)  # the thread is waited for


def waiting(download: Download) -> int:
    """How many providers wait for memory."""
    return sum(answers.waits_for_room for answers in download._answers.values())


NARROW = replace(BRISK, leaves_waiting_max=2, leaves_held_max=4, requests_first=6, silence_seconds_max=0.4)


def test_a_slow_disk_holds_few_leaves_in_memory_and_no_provider_is_called_silent_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        givers = [full(tmp_path / "a"), full(tmp_path / "c")]
        async with (
            staged(tmp_path / "b", *givers) as fetcher,
            slowly(fetcher, [each.peer for each in givers], NARROW) as (download, gate),
        ):
            await until(lambda: waiting(download) > 0)
            await trio.sleep(3 * NARROW.silence_seconds_max)  # as long as this disk takes over one leaf
            while not download.done:
                assert download._keeper.waiting <= NARROW.leaves_held_max
                had = sum(download.sink.have)  # type: ignore[union-attr]
                gate.release()
                await until(lambda had=had: sum(download.sink.have) > had)  # type: ignore[misc, union-attr]
            assert NARROW.leaves_held_max >= len(download._rooms._free) + download._rooms._left
            assert max(each.server.served.streams for each in givers) == 1
            assert fetcher.part is not None
            fetcher.store.finish(fetcher.part)
            assert_whole(fetcher.store)

    run(scenario)


def test_a_provider_that_went_while_its_last_leaf_waits_for_the_disk_has_given_it_all_the_same(tmp_path: Path) -> None:
    content = content_of(3, 1000)  # of the last one there is room in the window
    tree, given = tree_of(io.BytesIO(content).read), list[int]()

    async def give_and_go(stream: Stream, asked: list[int]) -> bool:
        for leaf in asked if not given else ():
            await stream.write(answer(leaf, content))
        given.extend(asked)
        await stream.write(END)
        await stream.close()
        return False

    async def scenario() -> None:
        narrow = replace(NARROW, leaves_held_max=2, silence_seconds_max=15.0)
        async with (
            staged(tmp_path / "b") as fetcher,
            beside(fetcher, give_and_go, tree) as peer,
            slowly(fetcher, [peer], narrow, tree.root) as (download, gate),
        ):
            await until(lambda: waiting(download) > 0)
            muxed = download._streams[peer]._stream._muxed
            await until(lambda: muxed.finished_there)
            download._answers[peer].wake()  # as when a leaf of another provider lands
            await wait_all_tasks_blocked()
            gate.release(3)
            await until(lambda: download.done)
            assert given == [0, 1, 2] and not fetcher.lied

    run(scenario)


def test_what_came_from_one_that_died_and_waits_for_the_disk_is_fetched_from_nobody_else(tmp_path: Path) -> None:
    has_died = trio.Event()

    async def give_and_die(stream: Stream, asked: list[int]) -> bool:
        for leaf in asked:
            await stream.write(answer(leaf))
        await has_died.wait()
        await stream.reset()
        return False

    async def scenario() -> None:
        wide, honest = replace(NARROW, leaves_waiting_max=LEAVES, leaves_held_max=LEAVES), full(tmp_path / "a")
        async with (
            staged(tmp_path / "b", honest) as fetcher,
            beside(fetcher, give_and_die) as mortal,
            slowly(fetcher, [], wide) as (download, gate),
        ):
            await until(lambda: download.idle_since is not None)
            download.offer(mortal)
            await until(lambda: download._keeper.waiting == wide.requests_first)
            has_died.set()
            await until(lambda: mortal not in download._streams)
            download.offer(honest.peer)
            await until(lambda: honest.server.served.leaves >= LEAVES - wide.requests_first)
            gate.release(LEAVES)
            await until(lambda: download.done)
            assert honest.server.served.leaves == LEAVES - wide.requests_first
            assert honest.server.served.bytes == len(CONTENT) - wide.requests_first * LEAF_BYTES
            assert {share.peer: share.leaves for share in download.shares()} == {mortal: 6, honest.peer: LEAVES - 6}

    run(scenario)


def test_a_fetch_that_is_cancelled_while_leaves_wait_leaves_no_bytes_no_stream_and_no_memory_behind(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        givers = [full(tmp_path / "a"), full(tmp_path / "c")]
        async with staged(tmp_path / "b", *givers) as fetcher:
            peers, open_sink = [each.peer for each in givers], fetcher.open_sink
            async with slowly(fetcher, peers, NARROW) as (download, _):
                await until(lambda: waiting(download) > 0)
                connections = [stream._stream.connection for stream in download._streams.values()]
                assert sum(connection.unread_bytes for connection in connections) > 0
            assert not download._answers and not download._streams and not download._workers
            free = len(download._rooms._free) + download._rooms._left
            assert free + download._keeper.waiting == NARROW.leaves_held_max
            assert [connection.unread_bytes for connection in connections] == [0] * len(connections)
            assert fetcher.part is not None
            fetcher.part.close()
            fetcher.part, fetcher.open_sink = None, open_sink  # type: ignore[method-assign]
            await fetcher.fetch(ROOT, peers)
            assert_whole(fetcher.store)
            await until(lambda: all(not each.server.places._of_peer for each in givers))

    run(scenario)


def test_what_a_partial_holder_gets_is_found_and_fetched_while_leaves_pour(tmp_path: Path) -> None:
    async def scenario() -> None:
        poor = provider(tmp_path / "a")
        part = poor.store.part(TREE)

        def comes_by(leaves: range) -> None:
            for leaf in leaves:
                part.write(leaf, [CONTENT[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]])

        comes_by(range(1))
        async with staged(tmp_path / "b", poor) as fetcher:
            download = fetcher.download(ROOT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(offer_all, download, [poor.peer])
                nursery.start_soon(download.run)
                for until_leaf in (3, 4, 9, LEAVES):
                    await until(lambda: download.sink is not None and sum(download.sink.have) == sum(part.have))
                    comes_by(range(sum(part.have), until_leaf))
                await until(lambda: download.done)
                nursery.cancel_scope.cancel()
            assert poor.server.served.streams == 1 and poor.server.served.leaves == LEAVES
            assert fetcher.part is not None
            fetcher.store.finish(fetcher.part)
            assert_whole(fetcher.store)

    run(scenario)


def test_a_permission_that_ends_in_the_middle_makes_no_liar_and_the_rest_comes_from_another(tmp_path: Path) -> None:
    denied = threading.Event()
    looks = [0]

    def three_times(peer: PeerId, root: Cid) -> bool:
        looks[0] += 1
        if looks[0] > 4:
            denied.set()
        return looks[0] <= 4

    def wait(leaf: int, content: bytes) -> bytes:
        assert denied.wait(20)
        return content

    async def scenario() -> None:
        first, second = full(tmp_path / "a", may_fetch=three_times), full(tmp_path / "c", twist=wait)
        async with staged(tmp_path / "b", first, second) as fetcher:
            await fetcher.fetch(ROOT, [first.peer, second.peer])
            assert not fetcher.lied and first.server.served.leaves > 0
            assert_whole(fetcher.store)

    run(scenario)
