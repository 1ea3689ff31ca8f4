"""A request and its answer on a connection that speaks HTTP/1.1: h11 on one side, the ASGI application on the other.

Rule: one task and no queue. The application that asks for a piece of its body reads the socket, so a client is never
read faster than it is served; an answer that is there whole leaves in one write. A write that was not finished closes
the socket, because nothing could follow it.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

import h11
import trio
from hypercorn.config import Config as ServerConfig

Message = MutableMapping[str, Any]
App = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

_READ_BYTES: Final = 65536
_JOINED_BYTES_MAX: Final = 65536
"""What is longer is written by itself: to join it to its header would copy it."""
_BODILESS: Final = frozenset({204, 304})


class Wire:
    """h11 on a stream. `hang_up` closes its socket under whoever waits there."""

    def __init__(self, stream: Any, config: ServerConfig, hang_up: Callable[[], None]) -> None:
        self._stream, self._config, self._hang_up = stream, config, hang_up
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
        self.unparsed = b""
        """All bytes since the latest answer, for a protocol that reads the request once more."""
        self._broken = False

    def at_hand(self) -> Any:
        """The next event of what was read, or `h11.NEED_DATA`. Raises `h11.RemoteProtocolError`."""
        return self.http.next_event()

    async def head(self) -> h11.Request | None:
        """The next request; None when the client has hung up. Raises `h11.RemoteProtocolError`."""
        self.unparsed = self.http.trailing_data[0]
        while (event := self.at_hand()) is h11.NEED_DATA:
            self.unparsed += await self.read()
        return event if isinstance(event, h11.Request) else None

    async def read(self) -> bytes:
        """Some bytes, given to h11; none at the end, however it came."""
        try:
            chunk = bytes(await self._stream.receive_some(_READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            chunk = b""
        self.http.receive_data(chunk)
        return chunk

    async def write(self, *events: h11.Event) -> None:
        """All of these in as few writes as may be; nothing more once a write has failed."""
        data = b""
        for event in events:
            for piece in self.http.send_with_data_passthrough(event) or ():
                if len(piece) > _JOINED_BYTES_MAX:
                    await self._write(data)
                    await self._write(piece)
                    data = b""
                else:
                    data += piece
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        if not data or self._broken:
            return
        is_whole = False
        try:
            await self._stream.send_all(data)
            is_whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the application hears of it where it asks for more
        finally:
            if not is_whole:
                self._broken = True
                self._hang_up()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer."""
        return list(self._config.response_headers("h11"))

    async def refuse(self, status: int) -> None:
        """For bytes that are no request; the application never hears of them."""
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-length", b"0"), (b"connection", b"close"), *self.headers()]
            await self.write(h11.Response(status_code=status, headers=headers), h11.EndOfMessage())


class Exchange:
    """One request, answered by `run`. `is_last` adds that the connection closes afterwards."""

    def __init__(self, wire: Wire, request: h11.Request, is_last: bool, **scope: Any) -> None:
        path, _, query = request.target.partition(b"?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode("ascii").upper(),
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "state": {},
            "extensions": {},
            **scope,
        }
        self._wire, self._is_last = wire, is_last
        self._next: Any = None
        self._start: Message | None = None
        self._begun = False
        self._fault: h11.RemoteProtocolError | None = None

    async def run(self, app: App) -> None:
        """Until it is answered. What the application raises is the caller's."""
        await app(self.scope, self.receive, self.send)
        if self._fault is not None and not self._begun:
            await self._wire.refuse(self._fault.error_status_hint)

    async def receive(self) -> Message:
        """ASGI: a piece of the body, or that the client has gone."""
        try:
            event = await self._event()
            if isinstance(event, h11.Data):
                following = self._wire.at_hand()  # mostly the end is there already
                whole = isinstance(following, h11.EndOfMessage)
                self._next = None if whole else following
                return {"type": "http.request", "body": bytes(event.data), "more_body": not whole}
        except h11.RemoteProtocolError as error:
            self._fault = self._fault or error
            return {"type": "http.disconnect"}
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        if event is h11.PAUSED:  # it has sent its next request: that will be read when this one is answered
            await trio.sleep_forever()
        return {"type": "http.disconnect"}

    async def _event(self) -> Any:
        event, self._next = self._next, None
        while event is None or event is h11.NEED_DATA:
            if event is h11.NEED_DATA:
                if self._wire.http.they_are_waiting_for_100_continue:
                    headers = self._wire.headers()
                    await self._wire.write(h11.InformationalResponse(status_code=100, headers=headers))
                await self._wire.read()
            event = self._wire.at_hand()
        return event

    async def send(self, message: Message) -> None:
        """ASGI. The header waits for the first piece of the body."""
        if message["type"] == "http.response.start":
            assert self._start is None, "one answer to one request"
            self._start = message
            return
        assert self._start is not None, "a body comes after its header"
        events: list[h11.Event] = [] if self._begun else [self._header(self._start)]
        self._begun = True
        body = bytes(message.get("body", b""))
        if body and self.scope["method"] != "HEAD" and self._start["status"] not in _BODILESS:
            events.append(h11.Data(data=body))
        if not message.get("more_body", False):
            events.append(h11.EndOfMessage())
        await self._wire.write(*events)

    def _header(self, start: Message) -> h11.Response:
        headers = [*start.get("headers", ()), *self._wire.headers()]
        if self._is_last:
            headers.append((b"connection", b"close"))
        return h11.Response(status_code=int(start["status"]), headers=headers)
