"""Bitswap between real hosts: wants are answered over streams of the other side, with what is everybody's alone."""

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from blob_stage import LISTEN, STORE, content_of, run

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.node.bitswap import PublicBlocks
from dimnode.node.block_fetch import BlockFetch
from dimnode.p2p.bitswap import Bitswap
from dimnode.p2p.bitswap_server import BitswapServer
from dimnode.p2p.bitswap_words import BITSWAP, Message, Want, length_in, pack_answer, pack_wants, read_message
from dimnode.p2p.blob_places import Places
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.host import Host, ProtocolRefused, Stream, StreamEnded, StreamLost, open_host
from dimnode.p2p.links import TASK
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, PeerId, blob_cid
from dimnode.records.unixfs import LEAF_BYTES, root_of, tree_of
from dimnode.records.varint import varint
from dimnode.store.blobs import BlobStore

pytestmark = pytest.mark.slow

BRISK = replace(LIMITS.bitswap, look_seconds=0.05, linger_seconds=0.05, index_again_seconds=0.02)
HASTY = replace(BRISK, silence_seconds_max=0.5, message_seconds_max=0.5)
"""For who is silent or slow on purpose: anybody else may be held up for so long by a busy machine."""
OTHER = "/test/other/1"
SMALL = b"a small blob"
CONTENT = content_of(3)
ROOT = root_of(CONTENT)


@dataclass
class Giver:
    """A host that answers IPFS peers, with a store of which some roots are everybody's."""

    host: Host
    store: BlobStore
    bitswap: Bitswap
    server: BitswapServer
    public: set[Cid]
    linked: set[bytes]

    def offences(self, offence: Offence) -> int:
        return self.host.conduct().offences.get(offence.value, 0)

    async def no_more_guests(self) -> None:
        """As when all of them have been silent for long, which takes no time."""
        patient = self.bitswap._limits
        self.bitswap._limits = replace(patient, idle_seconds_max=0.0)
        await until(lambda: self.bitswap.guests() == 0)
        self.bitswap._limits = patient


@dataclass
class Asker:
    """An IPFS peer, byte by byte: what it was sent, over streams that were opened to it."""

    host: Host
    giver: bytes
    heard: list[Message] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)
    reads: bool = True

    async def serve(self, stream: Stream) -> None:
        while self.reads:
            self.heard.append(await message_of(stream))
            self.news.set()
        await trio.sleep_forever()

    async def say(self, *raw: bytes) -> Stream:
        stream = await self.host.open_stream(self.giver, BITSWAP)
        for piece in raw:
            await stream.write(piece)
        return stream

    async def want(self, *wants: Want) -> Stream:
        return await self.say(pack_wants(wants))

    @property
    def blocks(self) -> dict[Cid, bytes]:
        return {cid: bytes(content) for message in self.heard for cid, content in message.blocks}

    @property
    def presences(self) -> dict[bytes, bool]:
        return {cid: have for message in self.heard for cid, have in message.presences}

    async def until(self, holds: Callable[[], Any]) -> None:
        while not holds():
            self.news = trio.Event()
            await self.news.wait()


async def message_of(stream: Stream) -> Message:
    said = await stream.read(1)
    while (length := length_in(said, 2**23)) is None:
        said += await stream.read(1)
    raw = b""
    while len(raw) < length:
        raw += await stream.read(length - len(raw))
    return read_message(memoryview(raw))


async def until(holds: Callable[[], Any]) -> None:
    while not holds():  # noqa: ASYNC110 what is waited for is a counter
        await trio.sleep(0.01)


async def ended(stream: Stream) -> None:
    """Until the other side gives the stream up, whatever it sends before."""
    try:
        while True:
            await stream.read(1000)
    except (StreamLost, StreamEnded):
        pass


async def turned_away(asker: Asker) -> None:
    """A stream of this one is reset, at once or soon."""
    try:
        stream = await asker.want(Want(ROOT))
    except StreamLost:
        return
    await ended(stream)


@asynccontextmanager
async def giving(folder: Path, limits: Any = BRISK, number: int = 1, serves: bool = True) -> AsyncIterator[Giver]:
    async def other(stream: Stream) -> None:
        await stream.write(b"x")

    os.makedirs(folder, exist_ok=True)
    with BlobStore(folder, 2**40, STORE) as store:
        for content in (SMALL, CONTENT):
            store.add(io.BytesIO(content))
        public, linked = {ROOT, blob_cid(SMALL)}, set[bytes]()
        server = BitswapServer(PublicBlocks(store, public.__contains__, limits), Places(), limits)
        bitswap = Bitswap(server if serves else None, limits)
        handlers = {BITSWAP: bitswap.serve, OTHER: other, TASK: other}
        async with (
            open_host(bytes([number]) * 32, LISTEN, handlers, narrow=bitswap.narrow) as host,
            trio.open_nursery() as nursery,
        ):
            bitswap.attach(host, nursery, linked.__contains__)
            yield Giver(host, store, bitswap, server, public, linked)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def asking(giver: Giver, number: int = 50) -> AsyncIterator[Asker]:
    asker: Any = None

    async def serve(stream: Stream) -> None:
        await asker.serve(stream)

    async with open_host(bytes([number]) * 32, [], {BITSWAP: serve}, dht=False) as host:
        asker = Asker(host, giver.host.peer)
        await host.connect(giver.host.addresses()[0])
        yield asker


def staged(folder: Path, scenario: Callable[[Giver, Asker], Awaitable[None]], limits: Any = BRISK) -> None:
    async def with_hosts() -> None:
        with trio.fail_after(30):
            async with giving(folder, limits) as giver, asking(giver) as asker:
                await scenario(giver, asker)

    run(with_hosts)


# ---- answering


def test_leaves_nodes_and_small_blobs_come_as_they_are_over_a_stream_of_the_giver(tmp_path: Path) -> None:
    tree = tree_of(io.BytesIO(CONTENT).read)
    leaves = {Cid(BLOB_PREFIX + tree.digest(n)): CONTENT[n * LEAF_BYTES : (n + 1) * LEAF_BYTES] for n in range(3)}
    expected = {**leaves, ROOT: tree.nodes[0], blob_cid(SMALL): SMALL}

    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(*map(Want, expected))
        await asker.until(lambda: len(asker.blocks) == len(expected))
        assert asker.blocks == expected
        assert asker.presences == {}
        assert giver.server.served.leaves == len(expected)
        await until(lambda: not giver.server.waits(PeerId(asker.host.peer)))

    staged(tmp_path, scenario)


def test_who_asks_whether_a_block_is_there_is_told_and_gets_no_block(tmp_path: Path) -> None:
    absent = blob_cid(b"nobody has this")
    of_another_kind = bytes.fromhex("1220") + bytes(32)

    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(Want(ROOT, have=True), Want(absent, have=True), Want(absent), Want(of_another_kind))
        await asker.until(lambda: len(asker.presences) == 3)
        assert asker.presences == {ROOT: True, absent: False, of_another_kind: False}
        assert asker.blocks == {}

    staged(tmp_path, scenario)


def test_what_is_not_everybodys_is_answered_like_what_is_not_here(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        kept = giver.store.add(io.BytesIO(b"kept")).root
        big = content_of(2, seed=7)
        giver.store.add(io.BytesIO(big))
        leaf = blob_cid(big[:LEAF_BYTES])
        await asker.want(Want(kept), Want(kept, have=True), Want(leaf), Want(root_of(big)), Want(blob_cid(b"absent")))
        await asker.until(lambda: len(asker.presences) == 4)
        assert set(asker.presences.values()) == {False}
        assert asker.blocks == {}

    staged(tmp_path, scenario)


def test_what_is_taken_back_between_question_and_answer_does_not_leave(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks)
        wants = [Want(ROOT), Want(blob_cid(CONTENT[:LEAF_BYTES]))]
        await giver.server.hear(PeerId(asker.host.peer), "", Message(wants=wants))
        giver.public.discard(ROOT)  # it was taken for public when it was asked for, and nothing was sent yet
        await asker.until(lambda: len(asker.presences) == 2)
        assert list(asker.blocks) == [blob_cid(SMALL)]
        assert set(asker.presences.values()) == {False}

    staged(tmp_path, scenario)


def test_a_blob_that_comes_in_again_gives_the_leaves_that_are_there_and_no_zeros(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(Want(ROOT))
        await asker.until(lambda: asker.blocks)
        await until(lambda: not giver.server.waits(PeerId(asker.host.peer)))
        giver.store.remove(ROOT)
        part = giver.store.part(tree_of(io.BytesIO(CONTENT).read))
        part.write(0, (CONTENT[:LEAF_BYTES],))
        leaves = [blob_cid(CONTENT[at : at + LEAF_BYTES]) for at in (0, LEAF_BYTES)]
        await asker.want(*map(Want, leaves))
        await asker.until(lambda: len(asker.blocks) + len(asker.presences) == 3)
        assert set(asker.blocks) == {ROOT, leaves[0]}
        assert asker.presences == {leaves[1]: False}
        part.close()

    staged(tmp_path, scenario)


@pytest.mark.parametrize("say_no", [False, True])
def test_who_asked_too_early_hears_of_it_when_it_comes(tmp_path: Path, say_no: bool) -> None:
    late = blob_cid(b"late")

    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(Want(late, say_no=say_no))
        await until(lambda: giver.server.unmet() == 1)
        giver.public.add(giver.store.add(io.BytesIO(b"late")).root)
        await asker.until(lambda: asker.blocks)
        assert asker.blocks == {late: b"late"}
        assert giver.server.unmet() == 0

    staged(tmp_path, scenario)


def test_kept_wants_are_judged_again_only_when_something_else_is_here(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        blocks, judged, looks = cast(Any, giver.server._blocks), 0, 0
        place, look_again = blocks.place, blocks.look_again

        def counted(cid: Cid) -> Any:
            nonlocal judged
            judged += 1
            return place(cid)

        async def looked() -> None:
            nonlocal looks
            await look_again()
            looks += 1

        blocks.place, blocks.look_again = counted, looked
        late = [blob_cid(bytes([number])) for number in range(50)]
        await asker.want(*(Want(cid, say_no=False) for cid in late))
        await until(lambda: giver.server.unmet() == 50)
        looked_before = looks
        await until(lambda: looks >= looked_before + 2)  # the first of them may judge
        judged_before, looked_before = judged, looks
        await until(lambda: looks >= looked_before + 5)
        assert judged == judged_before
        giver.public.add(giver.store.add(io.BytesIO(bytes([7]))).root)
        await asker.until(lambda: asker.blocks)
        assert giver.server.unmet() == 49

    staged(tmp_path, scenario)


def test_what_is_called_off_is_not_sent(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        leaf = blob_cid(CONTENT[:LEAF_BYTES])
        absent = blob_cid(b"absent")
        wants = [Want(leaf), Want(absent, say_no=False), Want(leaf, cancel=True), Want(absent, cancel=True)]
        await asker.want(*wants, Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks)
        await until(lambda: not giver.server.waits(PeerId(asker.host.peer)))
        assert list(asker.blocks) == [blob_cid(SMALL)]
        assert giver.server.unmet() == 0

    staged(tmp_path, scenario)


def test_a_full_wantlist_replaces_what_was_wanted(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        stream = await asker.want(*(Want(blob_cid(bytes([n])), say_no=False) for n in range(9)))
        await until(lambda: giver.server.unmet() == 9)
        await stream.write(pack_wants([Want(blob_cid(b"other"), say_no=False)], full=True))
        await until(lambda: giver.server.unmet() == 1)

    staged(tmp_path, scenario)


# ---- hostile


def test_a_giant_wantlist_is_an_offence_and_a_long_one_is_cut(tmp_path: Path) -> None:
    few = replace(BRISK, wants_max=20, entries_max=50)

    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(*(Want(blob_cid(bytes([n])), say_no=False) for n in range(50)))
        await until(lambda: giver.server.unmet() == 20)
        await ended(await asker.want(*(Want(blob_cid(bytes([n]))) for n in range(51))))
        assert giver.offences(Offence.OVERSIZE) == 1

    staged(tmp_path, scenario, few)


def test_a_message_beyond_the_bound_is_refused_by_its_length(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await ended(await asker.say(varint(BRISK.question_bytes_max + 1)))
        assert giver.offences(Offence.OVERSIZE) == 1

    staged(tmp_path, scenario)


def test_half_a_message_and_none_that_goes_on_are_offences(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        half = await asker.say(pack_wants([Want(ROOT)])[:-5])
        await half.close()
        await ended(half)
        assert giver.offences(Offence.MALFORMED) == 1
        giver.bitswap._limits = HASTY
        await ended(await asker.say(varint(1000), b"x"))
        assert giver.offences(Offence.SLOW) == 1

    staged(tmp_path, scenario)


def test_blocks_that_nobody_asked_for_are_an_offence(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await ended(await asker.say(*pack_answer([(blob_cid(SMALL), SMALL)], [])))
        assert giver.offences(Offence.MALFORMED) == 1

    staged(tmp_path, scenario)


def test_a_peer_that_does_not_read_holds_nothing_for_long(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        asker.reads = False
        big = content_of(9, seed=9)
        giver.public.add(giver.store.add(io.BytesIO(big)).root)
        leaves = [Want(blob_cid(big[n * LEAF_BYTES : (n + 1) * LEAF_BYTES])) for n in range(9)]
        await asker.want(*leaves)
        await until(lambda: giver.server.served.leaves)
        await until(lambda: not giver.server.waits(PeerId(asker.host.peer)))
        assert giver.server.served.leaves < 9
        assert giver.server._places.take(PeerId(asker.host.peer), "", False)

    staged(tmp_path, scenario, HASTY)


def test_a_peer_has_few_streams(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        for _ in range(BRISK.streams_per_peer_max):
            await asker.want(Want(blob_cid(b"absent"), say_no=False))
        await until(lambda: giver.bitswap._streams[PeerId(asker.host.peer)] == BRISK.streams_per_peer_max)
        await turned_away(asker)

    staged(tmp_path, scenario)


def test_without_a_place_everything_is_refused(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        taken = 0
        while giver.server._places.take(PeerId(bytes([taken])), f"10.0.{taken}.0/24", False):
            taken += 1
        leaf = blob_cid(CONTENT[:LEAF_BYTES])
        await asker.want(Want(leaf, say_no=False), Want(ROOT), Want(blob_cid(SMALL)))
        await asker.until(lambda: len(asker.presences) == 2)
        assert asker.presences == {ROOT: False, blob_cid(SMALL): False}
        assert asker.blocks == {}

    staged(tmp_path, scenario)


def test_who_got_no_place_gets_nothing_over_its_open_answer_either_until_there_is_one(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        taken = 0
        while giver.server._places.take(PeerId(bytes([taken])), f"10.0.{taken}.0/24", False):
            taken += 1
        await asker.want(Want(ROOT))
        await asker.until(lambda: ROOT in asker.presences)
        await asker.want(Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks or blob_cid(SMALL) in asker.presences)
        assert (asker.blocks, giver.server.served.streams) == ({}, 1)
        for number in range(taken):
            giver.server._places.leave(PeerId(bytes([number])), f"10.0.{number}.0/24")
        await asker.want(Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks)

    staged(tmp_path, scenario, replace(BRISK, linger_seconds=60.0))


# ---- guests


def test_a_guest_may_open_bitswap_and_what_leads_to_a_link_and_nothing_else(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.host.open_stream(giver.host.peer, OTHER)  # not known for a guest yet
        await asker.want(Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks)
        for protocol in (OTHER, "/ipfs/kad/1.0.0", "/meshsub/1.1.0", "/libp2p/circuit/relay/0.2.0/hop"):
            with pytest.raises(ProtocolRefused):
                await asker.host.open_stream(giver.host.peer, protocol)
        for protocol in (BITSWAP, TASK, "/ipfs/id/1.0.0"):
            await asker.host.open_stream(giver.host.peer, protocol)
        giver.linked.add(asker.host.peer)
        await asker.host.open_stream(giver.host.peer, OTHER)

    staged(tmp_path, scenario)


def test_who_is_expected_stays_and_may_be_a_dimnode(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        peer = PeerId(asker.host.peer)
        assert not giver.bitswap.stays(peer)
        giver.bitswap.expect(peer)
        assert giver.bitswap.stays(peer)
        await asker.host.open_stream(giver.host.peer, OTHER)
        giver.bitswap.meet(peer)  # no, it refused to have a link
        with pytest.raises(ProtocolRefused):
            await asker.host.open_stream(giver.host.peer, OTHER)

    staged(tmp_path, scenario)


def test_wants_of_a_dimnode_that_is_silent_are_kept_no_more_and_it_may_come_back(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        giver.linked.add(asker.host.peer)
        stream = await asker.want(Want(blob_cid(b"absent"), say_no=False))
        await until(lambda: giver.server.unmet() == 1)
        await giver.no_more_guests()
        assert giver.server.unmet() == 0
        await stream.write(pack_wants([Want(blob_cid(SMALL))]))
        await asker.until(lambda: asker.blocks)
        assert giver.bitswap.guests() == 1

    staged(tmp_path, scenario)


def test_a_guest_that_is_silent_is_sent_away_and_a_dimnode_is_not(tmp_path: Path) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        async with asking(giver, 51) as friend:
            giver.linked.add(friend.host.peer)
            for each in (asker, friend):
                await each.want(Want(blob_cid(SMALL)))
                await each.until(lambda each=each: each.blocks)
            await giver.no_more_guests()
            await until(lambda: asker.host.peer not in giver.host.connected())
            assert friend.host.peer in giver.host.connected()

    staged(tmp_path, scenario)


@pytest.mark.parametrize("bound", ["peers_max", "peers_per_group_max"])
def test_there_are_few_guests_at_once_and_of_one_network_fewer(tmp_path: Path, bound: str) -> None:
    async def scenario(giver: Giver, asker: Asker) -> None:
        await asker.want(Want(blob_cid(SMALL)))
        await asker.until(lambda: asker.blocks)
        async with asking(giver, 51) as late:
            await turned_away(late)
            giver.bitswap.meet(PeerId(late.host.peer))
            assert not giver.bitswap.stays(PeerId(late.host.peer))
            await asker.host.disconnect(giver.host.peer)
            await until(lambda: giver.bitswap.guests() == 0)
            await late.want(Want(blob_cid(SMALL)))
            await late.until(lambda: late.blocks)

    staged(tmp_path, scenario, replace(BRISK, **{bound: 1}))


def test_who_does_not_serve_answers_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with giving(tmp_path, serves=False) as giver, asking(giver) as asker:
            await turned_away(asker)
            giver.bitswap.meet(PeerId(asker.host.peer))
            assert not giver.bitswap.stays(PeerId(asker.host.peer))

    run(scenario)


# ---- asking


@asynccontextmanager
async def fetching(folder: Path, giver: Host, limits: Any = BRISK) -> AsyncIterator[tuple[Bitswap, BlobStore, Host]]:
    os.makedirs(folder, exist_ok=True)
    async with AsyncExitStack() as stack:
        store = stack.enter_context(BlobStore(folder, 2**40, STORE))
        bitswap = Bitswap(None, limits)
        host = await stack.enter_async_context(open_host(bytes([60]) * 32, [], {BITSWAP: bitswap.serve}, dht=False))
        nursery = await stack.enter_async_context(trio.open_nursery())
        bitswap.attach(host, nursery, lambda _: False)
        bitswap.expect(PeerId(giver.peer))
        await host.connect(giver.addresses()[0])
        yield bitswap, store, host
        nursery.cancel_scope.cancel()


async def fetch(bitswap: Bitswap, store: BlobStore, giver: bytes, root: Cid, at_once: int = 4) -> bytes:
    async with bitswap.session(PeerId(giver)) as session:
        await BlockFetch(session, store, at_once).fetch(root, None, lambda *_: None)
    path = store.path(root)
    assert path is not None
    return path.read_bytes()


TWINS = CONTENT[:LEAF_BYTES] * 5 + b"end"


@pytest.mark.parametrize("content", [SMALL, b"", CONTENT, TWINS])
def test_a_blob_comes_whole_also_when_its_leaves_are_alike(tmp_path: Path, content: bytes) -> None:
    async def scenario() -> None:
        async with giving(tmp_path / "a") as giver:
            giver.public.add(giver.store.add(io.BytesIO(content)).root)
            async with fetching(tmp_path / "b", giver.host) as (bitswap, store, _):
                assert await fetch(bitswap, store, giver.host.peer, root_of(content)) == content

    run(scenario)


Answer = Callable[[list[Want]], list[bytes]]


@asynccontextmanager
async def stage_liar(answer: Answer) -> AsyncIterator[Host]:
    """A peer that answers wants with whatever `answer` makes of them."""
    hosts: list[Host] = []

    async def serve(stream: Stream) -> None:
        while True:
            wants = [want for want in (await message_of(stream)).wants if not want.cancel]
            if wants and (pieces := answer(wants)):
                back = await hosts[0].open_stream(stream.peer, BITSWAP)
                await back.write(b"".join(pieces))
                await back.close()

    async with open_host(bytes([61]) * 32, LISTEN, {BITSWAP: serve}, dht=False) as host:
        hosts.append(host)
        yield host


def attempt(folder: Path, answer: Answer, root: Cid = ROOT, limits: Any = BRISK) -> tuple[str, int]:
    """Fetch from a peer that answers so; how that is refused, and how often it was called a liar."""
    found: list[Any] = []

    async def scenario() -> None:
        async with stage_liar(answer) as liar, fetching(folder, liar, limits) as (bitswap, store, host):
            with trio.fail_after(30):
                try:
                    await fetch(bitswap, store, liar.peer, root)
                except (Refused, PeerFault) as no:
                    found.append(getattr(no, "complaint", no))
            assert store.path(root) is None
            found.append(host.conduct().offences.get("blob", 0))

    run(scenario)
    no, offences = found
    return getattr(no, "cause", str(no)), offences


def test_a_block_that_does_not_match_is_a_lie(tmp_path: Path) -> None:
    def lie(wants: list[Want]) -> list[bytes]:
        return pack_answer([(Cid(wants[0].cid), b"other bytes")], [])

    assert attempt(tmp_path, lie) == ("it sent what nobody asked for", 1)


def test_a_peer_that_has_it_not_says_so(tmp_path: Path) -> None:
    def deny(wants: list[Want]) -> list[bytes]:
        return pack_answer([], [(want.cid, False) for want in wants])

    cause, offences = attempt(tmp_path, deny)
    assert (cause.startswith("it does not have baf"), offences) == (True, 0)


def test_a_peer_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    assert attempt(tmp_path, lambda _: [], limits=HASTY) == ("it answered nothing for 0.5 s", 0)


def test_a_peer_that_talks_and_answers_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def chat(stream: Stream) -> None:
            back = await hosts[0].open_stream(stream.peer, BITSWAP)
            while True:
                await back.write(b"\0", *pack_answer([], [(ROOT, True)]))
                await trio.sleep(HASTY.silence_seconds_max / 10)

        hosts: list[Host] = []
        async with (
            open_host(bytes([61]) * 32, LISTEN, {BITSWAP: chat}, dht=False) as talker,
            fetching(tmp_path, talker, HASTY) as (bitswap, store, _),
        ):
            hosts.append(talker)
            with trio.fail_after(30), pytest.raises(Refused) as no:
                await fetch(bitswap, store, talker.peer, ROOT)
            assert no.value.complaint.cause == "it answered nothing for 0.5 s"

    run(scenario)


def test_a_block_that_nobody_waits_for_any_more_is_called_off_once(tmp_path: Path) -> None:
    said: list[Want] = []

    async def scenario() -> None:
        async def serve(stream: Stream) -> None:
            while True:
                said.extend((await message_of(stream)).wants)

        async with (
            open_host(bytes([61]) * 32, LISTEN, {BITSWAP: serve}, dht=False) as mute,
            fetching(tmp_path, mute) as (bitswap, _, _),
            bitswap.session(PeerId(mute.peer)) as session,
        ):
            scopes = [trio.CancelScope() for _ in range(3)]

            async def ask(scope: trio.CancelScope, cid: Cid) -> None:
                with scope:
                    await session.block(cid, LEAF_BYTES)

            async with trio.open_nursery() as nursery:
                for scope in scopes[:2]:
                    nursery.start_soon(ask, scope, ROOT)
                await until(lambda: said)
                scopes[0].cancel()
                nursery.start_soon(ask, scopes[2], blob_cid(SMALL))
                await until(lambda: len(said) == 2)
                scopes[1].cancel()
                await until(lambda: len(said) == 3)
                assert said == [Want(ROOT), Want(blob_cid(SMALL)), Want(ROOT, say_no=True, cancel=True)]
                scopes[2].cancel()

    run(scenario)


def test_a_block_larger_than_ours_is_refused(tmp_path: Path) -> None:
    large = content_of(1, 1) + bytes(LEAF_BYTES)

    def give(_: list[Want]) -> list[bytes]:
        return pack_answer([(blob_cid(large), large)], [])

    cause, offences = attempt(tmp_path, give, blob_cid(large))
    assert (cause.endswith("is larger than a block of ours"), offences) == (True, 0)


def test_a_tree_of_other_rules_is_none_of_ours(tmp_path: Path) -> None:
    raw = b"\x0a\x02\x08\x02"  # UnixFS, an empty file

    def give(_: list[Want]) -> list[bytes]:
        return pack_answer([(root, raw)], [])

    root = Cid(TREE_PREFIX + blob_cid(raw)[4:])
    cause, offences = attempt(tmp_path, give, root)
    assert (cause.startswith("unixfs"), offences) == (True, 0)


def test_what_came_before_a_break_is_not_asked_for_again(tmp_path: Path) -> None:
    tree = tree_of(io.BytesIO(CONTENT).read)
    blocks = {Cid(BLOB_PREFIX + tree.digest(n)): CONTENT[n * LEAF_BYTES : (n + 1) * LEAF_BYTES] for n in range(3)}
    blocks[ROOT] = tree.nodes[0]
    last = Cid(BLOB_PREFIX + tree.digest(2))
    asked: list[Cid] = []
    whole = False

    def answer(wants: list[Want]) -> list[bytes]:
        asked.extend(Cid(want.cid) for want in wants)
        given = [Cid(want.cid) for want in wants if whole or want.cid != last]
        return pack_answer([(cid, blocks[cid]) for cid in given], [] if whole else [(last, False)])

    async def scenario() -> None:
        nonlocal whole
        async with stage_liar(answer) as giver, fetching(tmp_path, giver) as (bitswap, store, _):
            with pytest.raises(Refused, match="gives no more blocks"):
                await fetch(bitswap, store, giver.peer, ROOT, at_once=1)
            whole = True
            asked.clear()
            assert await fetch(bitswap, store, giver.peer, ROOT, at_once=1) == CONTENT
            assert asked == [last]

    run(scenario)


def test_a_peer_that_does_not_speak_it_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            open_host(bytes([61]) * 32, LISTEN, {}, dht=False) as mute,
            fetching(tmp_path, mute) as (bitswap, store, _),
        ):
            with pytest.raises(Refused) as no:
                await fetch(bitswap, store, mute.peer, ROOT)
            assert (no.value.complaint.code, no.value.complaint.cause) == (
                "E-p2p-66",
                "it does not speak bitswap 1.2.0",
            )

    run(scenario)
