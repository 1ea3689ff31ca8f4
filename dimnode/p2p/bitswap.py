"""Bitswap with IPFS peers that are no dimnodes: who of them is here, what they send, and blocks asked of them.

A peer without a link is let stay for bitswap alone: whatever else it opens is refused, and when it has been silent for
a while its connection is closed. Answers to it go over streams of ours, its answers to us come over streams of its own.
Rule: few such peers, few streams of each; a message is read with a bound, large only from whom something was asked.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS, BitswapLimits
from dimnode.p2p.bitswap_fetch import Session
from dimnode.p2p.bitswap_server import BitswapServer
from dimnode.p2p.bitswap_words import BITSWAP, Message, length_in, read_message
from dimnode.p2p.blob_places import group_of
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, ProtocolRefused, Stream, StreamEnded, StreamLost
from dimnode.p2p.links import TASK
from dimnode.p2p.pings import PING
from dimnode.records.ids import PeerId, peer_text, short

log = logging.getLogger(__name__)

_FOR_GUESTS: Final = (BITSWAP, TASK, PING, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0")
"""With a link, for which the task stream is opened, a peer is no guest any more."""
_ENTRY_BYTES: Final = 40
"""About what a want takes."""


class Bitswap:
    """All IPFS peers of one node. Without a server nobody is answered, and only who is asked may come."""

    def __init__(self, server: BitswapServer | None, limits: BitswapLimits = LIMITS.bitswap) -> None:
        self.server, self._limits = server, limits
        self.linked: Callable[[PeerId], bool] = lambda _: False
        self._heard: dict[PeerId, float] = {}  # guests, and when each was heard last
        self._groups: dict[PeerId, str] = {}  # the networks from which guests came
        self._streams: Counter[PeerId] = Counter()
        self._sessions: dict[PeerId, Session] = {}
        self._expected: dict[PeerId, float] = {}  # whom this node connects to, and when
        self._asked_at: dict[PeerId, float] = {}  # who was asked a while ago
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None

    def attach(self, host: Host, nursery: trio.Nursery, linked: Callable[[PeerId], bool]) -> None:
        """Give it its host, where answers live, and how to know a dimnode."""
        self._host, self._nursery, self.linked = host, nursery, linked
        if self.server is not None:
            self.server.attach(host, nursery)
        nursery.start_soon(self._send_away)

    # ---- who may stay

    def meet(self, peer: PeerId) -> None:
        """A peer that speaks nothing of ours: it may stay for a while if there is a place."""
        if self.server is not None and not self.linked(peer):
            self._enter(peer)

    def expect(self, peer: PeerId) -> None:
        """This node is about to connect to it, to ask it: it may stay for a while. It may turn out to be a dimnode."""
        self._expected[peer] = trio.current_time()
        if len(self._expected) > self._limits.peers_max:
            del self._expected[next(iter(self._expected))]

    def _enter(self, peer: PeerId) -> bool:
        if peer not in self._heard and peer not in self._sessions and not self._has_room(peer):
            return False
        self._heard[peer] = trio.current_time()
        return True

    def _has_room(self, peer: PeerId) -> bool:
        """One network has a share of the places: keys are to be had for nothing."""
        group, limits = group_of(self._host.remote_ip(peer) if self._host is not None else ""), self._limits
        crowded = list(self._groups.values()).count(group) >= limits.peers_per_group_max
        if len(self._heard) >= limits.peers_max or crowded:
            return False
        self._groups[peer] = group
        return True

    def stays(self, peer: PeerId) -> bool:
        """Whether its connection is kept without a link."""
        over = trio.current_time() - self._limits.idle_seconds_max
        return peer in self._heard or self._expected.get(peer, over) > over

    def guests(self) -> int:
        """How many are here for bitswap, or were a moment ago."""
        return len(self._heard)

    def narrow(self, peer: bytes) -> Collection[str] | None:
        """The protocols that this peer may open; None: all."""
        identity = PeerId(peer)
        return None if identity not in self._heard or self.linked(identity) else _FOR_GUESTS

    async def _send_away(self) -> None:
        """Guests that are gone make room; those that were silent for long go."""
        assert self._host is not None
        while True:
            await trio.sleep(self._limits.look_seconds)
            over, connected = trio.current_time() - self._limits.idle_seconds_max, set(self._host.connected())
            for peer, heard in list(self._heard.items()):
                busy = peer in self._sessions or (self.server is not None and self.server.waits(peer))
                if busy or (heard >= over and peer in connected):
                    continue
                del self._heard[peer]
                self._groups.pop(peer, None)
                if self.server is not None:
                    self.server.forget(peer)
                if peer in connected and not self.linked(peer):
                    log.debug("an IPFS peer was silent: %s is disconnected", short(peer))
                    with trio.move_on_after(self._limits.look_seconds):
                        await self._host.disconnect(peer)

    # ---- what comes

    async def serve(self, stream: Stream) -> None:
        """A stream handler: messages until the peer ends. Raises `PeerFault`."""
        peer = PeerId(stream.peer)
        asked = self._may_send(peer)
        places = self._limits.answering_streams_max if asked else self._limits.streams_per_peer_max
        if (self.server is None and not asked) or self._streams[peer] >= places or not self._enter(peer):
            await stream.reset()
            return
        self._streams[peer] += 1
        try:
            while await self._hear(peer, stream):
                pass
        finally:
            self._streams[peer] -= 1
            self._streams = +self._streams  # without zeros

    async def _hear(self, peer: PeerId, stream: Stream) -> bool:
        """One message; False when there are no more."""
        raw = await self._read(peer, stream)
        if raw is None:
            return False
        message = read_message(memoryview(raw), self._limits)
        if not self._enter(peer):  # it was silent for so long that its place was given away
            await stream.reset()
            return False
        if (session := self._sessions.get(peer)) is not None:
            session.hear(message)
        elif message.blocks and not self._may_send(peer):
            raise PeerFault("bitswap: blocks that nobody asked for")
        if message.wants and self.server is not None:
            await self.server.hear(peer, group_of(stream.comes_from), message)
        await self._rest(message, len(raw))
        return True

    async def _rest(self, message: Message, size_bytes: int) -> None:
        """Whatever is no block that was asked for is read at the pace of wants, be it empty, hearsay or unknown."""
        entries = float(len(message.wants) + len(message.presences))
        if not message.blocks:
            entries = max(1.0, entries, size_bytes / _ENTRY_BYTES)
        await trio.sleep(entries / self._limits.entries_per_second_max)

    async def _read(self, peer: PeerId, stream: Stream) -> bytearray | None:
        try:
            said = await stream.read(1)
        except StreamEnded:
            return None
        limits = self._limits
        most = limits.message_bytes_max if self._may_send(peer) else limits.question_bytes_max
        try:
            with trio.fail_after(limits.message_seconds_max):
                while (length := length_in(said, most)) is None:
                    said += await stream.read(1)
                raw = bytearray(length)
                await stream.fill(memoryview(raw))
        except StreamEnded:
            raise PeerFault("bitswap: cut off") from None
        return raw

    # ---- asking

    @asynccontextmanager
    async def session(self, peer: PeerId) -> AsyncIterator[Session]:
        """Ask a connected peer for blocks. Raises `Refused` E-p2p-66: it speaks no bitswap, or is being asked now."""
        assert self._host is not None and self._nursery is not None, "not attached"
        if peer in self._sessions:
            raise Refused("E-p2p-66", f"{peer_text(peer)} is being asked already", "", "later", 1000)
        session = self._sessions[peer] = Session(peer, self._limits)
        self._heard[peer] = trio.current_time()
        stream: Stream | None = None
        try:
            stream = await self._host.open_stream(peer, BITSWAP)
            self._nursery.start_soon(session.write, stream)
            yield session
        except ProtocolRefused:
            raise _nothing(peer, "it does not speak bitswap 1.2.0") from None
        except (DialFailed, StreamLost):
            raise _nothing(peer, "the connection broke") from None
        finally:
            session.scope.cancel()
            if session.lied:
                self._host.offend(peer, Offence.BLOB)
            if stream is not None:
                await stream.reset()
            del self._sessions[peer]
            self._asked_at[peer] = trio.current_time()
            if len(self._asked_at) > self._limits.peers_max:
                del self._asked_at[next(iter(self._asked_at))]

    def _may_send(self, peer: PeerId) -> bool:
        """Whether blocks may come from it: what it sent before it heard that we are through is no offence."""
        over = trio.current_time() - self._limits.idle_seconds_max
        return peer in self._sessions or self._asked_at.get(peer, over) > over


def _nothing(peer: PeerId, why: str) -> Refused:
    return Refused("E-p2p-66", f"{peer_text(peer)} gives no blocks", why, "is it an IPFS node?")
