"""Nodes of a private swarm as far as membership goes, in one process over loopback: host, door, gatekeeper."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from dimnode.limits import LIMITS, Limits
from dimnode.node.gatekeeper import Gatekeeper
from dimnode.node.private_swarm import InviteWish, PrivateSwarm
from dimnode.p2p.host.host import Host, Stream, open_host
from dimnode.p2p.member_door import MEMBER, OpenDoor
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/test/echo/1"
TOPIC = "test.topic"
DAY = 86_400_000


def hasty(admission_seconds_max: float) -> Limits:
    """Who shows nothing is not waited for, and has time enough to hear why."""
    return replace(
        LIMITS, swarm=replace(LIMITS.swarm, admission_seconds_max=admission_seconds_max, farewell_seconds_max=10.0)
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def echo(stream: Stream) -> None:
    while True:
        await stream.write(await stream.read(65536))


def seed_of(name: str) -> bytes:
    return name.encode().ljust(32, b".")


@dataclass
class Site:
    """One running host."""

    host: Host
    gatekeeper: Gatekeeper | None
    open_door: OpenDoor
    ups: list[tuple[bytes, bool]] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)

    @property
    def peer(self) -> PeerId:
        return PeerId(self.host.peer)

    @property
    def address(self) -> str:
        return self.host.addresses()[0]

    async def echoes(self, peer: bytes) -> bool:
        stream = await self.host.open_stream(peer, ECHO)
        await stream.write(b"hello")
        return await stream.read(5) == b"hello"


def found(folder: Path, name: str = "anna", **more: bool) -> PrivateSwarm:
    """A new swarm in a home of its own."""
    home = folder / name
    home.mkdir(mode=0o700, exist_ok=True)
    swarm = PrivateSwarm.found(home, SigningKey.from_seed(seed_of(name)), "clinic", now_ms(), **more)
    swarm.save()
    return swarm


def invitation(swarm: PrivateSwarm, uses: int = 9, member_ms: int = 0) -> str:
    """An invitation without an address that leads anywhere."""
    wish = InviteWish(7 * DAY, uses, member_ms, addresses=("/ip4/127.0.0.1/tcp/1",))
    text = swarm.invite(wish, now_ms())[1]
    swarm.save()
    return text


def joined(folder: Path, name: str, text: str) -> PrivateSwarm:
    """Another home that used the invitation."""
    home = folder / name
    home.mkdir(mode=0o700, exist_ok=True)
    swarm = PrivateSwarm.join(home, SigningKey.from_seed(seed_of(name)), text, now_ms())
    swarm.save()
    return swarm


@asynccontextmanager
async def site(
    swarm: PrivateSwarm | None, name: str = "", limits: Limits = LIMITS, dht: bool = False
) -> AsyncIterator[Site]:
    """A host of this swarm's node, or of the node `name` in the open swarm."""
    gatekeeper = Gatekeeper(swarm) if swarm is not None else None
    ups: list[tuple[bytes, bool]] = []
    heard: list[bytes] = []
    open_door = OpenDoor()
    async with AsyncExitStack() as stack:
        opened = open_host(
            seed_of(swarm.home.name if swarm else name),
            LOOPBACK,
            {ECHO: echo, MEMBER: (gatekeeper.door if gatekeeper else open_door).serve},
            topics=(TOPIC,),
            on_gossip=lambda topic, source, data: heard.append(data),
            dht=dht,
            on_connection=lambda peer, up: ups.append((peer, up)),
            admission=gatekeeper.door if gatekeeper else None,
            network_keys=gatekeeper.keys if gatekeeper and gatekeeper.has_keys else None,
            limits=limits,
        )
        host = await stack.enter_async_context(opened)
        nursery = await stack.enter_async_context(trio.open_nursery())
        if gatekeeper is not None:
            nursery.start_soon(gatekeeper.run, host)
        yield Site(host, gatekeeper, open_door, ups, heard)
        nursery.cancel_scope.cancel()


async def until(true: Callable[[], object]) -> None:
    """Wait until it is so."""
    while not true():  # noqa: ASYNC110 - what is waited for is what anybody can see from outside
        await trio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 40.0) -> None:
    """Run a scenario that must end in time."""

    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded)
