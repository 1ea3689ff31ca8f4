"""Jobs over HTTP, against a node of dictionaries and over real sockets."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from dimnode.api.http.closing import Closing
from dimnode.api.http.events import job_events
from dimnode.api.port import Answer
from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import RecordId, cid_bytes
from tests.unit.api.http_stage import JOB, MODEL, FakeNode, Stage, on_stage


def test_a_job_is_submitted_waited_for_and_answered_with_its_receipt(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", json=JOB, params={"wait": 5})
            assert found.status_code == 200
            said = found.json()
            assert said["status"] == "ok"
            assert said["outputs"][0]["tensors"] == [{"name": "y", "dtype": "int64", "shape": [1], "values": [7]}]
            assert found.headers["x-dimnode-receipt"] == said["verdict"]
            receipt = await client.get(said["receipt"])
            assert receipt.content.startswith(b"receipt of ")
            assert (await client.get(f"/dim/v1/receipts/{said['verdict']}")).content == receipt.content

    on_stage(tmp_path, act)


def test_a_job_that_takes_longer_is_202_and_is_shown_when_it_has_ended(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", json=JOB)
            assert (found.status_code, found.json()["status"]) == (202, "open")
            job = found.json()["job"]
            assert (await client.get(f"/dim/v1/jobs/{job}")).json()["status"] == "open"
            assert (await client.get(f"/dim/v1/jobs/{job}/receipt")).status_code == 409
            assert (await client.post(f"/dim/v1/jobs/{job}/cancel")).json() == {"job": job, "cancelling": True}

            async def end() -> None:
                stage.node.end(next(iter(stage.node.jobs)), "cancelled")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                shown = await client.get(f"/dim/v1/jobs/{job}", params={"wait": 5})
            assert shown.json()["status"] == "cancelled"

    on_stage(tmp_path, act)


def test_the_same_idempotency_key_is_the_same_job_and_another_body_is_refused(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(headers={"Idempotency-Key": "order 7"}) as client:
            first = await client.post("/dim/v1/jobs", json=JOB)
            again = await client.post("/dim/v1/jobs", json=JOB)
            other = await client.post("/dim/v1/jobs", json={**JOB, "label": "x"})
            assert first.json()["job"] == again.json()["job"]
            assert len(stage.node.jobs) == 1
            assert other.status_code == 409
            assert other.json()["error"]["code"] == "E-http-09"
        async with stage.client(headers={"Idempotency-Key": "order 7"}) as client:  # another key, another submission
            assert (await client.post("/dim/v1/jobs", json=JOB)).json()["job"] != first.json()["job"]

    on_stage(tmp_path, act)


def test_a_key_sees_only_its_own_jobs_and_an_admin_sees_all(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as mine, stage.client() as theirs, stage.client(stage.key("admin")) as admin:
            job = (await mine.post("/dim/v1/jobs", json=JOB)).json()["job"]
            for path in ("", "/events", "/receipt"):
                found = await theirs.get(f"/dim/v1/jobs/{job}{path}")
                never = await theirs.get(f"/dim/v1/jobs/{job[:-4]}aaaa{path}")
                assert found.status_code == never.status_code == 404
                assert found.json()["error"]["code"] == never.json()["error"]["code"] == "E-job-13"
            assert (await theirs.post(f"/dim/v1/jobs/{job}/cancel")).status_code == 404
            assert (await theirs.get("/dim/v1/jobs")).json()["jobs"] == []
            assert len((await mine.get("/dim/v1/jobs")).json()["jobs"]) == 1
            assert (await admin.get(f"/dim/v1/jobs/{job}")).status_code == 200
            assert len((await admin.get("/dim/v1/jobs")).json()["jobs"]) == 1
        assert not stage.node.cancelled

    on_stage(tmp_path, act)


def test_a_key_has_its_scopes_models_and_places(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client(stage.key("read")) as reader:
            assert (await reader.post("/dim/v1/jobs", json=JOB)).status_code == 403
        async with stage.client(stage.key("submit", "read", models=("other",))) as bound:
            found = await bound.post("/dim/v1/jobs", json=JOB)
            assert (found.status_code, found.json()["error"]["type"]) == (403, "permission_error")
        async with stage.client(stage.key("submit", "read", models=("triage",), open_jobs=1)) as one:
            assert (await one.post("/dim/v1/jobs", json=JOB)).status_code == 202
            full = await one.post("/dim/v1/jobs", json=JOB)
            assert full.status_code == 429
            assert int(full.headers["retry-after"]) >= 1
            stage.node.end(next(iter(stage.node.jobs)))
            assert (await one.post("/dim/v1/jobs", json=JOB)).status_code == 202

    on_stage(tmp_path, act)


def test_what_the_key_is_called_never_enters_the_spec_and_the_trace_does(tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def act(stage: Stage) -> None:
        async with stage.client(stage.key(name="dr-smith"), headers={"traceparent": trace}) as client:
            await client.post("/dim/v1/jobs", json=JOB)
            await client.post("/dim/v1/jobs", json=JOB, headers={"traceparent": "00-zz"})
        first, second = (event.spec for event in stage.node.jobs.values())
        assert first["x_traceparent"] == trace
        assert "x_traceparent" not in second
        assert "dr-smith" not in repr(first)

    on_stage(tmp_path, act)


def test_events_come_as_json_and_as_a_stream_that_resumes_after_the_last_id(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            page = (await client.get(f"/dim/v1/jobs/{job}/events")).json()
            assert [event["what"] for event in page["events"]] == ["submitted"]
            identity = next(iter(stage.node.jobs))
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(page["last"])}
            async with client.stream("GET", f"/dim/v1/jobs/{job}/events", headers=headers) as stream:
                lines = stream.aiter_lines()
                stage.node.note(identity, "leased", on_record=True)
                assert await _next_event(lines) == "leased"
                stage.node.note(identity, "running", on_record=False)
                assert await _next_event(lines) == "running"
                stage.node.end(identity)
                assert await _next_event(lines) == "ended"
                assert [line async for line in lines if line] == []
        assert not stage.node.watching[identity]

    on_stage(tmp_path, act)


def test_a_stream_that_comes_back_after_the_last_event_is_told_that_nothing_comes(tmp_path: Path) -> None:
    """Browsers come back after every end, until they are told so by a 204."""

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            last = (await client.get(f"/dim/v1/jobs/{job}/events")).json()["last"]
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
            with trio.fail_after(5):
                found = await client.get(f"/dim/v1/jobs/{job}/events", headers=headers)
                assert (found.status_code, found.content) == (204, b"")
                identity = RecordId(cid_bytes(job))
                assert [event async for event in job_events(stage.node, identity, last, LIMITS.http, Closing())] == []

    on_stage(tmp_path, act)


def test_of_a_job_whose_answer_made_room_for_newer_ones_the_receipt_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(self: FakeNode, job: RecordId) -> Answer | None:
        raise Refused("E-job-15", "the answer of this job is no longer here (it ended ok)")

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            monkeypatch.setattr(FakeNode, "fetch_end", gone)
            found = await client.get(f"/dim/v1/jobs/{job}/receipt")
            assert (found.status_code, found.content) == (200, b"receipt of " + cid_bytes(job))
            shown = await client.get(f"/dim/v1/jobs/{job}")
            assert (shown.status_code, shown.json()["error"]["code"]) == (404, "E-job-15")

    on_stage(tmp_path, act)


def test_a_client_that_hangs_up_leaves_no_watcher_and_its_job_goes_on(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            identity = next(iter(stage.node.jobs))
            async with client.stream(
                "GET", f"/dim/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}
            ) as stream:
                assert await _next_event(stream.aiter_lines()) == "submitted"
            while stage.node.watching[identity]:
                await trio.lowlevel.checkpoint()
            stage.node.end(identity)
            assert (await client.get(f"/dim/v1/jobs/{job}")).json()["status"] == "ok"

    on_stage(tmp_path, act)


@pytest.mark.slow
def test_a_stream_that_nobody_reads_loses_nothing_that_is_on_record(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            identity = next(iter(stage.node.jobs))
            async with client.stream(
                "GET", f"/dim/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}
            ) as stream:
                for _ in range(600):
                    stage.node.note(identity, "leased", on_record=True)
                    stage.node.note(identity, "running", on_record=False)
                stage.node.end(identity)
                ids = [int(line[4:]) async for line in stream.aiter_lines() if line.startswith("id: ")]
            assert ids == list(range(1, 603))

    on_stage(tmp_path, act)


def test_classic_clients_submit_follow_and_fetch_with_their_own_bodies(tmp_path: Path) -> None:
    body = {
        "pattern": "chained",
        "config": {"modelId": "triage", "somethingElse": 1},
        "inputData": [[1.0, 2.0]],
        "priority": "high",
    }

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        async with stage.client() as client:
            found = await client.post("/api/inference/submit", json=body)
            assert (found.status_code, found.json()["status"]) == (202, "running")
            job = found.json()["jobId"]
            assert (await client.get(f"/api/inference/status/{job}")).json()["status"] == "running"
            assert (await client.get(f"/api/inference/result/{job}")).status_code == 409
            assert (await client.post(f"/api/inference/cancel/{job}")).status_code == 200
            stage.node.end(next(iter(stage.node.jobs)))
            result = (await client.get(f"/api/inference/result/{job}")).json()
            assert (result["status"], result["outputs"][0]["tensors"][0]["values"]) == ("completed", [7])
        spec = next(iter(stage.node.jobs.values())).spec
        assert (spec["priority"], spec["tasks"]) == ("high", [{"op": "infer", "model": MODEL.id}])

    on_stage(tmp_path, act)


async def _next_event(lines: Any) -> str:
    async for line in lines:
        if line.startswith("data: "):
            return str(json.loads(line[6:])["what"])
    raise httpx.ReadError("the stream is over")


@pytest.mark.parametrize(
    ("status", "queries"),
    [
        (200, ("", "wait=5", "wait=05", "wait=5.5", "wait=%35", "wait=60", "other=1", "wait=1&other=1")),
        (400, ("wait=61", "wait=9999", "wait=-1", "wait=x", "wait=")),
    ],
)
def test_however_the_seconds_to_wait_are_written_they_count_or_are_named(
    tmp_path: Path, status: int, queries: tuple[str, ...]
) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for query in queries:
                found = await client.post(f"/dim/v1/jobs?{query}", json=JOB)
                assert found.status_code == status, query
                assert status == 200 or found.json()["error"]["param"] == "query.wait"

    on_stage(tmp_path, act)
