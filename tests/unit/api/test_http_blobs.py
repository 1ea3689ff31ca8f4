"""Bytes up and down over HTTP, and models made of them."""

import os
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.api.http.examples import PEER
from dimnode.client import tensor_rows
from dimnode.limits import LIMITS
from dimnode.records.ids import blob_cid, cid_text
from dimnode.store.uploads import UPLOADS_FOLDER, Uploads
from tests.unit.api.http_stage import JOB, OUTPUT, Stage, on_stage

STREAM = {"Content-Type": "application/octet-stream"}


def test_what_went_up_comes_down_whole_or_in_part_for_its_sender_alone(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)

    async def act(stage: Stage) -> None:
        async with stage.client() as mine, stage.client() as theirs:
            found = await mine.post("/dim/v1/blobs", content=in_parts(content), headers=STREAM)
            assert found.status_code == 201
            name = cid_text(blob_cid(content))
            assert found.json() == {"blob": name, "bytes": len(content)}
            assert (await mine.get(f"/dim/v1/blobs/{name}")).content == content
            part = await mine.get(f"/dim/v1/blobs/{name}", headers={"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, content[10:20])
            assert (await theirs.get(f"/dim/v1/blobs/{name}")).status_code == 404
            assert (await theirs.get(f"/dim/v1/blobs/{cid_text(blob_cid(b'never'))}")).status_code == 404

    on_stage(tmp_path, act)


def test_no_name_of_a_blob_reaches_another_file(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(b"secret")

    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin")) as client:
            for name in (
                "..%2fidentity.key",
                "%2e%2e/identity.key",
                "x" * 5000,
                "bafkrei",
                "a\x00b".replace("\x00", "%00"),
            ):
                found = await client.get(f"/dim/v1/blobs/{name}")
                assert found.status_code in (400, 404)
                assert b"secret" not in found.content
            told = (await client.get("/dim/v1/blobs/x")).json()["error"]
            assert (told["code"], told["hint"]) == ("E-http-10", "POST /dim/v1/blobs")

    on_stage(tmp_path, act)


def test_an_upload_that_breaks_off_or_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    small = replace(LIMITS.http, upload_bytes_max=100_000)

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            found = await client.post("/dim/v1/blobs", content=in_parts(b"x" * 200_000), headers=STREAM)
            assert (found.status_code, found.json()["error"]["hint"]) == (413, "send less")
        assert not list((tmp_path / UPLOADS_FOLDER).iterdir())

    on_stage(tmp_path, act, small)


def test_a_key_hands_in_no_more_in_a_day_than_its_share(tmp_path: Path) -> None:
    small = replace(LIMITS.http, uploads_bytes_per_key_max=1000)

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            assert (await client.post("/dim/v1/blobs", content=b"y" * 1000, headers=STREAM)).status_code == 201
            full = await client.post("/dim/v1/blobs", content=b"z", headers=STREAM)
            assert (full.status_code, full.json()["error"]["code"]) == (429, "E-http-08")

    on_stage(tmp_path, act, small)


def test_a_job_reads_an_upload_and_its_output_is_fetched_from_the_job(tmp_path: Path) -> None:
    rows = tensor_rows([[1.0, 2.0]])

    async def act(stage: Stage) -> None:
        async with stage.client() as client, stage.client() as other:
            blob = (await client.post("/dim/v1/blobs", content=rows, headers=STREAM)).json()["blob"]
            job = {"tasks": JOB["tasks"], "blobs": [blob]}
            said = (await client.post("/dim/v1/jobs", json=job, params={"wait": 5})).json()
            found = await client.get(f"/dim/v1/jobs/{said['job']}/blobs/{said['outputs'][0]['blob']}")
            assert found.content == OUTPUT
            assert (await other.get(f"/dim/v1/jobs/{said['job']}/blobs/{blob}")).status_code == 404
            assert (await other.post("/dim/v1/jobs", json=job)).status_code == 404

    on_stage(tmp_path, act)


@pytest.mark.slow
def test_an_uploaded_file_becomes_a_model_with_an_admins_key_alone(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as user, stage.client(stage.key("admin")) as admin:
            blob = (await admin.post("/dim/v1/blobs", content=b"onnx", headers=STREAM)).json()["blob"]
            card = {"blob": blob, "name": "fresh", "licence": "MIT"}
            assert (await user.post("/dim/v1/models", json=card)).status_code == 403
            found = await admin.post("/dim/v1/models", json=card)
            assert (found.status_code, found.json()["name"]) == (201, "fresh:1.0.0")
        [(card, [(_, role, content)])] = stage.node.added
        assert (card["licence"], role, content) == ("MIT", "model", b"onnx")

    on_stage(tmp_path, act)


def test_several_uploads_become_a_folder_with_what_stands_before_and_after(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin")) as admin:
            graph, words = [
                (await admin.post("/dim/v1/blobs", content=content, headers=STREAM)).json()["blob"]
                for content in (b"onnx", b"words")
            ]
            files = [
                {"path": "model.onnx", "blob": graph},
                {"path": "a/tokenizer.json", "blob": words, "role": "other"},
            ]
            pre = [{"op": "input", "name": "text", "kind": "text"}]
            card = {"files": files, "name": "folder", "pre": pre, "max_batch": 4}
            assert (await admin.post("/dim/v1/models", json=card)).status_code == 201
            for wrong in ({"blob": graph}, {"files": []}, {"files": [{"path": "x", "blob": cid_text(blob_cid(b""))}]}):
                assert (await admin.post("/dim/v1/models", json=card | wrong)).status_code in (400, 404)
        [(said, listed)] = stage.node.added
        assert listed == [("model.onnx", "", b"onnx"), ("a/tokenizer.json", "other", b"words")]
        assert (said["pre"], said["max_batch"]) == (pre, 4)

    on_stage(tmp_path, act)


def test_what_changes_who_has_or_may_use_a_model_needs_an_admins_key(tmp_path: Path) -> None:
    requests = {
        "pull": {"peers": ["brio"]},
        "verify": None,
        "grant": {"peer": "brio", "operations": ["infer"], "expires_ms": 5, "terms": "a study"},
        "revoke": {"peer": "brio", "reason": "over"},
        "withdraw": {"reason": "wrong", "replacement": "other"},
    }

    async def act(stage: Stage) -> None:
        async with stage.client() as user, stage.client(stage.key("admin")) as admin:
            for word, body in requests.items():
                path = f"/dim/v1/models/{PEER}%2Ftriage/{word}" if word == "pull" else f"/dim/v1/models/triage/{word}"
                assert (await user.post(path, json=body)).status_code == 403
                found = await admin.post(path, json=body)
                assert found.status_code in ((404,) if word == "pull" else (200, 201)), found.text
            assert (await admin.get("/dim/v1/models/triage")).json()["grants"]
            assert (await user.get("/dim/v1/models/triage")).json()["grants"] == []
        asked = [row for row in stage.node.asked if row[0] != "models.show"]
        wanted = [(f"models.{word}", {"model": "triage", **(body or {})}) for word, body in requests.items()]
        assert asked == wanted[1:]

    on_stage(tmp_path, act)


def test_what_one_publisher_publishes_is_listed_over_http(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as user:
            for path, publisher in (("", None), ("?publisher=anna", "anna")):
                assert (await user.get(f"/dim/v1/models{path}")).json()["models"]
                assert stage.node.asked[-1] == ("models.ls", {"publisher": publisher})
            assert (await user.get(f"/dim/v1/models?publisher={'x' * 65}")).status_code == 400

    on_stage(tmp_path, act)


def test_uploads_go_when_they_are_old_and_the_oldest_when_there_are_too_many(tmp_path: Path) -> None:
    uploads = Uploads(
        tmp_path, replace(LIMITS.http, uploads_bytes_max=250, upload_kept_seconds=100, upload_least_bytes=0)
    )
    kept = []
    for age, letter in ((150, b"a"), (50, b"b"), (40, b"c"), (30, b"d")):
        draft = uploads.begin()
        draft.write(letter * 100)
        kept.append(draft.keep())
        path = uploads.path(kept[-1])
        assert path is not None
        os.utime(path, (1000 - age, 1000 - age))
    assert uploads.sweep(now=1000) == 2
    assert [uploads.path(cid) is not None for cid in kept] == [False, False, True, True]


def test_uploads_that_cannot_be_looked_through_now_are_left_for_the_next_time_and_end_no_node(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, replace(LIMITS.http, upload_kept_seconds=100))
    draft = uploads.begin()
    draft.write(b"old")
    cid = draft.keep()
    later = time.time() + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # strangers' connections have taken all files
    try:
        assert uploads.sweep(later) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert uploads.path(cid) is not None
    assert uploads.sweep(later) == 1


async def in_parts(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]
