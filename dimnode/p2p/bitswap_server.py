"""Answering what IPFS peers want: blocks of blobs that are everybody's, leaves and nodes of their trees alike.

Rule: default deny. Whether a blob is everybody's is asked again for each block that leaves; "not here" and "not for
you" are one word. A peer has one stream of answers, which it reads at its own pace: at most three messages of about a
leaf are in memory for it. The places are those of `/dim/blob/1`: strangers leave the last ones to who has a lease.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from dimnode.limits import LIMITS, BitswapLimits
from dimnode.p2p.bitswap_words import BITSWAP, Message, Want, ours, pack_answer
from dimnode.p2p.blob_places import Places
from dimnode.p2p.blob_server import Served, Source
from dimnode.p2p.contain import contained
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.records.ids import Cid, PeerId

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block is: in the tree of this root a node, by its number, or else a leaf."""

    root: Cid
    number: int
    is_node: bool


class Blocks(Protocol):
    """Blocks of blobs that everybody may have. `changes`: how often a look found others than the one before."""

    changes: int

    async def look_again(self) -> None:
        """Something was asked for that is not known: look for what came since the last time."""

    def place(self, cid: Cid) -> BlockPlace | None:
        """Where it is; None also when its blob is not everybody's now."""

    def open(self, root: Cid) -> Source | None:
        """To read them. Blocks."""


class _Ledger:
    """What one peer waits for: blocks and words that are to be sent, and what is not here. Bounded by all wants."""

    def __init__(self, group: str, wants_max: int) -> None:
        self.group, self._wants_max = group, wants_max
        self.wants: OrderedDict[Cid, bool] = OrderedDict()  # whether a no is to be said
        self.presences: dict[bytes, bool] = {}
        self.unmet: dict[bytes, Want] = {}
        self.news = trio.Event()
        self.answering = self.placed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be sent."""
        return not (self.wants or self.presences)

    def clear(self) -> None:
        """It waits for nothing."""
        self.wants.clear()
        self.presences.clear()
        self.unmet.clear()

    def forget(self, cid: bytes) -> None:
        """It does not wait for this any more."""
        self.wants.pop(Cid(cid), None)
        self.presences.pop(cid, None)
        self.unmet.pop(cid, None)

    def note(self, want: Want, is_here: bool) -> None:
        """One more want, or one that was unmet; what is beyond the bound is passed over: the peer asks again."""
        self.forget(want.cid)
        if len(self.wants) + len(self.presences) + len(self.unmet) >= self._wants_max:
            return
        if not is_here:
            self.unmet[want.cid] = want
        if is_here and not want.have:
            self.wants[Cid(want.cid)] = want.say_no
        elif is_here or want.say_no:
            self.presences[want.cid] = is_here
        self.news.set()

    def refuse(self, cid: Cid) -> None:
        """What was wanted is not given."""
        if self.wants.pop(cid, False):
            self.presences[cid] = False

    def take_presences(self) -> list[tuple[bytes, bool]]:
        """All words that are to be said now."""
        taken, self.presences = list(self.presences.items()), {}
        return taken


class BitswapServer:
    """The answering side towards all peers. Answers live in the nursery that `attach` gives."""

    def __init__(self, blocks: Blocks, places: Places, limits: BitswapLimits = LIMITS.bitswap) -> None:
        self._blocks, self._places, self._limits = blocks, places, limits
        self._ledgers: dict[PeerId, _Ledger] = {}
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self._asked = trio.Event()
        self.served = Served()

    def attach(self, host: Host, nursery: trio.Nursery) -> None:
        """Give it its host, and where answers live."""
        self._host, self._nursery = host, nursery
        nursery.start_soon(self._watch)

    def waits(self, peer: PeerId) -> bool:
        """Whether something is on its way to this peer."""
        return peer in self._ledgers and self._ledgers[peer].answering

    def forget(self, peer: PeerId) -> None:
        """It was silent for long: what it waits for is kept no more, or all who were ever here could leave some."""
        if not self.waits(peer):
            self._ledgers.pop(peer, None)

    def unmet(self) -> int:
        """How many wants wait for what is not here, or not everybody's."""
        return sum(len(ledger.unmet) for ledger in self._ledgers.values())

    async def hear(self, peer: PeerId, group: str, message: Message) -> None:
        """Note what a peer wants or no longer wants, and see to it that it is answered. `group`: its network."""
        if not all(want.cancel or self._is_here(want) for want in message.wants):
            await self._blocks.look_again()
        ledger = self._ledgers.get(peer)
        if ledger is None:
            ledger = self._ledgers[peer] = _Ledger(group, self._limits.wants_max)
            self._asked.set()
        if message.full:
            ledger.clear()
        for want in message.wants:
            if want.cancel:
                ledger.forget(want.cid)
            else:
                ledger.note(want, self._is_here(want))
        self._begin(peer, ledger)

    def _is_here(self, want: Want) -> bool:
        cid = ours(want.cid)
        return cid is not None and self._blocks.place(cid) is not None

    async def _watch(self) -> None:
        """Who asked for what is not here hears of it when it comes: it will not ask again soon.

        Wants were judged when they came; all are judged again only when something else is here than at the last time.
        """
        assert self._host is not None
        judged = -1
        while True:
            if not self._ledgers:
                self._asked = trio.Event()
                await self._asked.wait()
            await trio.sleep(self._limits.index_again_seconds)
            connected = set(self._host.connected())
            for peer, ledger in list(self._ledgers.items()):
                if not ledger.answering and peer not in connected:
                    del self._ledgers[peer]
            if not any(ledger.unmet for ledger in self._ledgers.values()):
                continue
            await self._blocks.look_again()
            if judged == self._blocks.changes:
                continue
            judged = self._blocks.changes
            for peer, ledger in self._ledgers.items():
                for want in [each for each in ledger.unmet.values() if self._is_here(each)]:
                    ledger.note(want, True)
                self._begin(peer, ledger)

    def _begin(self, peer: PeerId, ledger: _Ledger) -> None:
        if not (ledger.is_empty or ledger.answering):
            assert self._nursery is not None, "not attached"
            ledger.answering = True
            self._nursery.start_soon(contained, peer, self._answer, peer, ledger)

    async def _answer(self, peer: PeerId, ledger: _Ledger) -> None:
        """Until the peer has all that there is for it, or is gone."""
        try:
            while not ledger.is_empty:
                if not await self._one_stream(peer, ledger):
                    ledger.clear()
        finally:
            ledger.answering = False
            if ledger.placed:
                ledger.placed = False
                self._places.leave(peer, ledger.group)

    def _admit(self, peer: PeerId, ledger: _Ledger) -> None:
        """Blocks take a place. Without one all that is wanted is refused, also what came beside words on their way."""
        if ledger.placed or not ledger.wants:
            return
        ledger.placed = self._places.take(peer, ledger.group, False)
        if not ledger.placed:
            self.served.refused += 1
            for cid in list(ledger.wants):
                ledger.refuse(cid)

    async def _one_stream(self, peer: PeerId, ledger: _Ledger) -> bool:
        """Whether all arrived. Responses go over a stream of ours: on its own the peer does not listen."""
        assert self._host is not None and self._nursery is not None
        try:
            stream = await self._host.open_stream(peer, BITSWAP, lazy=True)
        except (DialFailed, StreamLost):
            return False
        self.served.streams += 1
        whole = False
        try:
            loaded_in, loaded = trio.open_memory_channel[list[bytes]](1)
            async with trio.open_nursery() as nursery:  # the writer; it ends with what was loaded
                nursery.start_soon(self._write, stream, loaded)
                async with loaded_in:
                    await self._load(peer, ledger, loaded_in)
            await stream.close()
            whole = True
        except* (StreamEnded, StreamLost, trio.TooSlowError) as gone:
            log.debug("answering an IPFS peer ended: %r", gone.exceptions[0])
        finally:
            if whole:
                self._nursery.start_soon(self._see_off, stream)
            else:
                await stream.reset()
        return whole

    async def _see_off(self, stream: Stream) -> None:
        """The peer's yes to the protocol was not waited for: read it, so that the stream can end."""
        with trio.move_on_after(self._limits.silence_seconds_max):
            try:
                await stream.read(1)
            except (StreamEnded, StreamLost):
                pass
        await stream.reset()

    async def _load(self, peer: PeerId, ledger: _Ledger, loaded: trio.MemorySendChannel[list[bytes]]) -> None:
        reading = _Reading(self._blocks)
        try:
            while True:
                if ledger.is_empty:
                    ledger.news = trio.Event()
                    with trio.move_on_after(self._limits.linger_seconds):
                        await ledger.news.wait()
                    if ledger.is_empty:
                        return
                self._admit(peer, ledger)
                blocks = await self._next(ledger, reading)
                await loaded.send(pack_answer(blocks, ledger.take_presences()))
        finally:
            reading.close()

    async def _next(self, ledger: _Ledger, reading: "_Reading") -> list[tuple[Cid, bytes]]:
        """About a leaf's worth of blocks."""
        blocks, size = list[tuple[Cid, bytes]](), 0
        while ledger.wants and size < self._limits.answer_bytes:
            cid = next(iter(ledger.wants))
            place = self._blocks.place(cid)  # it may have been everybody's when it was asked for, and be no more
            content = None if place is None else await trio.to_thread.run_sync(reading.read, place)
            if content is None:
                ledger.refuse(cid)
            elif ledger.wants.pop(cid, None) is not None:  # else it was called off meanwhile
                blocks.append((cid, content))
                size += len(content)
        self.served.leaves += len(blocks)
        self.served.bytes += size
        return blocks

    async def _write(self, stream: Stream, loaded: trio.MemoryReceiveChannel[Sequence[bytes]]) -> None:
        async for pieces in loaded:
            with trio.fail_after(self._limits.message_seconds_max):
                for piece in pieces:
                    await stream.write(piece)


class _Reading:
    """Blocks of one blob after the other, through one open file."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._root: Cid | None = None
        self._source: Source | None = None

    def read(self, place: BlockPlace) -> bytes | None:
        """Blocks. None when it went."""
        if place.root != self._root:
            self.close()
            self._root, self._source = place.root, self._blocks.open(place.root)
        if self._source is None:
            return None
        try:
            if place.is_node:
                return self._source.tree.nodes[place.number]
            # A blob that went may be coming in again: where its leaves will be are zeros.
            return self._source.leaf(place.number) if self._source.has(place.number) else None
        except (OSError, IndexError):
            return None

    def close(self) -> None:
        """No more of this blob. Idempotent."""
        if self._source is not None:
            self._source.close()
        self._root = self._source = None
