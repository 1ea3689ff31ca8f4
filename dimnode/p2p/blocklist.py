"""Whom the operator keeps out, and, when there is an allow list, the only ones who are let in.

A target is a peer (its id, or an address that ends in `/p2p/PEER`) or a network (an IP address, `10.0.0.0/8`, or an
address without a peer; its port does not count, because who dials in comes from any port).

Rule: blocked beats allowed, and what the settings say cannot be taken back by a command. Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, PeerLimits
from dimnode.records.ids import PeerId, peer_bytes, peer_text

Network = IPv4Network | IPv6Network
Target = PeerId | Network

SETTINGS = "settings"
COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list. `source` says whether a command or the settings put it there."""

    target: Target
    reason: str = ""
    at_ms: int = 0
    source: str = COMMAND

    @property
    def text(self) -> str:
        """The target as people write it: a peer id, an address, or a network."""
        return target_text(self.target)


def parse_target(text: str) -> Target | None:
    """A peer or a network, None when the text is neither."""
    words = text.strip().split("/")
    if words[0] == "" and len(words) > 2:  # a multiaddress
        if "p2p" in words[:-1]:
            return _peer(words[-1])
        text = words[2] if words[1] in ("ip4", "ip6") else ""
    return _peer(text) or _network(text)


def target_text(target: Target) -> str:
    """See `Entry.text`."""
    if isinstance(target, bytes):
        return peer_text(target)
    return str(target.network_address) if target.num_addresses == 1 else str(target)


def _peer(text: str) -> PeerId | None:
    try:
        return peer_bytes(text)
    except PeerFault:
        return None


def _network(text: str) -> Network | None:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None


class Blocklist:
    """What is blocked and what is allowed, by settings and by command."""

    def __init__(
        self, block: Iterable[Target] = (), allow: Iterable[Target] = (), limits: PeerLimits = LIMITS.peers
    ) -> None:
        self._limits = limits
        self._blocked = {target: Entry(target, source=SETTINGS) for target in block}
        self._allowed = {target: Entry(target, source=SETTINGS) for target in allow}
        self._closed = bool(self._allowed)

    def restore(self, blocked: Iterable[Entry], allowed: Iterable[Entry]) -> None:
        """Take in what commands of earlier lives said; the settings go first."""
        for into, entries in ((self._blocked, blocked), (self._allowed, allowed)):
            for entry in entries:
                into.setdefault(entry.target, entry)

    def said(self) -> tuple[list[Entry], list[Entry]]:
        """What commands have blocked and allowed: what has to be remembered."""
        blocked, allowed = self._blocked.values(), self._allowed.values()
        return [one for one in blocked if one.source == COMMAND], [one for one in allowed if one.source == COMMAND]

    def replace(self, blocked: Iterable[Entry], allowed: Iterable[Entry]) -> None:
        """Forget what commands have said, but for this."""
        for into in (self._blocked, self._allowed):
            for target in [target for target, entry in into.items() if entry.source == COMMAND]:
                del into[target]
        self.restore(blocked, allowed)

    @property
    def blocked(self) -> list[Entry]:
        """All that is blocked."""
        return list(self._blocked.values())

    @property
    def allowed(self) -> list[Entry]:
        """All that is on the allow list; with an empty one everybody is welcome who is not blocked."""
        return list(self._allowed.values()) if self._closed else []

    # ---- questions

    def refusal(self, peer: bytes, ip: str) -> str:
        """Why there may be no connection with `peer` at `ip` ("" when that is not known); "" when there may."""
        address = _address(ip)
        for entry in _matching(self._blocked, peer, address):
            what = "this peer is blocked" if isinstance(entry.target, bytes) else f"{entry.text} is blocked"
            return what + (f" ({entry.reason})" if entry.reason else "")
        if self._closed and not any(_matching(self._allowed, peer, address)):
            return "this peer is not on the allow list"
        return ""

    def ignores(self, peer: bytes) -> bool:
        """Whether what `peer` says through others is not listened to: its address is not known then."""
        if peer in self._blocked:
            return True
        only_peers = self._closed and all(isinstance(target, bytes) for target in self._allowed)
        return only_peers and peer not in self._allowed

    # ---- changes

    def block(self, target: Target, reason: str, at_ms: int) -> Entry:
        """Block; a second time only changes the reason. Raises `Refused` E-peers-05 when the list is full."""
        known = self._blocked.get(target)
        if known is not None and known.source == SETTINGS:
            return known
        self._check_room(self._blocked, target)
        entry = self._blocked[target] = Entry(target, reason[: self._limits.block_reason_characters_max], at_ms)
        return entry

    def allow(self, target: Target, at_ms: int) -> bool:
        """Take a block back and, when there is an allow list, put the target on it; False when nothing changed.

        Raises `Refused`: E-peers-04 when the settings block it, E-peers-05 when the list is full.
        """
        known = self._blocked.get(target)
        if known is not None and known.source == SETTINGS:
            hint = f"remove it from `block` in config.toml, then start the node again: {known.text}"
            raise Refused("E-peers-04", "the settings block this", "a command cannot overrule them", hint)
        listed = self._closed and target not in self._allowed
        if listed:
            self._check_room(self._allowed, target)
            self._allowed[target] = Entry(target, at_ms=at_ms)
        return self._blocked.pop(target, None) is not None or listed

    def _check_room(self, entries: dict[Target, Entry], target: Target) -> None:
        if target not in entries and len(entries) >= self._limits.blocked_entries_max:
            what = f"the list has {len(entries)} entries, the most there may be"
            raise Refused("E-peers-05", what, "", "block a network (10.0.0.0/8) instead of its addresses")


def _matching(entries: dict[Target, Entry], peer: bytes, address: IPv4Address | IPv6Address | None) -> Iterable[Entry]:
    if (found := entries.get(PeerId(peer))) is not None:
        yield found
    if address is not None:
        for target, entry in entries.items():
            if not isinstance(target, bytes) and address.version == target.version and address in target:
                yield entry


@lru_cache(maxsize=1024)
def _address(ip: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address that came in over an IPv6 socket is an IPv4 address."""
    try:
        found = ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
