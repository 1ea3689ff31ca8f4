"""Large blobs between real hosts: whoever lies, dies, is slow or has only a part, the bytes come, and only they."""

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from blob_stage import BRISK, LISTEN, Provider, content_of, fetching, offer_all, provider, run, staged
from machine import Watch

from dimnode.errors import PeerFault, Refused
from dimnode.p2p.blob_words import BlobStream, Have, Leaf, Node, Open, Refusal, pack_bits, read_bits, read_question
from dimnode.p2p.blobs import BLOB, Grants, fetch_blob, serve_blobs
from dimnode.p2p.host.host import open_host
from dimnode.records.ids import Cid, PeerId, blob_cid
from dimnode.records.unixfs import LEAF_BYTES, Link, encode_node, link_of, root_of
from dimnode.store.blobs import BlobStore
from dimnode.wire import pack_frame

pytestmark = pytest.mark.slow
LEAVES = 12
CONTENT = content_of(LEAVES)
ROOT = root_of(CONTENT)


def full(folder: Path, content: bytes = CONTENT, **more: Any) -> Provider:
    made = provider(folder, **more)
    made.store.add(io.BytesIO(content))
    return made


def fetched_bytes(store: BlobStore, root: Cid) -> bytes:
    path = store.path(root)
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", content_of(1, LEAF_BYTES), content_of(2, 1), CONTENT])
def test_a_blob_of_any_size_comes_whole_and_every_byte_once(tmp_path: Path, content: bytes) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a", content)
        async with staged(tmp_path / "b", giver) as fetcher:
            download = await fetcher.fetch(root_of(content), [giver.peer])
            assert fetched_bytes(fetcher.store, root_of(content)) == content
            assert download.bytes_in <= 1.02 * len(content) + 1000
            assert sum(share.leaves for share in download.shares()) in (0, len(content) // LEAF_BYTES + 1)

    run(scenario)


def test_of_three_providers_one_lies_and_one_dies_and_the_bytes_come(tmp_path: Path) -> None:
    """The honest one is the slowest: else it may give all leaves before the liar is asked for its second one."""
    given, caught, died = threading.Event(), threading.Event(), threading.Event()
    told = [0]

    class Lied(list[PeerId]):
        def append(self, liar: PeerId) -> None:
            super().append(liar)
            caught.set()

    def lie(leaf: int, content: bytes) -> bytes:
        told[0] += 1
        return content if told[0] == 1 else bytes([content[0] ^ 1]) + content[1:]

    def wait(leaf: int, content: bytes) -> bytes:
        assert caught.wait(20) and died.wait(20)
        return content

    async def scenario() -> None:
        givers: list[Provider] = []

        def die(leaf: int, content: bytes) -> bytes:
            if given.is_set():
                died.set()  # before: what serves this leaf ends with the connection
                trio.from_thread.run(givers[2].host.disconnect, fetcher.host.peer)
            given.set()
            return content

        honest = full(tmp_path / "a", twist=wait)
        givers += [honest, full(tmp_path / "b", twist=lie), full(tmp_path / "c", twist=die)]
        async with staged(tmp_path / "d", *givers) as fetcher:
            fetcher.lied = Lied()
            await fetcher.fetch(ROOT, [giver.peer for giver in givers[1:]] + [givers[0].peer])
            assert fetched_bytes(fetcher.store, ROOT) == CONTENT
            assert fetcher.lied == [givers[1].peer]

    run(scenario)


@pytest.mark.parametrize("lie", ["wrong", "short", "long"])
def test_a_lone_liar_gives_nothing_and_is_told_of(tmp_path: Path, lie: str) -> None:
    def twist(leaf: int, content: bytes) -> bytes:
        match lie:
            case "wrong":
                return bytes(len(content))
            case "short":
                return content[:-1]
            case _:
                return content + b"x"

    async def scenario() -> None:
        giver = full(tmp_path / "a", twist=twist)
        async with staged(tmp_path / "b", giver) as fetcher:
            await fetcher.try_until(lambda: fetcher.lied == [giver.peer], ROOT, [giver.peer])
            assert fetcher.part is not None and fetcher.part.done_bytes == 0
            assert fetcher.store.find(ROOT) is None

    run(scenario)


def test_what_came_before_a_break_is_not_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        served = 0

        def stop_after_five(leaf: int, content: bytes) -> bytes:
            nonlocal served
            served += 1
            if served > 5:
                raise OSError("the disk is gone")
            return content

        first, second = full(tmp_path / "a", twist=stop_after_five), full(tmp_path / "c")
        async with staged(tmp_path / "b", first, second) as fetcher:
            least = 5 * LEAF_BYTES - 1_000_000  # the last leaf is short, and may be among them

            def stopped() -> bool:
                return served > 5 and fetcher.part is not None and fetcher.part.done_bytes >= least

            await fetcher.try_until(stopped, ROOT, [first.peer])
            assert fetcher.part is not None
            had = fetcher.part.done_bytes
            fetcher.part = None
            download = await fetcher.fetch(ROOT, [second.peer])
            assert fetched_bytes(fetcher.store, ROOT) == CONTENT
            assert download.bytes_in <= len(CONTENT) - had + 10_000

    run(scenario)


def test_two_that_fetch_at_once_give_each_other_what_they_have(tmp_path: Path) -> None:
    """The giver serves each leaf only once: so the two can only be whole by serving while they fetch."""
    gone: set[int] = set()

    def only_once(leaf: int, content: bytes) -> bytes:
        if leaf in gone:
            raise OSError("served already")
        gone.add(leaf)
        return content

    async def scenario() -> None:
        giver = full(tmp_path / "a", twist=only_once)
        async with staged(tmp_path / "b", giver) as first, fetching(tmp_path / "c", 98) as second:
            await second.host.connect(giver.host.addresses()[0])
            await first.host.connect(second.host.addresses()[0])
            peers = [giver.peer, PeerId(first.host.peer), PeerId(second.host.peer)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.fetch, ROOT, [peers[0], peers[2]])
                nursery.start_soon(second.fetch, ROOT, [peers[0], peers[1]])
            assert fetched_bytes(first.store, ROOT) == fetched_bytes(second.store, ROOT) == CONTENT
            assert len(gone) == LEAVES

    run(scenario)


def test_who_has_nothing_that_is_missing_makes_room_for_who_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        whole, poor = full(tmp_path / "a"), [full(tmp_path / name) for name in ("c", "d")]
        for each in poor:
            tree = each.store.tree(ROOT)
            assert tree is not None
            each.store.remove(ROOT)
            each.store.part(tree)  # it is on its way there, and stands still
        async with staged(tmp_path / "b", whole, *poor) as fetcher:
            peers = [*(each.peer for each in poor), whole.peer]
            few = replace(BRISK, providers_max=2)
            download = await fetcher.fetch(ROOT, peers, limits=few)
            assert fetched_bytes(fetcher.store, ROOT) == CONTENT
            assert {share.peer for share in download.shares() if share.leaves} == {whole.peer}

    run(scenario)


def test_nobody_is_served_without_a_rule_and_a_rule_that_ends_ends_the_service(tmp_path: Path) -> None:
    allowed = False

    def rule(peer: PeerId, root: Cid) -> bool:
        return allowed

    async def scenario() -> None:
        nonlocal allowed
        giver = full(tmp_path / "a", may_fetch=rule)
        async with staged(tmp_path / "b", giver) as fetcher:
            await fetcher.try_until(lambda: giver.server.served.refused > 1, ROOT, [giver.peer])  # again and again
            assert fetcher.part is None and not fetcher.lied
            allowed = True
            stream = BlobStream(await fetcher.host.open_stream(giver.peer, BLOB), BRISK)
            await stream.ask(Open(ROOT))
            assert await stream.opened() == (len(CONTENT), b"")
            await stream.ask(Leaf(0))
            assert await stream.leaf(0) == CONTENT[:LEAF_BYTES]
            allowed = False
            await stream.ask(Leaf(1))
            with pytest.raises(Refusal):
                await stream.leaf(1)

    run(scenario)


def test_questions_that_come_together_with_the_first_are_answered_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        async with staged(tmp_path / "b", giver) as fetcher:
            raw = await fetcher.host.open_stream(giver.peer, BLOB)
            stream = BlobStream(raw, BRISK)
            await raw.write(b"".join(map(pack_frame, (["open", ROOT], ["leaf", 0], ["leaf", 1]))))
            assert await stream.opened() == (len(CONTENT), b"")
            with trio.fail_after(30):
                for leaf in (0, 1):
                    assert await stream.leaf(leaf) == CONTENT[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]

    run(scenario)


def test_who_refuses_takes_no_part_so_that_the_search_comes_to_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a", may_fetch=lambda *_: False)
        async with staged(tmp_path / "b", giver) as fetcher, trio.open_nursery() as nursery:
            download = fetcher.download(ROOT)
            nursery.start_soon(download.run)
            while download.idle_since is None:
                await trio.lowlevel.checkpoint()
            began = download.idle_since
            nursery.start_soon(offer_all, download, [giver.peer])
            while giver.server.served.refused < 3:  # noqa: ASYNC110 what is waited for is a counter
                await trio.sleep(0.01)
            assert download.idle_since == began
            nursery.cancel_scope.cancel()

    run(scenario)


def test_a_server_of_the_version_before_refuses_and_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        async with staged(tmp_path / "b", giver) as fetcher:
            old = {BLOB: serve_blobs(Grants(), lambda _: CONTENT)}
            async with open_host(bytes([77]) * 32, LISTEN, old, dht=False) as old_host:
                await fetcher.host.connect(old_host.addresses()[0])
                await fetcher.fetch(ROOT, [PeerId(old_host.peer), giver.peer])
                assert not fetcher.lied

    run(scenario)


def test_the_old_question_is_answered_as_before_beside_the_new_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        small, grants = b"a blob of a job", Grants()
        async with staged(tmp_path / "b", giver) as fetcher:
            handlers = {BLOB: serve_blobs(grants, lambda _: small, large=giver.server)}
            async with open_host(bytes([78]) * 32, LISTEN, handlers, dht=False) as both:
                await fetcher.host.connect(both.addresses()[0])
                grants.allow(PeerId(fetcher.host.peer), blob_cid(small))
                assert await fetch_blob(fetcher.host, PeerId(both.peer), blob_cid(small)) == small
                await fetcher.fetch(ROOT, [PeerId(both.peer)])

    run(scenario)


def test_a_silent_provider_holds_nothing_up(tmp_path: Path) -> None:
    released = threading.Event()

    def never(leaf: int, content: bytes) -> bytes:
        assert released.wait(60.0)
        return content

    async def scenario() -> None:
        silent, giver = full(tmp_path / "a", twist=never), full(tmp_path / "c")
        async with staged(tmp_path / "b", silent, giver) as fetcher:
            hasty = replace(BRISK, silence_seconds_max=1.0)
            try:
                await fetcher.fetch(ROOT, [silent.peer, giver.peer], limits=hasty)
            finally:
                released.set()
            assert fetched_bytes(fetcher.store, ROOT) == CONTENT and not fetcher.lied

    run(scenario)


def test_a_full_disk_ends_the_fetch_with_a_refusal_and_keeps_what_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        async with staged(tmp_path / "b", giver) as fetcher:
            real = fetcher.open_sink

            class Full:
                """Takes five leaves."""

                def __init__(self, part: Any) -> None:
                    self.part, self.have = part, part.have

                @property
                def done_bytes(self) -> int:
                    return int(self.part.done_bytes)

                def missing(self) -> list[int]:
                    return list(self.part.missing())

                def write(self, leaf: int, pieces: list[bytes], digest: bytes | None = None) -> bool:
                    if sum(self.have) >= 5:
                        raise Refused("E-store-31", "the disk is full")
                    return bool(self.part.write(leaf, pieces))

            fetcher.open_sink = lambda tree: Full(real(tree))  # type: ignore[assignment, method-assign, return-value]
            with pytest.raises(Refused, match="E-store-31"):
                await fetcher.fetch(ROOT, [giver.peer])
            assert fetcher.part is not None and fetcher.part.done_bytes >= 4 * LEAF_BYTES
            assert fetcher.store.find(ROOT) is None

    run(scenario)


def test_a_blob_of_another_size_than_announced_is_refused_and_its_holder_is_no_liar(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        async with staged(tmp_path / "b", giver) as fetcher:
            with pytest.raises(Refused, match="E-p2p-62"):
                await fetcher.fetch(ROOT, [giver.peer], size_bytes=len(CONTENT) + 1)
            assert not fetcher.lied and fetcher.part is None

    run(scenario)


def test_a_tree_that_was_made_by_other_rules_is_refused_and_its_holder_is_no_liar(tmp_path: Path) -> None:
    links = [Link(blob_cid(bytes(7)), 7, 7), Link(blob_cid(bytes(LEAF_BYTES)), LEAF_BYTES, LEAF_BYTES)]
    raw = encode_node(links)
    odd = link_of(raw, links).cid

    async def serve(stream: Any) -> None:
        await stream.read(100)
        await stream.write(pack_frame(["here", LEAF_BYTES + 7, b""]))
        await stream.read(100)
        await stream.write(pack_frame(["node", raw]))
        await stream.read(100)

    async def scenario() -> None:
        async with (
            staged(tmp_path / "b") as fetcher,
            open_host(bytes([79]) * 32, LISTEN, {BLOB: serve}, dht=False) as host,
        ):
            await fetcher.host.connect(host.addresses()[0])
            with pytest.raises(Refused, match="E-p2p-62"):
                await fetcher.fetch(odd, [PeerId(host.peer)])
            assert not fetcher.lied

    run(scenario)


ANSWERS: dict[str, Callable[[], list[bytes]]] = {
    "a blob of another size": lambda: [pack_frame(["here", 5, b""])],
    "no number": lambda: [pack_frame(["here", "many", b""])],
    "a frame beyond the bound": lambda: [(2**31).to_bytes(4, "big")],
    "a wrong node": lambda: [pack_frame(["here", len(CONTENT), b""]), pack_frame(["node", b"wrong"])],
    "no message": lambda: [b"\0\0\0\1\xc1"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_nonsense_is_a_fault_of_the_peer(tmp_path: Path, name: str) -> None:
    async def serve(stream: Any) -> None:
        for answer in ANSWERS[name]():
            await stream.read(100)
            await stream.write(answer)
        await stream.read(100)

    async def scenario() -> None:
        async with (
            staged(tmp_path / "b") as fetcher,
            open_host(bytes([79]) * 32, LISTEN, {BLOB: serve}, dht=False) as bad,
        ):
            await fetcher.host.connect(bad.addresses()[0])
            await fetcher.try_until(lambda: fetcher.lied == [PeerId(bad.peer)], ROOT, [PeerId(bad.peer)])
            assert fetcher.store.all() == []

    run(scenario)


@pytest.mark.parametrize(
    "asked",
    [
        ["open", bytes(36)],
        ["open", b""],
        ["leaf", -1],
        ["leaf", True],
        ["leaf"],
        ["node", 1],
        [],
        ["open", ROOT, 1],
        ["have", 1],
    ],
)
def test_a_broken_question_is_a_fault(asked: Any) -> None:
    with pytest.raises(PeerFault):
        read_question(asked)


def test_words_of_a_later_version_are_no_fault() -> None:
    assert read_question(["open2", ROOT, {}]) is None
    assert read_question(["leaf", 3]) == Leaf(3) and read_question(["node", 1, 0]) == Node(1, 0)
    assert read_question(["have"]) == Have() and read_question(["open", ROOT]) == Open(ROOT)


@pytest.mark.parametrize("leaves", [1, 7, 8, 9, 100])
def test_bits_are_read_back(leaves: int) -> None:
    have = bytes(leaf * 7 % 3 == 0 for leaf in range(leaves))
    assert read_bits(pack_bits(have), leaves) == have
    with pytest.raises(PeerFault):
        read_bits(pack_bits(have) + b"\0", leaves)


def test_a_peer_has_few_streams_and_a_flood_of_questions_is_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        giver = full(tmp_path / "a")
        async with staged(tmp_path / "b", giver) as fetcher:
            streams = []
            for _ in range(BRISK.serving_per_peer_max):
                stream = BlobStream(await fetcher.host.open_stream(giver.peer, BLOB), BRISK)
                await stream.ask(Open(ROOT))
                await stream.opened()
                streams.append(stream)
            one_more = BlobStream(await fetcher.host.open_stream(giver.peer, BLOB), BRISK)
            await one_more.ask(Open(ROOT))
            with pytest.raises(Refusal):
                await one_more.opened()
            # Who asks for everything and reads nothing: the server stops after what fits the stream's window.
            with trio.move_on_after(1.0):
                for _ in range(200):
                    await streams[0].ask(Leaf(0))
            assert giver.server.served.leaves <= 6
            for stream in streams[1:]:
                await stream.reset()

    run(scenario)


def test_a_provider_reads_all_leaves_into_the_same_three_pieces_of_memory(tmp_path: Path) -> None:
    rooms: list[Any] = []

    async def scenario() -> None:
        giver = full(tmp_path / "a")
        opened = giver.store.reader

        def watched(root: Cid) -> Any:
            source = opened(root)
            assert source is not None
            read = source.leaf_at_once

            def leaf_at_once(leaf: int, places: Sequence[memoryview]) -> bool:
                rooms.append(places[0].obj)
                return read(leaf, places)

            source.leaf_at_once = leaf_at_once  # type: ignore[method-assign]
            return source

        giver.server._open_source = watched
        async with staged(tmp_path / "b", giver) as fetcher:
            await fetcher.fetch(ROOT, [giver.peer])
            assert fetched_bytes(fetcher.store, ROOT) == CONTENT

    run(scenario)
    assert len(rooms) >= LEAVES
    assert len({id(room) for room in rooms}) <= 3


def test_the_loop_stays_responsive_while_a_blob_comes(tmp_path: Path) -> None:
    late: list[float] = []

    async def watch() -> None:
        while True:
            machine = Watch()
            await trio.sleep(0.01)
            late.append(machine.seconds - 0.01)

    async def scenario() -> None:
        content = content_of(48)
        giver = full(tmp_path / "a", content)
        async with staged(tmp_path / "b", giver) as fetcher, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await fetcher.fetch(root_of(content), [giver.peer])
            nursery.cancel_scope.cancel()

    run(scenario)
    late.sort()
    assert late[len(late) * 9 // 10] < 0.1
