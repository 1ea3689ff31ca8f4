"""Finding peers in the same local network without any configuration: multicast DNS.

Rule: what is heard is a hint. A found peer is dialled like any other, and its Noise handshake proves who it is. The
service type carries a hash of the swarm's `net`, so the nodes of other swarms are neither answered nor dialled.

The library's calls wait for the network (`start` 1.6 s), so they run in a thread; what it hears comes from a thread of
its own and is handed to the loop.

Source: RFC 6762 and 6763; https://github.com/libp2p/specs/blob/master/discovery/mdns.md (`_p2p-X._udp` for private
networks, TXT `dnsaddr=` with a full multiaddr).
"""

import hashlib
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from dimnode.limits import LIMITS, ReachLimits
from dimnode.p2p.host.addresses import local_ip
from dimnode.records.ids import PeerId, RecordId, peer_text

log = logging.getLogger(__name__)

_TEXT_KEY: Final = "dnsaddr"
_TEXT_BYTES_MAX: Final = 250

OnFound = Callable[[list[str]], None]


def service_type(net: RecordId) -> str:
    """The name under which the nodes of one swarm look for each other."""
    return f"_p2p-{hashlib.sha256(bytes(net)).hexdigest()[:8]}._udp.local."


def properties(addresses: Sequence[str], limits: ReachLimits) -> dict[str, str]:
    """TXT entries: one address each; DNS allows 255 bytes for one."""
    fitting = [address for address in addresses if len(address) + len(_TEXT_KEY) + 3 <= _TEXT_BYTES_MAX]
    return {f"{_TEXT_KEY}{place or ''}": address for place, address in enumerate(fitting[: limits.mdns_addresses_max])}


def read_properties(found: dict[bytes, bytes | None], limits: ReachLimits) -> list[str]:
    """The addresses in a stranger's TXT entries, unchecked: they are parsed when they are dialled."""
    texts = []
    for key, value in list(found.items())[: 2 * limits.mdns_addresses_max]:
        if key.startswith(_TEXT_KEY.encode()) and value and len(value) <= _TEXT_BYTES_MAX:
            texts.append(value.decode("ascii", errors="replace"))
    return texts[: limits.mdns_addresses_max]


class LocalNetwork:
    """Announces this node and tells of others. `on_found` is called in trio's thread with the addresses of one peer."""

    def __init__(self, me: PeerId, net: RecordId, on_found: OnFound, limits: ReachLimits = LIMITS.reach) -> None:
        self._name = peer_text(me)
        self._type = service_type(net)
        self._on_found = on_found
        self._limits = limits
        self._heard: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self, addresses: Sequence[str]) -> None:
        """Announce `addresses` and listen until cancelled. Without a usable network nothing happens."""
        self._token = trio.lowlevel.current_trio_token()
        local = [address for address in addresses if local_ip(address)]
        if not local:
            return
        opened: list[Zeroconf] = []
        try:
            await trio.to_thread.run_sync(self._open, opened, local)
            await trio.sleep_forever()
        except (OSError, ValueError, ZeroconfError) as error:
            log.info("no peers are looked for in the local network: %r", error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limits.mdns_start_seconds_max):
                for each in opened:
                    # Abandoned, or no deadline would end it.
                    await trio.to_thread.run_sync(each.close, abandon_on_cancel=True)  # type: ignore[call-arg]

    def _open(self, opened: list[Zeroconf], addresses: list[str]) -> None:
        """In a thread: it takes seconds."""
        hosts = list(dict.fromkeys(local_ip(address) for address in addresses))
        zeroconf = Zeroconf(interfaces=hosts, ip_version=IPVersion.All)
        opened.append(zeroconf)
        port = int(addresses[0].partition("/tcp/")[2].partition("/")[0])
        info = ServiceInfo(
            self._type,
            f"{self._name}.{self._type}",
            addresses=[ipaddress.ip_address(host).packed for host in hosts],
            port=port,
            properties=properties(addresses, self._limits),
            server=f"{self._name[-32:].lower()}.local.",
        )
        ServiceBrowser(zeroconf, self._type, handlers=[self._changed])
        zeroconf.register_service(info, cooperating_responders=True)  # the name is a key's: nobody else has it

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """In the library's thread. It must not wait there for an answer that the same thread would have to read."""
        if state_change is ServiceStateChange.Removed or name.startswith(self._name):
            return
        info = ServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf) and self._token is not None:
            found = read_properties(info.properties, self._limits)
            try:
                self._token.run_sync_soon(self._hear, name, tuple(found))
            except trio.RunFinishedError:
                log.debug("a peer was found too late")

    def _hear(self, name: str, addresses: tuple[str, ...]) -> None:
        if not addresses or self._heard.get(name) == addresses:
            return
        self._heard[name] = addresses
        if len(self._heard) > self._limits.mdns_peers_max:
            self._heard.popitem(last=False)
        self._on_found(list(addresses))
