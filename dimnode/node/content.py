"""Large blobs of this node: what is fetched now and from whom, what is shared, and who is told of it.

Rule: one fetch per root, however many wait for it; when nobody waits any more it stops, and what it has stays for the
next time. Nobody is served but by a rule: what the operator shares, and what `rules` allow (models: public, lease or
grant).
"""

import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
import trio.lowlevel

from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS, Limits
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.records.ids import Cid, PeerId, cid_text, peer_text, short
from dimnode.records.unixfs import Tree
from dimnode.store.blobs import BlobStore
from dimnode.store.part import Part

log = logging.getLogger(__name__)

SHARED: Final = "shared"
"""The pin of what the operator lets everybody fetch."""
NOBODY: Final = PeerId(b"")
"""A peer that no lease and no grant can name."""
MayFetch = Callable[[PeerId, Cid], bool]
Source = Callable[[Cid, int | None, Callable[[int, int], None]], Awaitable[bool]]
"""A place nearer than any peer: (root, size if known, whom to tell how far it is) -> whether the store has it now."""
Holders = Callable[[Cid], Iterable[PeerId]]
_MULTIHASH_AT: Final = 2  # a provider record's key is the multihash, as other IPFS nodes have it


@dataclass(slots=True)
class _Fetch:
    """A root on its way: who waits, whom to ask, and how it ended."""

    root: Cid
    size_bytes: int | None
    first: Source | None
    hints: dict[PeerId, None]
    began: float
    waiting: int = 0
    watchers: list[Callable[[int, int], None]] = field(default_factory=list)
    download: Download | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)
    error: Refused | None = None
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))


class Content:
    """Made before the host; `attach` gives it one."""

    def __init__(self, store: BlobStore, limits: Limits = LIMITS) -> None:
        self.store, self._limits, self._bound_seconds = store, limits.exchange, limits.store.prune_look_seconds
        self.server = BlobServer(store.reader, self.may_fetch, limits.exchange)
        self.rules: list[MayFetch] = []
        self.holders: list[Holders] = []
        self.sources: list[Source] = []
        self._shared = {root for root, reasons in store.pins().items() if SHARED in reasons}
        self._fetches: dict[Cid, _Fetch] = {}
        self._turn = trio.CapacityLimiter(limits.exchange.fetches_max)
        self._liars: OrderedDict[PeerId, float] = OrderedDict()
        self._read: dict[str, tuple[str, int, int]] = {}
        """What is read from this machine's disk now: what for, bytes so far and in all."""
        self._announced: OrderedDict[Cid, float] = OrderedDict()
        self._announce_now = trio.Event()
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self._reach: Callable[[PeerId], Awaitable[None]] | None = None
        self._random = random.Random(random.SystemRandom().getrandbits(64))

    def attach(self, host: Host, nursery: trio.Nursery, reach: Callable[[PeerId], Awaitable[None]]) -> None:
        """Give it its host, the nursery for fetches, and how to connect to a peer."""
        self._host, self._nursery, self._reach = host, nursery, reach
        for root in self._shared:
            self.announce(root)
        nursery.start_soon(self._announce_all)
        nursery.start_soon(self._keep_bound)

    # ---- who may have what

    def may_fetch(self, peer: PeerId, root: Cid) -> bool:
        """Whether the peer is served this blob."""
        return root in self._shared or any(rule(peer, root) for rule in self.rules)

    def public(self, root: Cid) -> bool:
        """Whether everybody is: by no lease and no grant."""
        return self.may_fetch(NOBODY, root)

    def share(self, root: Cid) -> None:
        """From now on everybody may fetch it, and the DHT says that it is here. Blocks."""
        blob = self.store.find(root)
        root = blob.root if blob is not None else root
        self.store.pin(root, SHARED)
        self._shared.add(root)

    def unshare(self, root: Cid) -> Cid:
        """No longer; the root, which is to be `withdraw`n in the loop. Blocks."""
        blob = self.store.find(root)
        root = blob.root if blob is not None else root
        self.store.unpin(root, SHARED)
        self._shared.discard(root)
        return root

    # ---- adding

    async def add(self, path: Path, pin: str, share: bool = False) -> dict[str, Any]:
        """Copy a file of this machine into the store. Raises `Refused`. A cancel leaves nothing of it."""

        def progress(done: int, all_of: int) -> None:
            trio.from_thread.check_cancelled()
            self._read[str(path)] = ("add", done, all_of)

        try:
            blob = await trio.to_thread.run_sync(partial(self.store.add, path, progress, pin=pin))
        finally:
            self._read.pop(str(path), None)
        if share:
            await trio.to_thread.run_sync(self.share, blob.root)
            self.announce(blob.root)
        return {"blob": cid_text(blob.root), "bytes": blob.bytes, "shared": blob.root in self._shared}

    async def verify(self, root: Cid, name: str, before: int = 0, of: int = 0) -> bool:
        """Hash a blob again. `name`: under which it is told how far that is; `before`, `of`: as a part of something."""

        def progress(done: int, all_of: int) -> None:
            trio.from_thread.check_cancelled()
            self._read[name] = ("verify", before + done, of or all_of)

        try:
            return await trio.to_thread.run_sync(self.store.verify, root, progress)
        finally:
            self._read.pop(name, None)

    # ---- fetching

    async def fetch(
        self,
        root: Cid,
        size_bytes: int | None = None,
        hints: Sequence[PeerId] = (),
        progress: Callable[[int, int], None] | None = None,
        pin: str = "",
        first: Source | None = None,
    ) -> Path:
        """The blob's flat file, fetched if it is not here. Waits for a fetch that runs; the last to leave ends it.

        hints: peers to ask first. progress: bytes so far and in all, now and then. pin: why it is to be kept. first: a
        place to look at before all others; of no effect when a fetch runs already.
        Raises `Refused`: nobody hands it out (E-p2p-61), it is not what was announced (E-p2p-62), too many fetches
        (E-p2p-63), or the disk is full (E-store-31). What came until then stays for the next time.
        """
        if (path := await trio.to_thread.run_sync(self._here, root, size_bytes)) is None:
            while (ending := self._fetches.get(root)) is not None and ending.scope.cancel_called:
                await ending.over.wait()  # the last one who waited has just left it
            await self._wait_for(self._joined(root, size_bytes, hints, first), progress)
            path = await trio.to_thread.run_sync(self._here, root, size_bytes)
        if path is None:  # evicted between the two: the bound is far too small
            raise Refused("E-store-31", "there is no room for the blob", "max_cache_gb", "a greater max_cache_gb")
        if pin:
            await trio.to_thread.run_sync(self.store.pin, root, pin)
        return path

    def _here(self, root: Cid, size_bytes: int | None) -> Path | None:
        """Its file when it is in the store. Blocks. Raises `Refused`: a smaller one was announced, of which bounds
        would count less than it takes, or a larger one."""
        blob = self.store.find(root)
        if blob is not None and size_bytes not in (None, blob.bytes):
            cause = f"it has {blob.bytes} bytes, {size_bytes} were announced"
            raise Refused("E-p2p-62", f"{cid_text(root)} is not what was announced", cause, "")
        return self.store.path(root)

    def _joined(self, root: Cid, size_bytes: int | None, hints: Sequence[PeerId], first: Source | None) -> _Fetch:
        fetch = self._fetches.get(root)
        if fetch is None:
            if len(self._fetches) >= self._limits.fetches_waiting_max:
                raise Refused("E-p2p-63", "too many blobs are being fetched", "", "later", 1000)
            assert self._nursery is not None, "not attached"
            fetch = self._fetches[root] = _Fetch(root, size_bytes, first, {}, trio.current_time())
            self._nursery.start_soon(self._run, fetch)
        fetch.hints.update(dict.fromkeys(hints))
        return fetch

    async def _wait_for(self, fetch: _Fetch, progress: Callable[[int, int], None] | None) -> None:
        fetch.waiting += 1
        if progress is not None:
            fetch.watchers.append(progress)
        try:
            await fetch.over.wait()
        finally:
            fetch.waiting -= 1
            if progress is not None:
                fetch.watchers.remove(progress)
            if not fetch.waiting:
                fetch.scope.cancel()
        if fetch.error is not None:
            raise fetch.error

    async def _run(self, fetch: _Fetch) -> None:
        # So it ends when nobody waits any more, and for those who wait when the node stops.
        fetch.error = Refused("E-p2p-64", "the fetch was stopped", "", "the same again goes on where it was")
        try:
            with fetch.scope:
                async with self._turn:
                    if not await self._from_sources(fetch):
                        await self._download(fetch)
                fetch.error = None
        except Refused as no:
            fetch.error = no
        except ConfigError as broken:  # a damaged book of blobs is the operator's to mend, and ends no node
            said = broken.complaint
            fetch.error = Refused(said.code, said.what, said.cause, said.hint)
        finally:
            if self._fetches.get(fetch.root) is fetch:
                del self._fetches[fetch.root]
            fetch.over.set()

    async def _from_sources(self, fetch: _Fetch) -> bool:
        def tell(done: int, all_of: int) -> None:
            for watcher in fetch.watchers:
                watcher(done, all_of)

        for source in self.sources if fetch.first is None else (fetch.first, *self.sources):
            if await source(fetch.root, fetch.size_bytes, tell):
                return True
        return False

    async def _download(self, fetch: _Fetch) -> None:
        assert self._host is not None and self._reach is not None
        parts: list[Part] = []

        def open_part(tree: Tree) -> Part:
            parts.append(self.store.part(tree, lambda *_: trio.from_thread.check_cancelled()))
            return parts[0]

        first = self._random.randrange(2**20)
        download = Download(
            self._host, fetch.root, open_part, self._reach, self._lied, fetch.size_bytes, first, self._limits
        )
        fetch.download = download
        failure: Exception | None = None
        try:
            tree = await trio.to_thread.run_sync(self.store.known_tree, fetch.root)
            if tree is not None:
                await download.resume(tree)
            async with trio.open_nursery() as nursery:  # who looks for providers, and who tells how far it is
                nursery.start_soon(self._find_providers, fetch, download)
                nursery.start_soon(self._tell, fetch, download)
                await download.run()
                nursery.cancel_scope.cancel()
            await trio.to_thread.run_sync(self.store.finish, parts[0])
            for watcher in fetch.watchers:
                watcher(download.all_bytes, download.all_bytes)
        except* (Refused, ConfigError) as group:
            failure = group.exceptions[0]
        finally:
            with trio.CancelScope(shield=True):
                for part in parts:
                    await trio.to_thread.run_sync(part.close)
        if failure is not None:
            raise failure

    async def _find_providers(self, fetch: _Fetch, download: Download) -> None:
        """Offer peers again and again; give up when nobody took part for a while. Raises `Refused` E-p2p-61."""
        named, around = dict[PeerId, None](), dict[PeerId, None]()
        moved = (trio.current_time(), 0)
        while True:
            known = [*fetch.hints, *(peer for holders in self.holders for peer in holders(fetch.root)), *named]
            self._offer(download, [*known, *around])
            with trio.move_on_after(self._limits.find_again_seconds):
                named.update(dict.fromkeys(await self._providers(fetch.root)))
                if not known and not named:  # a neighbour may have it all the same: some of them, others each time
                    around.update(dict.fromkeys(self._some_neighbours()))
                self._offer(download, [*named, *around])
                await trio.sleep(self._limits.find_again_seconds if known or named or around else 1.0)
            now, idle = trio.current_time(), download.idle_since
            if download.done_bytes != moved[1]:
                moved = (now, download.done_bytes)
            # Peers that take part and have nothing for us are no reason to wait for ever either.
            stuck = now - moved[0] > 2 * self._limits.leaf_seconds_max
            if stuck or (idle is not None and now - idle > self._limits.find_seconds_max):
                raise self._nobody(fetch, download, [*known, *named, *around])

    def _some_neighbours(self) -> list[PeerId]:
        assert self._host is not None
        all_of_them = self._host.connected()
        return [PeerId(each) for each in random.sample(all_of_them, min(len(all_of_them), self._limits.providers_max))]

    async def _providers(self, root: Cid) -> list[PeerId]:
        assert self._host is not None
        return [PeerId(peer) for peer in await self._host.dht_providers(root[_MULTIHASH_AT:])]

    def _offer(self, download: Download, peers: Sequence[PeerId]) -> None:
        now = time.monotonic()
        for peer in peers:
            until = self._liars.get(peer, 0.0)
            if until <= now and self._host is not None and peer != self._host.peer:
                download.offer(peer)

    def _nobody(self, fetch: _Fetch, download: Download, asked: Sequence[PeerId]) -> Refused:
        text = cid_text(fetch.root)
        if not asked:
            cause = "neither the DHT nor an advert names a peer that has it"
        elif download.liars and set(asked) <= download.liars:
            cause = "who said to have it sent wrong bytes"
        else:
            whom = "one peer was" if len(set(asked)) == 1 else f"{len(set(asked))} peers were"
            cause = f"{whom} asked: gone, without it, or not handing it out to this node"
        if download.done_bytes:
            cause += f"; {download.done_bytes} bytes are kept for the next time"
        return Refused("E-p2p-61", f"no peer hands out {text} now", cause, "dim peers; or name one: --from PEER", 5000)

    def _lied(self, peer: PeerId) -> None:
        self._liars[peer] = time.monotonic() + self._limits.liar_seconds
        self._liars.move_to_end(peer)
        if len(self._liars) > self._limits.liars_max:
            self._liars.popitem(last=False)
        if self._host is not None:
            self._host.offend(peer, Offence.BLOB)

    async def _tell(self, fetch: _Fetch, download: Download) -> None:
        while True:
            await trio.sleep(self._limits.look_again_seconds)
            fetch.samples.append((trio.current_time(), download.done_bytes))
            for watcher in fetch.watchers:
                watcher(download.done_bytes, download.all_bytes)

    # ---- how far it is

    def progress(self) -> list[dict[str, Any]]:
        """What comes in, and what is read now."""
        read = [{"what": a, "name": b, "bytes": done, "of": of} for b, (a, done, of) in self._read.items()]
        return [*(self._row(fetch) for fetch in self._fetches.values()), *read]

    def _row(self, fetch: _Fetch) -> dict[str, Any]:
        download = fetch.download
        rate = 0.0
        if len(fetch.samples) > 1:
            (then, before), (now, done) = fetch.samples[0], fetch.samples[-1]
            rate = max(0.0, (done - before) / max(now - then, 1e-3))
        providers = download.shares() if download is not None else []
        return {
            "what": "fetch",
            "name": cid_text(fetch.root),
            "bytes": download.done_bytes if download is not None else 0,
            "of": download.all_bytes if download is not None else 0,
            "bytes_per_second": round(rate),
            "seconds": round(trio.current_time() - fetch.began, 1),
            "wire_bytes": download.bytes_in if download is not None else 0,
            "providers": {peer_text(share.peer): share.leaves for share in providers},
        }

    async def _keep_bound(self) -> None:
        """Unpinned blobs beyond the bound go, now and then."""
        while True:
            gone = []
            try:
                gone = await trio.to_thread.run_sync(self.store.gc)
            except (Refused, OSError) as error:  # a full or failing disk ends no node: it is looked at again
                log.warning("no room could be made among the blobs: %s", error)
            if gone:
                log.info("%d blobs made room: %d bytes", len(gone), sum(blob.bytes for blob in gone))
            await trio.sleep(self._bound_seconds)

    # ---- the DHT

    def announce(self, root: Cid) -> None:
        """Tell the DHT that this blob is here, and again while the node runs. Only roots, never leaves."""
        if root not in self._announced:
            self._announced[root] = 0.0
            if len(self._announced) > self._limits.announced_roots_max:
                self._announced.popitem(last=False)
            self._announce_now.set()

    def withdraw(self, root: Cid) -> None:
        """No more announcements of it; the old ones end by themselves."""
        self._announced.pop(root, None)

    async def _announce_all(self) -> None:
        """Slowly: a DHT is no place for bursts."""
        gap_seconds = 60.0 / self._limits.announcements_per_minute_max
        while True:
            due = [root for root, at in self._announced.items() if at <= trio.current_time()]
            if not due:
                with trio.move_on_after(self._limits.find_again_seconds):
                    await self._announce_now.wait()
                self._announce_now = trio.Event()
                continue
            root = due[0]
            told = False
            with suppress(DialFailed, StreamLost):
                assert self._host is not None
                told = await self._host.dht_provide(root[_MULTIHASH_AT:])
            if root in self._announced:
                wait_seconds = self._limits.announce_again_seconds if told else 6 * self._limits.find_again_seconds
                self._announced[root] = trio.current_time() + wait_seconds
            log.debug("%s was %sannounced", short(root), "" if told else "not ")
            await trio.sleep(gap_seconds)
