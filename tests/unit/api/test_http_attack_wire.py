"""What somebody tries at the HTTP door with bytes, names, sockets and files rather than with a key."""

import gc
import json
import os
import re
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dimnode.limits import LIMITS
from dimnode.store.keys import KEYS_FILE, KeyBook, has_keys
from tests.unit.api.http_stage import JOB, Stage, buffers_are_full, code, on_stage

pytestmark = pytest.mark.slow
JSON = {"Content-Type": "application/json"}


# ---- requests that are meant for two


async def raw(stage: Stage, *lines: str, body: bytes = b"", seconds: float = 20.0) -> bytes:
    """What comes back for these header lines: the first headers, or what there is when the door hangs up."""
    stream = await trio.open_tcp_stream(*stage.address)
    await stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    found = b""
    with trio.move_on_after(seconds):
        while b"\r\n\r\n" not in found and (chunk := await stream.receive_some(65536)):
            found += chunk
    await stream.aclose()
    return found


def test_a_request_with_two_lengths_two_hosts_or_another_hosts_target_is_refused(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        host, key = f"Host: {stage.door.url[7:]}", f"Authorization: Bearer {stage.key()}"
        hidden = b"0\r\n\r\nGET /health HTTP/1.1\r\n" + host.encode() + b"\r\n\r\n"
        both = ("Content-Type: application/json", f"Content-Length: {len(hidden)}", "Transfer-Encoding: chunked")
        found = await raw(stage, "POST /dim/v1/jobs HTTP/1.1", host, key, *both, body=hidden)
        assert found.startswith(b"HTTP/1.1 400")
        for lines in (
            ("GET /health HTTP/1.1", host, "Host: evil.example"),
            ("GET /health HTTP/1.1", "Host: evil.example", host),
            ("GET /health HTTP/1.1",),
            ("GET /health HTTP/1.1", host, "X-A: b", " folded: c\x00"),
            ("POST /dim/v1/jobs HTTP/1.1", host, key, "Content-Length: 1", "Content-Length: 2"),
            ("POST /dim/v1/jobs HTTP/1.1", host, key, "Content-Length: +1"),
        ):
            assert b" 200 " not in (await raw(stage, *lines)).split(b"\r\n", 1)[0], lines
        assert b" 404 " in await raw(stage, "GET http://evil.example/health HTTP/1.1", host, key)

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    "host",
    [
        "user@127.0.0.1:{port}",
        "127.0.0.1:{port}@evil.example",
        "localhost.:{port}",
        "127.1:{port}",
        "0x7f000001:{port}",
        "2130706433:{port}",
        "[::1%evil.example]:{port}",
        "::1:{port}",
        "[::1]{port}",
        "127.0.0.1:{port}.evil.example",
        "127.0.0.1.evil.example:{port}",
        "127.0.0.1:{port}/",
        "localhost:{port}#",
        "localhost",
        "127.0.0.1",
        "\xb9.0.0.1:{port}",
        ":{port}",
    ],
)
def test_what_only_looks_like_this_door_is_not_its_name(tmp_path: Path, host: str) -> None:
    async def act(stage: Stage) -> None:
        port = stage.address[1]
        found = await raw(stage, "GET /health HTTP/1.1", f"Host: {host.format(port=port)}")
        assert found.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), found

    on_stage(tmp_path, act)


def test_a_listed_name_counts_at_any_port_and_at_the_one_that_browsers_leave_out(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        port, client = stage.address[1], stage.client("")
        for host, status in (
            ("node.example", 200),
            (f"Node.Example:{port}", 200),
            ("front.example:80", 200),
            ("front.example", 200),
            ("front.example:81", 403),
            (f"[::1]:{port}", 200),
            (f"LOCALHOST:{port}", 200),
        ):
            assert (await client.get("/health", headers={"Host": host})).status_code == status, host
        await client.aclose()

    on_stage(tmp_path, act, hosts=("node.example", "front.example:80"))


def test_the_names_of_methods_that_strangers_invent_are_no_labels(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client("") as stranger:
            for number in range(5):
                assert (await stranger.request(f"INVENTED{number}", "/health")).status_code == 405
        async with stage.client() as client:
            assert "INVENTED" not in (await client.get("/metrics")).text

    on_stage(tmp_path, act)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(stage: Stage) -> None:
        host, key = f"Host: {stage.door.url[7:]}", f"Authorization: Bearer {stage.key()}"
        for path, kind in (("/dim/v1/jobs", "application/json"), ("/dim/v1/blobs", "application/octet-stream")):
            head = (f"POST {path} HTTP/1.1", host, key, f"Content-Type: {kind}", "Content-Length: 900")
            await raw(stage, *head, body=b"{", seconds=0.05)
        async with stage.client() as client:
            assert (await client.get("/dim/v1/jobs")).status_code == 200
            assert 'status="500"' not in (await client.get("/metrics")).text

    on_stage(tmp_path, act)
    assert "failed" not in caplog.text
    assert not list((tmp_path / "uploads").iterdir())


def test_a_client_that_leaves_in_the_middle_of_its_body_gives_its_place_back_at_once(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        key = stage.key()
        head = (f"Host: {stage.door.url[7:]}", f"Authorization: Bearer {key}", "Content-Length: 900")
        for path in ("/dim/v1/jobs", "/dim/v1/jobs/validate", "/v1/embeddings"):
            lines = (f"POST {path} HTTP/1.1", *head, "Content-Type: application/json")
            await raw(stage, *lines, body=b"{", seconds=0.05)
            async with stage.client(key) as client:
                with trio.fail_after(5):
                    while (await client.get("/dim/v1/models")).status_code == 429:  # noqa: ASYNC110 a door tells nobody
                        await trio.sleep(0.01)

    on_stage(tmp_path, act, replace(LIMITS.http, requests_per_key_max=1))


# ---- the file of keys


def test_a_look_at_the_keys_of_a_home_without_any_opens_no_door(tmp_path: Path) -> None:
    assert not has_keys(tmp_path)
    KeyBook(tmp_path).close()
    assert not has_keys(tmp_path)


def test_when_the_file_of_keys_is_deleted_or_replaced_nobody_is_let_in(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            assert (await client.get("/dim/v1/jobs")).status_code == 200
            os.unlink(tmp_path / KEYS_FILE)
            gone = await client.get("/dim/v1/jobs")
            assert (gone.status_code, code(gone)) == (503, "E-store-09")
            KeyBook(tmp_path).close()
            assert (await client.get("/dim/v1/jobs")).status_code == 503

    on_stage(tmp_path, act)


def test_a_file_of_keys_that_others_could_write_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / KEYS_FILE).touch(mode=0o666)
    (tmp_path / KEYS_FILE).chmod(0o666)
    KeyBook(tmp_path).close()
    assert (tmp_path / KEYS_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_the_largest_body_that_is_taken_holds_the_loop_for_less_than_a_second(tmp_path: Path) -> None:
    rows = [[1.5, 2.5]] * 160_000
    late = 0.0
    gc.collect()
    gc.freeze()  # as a node does at its start: what all tests before this one left is not looked at meanwhile

    async def act(stage: Stage) -> None:
        async def tick() -> None:
            nonlocal late
            while True:
                began = time.process_time()  # what others on this machine do meanwhile is not held by the loop
                await trio.sleep(0.002)
                late = max(late, time.process_time() - began)

        async with stage.client() as client, trio.open_nursery() as nursery:
            body = json.dumps({**JOB, "input": {"x": rows}}).encode()
            nursery.start_soon(tick)
            found = await client.post("/dim/v1/jobs", content=body, headers=JSON)
            nursery.cancel_scope.cancel()
        assert found.status_code in (200, 202), found.text

    try:
        on_stage(tmp_path, act)
    finally:
        gc.unfreeze()
    assert late < 1.0


def test_who_is_refused_in_the_middle_of_a_large_body_still_reads_why(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        body = b'"' + b"x" * (3 << 20) + b'"'
        async with stage.client() as client, stage.client("") as stranger:
            assert (await stranger.post("/dim/v1/jobs", content=body, headers=JSON)).status_code == 401
            assert (await client.post("/dim/v1/jobs", content=body)).status_code == 415
            assert (await client.post("/dim/v1/jobs", content=body, headers=JSON)).status_code == 413

    on_stage(tmp_path, act, replace(LIMITS.http, json_bytes_max=2 << 20))


@pytest.mark.parametrize(
    ("key", "kind", "size", "status"),
    [
        ("no", "application/octet-stream", 9, 401),
        ("", "text/plain", 9, 415),
        ("", "application/octet-stream", 2**62, 413),
        ("", "application/octet-stream", 9, 201),
    ],
)
def test_a_body_that_waits_to_be_asked_for_is_asked_for_only_when_it_is_wanted(
    tmp_path: Path, key: str, kind: str, size: int, status: int
) -> None:
    async def act(stage: Stage) -> None:
        lines = [
            "POST /dim/v1/blobs HTTP/1.1",
            f"Host: {stage.door.url[7:]}",
            f"Authorization: Bearer {key or stage.key()}",
            f"Content-Type: {kind}",
            f"Content-Length: {size}",
            "Expect: 100-continue",
            "",
            "",
        ]
        async with await trio.open_tcp_stream(*stage.address) as stream:
            await stream.send_all("\r\n".join(lines).encode())
            said = await stream.receive_some(65536)
            if status == 201:
                assert said.startswith(b"HTTP/1.1 100")
                assert said.endswith(b"\r\n\r\n")
                following = f"GET /health HTTP/1.1\r\nHost: {stage.door.url[7:]}\r\nConnection: close\r\n\r\n"
                await stream.send_all(b"123456789" + following.encode())
            while more := await stream.receive_some(65536):
                said += more
        answers = [int(found) for found in re.findall(rb"HTTP/1.1 ([0-9]{3})", said)]
        assert answers == ([100, 201, 200] if status == 201 else [status])
        assert (b'{"ok":true}' in said) == (status == 201)  # the connection goes on

    # Nobody lingers for what was not asked for: it would be until `on_stage` ends this.
    on_stage(tmp_path, act, replace(LIMITS.http, linger_seconds_max=3600.0))


@pytest.mark.slow
@pytest.mark.parametrize("is_told", [True, False])
def test_requests_in_a_row_whose_answers_nobody_reads_do_not_keep_the_door_from_closing(
    tmp_path: Path, is_told: bool
) -> None:
    async def act(stage: Stage) -> None:
        stream = await trio.open_tcp_stream(*stage.address)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /openapi.json HTTP/1.1\r\nHost: {stage.door.url[7:]}\r\n\r\n"
        await stream.send_all(head.encode() * 60)
        await buffers_are_full()
        began.append(time.monotonic())
        if is_told:
            stage.door.stop()

    began: list[float] = []
    patient = replace(LIMITS.http, write_seconds_max=3600.0)
    on_stage(tmp_path, act, patient)
    assert time.monotonic() - began[0] < patient.write_seconds_max / 100


def test_a_page_that_may_ask_can_read_why_it_was_refused(tmp_path: Path) -> None:
    page = "https://app.example"

    async def act(stage: Stage) -> None:
        for key, body, kind, status in (
            ("", b"{}", "application/json", 401),
            (None, b"x", "text/plain", 415),
            (None, b'"' + b"x" * (2 << 20) + b'"', "application/json", 413),
        ):
            async with stage.client(key, headers={"Origin": page, "Content-Type": kind}) as browser:
                found = await browser.post("/dim/v1/jobs", content=body)
            assert found.status_code == status
            assert found.headers["access-control-allow-origin"] == page
            assert found.headers["x-request-id"]

    on_stage(tmp_path, act, replace(LIMITS.http, json_bytes_max=1 << 20), origins=(page,))


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("Sec-WebSocket-Protocol: bearer.\xff\xfe", "0"),
        ("Sec-WebSocket-Version: 7", "0"),
        ("X-Fine: yes", "99999999999999999999"),
        ("Origin: https://evil.example", "0"),
        ("Origin: null", "0"),
    ],
)
def test_a_strange_handshake_of_a_socket_opens_none_and_the_door_goes_on(tmp_path: Path, line: str, after: str) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            head = (f"GET /ws/jobs/{job}?after={after} HTTP/1.1", f"Host: {stage.door.url[7:]}")
            upgrade = ("Upgrade: websocket", "Connection: Upgrade")
            upgrade += () if "Version" in line else ("Sec-WebSocket-Version: 13",)
            key = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Authorization: Bearer {stage.key('admin')}")
            found = await raw(stage, *head, *upgrade, *key, line)
            assert b" 101 " not in found
            assert (await client.get("/health")).status_code == 200

    on_stage(tmp_path, act)
