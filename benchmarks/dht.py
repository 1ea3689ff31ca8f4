"""The DHT in a settled swarm: how long one more node takes to join it, to announce a key and to find who has it.

    python -m benchmarks.dht [--peers 20] [--keys 40] [--json]

Each peer is a process of its own with one host (Noise, Yamux, gossip and DHT, no node around it); processes are forked,
so starting Python is not counted, and opening the host is. Peers join one after the other through the first one.

    join        host opened, one address dialled, itself looked up: a table that can be asked
    first get   the same, until a key that the first peer announced is found
    linked      the same, until discovery has connected the newcomer to every other peer
    store, get  announce a key; find its provider from another peer (values are never stored: see docs/protocol.md)
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import trio

from dimnode.p2p.discovery import Discovery
from dimnode.p2p.host.host import Host, open_host
from dimnode.records.ids import PeerId

BOOT_KEY = b"announced by the first peer"
ANSWER_SECONDS_MAX = 60.0
LINKED_SECONDS_MAX = 20.0
ALL_AT_ONCE = 32


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
    }


# One peer


def run_peer(number: int, commands: Connection) -> None:
    """The body of a peer's process: a host that does what it is told until the pipe closes."""
    trio.run(live, number, commands)


async def live(number: int, commands: Connection) -> None:
    """Wait for the order to join, then answer questions."""
    order = await trio.to_thread.run_sync(commands.recv)
    began = time.perf_counter()
    seed = hashlib.sha256(b"benchmark peer %d" % number).digest()
    async with open_host(seed, ["/ip4/127.0.0.1/tcp/0"], {}) as host, trio.open_nursery() as nursery:
        commands.send(await join(host, order, nursery, began))
        while True:
            name, *arguments = await trio.to_thread.run_sync(commands.recv)
            if name == "stop":
                break
            commands.send(await ANSWERS[name](host, *arguments))
        nursery.cancel_scope.cancel()


async def join(host: Host, order: dict[str, Any], nursery: trio.Nursery, began: float) -> dict[str, Any]:
    """Join through one address and time the stages."""
    said: dict[str, Any] = {"address": host.addresses()[0]}
    if not order["address"]:
        return said
    await host.connect(order["address"])
    await host.dht_join()
    said["join"] = time.perf_counter() - began
    found = await host.dht_providers(BOOT_KEY)
    said["first_get"] = time.perf_counter() - began
    said["missed"] = not found
    discovery = Discovery(host, [order["address"]], [], lambda _: None, random.Random(1))
    nursery.start_soon(discovery.run)
    with trio.move_on_after(LINKED_SECONDS_MAX):
        while len(host.connected()) < order["others"]:  # noqa: ASYNC110 a probe: the host has no event for this
            await trio.sleep(0.002)
    said["linked"] = time.perf_counter() - began
    said["connected"] = len(host.connected())
    return said


async def store(host: Host, keys: Sequence[bytes]) -> list[float]:
    """Announce keys one after the other; seconds of each."""
    took = []
    for key in keys:
        began = time.perf_counter()
        stored = await host.dht_provide(key)
        assert stored, "no peer stored the key"
        took.append(time.perf_counter() - began)
    return took


async def get(host: Host, keys: Sequence[bytes], provider: bytes) -> tuple[list[float], int]:
    """Look keys up one after the other; seconds of each, and how many were not found."""
    took, missing = [], 0
    for key in keys:
        began = time.perf_counter()
        missing += PeerId(provider) not in await host.dht_providers(key)
        took.append(time.perf_counter() - began)
    return took, missing


async def at_once(host: Host, op: str, keys: Sequence[bytes]) -> float:
    """Per second, with many at once."""
    began = time.perf_counter()
    limiter = trio.CapacityLimiter(ALL_AT_ONCE)

    async def one(key: bytes) -> None:
        async with limiter:
            await (host.dht_provide(key) if op == "store" else host.dht_providers(key))

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(one, key)
    return len(keys) / (time.perf_counter() - began)


async def who(host: Host) -> bytes:
    """The peer id."""
    return host.peer


ANSWERS: dict[str, Callable[..., Awaitable[Any]]] = {"store": store, "get": get, "at_once": at_once, "who": who}


# The swarm


def ask(peer: Connection, *question: Any) -> Any:
    """Put a question to a peer's process and wait for its answer."""
    peer.send(question if len(question) > 1 or isinstance(question[0], str) else question[0])
    assert peer.poll(ANSWER_SECONDS_MAX), f"a peer did not answer to {question[0]}"
    return peer.recv()


def measure(count: int, keys: int) -> dict[str, Any]:
    """A swarm of so many peers, from its first join to its last lookup."""
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for number in range(count):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=run_peer, args=(number, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        first = ask(pipes[0], {"address": "", "others": 0})
        joins = []
        for number, peer in enumerate(pipes[1:], 1):
            if number == 2:  # the first newcomer gives the first peer somebody who can keep its key
                assert ask(pipes[0], "store", [BOOT_KEY])
            joins.append(ask(peer, {"address": first["address"], "others": number}))
        return {"peers": count, **figures(pipes, joins, keys)}
    finally:
        for peer in pipes:
            with suppress(OSError):
                peer.send(("stop",))
        for process in processes:
            process.join(5)
            process.kill()


def figures(pipes: list[Connection], joins: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Stores from the last peer, gets from the one in the middle, and what the joins said."""
    keys = [b"benchmark key %d" % number for number in range(count)]
    writer, reader = pipes[-1], pipes[(len(pipes) - 1) // 2]
    provider = ask(writer, "who")
    stored = ask(writer, "store", keys)
    got, missing = ask(reader, "get", keys, provider)
    last = joins[-5:]  # those who joined a swarm of about the size in question
    return {
        "join": percentiles([join["join"] for join in last]),
        "first_get": percentiles([join["first_get"] for join in last]),
        "linked": percentiles([join["linked"] for join in last]),
        "not_linked": sum(join["connected"] < number for number, join in enumerate(joins, 1)),
        "store": percentiles(stored),
        "get": percentiles(got),
        "missing": missing,
        "stores_per_second": round(ask(writer, "at_once", "store", keys), 1),
        "gets_per_second": round(ask(reader, "at_once", "get", keys), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--keys", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.peers, options.keys)
    print(json.dumps(found) if options.json else "\n".join(f"{name:20}{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
