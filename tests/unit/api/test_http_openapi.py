"""The OpenAPI document is what the door does: valid, complete, shipped, and every example in it runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from dimnode.api.http.app import bare_app
from dimnode.api.http.guard import OPEN_PATHS
from dimnode.api.http.spec import document, operations, render
from dimnode.limits import LIMITS
from tests.unit.api.http_stage import JOB, Stage, on_stage

pytestmark = pytest.mark.slow

jsonschema = pytest.importorskip("jsonschema")

SHIPPED = Path(__file__).parents[3] / "clients" / "http" / "openapi.json"
FOUND_NOWHERE = {"/v1/models/{model}", "/v1/embeddings"}  # no model of the stage takes text
SITES = "counts over the data of two nodes"  # nor has it peers with these names


@cache
def page() -> dict[str, Any]:
    """The document as the app says it now."""
    return document(bare_app())


def look_up(found: dict[str, Any]) -> dict[str, Any]:
    """What a reference means, or the thing itself."""
    if "$ref" in found:
        _, _, kind, name = found["$ref"].split("/")
        return dict(page()["components"][kind][name])
    return found


def responses(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, response in operation["responses"].items():
        yield status, look_up(response)


def fit(body: Any, schema: dict[str, Any]) -> None:
    """Raises unless the body fits the schema."""
    jsonschema.Draft202012Validator({**schema, "components": page()["components"]}).validate(body)


def test_the_shipped_document_is_what_the_app_says() -> None:
    hint = "python -m dimnode.api.http.spec > clients/http/openapi.json, then npm run types there"
    assert SHIPPED.read_text(encoding="utf-8") == render(page()), hint


def test_the_shipped_types_were_made_of_the_shipped_document() -> None:
    first = SHIPPED.with_name("dimnode.d.ts").read_text(encoding="utf-8").partition("\n")[0]
    digest = sha256(SHIPPED.read_bytes()).hexdigest()
    assert first.endswith(f"sha256 {digest}"), "cd clients/http && npm ci && npm run types"


def test_the_document_is_valid_openapi_and_the_door_serves_it(tmp_path: Path) -> None:
    openapi_spec_validator = pytest.importorskip("openapi_spec_validator")

    async def act(stage: Stage) -> None:
        async with stage.client("") as client:
            found = (await client.get("/openapi.json")).json()
        assert found == page()

    on_stage(tmp_path, act)
    openapi_spec_validator.validate(json.loads(json.dumps(page())))


def test_every_request_says_what_it_does_wants_and_answers() -> None:
    tags = {tag["name"] for tag in page()["tags"]}
    for path, method, operation in operations(page()):
        place = f"{method} {path}"
        assert operation["summary"] and operation["description"].endswith((".", "`).")), place
        assert set(operation["tags"]) < tags and len(operation["tags"]) == 1, place
        assert operation["security"] == ([] if path in OPEN_PATHS else [{"key": []}]), place
        for parameter in map(look_up, operation["parameters"]):
            assert parameter["description"] and parameter["schema"], (place, parameter)
            assert ("example" in parameter) == (parameter["in"] == "path"), (place, parameter)
        for status, response in responses(operation):
            assert response["description"] and (status == "204") == ("content" not in response), (place, status)
            assert "X-Request-Id" in response["headers"], (place, status)
            assert ("Retry-After" in response["headers"]) == (status in ("429", "503")), (place, status)


def test_every_request_documents_the_one_shape_of_errors() -> None:
    error = {"$ref": "#/components/schemas/ErrorOut"}
    for path, method, operation in operations(page()):
        statuses = dict(responses(operation))
        wanted = {"400", "403", "500", "503"} | (set() if path in OPEN_PATHS else {"401", "404", "413", "415", "429"})
        assert wanted <= statuses.keys(), (method, path)
        for status, response in statuses.items():
            if status >= "400":
                schema = response["content"]["application/json"]["schema"]
                assert schema == error or error in schema["anyOf"], (method, path, status)


def test_every_example_of_an_answer_fits_its_shape() -> None:
    for path, method, operation in operations(page()):
        for status, response in responses(operation):
            for kind, content in response.get("content", {}).items():
                if kind == "application/json":
                    assert "example" in content, (method, path, status)
                    fit(content["example"], content["schema"])


def test_every_example_of_a_request_runs_and_is_answered_as_documented(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin")) as client:
            ids = await real_ids(client)
            for path, method, operation in operations(page()):
                for name, body in bodies(operation):
                    found = await client.send(request(client, method, path, operation, body, ids))
                    place = (method, path, name, found.text)
                    fits = found.status_code < 300 or path in FOUND_NOWHERE or name == SITES
                    assert fits and found.status_code < 500, place
                    check(found, operation)

    on_stage(tmp_path, act)


def test_a_request_for_what_is_not_there_is_answered_as_documented(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client, stage.client("") as stranger:
            for path, method, operation in operations(page()):
                _, body = next(bodies(operation))
                check(await client.send(request(client, method, path, operation, body, {})), operation)
                refused = await stranger.send(request(stranger, method, path, operation, body, {}))
                check(refused, operation)
                assert refused.status_code == (200 if path in OPEN_PATHS else 401)

    on_stage(tmp_path, act, replace(LIMITS.http, wrong_keys_per_minute=6000))


async def real_ids(client: httpx.AsyncClient) -> dict[str, str]:
    """Of a job that ran here and of bytes that were handed in, in place of the page's examples."""
    said = (await client.post("/dim/v1/jobs", json=JOB, params={"wait": 5})).json()
    raw = {"Content-Type": "application/octet-stream"}
    blob = (await client.post("/dim/v1/blobs", content=b"bytes", headers=raw)).json()["blob"]
    return {"job": said["job"], "job_id": said["job"], "verdict": said["verdict"], "blob": blob} | {
        "/dim/v1/jobs/{job}/blobs/{blob}": said["outputs"][0]["blob"]
    }


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, body) of each example of a request; one without a body when it takes none."""
    content = operation.get("requestBody", {}).get("content", {"": {}})
    for kind, said in content.items():
        if kind == "application/octet-stream":
            yield "bytes", b"some bytes"
            return
        for name, example in said.get("examples", {"": {"value": None}}).items():
            yield name, example["value"]


def request(
    client: httpx.AsyncClient, method: str, path: str, operation: dict[str, Any], body: Any, ids: dict[str, str]
) -> httpx.Request:
    """As the page shows it, with ids that are known here."""
    where: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
    for parameter in map(look_up, operation["parameters"]):
        name = parameter["name"]
        if "example" in parameter:
            where["path"][name] = ids.get(path if name == "blob" else "", ids.get(name, parameter["example"]))
        elif parameter["in"] == "query":  # what the page fills into its form
            where["query"][name] = str(parameter["schema"]["default"])
    if isinstance(body, dict) and "blob" in body:
        body = body | {"blob": ids.get("blob", body["blob"])}
    if isinstance(body, dict) and "files" in body:
        body = body | {"files": [file | {"blob": ids.get("blob", file["blob"])} for file in body["files"]]}
    for name, value in where["path"].items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    more: dict[str, Any] = {"params": where["query"], "headers": where["header"]}
    if isinstance(body, bytes):
        more |= {"content": body, "headers": where["header"] | {"Content-Type": "application/octet-stream"}}
    elif body is not None:
        more |= {"json": body}
    return client.build_request(method.upper(), path, **more)


def check(found: httpx.Response, operation: dict[str, Any]) -> None:
    """Status, type, shape and headers are documented."""
    statuses = dict(responses(operation))
    assert str(found.status_code) in statuses, (found.request, found.text)
    said = statuses[str(found.status_code)]
    kind = found.headers["content-type"].partition(";")[0]
    assert kind in said["content"], (found.request, kind)
    if kind == "application/json":
        fit(found.json(), said["content"][kind]["schema"])
    own = {name.title() for name in found.headers if name.startswith(("x-d", "x-request", "retry", "www"))}
    assert own <= {name.title() for name in said["headers"]}, (found.request, own)
