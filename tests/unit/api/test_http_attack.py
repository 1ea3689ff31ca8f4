"""What somebody with a key, or with none, tries at the HTTP door, and what comes of it."""

import json
import os
import resource
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from dimnode.api.http.loads import Loads
from dimnode.api.http.text import Texts, _tamed
from dimnode.api.jobfile import input_blob
from dimnode.errors import Refused
from dimnode.jobs.events import Submitted
from dimnode.limits import LIMITS
from dimnode.node.httpdoor import Shelf
from dimnode.records.envelope import Record
from dimnode.records.ids import cid_text, peer_text
from dimnode.store.keys import KEYS_FILE, Asked, KeyBook, has_keys
from dimnode.store.uploads import Uploads
from tests.unit.api.http_stage import JOB, ME, MODEL, FakeNode, Stage, on_stage

pytestmark = pytest.mark.slow
JSON = {"Content-Type": "application/json"}


def code(found: httpx.Response) -> str:
    """Of an error."""
    return str(found.json()["error"]["code"])


# ---- other keys' things


def test_of_another_keys_receipt_not_even_the_job_is_told(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as owner, stage.client() as other:
            said = (await owner.post("/dim/v1/jobs", json=JOB)).json()
            theirs = await other.get(f"/dim/v1/receipts/{said['verdict']}")
            nobodys = await other.get(f"/dim/v1/receipts/{cid_text(MODEL.id)}")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(said["verdict"], "") == nobodys.text.replace(cid_text(MODEL.id), "")

    on_stage(tmp_path, act)


def test_the_last_letters_of_an_id_find_nothing_over_http(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin")) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            for name in (job[-8:], job.upper(), cid_text(MODEL.id), "%00", "..%2f..%2fjobs", "x" * 5000):
                assert (await client.get(f"/dim/v1/jobs/{name}")).status_code == 404

    on_stage(tmp_path, act)


def test_a_key_that_is_bound_to_models_learns_nothing_of_others_and_runs_nothing_else(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        statistics = {"pattern": "collaborative", "tasks": [{"op": "statistics", "cabinet": "patients"}]}
        chain = {**JOB, "tasks": [{"model": "triage"}, {"model": cid_text(MODEL.id)}]}
        classic = {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": [[1, 2]]}
        vectors = {"model": "triage", "input": "x"}
        async with stage.client(stage.key(models=("other",))) as client:
            for path, body in (
                ("/dim/v1/jobs", JOB),
                ("/dim/v1/jobs", statistics),
                ("/dim/v1/jobs", chain),
                ("/dim/v1/jobs/validate", JOB),
                ("/dim/v1/jobs/validate", statistics),
                ("/api/inference/submit", classic),
                ("/v1/embeddings", vectors),
            ):
                found = await client.post(path, json=body)
                assert (found.status_code, code(found)) == (403, "E-http-02"), (path, found.text)
            unknown = await client.post("/dim/v1/jobs", json={**JOB, "tasks": [{"model": "nobodys"}]})
            assert (unknown.status_code, code(unknown)) == (403, "E-http-02")  # told like one that exists
            there, nowhere = [await client.get(f"/dim/v1/models/{name}") for name in ("triage", "nobody")]
            assert there.status_code == nowhere.status_code == 404
            assert there.text.replace("triage", "nobody") == nowhere.text
        assert not stage.node.jobs

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    "name",
    ["triage", "triage:1.0.0", cid_text(MODEL.id), f"{peer_text(ME)}/triage", f"{peer_text(ME)}/triage:1.0.0"],
)
def test_a_key_may_be_bound_to_a_model_by_any_of_its_whole_names(tmp_path: Path, name: str) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key(models=(name,))) as client:
            assert (await client.post("/dim/v1/jobs", json=JOB)).status_code in (200, 202)

    on_stage(tmp_path, act)


def test_pages_of_jobs_lose_none_of_the_same_millisecond_and_go_on_past_those_that_were_not_taken(
    tmp_path: Path,
) -> None:
    book = KeyBook(tmp_path)
    for number, at_ms in enumerate((1, 2, 2, 2, 3)):
        book.note_job(Asked(bytes([number]), "k", "", b"", at_ms))
    first = book.jobs_of("k", 2)
    rest = book.jobs_of("k", 2, before_ms=first[-1].at_ms)
    assert sorted(row.job for row in first + rest) == [bytes([number]) for number in range(5)]
    book.close()

    async def act(stage: Stage) -> None:
        async with stage.client(stage.key()) as client:
            taken = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            await trio.sleep(0.002)  # the next are of a later millisecond
            stage.node.jobs, kept = {}, stage.node.jobs
            for _ in range(2):
                await client.post("/dim/v1/jobs", json=JOB)
            stage.node.jobs = kept  # as if the engine had refused these
            seen, before = [], ""
            while before is not None:
                page = await client.get("/dim/v1/jobs", params={"most": 1} | ({"before_ms": before} if before else {}))
                seen += [row["job"] for row in page.json()["jobs"]]
                before = page.json()["before_ms"]
        assert seen == [taken]

    (tmp_path / "stage").mkdir()
    on_stage(tmp_path / "stage", act)


# ---- one submission


def test_the_same_submission_twice_at_once_is_one_job(tmp_path: Path) -> None:
    class Slow(FakeNode):
        async def submit(self, client: object, event: Submitted) -> None:
            await trio.sleep(0.02)  # a commit
            await super().submit(client, event)

    async def act(stage: Stage) -> None:
        stage.node.__class__ = Slow
        seen = []
        async with stage.client(headers={"Idempotency-Key": "once"}) as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                found = await client.post("/dim/v1/jobs", params={"wait": 5}, json=JOB)
                seen.append(found.json()["job"])

            for _ in range(4):
                nursery.start_soon(ask)
        assert len(seen) == 4
        assert len(set(seen)) == len(stage.node.jobs) == 1

    on_stage(tmp_path, act)


def test_a_submission_that_was_not_taken_is_its_keys_own_when_it_is_repeated(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    book.note_job(Asked(b"never", "k", "again", b"d", 1))
    book.note_job(Asked(b"taken", "k", "again", b"d", 2))
    assert book.job(b"taken") == book.repeated("k", "again") == Asked(b"taken", "k", "again", b"d", 2)
    assert book.job(b"never") is None
    book.note_job(Asked(b"taken", "thief", "", b"", 3))
    assert book.job(b"taken").key == "k"  # type: ignore[union-attr]
    book.close()


# ---- memory, time, disk


def test_a_body_for_an_upload_is_taken_where_uploads_are_and_nowhere_else(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            binary = {"Content-Type": "application/octet-stream"}
            for path in (
                "/dim/v1/jobs",
                "/dim/v1/models",
                "/v1/embeddings",
                "/api/inference/submit",
                "/dim/v1/blobs/x",
            ):
                found = await client.post(path, content=b"{}", headers=binary)
                assert (found.status_code, code(found)) == (415, "E-http-05")
            found = await client.post("/dim/v1/blobs", content=b"{}", headers=JSON)
            assert (found.status_code, code(found)) == (415, "E-http-05")

    on_stage(tmp_path, act)


def test_a_small_body_of_very_many_values_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for value in (b"[],", b"{},", b"1,"):
                body = b'{"tasks":[{"model":"triage"}],"input":{"x":[' + value * 600_000 + b"1]}}"
                found = await client.post("/dim/v1/jobs", content=body, headers=JSON)
                assert (found.status_code, code(found)) == (413, "E-http-06")

    on_stage(tmp_path, act)


def test_what_the_requests_of_a_key_hold_is_bounded_and_given_back(tmp_path: Path) -> None:
    few = replace(LIMITS.http, bodies_bytes_per_key_max=100_000)
    large = {**JOB, "label": "x" * 40_000}

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as client, trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: client.post("/dim/v1/jobs", params={"wait": 30}, json=JOB | {"label": "x" * 100})
            )
            small = await client.post("/dim/v1/jobs", json=large)
            assert small.status_code == 400  # too long a label, and all of it was read
            assert (await client.post("/dim/v1/jobs", json=large)).status_code == 400  # it was given back
            both = await client.post("/dim/v1/jobs", json={**JOB, "label": "x" * 60_000})
            assert (both.status_code, code(both)) == (429, "E-http-08")
            assert both.headers["retry-after"] == "1"
            nursery.cancel_scope.cancel()

    on_stage(tmp_path, act, few)


def test_loads_count_each_key_and_all_together() -> None:
    loads = Loads(bytes_max=100, bytes_per_key_max=60)
    first, second = loads.of("a"), loads.of("b")
    first.add(60)
    with pytest.raises(Refused, match="E-http-08"):
        loads.of("a").add(1)
    with pytest.raises(Refused, match="E-http-12"):
        second.add(41)
    first.release()
    first.release()
    second.add(60)
    second.release()
    assert (loads.total, dict(loads.held)) == (0, {})


def test_one_long_text_among_many_short_ones_costs_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in (["x" * 100_000] + ["1"] * 20_000, [[["1"]]], {"a": 1}, "1", [{"a": 1}], ["\ud800"]):
        with pytest.raises(Refused, match="E-input-01"):
            input_blob({"x": value}, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; it would be eight million


def test_half_a_surrogate_pair_anywhere_is_a_400(tmp_path: Path) -> None:
    half = "\ud800"
    quorum = {"tier": "quorum", "quorum": {"n": 3, "k": 2}}
    bodies: list[tuple[str, Any]] = [
        ("/dim/v1/jobs", {**JOB, **quorum, "comparator": {half: 1}}),
        ("/dim/v1/jobs", {**JOB, "input": {half: [[1, 2]]}}),
        ("/dim/v1/jobs", {**JOB, "label": half}),
        ("/dim/v1/jobs", {**JOB, half: 1}),
        ("/api/inference/submit", {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": {half: [[1]]}}),
        ("/v1/embeddings", {"model": "triage", "input": half}),
    ]

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for path, body in bodies:
                found = await client.post(path, content=json.dumps(body), headers=JSON)
                assert found.status_code == 400, (path, found.text)

    on_stage(tmp_path, act)


def test_an_event_id_beyond_all_numbers_is_one_that_has_not_come_yet(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            found = await client.get(f"/dim/v1/jobs/{job}/events", headers={"Last-Event-ID": "9" * 32})
            assert found.json() == {"events": [], "last": 2**62}

    on_stage(tmp_path, act)


def test_streams_and_long_waits_of_one_key_leave_room_for_others(tmp_path: Path) -> None:
    few = replace(LIMITS.http, requests_per_key_max=3)

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as greedy, stage.client() as other, trio.open_nursery() as nursery:
            job = (await greedy.post("/dim/v1/jobs", json=JOB)).json()["job"]
            identity = next(iter(stage.node.jobs))
            for _ in range(3):
                nursery.start_soon(lambda: greedy.get(f"/dim/v1/jobs/{job}", params={"wait": 30}))
            while len(stage.node.watching.get(identity, ())) < 3:  # noqa: ASYNC110 a fake's dictionary says nothing
                await trio.sleep(0.005)
            found = await greedy.get("/dim/v1/jobs")
            assert (found.status_code, code(found)) == (429, "E-http-08")
            assert (await other.get("/dim/v1/jobs")).status_code == 200
            stage.node.end(identity)
        async with stage.client(key) as greedy:
            assert (await greedy.get("/dim/v1/jobs")).status_code == 200

    on_stage(tmp_path, act, few)


def test_one_address_does_not_take_every_connection(tmp_path: Path) -> None:
    few = replace(LIMITS.http, connections_per_address_max=2)

    async def act(stage: Stage) -> None:
        held = [await trio.open_tcp_stream(*stage.address) for _ in range(2)]
        with trio.fail_after(2):
            refused = await trio.open_tcp_stream(*stage.address)
            assert await refused.receive_some(1) == b""
        await held.pop().aclose()
        for _ in range(50):
            async with stage.client() as client:
                try:
                    assert (await client.get("/health")).status_code == 200
                    break
                except httpx.TransportError:  # the place is not free yet
                    await trio.sleep(0.01)
        else:
            raise AssertionError("the place was never given back")

    on_stage(tmp_path, act, few)


def test_uploads_at_once_are_counted_and_tiny_ones_cost_a_whole_block(tmp_path: Path) -> None:
    limits = replace(LIMITS.http, uploads_bytes_per_key_max=100_000, upload_least_bytes=60_000)
    book = KeyBook(tmp_path)
    shelf = Shelf(book, Uploads(tmp_path, limits), limits)
    drafts = [shelf.begin("k") for _ in range(limits.uploads_per_key_at_once_max)]
    with pytest.raises(Refused, match="E-http-08"):
        shelf.begin("k")
    shelf.begin("other").drop()
    for draft in drafts:
        draft.drop()
        draft.drop()
    for letter in (b"a", b"b"):
        draft = shelf.begin("k")
        draft.write(letter)
        shelf.keep(draft, "k")
        draft.drop()
    with pytest.raises(Refused, match="E-http-08"):
        shelf.begin("k")  # two letters, and two blocks
    book.forget_uploads(2**60)
    shelf.begin("k").drop()
    book.close()


def test_an_upload_never_takes_the_last_of_the_disk(tmp_path: Path) -> None:
    draft = Uploads(tmp_path, LIMITS.http, free_bytes_min=2**60).begin()
    with pytest.raises(Refused, match="E-jobs-24"):
        draft.write(b"x")
    draft.drop()
    assert not list((tmp_path / "uploads").iterdir())


def test_jobs_never_take_the_last_of_the_disk_either(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        said = {"ready": False, "swarm_joined": True, "workers_ready": True, "disk_ok": False}
        stage.node.readiness = lambda: said  # type: ignore[method-assign]
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", json=JOB)
        assert (found.status_code, code(found)) == (503, "E-jobs-24")
        assert found.headers["retry-after"] == "5"
        assert not stage.node.jobs

    on_stage(tmp_path, act)


def test_a_tokenizer_that_panics_is_refused_and_does_not_end_the_node() -> None:
    class Panic(BaseException):
        pass

    def panics(_: object) -> None:
        raise Panic("index out of bounds")

    with pytest.raises(Refused, match="E-models-04"):
        _tamed(panics, b"")


def test_a_strangers_manifest_may_say_anything_about_its_text(tmp_path: Path) -> None:
    async def main() -> None:
        for most in ("many", None, -1, 2**80, True):
            said = {**MODEL.payload, "x_text": {"max_tokens": most}}
            model = Record(MODEL.id, MODEL.kind, MODEL.by, said, b"")
            cut = await Texts(FakeNode()).cut(model, [[1, 2], [3]])
            assert cut.padded in (2, 4)

    trio.run(main)


# ---- requests that are meant for two


async def raw(stage: Stage, *lines: str, body: bytes = b"", seconds: float = 3.0) -> bytes:
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

    on_stage(tmp_path, act)
    assert "failed" not in caplog.text
    assert not list((tmp_path / "uploads").iterdir())


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

    async def act(stage: Stage) -> None:
        async def tick() -> None:
            nonlocal late
            while True:
                began = time.monotonic()
                await trio.sleep(0.002)
                late = max(late, time.monotonic() - began)

        async with stage.client() as client, trio.open_nursery() as nursery:
            body = json.dumps({**JOB, "input": {"x": rows}}).encode()
            nursery.start_soon(tick)
            found = await client.post("/dim/v1/jobs", content=body, headers=JSON)
            nursery.cancel_scope.cancel()
        assert found.status_code in (200, 202), found.text

    on_stage(tmp_path, act)
    assert late < 1.0


def test_who_is_refused_in_the_middle_of_a_large_body_still_reads_why(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        body = b'"' + b"x" * (3 << 20) + b'"'
        async with stage.client() as client, stage.client("") as stranger:
            assert (await stranger.post("/dim/v1/jobs", content=body, headers=JSON)).status_code == 401
            assert (await client.post("/dim/v1/jobs", content=body)).status_code == 415
            assert (await client.post("/dim/v1/jobs", content=body, headers=JSON)).status_code == 413

    on_stage(tmp_path, act, replace(LIMITS.http, json_bytes_max=2 << 20))


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
        await trio.sleep(0.8)  # until the sockets' buffers are full: nothing else says so
        began.append(time.monotonic())
        if is_told:
            stage.door.stop()

    began: list[float] = []
    on_stage(tmp_path, act, replace(LIMITS.http, write_seconds_max=3600.0))
    assert time.monotonic() - began[0] < 2


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
