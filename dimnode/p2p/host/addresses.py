"""Addresses as text outside of this room, multiaddrs inside.

Rule: whatever a peer claims to be its address is parsed here; what does not parse is dropped or refused, never raised
as a libp2p error.
"""

import ipaddress
import socket
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

import psutil
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from dimnode.errors import ConfigError
from dimnode.p2p.host.streams import DialFailed

CIRCUIT = "/p2p-circuit"
_WILDCARDS = {"ip4": "0.0.0.0", "ip6": "::"}
_FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


def parse_listen(texts: Iterable[str]) -> list[Multiaddr]:
    """Return TCP addresses to listen on. Raises `ConfigError` naming the bad one.

    Without an IP address, for a host's name too, libp2p would listen on every interface.
    """
    parsed = []
    for text in texts:
        address = parse(text)
        names = [] if address is None else [protocol.name for protocol in address.protocols()]
        if address is None or names[:2] not in (["ip4", "tcp"], ["ip6", "tcp"]):
            raise ConfigError(
                "E-p2p-03",
                f"not an address to listen on: {text}",
                "it must be an IP address and a TCP port, as a multiaddr",
                "for example /ip4/0.0.0.0/tcp/4710",
            )
        parsed.append(address)
    return parsed


def parse_dial(text: str) -> tuple[ID, Multiaddr]:
    """Split `/ip4/…/tcp/…/p2p/<id>`, or `…/p2p/<relay>/p2p-circuit/p2p/<id>`, into peer and the way to it.

    Raises `DialFailed` when it is malformed or names no peer.
    """
    address = parse(text)
    if address is None:
        raise DialFailed(f"not a multiaddr: {text}")
    way, circuit, end = str(address).partition(CIRCUIT)
    if circuit and (_relay_of(way) is None or CIRCUIT in end):
        raise _no_relay(text)
    last = parse(end) if circuit else address
    peer_text = None if last is None else _value(last, "p2p")
    if peer_text is None:
        raise DialFailed(f"the address names no peer (/p2p/…): {text}")
    try:
        return ID.from_base58(peer_text), without_peer(address)
    except ValueError:
        raise DialFailed(f"not a peer id: {peer_text}") from None


def is_circuit(address: Multiaddr | str) -> bool:
    """True when the way leads through a relay."""
    return CIRCUIT in str(address)


def split_circuit(address: Multiaddr) -> tuple[ID, str]:
    """The relay of a circuit address, and the full text by which the relay is dialled. Raises `DialFailed`."""
    way = str(address).partition(CIRCUIT)[0]
    relay = _relay_of(way)
    if relay is None:
        raise _no_relay(str(address))
    return relay, way


def _relay_of(way: str) -> ID | None:
    """The peer that is its last word: between that and the circuit nothing can stand, and a path may hold any words."""
    address = parse(way)
    peer_text = None if address is None else _value(address, "p2p")
    try:
        return ID.from_base58(peer_text) if peer_text and way.endswith(f"/p2p/{peer_text}") else None
    except ValueError:
        return None


def _no_relay(text: str) -> DialFailed:
    return DialFailed(f"E-net-06: the address names no relay, or several (/p2p/…{CIRCUIT}): {text}")


def check_dial(text: str) -> None:
    """Raises `ConfigError` when an operator wrote what can never be dialled."""
    try:
        parse_dial(text)
    except DialFailed as error:
        hint = "copy the whole address that `dim up` prints: /ip4/…/tcp/…/p2p/12D3KooW…"
        raise ConfigError("E-p2p-05", f"{text!r} is no address to join through", error.reason, hint) from None


def parse(text: str) -> Multiaddr | None:
    """Return the multiaddr, or None when the text is none."""
    try:
        return Multiaddr(text)
    except Exception:  # noqa: BLE001 boundary: multiaddr raises many kinds for a stranger's text
        return None


def without_peer(address: Multiaddr) -> Multiaddr:
    """Cut off a trailing `/p2p/…`; the relay that a circuit address names stays."""
    way, circuit, _ = str(address).partition(CIRCUIT)
    if circuit:
        return Multiaddr(way + circuit)
    peer_text = _value(address, "p2p")
    return address.decapsulate(Multiaddr(f"/p2p/{peer_text}")) if peer_text else address


def with_peer(address: Multiaddr, peer: ID) -> str:
    """Return the full text that others can dial."""
    return f"{without_peer(address)}/p2p/{peer.to_base58()}"


def dial_text(address: Multiaddr, peer: ID) -> str | None:
    """The full text by which `peer` can be dialled there; None when that leads nowhere: a stranger may have sent it."""
    try:
        text = with_peer(address, peer)
        parse_dial(text)
    except Exception:  # noqa: BLE001 boundary: bytes of a stranger, looked at by a library as late as now
        return None
    return text


def ip_of(address: Multiaddr) -> str:
    """The IP address that it leads to, "" when that is not known (a name, a relay)."""
    return "" if is_circuit(address) else _value(address, "ip4") or _value(address, "ip6") or ""


def expand(addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Replace wildcard addresses by those of the interfaces: nobody can dial 0.0.0.0."""
    expanded: list[Multiaddr] = []
    for address in addresses:
        wildcard = next((kind for kind, host in _WILDCARDS.items() if _value(address, kind) == host), None)
        if wildcard is None:
            expanded.append(address)
            continue
        port, found = _value(address, "tcp"), _interface_hosts(wildcard, int(time.monotonic()))
        expanded += [Multiaddr(f"/{wildcard}/{host}/tcp/{port}") for host in found]
    return list(dict.fromkeys(expanded))


@lru_cache(maxsize=8)
def _interface_hosts(kind: str, second: int) -> list[str]:
    """Return this machine's addresses of one family; loopback only when there is no other, link-local never.

    libp2p asks with each message of gossip; the system is asked once in a `second`.
    """
    hosts = [
        ipaddress.ip_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == _FAMILIES[kind]
    ]
    reachable = [host for host in hosts if not (host.is_loopback or host.is_link_local)]
    return [str(host) for host in reachable or [host for host in hosts if host.is_loopback]]


@lru_cache(maxsize=1024)
def _value(address: Multiaddr, protocol: str) -> str | None:
    try:
        value = address.value_for_protocol(protocol)
    except Exception:  # noqa: BLE001 boundary: multiaddr's way to say that the part is not there
        return None
    return None if value is None else str(value)


def local_ip(address: str) -> str:
    """The IPv4 or IPv6 address in a direct multiaddr that is not loopback, else ""."""
    parts = address.split("/")
    if len(parts) < 5 or parts[1] not in ("ip4", "ip6") or parts[3] != "tcp" or "p2p-circuit" in parts:
        return ""
    try:
        host = ipaddress.ip_address(parts[2])
    except ValueError:
        return ""
    return "" if host.is_loopback or host.is_unspecified else str(host)
