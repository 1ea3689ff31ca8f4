"""Answers about blobs: add, get, list, pin, let go.

Rule: a CID is read strictly here, at the door: no other spelling of the same bytes goes further in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from dimnode.api.port import Answer
from dimnode.errors import PeerFault, Refused
from dimnode.node.bitswap import blocks_from, figures, peer_at
from dimnode.node.content import SHARED, Source
from dimnode.records.ids import Cid, PeerId, cid_bytes, cid_text, ends_wrongly, is_cid
from dimnode.store.blob_files import USER_PIN

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node

_NOTHING: Final = type(None)
_CID: Final[Mapping[str, tuple[type, ...]]] = {"blob": (str,)}
BLOB_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "blobs.add": {"path": (str,), "pin": (bool, _NOTHING), "share": (bool, _NOTHING)},
    "blobs.get": {**_CID, "peers": (list, _NOTHING), "pin": (bool, _NOTHING), "share": (bool, _NOTHING)},
    "blobs.pin": {**_CID, "reason": (str, _NOTHING)},
    "blobs.unpin": {**_CID, "reason": (str, _NOTHING)},
    "blobs.rm": _CID,
    "blobs.verify": _CID,
    "blobs.gc": {"bytes": (int, _NOTHING)},
}


def read_cid(text: str) -> Cid:
    """The CID of its text. Raises `Refused` E-p2p-65 for another spelling, another kind, or none."""
    try:
        raw = cid_bytes(text)
        if is_cid(raw):
            return Cid(raw)
    except PeerFault:
        pass
    cause = "a blob's CID is version 1 in lower-case base32, sha2-256, raw or dag-pb: it begins with bafkrei or bafybei"
    if text.startswith("Qm") and len(text) == 46:
        cause = "this is a CID of version 0; the same bytes added by the profile unixfs-v1-2025 have another one"
    elif ends_wrongly(text):
        cause = "its last letter was altered: no CID ends so; copy it again"
    raise Refused("E-p2p-65", f"{text[:80]!r} is no CID of a blob", cause, "dim blobs ls")


class BlobAnswers:
    """One method per operation, as `Answers` has them."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._content, self._store, self._backstage = node.content, node.content.store, backstage
        self._models, self._node = node.models, node
        self.operations = {
            "blobs.add": self._add,
            "blobs.get": self._get,
            "blobs.ls": self._ls,
            "blobs.pin": self._pin,
            "blobs.unpin": self._unpin,
            "blobs.rm": self._remove,
            "blobs.verify": self._verify,
            "blobs.gc": self._gc,
            "blobs.stat": self._stat,
            "blobs.progress": self._progress,
        }

    async def _add(self, asked: Mapping[str, Any]) -> Answer:
        pin = "" if asked.get("pin") is False else USER_PIN
        if "\0" in asked["path"]:
            raise Refused("E-store-32", "no file has a name with a NUL in it", "", "name the file itself")
        return await self._content.add(Path(asked["path"]), pin, bool(asked.get("share")))

    async def _get(self, asked: Mapping[str, Any]) -> Answer:
        root = read_cid(asked["blob"])
        names = [str(name) for name in asked.get("peers") or []]
        peers = [self._backstage.find_peer(name) for name in names if not name.startswith("/")]
        first = await self._at([name for name in names if name.startswith("/")], peers)
        path = await self._content.fetch(root, None, peers, pin=USER_PIN if asked.get("pin") else "", first=first)
        if asked.get("share"):
            await trio.to_thread.run_sync(self._content.share, root)
            self._content.announce(root)
        size = (await trio.to_thread.run_sync(path.stat)).st_size
        return {"blob": cid_text(root), "bytes": size, "path": str(path)}

    async def _at(self, addresses: list[str], peers: list[PeerId]) -> Source | None:
        """Connect to who is at these addresses: a dimnode is one more of `peers`, an IPFS peer is asked first."""
        first: Source | None = None
        for address in addresses:
            peer = await peer_at(self._node, address)
            if self._node.links.get(peer) is not None:
                peers.append(peer)
            else:
                first = blocks_from(self._node, peer)
        return first

    async def _ls(self, _: Mapping[str, Any]) -> Answer:
        blobs, pins = await trio.to_thread.run_sync(lambda: (self._store.all(), self._store.pins()))
        rows = [
            {
                "blob": cid_text(blob.root),
                "bytes": blob.bytes,
                "pins": pins.get(blob.root, []),
                "shared": SHARED in pins.get(blob.root, []),
                "added_ms": blob.added_ms,
                "used_ms": blob.used_ms,
            }
            for blob in reversed(blobs)
        ]
        here = {blob.root for blob in blobs}
        wanted = [{"blob": cid_text(root), "pins": reasons} for root, reasons in pins.items() if root not in here]
        return {"blobs": rows, "wanted": wanted}

    async def _pin(self, asked: Mapping[str, Any]) -> Answer:
        root, reason = read_cid(asked["blob"]), asked.get("reason") or USER_PIN
        if reason == SHARED:
            await trio.to_thread.run_sync(self._content.share, root)
            self._content.announce(root)
        else:
            await trio.to_thread.run_sync(self._store.pin, root, reason)
        return await self._pins_of(root)

    async def _unpin(self, asked: Mapping[str, Any]) -> Answer:
        root, reason = read_cid(asked["blob"]), asked.get("reason") or USER_PIN
        found = await self._pins_of(root)
        if reason not in found["pins"]:
            cause = f"it is pinned for: {', '.join(found['pins'])}" if found["pins"] else "it is not pinned at all"
            raise Refused("E-store-42", f"there is no pin {reason!r} on {cid_text(root)}", cause, "dim blobs ls")
        if reason == SHARED:
            self._content.withdraw(await trio.to_thread.run_sync(self._content.unshare, root))
        else:
            await trio.to_thread.run_sync(self._store.unpin, root, reason)
        return await self._pins_of(root)

    async def _pins_of(self, root: Cid) -> Answer:
        pins = await trio.to_thread.run_sync(self._store.pins, root)
        return {"blob": cid_text(root), "pins": next(iter(pins.values()), [])}

    async def _remove(self, asked: Mapping[str, Any]) -> Answer:
        blob = await trio.to_thread.run_sync(self._store.remove, read_cid(asked["blob"]))
        return {"blob": cid_text(blob.root), "bytes": blob.bytes}

    async def _verify(self, asked: Mapping[str, Any]) -> Answer:
        root = read_cid(asked["blob"])
        return {"blob": cid_text(root), "holds": await self._content.verify(root, cid_text(root))}

    async def _gc(self, asked: Mapping[str, Any]) -> Answer:
        gone = await trio.to_thread.run_sync(self._store.gc, asked.get("bytes"))
        return {"removed": [cid_text(blob.root) for blob in gone], "bytes": sum(blob.bytes for blob in gone)}

    async def _stat(self, _: Mapping[str, Any]) -> Answer:
        said = await trio.to_thread.run_sync(self._store.stat)
        served = self._content.server.served
        return {
            "blobs": said.blobs,
            "bytes": said.bytes,
            "pinned_bytes": said.pinned_bytes,
            "unpinned_bytes_max": said.bytes_max,
            "parts": said.parts,
            "part_bytes": said.part_bytes,
            "free_bytes": said.free_bytes,
            "foreign": list(said.foreign),
            "served_leaves": served.leaves,
            "served_bytes": served.bytes,
            "refused": served.refused,
            "fetching": len(self._content.progress()),
            **figures(self._node.bitswap),
        }

    async def _progress(self, _: Mapping[str, Any]) -> Answer:
        return {"progress": [*self._content.progress(), *self._models.progress()]}
