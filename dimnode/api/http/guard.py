"""The door's two doorkeepers, as plain ASGI: the threshold looks at every request, the guard at those for the inside.

Rule: no route runs before Host, Origin, content type, size, key and rate were looked at, in this order; whatever goes
wrong inside becomes one answer in the door's error shape and never reaches the server's nursery.

Why Host and Origin: a page that the operator's browser has open can send requests to 127.0.0.1 (CSRF), and by DNS
rebinding even read the answers; neither can forge these two headers.
"""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Protocol

import trio

from dimnode.api.http.buckets import Buckets
from dimnode.api.http.caller import Caller, Key, request_id_of, trace_parent_of
from dimnode.api.http.complaints import Said, said, said_bug
from dimnode.api.http.loads import Load, Loads, cost_bytes, values_in
from dimnode.errors import DimError, PeerFault, Refused
from dimnode.limits import HttpLimits
from dimnode.records.ids import cid_bytes, cid_text

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS: Final = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
"""What anybody who reaches the port may see; none of it says who asks what."""
OPEN_PREFIX: Final = "/docs/"
STREAMED: Final = "application/octet-stream"
UPLOAD_PATH: Final = "/dim/v1/blobs"
"""The one path that takes these: everywhere else the framework would read such a body whole, up to its larger bound."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
"""Methods that are counted by name: a stranger may invent any number of others."""
_SAFE: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(?::([0-9]{1,5}))?")


class Keys(Protocol):
    """Where keys are looked up."""

    def find(self, text: str) -> Key | None:
        """The key with this text, valid or not."""


class Meter(Protocol):
    """Where requests are counted."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One finished request."""


@dataclass(slots=True)
class Yard:
    """What both doorkeepers share."""

    keys: Keys
    meter: Meter
    limits: HttpLimits
    hosts: frozenset[str]
    port: int
    origins: frozenset[str]
    paces: Buckets = field(init=False)
    failures: Buckets = field(init=False)
    open_requests: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    sockets: dict[str, int] = field(default_factory=dict)
    loads: Loads = field(init=False)

    def __post_init__(self) -> None:
        self.loads = Loads(self.limits.bodies_bytes_max, self.limits.bodies_bytes_per_key_max)
        self.paces = Buckets(self.limits.callers_remembered_max, self.limits.burst_seconds)
        self.failures = Buckets(self.limits.callers_remembered_max, self.limits.burst_seconds)


class Threshold:
    """Request id, Host, Origin, a bound on requests at once; turns every exception into an answer; counts and logs."""

    def __init__(self, app: App, yard: Yard) -> None:
        self._app, self._yard = app, yard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = _Sent(scope, send)
        began = time.monotonic()
        taken = 0 if scope["type"] == "websocket" else 1  # sockets have places of their own, and keep them for hours
        self._yard.open_requests += taken
        is_head = scope.get("method") == "HEAD"
        if is_head:  # a GET whose body stays here; the routes know no other
            scope["method"] = "GET"
        try:
            self._look(scope)
            with sent.headers_only:
                await self._app(scope, receive, sent)
        except DimError as error:
            await read_on(scope, receive, self._yard.limits)
            await sent.refuse(said(error))
        except Exception:  # boundary: a bug in a route is a 500 and a line in the log, never the node's end
            log.exception("a request failed", extra={"request": scope["state"]["request_id"]})
            await sent.refuse(said_bug())
        finally:
            self._yard.open_requests -= taken
            if is_head:
                scope["method"] = "HEAD"
            self._note(scope, sent, time.monotonic() - began)

    def _look(self, scope: Scope) -> None:
        if self._yard.open_requests > self._yard.limits.requests_at_once_max:
            raise Refused("E-http-12", "this node answers too many requests now", "", "try again", 1000)
        if header(scope, b"content-length") and header(scope, b"transfer-encoding"):
            what = "a body has a Content-Length or a Transfer-Encoding"
            raise Refused("E-http-13", what, "with both, a proxy and this door may see different requests")
        host = header(scope, b"host").lower()
        if not self._is_ours(host, scope.get("scheme", "http")):
            hint = "use the address that the node printed, or set http_hosts"
            raise Refused("E-http-03", f"this door does not go by the name {host[:64]!r}", "", hint)
        origin = header(scope, b"origin").lower()
        if origin and origin not in self._yard.origins and origin not in _own_origins(host):
            raise Refused("E-http-04", f"pages of {origin[:64]!r} may not ask here", "", "set http_origins")

    def _is_ours(self, host: str, scheme: str) -> bool:
        """A listed name, with its port or at any; or an address with this door's port. Browsers leave 80 and 443 out.

        Any address: which ones lead here (NAT, a forwarded port) only the operator knows, and to answer under a
        stranger's address a page would have to come from there; rebinding works with names alone.
        """
        name, port = _name_and_port(host, 443 if scheme in ("https", "wss") else 80)
        listed = {host, name, f"{name}:{port}"} & self._yard.hosts
        return bool(name) and (bool(listed) or (port == self._yard.port and _is_address(name)))

    def _note(self, scope: Scope, sent: "_Sent", seconds: float) -> None:
        found = scope.get("route")
        route = getattr(found, "path", "") or "other"
        method = scope.get("method", "WS")
        method = method if method in _METHODS else "-"
        self._yard.meter.request(method if route != "other" else "-", route, sent.status, seconds)
        state = scope["state"]
        caller = state.get("caller")
        said = {"method": method, "route": route, "status": sent.status, "ms": round(seconds * 1000, 1)}
        said |= {"key": caller.key.id if caller is not None else "", "request": state["request_id"]}
        log.info("a request was answered", extra=said | {"job": state.get("job") or _job_of(scope)})


class Guard:
    """Content type, size, key and rate."""

    def __init__(self, app: App, yard: Yard) -> None:
        self._app, self._yard = app, yard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        scope["state"]["caller"] = caller
        if scope["type"] == "websocket":
            with self._socket_place(caller):
                await self._app(scope, receive, send)
            return
        try:
            with self._request_place(caller):
                await self._app(scope, self._bounded(scope, receive, caller.load), send)
        finally:
            caller.load.release()

    def _caller(self, scope: Scope) -> Caller:
        yard, now_mono = self._yard, time.monotonic()
        key = yard.keys.find(_bearer(scope))
        if key is None or not key.is_valid(time.time_ns() // 1_000_000):
            peer = (scope.get("client") or ("?",))[0]
            if wait := yard.failures.wait_seconds(peer, yard.limits.wrong_keys_per_minute, now_mono):
                raise Refused("E-http-07", "too many wrong keys", "", "wait", int(wait * 1000) + 1)
            cause = "no key was given" if not _bearer(scope) else "the key is unknown, expired or revoked"
            raise Refused("E-http-01", "a valid key is needed", cause, "dim keys new, then Authorization: Bearer KEY")
        if wait := yard.paces.wait_seconds(key.id, key.requests_per_minute, now_mono):
            what = f"this key may ask {key.requests_per_minute} times a minute"
            raise Refused("E-http-07", what, "", "wait, or dim keys new --per-minute N", int(wait * 1000) + 1)
        trace_parent = trace_parent_of(header(scope, b"traceparent"))
        return Caller(key, scope["state"]["request_id"], yard.loads.of(key.id), trace_parent)

    @contextmanager
    def _request_place(self, caller: Caller) -> Iterator[None]:
        """One of the requests that a key may have open: long waits and streams of one key leave room for others."""
        held, key = self._yard.requests, caller.key.id
        if held.get(key, 0) >= self._yard.limits.requests_per_key_max:
            raise Refused("E-http-08", "this key has too many open requests", "", "wait for one to end", 1000)
        held[key] = held.get(key, 0) + 1
        try:
            yield
        finally:
            held[key] -= 1
            if not held[key]:
                del held[key]

    @contextmanager
    def _socket_place(self, caller: Caller) -> Iterator[None]:
        """One of the sockets that a key, and that all keys together, may hold open."""
        held, limits = self._yard.sockets, self._yard.limits
        if held.get(caller.key.id, 0) >= limits.sockets_per_key_max or sum(held.values()) >= limits.sockets_max:
            raise Refused("E-http-08", "too many open sockets", "", "close one, or use SSE", 1000)
        held[caller.key.id] = held.get(caller.key.id, 0) + 1
        try:
            yield
        finally:
            held[caller.key.id] -= 1
            if not held[caller.key.id]:
                del held[caller.key.id]

    def _bounded(self, scope: Scope, receive: Receive, load: Load) -> Receive:
        """The same body, which must be of a type and size that this door takes, and arrive in time."""
        limits, kind = self._yard.limits, header(scope, b"content-type").partition(";")[0].strip().lower()
        declared = header(scope, b"content-length")
        has_body = declared not in ("", "0") or bool(header(scope, b"transfer-encoding"))
        wanted = STREAMED if scope["path"] == UPLOAD_PATH else "application/json"
        if has_body and kind != wanted:
            raise Refused(
                "E-http-05",
                f"this body is to be {wanted}, not {kind[:64] or 'nameless'}",
                "",
                f"Content-Type: {wanted}",
            )
        most = limits.upload_bytes_max if wanted == STREAMED else limits.json_bytes_max
        if declared.isdecimal() and int(declared) > most:
            raise too_large(scope, most)
        weighed = receive if wanted == STREAMED else _weighed(receive, load, limits.json_values_max)
        return _until_whole(scope, weighed, receive, most, limits)


def _weighed(receive: Receive, load: Load, values_max: int) -> Receive:
    """`receive` for JSON: what it will cost in memory is held, and how many values there are is bounded, unparsed."""
    values = 0

    async def weighed() -> Message:
        nonlocal values
        message = await receive()
        if chunk := message.get("body", b""):
            found = values_in(chunk)
            values += found
            if values > values_max:
                what, hint = "the body has too many numbers, rows and fields", "hand rows in with POST /dim/v1/blobs"
                raise Refused("E-http-06", what, f"at most {values_max}", hint)
            load.add(cost_bytes(chunk, found))
        return message

    return weighed


async def read_on(scope: Scope, receive: Receive, limits: HttpLimits) -> None:
    """Before a refusal, for a moment and so many bytes, the rest of the body: who is still sending when a connection is
    closed loses the answer that waits to be read. Not if it still waits to be asked for: then nobody is sending.
    """
    if (waits := scope["state"].get("body_waits")) is not None and waits():
        return
    room = limits.linger_bytes_max if header(scope, b"content-length") or header(scope, b"transfer-encoding") else 0
    with trio.move_on_after(limits.linger_seconds_max):
        while room > 0:
            message = await receive()
            room -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _until_whole(scope: Scope, receive: Receive, rest: Receive, most: int, limits: HttpLimits) -> Receive:
    """`receive` with a bound on bytes and time, until the body is whole; then it waits for the client to hang up.

    The framework makes every exception here a 400 of its own words, so the real reason waits in the scope.
    """
    taken, whole, deadline = 0, False, trio.current_time() + limits.body_seconds_max

    async def bounded() -> Message:
        nonlocal taken, whole
        if whole:
            return await receive()
        try:
            with trio.move_on_at(deadline) as late:
                message = await receive()
        except Refused as refused:
            scope["state"]["refusal"] = refused
            await read_on(scope, rest, limits)
            raise
        taken += 0 if late.cancelled_caught else len(message.get("body", b""))
        if late.cancelled_caught:
            scope["state"]["refusal"] = Refused("E-http-06", "the body came too slowly", "", "smaller parts")
        elif taken > most:
            scope["state"]["refusal"] = too_large(scope, most)
            await read_on(scope, rest, limits)
        if "refusal" in scope["state"]:
            raise scope["state"]["refusal"]
        whole = not message.get("more_body", False)
        return message

    return bounded


class _Sent:
    """`send`, remembering whether an answer has begun and adding what every answer carries."""

    def __init__(self, scope: Scope, send: Send) -> None:
        state = scope.setdefault("state", {})
        state["request_id"] = request_id_of(header(scope, b"x-request-id"), secrets.token_hex(8))
        self._request_id = state["request_id"].encode()
        self._socket = scope["type"] == "websocket"
        self._bodiless = scope.get("method") == "HEAD"
        self._can_answer = "websocket.http.response" in scope.get("extensions", {})
        self._send = send
        self._begun = False
        self.status = 0
        self.headers_only = trio.CancelScope()  # of a HEAD: what would make the body ends once they are out

    async def __call__(self, message: Message) -> None:
        if self.headers_only.cancel_called:  # a refusal, whose two messages no cancel parts
            return
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._begun, self.status = True, message["status"]
            names = {name for name, _ in message["headers"]}
            extra = [pair for pair in _SAFE if pair[0] not in names]
            message["headers"] = [*message["headers"], *extra, (b"x-request-id", self._request_id)]
        elif kind == "websocket.accept":
            self._begun, self.status = True, 101
        await self._send(message)
        if kind == "http.response.start" and self._bodiless:
            await self._send({"type": "http.response.body", "body": b""})
            self.headers_only.cancel()
            await trio.lowlevel.checkpoint()

    async def refuse(self, answer: Said) -> None:
        """An error, if nothing was sent yet; else the stream just ends, and its reader sees that it was cut off."""
        if self._begun:
            return
        if self._socket and not self._can_answer:
            await self({"type": "websocket.close", "code": 1008, "reason": answer.body["error"]["code"]})
            return
        prefix = "websocket.http" if self._socket else "http"
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers().items()]
        body = answer.to_bytes()
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self({"type": f"{prefix}.response.start", "status": answer.status, "headers": headers})
        await self({"type": f"{prefix}.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str:
    """A header's value, empty when it is not there; of several, the last."""
    found = [value for key, value in scope.get("headers", ()) if key == name]
    return bytes(found[-1]).decode("latin-1") if found else ""


def too_large(scope: Scope, most: int) -> Refused:
    """Of a body."""
    hint = "send less" if scope["path"] == UPLOAD_PATH else "fewer rows at a time, or POST /dim/v1/blobs"
    return Refused("E-http-06", "the body is too large", f"at most {most} bytes", hint)


def _name_and_port(host: str, default: int) -> tuple[str, int]:
    """The two parts of a Host header; nameless when it is none. IPv6 addresses keep their brackets."""
    found = _HOST.fullmatch(host)
    if found is None:
        return "", 0
    return found[1], int(found[2]) if found[2] else default


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return "%" not in name  # a zone is nobody's business here, and any text


def _job_of(scope: Scope) -> str:
    """The job that the path names: made of its bytes again, so that no text of a client's reaches the log."""
    found = scope.get("path_params", {})
    try:
        return cid_text(cid_bytes(str(found.get("job") or found.get("job_id") or "")))
    except PeerFault:
        return ""


def _own_origins(host: str) -> tuple[str, str]:
    return f"http://{host}", f"https://{host}"


def _bearer(scope: Scope) -> str:
    """The key's text. Browsers cannot give a WebSocket headers: there it may be the subprotocol `bearer.KEY`."""
    kind, _, text = header(scope, b"authorization").partition(" ")
    if kind.lower() == "bearer":
        return text.strip()
    if scope["type"] == "websocket":
        for offered in scope.get("subprotocols", ()):
            if offered.startswith("bearer."):
                return str(offered[len("bearer.") :])
    return ""
