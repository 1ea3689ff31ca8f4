"""Corners of answers: ranges of an upload, methods that a path takes, bytes that are none, files that are no model."""

from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.protocol.http_stream import HTTPStream
from starlette.responses import FileResponse

from dimnode.api.http.complaints import said
from dimnode.api.http.routes_openai import not_embedded
from dimnode.errors import RunFailed
from tests.unit.api.http_stage import JOB, Stage, on_stage

pytestmark = pytest.mark.slow
RAW = {"Content-Type": "application/octet-stream"}
BYTES = b"0123456789"


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("", 200, BYTES),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-30", 206, BYTES),
        ("bytes=8-99", 206, b"89"),
        ("bytes=4-2", 200, BYTES),
        ("bytes=0-1,4-5", 200, BYTES),
        ("lines=1-2", 200, BYTES),
        ("bytes=x", 200, BYTES),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_one_range_of_an_upload_is_answered_and_any_other_is_passed_over(
    tmp_path: Path, wanted: str, status: int, body: bytes | None
) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            blob = (await client.post("/dim/v1/blobs", content=BYTES, headers=RAW)).json()["blob"]
            found = await client.get(f"/dim/v1/blobs/{blob}", headers={"Range": wanted} if wanted else {})
        assert found.status_code == status
        if body is None:
            assert found.json()["error"]["code"] == "E-http-18"
        else:
            assert found.content == body
            assert found.headers["content-type"] == "application/octet-stream"

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/dim/v1/models", "GET, HEAD, POST"),
        ("DELETE", "/dim/v1/jobs/validate", "POST"),
        ("POST", "/dim/v1/models/triage", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("HEAD", "/v1/embeddings", "POST"),
    ],
)
def test_a_405_says_which_methods_the_path_takes(tmp_path: Path, method: str, path: str, allowed: str) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.request(method, path)
        assert (found.status_code, found.headers["allow"]) == (405, allowed)
        assert not found.content if method == "HEAD" else found.json()["error"]["code"] == "E-http-11"

    on_stage(tmp_path, act)


def test_head_is_answered_as_get_is_without_the_body_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for path in ("/health", "/dim/v1/models", "/dim/v1/jobs/nothing", "/openapi.json"):
                whole, head = await client.get(path), await client.head(path)
                assert head.content == b""
                assert head.status_code == whole.status_code
                for name in ("content-length", "content-type"):
                    assert head.headers[name] == whole.headers[name], path
            told = await client.get("/metrics")
        async with stage.client("") as client:  # refused at the door, before any route
            assert (await client.head("/dim/v1/models")).status_code == 401
            assert (await client.get("/dim/v1/models")).json()["error"]["code"] == "E-http-01"
        assert 'method="HEAD",route="/health",status="200"' in told.text
        host = f"Host: {stage.door.url[7:]}"
        both = await raw_lines(
            stage, "HEAD /health HTTP/1.1", host, "", "GET /health HTTP/1.1", host, "Connection: close"
        )
        assert (both.count(b"HTTP/1.1 200"), both.count(b'{"ok":true}')) == (2, 1)

    on_stage(tmp_path, act)


def test_head_of_a_live_stream_ends_with_its_headers_and_leaves_no_watcher(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
        path, lines = f"/dim/v1/jobs/{job}/events", (f"Host: {stage.door.url[7:]}", f"Authorization: Bearer {key}")
        head = (f"HEAD {path} HTTP/1.1", *lines, "Accept: text/event-stream", "")
        # The job stays open: whoever waits for its end waits for ever.
        both = await raw_lines(stage, *head, f"GET {path} HTTP/1.1", *lines, "Connection: close")
        assert both.count(b"HTTP/1.1 200") == 2
        assert (both.count(b"text/event-stream"), both.count(b'"events"')) == (1, 1)
        assert not any(stage.node.watching.values())

    on_stage(tmp_path, act)


def test_head_of_an_upload_says_its_size_and_reads_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            blob = (await client.post("/dim/v1/blobs", content=BYTES, headers=RAW)).json()["blob"]
            monkeypatch.setattr(FileResponse, "chunk_size", 1)
            kinds: dict[HTTPStream, list[str]] = {}
            send = HTTPStream.app_send

            async def noted(self: HTTPStream, message: Any) -> None:
                kinds.setdefault(self, []).append(message["type"] if message else "end")
                await send(self, message)

            monkeypatch.setattr(HTTPStream, "app_send", noted)
            found = await client.head(f"/dim/v1/blobs/{blob}", headers={"Range": "bytes=1-8"})
            await client.get("/health")  # over the same connection: so the first answer has been written
        assert (found.status_code, found.headers["content-length"], found.content) == (206, "8", b"")
        (said, *_) = kinds.values()
        while said[-1] != "end":  # noqa: ASYNC110 the route may return after its last byte was read, and tells nobody
            await trio.sleep(0.01)
        assert said == ["http.response.start", "http.response.body", "end"]

    on_stage(tmp_path, act)


async def raw_lines(stage: Stage, *lines: str) -> bytes:
    """All that comes back for these header lines until the door hangs up."""
    async with await trio.open_tcp_stream(*stage.address) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        found = b""
        while chunk := await stream.receive_some(65536):
            found += chunk
    return found


@pytest.mark.parametrize(
    ("body", "kind", "status", "message", "hint"),
    [
        (b'{"taks": []}', "application/json", 400, "body.taks: there is no such key", "docs/http.md"),
        (b'{"tasks": [', "application/json", 400, "body: it is no JSON at letter ", "docs/http.md"),
        (b"{}", "application/x-www-form-urlencoded", 415, "this body is to be", "Content-Type: application/json"),
    ],
)
def test_a_body_that_does_not_fit_is_told_where_and_what_would(
    tmp_path: Path, body: bytes, kind: str, status: int, message: str, hint: str
) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", content=body, headers={"Content-Type": kind})
        error = found.json()["error"]
        assert (found.status_code, message in error["message"], hint in error["hint"]) == (status, True, True), error

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    ("ended", "code", "hint"),
    [
        ({"code": "E-exec-91", "reason": "this node cannot cut text"}, "E-http-16", "then restart the node"),
        ({"code": "E-jobs-13", "reason": "no peer in the swarm runs text, which step 1 needs"}, "E-http-16", "[text]"),
        ({"code": "E-jobs-13", "reason": "no peer in the swarm runs torch"}, "E-http-17", "try again"),
        ({"code": "E-jobs-05", "reason": "it took too long"}, "E-http-17", "try again"),
    ],
)
def test_texts_that_were_not_embedded_for_want_of_an_extra_name_it(ended: dict[str, str], code: str, hint: str) -> None:
    found = not_embedded(ended).complaint
    assert (found.code, hint in found.hint, ended["reason"] in found.cause) == (code, True, True)


def test_an_upload_without_bytes_is_refused(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.post("/dim/v1/blobs", headers=RAW)
        assert (found.status_code, found.json()["error"]["code"]) == (400, "E-http-13")

    on_stage(tmp_path, act)


def test_a_file_that_is_no_model_is_its_senders_mistake_and_a_missing_runtime_is_not() -> None:
    assert said(RunFailed("E-exec-22", "not a model")).status == 400
    assert said(RunFailed("E-exec-25", "onnxruntime is not installed")).status == 503
