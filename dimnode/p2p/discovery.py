"""Finding peers: bootstrap addresses, peers remembered from earlier runs, the DHT, and those that were lost.

Rule: every source is a hint, never evidence; a peer counts when a Noise handshake proved its id. Retries are spread by
jitter, because a swarm that looks itself up at one moment through one bootstrap node starves most of its members.
"""

import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import inf
from typing import TypeVar

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, Limits
from dimnode.p2p.contain import contained
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import PeerId, peer_bytes

log = logging.getLogger(__name__)
T = TypeVar("T")
_LONG_SHARE = 1 / 8


@dataclass(slots=True)
class Found:
    """How discovery stands, for `dim status` and `dim doctor`."""

    bootstrap_ok: bool = False
    bootstrap_tried: bool = False
    last_error: str = ""


class Discovery:
    """Keeps this node connected to the swarm.

    `remembered` are full addresses, the best first; `remember` is told now and then who is connected, and where each
    was reached or says to be; `announced` answers with what a peer says of itself in its advert.
    """

    def __init__(
        self,
        host: Host,
        bootstrap: Sequence[str],
        remembered: Sequence[str],
        remember: Callable[[Mapping[PeerId, Sequence[str]]], None],
        rng: random.Random,
        limits: Limits = LIMITS,
        announced: Callable[[PeerId], Sequence[str]] = lambda _: (),
        linked: Callable[[], Collection[object]] | None = None,
    ) -> None:
        self._host = host
        self._bootstrap = tuple(bootstrap)
        self._remembered = deque(remembered)
        self._remember = remember
        self._announced = announced
        self._linked = linked or host.connected  # who is connected without a link is no company
        self._rng = rng
        self._limits = limits
        self._wanted: dict[PeerId, None] = {}
        self._lost: set[PeerId] = set()
        self._failures: OrderedDict[PeerId, tuple[str, float]] = OrderedDict()
        self._kick = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._places = trio.CapacityLimiter(limits.peers.redials_at_once_max)
        self.found = Found()

    def want(self, peer: PeerId) -> None:
        """Somebody spoke of this peer (a heartbeat): connect to it at the next round, unless that failed just now."""
        _, failed_at = self._failures.get(peer, ("", -inf))
        if trio.current_time() < failed_at + self._limits.peers.redial_failed_seconds:
            return
        if len(self._wanted) < self._limits.peers.peers_max:
            self._wanted[peer] = None
            self._kick.set()

    def lost(self, peer: PeerId) -> None:
        """The link to this peer broke without a farewell: try at once and often to get it back, later more rarely.

        Nothing happens unless `run` runs.
        """
        if self._nursery is not None and peer not in self._lost and len(self._lost) < self._limits.peers.peers_max:
            self._lost.add(peer)
            self._nursery.start_soon(contained, peer, self._win_back, peer)

    def met(self, peer: PeerId) -> None:
        """A link to this peer stands, whoever dialled."""
        self._failures.pop(peer, None)

    def failure(self, peer: PeerId) -> str:
        """Why the last dial to this peer failed; "" when it did not, or none was made lately."""
        return self._failures.get(peer, ("", 0.0))[0]

    def bootstrap_failure(self) -> str:
        """Why no bootstrap node was reached, in words; one that was lost is dialled apart from the rounds."""
        lost = [(address, self.failure(peer)) for address in self._bootstrap if (peer := _peer_of(address))]
        said = next((f"{address}: {why}" for address, why in lost if why), self.found.last_error)
        return said or ("tried, without an answer yet" if self.found.bootstrap_tried else "not tried yet")

    async def run(self) -> None:
        """Join, then look around: often while alone or just started, rarely afterwards."""
        async with trio.open_nursery() as nursery:  # peers that were lost are won back beside the rounds
            self._nursery = nursery
            try:
                await self._rounds()
            finally:
                self._nursery = None  # links may outlive this by a moment when the node stops

    async def _rounds(self) -> None:
        wait_seconds = self._limits.peers.redial_seconds_min
        while True:
            self._kick = trio.Event()  # before the round, so that who is wanted during it is not forgotten after it
            alone = not self._linked()
            if alone or not self.found.bootstrap_ok:
                await self._join(alone)
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

    async def _join(self, alone: bool) -> None:
        """Bootstrap and remembered addresses in turn: those of earlier runs help when no bootstrap node lives."""
        reached: set[str] = set()
        self.found.bootstrap_tried = True

        async def dial(address: str) -> None:
            if _peer_of(address) in self._lost:  # it is being won back, and a long dial would keep short ones waiting
                return
            if await self._dial(address):
                reached.add(address)

        remembered = self._next_remembered() if alone else []
        in_turn = chain.from_iterable(zip_longest(self._bootstrap, remembered))
        await self._several(dial, list(dict.fromkeys(address for address in in_turn if address)))
        self.found.bootstrap_ok = not self._bootstrap or not reached.isdisjoint(self._bootstrap)

    def _next_remembered(self) -> list[str]:
        """Some at a time, and others the next time: many of them may be dead, and each costs seconds."""
        most = min(len(self._remembered), self._limits.peers.dials_per_round_max)
        few = [self._remembered.popleft() for _ in range(most)]
        self._remembered.extend(few)
        return few

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
                await self._host.dht_join()
        room = self._limits.peers.peers_max - len(before)
        candidates = dict.fromkeys(PeerId(peer) for peer in [*self._wanted, *self._host.dht_peers()])
        self._wanted.clear()
        known: Collection[bytes] = {self._host.peer, *self._host.connected(), *self._lost}
        strangers = [peer for peer in candidates if peer not in known]
        # Whose address is known goes first, and of the others few: anybody may gossip of peers that do not exist.
        strangers.sort(key=lambda peer: not self._addresses(peer))
        most = min(room, self._limits.peers.dials_per_round_max)
        await self._several(self._dial_peer, strangers[: max(0, most)])
        return bool(set(self._host.connected()) - before)

    async def _win_back(self, peer: PeerId) -> None:
        """Redial until somebody has made the connection, or for ten minutes.

        An attempt is short, so that a cable that works again is noticed soon (a kernel repeats its SYN after 1, 3 and
        7 s: two short attempts knock more often than one long one); one in eight waits as long as any dial, for a
        peer that is far away or busy.
        """
        limits, began = self._limits.peers, trio.current_time()
        pause_seconds = limits.redial_seconds_min
        try:
            while (waited := trio.current_time() - began) < limits.redial_lost_seconds_max:
                await trio.sleep(pause_seconds * (0.5 + self._rng.random()))
                if peer in self._host.connected():
                    return
                async with self._places:
                    # By lot, so that not everybody who lost the same peer waits at the same time.
                    long = self._rng.random() < _LONG_SHARE
                    patience = self._limits.host.dial_seconds_max if long else limits.redial_lost_wait_seconds
                    with trio.move_on_after(patience) as attempt:
                        if await self._dial_peer(peer, ask_others=long):
                            return
                    if attempt.cancelled_caught:
                        self._fail(peer, f"no answer within {patience:g} s")
                if "E-swarm-" in self.failure(peer):
                    return  # it is there and does not take us in: knocking brings nobody back
                brisk = waited < limits.redial_lost_brisk_seconds
                pause_seconds = limits.redial_lost_seconds if brisk else limits.redial_seconds_max
        finally:
            self._lost.discard(peer)

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

    async def reach(self, peer: PeerId) -> None:
        """Connect to a peer that something is wanted of, wherever it may be. Raises `DialFailed`."""
        if peer not in self._host.connected() and not await self._dial_peer(peer):
            raise DialFailed(self.failure(peer) or "not reached")

    async def _dial_peer(self, peer: PeerId, ask_others: bool = True) -> bool:
        addresses = self._addresses(peer)
        if not addresses and ask_others:
            with trio.move_on_after(self._limits.host.dial_seconds_max):
                addresses = await self._host.dht_find(peer)
        try:
            await self._host.connect_peer(peer, addresses)
        except DialFailed as error:
            log.debug("cannot reach a peer: %s", error.reason)
            self._fail(peer, error.reason)
            return False
        self._failures.pop(peer, None)
        return True

    def _fail(self, peer: PeerId, reason: str) -> None:
        self._failures[peer] = (reason, trio.current_time())
        self._failures.move_to_end(peer)
        if len(self._failures) > self._limits.peers.adverts_max:
            self._failures.popitem(last=False)

    def _addresses(self, peer: PeerId) -> list[str]:
        """Where it was reached, then where it says to be: the host's own book forgets after an hour."""
        found = [*self._host.addresses_of(peer), *self._announced(peer)]
        return list(dict.fromkeys(found))[: self._limits.host.addresses_per_peer_max]

    def _save(self) -> None:
        connected = {PeerId(peer): self._addresses(PeerId(peer)) for peer in self._host.connected()}
        if connected:
            self._remember(connected)


def _peer_of(address: str) -> PeerId | None:
    """The peer that an address names at its end."""
    try:
        return peer_bytes(address.rpartition("/p2p/")[2])
    except PeerFault:
        return None
