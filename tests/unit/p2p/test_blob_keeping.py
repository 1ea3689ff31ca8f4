"""Leaves between the wire and the disk: checked in a thread, told of in the loop."""

import threading

import pytest
import trio

from dimnode.errors import PeerFault, Refused
from dimnode.p2p.blob_keeping import Arrival, Keeper
from dimnode.records.ids import PeerId

PEER = PeerId(b"peer")


def arrival(leaf: int) -> Arrival:
    room = bytearray(8)
    return Arrival(PEER, leaf, memoryview(room), room)


class Disk:
    """Keeps what it is given, when it is let."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.threads: set[int] = set()
        self.wrong: set[int] = set()
        self.full_at = -1
        self.gate = threading.Semaphore(0)
        self.told: list[tuple[int, bool]] = []

    def keep(self, leaf: int, content: memoryview, digest: bytes | None) -> None:
        self.threads.add(threading.get_ident())
        assert self.gate.acquire(timeout=30)
        if leaf in self.wrong:
            raise PeerFault("blob: wrong leaf")
        if leaf == self.full_at:
            raise Refused("E-store-31", "the disk is full", "it is", "make room")
        self.kept.append(leaf)

    def landed(self, found: Arrival, fault: PeerFault | None) -> None:
        self.told.append((found.leaf, fault is None))

    def let(self, leaves: int) -> None:
        self.gate.release(leaves)


async def until(condition) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 a thread changes it
            await trio.sleep(0.001)


def test_leaves_are_told_of_in_their_order_and_a_wrong_one_stops_nobody_else() -> None:
    async def main() -> None:
        disk = Disk()
        disk.wrong = {1}
        keeper = Keeper(disk.keep, disk.landed, 0.5)
        disk.let(100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            for leaf in range(50):
                keeper.put(arrival(leaf))
            await until(lambda: len(disk.told) == 50)
            nursery.cancel_scope.cancel()
        assert disk.told == [(leaf, leaf != 1) for leaf in range(50)]
        assert disk.kept == [leaf for leaf in range(50) if leaf != 1]
        assert threading.get_ident() not in disk.threads

    trio.run(main)


def test_it_says_how_many_wait_the_one_that_is_being_written_among_them() -> None:
    async def main() -> None:
        disk = Disk()
        keeper = Keeper(disk.keep, disk.landed, 0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            for leaf in range(3):
                keeper.put(arrival(leaf))
                assert keeper.waiting == leaf + 1
            disk.let(1)
            await until(lambda: disk.told)
            assert keeper.waiting == 2
            disk.let(2)
            await until(lambda: len(disk.told) == 3)
            assert keeper.waiting == 0
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_one_way_to_the_thread_serves_all_leaves_that_wait() -> None:
    async def main() -> None:
        disk = Disk()
        keeper = Keeper(disk.keep, disk.landed, 0.5)
        ways: list[object] = []
        work = keeper._work

        def counted(token: trio.lowlevel.TrioToken) -> None:
            ways.append(token)
            work(token)

        keeper._work = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            keeper.put(arrival(0))
            await until(lambda: disk.threads)
            for leaf in range(1, 8):
                keeper.put(arrival(leaf))
            disk.let(8)
            await until(lambda: len(disk.told) == 8)
            nursery.cancel_scope.cancel()
        assert len(ways) == 1

    trio.run(main)


def test_cancelled_it_writes_the_leaf_that_it_has_begun_and_none_after_it() -> None:
    async def main() -> None:
        disk = Disk()
        keeper = Keeper(disk.keep, disk.landed, 0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            for leaf in range(4):
                keeper.put(arrival(leaf))
            await until(lambda: disk.threads)
            nursery.cancel_scope.cancel()
            nursery.start_soon(_let_later, disk, keeper)
        assert disk.kept == [0]

    trio.run(main)


async def _let_later(disk: Disk, keeper: Keeper) -> None:
    with trio.CancelScope(shield=True):
        await until(lambda: keeper._over)
        disk.let(100)


def test_a_full_disk_ends_it_with_its_reason() -> None:
    async def main() -> None:
        disk = Disk()
        disk.full_at = 1
        disk.let(100)
        keeper = Keeper(disk.keep, disk.landed, 0.5)
        for leaf in range(3):
            keeper.put(arrival(leaf))
        with pytest.RaisesGroup(Refused), trio.fail_after(30):
            await keeper.run()
        assert disk.kept == [0]

    trio.run(main)
