"""Why Hypercorn's connections run under our own accept loop (docs/patches.md). When one of these fails, it need not."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve

pytestmark = pytest.mark.slow


async def endless(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


def test_the_pinned_release_is_the_one_whose_inside_we_use() -> None:
    assert version("hypercorn") == "0.18.0"


def test_stock_hypercorn_does_not_stop_while_a_client_does_not_read() -> None:
    async def main() -> None:
        config = Config()
        config.bind, config.graceful_timeout = ["127.0.0.1:0"], 0.1
        config.errorlog = None
        stopped = trio.Event()
        async with trio.open_nursery() as nursery:
            binds = await nursery.start(partial(serve, endless, config))
            client = await trio.open_tcp_stream("127.0.0.1", int(binds[0].rpartition(":")[2]))
            await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.receive_some(100)
            await trio.testing.wait_all_tasks_blocked(0.2)  # until the buffers between them are full: nothing tells
            nursery.cancel_scope.cancel()
            nursery.start_soon(close_later, client, stopped)
        assert stopped.is_set()  # it only went on when the client was gone

    async def close_later(client: trio.SocketStream, stopped: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1.0)
            stopped.set()
            await client.aclose()

    trio.run(main)
