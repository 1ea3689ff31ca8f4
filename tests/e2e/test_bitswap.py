"""Real nodes and a peer that speaks bitswap alone, as IPFS nodes do: it gets what is everybody's, and nothing else."""

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from dimnode.demo.assets_index import read_model_card
from dimnode.demo.setting import card_map
from dimnode.errors import DimError, Refused
from dimnode.limits import LIMITS
from dimnode.node.bitswap import PublicBlocks
from dimnode.p2p.bitswap import Bitswap
from dimnode.p2p.bitswap_server import BitswapServer
from dimnode.p2p.bitswap_words import BITSWAP
from dimnode.p2p.blob_places import Places
from dimnode.p2p.host.host import Host, ProtocolRefused, open_host
from dimnode.p2p.introduction import INFO
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import Cid, PeerId, cid_bytes, cid_text, peer_bytes
from dimnode.records.unixfs import LEAF_BYTES, root_of
from dimnode.store.blobs import BlobStore
from tests.e2e.cli_nodes import dim
from tests.e2e.harness import LINK_SECONDS, MODEL, Nodes, RealNode, real_nodes

pytestmark = pytest.mark.slow
NUMBERS = (1, 200)
"""Keys of IPFS peers; the node links from one side only, so both sides of its id are tried."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("bitswap")
    (folder / "alba").mkdir(mode=0o700)
    (folder / "alba" / "config.toml").write_text("[bitswap]\nserve = true\nfetch = true\n")
    with real_nodes(folder, {"alba": True, "brio": False}) as started:
        yield started


@asynccontextmanager
async def ipfs_peer(folder: Path, number: int, *contents: bytes) -> AsyncIterator[tuple[Host, Bitswap]]:
    """A host that speaks bitswap and nothing of ours, and has these files."""
    os.makedirs(folder, exist_ok=True)
    with BlobStore(folder, 2**40) as store:
        for content in contents:
            store.add(io.BytesIO(content))
        blocks = PublicBlocks(store, lambda _: True, LIMITS.bitswap)
        bitswap = Bitswap(BitswapServer(blocks, Places()), LIMITS.bitswap)
        handlers = {BITSWAP: bitswap.serve}
        async with (
            open_host(bytes([number]) * 32, ["/ip4/127.0.0.1/tcp/0"], handlers, dht=False) as host,
            trio.open_nursery() as nursery,
        ):
            bitswap.attach(host, nursery, lambda _: False)
            yield host, bitswap
            nursery.cancel_scope.cancel()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(LINK_SECONDS):
            await scenario()

    trio.run(bounded)


def restricted_root(node: RealNode) -> Cid:
    """The weights of a restricted model that the node has."""
    card = read_model_card(MODEL)
    model = node.client.add_model({**card_map(card), "name": "kept", "access": "restricted"}, card.path)["model"]
    shown: Any = node.client.ask("models.show", model=model)
    return Cid(cid_bytes(shown["files"][0]["root"]))


@pytest.mark.parametrize("number", NUMBERS)
def test_an_ipfs_peer_stays_and_gets_what_is_shared_and_no_more(nodes: Nodes, tmp_path: Path, number: int) -> None:
    alba = nodes["alba"]
    content = os.urandom(2 * LEAF_BYTES + 5)
    (tmp_path / "shared").write_bytes(content)
    (tmp_path / "kept").write_bytes(content[:1000])
    alba.client.ask("blobs.add", path=str(tmp_path / "shared"), pin=True, share=True)
    kept = Cid(cid_bytes(alba.client.ask("blobs.add", path=str(tmp_path / "kept"), pin=True, share=False)["blob"]))
    restricted = restricted_root(alba) if number == NUMBERS[0] else kept

    async def scenario() -> None:
        async with ipfs_peer(tmp_path / "peer", number) as (host, bitswap):
            peer = await host.connect(alba.addresses[0])
            async with bitswap.session(PeerId(peer)) as session:
                leaf = await session.block(root_of(content[:LEAF_BYTES]), LEAF_BYTES)
                assert leaf == content[:LEAF_BYTES]
                assert len(await session.block(root_of(content), LEAF_BYTES)) < 1000
                for root in (kept, restricted):
                    with pytest.raises(Refused, match="gives no more blocks"):
                        await session.block(root, LEAF_BYTES)
            assert peer in host.connected()
            for protocol in (INFO, "/ipfs/kad/1.0.0", "/dim/blob/1"):
                with pytest.raises(ProtocolRefused):
                    await host.open_stream(peer, protocol)

    run(scenario)
    assert alba.client.ask("blobs.stat")["bitswap_bytes"] > LEAF_BYTES


def test_a_node_with_default_settings_does_not_speak_it(nodes: Nodes, tmp_path: Path) -> None:
    brio = nodes["brio"]
    # The smaller id opens the link: the node waits for this one, and does not close the connection at once.
    smaller = next(n for n in range(256) if SigningKey.from_seed(bytes([n]) * 32).peer < peer_bytes(brio.peer))

    async def scenario() -> None:
        async with ipfs_peer(tmp_path, smaller) as (host, _):
            await host.connect(brio.addresses[0])
            with pytest.raises(ProtocolRefused):
                await host.open_stream(peer_bytes(brio.peer), BITSWAP)

    run(scenario)
    assert "bitswap_bytes" not in brio.client.ask("blobs.stat")


def test_a_blob_is_fetched_from_the_ipfs_peer_at_an_address(nodes: Nodes, tmp_path: Path) -> None:
    content = os.urandom(3 * LEAF_BYTES + 5)
    alba, brio, blob = nodes["alba"], nodes["brio"], cid_text(root_of(content))

    async def scenario() -> None:
        async with ipfs_peer(tmp_path, NUMBERS[1], content) as (host, _):
            ask = {"blob": blob, "peers": host.addresses()[:1], "pin": False, "share": False}
            with pytest.raises(DimError, match="E-p2p-67"):
                await trio.to_thread.run_sync(lambda: brio.client.ask("blobs.get", **ask))
            found = await trio.to_thread.run_sync(lambda: alba.client.ask("blobs.get", **ask))
            assert await trio.Path(found["path"]).read_bytes() == content
            for row, code in ((blob.upper(), "E-p2p-65"), (cid_text(root_of(b"nobody's")), "E-p2p-66")):
                with pytest.raises(DimError, match=code):
                    await trio.to_thread.run_sync(lambda row=row: alba.client.ask("blobs.get", **{**ask, "blob": row}))

    run(scenario)


def test_the_address_of_a_dimnode_is_asked_as_a_dimnode(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(os.urandom(LEAF_BYTES + 1))
    alba, brio = nodes["alba"], nodes["brio"]
    blob = alba.client.ask("blobs.add", path=str(tmp_path / "shared"), pin=True, share=True)["blob"]
    found = brio.client.ask("blobs.get", blob=blob, peers=[alba.addresses[0]], pin=False, share=False)
    assert Path(found["path"]).read_bytes() == (tmp_path / "shared").read_bytes()


def test_there_is_no_bitswap_in_a_private_swarm(tmp_path: Path) -> None:
    home = tmp_path / "cara"
    node = RealNode("cara", home, execute=False)
    try:
        assert dim("swarm", "new", "clinic", "--home", home).code == 0
        (home / "config.toml").write_text("[bitswap]\nserve = true\nfetch = true\n")
        node.launch()
        node.wait_ready()
        assert "bitswap_bytes" not in node.client.ask("blobs.stat")
        assert "no effect in a private swarm" in node.log.read_text()
    finally:
        node.kill()
        node.close()
