"""The HTTP door of a real node: a key, a job, its events, its receipt, and the operator's commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dimnode.audit.verifier import verify
from tests.e2e.harness import JOB_SECONDS, MODEL, MODEL_FEATURES, NOISE, Nodes, RealNode, real_nodes, until

pytestmark = pytest.mark.slow

INPUT = {"x": [[float(number) for number in range(MODEL_FEATURES)]]}
JOB = {"tasks": [{"model": MODEL}], "input": INPUT}
WAIT = {"wait": int(JOB_SECONDS)}
PATIENCE_SECONDS = 2 * JOB_SECONDS


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("http")
    (folder / "alba").mkdir(mode=0o700)
    settings = 'http_listen = "127.0.0.1:0"\nlog_format = "json"\n'
    (folder / "alba" / "config.toml").write_text(settings, encoding="utf-8")
    with real_nodes(folder, {"alba": False, "brio": True}) as found:
        found.offer("brio")
        yield found


def dim(node: RealNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command line, as typed."""
    command = [sys.executable, "-m", "dimnode.cli.main", *arguments, "--home", str(node.home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def new_key(node: RealNode, *arguments: str) -> tuple[str, str]:
    """A fresh key and the door's URL."""
    done = dim(node, "keys", "new", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["key"], said["url"]


def client(node: RealNode, *arguments: str) -> httpx.Client:
    key, url = new_key(node, *arguments)
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS)


def test_the_door_is_shut_until_there_is_a_key_and_opens_while_the_node_runs(nodes: Nodes) -> None:
    brio = nodes["brio"]
    assert brio.client.status()["http"] == ""
    with client(nodes["alba"]) as http:
        assert nodes["alba"].client.status()["http"] == str(http.base_url).rstrip("/")
        assert http.get("/health").json() == {"ok": True}
        assert http.get("/ready").json()["swarm_joined"] is True


def test_a_job_over_http_runs_on_a_peer_and_its_receipt_verifies_offline(nodes: Nodes, tmp_path: Path) -> None:
    with client(nodes["alba"]) as http:
        names = [row["name"] for row in http.get("/dim/v1/models").json()["models"]]
        assert any(name.startswith(MODEL) for name in names)
        plan = http.post("/dim/v1/jobs/validate", json=JOB).json()
        assert plan["runnable"] is True
        found = http.post("/dim/v1/jobs", json=JOB, params=WAIT)
        assert found.status_code == 200, found.text
        said = found.json()
        receipt = http.get(said["receipt"]).content
    report = verify(receipt)
    assert report.status == 0
    path = tmp_path / "job.dimr"
    path.write_bytes(receipt)
    done = subprocess.run(
        [sys.executable, "-m", "dimnode.cli.main", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_events_of_a_job_end_with_its_verdict_and_resume_after_any_of_them(nodes: Nodes) -> None:
    with client(nodes["alba"]) as http:
        job = http.post("/dim/v1/jobs", json=JOB).json()["job"]
        stream = {"Accept": "text/event-stream"}
        events = read_events(http, job, stream)
        assert [event["what"] for event in events if event["id"]] == ["submitted", "leased", "answered", "ended"]
        ids = [event["id"] for event in events if event["id"]]
        for place, last in enumerate(ids[:-1]):
            rest = read_events(http, job, stream | {"Last-Event-ID": str(last)})
            assert [event["id"] for event in rest] == ids[place + 1 :]


def test_a_classic_client_gets_its_result_and_an_idempotent_job_outlives_the_node(nodes: Nodes) -> None:
    alba = nodes["alba"]
    body = {"pattern": "chained", "config": {"modelId": MODEL, "nodes": ["brio"]}, "inputData": INPUT}
    again = {"Idempotency-Key": "order-1"}
    key, url = new_key(alba)
    headers = {"Authorization": f"Bearer {key}"} | again
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as http:
        job = http.post("/api/inference/submit", json=body).json()["jobId"]
        result = wait_result(http, job)
        assert result["status"] == "completed"
    assert alba.interrupt() < 1.0 * NOISE
    nodes.restart("alba")
    with httpx.Client(base_url=alba.client.status()["http"], headers=headers, timeout=PATIENCE_SECONDS) as http:
        assert http.post("/api/inference/submit", json=body).json()["jobId"] == job
        assert http.get(f"/api/inference/result/{job}").json() == result


def test_a_revoked_key_is_refused_at_its_next_request_and_names_no_secret_in_the_log(nodes: Nodes) -> None:
    alba = nodes["alba"]
    key, url = new_key(alba, "--name", "short-lived")
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS) as http:
        assert http.get("/dim/v1/peers").status_code == 200
        done = dim(alba, "keys", "revoke", "short-lived")
        assert done.returncode == 0, done.stderr
        assert http.get("/dim/v1/peers").status_code == 401
    assert "short-lived" in dim(alba, "keys", "ls").stdout
    assert key.split("_", 2)[2] not in alba.log.read_text(encoding="utf-8")


def test_metrics_count_jobs_and_never_carry_an_id(nodes: Nodes) -> None:
    with client(nodes["alba"], "--scope", "admin") as http:
        http.post("/dim/v1/jobs", json=JOB, params=WAIT)
        page = http.get("/metrics").text
        job = http.get("/dim/v1/jobs").json()["jobs"][0]["job"]
    assert "dimnode_commits_total" in page
    assert 'dimnode_gossip_messages_total{outcome="published",topic="dim.nodes.heartbeat"}' in page
    documented = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    for line in page.splitlines():
        if line.startswith("# TYPE dimnode_"):
            assert f"`{line.split()[2].removeprefix('dimnode_')}" in documented, line
    assert 'route="/dim/v1/jobs"' in page
    assert job not in page


def test_the_log_names_requests_and_jobs_and_never_says_what_was_in_them(nodes: Nodes) -> None:
    alba = nodes["alba"]
    key, url = new_key(alba)
    canary = 8675309.0625  # a float32 keeps all of its digits
    rows = [[canary, *INPUT["x"][0][1:]]]
    headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "canary-1"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as http:
        body = {"tasks": [{"model": MODEL}], "input": {"x": rows}, "label": "of canaries"}
        said = http.post("/dim/v1/jobs", json=body, params=WAIT).json()
        assert said["status"] == "ok"
        assert http.post("/dim/v1/jobs", json=body | {"input": {"x": [[canary]]}}).status_code == 400
    last = f'"message": "a job ended", "job": "{said["job"]}"', '"status": 400'  # written after who asked is answered

    def written() -> str:
        text = alba.log.read_text(encoding="utf-8")
        return text if text.endswith("\n") and all(end in text for end in last) else ""

    text = until(written, JOB_SECONDS, "both requests and the job's end are in the log")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    about = [line for line in lines if line.get("job") == said["job"]]
    life = ("a job began", "a job ended")
    assert [(line["message"], line["status"]) for line in about if line["message"] in life] == [
        ("a job began", "open"),
        ("a job ended", "ok"),
    ]
    request = next(line for line in about if line.get("request") == "canary-1")
    assert (request["route"], request["status"]) == ("/dim/v1/jobs", 200)
    assert request["ms"] > 0
    assert request["key"] == key.split("_")[1]
    for secret in ("8675309", "of canaries", key.split("_", 2)[2]):
        assert secret not in text
        assert secret not in nodes["brio"].log.read_text(encoding="utf-8")


def read_events(http: httpx.Client, job: str, headers: dict[str, str]) -> list[dict[str, object]]:
    """All events of a stream until it ends."""
    with http.stream("GET", f"/dim/v1/jobs/{job}/events", headers=headers) as stream:
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def wait_result(http: httpx.Client, job: str) -> dict[str, object]:
    """Until the job has ended, by its events."""

    def result() -> dict[str, object]:
        read_events(http, job, {"Accept": "text/event-stream"})
        found = http.get(f"/api/inference/result/{job}")
        return dict(found.json()) if found.status_code == 200 else {}

    return dict(until(result, JOB_SECONDS, "the result is there"))
