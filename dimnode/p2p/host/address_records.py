"""Signed address records of libp2p, made once and not looked at again and again.

Stock puts its record into every message of gossip, identify and the DHT. It compares the record with the addresses of
the moment by parsing both, and whoever receives it checks the signature, for each message anew. Identify tells a peer's
addresses once for each connection, and an address is proved by dialling it.

Rule: what we send stays what stock sends; what comes with gossip is not read.
"""

from typing import Any

import libp2p.identity.identify.identify as identify_module
import libp2p.kad_dht.kad_dht as kad_module
import libp2p.pubsub.gossipsub as gossipsub_module
import libp2p.pubsub.pubsub as pubsub_module
from libp2p.peer.peerstore import issue_and_cache_local_record
from libp2p.pubsub.utils import maybe_consume_signed_record as stock_consume


class Kept:
    """The record of one host, and the addresses it was made for."""

    __slots__ = ("addresses", "record")

    def __init__(self, addresses: tuple[bytes, ...], record: bytes) -> None:
        self.addresses, self.record = addresses, record


def record_of(host: Any) -> tuple[bytes, bool]:
    """The host's signed record, and whether it was made just now (libp2p's `env_to_send_in_RPC`)."""
    addresses = tuple(address.to_bytes() for address in host.get_addrs())
    kept: Kept | None = getattr(host, "kept_record", None)
    if kept is not None and kept.addresses == addresses:
        return kept.record, False
    host.kept_record = Kept(addresses, issue_and_cache_local_record(host))
    return host.kept_record.record, True


def take_no_record(message: Any, host: Any, peer: Any) -> bool:
    """Whether a gossip message may be read: a host of ours does not look at the record that comes with it."""
    return hasattr(host, "acceptor") or bool(stock_consume(message, host, peer))


def install() -> None:
    """Put both into the modules that call them. Idempotent."""
    for module in (identify_module, kad_module, gossipsub_module, pubsub_module):
        module.env_to_send_in_RPC = record_of
    for module in (gossipsub_module, pubsub_module):
        module.maybe_consume_signed_record = take_no_record
