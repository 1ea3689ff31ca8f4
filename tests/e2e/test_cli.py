"""The command line from end to end: two real nodes, every command, and what goes wrong in daily life."""

import csv
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cli_nodes import (
    ANY_PORT,
    COMMAND_SECONDS_MAX,
    MODELS,
    NO_FEATURES,
    PATIENTS,
    STOP_SECONDS_MAX,
    Nodes,
    dim,
    environment,
    wait_for,
)

pytestmark = pytest.mark.slow
CODE = re.compile(r"error (E-[a-z0-9]+-\d\d): ")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    started = Nodes(tmp_path_factory.mktemp("cli"))
    yield started
    started.end_all()


@pytest.fixture(scope="module")
def pair(nodes):
    """alba holds a model and a cabinet, brio joined through alba and knows of it."""
    alba = nodes.start("alba")
    brio = nodes.start("brio", "--bootstrap", alba.address)
    assert alba.dim("models", "add", MODELS / "triage.toml").code == 0
    typed = ["data", "add", "ward", PATIENTS, "--label", "diagnosis", "--exclude", "patient,seen_in_training"]
    assert alba.dim(*typed, "--allow", "evaluate,statistics", "--any-model").code == 0
    wait_for(lambda: _offered(brio), "brio hears of alba's model and cabinet")
    return alba, brio


def _offered(node):
    rows = node.dim("peers", "--json").json["peers"]
    return any(row["linked"] and row["models"] and row["cabinets"] for row in rows)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The ten measures that triage takes, of all patients."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [line.split(",") for line in PATIENTS.read_text().splitlines()]
    path.write_text("\n".join(",".join(line[1:11]) for line in lines) + "\n")
    return path


@pytest.fixture(scope="module")
def ran(pair, rows, tmp_path_factory):
    """One run on brio, executed by alba: what was said, the document, the receipt."""
    receipt = tmp_path_factory.mktemp("receipts") / "run.dimr"
    said = pair[1].dim("run", "triage", rows, "--row", 1, "--row", 20, "--receipt", receipt, "--json")
    assert said.code == 0, said.err
    return said, said.json, receipt


def refused(said, exit_code, code=None):
    """Three lines at most, a documented code, nothing on stdout."""
    lines = [line for line in said.err.splitlines() if line.startswith(("error", "cause", "hint"))]
    assert said.code == exit_code, said
    found = CODE.match(lines[0])
    assert found, lines
    assert code in (None, found[1])
    assert 1 <= len(lines) <= 3
    assert "Traceback" not in said.err


def test_a_run_is_executed_elsewhere_and_its_answer_has_names(ran):
    said, document, _ = ran
    assert "at alba (the only one that offers it)" in said.err
    assert document["status"] == "ok"
    assert document["verified"] is True
    assert document["predicted"] == ["suspicious", "clear"]
    assert len(document["answer"]["probabilities"]) == 2


def test_the_receipt_of_a_run_verifies_with_nothing_but_the_file(ran):
    assert dim("verify", ran[2]).code == 0
    assert "onnx" in dim("receipt", "show", ran[2]).out


def test_a_run_for_people_shows_labels_as_a_table(pair, rows):
    said = pair[1].dim("run", "triage:1.0.0", rows, "--row", 20)
    assert said.code == 0
    header, line = said.out.splitlines()
    assert header.split() == ["row", "label", "p(clear)", "p(suspicious)"]
    assert line.split()[:2] == ["20", "clear"]


def test_a_table_that_has_more_than_the_model_reads_is_read_by_the_names_of_its_manifest(pair):
    said = pair[1].dim("run", "triage", PATIENTS, "--row", 7)
    assert (said.code, "columns as the model names them: 10 of 33" in said.err) == (0, True), said


def test_rows_from_stdin_and_columns_by_name_give_the_same_answer(pair, rows, ran):
    by_stdin = pair[1].dim("run", "triage", "-", "--row", 1, "--row", 20, "--json", stdin=rows.read_text())
    measures = rows.read_text().splitlines()[0]
    by_name = pair[1].dim("run", "triage", PATIENTS, "--columns", measures, "--row", 1, "--row", 20, "--json")
    assert by_stdin.json["answer"] == by_name.json["answer"] == ran[1]["answer"]


def test_the_job_can_be_looked_at_afterwards(pair, ran):
    brio, (_, document, _) = pair[1], ran
    last = document["job"][-8:]
    assert document["job"] in [row["job"] for row in brio.dim("job", "ls", "--json").json["jobs"]]
    assert last in brio.dim("job", "ls").out
    shown = brio.dim("job", "show", last, "--json").json
    assert [row["kind"] for row in shown["records"]] == ["spec", "lease", "answer", "verdict"]
    assert "answer" in brio.dim("job", "show", last).out
    events = [row["what"] for row in brio.dim("job", "events", last, "--json").json["events"]]
    assert [what for what in events if what != "accepted"] == ["submitted", "leased", "answered", "ok"]
    followed = brio.dim("job", "events", last, "--follow")
    assert (followed.code, len(followed.out.splitlines())) == (0, len(events))
    assert brio.dim("job", "result", last, "--json").json["answer"] == document["answer"]
    refused(brio.dim("job", "cancel", last), 4)


def test_a_collaborative_job_file_counts_without_moving_rows(pair, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        "pattern: collaborative\nlabel: sensitivity of triage\n"
        "tasks:\n  - {model: triage, op: statistics, cabinet: ward}\nrule: {method: federated_average}\n"
    )
    planned = pair[1].dim("job", "validate", job)
    assert planned.code == 0, planned
    assert "on cabinet ward" in planned.out


def test_means_of_a_cabinet_are_shown_with_its_columns(pair, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        "pattern: collaborative\ntasks:\n  - {op: statistics, cabinet: ward}\nrule: {method: federated_average}\n"
    )
    with PATIENTS.open(newline="") as file:
        header = next(csv.reader(file))
    columns = [column for column in header if column not in ("diagnosis", "patient", "seen_in_training")]
    for node in pair:  # whose cabinet it is, and who heard of it
        document = node.dim("job", "run", job, "--json").json
        assert document["columns"] == columns and len(document["answer"]["mean"]) == len(columns)
    lines = pair[1].dim("job", "run", job).out.splitlines()
    assert lines[0].split() == ["column", "mean"]
    assert [line.rsplit(maxsplit=1)[0].strip() for line in lines[1:]] == columns


def test_a_detached_job_is_found_by_its_id(pair, rows):
    job = rows.with_name("job.yaml")  # a job file names files of its own folder
    job.write_text(f"tasks: [{{model: triage}}]\ninput: {{file: {rows.name}, rows: [3]}}\n")
    detached = pair[1].dim("job", "run", job, "--detach")
    identity = detached.out.strip()
    assert pair[1].dim("job", "events", identity, "--follow").code == 0
    assert pair[1].dim("job", "result", identity).code == 0


def test_standing_status_peers_and_doctor_have_something_to_say(pair, ran):
    alba, brio = pair
    assert "infer/onnx" in brio.dim("rep", "ls").out
    assert alba.ready["peer"] in brio.dim("rep", "explain", "alba").out
    assert brio.dim("status", "--json").json["peers_linked"] == 1
    assert "alba" in brio.dim("peers").out
    assert "✓ sandbox" in brio.dim("doctor").out
    assert brio.dim("connect", alba.address).out.strip() == alba.ready["peer"]
    assert "triage:1.0.0" in brio.dim("models", "ls").out
    assert "ward" in alba.dim("data", "ls").out


@pytest.mark.parametrize(
    ("typed", "exit_code", "code"),
    [
        (["run", "nosuch", PATIENTS], 4, "E-models-01"),
        (["run", "triage", PATIENTS, "--drop", f"{NO_FEATURES},mean_radius"], 4, "E-input-06"),
        (["run", "triage", "nowhere.csv"], 2, "E-cli-41"),
        (["run", "triage", PATIENTS, "--peer", "zorro"], 4, None),
        (["rep", "explain", "zorro"], 4, "E-peers-01"),
        (["job", "show", "zorro"], 4, "E-job-13"),
        (["connect", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWLLbi6VRVecvjDwnSx4KczJAtFjLG6L1orY19UdWc1Vh7"], 4, "E-p2p-01"),
        (["connect", "nonsense"], 4, "E-p2p-01"),
        (["connect", "/ip4/127.0.0.1/tcp/1"], 4, "E-p2p-01"),
        (["models", "add", "/nowhere.onnx"], 2, "E-models-05"),
        (["data", "add", "w", "/nowhere.csv", "--allow", "statistics"], 4, "E-data-01"),
        (["data", "add", "w", PATIENTS, "--allow", "evaluate", "--any-model"], 4, "E-data-04"),
        (["data", "add", "w", PATIENTS, "--allow", "evaluate", "--label", "diagnosis"], 2, "E-cli-35"),
        (["data", "add", "w", PATIENTS, "--allow", "statistics", "--where", "nosuch"], 4, "E-data-02"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_goes_wrong_is_three_lines_with_a_code(pair, typed, exit_code, code):
    refused(pair[1].dim(*typed), exit_code, code)


@pytest.mark.parametrize(
    ("text", "exit_code", "code"),
    [
        ("tasks: [{model: triage]\n", 2, "E-cli-40"),
        ("pattern: circular\ntasks: [{model: triage}]\n", 4, "E-job-01"),
        ("tasks: [{model: triage}]\ninput: {x: [[1, 2], [3]]}\n", 4, "E-input-01"),
        ("tasks: [{model: triage}]\ninput: {x: [[.nan]]}\n", 4, "E-input-02"),
        ("tasks: [{model: triage}]\n", 4, "E-input-04"),
        ("tasks: [{model: triage}]\ntier: fingerprint\ninput: {x: [[1]]}\n", 4, "E-tier-01"),
    ],
)
def test_a_job_file_that_cannot_run_says_why(pair, tmp_path, text, exit_code, code):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    refused(pair[1].dim("job", "run", path), exit_code, code)


def test_too_few_peers_for_a_quorum_is_refused(pair, rows):
    refused(pair[1].dim("run", "triage", rows, "--row", 1, "--tier", "quorum"), 4, "E-jobs-03")


def test_an_input_that_does_not_fit_the_manifest_is_refused_before_anything_is_sent(pair, rows, tmp_path):
    refused(pair[1].dim("run", "triage", rows, "--row", 1, "--take", "x=x[0:3]"), 4, "E-input-06")
    (tmp_path / "named.json").write_text('{"x": [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], "y": [[1]]}')
    said = pair[1].dim("run", "triage", tmp_path / "named.json")
    refused(said, 4, "E-input-07")
    assert "'y' is no input of any model" in said.err


def test_a_second_node_on_one_directory_is_refused(pair):
    refused(dim("up", "--home", pair[0].home, "--listen", ANY_PORT), 2, "E-store-02")


def test_a_taken_port_is_refused_in_one_paragraph(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = dim("up", "--home", tmp_path / "h", "--listen", f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}")
    assert said.code == 2
    assert len(said.err.replace("starting …\n", "").splitlines()) == 3
    assert "cannot listen on" in said.err
    assert "Traceback" not in said.err


def test_an_unreachable_bootstrap_does_not_stop_a_node_and_the_doctor_names_it(nodes, pair):
    nowhere = pair[0].address.replace(pair[0].address.split("/")[4], "1")
    lone = nodes.start("lone", "--bootstrap", nowhere, "--no-execute")
    try:
        wait_for(lambda: "✗ bootstrap" in lone.dim("doctor").out, "the doctor names the bootstrap node")
        said = lone.dim("doctor")
        assert said.code == 1
        assert "mend:" in said.out
    finally:
        assert lone.end() == 0


def test_what_a_node_says_to_a_person_is_enough_to_join_it_and_ctrl_c_stops_it(nodes):
    node = nodes.launch("talker")
    assert node.process.stdout is not None
    lines = [node.process.stdout.readline()]
    while "control" not in lines[-1]:
        lines.append(node.process.stdout.readline())
        assert lines[-1], (node.home / "log").read_text()
    said = "".join(lines)
    join = re.search(r"join with +(dim up --bootstrap \S+/p2p/12D3KooW\w+)", said)
    assert join, said
    assert "executes" in said
    assert "✓ peers" in node.dim("doctor").out, "the first node of a swarm is alone, and that is no mistake"
    assert node.end(signal.SIGINT) == 0
    assert "stopped" in (node.home / "log").read_text()


def test_dim_stop_returns_when_the_node_is_gone(nodes):
    node = nodes.start("brief", "--no-execute")
    assert node.dim("stop").code == 0
    assert node.process.wait(STOP_SECONDS_MAX) == 0
    refused(node.dim("status"), 5, "E-cli-01")


def test_commands_whose_node_is_stopped_by_a_signal_say_so_and_it_goes_on_afterwards(nodes):
    frozen = nodes.start("frozen")
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as threads:
            said = list(threads.map(lambda words: frozen.dim(*words), [["status"], ["peers", "--watch"], ["doctor"]]))
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    for each in said:
        refused(each, 5, "E-cli-07")
    assert frozen.dim("status").code == 0


def test_the_python_client_runs_a_job_on_a_real_node(pair, rows, tmp_path):
    program = (
        "import sys, json\nfrom pathlib import Path\nfrom dimnode import Client\n"
        "from dimnode.client import read_output, tensor_rows\n"
        "with Client(Path(sys.argv[1])) as node:\n"
        "    jobs = [({'tasks': [{'model': 'triage'}]}, [tensor_rows([[float(n)] * 10])]) for n in range(100)]\n"
        "    ended = list(node.run_many(jobs, 32))\n"
        "    print(json.dumps([end.status for end in ended]))\n"
        "    print(len(node.run(*jobs[0]).receipt))\n"
    )
    command = [sys.executable, "-c", program, str(pair[1].home)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, env=environment(), check=True
    )
    statuses, receipt_bytes = done.stdout.splitlines()
    assert json.loads(statuses) == ["ok"] * 100
    assert int(receipt_bytes) > 1000
