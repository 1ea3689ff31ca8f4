"""What other publishers publish: their indexes, found in the DHT, verified, and kept for whoever asks next.

Rule: an index is a hint for the search and gives no rights: its manifests go into the registry as if their publisher
had told them, each by its own signature. What a linked publisher puts here is fetched with its index, so that both are
found while it is away, for as long as the record is valid.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import Limits
from dimnode.node.content import Content
from dimnode.node.registry import Registry
from dimnode.p2p.host.host import Host
from dimnode.records.envelope import Record
from dimnode.records.ids import Cid, PeerId, RecordId, peer_text
from dimnode.records.index import INDEX_BYTES_MAX, Index, read_index, root_of
from dimnode.records.ipns import Name
from dimnode.store.blobs import BlobStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A publisher's index as it was read, under the record that named it."""

    publisher: PeerId
    name: Name
    root: Cid
    index: Index
    asked_ms: int


class Indexes:
    """Made before the host; `attach` gives it one."""

    def __init__(self, net: RecordId, registry: Registry, content: Content, limits: Limits) -> None:
        self._net, self._registry, self._content, self._limits = net, registry, content, limits.index
        self._found: OrderedDict[PeerId, Found] = OrderedDict()
        self._told: dict[PeerId, Name] = {}
        self._keeping: set[PeerId] = set()
        self._turn = trio.CapacityLimiter(limits.index.fetches_at_once_max)
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
        return any(found.root == root and found.name.valid_until_ms > _now_ms() for found in self._found.values())

    def publishers(self) -> list[PeerId]:
        """Whose index is here."""
        return list(self._found)

    # ---- asking

    async def resolve(self, publisher: PeerId) -> Found:
        """A publisher's newest index that can be had. Its records are in the registry then.

        Raises `Refused`: E-models-42 nobody knows one, -43 it is over, -44 it is no index of a leaf, -45 nobody hands
        it out, -46 it does not hold.
        """
        known, now_ms = self._found.get(publisher), _now_ms()
        if known is not None and known.name.valid_until_ms > now_ms < known.asked_ms + known.name.ttl_ms:
            return known
        assert self._host is not None
        heard = await self._host.dht_resolve(publisher)
        name, over = heard.name, heard.over
        if known is not None and known.name.valid_until_ms > _now_ms():
            if name is None or known.name.age_key >= name.age_key:
                name = known.name
        elif known is not None:
            over = known.name
        if name is None:
            raise _nothing(publisher, over)
        return await self._read(publisher, name, [publisher, *heard.tellers])

    async def _read(self, publisher: PeerId, name: Name, hints: Sequence[PeerId]) -> Found:
        known = self._found.get(publisher)
        if known is not None and known.name.value == name.value:
            return self._note(Found(publisher, name, known.root, known.index, _now_ms()))
        try:
            root = root_of(name.value)
        except PeerFault:
            what = f"the record of …{peer_text(publisher)[-8:]} names no index that this version takes"
            cause = f"an index is one blob of at most {INDEX_BYTES_MAX} bytes; it names {name.value[:80]!r}"
            raise Refused("E-models-44", what, cause, "dim models ls") from None
        raw = await self._fetch(publisher, root, hints)
        try:
            index = await trio.to_thread.run_sync(read_index, raw, publisher, self._net)
        except PeerFault as fault:
            what = f"the index of …{peer_text(publisher)[-8:]} does not hold"
            raise Refused("E-models-46", what, fault.rule, "its publisher has to mend it") from None
        for manifest in index.manifests:
            self._registry.hear(manifest, publisher)
        if index.withdrawals and self.notices is not None:
            await self.notices(index.withdrawals, publisher)
        return self._note(Found(publisher, name, root, index, _now_ms()))

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

    def _note(self, found: Found) -> Found:
        before = self._found.pop(found.publisher, None)
        self._found[found.publisher] = found
        gone = [before] if before is not None and before.root != found.root else []
        if len(self._found) > self._limits.kept_max:
            gone.append(self._found.popitem(last=False)[1])
        for old in gone:
            self._content.withdraw(old.root)
        self._content.announce(found.root)
        return found

    # ---- keeping for others

    def told(self, publisher: PeerId, name: Name) -> None:
        """A publisher put its record here: have its index, too, if it is linked."""
        room = publisher in self._told or len(self._told) < self._limits.kept_max
        if self._nursery is None or not room or not self.linked(publisher):
            return
        self._told[publisher] = name
        if publisher not in self._keeping:
            self._keeping.add(publisher)
            self._nursery.start_soon(self._keep, publisher)

    async def _keep(self, publisher: PeerId) -> None:
        try:
            while (name := self._told.pop(publisher, None)) is not None:
                async with self._turn:
                    with suppress(Refused):
                        await self._read(publisher, name, [publisher])
                await trio.sleep(self._limits.fetch_gap_seconds)
        finally:
            self._keeping.discard(publisher)


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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
