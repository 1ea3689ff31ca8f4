"""Finding peers: bootstrap addresses, peers remembered from the last run, and the DHT.

Rule: every source is a hint, never evidence; a peer counts when a Noise handshake proved its id. Retries are spread by
jitter, because a swarm that looks itself up at one moment through one bootstrap node starves most of its members.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from dimnode.limits import LIMITS, Limits
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import PeerId

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Found:
    """How discovery stands, for `dim status` and `dim doctor`."""

    bootstrap_ok: bool = False
    last_error: str = ""
    dht_size: int = 0


class Discovery:
    """Keeps this node connected to the swarm."""

    def __init__(
        self,
        host: Host,
        bootstrap: Sequence[str],
        remembered: Sequence[str],
        remember: Callable[[list[str]], None],
        rng: random.Random,
        limits: Limits = LIMITS,
    ) -> None:
        self._host = host
        self._bootstrap = tuple(bootstrap)
        self._remembered = tuple(remembered)
        self._remember = remember
        self._rng = rng
        self._limits = limits
        self._wanted: dict[PeerId, None] = {}
        self._kick = trio.Event()
        self.found = Found()

    def want(self, peer: PeerId) -> None:
        """Somebody spoke of this peer (a heartbeat): connect to it at the next round."""
        if len(self._wanted) < self._limits.peers.peers_max:
            self._wanted[peer] = None
            self._kick.set()

    async def run(self) -> None:
        """Join, then look around: often while alone or just started, rarely afterwards."""
        wait_seconds = self._limits.peers.redial_seconds_min
        while True:
            self._kick = trio.Event()  # before the round, so that who is wanted during it is not forgotten after it
            alone = not self._host.connected()
            if alone or not self.found.bootstrap_ok:
                await self._join()
            grew = await self._look_around()
            self._save()
            if alone or grew:
                wait_seconds = min(wait_seconds * 1.5, self._limits.peers.redial_seconds_max)
                if grew:
                    wait_seconds = self._limits.peers.redial_seconds_min
            else:
                wait_seconds = min(wait_seconds * 2, self._limits.peers.redial_seconds_max)
            with trio.move_on_after(wait_seconds * (0.5 + self._rng.random())):
                await self._kick.wait()
            # However often somebody is wanted who cannot be reached, rounds keep this distance.
            await trio.sleep(self._limits.peers.redial_seconds_min)

    async def _join(self) -> None:
        """Bootstrap and remembered addresses: those of the last run help when no bootstrap node lives."""
        reached: set[str] = set()

        async def dial(address: str) -> None:
            if await self._dial(address):
                reached.add(address)

        remembered = self._remembered[: self._limits.peers.peers_max]
        await self._several(dial, list(dict.fromkeys([*self._bootstrap, *remembered])))
        self.found.bootstrap_ok = not self._bootstrap or not reached.isdisjoint(self._bootstrap)

    async def _several(self, dial: Callable[[T], Awaitable[object]], targets: Sequence[T]) -> None:
        """Dial a few at once: each dead target costs seconds, and there may be many."""
        waiting = list(reversed(targets))

        async def dial_next() -> None:
            while waiting:
                await dial(waiting.pop())

        async with trio.open_nursery() as nursery:
            for _ in range(self._limits.peers.dials_at_once_max):
                nursery.start_soon(dial_next)

    async def _look_around(self) -> bool:
        """One DHT walk and a dial to everybody new; True when somebody new was reached."""
        before = set(self._host.connected())
        if before:
            with trio.move_on_after(self._limits.host.dial_seconds_max):
                self.found.dht_size = await self._host.dht_join()
        room = self._limits.peers.peers_max - len(before)
        candidates = dict.fromkeys(PeerId(peer) for peer in [*self._wanted, *self._host.dht_peers()])
        self._wanted.clear()
        known = {self._host.peer, *self._host.connected()}
        strangers = [peer for peer in candidates if peer not in known]
        # Whose address is known goes first, and of the others few: anybody may gossip of peers that do not exist.
        strangers.sort(key=lambda peer: not self._host.addresses_of(peer))
        most = min(room, self._limits.peers.dials_per_round_max)
        await self._several(self._dial_peer, strangers[: max(0, most)])
        return bool(set(self._host.connected()) - before)

    async def _dial(self, address: str) -> bool:
        try:
            await self._host.connect(address)
        except DialFailed as error:
            said = f"{address}: {error.reason}"
            if said != self.found.last_error:  # once, not at every try
                log.info("cannot reach %s", said)
            self.found.last_error = said
            return False
        return True

    async def _dial_peer(self, peer: PeerId) -> bool:
        addresses = self._host.addresses_of(peer)
        if not addresses:
            with trio.move_on_after(self._limits.host.dial_seconds_max):
                addresses = await self._host.dht_find(peer)
        try:
            await self._host.connect_peer(peer, addresses)
        except DialFailed as error:
            log.debug("cannot reach a peer: %s", error.reason)
            return False
        return True

    def _save(self) -> None:
        known = [address for peer in self._host.connected() for address in self._host.addresses_of(peer)[:2]]
        if known:
            self._remember(known[: self._limits.peers.peer_cache_entries_max])
