"""`python -m tests.fuzz.honest ADDRESS`: an honest peer in a process of its own, beside the hostile ones.

When it is connected it says so. Until its input ends it asks the node once every 0.2 s: an echo on a kept stream, what
the node says of itself on a new stream, and every fifth time the same over a new connection. Then it prints how long
each took, as one line of JSON, and beside that how late this machine wakes it after a sleep.

Rule: it does what any peer does and nothing else, so what it waits is what the hostile peers cost others.
"""

import json
import os
import sys
import time

import trio

from dimnode.p2p.host.host import DialFailed, Host, Stream, StreamEnded, StreamLost, open_host
from dimnode.p2p.introduction import INFO
from dimnode.p2p.pings import PING, PING_BYTES
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import peer_bytes
from dimnode.wire import END, pack_frame

_PAUSE_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0
_NEW_CONNECTION_EVERY = 5


def smaller_seed(target: bytes) -> bytes:
    """A key with a smaller id than the node's: then the node waits for us to open a link, however long that takes."""
    while SigningKey.from_seed(found := os.urandom(32)).peer > target:
        pass
    return found


class Probe:
    """Asks and takes the time. A question that fails counts as one that took all our patience."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._peer = peer_bytes(address.rpartition("/p2p/")[2])
        self.seconds: dict[str, list[float]] = {"kept stream": [], "new stream": [], "new connection": []}
        self.failures: list[str] = []
        self.late: list[float] = []

    async def run(self) -> None:
        """Ask until the input ends."""
        async with open_host(smaller_seed(self._peer), [], {}, dht=False) as host:
            await host.connect(self._address)
            print("connected", flush=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, host)
                nursery.start_soon(self._be_late)
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

    async def _be_late(self) -> None:
        while True:
            due = time.monotonic() + _PAUSE_SECONDS
            await trio.sleep(_PAUSE_SECONDS)
            self.late.append(time.monotonic() - due)

    async def _ask(self, host: Host) -> None:
        kept: Stream | None = None
        number = 0
        while True:
            number += 1
            try:
                if kept is None:
                    await host.connect(self._address)
                    kept = await host.open_stream(self._peer, PING)
                await self._timed("kept stream", self._echo, kept)
                await self._timed("new stream", self._introduction, host)
                if number % _NEW_CONNECTION_EVERY == 0:
                    await self._newcomer()
            except (DialFailed, StreamLost, StreamEnded) as error:
                self.failures.append(repr(error))
                kept = None
            await trio.sleep(_PAUSE_SECONDS)

    async def _timed(self, what: str, ask, *arguments) -> None:
        began = time.monotonic()
        try:
            with trio.fail_after(_PATIENCE_SECONDS):
                await ask(*arguments)
        except trio.TooSlowError:
            raise DialFailed(f"{what}: no answer") from None
        finally:
            self.seconds[what].append(time.monotonic() - began)

    async def _echo(self, stream: Stream) -> None:
        await stream.write(bytes(PING_BYTES))
        got = 0
        while got < PING_BYTES:
            got += len(await stream.read(PING_BYTES - got))

    async def _introduction(self, host: Host) -> None:
        stream = await host.open_stream(self._peer, INFO, lazy=True)
        try:
            await stream.write(pack_frame("advert"))
            said = b""
            while not said.endswith(END):
                said += await stream.read(65536)
        finally:
            await stream.reset()

    async def _newcomer(self) -> None:
        """A peer that never was here before. Its own start takes a while and is not the node's doing."""

        async def come_in(host: Host) -> None:
            await host.connect(self._address)
            await self._introduction(host)

        async with open_host(smaller_seed(self._peer), [], {}, dht=False) as host:
            await self._timed("new connection", come_in, host)


def main() -> None:
    """See the module."""
    probe = Probe(sys.argv[1])
    trio.run(probe.run)
    print(json.dumps({"seconds": probe.seconds, "failures": probe.failures, "late": probe.late}), flush=True)


if __name__ == "__main__":
    main()
