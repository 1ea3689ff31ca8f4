"""Random and nearly right requests to every route: an answer in the one shape, never a 500, and the door stays open."""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from dimnode.records.ids import RECORD_PREFIX, cid_text
from tests.unit.api.http_stage import JOB, Stage, on_stage

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("DIM_FUZZ_REQUESTS", "1500"))
AT_ONCE = 8
POSTS = (
    "/dim/v1/jobs",
    "/dim/v1/jobs/validate",
    "/dim/v1/models",
    "/dim/v1/blobs",
    "/api/inference/submit",
    "/v1/embeddings",
)
GETS = (
    "/dim/v1/jobs",
    "/dim/v1/jobs/{}",
    "/dim/v1/jobs/{}/events",
    "/dim/v1/jobs/{}/receipt",
    "/dim/v1/jobs/{}/blobs/{}",
    "/dim/v1/receipts/{}",
    "/dim/v1/blobs/{}",
    "/dim/v1/models/{}",
    "/v1/models/{}",
    "/api/inference/status/{}",
    "/api/inference/result/{}",
    "/{}",
)
SCALARS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    1e308,
    "",
    "x",
    "\ud7ff\uffff",
    "../../etc/passwd",
    "\x00",
    [],
    {},
    "9" * 400,
)
CLASSIC = {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": [[1.0, 2.0]]}
TEXT = {"model": "triage", "input": ["a"]}


def test_no_request_however_strange_is_a_500(tmp_path: Path) -> None:
    seed = int(os.environ.get("DIM_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"seed {seed}: {REQUESTS} requests")
    seen: Counter[int] = Counter()

    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin", open_jobs=10**6, requests_per_minute=10**9)) as client:

            async def some(number: int) -> None:
                chance = random.Random(seed * 1000 + number)
                for _ in range(REQUESTS // AT_ONCE):
                    found = await client.send(strange(chance, client))
                    seen[found.status_code] += 1
                    assert found.status_code < 500 or found.status_code == 503, (found.request, found.text)
                    if found.status_code >= 400:
                        assert found.json()["error"].keys() == {"message", "type", "param", "code", "hint"}

            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(some, number)
            assert (await client.post("/dim/v1/jobs", json=JOB)).status_code in (200, 202)

    on_stage(tmp_path, act, seconds=REQUESTS / 5)
    assert seen[400] > REQUESTS / 20
    assert seen[200] + seen[202] > 0


def strange(chance: random.Random, client: httpx.AsyncClient) -> httpx.Request:
    """A request that some client with a bug, or a grudge, might send."""
    if chance.random() < 0.3:
        names = [word(chance) for _ in range(2)]
        query = {word(chance): word(chance), chance.choice(("wait", "after", "most", "before_ms")): word(chance)}
        return client.build_request("GET", chance.choice(GETS).format(*names), params=query)
    kinds = ("application/json", "application/json", "application/json", "application/octet-stream", "text/html")
    headers = {"Content-Type": chance.choice(kinds), "Idempotency-Key": chance.choice(("", "a", "b" * 300))}
    return client.build_request("POST", chance.choice(POSTS), content=body(chance), headers=headers)


def word(chance: random.Random) -> str:
    """A path or query part."""
    real = cid_text(RECORD_PREFIX + bytes(32))
    return chance.choice((real, "..%2f", "%00", "x" * 300, "-1", "1e9", "nan", "é", "dim", real[:-1], "%ff%fe", "?"))


def body(chance: random.Random) -> bytes:
    """Bytes, JSON, or a right body with one thing wrong."""
    kind = chance.random()
    if kind < 0.1:
        return chance.randbytes(chance.randrange(200))
    if kind < 0.2:
        return b"[" * chance.randrange(3000)
    whole = json.loads(json.dumps(chance.choice((JOB, CLASSIC, TEXT))))
    for _ in range(chance.randrange(3)):
        spoil(chance, whole)
    return json.dumps(whole).encode()


def spoil(chance: random.Random, found: Any) -> None:
    """Change something, somewhere inside."""
    if isinstance(found, dict) and found:
        key = chance.choice(list(found))
        if chance.random() < 0.4 and isinstance(found[key], dict | list):
            spoil(chance, found[key])
        elif chance.random() < 0.3:
            found[chance.choice(("x", "model", "tier", "quorum", "where", "rule", "comparator"))] = chance.choice(
                SCALARS
            )
        else:
            found[key] = chance.choice(SCALARS)
    elif isinstance(found, list) and found:
        found[chance.randrange(len(found))] = chance.choice(SCALARS)
