"""Two Noise sessions, or two Yamux connections, over a real socket pair; only libp2p's handshake is skipped."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID

from dimnode.limits import HostLimits
from dimnode.p2p.host.noise_session import NoiseSession, Scratch
from dimnode.p2p.host.yamux import StreamBudget, YamuxConnection
from dimnode.p2p.host.yamux_frames import Frame, FrameParser

LIMITS = HostLimits()
PEER = ID(b"\x00\x24\x08\x01\x12\x20" + bytes(32))


class PipeCarrier:
    """A carrier that is no socket, as a relay is: bytes go through two memory channels."""

    def __init__(self, sender: trio.MemorySendChannel[bytes], receiver: trio.MemoryReceiveChannel[bytes]) -> None:
        self._sender, self._receiver, self._rest = sender, receiver, b""

    async def read(self, n: int | None = None) -> bytes:
        if not self._rest:
            try:
                self._rest = await self._receiver.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return b""
        taken, self._rest = self._rest[:n], self._rest[n:] if n is not None else b""
        return taken

    async def write(self, data: bytes) -> None:
        await self._sender.send(data)

    async def close(self) -> None:
        self._sender.close()
        self._receiver.close()


def socket_carriers(buffer_bytes: int | None = None) -> tuple[RawConnection, RawConnection]:
    """Return both ends of a local stream socket, with small kernel buffers if asked."""
    ends = socket.socketpair()
    for end in ends:
        if buffer_bytes is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    streams = [TrioTCPStream(trio.SocketStream(trio.socket.from_stdlib_socket(end))) for end in ends]
    return RawConnection(streams[0], True), RawConnection(streams[1], False)


def pipe_carriers() -> tuple[PipeCarrier, PipeCarrier]:
    """Return both ends of a pipe without a socket."""
    to_b, from_a = trio.open_memory_channel[bytes](4)
    to_a, from_b = trio.open_memory_channel[bytes](4)
    return PipeCarrier(to_b, from_b), PipeCarrier(to_a, from_a)


def sessions(carriers: tuple[Any, Any] | None = None) -> tuple[NoiseSession, NoiseSession]:
    """Return two sessions that share fresh keys, as after a handshake; the first is the dialler."""
    carriers = carriers or socket_carriers()
    keys = os.urandom(32), os.urandom(32)
    scratch = Scratch()
    made = []
    for index, carrier in enumerate(carriers):
        noise = SimpleNamespace(
            cipher_state_encrypt=SimpleNamespace(k=keys[index], n=0),
            cipher_state_decrypt=SimpleNamespace(k=keys[1 - index], n=0),
        )
        handshaken: Any = SimpleNamespace(
            local_peer=PEER,
            local_private_key=None,
            remote_peer=PEER,
            remote_permanent_pubkey=None,
            is_initiator=index == 0,
            conn=SimpleNamespace(noise_state=SimpleNamespace(noise_protocol=noise)),
        )
        made.append(NoiseSession(handshaken, carrier, scratch, LIMITS.session_unsent_bytes_max))
    return made[0], made[1]


@asynccontextmanager
async def connections(
    carriers: tuple[Any, Any] | None = None, **changes: Any
) -> AsyncIterator[tuple[YamuxConnection, YamuxConnection]]:
    """Run two connected muxers; `changes` are other limits, for both."""
    limits = replace(LIMITS, **changes)
    a, b = (
        YamuxConnection(session, PEER, limits, StreamBudget(limits.inbound_streams_total_max))
        for session in sessions(carriers)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.start)
        nursery.start_soon(b.start)
        await a.event_started.wait()
        await b.event_started.wait()
        yield a, b
        await a.close()
        await b.close()
        nursery.cancel_scope.cancel()


class RawPeer:
    """The other end of a connection under test, speaking frames by hand."""

    def __init__(self, session: NoiseSession) -> None:
        self.session = session
        self._parser = FrameParser(LIMITS.frame_bytes_max)
        self.frames: list[Frame] = []

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            for at in range(0, len(part), 60_000):
                self.session.put(part[at : at + 60_000])
        await self.session.finish()

    async def next_frames(self) -> list[Frame]:
        arrived = [frame for plain in await self.session.receive() for frame in self._parser.feed(plain)]
        self.frames += arrived
        return arrived

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        for frame in self.frames:
            if wanted(frame):
                return frame
        while True:
            for frame in await self.next_frames():
                if wanted(frame):
                    return frame


@asynccontextmanager
async def against_raw_peer(**changes: Any) -> AsyncIterator[tuple[YamuxConnection, RawPeer]]:
    """Run a muxer that was dialled by a `RawPeer`."""
    limits = replace(LIMITS, **changes)
    dialler, dialled = sessions()
    connection = YamuxConnection(dialled, PEER, limits, StreamBudget(limits.inbound_streams_total_max))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        yield connection, RawPeer(dialler)
        nursery.cancel_scope.cancel()


async def read_exactly(stream: Any, size: int) -> bytes:
    """Read `size` bytes, or raise what ends the stream before."""
    got = bytearray()
    while len(got) < size:
        got += await stream.read(size - len(got))
    return bytes(got)


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 60, **options: Any) -> None:
    """Run a scenario that must end within `seconds` of its clock."""

    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded, **options)
