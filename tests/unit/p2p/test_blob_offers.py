"""Who is offered to a fetch, and who of them is called in: on a clock that stands still, without a network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dimnode.limits import LIMITS
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.ids import PeerId, blob_cid

FEW = replace(LIMITS.exchange, providers_max=2, substitutes_max=4)
PEERS = [PeerId(bytes([number])) for number in range(20)]


@dataclass
class Dials:
    """Nobody is there; some do not even say so."""

    silent: set[PeerId] = field(default_factory=set)
    order: list[PeerId] = field(default_factory=list)
    seconds: float = 0.0

    async def reach(self, peer: PeerId) -> None:
        self.order.append(peer)
        await trio.sleep(self.seconds)
        if peer in self.silent:
            await trio.sleep_forever()
        raise DialFailed("it is gone")


def download_of(dials: Dials, limits: Any = FEW) -> Download:
    nothing: Any = None
    return Download(nothing, blob_cid(b""), nothing, dials.reach, nothing, limits=limits)


@asynccontextmanager
async def running(download: Download) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(download.run)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


def run(scenario: Any) -> None:
    trio.run(scenario, clock=MockClock(autojump_threshold=0.01))


def test_who_is_offered_first_is_asked_first_however_many_are_offered_after_it() -> None:
    async def scenario() -> None:
        dials = Dials()
        download = download_of(dials)
        async with running(download):
            for peer in PEERS:
                download.offer(peer)
            await trio.sleep(1.0)
            assert dials.order == PEERS[:5]

    run(scenario)


def test_who_is_offered_before_the_fetch_runs_is_asked_once_it_does() -> None:
    async def scenario() -> None:
        dials = Dials()
        download = download_of(dials)
        download.offer(PEERS[0])
        async with running(download):
            await trio.sleep(1.0)
            assert dials.order == PEERS[:1]

    run(scenario)


def test_while_the_first_one_hangs_in_its_dial_the_others_are_called_in() -> None:
    async def scenario() -> None:
        dials = Dials({PEERS[0]})
        download = download_of(dials)
        async with running(download):
            for peer in PEERS[:3]:
                download.offer(peer)
            await wait_all_tasks_blocked()
            assert dials.order == PEERS[:1]
            await trio.sleep(FEW.head_start_seconds + 2 * FEW.look_again_seconds)
            assert dials.order == PEERS[:3]

    run(scenario)


def test_while_nobody_has_it_several_are_asked_at_a_time() -> None:
    async def scenario() -> None:
        dials = Dials(seconds=0.08)
        wide = replace(LIMITS.exchange, providers_max=8)
        download = download_of(dials, wide)
        async with running(download):
            for peer in PEERS:
                download.offer(peer)
            await trio.sleep(0.5)
            assert sorted(dials.order) == PEERS

    run(scenario)


def test_when_a_fetch_is_stopped_nobody_who_waits_is_dialled() -> None:
    async def scenario() -> None:
        dials = Dials(set(PEERS))
        download = download_of(dials)
        async with running(download):
            for peer in PEERS:
                download.offer(peer)
            await wait_all_tasks_blocked()
        assert dials.order == PEERS[:1]

    run(scenario)
