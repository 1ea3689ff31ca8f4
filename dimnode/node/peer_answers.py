"""Answers about peers: who is there and over which path, who is not linked and why, who is kept out.

Rule: every word about a peer says whose it is: measured here (path, round trip, clock), or claimed by the peer's signed
advert (name, agent, offers, addresses).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from dimnode.api.port import Answer
from dimnode.p2p.membership import Member
from dimnode.records.ids import peer_text
from dimnode.records.manifest import title_of

if TYPE_CHECKING:
    from dimnode.node.backstage import Backstage
    from dimnode.node.node import Node


class PeerAnswers:
    """One method per operation, as `Answers` has them."""

    def __init__(self, node: Node, backstage: Backstage) -> None:
        self._node, self._backstage = node, backstage
        self.operations = {
            "peers": self._peers,
            "peers.block": self._block,
            "peers.allow": self._allow,
            "peers.blocked": self._blocked,
        }

    async def _peers(self, _: Mapping[str, Any]) -> Answer:
        node, now = self._node, trio.current_time()
        alive = node.swarm.members.alive(now)
        alive.sort(key=lambda member: (not member.linked, member.name, member.peer))
        return {"peers": [self._row(member, now) for member in alive], "me": peer_text(node.me)}

    def _row(self, member: Member, now: float) -> dict[str, Any]:
        node, link = self._node, self._node.links.get(member.peer)
        assert node.host is not None
        return {
            "peer": peer_text(member.peer),
            "name": member.name,
            "linked": link is not None,
            "path": (node.host.path_of(member.peer) or "-") if link else "-",
            "why_not": "" if link else self._why_not(member),
            "linked_seconds": round(now - link.since, 1) if link else None,
            "heard_seconds_ago": round(now - member.heard_mono, 1) if member.heard_mono else None,
            "rtt_ms": round(link.rtt_ms, 2) if link and link.rtt_ms is not None else None,
            "clock_ahead_ms": clock_ahead_ms(node, member),
            "agent": member.agent,
            "models": [title_of(m) for i in member.models if (m := node.registry.manifests.get(i))],
            "cabinets": {name: list(columns) for name, columns in member.columns.items()},
            "slots": member.slots,
            "free_slots": member.free_slots,
            "load_percent": member.load_permille / 10,
            "jobs_per_second": member.jobs_per_second or None,
            "jobs_per_second_seen": node.watchers.most_per_second(member.peer) or None,
            "sandbox": member.sandbox,
            "runtimes": list(member.runtimes),
            "extras": None if member.extras is None else list(member.extras),
            "devices": member.devices,
            "addresses": list(member.addresses),
            "stream_bytes_in": link.stream.bytes_in if link else 0,
            "stream_bytes_out": link.stream.bytes_out if link else 0,
        }

    def _why_not(self, member: Member) -> str:
        node = self._node
        assert node.host is not None
        if reason := node.guests.refusal(member.peer, ""):
            return reason
        if member.peer in node.host.connected():
            return "connected, the link is being made"
        if len(node.links.all()) >= node.limits.peers.peers_max:
            return f"this node has links to {node.limits.peers.peers_max} peers, the most"
        failed = node.discovery.failure(member.peer) if node.discovery is not None else ""
        reasons = [node.links.parting(member.peer), f"cannot be dialled: {failed}" if failed else ""]
        return "; ".join(reason for reason in reasons if reason) or "not dialled yet"

    async def _block(self, arguments: Mapping[str, Any]) -> Answer:
        find_peer = self._backstage.find_peer
        return await self._node.guests.block(arguments["target"], arguments.get("reason") or "", find_peer)

    async def _allow(self, arguments: Mapping[str, Any]) -> Answer:
        return await self._node.guests.allow(arguments["target"], self._backstage.whole_peer)

    async def _blocked(self, _: Mapping[str, Any]) -> Answer:
        return self._node.guests.listed()


def clock_ahead_ms(node: Node, member: Member) -> float | None:
    """How far the peer's clock is ahead of ours: corrected by the round trip of a link, else as its heartbeat said."""
    link = node.links.get(member.peer)
    measured = link.clock.ahead_ms if link is not None else None
    if measured is None:
        measured = member.heartbeat_ahead_ms
    return None if measured is None else round(measured, 1)
