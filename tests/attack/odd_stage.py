"""A real node in the test's own process, and a client of its control socket.

It is lenient about offences: one that bans its attacker would hide the next fault.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import trio

from dimnode.config import Config, socket_path
from dimnode.limits import LIMITS, Limits
from dimnode.node.node import Node, Ready
from dimnode.store.blobs import BlobStore
from dimnode.store.home import load_seed, prepare_home
from dimnode.store.journal import Journal
from dimnode.wire import FrameDecoder, pack_frame, unpack_body

_NEVER: Final = 1e12
_SECONDS: Final = 60.0
LENIENT: Final = replace(
    LIMITS,
    conduct=replace(LIMITS.conduct, mute_points=_NEVER, disconnect_points=_NEVER, ban_points=_NEVER),
    peers=replace(LIMITS.peers, introduction_seconds_min=0.0),
)


class Control:
    """Asks one question after the other."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._decoder, self._number = stream, FrameDecoder(2**32 - 1), 0

    async def ask(self, op: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The reply: the node never hangs up, whatever it is asked."""
        self._number += 1
        await self._stream.send_all(pack_frame({**arguments, "op": op, "id": self._number}, 2**31))
        while True:
            for body in self._decoder.feed(await self._stream.receive_some(1 << 20)):
                reply: dict[str, Any] = unpack_body(body, 10**6)
                if reply["id"] == self._number and "event" not in reply:
                    return reply


@asynccontextmanager
async def node_in(home: Path, limits: Limits = LENIENT) -> AsyncIterator[tuple[Node, Ready, Control]]:
    """Runs as long as the block. What escapes into the node's nursery comes out of here."""
    prepare_home(home)
    settings: dict[str, Any] = {"listen": ("/ip4/127.0.0.1/tcp/0",), "mdns": False, "http_listen": ""}
    before = gc.get_threshold()
    with Journal(home / "journal.db") as journal, BlobStore(home, 1 << 30, limits.store) as blobs:
        node = Node(home, Config(execute=False, **settings), load_seed(home), journal, blobs, limits)
        there, ready = trio.Event(), list[Ready]()

        def on_ready(found: Ready) -> None:
            ready.append(found)
            there.set()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run, None, on_ready)
                with trio.fail_after(_SECONDS):
                    await there.wait()
                async with await trio.open_unix_socket(str(socket_path(home))) as stream:
                    yield node, ready[0], Control(stream)
                node.stop.set()
        finally:  # a node has its process for itself, and tunes Python's collector
            gc.unfreeze()
            gc.set_threshold(*before)
