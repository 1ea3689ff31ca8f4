"""Answers to `dim swarm …` of a running node.

Rule: the same rows with and without a node; a running one adds who is connected and whom it refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dimnode.api.port import Answer
from dimnode.errors import Refused
from dimnode.node.clock import wall_ms
from dimnode.node.gatekeeper import Gatekeeper
from dimnode.node.private_swarm import InviteWish, invite_answer, open_swarm, removed_answer
from dimnode.p2p.host.addresses import check_dial
from dimnode.records.ids import PeerId, peer_bytes, peer_text

if TYPE_CHECKING:
    from dimnode.node.node import Node

_NOTHING: Final = type(None)
SWARM_ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "swarm.invite": {
        "expires_ms": (int,),
        "uses": (int,),
        "member_ms": (int, _NOTHING),
        "label": (str, _NOTHING),
        "addresses": (list, _NOTHING),
    },
    "swarm.remove": {"target": (str,), "reason": (str, _NOTHING)},
}


class SwarmAnswers:
    """One method per operation."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.operations = {
            "swarm.show": self._show,
            "swarm.members": self._members,
            "swarm.invite": self._invite,
            "swarm.remove": self._remove,
        }

    def _gatekeeper(self) -> Gatekeeper:
        if self._node.gatekeeper is None:
            raise Refused("E-swarm-20", "this node is in the open swarm", "everybody may join it", "dim swarm new NAME")
        return self._node.gatekeeper

    async def _show(self, _: Mapping[str, Any]) -> Answer:
        if self._node.gatekeeper is None:
            away = {peer_text(peer): words for peer, words in self._node.open_door.turned_away_by.items()}
            return open_swarm(self._node.me) | {"running": True, "turned_away_by": away}
        return self._gatekeeper().describe()

    async def _members(self, _: Mapping[str, Any]) -> Answer:
        swarm, rows = self._gatekeeper().swarm, []
        for row in swarm.member_rows(wall_ms()):
            peer = peer_bytes(row["peer"])
            known = self._node.swarm.members.get(peer)
            name = self._node.config.name if row["me"] else known.name if known else ""
            rows.append({**row, "name": name, "linked": self._node.links.get(peer) is not None})
        return {"members": rows, "swarm": swarm.book.name}

    async def _invite(self, arguments: Mapping[str, Any]) -> Answer:
        gatekeeper = self._gatekeeper()
        assert self._node.host is not None
        addresses = arguments.get("addresses") or self._node.host.addresses()
        for address in addresses:
            check_dial(str(address))
        wish = InviteWish(
            arguments["expires_ms"],
            arguments["uses"],
            arguments.get("member_ms") or 0,
            arguments.get("label") or "",
            tuple(map(str, addresses)),
        )
        record, text = await gatekeeper.invite(wish)
        return invite_answer(record, text, wish.addresses, gatekeeper.swarm.book.name)

    async def _remove(self, arguments: Mapping[str, Any]) -> Answer:
        gatekeeper = self._gatekeeper()
        target = gatekeeper.swarm.find(arguments["target"], wall_ms(), self._named)
        made = await gatekeeper.remove(target, arguments.get("reason") or "")
        return removed_answer(made, gatekeeper.has_keys)

    def _named(self, name: str) -> list[PeerId]:
        mine = [self._node.me] if name == self._node.config.name else []
        return mine + [member.peer for member in self._node.swarm.members.alive(0.0) if member.name == name]
