"""Who is let in at the HTTP door, and what nobody can do to the node from there."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from dimnode.limits import LIMITS
from tests.unit.api.http_stage import JOB, Stage, buffers_are_full, on_stage

pytestmark = pytest.mark.slow

QUICK = replace(LIMITS.http, keep_alive_seconds_max=0.4, body_seconds_max=0.4, write_seconds_max=0.3)


def test_no_key_a_wrong_key_and_one_that_is_over_are_told_the_same(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        revoked = stage.key(name="gone")
        stage.book.revoke("gone", 5)
        wrong = revoked[:-4] + "AAAA"
        for key in ("", "dim_", "nonsense", wrong, revoked, stage.key(expires_ms=5)):
            async with stage.client(key) as client:
                for path in ("/dim/v1/jobs", "/metrics", "/nothing", "/api/inference/status/x"):
                    found = await client.get(path)
                    assert found.status_code == 401
                    assert found.json()["error"]["code"] == "E-http-01"
                    assert found.headers["www-authenticate"].startswith("Bearer")

    on_stage(tmp_path, act, replace(LIMITS.http, wrong_keys_per_minute=60_000))


def test_somebody_who_tries_keys_is_slowed_down(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client("dim_0000000000_guess") as client:
            codes = [(await client.get("/dim/v1/jobs")).status_code for _ in range(20)]
        assert codes[0] == 401
        assert codes[-1] == 429
        async with stage.client() as client:  # who has a key is not kept out by who has none
            assert (await client.get("/dim/v1/jobs")).status_code == 200

    on_stage(tmp_path, act, replace(LIMITS.http, wrong_keys_per_minute=6))


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key(requests_per_minute=1)) as client:
            answers = [await client.get("/dim/v1/jobs") for _ in range(4)]
        assert answers[0].status_code == 200
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_rebound_names_and_foreign_pages_are_refused_even_with_a_key(tmp_path: Path, headers: dict[str, str]) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for path in ("/dim/v1/jobs", "/health", "/docs"):
                found = await client.get(path, headers=headers)
                assert found.status_code == 403
                assert found.json()["error"]["code"] in ("E-http-03", "E-http-04")
                assert "access-control-allow-origin" not in found.headers

    on_stage(tmp_path, act)


def test_a_listed_page_may_ask_and_its_browser_is_told_so(tmp_path: Path) -> None:
    page = "https://app.example"

    async def act(stage: Stage) -> None:
        asks = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        async with stage.client("", headers=asks) as browser:
            found = await browser.options("/dim/v1/jobs")
            assert found.status_code == 200
            assert found.headers["access-control-allow-origin"] == page
        async with stage.client(headers={"Origin": page}) as browser:
            assert (await browser.get("/dim/v1/jobs")).headers["access-control-allow-origin"] == page

    on_stage(tmp_path, act, origins=(page,))


def test_bodies_of_other_types_and_sizes_are_refused_before_anybody_reads_them(tmp_path: Path) -> None:
    small = replace(LIMITS.http, json_bytes_max=1000)

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
                found = await client.post("/dim/v1/jobs", content=b"{}", headers={"Content-Type": kind})
                assert (found.status_code, found.json()["error"]["code"]) == (415, "E-http-05")
            kind = {"Content-Type": "application/json"}
            assert (await client.post("/dim/v1/jobs", content=b" " * 1001, headers=kind)).status_code == 413

            async def parts() -> object:
                for _ in range(30):
                    yield b" " * 100

            assert (await client.post("/dim/v1/jobs", content=parts(), headers=kind)).status_code == 413  # chunked
            assert (await client.get("/health")).status_code == 200

    on_stage(tmp_path, act, small)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"tasks": 1}', b"\xff\xfe", b'{"tasks":[{"modell":"x"}]}']
)
def test_a_body_that_is_no_job_is_a_400_in_the_one_shape_and_is_not_repeated(tmp_path: Path, body: bytes) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert found.status_code == 400
        error = found.json()["error"]
        assert error.keys() == {"message", "type", "param", "code", "hint"}
        assert "x-request-id" in found.headers

    on_stage(tmp_path, act)


def test_unknown_paths_and_methods_have_the_same_shape(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            assert (await client.get("/nothing")).json()["error"]["code"] == "E-http-10"
            assert (await client.delete("/dim/v1/jobs")).json()["error"]["code"] == "E-http-11"

    on_stage(tmp_path, act)


def test_a_bug_in_a_route_is_a_500_that_says_nothing_and_the_door_stays_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(stage: Stage) -> None:
        stage.node.broken = RuntimeError("secret row 4711")
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", json=JOB, headers={"X-Request-Id": "mine-1"})
            assert (found.status_code, found.json()["error"]["code"]) == (500, "E-http-99")
            assert "4711" not in found.text
            assert found.headers["x-request-id"] == "mine-1"
            stage.node.broken = None
            assert (await client.post("/dim/v1/jobs", json=JOB)).status_code == 200

    on_stage(tmp_path, act)
    assert [record.request for record in caplog.records if record.levelname == "ERROR"] == ["mine-1"]  # type: ignore[attr-defined]


def test_a_slow_loris_is_cut_off_and_an_honest_client_is_answered_meanwhile(tmp_path: Path) -> None:
    async def crowd(stage: Stage) -> list[trio.SocketStream]:
        streams = [await trio.open_tcp_stream(*stage.address) for _ in range(100)]
        for stream in streams:
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: ")
        return streams

    async def ask_meanwhile(stage: Stage) -> None:
        await crowd(stage)
        async with stage.client() as client:
            assert (await client.get("/dim/v1/jobs")).status_code == 200

    async def wait_for_the_end(stage: Stage) -> None:
        for stream in await crowd(stage):
            await _hung_up(stream)

    on_stage(tmp_path, ask_meanwhile, replace(LIMITS.http, keep_alive_seconds_max=3600.0))  # nobody waits for them
    on_stage(tmp_path, wait_for_the_end, QUICK)


def test_a_body_that_trickles_is_refused_in_time(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        head = f"POST /dim/v1/jobs HTTP/1.1\r\nHost: {stage.door.url[7:]}\r\nAuthorization: Bearer {stage.key()}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
        stream = await trio.open_tcp_stream(*stage.address)
        await stream.send_all(head.encode())
        assert b" 413 " in bytes(await stream.receive_some(4096))

    on_stage(tmp_path, act, QUICK)


def test_a_door_that_closes_ends_streams_cleanly_and_answers_who_waits_as_things_stand(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            seen: list[object] = []

            async def wait() -> None:
                seen.append((await client.get(f"/dim/v1/jobs/{job}", params={"wait": 30})).json()["status"])

            async def follow() -> None:
                headers = {"Accept": "text/event-stream"}
                async with client.stream("GET", f"/dim/v1/jobs/{job}/events", headers=headers) as stream:
                    async for line in stream.aiter_lines():  # raises when it is cut off instead of ended
                        seen.append(line)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(follow)
                while not (len(stage.node.watching.get(next(iter(stage.node.jobs)), ())) == 2 and seen):
                    await trio.lowlevel.checkpoint()
                stage.door.stop()
            await stage.door.closed.wait()
        assert "open" in seen

    on_stage(tmp_path, act)


def test_a_client_that_never_reads_does_not_keep_the_door_from_closing(tmp_path: Path) -> None:
    patient = replace(LIMITS.http, write_seconds_max=3600.0)

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
        head = f"GET /dim/v1/jobs/{job}/events HTTP/1.1\r\nHost: {stage.door.url[7:]}\r\nAccept: text/event-stream\r\n"
        stream = await trio.open_tcp_stream(*stage.address)
        await stream.send_all(f"{head}Authorization: Bearer {stage.key('admin')}\r\n\r\n".encode())
        await stream.receive_some(200)
        identity = next(iter(stage.node.jobs))
        for _ in range(60_000):
            stage.node.note(identity, "leased", on_record=True)
        await buffers_are_full()
        began.append(time.monotonic())

    began: list[float] = []
    on_stage(tmp_path, act, patient)
    assert time.monotonic() - began[0] < patient.write_seconds_max / 100


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_bytes_that_are_no_request_end_their_connection_and_nothing_else(tmp_path: Path, garbage: bytes) -> None:
    async def act(stage: Stage) -> None:
        stream = await trio.open_tcp_stream(*stage.address)
        await stream.send_all(garbage)
        await _hung_up(stream)
        async with stage.client() as client:
            assert (await client.get("/dim/v1/jobs")).status_code == 200

    on_stage(tmp_path, act, QUICK)


def test_a_socket_follows_a_job_with_the_key_in_its_subprotocol_and_ends_with_it(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
        identity, heard = next(iter(stage.node.jobs)), []

        def follow() -> None:
            for path in (f"/dim/v1/jobs/{job}/ws", f"/ws/jobs/{job}"):
                url = f"ws{stage.door.url[4:]}{path}"
                with websockets.sync.client.connect(url, subprotocols=[f"bearer.{key}", "dimnode.v1"]) as socket:
                    heard.append(socket.recv(timeout=20))
                    heard.append(socket.subprotocol)
            with pytest.raises(InvalidStatus) as refused:
                websockets.sync.client.connect(f"ws{stage.door.url[4:]}/ws/jobs/{job}")
            heard.append(refused.value.response.status_code)

        await trio.to_thread.run_sync(follow)
        assert '"what":"submitted"' in str(heard[0])
        assert heard[1] == "dimnode.v1"
        assert heard[-1] == 401
        stage.node.end(identity)

        def after() -> None:
            url = f"ws{stage.door.url[4:]}/ws/jobs/{job}"
            with websockets.sync.client.connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
                heard.extend(socket)  # until it is closed
                heard.append(socket.close_code)

        await trio.to_thread.run_sync(after)
        assert heard[-1] == 1000
        assert '"what":"ended"' in str(heard[-2])

    on_stage(tmp_path, act)


def test_sockets_beyond_a_keys_share_are_refused(tmp_path: Path) -> None:
    few = replace(LIMITS.http, sockets_per_key_max=3)

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]

        def open_many() -> int:
            url = f"ws{stage.door.url[4:]}/ws/jobs/{job}"
            headers = {"Authorization": f"Bearer {key}"}
            with ExitStack() as held:
                for _ in range(3):
                    held.enter_context(websockets.sync.client.connect(url, additional_headers=headers))
                with pytest.raises(InvalidStatus) as refused:
                    websockets.sync.client.connect(url, additional_headers=headers)
            return int(refused.value.response.status_code)

        assert await trio.to_thread.run_sync(open_many) == 429

    on_stage(tmp_path, act, few)


async def _hung_up(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(4096):
            pass
    except trio.BrokenResourceError:
        pass
