"""Two hosts with their links in one process, over real loopback sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from dimnode.limits import LIMITS, Limits
from dimnode.p2p.host.host import Host, open_host
from dimnode.p2p.links import TASK, Link, Links
from dimnode.p2p.pings import PING
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId

SEEDS = sorted((bytes([number]) * 32 for number in (1, 2)), key=lambda seed: SigningKey.from_seed(seed).peer)


def patient(**changes: Any) -> Limits:
    """Usual limits, but for these of the peers."""
    return replace(LIMITS, peers=replace(LIMITS.peers, **changes))


@dataclass
class Site:
    """One host with its links and what they reported."""

    host: Host = field(init=False)
    links: Links = field(init=False)
    heard: list[tuple[PeerId, bytes]] = field(default_factory=list)
    notices: list[bool] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    fault: Callable[[bytes], None] = lambda _: None

    @property
    def peer(self) -> PeerId:
        return PeerId(self.host.peer)

    async def frame(self, link: Link, body: bytes) -> None:
        self.fault(body)
        self.heard.append((link.peer, body))
        self.tell()

    def notice(self, peer: PeerId, up: bool) -> None:
        self.notices.append(up)
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something reported makes this true."""
        while not true():
            await self.changed.wait()


@asynccontextmanager
async def site(seed: bytes, limits: Limits = LIMITS, **handlers: Any) -> AsyncIterator[Site]:
    """A host that runs links; `handlers` replace theirs: task, ping; None leaves one out. `wall_ms` is its clock."""
    async with AsyncExitStack() as stack:
        made = Site()
        clock = {"wall_ms": handlers["wall_ms"]} if "wall_ms" in handlers else {}
        made.links = links = Links(SigningKey.from_seed(seed).peer, made.frame, made.notice, limits, **clock)
        served = {TASK: handlers.get("task", links.serve_task), PING: handlers.get("ping", links.pings.serve)}
        served = {protocol: handler for protocol, handler in served.items() if handler is not None}
        listen = ["/ip4/127.0.0.1/tcp/0"]
        opened = open_host(seed, listen, served, dht=False, on_connection=links.connection, limits=limits)
        made.host = host = await stack.enter_async_context(opened)
        nursery = await stack.enter_async_context(trio.open_nursery())
        if handlers.get("attached", True):
            links.attach(host, nursery)
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(limits: Limits = LIMITS, **of_larger: Any) -> AsyncIterator[tuple[Site, Site]]:
    """The smaller id first. Not connected yet."""
    async with site(SEEDS[0], limits) as smaller, site(SEEDS[1], limits, **of_larger) as larger:
        yield smaller, larger


async def linked(smaller: Site, larger: Site) -> None:
    """Connect and wait for the link on both sides."""
    await smaller.host.connect(larger.host.addresses()[0])
    await smaller.until(lambda: smaller.notices == [True])
    await larger.until(lambda: larger.notices == [True])


async def linked_again(smaller: Site, larger: Site) -> None:
    """As `linked`, after earlier links."""
    counts = [len(each.notices) for each in (smaller, larger)]
    await smaller.host.connect(larger.host.addresses()[0])
    for each, before in zip((smaller, larger), counts, strict=True):
        await each.until(lambda each=each, before=before: len(each.notices) > before and each.notices[-1])


async def soon(true: Callable[[], bool]) -> None:
    """Wait until this is true, though nothing reports it."""
    while not true():  # noqa: ASYNC110 nothing could set an event
        await trio.sleep(0.02)


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 30.0) -> None:
    """Run a scenario that must end in time."""

    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded)
