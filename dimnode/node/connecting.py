"""An operator's `dim connect`: dial, and wait until the other side has taken this node in or turned it away.

Rule: a connection is no welcome. A node of a private swarm lets anybody connect and says only later that it wants a
membership; whoever asked hears that, not "connected".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from dimnode.api.port import Answer
from dimnode.errors import ConfigError, Refused
from dimnode.p2p.blocklist import parse_target
from dimnode.p2p.host.addresses import check_dial
from dimnode.p2p.host.multistream import OTHER_ANSWER
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import PeerId, peer_text

if TYPE_CHECKING:
    from dimnode.node.node import Node

_FORM: Final = "/ip4/ADDRESS/tcp/PORT/p2p/12D3KooW…, as `dim up` prints it there"
_SAME_SWARM: Final = "dim swarm show here and there: both have to be in one swarm; an admin of it makes invitations"
_LOOK_SECONDS: Final = 0.02


async def connect(node: Node, address: str) -> Answer:
    """The peer that answered; `dialled`: it was not connected before, `linked`: it works with this node, `tried`: the
    connection in use is one that was made at this address. Raises `Refused`: E-p2p-01, E-peers-08, or the code with
    which the other side turned this node away."""
    assert node.host is not None
    try:
        check_dial(address)
    except ConfigError as error:
        cause = error.complaint.cause
        raise Refused("E-p2p-01", f"{address[:200]!r} is no address of a peer", cause, _FORM) from None
    target = parse_target(address)
    if isinstance(target, bytes) and (reason := node.guests.refusal(target, "")):
        hint = f"dim peers allow {peer_text(target)}"
        raise Refused("E-peers-08", f"not dialled: {address}", reason, hint)
    before = set(node.host.connected())
    if isinstance(target, bytes):
        node.open_door.turned_away_by.pop(target, None)  # of an earlier visit: it may have changed its mind
    try:
        peer = PeerId(await node.host.connect(address))
    except DialFailed as error:
        raise not_reached(address, error.reason) from None
    linked = await _taken_in(node, peer, address)
    tried = peer not in before or address in node.host.proven(peer)
    return {"peer": peer_text(peer), "dialled": peer not in before, "linked": linked, "tried": tried}


def not_reached(address: str, reason: str) -> Refused:
    """Why a dial came to nothing: in another swarm nobody is at fault, and only words tell it from a broken network."""
    if said := re.search(r"\b(E-swarm-\d\d): (.*)", reason):
        words = f"it says: {said[2]}" if "said by" in said[2] else said[2]
        return Refused(said[1], f"{address} does not take this node in", words, _SAME_SWARM)
    if OTHER_ANSWER in reason:
        cause = "what answers there is no dimnode, or is in a swarm with a pre-shared key that this node does not have"
        return Refused("E-p2p-01", f"cannot reach {address}", cause, _SAME_SWARM)
    return Refused("E-p2p-01", f"cannot reach {address}", reason, "dim doctor")


async def _taken_in(node: Node, peer: PeerId, address: str) -> bool:
    """Whether a link stands by the time at which a peer must have said no. Raises `Refused` with its no."""
    assert node.host is not None
    bounds = node.limits.swarm
    with trio.move_on_after(bounds.admission_seconds_max + bounds.announce_seconds_max):
        while node.links.get(peer) is None:
            if (words := node.open_door.turned_away_by.get(peer)) is not None:
                code, _, reason = words.partition(": ")
                hint = "dim swarm join INVITATION: an admin of that swarm makes one"
                raise Refused(code, f"{address} does not take this node in", reason, hint)
            if peer not in node.host.connected():
                cause = node.links.parting(peer) or "the other side ended the connection"
                raise Refused("E-p2p-01", f"no connection stays to {address}", cause, "dim doctor")
            await trio.sleep(_LOOK_SECONDS)
    return node.links.get(peer) is not None
