"""What the OpenAPI document allows, and what it forbids, sent by schemathesis: every answer is a documented one."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dimnode.limits import LIMITS
from tests.unit.api.http_stage import Stage, on_stage

pytestmark = pytest.mark.slow

SECONDS = int(os.environ.get("DIM_FUZZ_SECONDS", "10"))
EXAMPLES = int(os.environ.get("DIM_FUZZ_EXAMPLES", "4"))
CONFIG = """
# A list that is too long may be too large first.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 429, 503]
"""
COMMAND = Path(sys.executable).parent / "schemathesis"


def test_schemathesis_finds_nothing_that_the_document_does_not_say(tmp_path: Path) -> None:
    if shutil.which(COMMAND) is None:
        pytest.skip("schemathesis is not installed")

    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")

    async def act(stage: Stage) -> None:
        key = stage.key("admin", open_jobs=10**6, requests_per_minute=10**9)
        done = await trio.run_process(
            [*map(str, arguments(stage.door.url, key))], check=False, capture_stdout=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout.decode()

    on_stage(tmp_path, act, replace(LIMITS.http, wrong_keys_per_minute=10**6), seconds=SECONDS * 4 + 300)


def arguments(url: str, key: str) -> list[object]:
    """A run bounded in time, with every check, that leaves nothing behind."""
    return [
        *(COMMAND, "run", f"{url}/openapi.json", "--no-color", "-H", f"Authorization: Bearer {key}"),
        *("--phases", "examples,coverage,fuzzing", "-n", EXAMPLES, "--max-time", SECONDS, "--request-timeout", 20),
        *("--generation-database", "none", "--continue-on-failure", "--max-failures", 30, "--warnings", "off"),
        # What fits the shape may still not fit the job: a model that is not here, takes other rows, or no text.
        *("--exclude-checks", "positive_data_acceptance"),
    ]
