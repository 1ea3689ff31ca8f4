"""A node as a worker for others, from end to end: drain, load, bench, status, the first benchmark in the advert."""

import os

import pytest
from cli_nodes import MODELS, PATIENTS, Nodes, wait_for

from dimnode.cli.node import _executes
from dimnode.config import Config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    started = Nodes(tmp_path_factory.mktemp("labour"))
    yield started
    started.end_all()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The ten measures that triage takes, of all patients."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [line.split(",") for line in PATIENTS.read_text().splitlines()]
    path.write_text("\n".join(",".join(line[1:11]) for line in lines) + "\n")
    return path


def of_alba(brio):
    """How brio sees alba."""
    return next(row for row in brio.dim("peers", "--json").json["peers"] if row["name"] == "alba")


def test_a_node_is_loaded_benched_drained_and_stays_drained_over_a_restart(nodes, rows):
    alba = nodes.start("alba")
    brio = nodes.start("brio", "--no-execute", "--bootstrap", alba.address)
    assert alba.dim("models", "add", MODELS / "triage.toml").code == 0
    assert alba.dim("models", "load", "triage").code == 0
    (worker,) = alba.dim("status", "--json").json["members"]
    assert (worker["model"], worker["state"], worker["runtime"], worker["pinned"]) == ("triage", "idle", "onnx", False)
    assert worker["memory_bytes"] > 1_000_000
    refused = alba.dim("models", "bench", "triage", "--batches", "0")
    assert (refused.code, "E-exec-85" in refused.err) == (4, True)
    bench = alba.dim("models", "bench", "triage", "--batches", "1,4", "--seconds", 0.1, "--json").json
    assert [row["batch"] for row in bench["rows"]] == [1, 4]
    assert all(row["pool"]["p50_ms"] >= row["direct"]["p50_ms"] > 0 for row in bench["rows"])
    assert bench["recommended_batch"] in (1, 4)
    assert bench["cold_ms"] > 0

    wait_for(lambda: brio.dim("run", "triage", rows, "--row", 1).code == 0, "alba's model runs for brio")
    assert of_alba(brio)["jobs_per_second_seen"] >= 1
    assert alba.dim("drain", "--wait").code == 0
    wait_for(lambda: of_alba(brio)["slots"] == 0, "brio hears that alba is drained")
    assert brio.dim("run", "triage", rows, "--row", 1).code != 0
    said = alba.dim("status", "--json").json
    assert (said["draining"], said["slots"]) == (True, 0)
    assert "DRAINING" in alba.dim("status").out

    alba.end()
    alba = nodes.start("alba", "--bootstrap", brio.address)
    assert alba.dim("status", "--json").json["draining"]
    assert alba.dim("drain", "--off").code == 0
    wait_for(lambda: brio.dim("run", "triage", rows, "--row", 1).code == 0, "alba works again")


def test_the_first_start_measures_this_machine_and_later_ones_load_what_the_settings_name(nodes, monkeypatch):
    monkeypatch.setattr("cli_nodes.environment", lambda: {**_plain(), "DIM_BENCHMARK": "true"})
    alba = nodes.start("cora")
    wait_for(lambda: alba.dim("status", "--json").json["benchmark"], "the first benchmark is done")
    found = alba.dim("status", "--json").json["benchmark"]
    assert found["jobs_per_second"] > 0
    brio = nodes.start("dora", "--bootstrap", alba.address)
    said = lambda: [row["jobs_per_second"] for row in brio.dim("peers", "--json").json["peers"]]  # noqa: E731
    wait_for(lambda: said() == [found["jobs_per_second"]], "the advert carries it")
    assert alba.dim("models", "add", MODELS / "triage.toml").code == 0
    alba.end()
    settings = {"DIM_BENCHMARK": "true", "DIM_PREWARM": "triage,nobody-has-this", "DIM_PINNED_MODELS": "triage"}
    monkeypatch.setattr("cli_nodes.environment", lambda: {**_plain(), **settings})
    alba = nodes.start("cora")
    wait_for(lambda: alba.dim("status", "--json").json["benchmark"] == found, "it is measured once")
    warm = lambda: [  # noqa: E731
        (worker["model"], worker["pinned"], worker["state"]) for worker in alba.dim("status", "--json").json["members"]
    ]
    wait_for(lambda: warm() == [("triage", True, "idle")], "loaded before any task")
    costs = lambda: {row["model"]: row for row in alba.dim("status", "--json").json["costs"]}  # noqa: E731
    assert costs()["first-benchmark"]["run_ms_by_rows"], "what was measured before the restart is still expected"
    # The zygote's word on which process it is may come after the worker's that it is ready.
    wait_for(lambda: (costs()["triage"]["memory_bytes"] or 0) > 1_000_000, "the loaded model's memory is known")
    assert "nobody-has-this" in (alba.home / "log").read_text(), "a name that is wrong stops nothing, and is said"


def _plain():
    return {name: value for name, value in os.environ.items() if not name.startswith("DIM_")}


def test_a_device_that_is_not_there_is_what_is_named_when_nothing_can_be_run(nodes, rows, monkeypatch):
    monkeypatch.setattr("cli_nodes.environment", lambda: {**_plain(), "DIM_ONNX_DEVICE": "cuda"})
    node = nodes.start("eva")
    assert node.ready["fault"] == "the configuration asks for the device cuda, and there is cpu"
    found = {row["check"]: row for row in node.dim("doctor", "--json").json["findings"]}
    for check in ("sandbox", "runtimes"):
        assert (found[check]["ok"], found[check]["stops"]) == (False, True)
        assert "asks for the device cuda" in found[check]["detail"]
    assert "onnx_device" in found["runtimes"]["mend"]
    assert node.dim("models", "add", MODELS / "triage.toml").code == 0
    no = node.dim("run", "triage", rows, "--row", 1)
    assert (no.code, "or cannot use it (there: dim doctor)" in no.err) == (4, True)


def test_dim_up_says_why_it_executes_nothing():
    said = "the configuration asks for the device cuda, and there is cpu"
    assert _executes(Config(), "none", said) == f"nothing: {said} (dim doctor)"
