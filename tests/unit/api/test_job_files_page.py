"""Every example of docs/job-files.md is a job that a node takes, and the page names every key."""

import hashlib
from pathlib import Path

import msgspec
import pytest
import yaml

from dimnode.api.jobfile import ConditionEntry, JobFile, TakeEntry, TaskEntry, compile_job, read_job
from dimnode.demo.assets_index import read_model_card
from dimnode.jobs.intake import spec_problem
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId
from dimnode.records.kinds import OPEN_SWARM_ID, check_schema, compose, open_record

PAGE = (Path(__file__).parents[3] / "docs" / "job-files.md").read_text(encoding="utf-8")
EXAMPLES = [part.split("```", 1)[0] for part in PAGE.split("```yaml\n")[1:]]
KEY = SigningKey.from_seed(b"p" * 32)
ROWS = [[0.5] * 30]


class Names:
    """Knows the shipped models, and every peer by whatever name."""

    def find_model(self, name: str) -> Record:
        card = read_model_card(name)
        body = {
            "name": name,
            "version": "1",
            "format": "onnx",
            "files": [["m.onnx", b"\x01\x55\x12\x20" + bytes(32), 1]],
            "inputs": [[entry.name, entry.dtype, list(entry.shape)] for entry in card.inputs],
            "outputs": [[entry.name, entry.dtype, list(entry.shape)] for entry in card.outputs],
            "labels": [],
            "licence": "",
            "origin": "trained",
            "access": "public",
        }
        _, payload = compose("manifest", {"net": OPEN_SWARM_ID, "by": KEY.peer, "at_ms": 0}, body)
        return open_record(seal(KEY, "manifest", payload))

    def find_peer(self, name: str) -> PeerId:
        return SigningKey.from_seed(hashlib.sha256(name.encode()).digest()).peer


def job_of(example: str) -> dict:
    """The example as the command line sends it: a file has become rows."""
    job = yaml.safe_load(example)
    if "file" in job.get("input", {}):
        job["input"] = {"x": ROWS}
    return job


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_page_is_a_job_that_a_node_takes(example):
    compiled = compile_job(read_job(job_of(example)), Names())
    spec = {
        "v": 1,
        "kind": "spec",
        "net": OPEN_SWARM_ID,
        "by": KEY.peer,
        "at_ms": 0,
        "nonce": bytes(16),
        **compiled.body,
        "inputs": [bytes(32)] * len(compiled.inputs),
    }
    check_schema("spec", spec)
    assert spec_problem(spec, LIMITS) == ""


def test_the_page_names_every_key():
    for struct in (JobFile, TaskEntry, TakeEntry, ConditionEntry):
        for field in msgspec.structs.fields(struct):
            assert f"`{field.encode_name}`" in PAGE or f"{field.encode_name}:" in PAGE, field.encode_name


def test_the_page_has_an_example_of_each_pattern():
    assert {read_job(job_of(example)).pattern for example in EXAMPLES} == {"chained", "comparative", "collaborative"}
