"""Providers and fetchers of large blobs in one process, over real loopback sockets."""

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.blobs import BLOB, Grants, serve_blobs
from dimnode.p2p.host.host import DialFailed, Host, open_host
from dimnode.records.ids import Cid, PeerId
from dimnode.records.unixfs import LEAF_BYTES, Tree
from dimnode.store.blobs import BlobStore
from dimnode.store.part import Part

STORE = replace(LIMITS.store, free_bytes_min=0)
BRISK = replace(
    LIMITS.exchange,
    have_again_seconds=0.05,
    look_again_seconds=0.02,
    permission_seconds=0.0,
    find_again_seconds=0.2,
    find_seconds_max=1.0,
)
LISTEN = ["/ip4/127.0.0.1/tcp/0"]


def content_of(leaves: int, more: int = 123, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes((leaves - 1) * LEAF_BYTES + more)


def everybody(_peer: PeerId, _root: Cid) -> bool:
    return True


class Twisted:
    """A source that does something else with a leaf: lie, die, wait."""

    def __init__(self, source: Any, twist: Callable[[int, bytes], bytes]) -> None:
        self._source, self._twist = source, twist

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def leaf_at_once(self, leaf: int, places: Sequence[memoryview]) -> bool:
        """What it does takes its time."""
        return False

    def leaf(self, leaf: int) -> bytes:
        return self._twist(leaf, self._source.leaf(leaf))


@dataclass
class Provider:
    """A host with a store."""

    store: BlobStore
    server: BlobServer
    host: Host = field(init=False)

    @property
    def peer(self) -> PeerId:
        return PeerId(self.host.peer)


def provider(folder: Path, twist: Callable[[int, bytes], bytes] | None = None, may_fetch: Any = everybody) -> Provider:
    folder.mkdir()
    store = BlobStore(folder, 2**40, STORE)
    opened: Any = store.reader
    if twist is not None:
        opened = lambda root: Twisted(store.reader(root), twist)  # noqa: E731
    return Provider(store, BlobServer(opened, may_fetch, BRISK))


@dataclass
class Fetcher:
    """A host that fetches into a store."""

    host: Host
    store: BlobStore
    lied: list[PeerId] = field(default_factory=list)
    part: Part | None = None

    async def reach(self, peer: PeerId) -> None:
        if peer not in self.host.connected():
            raise DialFailed("it is gone")

    def open_sink(self, tree: Tree) -> Part:
        assert self.part is None
        self.part = self.store.part(tree)
        return self.part

    def download(self, root: Cid, size_bytes: int | None = None, limits: Any = BRISK) -> Download:
        return Download(self.host, root, self.open_sink, self.reach, self.lied.append, size_bytes, 0, limits)

    async def try_until(self, true: Callable[[], bool], root: Cid, peers: list[PeerId]) -> None:
        """Fetch until this is true, which it is before the blob is whole. What came stays."""
        download = self.download(root)
        with trio.fail_after(40.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(offer_all, download, peers)
                nursery.start_soon(download.run)
                while not true():  # noqa: ASYNC110 what is waited for is what anybody can see from outside
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not download.done
        if self.part is not None:
            self.part.close()

    async def fetch(self, root: Cid, peers: list[PeerId], seconds: float = 40.0, **more: Any) -> Download:
        """Fetch and finish. Raises `Refused`; `TooSlowError` when it is not whole in time."""
        download = self.download(root, **more)
        failure: Refused | None = None
        with trio.fail_after(seconds):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(offer_all, download, peers)
                    await download.run()
                    nursery.cancel_scope.cancel()
            except* Refused as group:
                failure = next(error for error in group.exceptions if isinstance(error, Refused))
            finally:
                if self.part is not None and not download.done:
                    self.part.close()
        if failure is not None:
            raise failure
        assert self.part is not None
        self.store.finish(self.part)
        return download


async def offer_all(download: Download, peers: list[PeerId]) -> None:
    """Again and again, as the node does."""
    while True:
        for peer in peers:
            download.offer(peer)
        await trio.sleep(0.1)


@asynccontextmanager
async def fetching(folder: Path, number: int = 99) -> AsyncIterator[Fetcher]:
    """A host that fetches into a store of its own, and serves what it has meanwhile."""
    os.makedirs(folder, exist_ok=True)
    with BlobStore(folder, 2**40, STORE) as store:
        serving = {BLOB: serve_blobs(Grants(), lambda _: None, large=BlobServer(store.reader, everybody, BRISK))}
        async with open_host(bytes([number]) * 32, LISTEN, serving, dht=False) as host:
            yield Fetcher(host, store)


@asynccontextmanager
async def staged(folder: Path, *providers: Provider) -> AsyncIterator[Fetcher]:
    """Hosts for all of them, connected to a fetcher's."""
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(fetching(folder))
        for number, each in enumerate(providers, 1):
            serving = {BLOB: serve_blobs(Grants(), lambda _: None, large=each.server)}
            each.host = await stack.enter_async_context(open_host(bytes([number]) * 32, LISTEN, serving, dht=False))
            await fetcher.host.connect(each.host.addresses()[0])
        yield fetcher
        for each in providers:
            each.store.__exit__()


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 120.0) -> None:
    """Run a scenario that must end in time."""

    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded)
