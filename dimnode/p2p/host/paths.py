"""Which way a connection takes: dialled by us, dialled by the peer, or through a relay.

Rule: a path is what the connection is, not what somebody claims: the carrier below the Noise session tells.
"""

from typing import Any, Final, Literal

from libp2p.connection_types import ConnectionType
from libp2p.network.connection.raw_connection import RawConnection

Path = Literal["direct", "reverse", "relayed"]

_RANK: Final = {"direct": 0, "reverse": 1, "relayed": 2}


class PunchedConnection(RawConnection):
    """A TCP connection that both sides opened at the same moment, through their NAT boxes."""


def carrier_of(muxed: Any) -> Any:
    """What carries a connection's ciphertext: below Noise, and below the pre-shared key of a private swarm."""
    carrier = muxed.session.carrier
    while not isinstance(carrier, RawConnection) and hasattr(carrier, "_carrier"):
        carrier = carrier._carrier
    return carrier


def path_of_connection(muxed: Any) -> Path:
    """`direct`: we dialled it, or both did. `reverse`: the peer dialled it. `relayed`: it runs inside a circuit."""
    carrier = carrier_of(muxed)
    if carrier.get_connection_type() is ConnectionType.RELAYED:
        return "relayed"
    if muxed.is_initiator or isinstance(carrier, PunchedConnection):
        return "direct"
    return "reverse"


def rank(muxed: Any) -> int:
    """For sorting: relayed connections come last."""
    return _RANK[path_of_connection(muxed)]


def relayed(muxed: Any) -> bool:
    """True inside a circuit."""
    return path_of_connection(muxed) == "relayed"
