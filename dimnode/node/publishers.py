"""Publishers by name, and what they publish: from their indexes, and from what peers were heard to offer.

Rule: an index adds to the search and takes nothing away: what was heard by advert is listed without one, and what its
publisher withdrew is listed by neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dimnode.api.port import Answer
from dimnode.errors import Complaint, Refused
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, cid_text, meant_by, named_by, peer_text
from dimnode.records.ipns import Name

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node


class Publishers:
    """Of one node."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage

    def find(self, name: str) -> PeerId:
        """Who is meant: a peer, or a publisher by the last letters of its id. Raises `Refused` E-models-41."""
        letters = name.removeprefix("…")
        try:
            return self._backstage.find_peer(letters)
        except Refused as no:
            heard = {record.by for record in self._node.registry.manifests.values()}
            known = heard.union(self._node.indexes.publishers())
            fitting = [peer for peer in known if named_by(peer, letters)]
            if len(fitting) == 1:
                return fitting[0]
            meant = meant_by(known, letters)
            cause = f"of {meant}" if meant else f"{no.complaint.what}, and nothing was heard of such a publisher"
            raise Refused("E-models-41", f"unknown publisher {name!r}", cause, "give its whole peer id") from None

    async def models_of(self, name: str) -> tuple[list[Record], Answer]:
        """What a publisher publishes and has not withdrawn, and what is to be said of its index.

        Raises `Refused`: `find`, or `Indexes.resolve` when nothing else was heard of it.
        """
        publisher, registry = self.find(name), self._node.registry
        own = publisher == self._node.me
        problem: Complaint | None = None
        about: Answer | None = own_index(self._node) if own else None
        listed: Sequence[Record] = registry.published()[0] if own else ()
        if not own:
            try:
                found = await self._node.indexes.resolve(publisher)
                about, listed = _about(found.name, found.root, found.index.left_out), found.index.manifests
            except Refused as no:
                problem = no.complaint
        heard = [record for record in registry.manifests.values() if record.by == publisher]
        records = {
            record.id: record for record in (*listed, *heard) if registry.withdrawn(publisher, record.id) is None
        }
        if problem is not None and not records:
            raise Refused(problem.code, problem.what, problem.cause, problem.hint)
        words = None if problem is None else _words(problem)
        return list(records.values()), {"publisher": peer_text(publisher), "index": about, "problem": words}

    async def look_up(self, name: str, find: Callable[[str], Record]) -> Record:
        """`find(name)`, and when nothing of it was heard, the same after a look into its publisher's index."""
        try:
            return find(name)
        except Refused as no:
            publisher = name.rpartition("/")[0]
            if no.complaint.code != "E-models-01" or not publisher:
                raise
            unheard = no
        try:
            whose = self.find(publisher)
        except Refused:
            raise unheard from None
        if whose == self._node.me:
            raise Refused(
                "E-models-01", f"unknown model {name!r}", "this node offers none of this name", "dim models ls"
            )
        await self._node.indexes.resolve(whose)
        try:
            return find(name)
        except Refused as no:
            if no.complaint.code != "E-models-01":
                raise
        cause = "it is not in its publisher's index, and no peer told of it"
        if not peer_text(whose).endswith(publisher):
            cause = (
                f"{publisher!r} is what a peer calls itself, as any other may; say its peer id, or the last 12 letters"
            )
        raise Refused("E-models-01", f"unknown model {name!r}", cause, f"dim models ls --publisher {peer_text(whose)}")


def own_index(node: Node) -> Answer | None:
    """What this node tells the swarm of what it publishes; None before it published anything."""
    record, root = node.own_index.record, node.own_index.root
    if record is None or root is None:
        return None
    return _about(record, root, 0) | {"kept_by": node.own_index.kept_by}


def _about(name: Name, root: Cid, left_out: int) -> dict[str, Any]:
    return {
        "root": cid_text(root),
        "sequence": name.sequence,
        "valid_until_ms": name.valid_until_ms,
        "left_out": left_out,
    }


def _words(said: Complaint) -> Answer:
    return {"code": said.code, "what": said.what, "cause": said.cause, "hint": said.hint}
