"""The HTTP door's place in the node: opened once, and nothing that passes ends the node."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.config import Config
from dimnode.errors import ConfigError
from dimnode.limits import LIMITS
from dimnode.node.httpdoor import HttpPlace
from dimnode.store.keys import KeyBook
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
        place = place_in(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                with pytest.raises(ConfigError, match="E-http-20"):
                    await place.open(nursery)
                assert not nursery.child_tasks

    with socket.create_server(("127.0.0.1", 0)) as taken:
        trio.run(main)
