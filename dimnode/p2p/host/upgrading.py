"""From a raw connection that we made or took ourselves to a live one: Noise, Yamux, libp2p's books.

Rule: whoever calls has the raw connection closed on every failure, and a peer other than the expected one is a failure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libp2p.network.swarm as swarm_module
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from dimnode.p2p.host.yamux import YamuxConnection


async def upgrade_as_dialler(swarm: Any, raw: Any, peer: ID) -> YamuxConnection:
    """Be the one who speaks first. Raises `SwarmException`, and nothing else."""
    if swarm.psk is not None:
        raw = swarm_module.new_protected_conn(raw, swarm.psk)
    try:
        with _one_failure():
            connection = await swarm.upgrade_outbound_raw_conn(raw, peer)
    except BaseException:
        await raw.close()
        raise
    muxed: YamuxConnection = connection.muxed_conn
    return muxed


async def upgrade_as_dialled(swarm: Any, raw: Any, peer: ID) -> YamuxConnection:
    """Be the one who is spoken to, and only by `peer`. Raises `SwarmException`, and nothing else.

    The class's own method: the one on the instance is the listener's, which stays until the connection ends.
    """
    ways = raw.get_transport_addresses()
    way = ways[0] if ways else Multiaddr("/ip4/0.0.0.0/tcp/0")
    with _one_failure():
        muxed: YamuxConnection = await type(swarm).upgrade_inbound_raw_conn(swarm, raw, way)
    if muxed.peer_id != peer:
        await muxed.close()
        raise SwarmException("another peer than the expected one")
    return muxed


@contextmanager
def _one_failure() -> Iterator[None]:
    """What a stranger's bytes make the handshake raise: libp2p words only what it expects, not a tag that is wrong."""
    try:
        yield
    except SwarmException:
        raise
    except Exception as error:  # boundary: carrier, cipher and parsers have many names for it
        raise SwarmException("the handshake failed") from error
