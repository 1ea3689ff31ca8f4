"""What other publishers publish: their indexes, found in the DHT, verified, and kept for whoever asks next.

Rule: an index is a hint for the search and gives no rights: its manifests go into the registry as if their publisher
had told them, each by its own signature. What a linked publisher puts here is fetched with its index, so that both are
found while it is away, for as long as the record is valid.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio
import trio.lowlevel

from dimnode.errors import DimError, PeerFault, Refused
from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.node.content import Content
from dimnode.node.registry import Registry
from dimnode.p2p.contain import contained
from dimnode.p2p.host.host import Host
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, peer_text
from dimnode.records.index import INDEX_BYTES_MAX, Index, read_index, root_of
from dimnode.records.ipns import Name
from dimnode.store.blobs import BlobStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A publisher's index as it was read, and the record that named it."""

    name: Name
    root: Cid
    index: Index


@dataclass(frozen=True, slots=True)
class _Known:
    """A record whose index was read and holds. The index itself lies in the store: 64 of them are too much to hold."""

    name: Name
    root: Cid
    asked_ms: int


class Indexes:
    """Made before the host; `attach` gives it one."""

    def __init__(self, net: RecordId, registry: Registry, content: Content, limits: Limits) -> None:
        self._net, self._registry, self._content, self._limits = net, registry, content, limits.index
        self._known: OrderedDict[PeerId, _Known] = OrderedDict()
        self._told: dict[PeerId, Name] = {}
        self._keeping: set[PeerId] = set()
        self._turn = trio.CapacityLimiter(limits.index.fetches_at_once_max)
        self._walks = trio.CapacityLimiter(limits.index.walks_at_once_max)
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self.linked: Callable[[PeerId], bool] = lambda _: False
        self.notices: Callable[[Sequence[Record], PeerId], Awaitable[None]] | None = None
        content.rules.append(self.may_fetch)

    def attach(self, host: Host, nursery: trio.Nursery) -> None:
        """Give it its host, and where fetches live."""
        self._host, self._nursery = host, nursery

    def may_fetch(self, _: PeerId, root: Cid) -> bool:
        """An index is for everybody, as long as its record is valid."""
        return any(known.root == root and known.name.valid_until_ms > wall_ms() for known in self._known.values())

    def publishers(self) -> list[PeerId]:
        """Whose index is here."""
        return list(self._known)

    # ---- asking

    async def resolve(self, publisher: PeerId) -> Found:
        """A publisher's newest index that can be had. Its records are in the registry then.

        Raises `Refused`: E-models-42 nobody knows one, -43 it is over, -44 it is no index of a leaf, -45 nobody hands
        it out, -46 it does not hold.
        """
        known, told, now_ms, hints = self._known.get(publisher), self._told.get(publisher), wall_ms(), [publisher]
        over = None if known is None else known.name
        names = [over, told]  # what it put here counts before its turn comes
        fresh = known is not None and now_ms < min(known.name.valid_until_ms, known.asked_ms + known.name.ttl_ms)
        if told is None and not fresh:
            assert self._host is not None
            async with self._walks:  # each may dial two dozen peers, and whoever may read may ask
                heard = await self._host.dht_resolve(publisher)
            names.append(heard.name)
            over = heard.over or over
            hints += heard.tellers
        valid = [each for each in names if each is not None and each.valid_until_ms > wall_ms()]
        name = max(valid, key=lambda each: each.age_key, default=None)
        if name is None:
            raise _nothing(publisher, over)
        return await self._read(publisher, name, hints)

    async def _read(self, publisher: PeerId, name: Name, hints: Sequence[PeerId]) -> Found:
        try:
            root = root_of(name.value)
        except PeerFault:
            what = f"the record of …{peer_text(publisher)[-8:]} names no index that this version takes"
            cause = f"an index is one blob of at most {INDEX_BYTES_MAX} bytes; it names {name.value[:80]!r}"
            raise Refused("E-models-44", what, cause, "dim models ls") from None
        store = self._content.store
        # What came for this and is not a newest index goes at once: else a publisher's changes would turn out others'
        # blobs, a megabyte each.
        useless = set[Cid]() if await trio.to_thread.run_sync(store.find, root) else {root}
        store.hold(root)
        try:
            index = await self._open(publisher, root, hints)
            for number, manifest in enumerate(index.manifests, 1):
                self._registry.hear(manifest, publisher)
                if not number % self._limits.heard_per_checkpoint:  # all of them take tens of milliseconds
                    await trio.lowlevel.checkpoint()
            if index.withdrawals and self.notices is not None:
                await self.notices(index.withdrawals, publisher)
            useless = self._note(publisher, _Known(name, root, wall_ms()))
        finally:
            store.release(root)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_remove, store, useless)
        return Found(name, root, index)

    async def _open(self, publisher: PeerId, root: Cid, hints: Sequence[PeerId]) -> Index:
        raw = await self._fetch(publisher, root, hints)
        try:
            return await trio.to_thread.run_sync(read_index, raw, publisher, self._net)
        except PeerFault as fault:
            what = f"the index of …{peer_text(publisher)[-8:]} does not hold"
            raise Refused("E-models-46", what, fault.rule, "its publisher has to mend it") from None

    async def _fetch(self, publisher: PeerId, root: Cid, hints: Sequence[PeerId]) -> bytes:
        assert self._host is not None
        what = f"the index of …{peer_text(publisher)[-8:]} is not to be had now"
        asked = [peer for peer in dict.fromkeys(hints) if peer != self._host.peer]
        try:
            with trio.fail_after(self._limits.resolve_seconds_max):
                await self._content.fetch(root, None, asked)
        except trio.TooSlowError:
            cause = "its record was found, but nobody hands the index out"
            raise Refused("E-models-45", what, cause, "dim peers", 5000) from None
        except Refused as no:
            if not no.complaint.code.startswith("E-p2p-6"):
                raise
            raise Refused(
                "E-models-45", what, f"{no.complaint.what}: {no.complaint.cause}", "dim peers", 5000
            ) from None
        raw = await trio.to_thread.run_sync(_content_of, self._content.store, root)
        if raw is None:
            raise Refused("E-models-44", f"{what}: it is larger than {INDEX_BYTES_MAX} bytes", "", "dim models ls")
        return raw

    def _note(self, publisher: PeerId, known: _Known) -> set[Cid]:
        """Keep the newer one; roots that are no publisher's newest index any more."""
        before = self._known.pop(publisher, known)
        newest = max(before, known, key=lambda each: (each.name.age_key, each.asked_ms))
        self._known[publisher] = newest
        gone = {before.root, known.root}
        if len(self._known) > self._limits.kept_max:
            gone.add(self._known.popitem(last=False)[1].root)
        gone.discard(newest.root)
        for root in gone:
            self._content.withdraw(root)
        self._content.announce(newest.root)
        return gone

    # ---- keeping for others

    def told(self, publisher: PeerId, name: Name) -> None:
        """A publisher put its record here: have its index, too, if it is linked."""
        known = self._known.get(publisher)
        if known is not None and known.name.value == name.value:  # mostly the same again, or renewed
            self._note(publisher, _Known(name, known.root, wall_ms()))
            return
        room = publisher in self._keeping or len(self._keeping) < self._limits.kept_max
        if self._nursery is None or not room or not self.linked(publisher):
            return
        self._told[publisher] = name
        if publisher not in self._keeping:
            self._keeping.add(publisher)
            self._nursery.start_soon(contained, publisher, self._keep, publisher)

    async def _keep(self, publisher: PeerId) -> None:
        try:
            while publisher in self._told:
                async with self._turn:
                    name = self._told.pop(publisher)
                    if self.linked(publisher):  # still: who went meanwhile takes nobody's turn
                        with suppress(DimError):
                            await self._read(publisher, name, [publisher])
                        await trio.sleep(self._limits.turn_seconds_min)  # all publishers together have a pace, too
                await trio.sleep(self._limits.fetch_gap_seconds)
        finally:
            self._keeping.discard(publisher)
            self._told.pop(publisher, None)


def _nothing(publisher: PeerId, over: Name | None) -> Refused:
    who = f"…{peer_text(publisher)[-8:]}"
    if over is None:
        cause = "it has published no model, its version has no index, or nobody who is here kept it"
        return Refused("E-models-42", f"no index of {who} was found", cause, "dim models ls shows what was heard", 5000)
    ended = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(over.valid_until_ms / 1000))
    cause = "its publisher has not renewed it since: it is away"
    return Refused("E-models-43", f"the index of {who} was valid until {ended}", cause, "dim peers", 5000)


def _content_of(store: BlobStore, root: Cid) -> bytes | None:
    """An index's bytes; None when they are too many. Blocks."""
    blob = store.find(root)
    return None if blob is None or blob.bytes > INDEX_BYTES_MAX else store.read(root, 0, blob.bytes)


def _remove(store: BlobStore, roots: Iterable[Cid]) -> None:
    """Unless somebody keeps them. Blocks."""
    for root in roots:
        with suppress(Refused):
            store.remove(root)
