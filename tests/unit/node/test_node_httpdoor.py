"""The HTTP door's place in the node: opened once, and nothing that passes ends the node."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.config import Config
from dimnode.errors import ConfigError
from dimnode.limits import LIMITS, HttpLimits
from dimnode.node.httpdoor import HttpPlace, Shelf
from dimnode.store.keys import KeyBook
from dimnode.store.uploads import Uploads
from tests.unit.api.http_stage import FakeNode
from tests.unit.store.test_store_keys import KEY


def place_in(home: Path, listen: str) -> HttpPlace:
    book = KeyBook(home)
    book.create(KEY)
    book.close()
    node: Any = SimpleNamespace(home=home, config=Config(http_listen=listen), limits=LIMITS)
    backstage: Any = FakeNode()
    return HttpPlace(node, backstage)


def test_two_who_ask_for_the_door_at_once_find_the_same_one_open(tmp_path: Path) -> None:
    found: list[str] = []

    async def main() -> None:
        place = place_in(tmp_path, "127.0.0.1:0")

        async def ask() -> None:
            found.append(await place.open(nursery))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as asking:
                    asking.start_soon(ask)
                    asking.start_soon(ask)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert found[0] and found[0] == found[1]


def test_of_a_door_that_cannot_listen_nothing_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        place = place_in(tmp_path, "127.0.0.1:99999")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                with pytest.raises(ConfigError, match="E-http-20"):
                    await place.open(nursery)
                assert not nursery.child_tasks

    trio.run(main)


class Full(Uploads):
    """Of a process that has as many files open as it may."""

    looks = 0

    def sweep(self, now: float | None = None) -> int:
        self.looks += 1
        raise OSError(24, "Too many open files")


def test_uploads_that_cannot_be_swept_now_are_swept_later(tmp_path: Path) -> None:
    async def main() -> None:
        uploads = Full(tmp_path, LIMITS.http)
        shelf = Shelf(KeyBook(tmp_path), uploads, HttpLimits(uploads_look_seconds=0.01))
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shelf.watch)
                while uploads.looks < 2:  # noqa: ASYNC110 a thread tells nobody
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    trio.run(main)
