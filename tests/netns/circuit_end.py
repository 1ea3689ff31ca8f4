"""One end of a circuit, or the relay in its middle, as a program for a namespace.

`relay NAME` relays. `stay NAME RELAY` reserves a place there and answers. `visit NAME RELAY PEER SECONDS` dials PEER
through it and measures: at once, and again when a direct way stands or the seconds are over. `knock NAME RELAY PEER`
tries to reserve a place there and to reach PEER through it, and tells what came of each. Prints a JSON document a line,
and what the host logs.
"""

import hashlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import trio

from dimnode.limits import LIMITS
from dimnode.p2p.host.host import DialFailed, Host, Stream, StreamLost, open_host

ECHO, SINK = "/test/echo/1", "/test/sink/1"
MEGABYTES = 40
REACH = replace(LIMITS.reach, punch_seconds_max=1.0, punch_again_seconds_min=0.5, punch_again_seconds_max=1.0)
HASTY = replace(LIMITS, reach=REACH)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def echo(stream: Stream) -> None:
    while True:
        await stream.write(await stream.read(65536))


async def sink(stream: Stream) -> None:
    left = MEGABYTES << 20
    while left > 0:
        left -= len(await stream.read(1 << 20))
    await stream.write(b"k")


async def measure(host: Host, peer: bytes) -> dict[str, float]:
    stream = await host.open_stream(peer, ECHO)
    waits = []
    for _ in range(100):
        began = time.perf_counter()
        await stream.write(b"x" * 100)
        got = 0
        while got < 100:
            got += len(await stream.read(100))
        waits.append(time.perf_counter() - began)
    await stream.reset()
    stream = await host.open_stream(peer, SINK)
    began = time.perf_counter()
    for _ in range(MEGABYTES):
        await stream.write(bytes(1 << 20))
    await stream.read(1)
    rate = MEGABYTES * 1.048576 / (time.perf_counter() - began)
    return {"rtt_ms": round(statistics.median(waits) * 1000, 2), "mb_per_second": round(rate, 1)}


async def stay(host: Host, relay: bytes) -> None:
    place = await host.reach.reserve(relay)
    say(peer=host.addresses()[-1], place=place.addresses)
    await trio.sleep_forever()


async def visit(host: Host, way: str, seconds: float) -> None:
    began = time.perf_counter()
    peer = await host.connect(way)
    dial_ms = round((time.perf_counter() - began) * 1000)
    try:
        say(path=host.path_of(peer), dial_ms=dial_ms, **await measure(host, peer))
    except (DialFailed, StreamLost) as error:  # the relayed connection may be gone by then, when a direct one stands
        say(path="relayed", error=str(error))
    with trio.move_on_after(seconds):
        while host.path_of(peer) != "direct":  # noqa: ASYNC110 measured from outside
            await trio.sleep(0.05)
    say(path=host.path_of(peer), after_seconds=round(time.perf_counter() - began, 2), **await measure(host, peer))


async def knock(host: Host, relay: str, way: str) -> None:
    async def reserve() -> None:
        await host.reach.reserve(await host.connect(relay))

    async def attempt(what: str, act: Callable[[], Awaitable[Any]]) -> None:
        try:
            await act()
            say(tried=what, got_in=True)
        except (DialFailed, StreamLost) as no:
            say(tried=what, got_in=False, because=str(no))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, "reserve", reserve)
        nursery.start_soon(attempt, "reach", lambda: host.connect(way))


async def main() -> None:
    what, name, *more = sys.argv[1:]
    logging.basicConfig()
    logging.getLogger("dimnode").setLevel(logging.INFO)
    seed = hashlib.sha256(name.encode()).digest()
    async with open_host(seed, ["/ip4/0.0.0.0/tcp/4711"], {ECHO: echo, SINK: sink}, limits=HASTY) as host:
        match what:
            case "relay":
                host.reach.relay_when(lambda: True)
                say(peer=host.addresses()[0])
                await trio.sleep_forever()
            case "knock":
                await knock(host, *more)
            case "stay":
                await stay(host, await host.connect(more[0]))
            case _:
                await host.connect(more[0])
                await visit(host, more[1], float(more[2]))


if __name__ == "__main__":
    trio.run(main)
