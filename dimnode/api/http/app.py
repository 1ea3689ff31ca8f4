"""The application behind the HTTP door: routes, errors, and the doorkeepers around them.

Rule: from outside in: threshold (Host, Origin, every exception), CORS for the listed origins, guard (key, rate, size),
routes. Whatever any of them refuses has the one error shape of `complaints`.
"""

from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from dimnode.api.http import (
    routes_blobs,
    routes_classic,
    routes_docs,
    routes_health,
    routes_jobs,
    routes_models,
    routes_node,
    routes_openai,
)
from dimnode.api.http.complaints import Said, envelope, said, said_bug, said_fault, said_invalid
from dimnode.api.http.guard import App, Guard, Receive, Scope, Send, Threshold, Yard, read_on
from dimnode.api.http.inside import RECEIPT_HEADER, Inside
from dimnode.api.http.spec import document
from dimnode.errors import DimError, PeerFault

_HEADERS_IN = ("authorization", "content-type", "idempotency-key", "last-event-id", "traceparent", "x-request-id")
_HEADERS_OUT = (RECEIPT_HEADER, "X-Request-Id", "Retry-After")
_CODE_OF_STATUS = {404: "E-http-10", 405: "E-http-11"}


def make_app(inside: Inside, yard: Yard, origins: Sequence[str] = ()) -> Threshold:
    """The whole ASGI application."""
    app = bare_app()
    app.state.inside = inside
    guarded = Guard(app, yard)
    if not origins:
        return Threshold(guarded, yard)
    cors = CORSMiddleware(
        _Told(guarded, yard),
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=list(_HEADERS_IN),
        expose_headers=list(_HEADERS_OUT),
    )
    return Threshold(cors, yard)


def bare_app() -> FastAPI:
    """Routes and errors, without a node behind them or anybody at the door."""
    app = FastAPI(title="dimnode", version=version("dimnode"), docs_url=None, redoc_url=None, openapi_url=None)
    routers = (
        *(routes_jobs, routes_blobs, routes_models, routes_node),
        *(routes_health, routes_openai, routes_classic, routes_docs),
    )
    for routes in routers:
        app.router.routes.extend(routes.router.routes)  # one flat list: included routers are asked twice for a path
    app.add_exception_handler(DimError, _refused)
    app.add_exception_handler(PeerFault, _fault)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(WebSocketRequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)
    app.openapi = cache(partial(document, app))  # type: ignore[method-assign]
    return app


class _Told:
    """The guard's refusals as answers, on this side of CORS: else a page that may ask could not read why it was
    refused."""

    def __init__(self, app: App, yard: Yard) -> None:
        self._app, self._yard = app, yard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except DimError as error:
            if scope["type"] != "http":
                raise
            await read_on(scope, receive, self._yard.limits)
            await _response(said(error))(scope, receive, send)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, DimError)
    return _response(said(error))


async def _fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, PeerFault)
    return _response(said_fault(error))


async def _invalid(_: Request, error: Exception) -> Response:
    """The first problem, in words, without the value that was sent."""
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    found: list[dict[str, Any]] = [dict(each) for each in error.errors()]
    # A key that is misspelt is also missing: the misspelling is what helps.
    unreadable: dict[str, Any] = {"type": "", "loc": (), "msg": "unreadable"}
    first = min(found, key=lambda each: each["type"] != "extra_forbidden", default=unreadable)
    if first["type"] == "json_invalid":
        place = f"at letter {first['loc'][-1] + 1}" if isinstance(first["loc"][-1], int) else ""
        return _response(said_invalid("body", f"it is no JSON {place}: {first.get('ctx', {}).get('error', '')}"))
    place = ".".join(str(part) for part in first["loc"])
    unknown = first["type"] == "extra_forbidden"
    return _response(said_invalid(place or "body", "there is no such key" if unknown else str(first["msg"])))


async def _http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if (refusal := request.scope["state"].get("refusal")) is not None:  # the guard stopped the body
        return _response(said(refusal))
    status = error.status_code if error.status_code in _CODE_OF_STATUS else 400
    code = _CODE_OF_STATUS.get(status, "E-http-13")
    answer = _response(Said(status, envelope(status, code, str(error.detail), "GET /docs lists what there is")))
    if status == 405:
        answer.headers["Allow"] = ", ".join(_allowed(request))
    return answer


async def _gone(_: Request, __: Exception) -> Response:
    """In the middle of a body: nobody is left to be answered, and it is no bug."""
    return Response(status_code=400)


def _allowed(request: Request) -> list[str]:
    """Methods of this path by the document; what the framework says there is those of its first router alone."""
    path = getattr(request.scope.get("route"), "path", "").replace(":path}", "}")
    found = set(map(str.upper, request.app.openapi()["paths"].get(path, {"get": {}})))
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _bug(_: Request, __: Exception) -> Response:
    """It is raised once more after this, to the threshold, which logs it."""
    return _response(said_bug())


def _response(answer: Said) -> Response:
    return Response(answer.to_bytes(), answer.status, answer.headers(), "application/json")
