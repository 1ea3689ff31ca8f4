"""Bytes over HTTP: inputs and model files up, outputs down.

Rule: a body is streamed to the disk as it comes and never held whole; a file is its sender's alone until a model is
made of it.
"""

import re
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from dimnode.api.http.caller import Caller
from dimnode.api.http.guard import STREAMED
from dimnode.api.http.inside import ERRORS, House, Inside, Who, answer
from dimnode.api.http.shapes import ErrorOut
from dimnode.api.http.shapes_node import BlobOut
from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import BLOB_PREFIX, Cid, cid_bytes, cid_text

router = APIRouter(prefix="/dim/v1", responses=dict(ERRORS))

_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {STREAMED: {"schema": {"type": "string", "format": "binary"}}}}
}
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {STREAMED: {}}, "description": "the bytes"}}
_RANGES: dict[int | str, dict[str, Any]] = {
    **_BYTES,
    206: {"content": {STREAMED: {}}, "description": "the bytes of the `Range`"},
    416: {"model": ErrorOut, "description": "nothing is there to be had"},
}
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


class Draft(Protocol):
    """An upload that is not whole yet."""

    def write(self, chunk: bytes) -> None:
        """Blocks; raises `Refused`."""

    def drop(self) -> None:
        """It never became whole."""


class Shelf(Protocol):
    """Where uploads lie."""

    def begin(self, key: str) -> Draft:
        """A new upload of this key. Raises `Refused` beyond its share."""

    def keep(self, draft: Any, key: str) -> tuple[Cid, int]:
        """It is whole: its CID and size. Blocks."""

    def path(self, cid: Cid, key: str, anybodys: bool) -> Path | None:
        """A file of this key's, or with `anybodys` of any."""


@router.post(
    "/blobs", summary="Upload bytes", response_model=BlobOut, status_code=201, openapi_extra=_BODY, tags=["blobs"]
)
async def upload(house: House, who: Who, request: Request) -> Response:
    """Hand bytes in, for `blobs` of a job or for a model; kept for a day. The answer names them."""
    who.need("submit")
    if "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0":
        raise Refused("E-http-13", "there are no bytes", "", "send them as the body")
    draft = house.shelf.begin(who.key.id)
    try:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= house.limits.upload_chunk_bytes:
                await trio.to_thread.run_sync(draft.write, bytes(waiting))
                waiting.clear()
        await trio.to_thread.run_sync(draft.write, bytes(waiting))
        cid, count = await trio.to_thread.run_sync(house.shelf.keep, draft, who.key.id)
    finally:
        draft.drop()
    return answer({"blob": cid_text(cid), "bytes": count}, 201)


@router.get("/blobs/{blob}", summary="Download an upload", response_class=Response, responses=_RANGES, tags=["blobs"])
async def download(house: House, who: Who, request: Request, blob: str) -> Response:
    """What this key handed in, whole or one `Range` of it."""
    who.need("read")
    path = upload_of(house, who, blob)
    _mind_range(request, path.stat().st_size)
    return FileResponse(path, media_type=STREAMED, content_disposition_type="attachment")


@router.get(
    "/jobs/{job}/blobs/{blob}",
    summary="Download an input or output of a job",
    response_class=Response,
    responses=_BYTES,
    tags=["blobs"],
)
async def job_blob(house: House, who: Who, job: str, blob: str) -> Response:
    """An input or output of a job, as tensors/1."""
    who.need("read")
    raw = await house.node.job_blob(house.job(who, job), _cid(blob))
    if raw is None:
        raise Refused("E-http-10", f"no blob {blob[:80]!r} of this job is here", "", "GET /dim/v1/jobs/JOB lists them")
    return Response(raw, 200, {"Content-Disposition": "attachment"}, STREAMED)


async def input_blobs(house: Inside, who: Caller, blobs: list[str]) -> list[bytes]:
    """The uploads that a job reads. Raises `Refused`."""
    found, room = [], LIMITS.exec.input_bytes_max
    for blob in blobs:
        path = upload_of(house, who, blob)
        size = path.stat().st_size
        who.load.add(size)
        room -= size
        if room < 0:
            raise Refused("E-input-05", "the inputs are too large", f"at most {LIMITS.exec.input_bytes_max} bytes")
        found.append(await trio.to_thread.run_sync(path.read_bytes))
    return found


def upload_of(house: Inside, who: Caller, blob: str) -> Path:
    """Where an upload of this caller's lies. Raises `Refused` E-http-10."""
    path = house.shelf.path(_cid(blob), who.key.id, who.is_admin)
    if path is None:
        raise Refused("E-http-10", f"no upload {blob[:80]!r} of this key", "kept for a day", "POST /dim/v1/blobs")
    return path


def _mind_range(request: Request, size: int) -> None:
    """One range is answered; what is none, or several, is passed over: then the whole file comes (RFC 9110, 14.2).

    Raises `Refused` E-http-18 for one that begins beyond the end.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
    elif (int(found[1]) if found[1] else max(0, size - int(found[3]))) >= size:
        raise Refused("E-http-18", f"the upload has {size} bytes and none from there on", "", "a Range within it")


def _cid(text: str) -> Cid:
    """Made from its bytes again, so no text of a stranger ever becomes a path."""
    try:
        raw = cid_bytes(text)
    except PeerFault:
        raw = b""
    if not raw.startswith(BLOB_PREFIX):
        raise Refused(
            "E-http-10", f"no blob {text[:80]!r}", "an id of a blob begins with bafkrei", "POST /dim/v1/blobs"
        )
    return Cid(raw)
