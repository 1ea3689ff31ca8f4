"""Connections of the HTTP door: what a stranger at the port can cost is bounded here.

Rule: a connection never raises into the node's nursery, never holds it up when it stops, and never outlives its place.
Requests are `exchange.py`'s; those that become WebSockets are Hypercorn's, whose own loop shields its writes from
cancellation without a deadline, so that one client that stops reading would keep the whole node from stopping. See
docs/patches.md.
"""

import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from socket import socket as Socket  # noqa: N812
from typing import Any

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as ServerConfig
from hypercorn.events import RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from dimnode.api.http.closing import Closing
from dimnode.api.http.exchange import Exchange, Wire
from dimnode.limits import HttpLimits

log = logging.getLogger(__name__)


class Patience:
    """A trio SocketStream whose writes have a deadline, and which can be closed under a writer."""

    def __init__(self, stream: trio.SocketStream, write_seconds_max: float) -> None:
        self._stream, self._write_seconds_max = stream, write_seconds_max
        self.socket = stream.socket

    async def send_all(self, data: bytes) -> None:
        """Raises `BrokenResourceError` when the client does not read for so long."""
        try:
            with trio.fail_after(self._write_seconds_max):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            raise trio.BrokenResourceError("the client does not read") from None

    async def wait_send_all_might_not_block(self) -> None:
        """For TLS."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes, or none at the end."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        """No more from us."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Let go of the socket."""
        await self._stream.aclose()


class Connection(TCPServer):
    """One connection that speaks HTTP/1.1 and nothing else: HTTP/2 would be a second parser that strangers reach, with
    streams that the clock of an idle connection does not see. Hypercorn has those that become WebSockets."""

    def __init__(self, server: "Server", stream: Any, hang_up: Callable[[], None], ends: dict[str, Any]) -> None:
        super().__init__(ASGIWrapper(server.app), server.config, server.context, ConnectionState({}), stream)
        self._answer, self._limits, self._ending, self._ends = server.app, server.limits, server.ending, ends
        self._is_tls = isinstance(stream, trio.SSLStream)
        self._wire = Wire(stream, server.config, hang_up)
        self._is_read = False

    async def run(self) -> None:
        """Until either side hangs up. What the client breaks is raised to whoever accepted it."""
        try:
            if self._is_tls:
                with trio.fail_after(self.config.ssl_handshake_timeout):
                    await self.stream.do_handshake()
            count = 0
            while (request := await self._head()) is not None:
                if _wants_socket(request):
                    await self._socket()
                    return
                self._wire.unparsed = b""  # nobody reads it again, and an answer may take a minute
                is_last = count >= self.config.keep_alive_max_requests or self._ending.begun
                scheme = "https" if self._is_tls else "http"
                exchange = Exchange(self._wire, request, is_last, scheme=scheme, **self._ends)
                await exchange.run(self._answer)
                if not await self._again(exchange):
                    return
                count += 1
        finally:
            await self._close()

    async def _head(self) -> h11.Request | None:
        """The next request, as long as the clock of an idle connection runs and the door does not close."""
        try:
            with trio.move_on_after(self.config.keep_alive_timeout) as idle, self._ending.wakes(idle.cancel):
                request = await self._wire.head()
            if idle.cancelled_caught or request is None:
                return None
        except h11.RemoteProtocolError as error:
            await self._wire.refuse(error.error_status_hint)
            return None
        if request.http_version in (b"1.0", b"1.1"):
            return request
        await self._wire.refuse(505)
        return None

    async def _again(self, exchange: Exchange) -> bool:
        """Whether another request may follow. What is left of an unread body is passed over, for a moment."""
        http, room = self._wire.http, self._limits.linger_bytes_max
        with trio.move_on_after(self._limits.linger_seconds_max):
            while http.our_state is h11.DONE and http.their_state is h11.SEND_BODY and room > 0:
                room -= 1 + len((await exchange.receive()).get("body", b""))
        if self._ending.begun or http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        http.start_next_cycle()
        return True

    async def _socket(self) -> None:
        """The request once more, to Hypercorn."""
        async with TaskGroup() as self._task_group:
            self.protocol: Any = H11Protocol(
                self.app,
                self.config,
                self.context,
                self._task_group,
                ConnectionState({}),
                self._is_tls,
                self._ends["client"],
                self._ends["server"],
                self.protocol_send,
            )
            await self.idle_task.restart(self._task_group, self._idle_timeout)
            await self.protocol.handle(RawData(self._wire.unparsed))
            await self._read_data()
            # Nothing more comes: without this the place of whoever hung up would wait for the idle clock.
            self._is_read = True
            await self.idle_task.stop()

    async def protocol_send(self, event: Any) -> None:
        """To the client; the idle clock is not wound up again for one that has hung up."""
        if not (self._is_read and isinstance(event, Updated)):
            await super().protocol_send(event)


def _wants_socket(request: h11.Request) -> bool:
    said = {name: value.strip().lower() for name, value in request.headers if name in (b"upgrade", b"connection")}
    asked = [token.strip() for token in said.get(b"connection", b"").split(b",")]
    return request.method == b"GET" and b"upgrade" in asked and said.get(b"upgrade") == b"websocket"


class Server:
    """Serves an ASGI app on sockets that listen already."""

    def __init__(self, app: Any, config: ServerConfig, limits: HttpLimits, tls: ssl.SSLContext | None) -> None:
        self.app, self.config, self.limits, self._tls = app, config, limits, tls
        self.context, self.ending = WorkerContext(None), Closing()
        self._places = trio.CapacityLimiter(limits.connections_max)
        self._open: set[Patience] = set()
        self._held: Counter[str] = Counter()
        self._empty = trio.lowlevel.ParkingLot()

    async def serve(self, sockets: Sequence[Socket], until: Callable[[], Awaitable[object]]) -> None:
        """Until told to stop; then nobody new, and who is there gets the stop limit. Cancelled, it ends at once."""
        listeners = [trio.socket.from_stdlib_socket(found) for found in sockets]
        try:
            async with trio.open_nursery() as connections:
                try:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(self._accept, listener, connections)
                        await until()
                        accepting.cancel_scope.cancel()
                    self.ending.begin()  # idle connections close themselves
                    await self.context.terminated.set()
                    if self._open:
                        with trio.move_on_after(self.limits.stop_seconds_max):
                            await self._empty.park()
                finally:  # inside, also when cancelled: the nursery would wait for writes that are shielded
                    self._close_all()
                    connections.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.close()

    async def _accept(self, listener: trio.socket.SocketType, connections: trio.Nursery) -> None:
        while True:
            await self._places.acquire_on_behalf_of(place := object())
            try:
                accepted, _ = await listener.accept()
            except OSError as error:  # no file is left, say: that passes
                log.warning("an HTTP client cannot be let in now: %s", error)
                self._places.release_on_behalf_of(place)
                await trio.sleep(self.limits.accept_again_seconds)
                continue
            except BaseException:
                self._places.release_on_behalf_of(place)
                raise
            connections.start_soon(self._connection, accepted, place)

    async def _connection(self, accepted: trio.socket.SocketType, place: object) -> None:
        stream = Patience(trio.SocketStream(accepted), self.limits.write_seconds_max)
        self._open.add(stream)
        carrier: Any = stream
        if self._tls is not None:
            carrier = trio.SSLStream(carrier, self._tls, server_side=True, https_compatible=True)
        address = ""
        try:
            ends = {"client": accepted.getpeername()[:2], "server": accepted.getsockname()[:2]}
            if self._held[ends["client"][0]] >= self.limits.connections_per_address_max:
                return  # one address never takes every place
            address = ends["client"][0]
            self._held[address] += 1
            await Connection(self, carrier, stream.socket.close, ends).run()
        except Exception as error:  # noqa: BLE001 boundary: what a client caused ends its connection, no more
            log.info("an HTTP connection broke: %s", type(error).__name__)
        finally:
            self._open.discard(stream)
            stream.socket.close()
            if address:
                self._held[address] -= 1
                if not self._held[address]:
                    del self._held[address]
            if not self._open:
                self._empty.unpark_all()
            self._places.release_on_behalf_of(place)

    def _close_all(self) -> None:
        """Also under a task that is shielded in a write: closing its socket wakes it."""
        for stream in list(self._open):
            stream.socket.close()
