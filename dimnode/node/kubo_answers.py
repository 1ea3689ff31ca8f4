"""The Kubo bridge in its node: what the node offers to it, and the answers to `dim kubo …`.

Rule: what goes there is chosen here and nowhere else: public models that were not withdrawn, and receipts of own jobs
that the swarm may know of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dimnode.api.port import Answer
from dimnode.node.kubo import KuboBridge
from dimnode.node.receipts import make_receipt
from dimnode.records.envelope import Record, open_envelope
from dimnode.records.ids import RecordId, cid_text
from dimnode.records.manifest import Manifest

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node

_NOTHING: Final = type(None)
KUBO_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {"kubo.push": {"job": (str, bytes, _NOTHING)}}
_ENDS: Final = "FROM records r JOIN ends e ON e.verdict = r.id"


class NodeOffers:
    """`kubo.Offers` of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def models(self) -> Sequence[Record]:
        """See `Offers`."""
        library, registry = self._node.library, self._node.registry
        return [
            model.manifest
            for model in library.models.values()
            if Manifest.of(model.manifest).access == "public"
            and registry.withdrawn(model.manifest.by, model.manifest.id) is None
        ]

    def receipts(self, after: int, most: int) -> Sequence[tuple[int, RecordId, bool]]:
        """See `Offers`."""
        query = f"SELECT r.seq, e.job {_ENDS} WHERE r.seq > ? ORDER BY r.seq LIMIT ?"
        rows = self._node.journal.rows(query, (after, most))
        return [(row, RecordId(job), self.for_all(RecordId(job))) for row, job in rows]

    def last_receipt(self) -> int:
        """See `Offers`."""
        return int(self._node.journal.rows(f"SELECT COALESCE(MAX(r.seq), 0) {_ENDS}")[0][0])

    def receipt(self, job: RecordId) -> bytes:
        """See `Offers`."""
        return make_receipt(self._node.journal, job)

    def for_all(self, job: RecordId) -> bool:
        """Whether the swarm may know of the job."""
        envelope = self._node.journal.envelope(job)
        if envelope is None:
            return False
        return bool(open_envelope(envelope, check_signature=False).payload.get("visibility") == "swarm")


def bridge_of(node: Node) -> KuboBridge:
    """The bridge of this node, which is one more place that its content comes from."""
    offers, private = NodeOffers(node), node.gatekeeper is not None
    config, home, limits = node.config.kubo, node.home, node.limits.kubo
    bridge = KuboBridge(config, home, node.me, node.net, node.blobs, offers, private=private, limits=limits)
    node.content.sources.append(bridge.take)
    return bridge


class KuboAnswers:
    """One method per operation."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self.operations = {"kubo.status": self._status, "kubo.push": self._push}

    async def _status(self, _: Mapping[str, Any]) -> Answer:
        return dict(await self._node.kubo.look())

    async def _push(self, arguments: Mapping[str, Any]) -> Answer:
        bridge = self._node.kubo
        if arguments.get("job"):
            job = self._backstage.find_job(arguments["job"])
            root = await bridge.push_job(job, NodeOffers(self._node).for_all(job))
            return {"added": [f"receipt of {cid_text(job)}"], "root": root, **bridge.status()}
        return {"added": await bridge.push_all(), **bridge.status()}
