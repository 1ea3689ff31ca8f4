"""Bitswap in its node: which blocks IPFS peers may have here, and how a blob is fetched from one of them.

Rule: what is handed out is what anybody may fetch, by the rules of `/dim/blob/1`; no lease and no grant counts. In a
private swarm there is no bitswap, whatever the settings say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from dimnode.errors import DimError, PeerFault, Refused
from dimnode.limits import BitswapLimits
from dimnode.node.block_fetch import BlockFetch
from dimnode.node.connecting import not_reached
from dimnode.p2p.bitswap import Bitswap
from dimnode.p2p.bitswap_server import BitswapServer, BlockPlace
from dimnode.p2p.blob_server import Source
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, PeerId, blob_cid, cid_text
from dimnode.records.unixfs import DIGEST_BYTES, PROFILE
from dimnode.store.blobs import BlobStore

if TYPE_CHECKING:
    from dimnode.node.content import Source as ContentSource
    from dimnode.node.node import Node

log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.02


class PublicBlocks:
    """Where each block of the blobs is that everybody may have. `public` judges a root, now."""

    def __init__(self, store: BlobStore, public: Callable[[Cid], bool], limits: BitswapLimits) -> None:
        self._store, self._public, self._limits = store, public, limits
        self._roots: frozenset[Cid] = frozenset()
        self._places: dict[Cid, BlockPlace] = {}
        self._turn = trio.Lock()
        self._looked_at = float("-inf")
        self.changes = 0

    async def look_again(self) -> None:
        """Take in what is new, at most every so often: a look that began after the question is an answer to it, too."""
        asked_at = trio.current_time()
        async with self._turn:
            if self._looked_at >= asked_at:
                return
            await trio.sleep_until(self._looked_at + self._limits.index_again_seconds)
            self._looked_at = trio.current_time()
            try:
                here = await trio.to_thread.run_sync(self._store.all)
                roots = frozenset(blob.root for blob in here if self._public(blob.root))
                if roots != self._roots:
                    self._places = await trio.to_thread.run_sync(self._placed, sorted(roots))
                    self._roots, self.changes = roots, self.changes + 1
            except (DimError, OSError) as error:  # a full or damaged disk ends no node: it is looked at again
                log.warning("bitswap: what is here cannot be looked at now: %s", error)

    def _placed(self, roots: list[Cid]) -> dict[Cid, BlockPlace]:
        """Blocks. The smallest blobs are not preferred: beyond the bound what comes is not found here."""
        found: dict[Cid, BlockPlace] = {}
        for root in roots:
            tree = self._store.tree(root)
            if tree is None:
                continue
            if len(found) + tree.layout.leaves > self._limits.blocks_indexed_max:
                log.warning("bitswap: there is no room to hand out %s", cid_text(root))
                continue
            for number, raw in enumerate(tree.nodes):
                found[Cid(TREE_PREFIX + blob_cid(raw)[-DIGEST_BYTES:])] = BlockPlace(root, number, True)
            for leaf in range(tree.layout.leaves):
                found[Cid(BLOB_PREFIX + tree.digest(leaf))] = BlockPlace(root, leaf, False)
        return found

    def place(self, cid: Cid) -> BlockPlace | None:
        """See `bitswap_server.Blocks`."""
        found = self._places.get(cid)
        return found if found is not None and self._public(found.root) else None

    def open(self, root: Cid) -> Source | None:
        """See `bitswap_server.Blocks`. Blocks."""
        try:
            return self._store.reader(root)
        except DimError as error:
            log.warning("bitswap: %s cannot be read now: %s", cid_text(root), error)
            return None


def bitswap_of(node: Node) -> Bitswap | None:
    """What this node's settings ask for; None when that is nothing."""
    config, limits = node.config.bitswap, node.limits.bitswap
    if not (config.serve or config.fetch):
        return None
    if node.gatekeeper is not None:
        log.warning("[bitswap] is of no effect in a private swarm")
        return None
    content = node.content
    blocks = PublicBlocks(content.store, content.public, limits)
    server = BitswapServer(blocks, content.server.places, limits) if config.serve else None
    return Bitswap(server, limits)


def figures(bitswap: Bitswap | None) -> Mapping[str, int]:
    """For `dim blobs stat`; empty when IPFS peers are not answered here."""
    if bitswap is None or bitswap.server is None:
        return {}
    served = bitswap.server.served
    return {
        "bitswap_blocks": served.leaves,
        "bitswap_bytes": served.bytes,
        "bitswap_peers": bitswap.guests(),
        "bitswap_unmet": bitswap.server.unmet(),
    }


async def peer_at(node: Node, address: str) -> PeerId:
    """Connect to the peer at a multiaddress; returns when it has a link, or is likely to get none.

    Raises `Refused` E-p2p-01 when it is not reached.
    """
    assert node.host is not None
    named = node.host.hint([address])
    if not named:
        raise Refused("E-p2p-01", f"{address[:200]!r} names no other peer", "", "/ip4/ADDRESS/tcp/PORT/p2p/PEER")
    peer = PeerId(named[0])
    if node.bitswap is not None:
        node.bitswap.expect(peer)
    try:
        await node.host.connect(address)
    except DialFailed as error:
        raise not_reached(address, error.reason) from None
    with trio.move_on_after(node.limits.bitswap.link_seconds_max):
        while node.links.get(peer) is None and not node.links.is_foreign(peer):  # noqa: ASYNC110 links tell one listener
            await trio.sleep(_LOOK_SECONDS)
    return peer


def blocks_from(node: Node, peer: PeerId) -> ContentSource:
    """An IPFS peer that is connected, as a place to fetch a blob from. Raises `Refused` E-p2p-67."""
    bitswap, content = node.bitswap, node.content
    if bitswap is None or not node.config.bitswap.fetch:
        what = "an IPFS peer is asked only when the settings allow it"
        raise Refused("E-p2p-67", what, "", "fetch = true in [bitswap] of config.toml; not in a private swarm")

    async def take(root: Cid, size_bytes: int | None, tell: Callable[[int, int], None]) -> bool:
        async with bitswap.session(peer) as session:
            fetch = BlockFetch(session, content.store, node.limits.bitswap.blocks_asked_max)
            try:
                await fetch.fetch(root, size_bytes, tell)
            except PeerFault as fault:
                cause = f"{fault.rule}: it was made by other rules than {PROFILE}"
                raise Refused("E-p2p-62", f"{cid_text(root)} is no blob that this version takes", cause, "") from None
        return True

    return take
