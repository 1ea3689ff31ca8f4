"""A private network of dimnode and js-libp2p: the same pre-shared key, another one, and none.

python interop/psk_peer.py NODE         NODE is the Node.js to use; prints a JSON line for each thing tried
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio
from go_peer import Trials, demand

from dimnode.p2p.host.host import DialFailed, Host, Stream, StreamEnded, open_host

HERE = Path(__file__).resolve().parent
ECHO, PING = "/interop/echo/1", "/ipfs/ping/1.0.0"
LISTEN = ["/ip4/127.0.0.1/tcp/0"]
JS_SECONDS_MAX = 60


async def echo(stream: Stream) -> None:
    """Return what comes, to its end."""
    try:
        while True:
            await stream.write(await stream.read(65536))
    except StreamEnded:
        return


async def echo_through(host: Host, peer: bytes, protocol: str, blob: bytes) -> None:
    """Send `blob` and demand the same back."""
    stream, back = await host.open_stream(peer, protocol), bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, blob)
        while len(back) < len(blob):
            back += await stream.read(65536)
    await stream.reset()
    demand(bytes(back) == blob, "other bytes came back")


async def main(node: str) -> None:
    """Both directions, then what must not work."""
    key = os.urandom(32)
    attempt = Trials("psk")
    handlers = {ECHO: echo}
    seed = os.urandom(32)
    js = subprocess.Popen(
        [node, "psk.mjs", key.hex()], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert js.stdout is not None and js.stdin is not None
    try:
        address = json.loads(await trio.to_thread.run_sync(js.stdout.readline))["address"]
        async with open_host(seed, LISTEN, handlers, network_keys=lambda: [os.urandom(32), key], dht=False) as host:
            await attempt("dimnode dials, its second key fits", partial(host.connect, address))
            for peer in host.connected():
                await attempt("dimnode pings js", partial(echo_through, host, peer, PING, os.urandom(32)))
                blob = os.urandom(1 << 20)
                await attempt("dimnode echoes a megabyte through js", partial(echo_through, host, peer, ECHO, blob))
        async with open_host(seed, LISTEN, handlers, network_keys=lambda: [key], dht=False) as host:
            command = [node, "psk.mjs", key.hex(), host.addresses()[0]]
            run = partial(subprocess.run, command, cwd=HERE, capture_output=True, text=True, timeout=JS_SECONDS_MAX)
            said = (await trio.to_thread.run_sync(run)).stdout
            for line in said.splitlines():
                row = json.loads(line)
                print(json.dumps({**row, "row": f"psk: {row['row']}"}), flush=True)

        async def is_refused(keys: list[bytes]) -> None:
            private = (lambda: keys) if keys else None
            async with open_host(os.urandom(32), LISTEN, {}, network_keys=private, dht=False) as host:
                try:
                    await host.connect(address)
                except DialFailed:
                    return
                demand(False, "it got in")

        await attempt("another key is refused by js", partial(is_refused, [os.urandom(32)]))
        await attempt("no key is refused by js", partial(is_refused, []))
    finally:
        js.stdin.close()
        try:
            js.wait(5)
        except subprocess.TimeoutExpired:
            js.kill()
            js.wait()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
