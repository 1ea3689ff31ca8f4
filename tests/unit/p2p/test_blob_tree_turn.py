"""The tree of a large blob: one provider gives it while others wait, and none of them keeps them waiting for long."""

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dimnode.limits import LIMITS
from dimnode.p2p.blob_fetch import Download
from dimnode.p2p.blob_words import Node
from dimnode.records.ids import PeerId
from dimnode.records.unixfs import LEAF_BYTES, LINKS_MAX, Tree, TreeBuilder

LIMIT = LIMITS.exchange.tree_seconds_max


def tree_of_three_nodes() -> Tree:
    builder = TreeBuilder()
    for _ in range(LINKS_MAX + 1):
        builder.add_digest(bytes(32), LEAF_BYTES)
    return builder.finish()


class Provider:
    """Gives nodes after so many seconds each, and never a leaf."""

    def __init__(self, tree: Tree, seconds: float) -> None:
        self._node = dict(zip(tree.layout.places(), tree.nodes, strict=True))
        self._size, self._seconds = tree.file_bytes, seconds
        self._waiting: list[tuple[int, int]] = []
        self.given: list[tuple[int, int]] = []

    async def ask(self, *questions: Any) -> None:
        self._waiting += [(asked.level, asked.index) for asked in questions if type(asked) is Node]

    async def opened(self) -> tuple[int, bytes]:
        return self._size, b""

    async def node(self) -> bytes:
        await trio.sleep(self._seconds)
        self.given.append(self._waiting.pop(0))
        return self._node[self.given[-1]]

    def pour(self, answers: Any) -> None:
        """Nothing comes."""


class Sink:
    """Has nothing yet."""

    done_bytes = 0

    def __init__(self, tree: Tree) -> None:
        self.have = bytearray(tree.layout.leaves)

    def missing(self) -> list[int]:
        return list(range(len(self.have)))


def test_who_gives_the_tree_slowly_makes_room_for_the_next_one_which_goes_on_where_it_was() -> None:
    async def main() -> None:
        tree = tree_of_three_nodes()
        nobody: Any = None
        download = Download(nobody, tree.root, Sink, nobody, nobody)  # type: ignore[arg-type]
        slow, quick = Provider(tree, 0.7 * LIMIT), Provider(tree, 0.0)
        gave_up = trio.Event()

        async def give_slowly() -> None:
            try:
                await download._with(PeerId(b"slow"), slow)  # type: ignore[arg-type]
            except trio.TooSlowError:
                gave_up.set()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_slowly)
            await wait_all_tasks_blocked()
            nursery.start_soon(download._with, PeerId(b"quick"), quick)
            with trio.fail_after(3 * LIMIT):
                await gave_up.wait()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert LIMIT <= trio.current_time() - began < LIMIT + 2
        assert download.tree == tree
        assert slow.given + quick.given == tree.layout.places()
        assert quick.given

    trio.run(main, clock=MockClock(autojump_threshold=0.1))
