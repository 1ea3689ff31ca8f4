"""Work that a peer's words began: a mistake of ours in it ends that work, not the node.

What a peer may do wrong has names (`PeerFault`, `StreamLost`, `DialFailed` …), and each place deals with those that it
expects. This is for what nobody expected: whoever finds a value that we did not think of is not to have a way to end
nodes with it. Rule: here go tasks that one peer's words start, each of which may come to nothing at any time; never
the loop, the journal or anything on which the node's own promises rest.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

from dimnode.records.ids import PeerId, peer_text

log = logging.getLogger(__name__)

Arguments = TypeVarTuple("Arguments")


async def contained(peer: PeerId, work: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
    """Do `work` for this peer. What it raises is logged with the peer, and is over; a cancel goes through."""
    try:
        await work(*arguments)
    except Exception:  # boundary: see the module
        log.exception("a mistake of dimnode's in work for a peer, which ends here", extra={"peer": peer_text(peer)})
