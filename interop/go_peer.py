"""go-libp2p's daemon beside a dimnode host: both directions of dial, and every libp2p protocol that we use.

Usage: python interop/go_peer.py FOLDER, with `p2pd` and `p2pd_pb2.py` in it. Prints a JSON line for each thing tried.
Rule: every wait is bounded, and each daemon is ended by the one who started it. The DHT's check of strangers is off:
go speaks no `/dim/info/1`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from dimnode.p2p.gossip import HEARTBEAT_TOPIC
from dimnode.p2p.host.host import Host, open_host
from dimnode.p2p.introduction import INFO, serve_info
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId
from dimnode.records.ipns import Name, routing_key, seal_name
from dimnode.wire import FrameDecoder, pack_frame, unpack_body

PING = "/ipfs/ping/1.0.0"
SECONDS = 15.0
ADVERT = b"an advert, for all that go knows"


def varint(number: int) -> bytes:
    """As protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


class Daemon:
    """The control socket of one p2pd: a length and a protobuf message each way."""

    def __init__(self, folder: Path, path: Path) -> None:
        sys.path.insert(0, str(folder))
        import p2pd_pb2

        self.messages: Any = p2pd_pb2
        self._path = path

    async def connect(self) -> trio.SocketStream:
        """A connection of its own; p2pd takes one question on each at a time."""
        with trio.fail_after(SECONDS):
            while True:
                try:
                    return await trio.open_unix_socket(self._path)
                except OSError:
                    await trio.sleep(0.05)

    async def read(self, stream: trio.SocketStream, kind: Any) -> Any:
        """One message of the daemon, and not a byte more."""
        size = shift = 0
        while True:
            byte = (await stream.receive_some(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        content = b""
        while len(content) < size:
            content += await stream.receive_some(size - len(content))
        return kind.FromString(content)

    async def ask(self, stream: trio.SocketStream, **request: Any) -> Any:
        """The daemon's answer. Raises `RuntimeError` with its words when it says no."""
        message = self.messages.Request(**request).SerializeToString()
        await stream.send_all(varint(len(message)) + message)
        answer = await self.read(stream, self.messages.Response)
        if answer.type != self.messages.Response.OK:
            raise RuntimeError(answer.error.msg)
        return answer

    async def once(self, **request: Any) -> Any:
        """One question on a connection of its own."""
        async with await self.connect() as stream:
            return await self.ask(stream, **request)

    async def walk(self, **query: Any) -> list[bytes]:
        """The peers that a DHT query finds."""
        found = []
        async with await self.connect() as stream:
            answer = await self.ask(stream, type=self.messages.Request.DHT, dht=self.messages.DHTRequest(**query))
            if answer.dht.peer.id:
                found.append(answer.dht.peer.id)
            while answer.dht.type == self.messages.DHTResponse.BEGIN or found:
                if query["type"] == self.messages.DHTRequest.FIND_PEER:
                    break
                item = await self.read(stream, self.messages.DHTResponse)
                if item.type == self.messages.DHTResponse.END:
                    break
                found.append(item.peer.id or item.value)
        return found


class Trials:
    """Prints what came of each trial."""

    def __init__(self, who: str) -> None:
        self._who = who

    async def __call__(self, row: str, trial: Callable[[], Awaitable[Any]]) -> None:
        """Try one thing, bounded."""
        began, ok, note = time.perf_counter(), False, "no answer in time"
        with trio.move_on_after(SECONDS):
            try:
                said = await trial()
                ok, note = True, said if isinstance(said, str) else ""
            except Exception as error:
                note = repr(error)[:200]
        ms = round((time.perf_counter() - began) * 1000)
        print(json.dumps({"row": f"{self._who}: {row}", "ok": ok, "ms": ms, "note": note}), flush=True)


def demand(holds: object, what: str) -> None:
    """Fail a trial."""
    if not holds:
        raise RuntimeError(what)


async def until(holds: Callable[[], Any], what: str) -> None:
    """Look again and again."""
    with trio.move_on_after(SECONDS - 1):
        while not holds():
            await trio.sleep(0.05)
        return
    raise RuntimeError(f"not in time: {what}")


@asynccontextmanager
async def both(folder: Path, name: str, seed: bytes) -> AsyncIterator[tuple[Daemon, Host, list[tuple[bytes, bytes]]]]:
    """A daemon and a host, strangers to each other; what the host hears in gossip."""
    path = folder / f"{name}.sock"
    command = [str(folder / "p2pd"), f"-listen=/unix{path}", "-hostAddrs=/ip4/127.0.0.1/tcp/0", "-dhtServer"]
    command += ["-pubsub", "-gossipsubHeartbeatInterval=500ms", "-q"]
    heard: list[tuple[bytes, bytes]] = []
    with (folder / f"{name}.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        host = open_host(
            seed,
            ["/ip4/127.0.0.1/tcp/0"],
            {INFO: serve_info(lambda: [ADVERT])},
            topics=[HEARTBEAT_TOPIC],
            on_gossip=lambda _, source, message: heard.append((source, message)),
        )
        async with host as opened:
            yield Daemon(folder, path), opened, heard
    finally:
        daemon.terminate()
        try:
            daemon.wait(5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


async def try_all(folder: Path, dialler: str) -> None:
    """One pair, dialled from one side; everything is tried from both."""
    attempt, seed = Trials(f"{dialler} dials"), os.urandom(32)
    async with both(folder, dialler, seed) as (go, host, heard), await go.connect() as control:
        m = go.messages
        me = (await go.ask(control, type=m.Request.IDENTIFY)).identify
        address = f"{Multiaddr(me.addrs[0])}/p2p/{ID(me.id).to_base58()}"
        ours = Multiaddr(host.addresses()[0].rpartition("/p2p/")[0]).to_bytes()

        async def dial() -> None:
            if dialler == "dimnode":
                await host.connect(address)
            else:
                request = m.ConnectRequest(peer=host.peer, addrs=[ours], timeout=10)
                await go.ask(control, type=m.Request.CONNECT, connect=request)
            await until(lambda: me.id in host.connected(), "a connection")

        async def ping_go() -> None:
            stream = await host.open_stream(me.id, PING)
            await stream.write(b"p" * 32)
            demand(await stream.read(32) == b"p" * 32, "another echo")
            await stream.reset()

        async def stream_of(protocol: str) -> trio.SocketStream:
            stream = await go.connect()
            asked = m.StreamOpenRequest(peer=host.peer, proto=[protocol], timeout=10)
            await go.ask(stream, type=m.Request.STREAM_OPEN, streamOpen=asked)
            return stream

        async def ping_us() -> None:
            async with await stream_of(PING) as stream:
                await stream.send_all(b"q" * 32)
                demand(await stream.receive_some(32) == b"q" * 32, "another echo")

        async def introduction() -> None:
            async with await stream_of(INFO) as stream:
                await stream.send_all(pack_frame("offers"))
                decoder, found = FrameDecoder(), []
                while not decoder.ended:
                    found += decoder.feed(await stream.receive_some(65536))
                demand([unpack_body(body) for body in found] == [ADVERT], "another advert")

        async def identify() -> str:
            store = host._core.get_peerstore()
            await until(lambda: PING in store.get_protocols(ID(me.id)), "go's protocols")
            return f"{len(store.get_protocols(ID(me.id)))} protocols"

        async def gossip_out() -> None:
            async with await go.connect() as listener:
                await go.ask(
                    listener,
                    type=m.Request.PUBSUB,
                    pubsub=m.PSRequest(type=m.PSRequest.SUBSCRIBE, topic=HEARTBEAT_TOPIC),
                )
                await until(lambda: me.id in host.gossip_neighbours(HEARTBEAT_TOPIC), "go in our mesh")
                await host.publish(HEARTBEAT_TOPIC, b"from dimnode")
                while (said := await go.read(listener, m.PSMessage)).data != b"from dimnode":
                    pass
                demand(said.signature and getattr(said, "from") == host.peer, "not signed by us")

        async def gossip_in() -> None:
            request = m.PSRequest(type=m.PSRequest.PUBLISH, topic=HEARTBEAT_TOPIC, data=b"from go")
            await go.once(type=m.Request.PUBSUB, pubsub=request)
            await until(lambda: (me.id, b"from go") in heard, "go's message")

        async def kad_out() -> str:
            await host.dht_join()
            demand(me.id in host.dht_peers(), "go is not in our table")
            demand(await host.dht_provide(b"dimnode interop"), "go took no provider record")
            return f"{len(host.dht_peers())} in the table"

        async def kad_in() -> None:
            found = await go.walk(type=m.DHTRequest.FIND_PEER, peer=host.peer, timeout=10)
            demand(host.peer in found, "go does not find us")
            closest = await go.walk(type=m.DHTRequest.GET_CLOSEST_PEERS, key=host.peer, timeout=10)
            demand(host.peer in closest, "we are not among the closest")

        async def kad_record() -> str:
            """go keeps a record only if its own validator takes it, and judges by it what it gets."""
            name = Name("/ipfs/bafkqaaa", 7, time.time_ns() // 1_000_000 + 1_800_000, 60_000)
            record = seal_name(SigningKey.from_seed(seed), name)
            kept, _ = await host.dht_publish(record)
            request = m.DHTRequest(type=m.DHTRequest.GET_VALUE, key=routing_key(PeerId(host.peer)), timeout=10)
            found = (await go.once(type=m.Request.DHT, dht=request)).dht.value
            demand(kept == 1, "go did not keep it")
            demand(found == record, "go gives another one")
            return f"{len(record)} bytes, V2 only"

        for row, trial in (
            ("dial", dial),
            ("ping by dimnode", ping_go),
            ("ping by go", ping_us),
            ("identify", identify),
            ("/dim/info/1 asked by go", introduction),
            ("gossipsub from dimnode", gossip_out),
            ("gossipsub from go", gossip_in),
            ("kad: join, provide", kad_out),
            ("kad: find and closest by go", kad_in),
            ("kad: our index's record, kept and got by go", kad_record),
        ):
            await attempt(row, trial)


async def main(folder: Path) -> None:
    """Both directions."""
    for dialler in ("dimnode", "go"):
        await try_all(folder, dialler)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
