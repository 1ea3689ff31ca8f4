"""Hypercorn's connections under our own accept loop: what a stranger at the port can cost is bounded here.

Rule: a connection never raises into the node's nursery, never holds it up when it stops, and never outlives its place.
Hypercorn's own loop shields its writes from cancellation without a deadline, so that one client that stops reading
would keep the whole node from stopping; what its parsers raise beside OSError would end the node. See docs/patches.md.
"""

import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from socket import socket as Socket  # noqa: N812
from typing import Any

import h11
import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.events import Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

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


class _Unhurried(h11.Connection):
    """For Hypercorn, which would ask for every body before anybody has looked at the request, nobody waits."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Whether a body has to be asked for."""
        return False


class Protocol(H11Protocol):
    """HTTP/1.1 in which a body that waits to be asked for (`Expect: 100-continue`) is asked for when it is read: who
    has no key, or too much to say, is told so before the body and not after it."""

    def __init__(self, app: Any, *arguments: Any) -> None:
        super().__init__(app, *arguments)
        self._app, self.app = app, self._answer  # type: ignore[assignment]
        self.connection = _Unhurried(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    def _waits(self) -> bool:
        return bool(getattr(self.connection, "client_is_waiting_for_100_continue", False))

    async def _answer(self, scope: Any, receive: Any, *more: Any) -> None:
        async def ask_first() -> Any:
            if self._waits():
                with suppress(h11.LocalProtocolError):  # it has hung up
                    await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            return await receive()

        if scope["type"] == "http" and self._waits():
            scope["state"]["body_waits"] = self._waits
            await self._app(scope, ask_first, *more)
        else:
            await self._app(scope, receive, *more)


class Connection(TCPServer):
    """One connection that speaks HTTP/1.1 and nothing else: HTTP/2 would be a second parser that strangers reach, with
    streams that the clock of an idle connection does not see."""

    def __init__(self, *arguments: Any, client: tuple[str, int] | None, own: tuple[str, int] | None) -> None:
        super().__init__(*arguments)
        self._client, self._own = client, own
        self._is_read = False

    async def run(self) -> None:
        """Until either side hangs up. What the client breaks is raised to whoever accepted it."""
        is_tls = isinstance(self.stream, trio.SSLStream)
        try:
            if is_tls:
                with trio.fail_after(self.config.ssl_handshake_timeout):
                    await self.stream.do_handshake()
            async with TaskGroup() as self._task_group:
                self.protocol: Any = Protocol(
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState({}),
                    is_tls,
                    self._client,
                    self._own,
                    self.protocol_send,
                )
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                # Nothing more comes: without this the place of whoever hung up would wait for the idle clock.
                self._is_read = True
                await self.idle_task.stop()
        finally:
            await self._close()

    async def protocol_send(self, event: Any) -> None:
        """To the client; the idle clock is not wound up again for one that has hung up."""
        if not (self._is_read and isinstance(event, Updated)):
            await super().protocol_send(event)


class Server:
    """Serves an ASGI app on sockets that listen already."""

    def __init__(self, app: Any, config: ServerConfig, limits: HttpLimits, tls: ssl.SSLContext | None) -> None:
        self._app = wrap_app(app, config.wsgi_max_body_size, "asgi")
        self._config, self._limits, self._tls = config, limits, tls
        self._context = WorkerContext(None)
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
                    await self._context.terminated.set()  # idle connections close themselves
                    if self._open:
                        with trio.move_on_after(self._limits.stop_seconds_max):
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
                await trio.sleep(self._limits.accept_again_seconds)
                continue
            except BaseException:
                self._places.release_on_behalf_of(place)
                raise
            connections.start_soon(self._connection, accepted, place)

    async def _connection(self, accepted: trio.socket.SocketType, place: object) -> None:
        stream = Patience(trio.SocketStream(accepted), self._limits.write_seconds_max)
        self._open.add(stream)
        carrier: Any = stream
        if self._tls is not None:
            carrier = trio.SSLStream(carrier, self._tls, server_side=True, https_compatible=True)
        address = ""
        try:
            ends = {"client": accepted.getpeername()[:2], "own": accepted.getsockname()[:2]}
            if self._held[ends["client"][0]] >= self._limits.connections_per_address_max:
                return  # one address never takes every place
            address = ends["client"][0]
            self._held[address] += 1
            await Connection(self._app, self._config, self._context, ConnectionState({}), carrier, **ends).run()
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
