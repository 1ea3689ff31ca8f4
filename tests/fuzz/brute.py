"""Attacks below the manners of libp2p: raw Yamux frames, sockets without a handshake, gossip past all limits, DHT lies.

Rule: each attack is carried out by one peer that keeps its key until it is refused, and notes how it ended.
"""

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.network.stream.exceptions import StreamError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from multiaddr import Multiaddr

from dimnode.p2p.gossip import HEARTBEAT_TOPIC, TOPICS, heartbeat
from dimnode.records.ids import RecordId
from dimnode.records.kinds import OPEN_SWARM_ID
from tests.e2e.harness import NOISE

from .garbage import KAD, MESHSUB, varint
from .liar import Liar

STREAMS: Final = 10_000
SOCKETS: Final = 500
_HEADER: Final = struct.Struct("!BBHII")
_DATA, _WINDOW, _PING, _SYN, _RST = 0, 1, 2, 1, 8
_OVERRUN_BYTES: Final = 8 * 1024 * 1024
_PIECE_BYTES: Final = (60_000, 300_000)  # the window is 262,144
_SOCKET_SECONDS: Final = 1.5


def frame(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """A Yamux header."""
    return _HEADER.pack(0, kind, flags, stream_id, length)


class Brute:
    """Attacks of one session, each as (name, what to do with the connected host)."""

    def __init__(self, chance: random.Random, target: Any, ended: Counter[str]) -> None:
        self._chance, self._target, self._ended = chance, target, ended

    @property
    def plans(self) -> tuple[Callable[[Any, Liar], Awaitable[None]], ...]:
        """All attacks over a connection."""
        return (
            self.overrun_window,
            self.data_for_ended_streams,
            self.open_ten_thousand,
            self.ping_for_ever,
            self.nonsense_frames,
            self.replay_heartbeats,
            self.speak_for_others,
            self.flood_a_topic,
        )

    # ---- below the streams

    def _session(self, host: Any) -> Any:
        (connection,) = host.get_network().connections[self._target][:1]
        return connection.muxed_conn.secured_conn

    async def _pour(self, host: Any, what: str, chunks: Any) -> None:
        """Write raw bytes until the node has had enough of them, or there are no more."""
        session = self._session(host)
        try:
            for chunk in chunks:
                await session.write(chunk)
        except Exception:  # the stock session has many words for being cut off
            self._ended[f"{what}: writing failed"] += 1
        await self._until_gone(host)
        self._ended[f"{what}: {'cut off' if self._gone(host) else 'still connected'}"] += 1

    def _gone(self, host: Any) -> bool:
        return not [each for each in host.get_network().connections.get(self._target, ()) if not each.is_closed]

    async def _until_gone(self, host: Any) -> None:
        with trio.move_on_after(2.0 * NOISE, shield=True):  # a session that is over says nothing about its end
            while not self._gone(host):  # noqa: ASYNC110 stock has no event that can be trusted
                await trio.sleep(0.05)

    async def overrun_window(self, host: Any, liar: Liar) -> None:
        """Eight megabytes on a stream that was granted a quarter of one.

        No protocol is agreed on it, so it is reset at some point of this; what was granted before may still come.
        """
        stream_id, size = 2001, self._chance.choice(_PIECE_BYTES)
        piece = frame(_DATA, 0, stream_id, size) + bytes(size)
        opening = frame(_WINDOW, _SYN, stream_id, 0)
        await self._pour(host, "window overrun", [opening + piece, *[piece] * (_OVERRUN_BYTES // size)])

    async def data_for_ended_streams(self, host: Any, liar: Liar) -> None:
        """Eight megabytes for streams that we reset ourselves, or that never were."""
        first = 2001
        pieces = []
        for at in range(_OVERRUN_BYTES // _PIECE_BYTES[0]):
            stream_id = first + 2 * self._chance.randrange(at // 8 + 1)
            pieces.append(frame(_DATA, 0, stream_id, _PIECE_BYTES[0]) + bytes(_PIECE_BYTES[0]))
        opening = frame(_WINDOW, _SYN, first, 0) + frame(_WINDOW, _RST, first, 0)
        await self._pour(host, "data for no stream", [opening, *pieces])

    async def open_ten_thousand(self, host: Any, liar: Liar) -> None:
        """Streams and nothing on them; ids without gaps, so that only their number is wrong."""
        first = 101
        ids = range(first, first + 2 * STREAMS, 2)
        opened = [
            b"".join(frame(_WINDOW, _SYN, each, 0) for each in ids[at : at + 250]) for at in range(0, STREAMS, 250)
        ]
        await self._pour(host, "ten thousand streams", opened)

    async def ping_for_ever(self, host: Any, liar: Liar) -> None:
        """Pings: twelve bytes that ask for twelve."""
        await self._pour(host, "pings", [frame(_PING, _SYN, 0, number) * 500 for number in range(40)])

    async def nonsense_frames(self, host: Any, liar: Liar) -> None:
        """Random headers."""
        await self._pour(host, "nonsense frames", [self._chance.randbytes(1200) for _ in range(20)])

    async def half_open(self, address: Multiaddr) -> None:
        """Five hundred sockets that say nothing, or half a word."""
        ip, port = str(address.value_for_protocol("ip4")), int(str(address.value_for_protocol("tcp")))
        found: list[socket.socket] = []
        try:
            for number in range(SOCKETS):
                each = socket.socket()
                each.setblocking(False)
                each.connect_ex((ip, port))
                found.append(each)
                if number % 50 == 0:
                    await trio.sleep(0.01)
            await trio.sleep(0.1)
            for each in found[: SOCKETS // 2]:
                try:
                    each.send(b"\x13/multistream/1.0.0\n"[: self._chance.randrange(1, 21)])
                except OSError:
                    self._ended["half-open socket: closed before its first word"] += 1
            await trio.sleep(_SOCKET_SECONDS)
        finally:
            for each in found:
                each.close()
        self._ended["half-open sockets"] += len(found)

    # ---- gossip

    def signed(self, liar: Liar, host: Any, topic: str, body: bytes) -> Any:
        """A message under our own name, as it should be."""
        message = rpc_pb2.Message(
            data=body, topicIDs=[topic], from_id=host.get_id().to_bytes(), seqno=self._chance.randbytes(8)
        )
        signature = host.get_private_key().sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
        message.signature = signature
        message.key = host.get_public_key().serialize()
        return message

    async def _gossip(self, host: Any, what: str, make: Callable[[int], Any], pause_seconds: float) -> None:
        stream = await host.new_stream(self._target, [TProtocol(MESHSUB)])
        number = 0
        try:
            while not self._gone(host):
                rpc = rpc_pb2.RPC()
                rpc.publish.add().CopyFrom(make(number))
                body = rpc.SerializeToString()
                await stream.write(varint(len(body)) + body)
                number += 1
                self._ended[f"{what}: messages"] += 1
                await trio.sleep(pause_seconds)
        except StreamError:
            pass
        self._ended[f"{what}: {'cut off' if self._gone(host) else 'stream ended'}"] += 1

    async def replay_heartbeats(self, host: Any, liar: Liar) -> None:
        """A new heartbeat and then, again and again, old ones under fresh gossip numbers."""

        def beat(number: int) -> Any:
            at_ms = self._now_ms() - (60_000 if number else 0) - number
            some = RecordId(bytes(OPEN_SWARM_ID))
            return self.signed(liar, host, HEARTBEAT_TOPIC, heartbeat(liar.key, OPEN_SWARM_ID, at_ms, some, 1, 0))

        await self._gossip(host, "replayed heartbeats", beat, 0.05)

    async def speak_for_others(self, host: Any, liar: Liar) -> None:
        """Messages in the name of the node itself, and of peers that never were."""

        def lie(number: int) -> Any:
            message = self.signed(liar, host, self._chance.choice(TOPICS), liar.announcement(HEARTBEAT_TOPIC))
            message.from_id = b"\x00\x24\x08\x01\x12\x20" + self._chance.randbytes(32)
            return message

        await self._gossip(host, "forged messages", lie, 0.02)

    async def flood_a_topic(self, host: Any, liar: Liar) -> None:
        """As fast as the connection takes them."""
        topic = self._chance.choice(TOPICS)
        await self._gossip(host, "flood", lambda _: self.signed(liar, host, topic, liar.announcement(topic)), 0)

    @staticmethod
    def _now_ms() -> int:
        return time.time_ns() // 1_000_000


# ---- the DHT


def poisoned(chance: random.Random, kind: int, own: bytes) -> bytes:
    """An answer to a DHT question: thousands of peers, ourselves elsewhere, addresses of nobody, or none at all."""
    answer = kademlia_pb2.Message()
    answer.type = kind
    ways = [Multiaddr(f"/ip4/127.0.0.1/tcp/{chance.randrange(1, 1024)}").to_bytes() for _ in range(3)]
    match chance.randrange(5):
        case 0:
            for _ in range(1000):
                answer.closerPeers.add(id=b"\x00\x24\x08\x01\x12\x20" + chance.randbytes(32), addrs=ways[:1])
        case 1:
            answer.closerPeers.add(id=own, addrs=ways)
            answer.providerPeers.add(id=own, addrs=ways)
        case 2:
            for _ in range(20):
                answer.closerPeers.add(id=chance.randbytes(chance.randrange(60)), addrs=[chance.randbytes(20)])
        case 3:
            return varint(100 * 1024 * 1024) + bytes(1000)
        case _:
            return varint(64) + chance.randbytes(64)
    body = answer.SerializeToString()
    return varint(len(body)) + body


async def serve_poison(chance: random.Random, own: bytes, stream: Any, sent: Counter[str]) -> None:
    """Answer every question on a DHT stream with a lie."""
    while True:
        size = (await stream.read(1))[0]
        if size > 127:
            size = size & 127 | (await stream.read(1))[0] << 7
        body = b""
        while len(body) < size:
            body += await stream.read(size - len(body))
        question = kademlia_pb2.Message()
        question.ParseFromString(body)
        await stream.write(poisoned(chance, question.type, own))
        sent[f"poisoned answer on {KAD}"] += 1
