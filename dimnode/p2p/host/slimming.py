"""Parts of libp2p that are never used here are not imported: they bring three HTTP clients and a second mDNS.

Rule: `leave_out` runs before the first import of libp2p, and what stands in for a part raises when somebody uses it.
A third of the seconds until a node is ready were these imports. Entry in docs/patches.md.
"""

import sys
from types import ModuleType
from typing import Any, Final, NoReturn

LEFT_OUT: Final = {
    "libp2p.discovery.mdns": ("MDNSDiscovery",),  # ours is p2p/mdns.py
    "libp2p.discovery.mdns.mdns": ("MDNSDiscovery", "create_mdns_discovery"),
    "libp2p.security.tls.autotls.acme": ("ACMEClient", "compute_b36_peer_id"),  # certificates for browsers' sake
    "libp2p.security.tls.autotls.broker": ("BrokerClient",),
}
"""Module -> the names that the rest of libp2p takes from it."""


def leave_out() -> None:
    """Put the stand-ins in place, unless libp2p is there already."""
    if "libp2p" in sys.modules:
        return
    for name, wanted in LEFT_OUT.items():
        stand_in = ModuleType(name, "Left out by dimnode: see docs/patches.md.")
        stand_in.__path__ = []  # so that it may be a package
        for each in wanted:
            setattr(stand_in, each, _absent(f"{name}.{each}"))
        sys.modules[name] = stand_in


def _absent(name: str) -> type:
    class Absent:
        """Nothing to be used."""

        def __init__(self, *_: Any, **__: Any) -> None:
            _refuse(name)

    return Absent


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(f"{name} is left out: docs/patches.md")
