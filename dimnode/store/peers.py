"""Peers met before and their addresses, so that a node finds the swarm again when every bootstrap address is dead.

Rule: hints only. Written atomically, bounded in peers, addresses and age; a damaged file costs a warning and the hints.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from dimnode.limits import LIMITS

log = logging.getLogger(__name__)

PEERS_FILE: Final = "peers.json"
_DAY_MS: Final = 86_400_000

_Address = Annotated[str, msgspec.Meta(max_length=512)]  # as earlier versions wrote them


class Remembered(msgspec.Struct, frozen=True):
    """A peer: its id as text, where it was reached or said to be, and when a connection to it stood last."""

    peer: Annotated[str, msgspec.Meta(max_length=64)]
    addresses: tuple[_Address, ...]
    seen_ms: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1] = 1
    peers: tuple[Remembered, ...] = ()


class PeerCache:
    """The peers of one home, those seen last first. `peers` is what a start can dial."""

    def __init__(self, home: Path) -> None:
        self._path = home / PEERS_FILE
        self._peers = {found.peer: found for found in _load(self._path)}
        self._prune()
        self._written: tuple[Remembered, ...] = self.peers
        self._written_ms = 0

    @property
    def peers(self) -> tuple[Remembered, ...]:
        """All, the newest first."""
        return tuple(sorted(self._peers.values(), key=lambda found: found.seen_ms, reverse=True))

    def addresses(self) -> list[str]:
        """What to dial, best first: the first address of every peer, then the second ones, and so on."""
        found = [entry.addresses for entry in self.peers]
        most = max(map(len, found), default=0)
        return [addresses[place] for place in range(most) for addresses in found if place < len(addresses)]

    def see(self, connected: Mapping[str, Sequence[str]], now_ms: int | None = None) -> None:
        """Connections to these peers stand now; addresses that are known of them, the best first."""
        now = _now_ms() if now_ms is None else now_ms
        for entry in self.peers:
            if entry.seen_ms > now:  # the clock is wrong, or was
                self._peers[entry.peer] = Remembered(entry.peer, entry.addresses, now)
        for peer, addresses in connected.items():
            before = self._peers[peer].addresses if peer in self._peers else ()
            known = [address for address in dict.fromkeys([*addresses, *before]) if _fits(address)]
            kept = tuple(known[: LIMITS.peers.peer_cache_addresses_max])
            if kept:
                self._peers[peer] = Remembered(peer, kept, now)
        self._prune()
        self._save(now)

    def _prune(self) -> None:
        """Entries age against the newest one, not against the clock: a node that was off for a year still has hints,
        and so has one that starts before it knows the time.
        """
        peers = self.peers
        oldest_ms = peers[0].seen_ms - LIMITS.peers.peer_cache_days_max * _DAY_MS if peers else 0
        fresh = [found for found in peers if found.seen_ms > oldest_ms]
        self._peers = {found.peer: found for found in fresh[: LIMITS.peers.peer_cache_entries_max]}

    def _save(self, now_ms: int) -> None:
        """Write when something is new, and once a minute for the times. A full disk costs the hints, not the node."""
        peers = self.peers
        known = {found.peer: found.addresses for found in self._written}
        if {found.peer: found.addresses for found in peers} == known and now_ms - self._written_ms < 60_000:
            return
        partial = self._path.with_suffix(".new")
        try:
            partial.write_bytes(msgspec.json.encode(_File(peers=peers)))
            os.replace(partial, self._path)
        except OSError:
            with suppress(OSError):  # a disk that takes nothing more may not let go of anything either
                partial.unlink()
            return
        self._written, self._written_ms = peers, now_ms


def _fits(address: str) -> bool:
    """A peer says of itself what it likes: what is too long would make the whole file one that cannot be read."""
    return len(msgspec.json.encode(address)) <= LIMITS.peers.peer_cache_address_bytes_max


def _load(path: Path) -> tuple[Remembered, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(LIMITS.peers.peer_cache_file_bytes_max + 1)
        if len(raw) > LIMITS.peers.peer_cache_file_bytes_max:
            raise ValueError("it is too large")
        found = msgspec.json.decode(raw, type=_File).peers
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s): the peers of earlier runs are forgotten", path, error)
        return ()
    most = LIMITS.peers.peer_cache_addresses_max
    return tuple(Remembered(entry.peer, entry.addresses[:most], entry.seen_ms) for entry in found if entry.addresses)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
