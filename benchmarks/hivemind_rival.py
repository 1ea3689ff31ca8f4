"""hivemind's part of the overlay benchmark: its unary calls and its DHT, asked for one measurement at a time.

Runs in an environment of its own (`make rivals`; hivemind brings torch, 1.2 GB), where dimnode is not installed:

    python benchmarks/hivemind_rival.py calls       one JSON question a line on stdin, one answer a line on stdout
    python benchmarks/hivemind_rival.py dht 20 40   so many peers, so many keys

Every peer has its go daemon (p2pd of the wheel), as hivemind starts it by default: encrypted, over loopback.
"""

import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time

import hivemind
from hivemind.p2p import P2P, PeerID
from hivemind.proto import runtime_pb2
from hivemind.utils import get_dht_time

VALUE = b"v" * 100
LIFE_SECONDS = 600
AT_ONCE = 32


def say(answer):
    print(json.dumps(answer), flush=True)


def percentiles(seconds):
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
    }


# Unary calls


def serve(pipe):
    async def run():
        node = await P2P.create()

        async def echo(request: runtime_pb2.Tensor, context) -> runtime_pb2.Tensor:
            return request

        await node.add_protobuf_handler("echo", echo, runtime_pb2.Tensor)
        pipe.send([str(address) for address in await node.get_visible_maddrs()])
        pipe.send(node.peer_id.to_base58())
        await asyncio.sleep(3600)

    asyncio.run(run())


async def timed_calls(call, callers, seconds):
    """Seconds of each call, with so many callers for so long."""
    took, until = [], time.perf_counter() + seconds

    async def caller():
        while (began := time.perf_counter()) < until:
            await call()
            took.append(time.perf_counter() - began)

    await asyncio.gather(*[caller() for _ in range(callers)])
    return took


def calls():
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    addresses, peer = ours.recv(), PeerID.from_base58(ours.recv())

    async def run():
        node = await P2P.create(initial_peers=addresses)
        say({"ready": hivemind.__version__})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            question = json.loads(line)
            request = runtime_pb2.Tensor(buffer=b"x" * question["size"])

            async def call(request=request):
                await node.call_protobuf_handler(peer, "echo", request, runtime_pb2.Tensor)

            await call()
            took = await timed_calls(call, question["callers"], question["seconds"])
            say({**percentiles(took), "per_second": round(len(took) / question["seconds"], 1)})
        await node.shutdown()

    asyncio.run(run())
    server.terminate()


# DHT


def expires():
    return get_dht_time() + LIFE_SECONDS


async def at_once(operation):
    began = time.perf_counter()
    await asyncio.gather(*[operation(number) for number in range(AT_ONCE)])
    return round(AT_ONCE / (time.perf_counter() - began), 1)


async def many_stores(dht, node):
    return await at_once(lambda number: node.store(f"many {number}", VALUE, expires()))


async def many_gets(dht, node):
    return await at_once(lambda number: node.get(f"many {number}", latest=True))


def dht(count, keys):
    first = hivemind.DHT(start=True)
    addresses = first.get_visible_maddrs()
    first.store("boot", VALUE, expires())
    peers, joins, gets = [first], [], []
    for _ in range(count - 1):
        began = time.perf_counter()
        peer = hivemind.DHT(initial_peers=addresses, start=True)
        joins.append(time.perf_counter() - began)
        peer.get("boot", latest=False)
        gets.append(time.perf_counter() - began)
        peers.append(peer)
    writer, reader = peers[-1], peers[(count - 1) // 2]
    stored, got, missing = [], [], 0
    for number in range(keys):
        began = time.perf_counter()
        writer.store(f"key {number}", VALUE, expires())
        stored.append(time.perf_counter() - began)
    for number in range(keys):
        began = time.perf_counter()
        missing += reader.get(f"key {number}", latest=True) is None
        got.append(time.perf_counter() - began)

    say(
        {
            "peers": count,
            "join": percentiles(joins[-5:]),
            "first_get": percentiles(gets[-5:]),
            "store": percentiles(stored),
            "get": percentiles(got),
            "missing": missing,
            "stores_per_second": writer.run_coroutine(many_stores),
            "gets_per_second": reader.run_coroutine(many_gets),
        }
    )
    for peer in reversed(peers):
        peer.shutdown()


if __name__ == "__main__":
    calls() if sys.argv[1] == "calls" else dht(int(sys.argv[2]), int(sys.argv[3]))
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(0)
