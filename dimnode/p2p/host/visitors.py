"""Who reached our listening port: the one proof that a node can be dialled.

Rule: an address is noted when the operating system accepted a connection from it on a listening socket, not when
somebody says so.
"""

import ipaddress
import time
from collections import OrderedDict
from typing import Any

import psutil


class Visitors:
    """Remote IP addresses of accepted connections, with the time of the last one; bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: OrderedDict[str, float] = OrderedDict()

    def watch(self, swarm: Any) -> None:
        """Note whoever the listener hands on. The method on the instance is the listener's alone."""
        upgrade = swarm.upgrade_inbound_raw_conn

        async def note_and_upgrade(raw_conn: Any, listen_address: Any) -> Any:
            if (remote := raw_conn.get_remote_address()) is not None:
                self.note(plain_ip(str(remote[0])))
            return await upgrade(raw_conn, listen_address)

        swarm.upgrade_inbound_raw_conn = note_and_upgrade

    def note(self, ip: str) -> None:
        """A connection from `ip` was accepted now."""
        self._seen[ip] = time.monotonic()
        self._seen.move_to_end(ip)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def since(self, mono: float) -> set[str]:
        """The addresses of those that came after `mono` (`time.monotonic()`)."""
        return {ip for ip, at in self._seen.items() if at >= mono}


def plain_ip(ip: str) -> str:
    """Without an IPv6 zone, and IPv4 in its own form."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def own_ips() -> set[str]:
    """The addresses of this machine's interfaces."""
    entries = [entry for each in psutil.net_if_addrs().values() for entry in each]
    return {plain_ip(entry.address) for entry in entries if entry.family.name in ("AF_INET", "AF_INET6")}
