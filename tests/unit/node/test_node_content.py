"""A check of what is here takes its time, too: how far it is can be seen, and it can be stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dimnode.limits import LIMITS
from dimnode.node.content import Content
from dimnode.records.ids import Cid
from dimnode.records.unixfs import LEAF_BYTES
from dimnode.store.blobs import BlobStore
from dimnode.store.hashing import Progress, silent

BYTES = 2 * LEAF_BYTES + 1


class Watched(BlobStore):
    """A store that says after each leaf that it checked one."""

    told: Callable[[], None]

    def verify(self, cid: Cid, progress: Progress = silent) -> bool:
        def leaf(done: int, of: int) -> None:
            progress(done, of)
            self.told()

        return super().verify(cid, leaf)


@pytest.fixture
def content(tmp_path: Path):
    with Watched(tmp_path, 2**40, replace(LIMITS.store, free_bytes_min=0)) as store:
        yield Content(store, LIMITS)


def added(content: Content, folder: Path) -> Cid:
    (folder / "file").write_bytes(bytes(range(256)) * (2 * LEAF_BYTES // 256) + b"x")
    return content.store.add(folder / "file").root


def test_how_far_a_check_is_can_be_seen_alone_or_as_a_part(content: Content, tmp_path: Path) -> None:
    root, seen = added(content, tmp_path), []
    content.store.told = lambda: seen.extend(content.progress())
    assert trio.run(content.verify, root, "alone")
    assert trio.run(content.verify, root, "a model", 100, 100 + BYTES)
    places = [LEAF_BYTES, 2 * LEAF_BYTES, BYTES]
    alone = [{"what": "verify", "name": "alone", "bytes": place, "of": BYTES} for place in places]
    part = [{"what": "verify", "name": "a model", "bytes": 100 + place, "of": 100 + BYTES} for place in places]
    assert seen == alone + part
    assert content.progress() == []


def test_a_check_that_is_stopped_ends_soon_and_takes_nothing_out(content: Content, tmp_path: Path) -> None:
    root, leaves = added(content, tmp_path), []

    async def stopped() -> None:
        with trio.CancelScope() as scope:

            def told() -> None:
                leaves.append(1)
                trio.from_thread.run_sync(scope.cancel)

            content.store.told = told
            await content.verify(root, "a model")
        assert scope.cancelled_caught

    trio.run(stopped)
    assert len(leaves) == 1
    assert content.progress() == [] and content.store.find(root) is not None
