"""Whom this node keeps out: the operator's list in force, on the disk and at the door of the network.

Rule: a change is written down before it counts, and counts before it is confirmed: when a command returns, connections
to whom it blocks are closed, no new one is made either way, and nothing that it says through others is listened to.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import trio

from dimnode.config import Config
from dimnode.errors import ConfigError, Refused
from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.p2p.blocklist import Blocklist, Entry, Target, parse_target
from dimnode.p2p.host.host import Host
from dimnode.p2p.links import BLOCKED, Links
from dimnode.records.ids import PeerId, peer_text
from dimnode.store.blocklist import Line, Lists, load_lists, save_lists

_NUMBERS: Final = re.compile(r"[\d.]*\.[\d.]*")
"""What was meant as an address, though it is none."""


class Guests:
    """The blocklist of one node. `refusal` is the host's question, `ignores` the swarm's."""

    def __init__(self, home: Path, config: Config, me: PeerId, limits: Limits) -> None:
        """Raises `ConfigError`: E-peers-02 for a damaged file, E-peers-03 for settings that name nobody."""
        self._home, self._me, self._limits = home, me, limits
        self.list = Blocklist(_targets("block", config.block), _targets("allow", config.allow), limits.peers)
        self.list.restore(*self._written())
        self._host: Host | None = None
        self._links: Links | None = None

    def attach(self, host: Host, links: Links) -> None:
        """Give it what a block has to close."""
        self._host, self._links = host, links

    def refusal(self, peer: bytes, ip: str) -> str:
        """See `Blocklist.refusal`."""
        return self.list.refusal(peer, ip)

    def ignores(self, peer: bytes) -> bool:
        """See `Blocklist.ignores`."""
        return self.list.ignores(peer)

    # ---- commands

    async def block(self, name: str, reason: str, find_peer: Callable[[str], PeerId]) -> dict[str, Any]:
        """Keep somebody out from now on; `name` may also be a peer's name or last letters. Raises `Refused`."""
        target = self._target(name, find_peer)
        if target == self._me:
            raise Refused("E-peers-07", "that is this node itself", "", "dim stop ends it")
        try:
            entry = self._change(lambda: self.list.block(target, reason, wall_ms()))
        finally:  # a change that may not last holds all the same
            closed = await self._close_refused()
        return {**_shown(entry), "closed": [peer_text(peer) for peer in closed]}

    async def allow(self, name: str, find_peer: Callable[[str], PeerId]) -> dict[str, Any]:
        """Take a block back, and put it on the allow list where there is one. Raises `Refused`."""
        target = self._target(name, find_peer)
        if not self._change(lambda: self.list.allow(target, wall_ms())):
            raise Refused("E-peers-04", f"{Entry(target).text} was not blocked", "", "dim peers blocked")
        return _shown(Entry(target))

    def listed(self) -> dict[str, Any]:
        """Everything that is blocked, and the allow list when one is in force."""
        return {"blocked": list(map(_shown, self.list.blocked)), "allowed": list(map(_shown, self.list.allowed))}

    def _target(self, name: str, find_peer: Callable[[str], PeerId]) -> Target:
        target = parse_target(name)
        if target is not None:
            return target
        if "/" in name or ":" in name or _NUMBERS.fullmatch(name):
            what = f"{name!r} is neither a peer nor an address"
            raise Refused("E-peers-03", what, "", "a peer id, 192.0.2.7, 192.0.2.0/24, or a multiaddress")
        return find_peer(name)

    def _change(self, change: Callable[[], Any]) -> Any:
        """Write down what the change makes of the list; when that fails, what is written down holds."""
        made = change()
        try:
            self._save()
        except Refused:
            self.list.replace(*self._written())
            raise
        return made

    def _written(self) -> tuple[list[Entry], list[Entry]]:
        lists = load_lists(self._home)
        return _entries(self._home, lists.blocked), _entries(self._home, lists.allowed)

    def _save(self) -> None:
        blocked, allowed = (tuple(Line(e.text, e.reason, e.at_ms) for e in found) for found in self.list.said())
        save_lists(self._home, Lists(blocked=blocked, allowed=allowed))

    async def _close_refused(self) -> list[bytes]:
        """Hang up on everybody who is not welcome any more."""
        assert self._host is not None
        assert self._links is not None
        refused = [peer for peer in self._host.connected() if self.refusal(peer, self._host.remote_ip(peer))]
        for peer in refused:
            self._links.end_with(PeerId(peer), BLOCKED)
        with trio.move_on_after(self._limits.host.dial_seconds_max):
            async with trio.open_nursery() as nursery:
                for peer in refused:
                    nursery.start_soon(self._host.disconnect, peer)
        return refused


def _targets(setting: str, texts: Iterable[str]) -> list[Target]:
    found = []
    for text in texts:
        target = parse_target(text)
        if target is None:
            what = f"{setting} = {text!r} is neither a peer nor an address"
            raise ConfigError("E-peers-03", what, "", "a peer id, 192.0.2.7, 192.0.2.0/24, or a multiaddress")
        found.append(target)
    return found


def _entries(home: Path, lines: Iterable[Line]) -> list[Entry]:
    entries = []
    for line in lines:
        target = parse_target(line.target)
        if target is None:
            hint = "mend it; or delete it, and block again whom you want to keep out"
            raise ConfigError("E-peers-02", f"the list of blocked peers in {home} is damaged", line.target, hint)
        entries.append(Entry(target, line.reason, line.at_ms))
    return entries


def _shown(entry: Entry) -> dict[str, Any]:
    kind = "peer" if isinstance(entry.target, bytes) else "network"
    return {
        "target": entry.text,
        "kind": kind,
        "reason": entry.reason,
        "at_ms": entry.at_ms or None,
        "source": entry.source,
    }
