"""The interactive page about this API, without the internet: Swagger UI from the package that ships it.

Rule: the page runs only scripts of this door (its policy says so), and it is open because it says what anybody can read
in docs/http.md.
"""

from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from dimnode.api.http.spec import render
from dimnode.errors import Refused

router = APIRouter(include_in_schema=False)

_PAGE: Final = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dimnode API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/favicon.png"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
_START: Final = b"""SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, tryItOutEnabled: true,
  defaultModelsExpandDepth: 0, persistAuthorization: false});
"""
_POLICY: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}
_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return Response(_PAGE, 200, _POLICY, "text/html; charset=utf-8")


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The same for machines."""
    return Response(_document(request.app), 200, None, "application/json")


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page runs; in a file of its own, because the policy allows no script inside the page."""
    return Response(_START, 200, None, "text/javascript")


@router.get("/docs/{name}")
async def part(name: str) -> Response:
    """One of three files."""
    if name not in _TYPES:
        raise Refused("E-http-10", "no such page", "", "GET /docs")
    return Response(_part(name), 200, {"Cache-Control": "max-age=86400"}, _TYPES[name])


@lru_cache(1)
def _document(app: FastAPI) -> bytes:
    return render(app.openapi()).encode()


@cache
def _part(name: str) -> bytes:
    return files("fastapi_offline").joinpath("static", name).read_bytes()
