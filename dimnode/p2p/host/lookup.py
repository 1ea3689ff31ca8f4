"""Walking the DHT: asking peers for peers closer to a key, with a bound on what their answers can make us do.

libp2p's own walk notes every address of every answer (four megabytes may name tens of thousands), takes whoever is
named into its table, and dials up to 200 of them. Here an answer is a hint and nothing else: the few named peers that
are closest are dialled, so many per answer and per walk, and a peer counts when Noise has proved who it is and it
answered.

Rule: a lie costs a bounded number of dials and is forgotten with the walk.

Source: https://github.com/libp2p/specs/tree/master/kad-dht (FIND_NODE, GET_PROVIDERS; distance is XOR of SHA-256).
"""

import hashlib
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from dimnode.limits import HostLimits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.addresses import dial_text
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.kad_messages import KeptStreams, message
from dimnode.p2p.host.streams import DialFailed
from dimnode.p2p.host.yamux_budget import Offend

log = logging.getLogger(__name__)

PUT_VALUE: Final = Message.MessageType.PUT_VALUE
GET_VALUE: Final = Message.MessageType.GET_VALUE
FIND_NODE: Final = Message.MessageType.FIND_NODE
ADD_PROVIDER: Final = Message.MessageType.ADD_PROVIDER
GET_PROVIDERS: Final = Message.MessageType.GET_PROVIDERS
PING: Final = Message.MessageType.PING


@lru_cache(maxsize=4096)
def address_text(packed: bytes, peer: ID) -> str | None:
    """A packed address of a peer as text that can be dialled, None when it is none. Remembered, like `position`."""
    try:
        address = Multiaddr(packed)
    except Exception:  # noqa: BLE001 boundary: bytes of a stranger, parsed by a library
        return None
    return dial_text(address, peer)


def distance(key: bytes, peer: ID) -> int:
    """How far a peer is from a key."""
    return position(key) ^ position(peer.to_bytes())


@lru_cache(maxsize=4096)
def position(key: bytes) -> int:
    """Where a key lies. Remembered: each answer of a walk names the same peers again."""
    return int.from_bytes(hashlib.sha256(key).digest())


@dataclass(frozen=True, slots=True)
class Named:
    """A peer that an answer names, with few of the addresses given; `by` is who named it, None for ourselves."""

    peer: ID
    addresses: tuple[str, ...]
    by: ID | None


def never_enough(peer: ID, answer: Message) -> bool:
    """Walk to the end."""
    return False


@dataclass(slots=True)
class Walk:
    """One walk: who was named, asked, has answered, and how many dials are left."""

    key: bytes
    dials_left: int
    kind: Any
    enough: Callable[[ID, Message], bool]
    named: dict[ID, Named] = field(default_factory=dict)
    asked: set[ID] = field(default_factory=set)
    failed: set[ID] = field(default_factory=set)
    answered: list[ID] = field(default_factory=list)
    dials_of: Counter[ID | None] = field(default_factory=Counter)
    in_flight: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    def add(self, found: Iterable[Named]) -> None:
        """Take note of peers; the first word about a peer counts."""
        for each in found:
            self.named.setdefault(each.peer, each)

    def next(self, count: int) -> Named | None:
        """The closest peer not asked yet, if it is among the `count` closest of those that did not fail."""
        closest = sorted((peer for peer in self.named if peer not in self.failed), key=lambda p: distance(self.key, p))
        return next((self.named[peer] for peer in closest[:count] if peer not in self.asked), None)

    def wake(self) -> None:
        """Somebody answered or failed: let the idle workers look again."""
        self.changed.set()
        self.changed = trio.Event()


class Lookup:
    """Walks of one host. `start` says whom a walk begins with."""

    def __init__(
        self, core: Any, dialler: Dialler, start: Callable[[], list[ID]], offend: Offend, limits: HostLimits
    ) -> None:
        self._core, self._dialler, self._start, self._offend, self._limits = core, dialler, start, offend, limits
        self._unreachable: OrderedDict[ID, float] = OrderedDict()
        self._streams = KeptStreams(limits)
        self.dials = 0

    async def walk(
        self,
        key: bytes,
        count: int = 20,
        kind: Any = FIND_NODE,
        enough: Callable[[ID, Message], bool] = never_enough,
        at_once: int = 0,
    ) -> Walk:
        """Ask until nobody closer is found, or `enough` says so after an answer; `at_once` questions (0: the usual).

        The caller sets a deadline; a cancel leaves connections, nothing else.
        """
        walk = Walk(key, self._limits.dht_dials_per_lookup_max, kind, enough)
        own = self._core.get_id()
        walk.add(Named(peer, (), None) for peer in self._start() if peer != own)
        async with trio.open_nursery() as nursery:
            for _ in range(at_once or self._limits.dht_queries_max):
                nursery.start_soon(self._work, walk, count, nursery.cancel_scope)
        return walk

    async def closest(self, key: bytes, count: int = 20, agree: int = 0) -> list[ID]:
        """The peers closest to `key` that answered, the closest first.

        With `agree` only so many of the closest are asked: they know who else is close. The others count when there is
        a connection to them, which proves more than an answer.
        """
        walk = await self.walk(key, agree or count)
        found = set(walk.answered)
        if agree:
            waiting = deque(sorted(walk.named.values(), key=lambda named: distance(key, named.peer))[:count])

            async def reach_next() -> None:
                while waiting:
                    named = waiting.popleft()
                    if named.peer not in walk.failed and await self._reach(walk, named):
                        found.add(named.peer)

            async with trio.open_nursery() as nursery:
                for _ in range(self._limits.dht_queries_max):
                    nursery.start_soon(reach_next)
        return sorted(found, key=lambda peer: distance(key, peer))[:count]

    async def _work(self, walk: Walk, count: int, scope: trio.CancelScope) -> None:
        while True:
            found = walk.next(count)
            if found is None:
                if not walk.in_flight:
                    walk.wake()
                    return
                await walk.changed.wait()
                continue
            walk.asked.add(found.peer)
            walk.in_flight += 1
            try:
                if (
                    not await self._reach(walk, found)
                    or (answer := await self.ask(found.peer, walk.kind, walk.key)) is None
                ):
                    walk.failed.add(found.peer)
                else:
                    walk.answered.append(found.peer)
                    walk.add(self.read_peers(answer.closerPeers, walk.key, found.peer))
                    if walk.enough(found.peer, answer):
                        scope.cancel()
            finally:
                walk.in_flight -= 1
                walk.wake()

    async def _reach(self, walk: Walk, found: Named) -> bool:
        """A connection to a named peer, when the walk has a dial left for whoever named it."""
        if self._dialler.live(found.peer):
            return True
        now = trio.current_time()
        if self._unreachable.get(found.peer, 0.0) > now:
            return False
        used_up = found.by is not None and walk.dials_of[found.by] >= self._limits.dht_dials_per_answer_max
        if used_up or not walk.dials_left:
            return False
        addresses = list(dict.fromkeys([*self._dialler.known_addresses(found.peer), *found.addresses]))
        if not addresses:
            return False
        walk.dials_left -= 1
        walk.dials_of[found.by] += 1
        self.dials += 1
        try:
            await self._dialler.connect(found.peer, addresses)
        except DialFailed as error:
            log.debug("a peer that the DHT names is not there: %s", error.reason)
            self._unreachable[found.peer] = now + self._limits.dht_failed_seconds
            if len(self._unreachable) > self._limits.dht_failed_targets_max:
                self._unreachable.popitem(last=False)
            return False
        return True

    async def ask(self, peer: ID, kind: Any, key: bytes) -> Message | None:
        """One question to a connected peer; None without a proper answer in time.

        Our signed address record does not go with it: identify has told the peer, and checking one takes longer than
        all the rest of the question.
        """
        return await self.exchange(peer, (message(kind, key),), kind)

    async def announce(self, key: bytes, count: int) -> int:
        """Tell the `count` peers closest to `key`, as far as they can be reached, that we have it; how many took it."""
        walk = await self.walk(key, self._limits.dht_tellers_min)
        return await self.spread(walk, count, lambda peer: self._tell(peer, key))

    async def spread(self, walk: Walk, count: int, tell: Callable[[ID], Awaitable[bool]]) -> int:
        """Have `tell` speak to the `count` closest of a walk that can be reached; how many took it.

        The few closest ones know who else is close: nobody else is asked, and each peer is told once.
        """
        waiting = deque(sorted(walk.named.values(), key=lambda found: distance(walk.key, found.peer)))
        told = 0

        async def tell_next() -> None:
            nonlocal told
            while waiting and told < count:
                found = waiting.popleft()
                told += 1  # a place is taken before the wait, so that no more than `count` are told
                taken = found.peer not in walk.failed and await self._reach(walk, found)
                if not (taken and await tell(found.peer)):
                    told -= 1

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(tell_next)
        return told

    async def _tell(self, peer: ID, key: bytes) -> bool:
        """Announce `key` to a connected peer; whether it was taken.

        Some echo an announcement (as we do) and some say nothing (as go does), but all answer the ping that follows,
        and only when they did not end the stream over what came before it.
        """
        said = message(ADD_PROVIDER, key)
        entry = said.providerPeers.add()
        entry.id = self._core.get_id().to_bytes()
        entry.addrs.extend(address.to_bytes() for address in self._core.get_addrs())
        return await self.exchange(peer, (said, message(PING)), PING) is not None

    async def exchange(self, peer: ID, said: tuple[Message, ...], kind: Any) -> Message | None:
        """Say something to a connected peer; its first answer of this kind, None without a proper one in time.

        Of values on a stream of its own: a node of the last version hands such a stream over to libp2p's server for
        good, which takes what we say later on it for an offence.
        """
        connections = self._dialler.live(peer)
        if not connections:
            return None
        with trio.move_on_after(self._limits.dht_answer_seconds_max):
            try:
                muxed, alone = connections[0].muxed_conn, kind in (GET_VALUE, PUT_VALUE)
                return await self._streams.exchange(muxed, said, lambda answer: bool(answer.type == kind), alone=alone)
            except (MuxedConnError, MuxedStreamError):
                return None
            except (DecodeError, ValueError) as error:
                log.debug("a peer answers the DHT with what is no answer: %r", error)
                self._offend(peer.to_bytes(), Offence.DHT)
        return None

    def read_peers(self, entries: Any, key: bytes, by: ID) -> list[Named]:
        """The few closest of the peers in an answer, each with few addresses that can be dialled; never ourselves."""
        limits = self._limits
        if len(entries) > 4 * limits.dht_answer_peers_max:  # no implementation names so many
            self._offend(by.to_bytes(), Offence.DHT)
        own = self._core.get_id()
        peers: dict[ID, Any] = {ID(entry.id): entry for entry in entries if 0 < len(entry.id) <= 64}
        peers.pop(own, None)
        closest = sorted(peers, key=lambda peer: distance(key, peer))[: limits.dht_answer_peers_max]
        return [Named(peer, self._addresses(peers[peer].addrs, peer), by) for peer in closest]

    def _addresses(self, raw: Any, peer: ID) -> tuple[str, ...]:
        texts = (address_text(packed, peer) for packed in raw[: self._limits.addresses_per_peer_max])
        return tuple(text for text in texts if text)[: self._limits.dht_answer_addresses_max]
