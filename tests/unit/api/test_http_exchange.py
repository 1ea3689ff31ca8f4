"""HTTP/1.1 itself, as clients of every kind speak it, over one kept connection."""

import json
from pathlib import Path

import pytest
import trio

from tests.unit.api.http_stage import JOB, Stage, on_stage


class Line:
    """A raw connection with an honest Host and key."""

    def __init__(self, stream: trio.SocketStream, stage: Stage) -> None:
        self.stream, self.unread = stream, b""
        self._head = f"Host: {stage.door.url[7:]}\r\nAuthorization: Bearer {stage.key()}\r\n"

    def request(self, line: str, *headers: str, version: str = "1.1") -> bytes:
        """Its header."""
        more = "".join(f"{each}\r\n" for each in headers)
        return f"{line} HTTP/{version}\r\n{self._head}{more}\r\n".encode()

    async def until(self, end: bytes) -> bytes:
        """What comes up to these bytes; whatever came when the door hangs up."""
        while end not in self.unread and (chunk := await self.stream.receive_some(65536)):
            self.unread += chunk
        found, _, self.unread = self.unread.partition(end)
        return found

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, headers and body of the next answer; 0 when there is none."""
        head = (await self.until(b"\r\n\r\n")).lower()
        if not head:
            return 0, b"", b""
        size = next((int(each[15:]) for each in head.split(b"\r\n") if each.startswith(b"content-length:")), 0)
        while len(self.unread) < size and (chunk := await self.stream.receive_some(65536)):
            self.unread += chunk
        body, self.unread = self.unread[:size], self.unread[size:]
        return int(head.split(b" ", 2)[1]), head, body


async def line_to(stage: Stage) -> Line:
    return Line(await trio.open_tcp_stream(*stage.address), stage)


def post(line: Line, path: str, body: bytes, *headers: str) -> bytes:
    """A request with a JSON body of this length."""
    return line.request(f"POST {path}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)


def test_requests_that_are_sent_ahead_are_answered_one_after_the_other(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line, body = await line_to(stage), json.dumps(JOB).encode()
        job = post(line, "/dim/v1/jobs?wait=5", body) + body
        await line.stream.send_all(job + line.request("GET /health") + job + line.request("GET /nowhere"))
        found = [await line.answer() for _ in range(4)]
        assert [status for status, *_ in found] == [200, 200, 200, 404]
        assert json.loads(found[0][2])["job"] != json.loads(found[2][2])["job"]

    on_stage(tmp_path, act)


def test_a_body_in_crumbs_in_chunks_and_one_that_waits_for_leave_are_whole(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line, body = await line_to(stage), json.dumps(JOB).encode()
        for byte in (sent := post(line, "/dim/v1/jobs?wait=5", body) + body):
            await line.stream.send_all(bytes([byte]))
        assert (await line.answer())[0] == 200
        chunked = line.request(
            "POST /dim/v1/jobs?wait=5", "Content-Type: application/json", "Transfer-Encoding: chunked"
        )
        pieces = b"".join(
            b"%x\r\n%s\r\n" % (len(body[at : at + 9]), body[at : at + 9]) for at in range(0, len(body), 9)
        )
        await line.stream.send_all(chunked + pieces + b"0\r\n\r\n")
        assert (await line.answer())[0] == 200
        await line.stream.send_all(post(line, "/dim/v1/jobs?wait=5", body, "Expect: 100-continue"))
        assert (await line.answer())[0] == 100
        await line.stream.send_all(body)
        assert (await line.answer())[0] == 200
        assert len(sent) > len(body)

    on_stage(tmp_path, act)


def test_a_body_that_nobody_wanted_is_passed_over_and_the_connection_stays(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line = await line_to(stage)
        await line.stream.send_all(post(line, "/nowhere", b"x" * 300_000) + b"x" * 300_000)
        assert (await line.answer())[0] == 404
        await line.stream.send_all(line.request("GET /health"))
        assert (await line.answer())[0] == 200

    on_stage(tmp_path, act)


@pytest.mark.parametrize(("version", "header"), [("1.0", "X-A: b"), ("1.1", "Connection: close")])
def test_who_speaks_http_1_0_or_wants_no_more_is_answered_and_hung_up_on(
    tmp_path: Path, version: str, header: str
) -> None:
    async def act(stage: Stage) -> None:
        line = await line_to(stage)
        await line.stream.send_all(line.request("GET /health", header, version=version))
        status, head, body = await line.answer()
        assert (status, json.loads(body)) == (200, {"ok": True})
        assert b"connection: close" in head
        assert (await line.answer())[0] == 0

    on_stage(tmp_path, act)


def test_a_head_has_the_header_of_its_get_and_no_body(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line = await line_to(stage)
        await line.stream.send_all(line.request("HEAD /health") + line.request("GET /health"))
        first = await line.until(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 ") and not line.unread.startswith(b"{")
        assert (await line.answer())[0] == 200

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_of_http_1_is_refused_and_hung_up_on(tmp_path: Path, first: bytes, status: int) -> None:
    async def act(stage: Stage) -> None:
        line = await line_to(stage)
        await line.stream.send_all(first)
        assert (await line.answer())[0] == status
        assert (await line.answer())[0] == 0

    on_stage(tmp_path, act)


def test_chunks_that_are_none_are_a_400_even_when_the_body_has_begun(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line = await line_to(stage)
        head = line.request("POST /dim/v1/jobs", "Content-Type: application/json", "Transfer-Encoding: chunked")
        await line.stream.send_all(head + b"3\r\n{  \r\nzz\r\n")
        assert (await line.answer())[0] == 400
        assert (await line.answer())[0] == 0

    on_stage(tmp_path, act)


def test_the_header_of_a_stream_comes_before_its_first_event_and_a_leaver_ends_it(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        line, body = await line_to(stage), json.dumps(JOB).encode()
        await line.stream.send_all(post(line, "/dim/v1/jobs", body) + body)
        job = json.loads((await line.answer())[2])["job"]
        await line.stream.send_all(
            line.request(f"GET /dim/v1/jobs/{job}/events?after=999", "Accept: text/event-stream")
        )
        assert b"text/event-stream" in await line.until(b"\r\n\r\n")
        with trio.fail_after(5):
            while not any(stage.node.watching.values()):
                await trio.lowlevel.checkpoint()
            await line.stream.aclose()
            while any(stage.node.watching.values()):
                await trio.lowlevel.checkpoint()

    on_stage(tmp_path, act)


def test_a_kept_connection_may_become_a_websocket(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        line, body = await line_to(stage), json.dumps(JOB).encode()
        await line.stream.send_all(post(line, "/dim/v1/jobs?wait=5", body) + body)
        job = json.loads((await line.answer())[2])["job"]
        upgrade = ("Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        await line.stream.send_all(line.request(f"GET /dim/v1/jobs/{job}/ws", *upgrade, key))
        assert (await line.answer())[0] == 101
        assert b'"what":"ended"' in await line.until(b"}\x88")  # the last event, then the frame that closes

    on_stage(tmp_path, act)
