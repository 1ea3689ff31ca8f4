"""Running jobs and looking at them, against a node that says what the test wants."""

import json
import os
import signal
import subprocess
import sys

import pytest
from fake_node import GOLDEN, FakeNode, refusal

from dimnode.client import read_output
from dimnode.records.ids import cid_text, short
from dimnode.records.receipt import parse_receipt

RECEIPT = (GOLDEN / "plain.dimr").read_bytes()
PARSED = parse_receipt(RECEIPT)
VERDICT = PARSED.records[PARSED.root]
SPEC = PARSED.records[VERDICT.payload["job"]]
INPUT = PARSED.blobs[PARSED.openings[SPEC.payload["inputs"][0]].cid]
OUTPUT = PARSED.blobs[PARSED.openings[VERDICT.payload["outputs"][0]].cid]
MODEL = {
    "model": "m",
    "name": "triage:1",
    "publisher": "p",
    "inputs": [["x", "float32", [-1]]],
    "outputs": [],
    "labels": [],
    "here": False,
    "peers": ["alba"],
}
STEP = {"op": "infer", "model": "triage:1", "cabinet": "", "peers": ["alba", "brio"]}
PLAN = {
    "pattern": "chained",
    "tier": "signed",
    "cost_factor": 1.0,
    "residual_risk": "one executor that answers wrongly is not caught",
    "steps": [STEP],
    "runnable": True,
}
EVENT = {"at_ms": 1, "job": SPEC.id, "what": "submitted", "task": 0, "epoch": 0, "peer": None, "text": ""}


def ended(**more):
    words = {"job": SPEC.id, "status": "ok", "verdict": VERDICT.id, "outputs": [OUTPUT], "receipt": RECEIPT}
    return {"result": {**words, **more}}


def node(tmp_path, **answers):
    usual = {
        "models__ls": {"result": {"models": [MODEL]}},
        "job__validate": {"result": PLAN},
        "job__submit": ended(),
        "peers": {"result": {"peers": []}},
        "status": {"result": {"peer": "12D3KooWxxxxxxxx"}},
    }
    return FakeNode(tmp_path, **{**usual, **answers})


@pytest.fixture
def rows(tmp_path):
    """The golden job's input, as a person would write it."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(read_output(INPUT)))
    return path


def test_a_run_says_where_and_at_what_risk_then_the_answer_then_the_receipt(dim, tmp_path, rows):
    with node(tmp_path) as fake:
        said = dim("run", "triage", rows)
    assert said.code == 0, said.err
    assert "step 1  infer triage:1  at alba, brio (chosen by standing, speed and load)" in said.err
    assert "one executor that answers wrongly is not caught" in said.err
    path = tmp_path / "receipts" / f"{short(SPEC.id)}.dimr"
    assert said.err.rstrip().endswith(f"receipt {path}  verified")
    assert said.out
    assert path.read_bytes() == RECEIPT
    assert path.stat().st_mode & 0o777 == 0o600
    [request] = fake.asked("job.submit")
    assert request["blobs"] == [INPUT]
    assert request["job"] == {"pattern": "chained", "tasks": [{"model": "triage"}], "tier": "signed"}


def test_a_run_with_json_is_one_document(dim, tmp_path, rows):
    with node(tmp_path):
        said = dim("run", "triage", rows, "--json")
    document = json.loads(said.out)
    assert document["job"] == cid_text(SPEC.id)
    assert document["verified"] is True
    assert document["answer"] == read_output(OUTPUT)


def test_the_flags_of_a_run_mean_a_job(dim, tmp_path, rows):
    with node(tmp_path) as fake:
        dim("run", "triage", rows, "--tier", "quorum", "--n", 5, "--k", 3, "--peer", "alba", "--timeout", 9)
    job = fake.asked("job.submit")[0]["job"]
    assert job == {
        "pattern": "chained",
        "tasks": [{"model": "triage", "peer": "alba"}],
        "tier": "quorum",
        "quorum": {"n": 5, "k": 3},
        "deadline_seconds": 9.0,
    }


@pytest.mark.parametrize(
    ("typed", "quorum"), [(["--n", 0], {"n": 0, "k": 2}), (["--k", 0, "--n", 3], {"n": 3, "k": 0})]
)
def test_no_peers_are_a_number_too_and_the_nodes_to_refuse(dim, tmp_path, rows, typed, quorum):
    with node(tmp_path, job__validate=refusal("E-tier-02", "no such quorum")) as fake:
        said = dim("run", "triage", rows, *typed)
    assert (said.code, fake.asked("job.validate")[0]["job"]["quorum"]) == (4, quorum)


def test_no_rows_per_job_are_refused_and_not_taken_for_the_usual(dim, tmp_path, rows):
    with node(tmp_path) as fake:
        said = dim("run", "triage", rows, "--batch", "--rows-per-job", 0)
    assert (said.code, said.err.split(":")[0]) == (2, "error E-cli-44")
    assert not fake.asked("job.submit")


def test_who_waits_no_longer_is_told_how_long_it_was(dim, tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"tasks": [{"model": "triage"}], "input": {"x": [1]}}')
    with node(tmp_path, job__submit={"events": [EVENT]}):
        said = dim("job", "run", path, "--timeout", "0.05")
    assert said.code == 1
    assert "error E-cli-03: no verdict within 0.05 s" in said.err


def test_a_mapping_is_written_as_name_and_tensor(dim, tmp_path, rows):
    with node(tmp_path) as fake:
        dim("run", "triage", rows, "--take", "x=x[0:2]", "--take", "y=z")
    take = fake.asked("job.submit")[0]["job"]["tasks"][0]["take"]
    assert take == [
        {"name": "x", "from": "input", "tensor": "x", "columns": [0, 2]},
        {"name": "y", "from": "input", "tensor": "z"},
    ]


@pytest.mark.parametrize(("typed", "code"), [(["--n", "3", "--tier", "signed"], 2), (["--take", "x"], 2)])
def test_flags_that_mean_nothing_are_a_usage_error(dim, tmp_path, rows, typed, code):
    with node(tmp_path) as fake:
        said = dim("run", "triage", rows, *typed)
    assert (said.code, said.err.split(":")[0]) == (code, "error E-cli-44")
    assert not fake.asked("job.submit")


def test_an_answer_whose_receipt_does_not_verify_is_not_shown(dim, tmp_path, rows):
    broken = bytearray(RECEIPT)
    broken[len(broken) // 2] ^= 1
    with node(tmp_path, job__submit=ended(receipt=bytes(broken))):
        said = dim("run", "triage", rows)
    assert (said.code, said.out) == (1, "")
    assert "error E-cli-50" in said.err


@pytest.mark.parametrize("other", [{"outputs": [INPUT]}, {"verdict": bytes(37)}, {"job": VERDICT.id}])
def test_an_answer_that_its_receipt_is_not_about_is_not_shown(dim, tmp_path, rows, other):
    with node(tmp_path, job__submit=ended(**other)):
        said = dim("run", "triage", rows)
    assert (said.code, said.out) == (1, "")
    assert "error E-cli-50" in said.err


def test_a_receipt_about_another_input_is_not_believed(dim, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[123.0]")
    with node(tmp_path):
        said = dim("run", "triage", path)
    assert (said.code, said.out) == (1, "")


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("expired", 1), ("refused", 4)])
def test_a_job_that_did_not_end_well_says_why(dim, tmp_path, rows, status, code):
    failed = ended(status=status, code="E-cabinet-06", reason="too few rows")
    with node(tmp_path, job__submit=failed):
        said = dim("run", "triage", rows)
    assert said.code == code
    assert "error E-cabinet-06" in said.err
    assert "too few rows" in said.err
    assert f"hint: dim job show {short(SPEC.id)}" in said.err


def test_an_unknown_model_is_refused_in_three_lines(dim, tmp_path, rows):
    with node(tmp_path, models__show=refusal("E-models-01", "unknown model 'x'")):
        said = dim("run", "x", rows)
    assert said.code == 4
    assert len(said.err.splitlines()) == 3


def test_a_model_name_that_is_nearly_right_is_answered_with_the_right_one(dim, tmp_path, rows):
    with node(tmp_path, models__show=refusal("E-models-01", "unknown model 'triag'")):
        assert "did you mean triage?" in dim("run", "triag", rows).err


def test_a_model_that_nobody_offers_is_named_before_its_input_is_read(dim, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no table, a, b\n\nat all\n", encoding="utf-8")
    gone = {"result": {**MODEL, "withdrawn": "it was wrong"}}
    for shown, code in ((refusal("E-models-01", "unknown model 'triage'"), "E-models-01"), (gone, "E-models-24")):
        with node(tmp_path, models__ls={"result": {"models": []}}, models__show=shown) as fake:
            typed = dim("run", "triage", page)
        assert typed.code == 4 and typed.err.startswith(f"error {code}: ")
        assert not fake.asked("job.submit")


def test_a_withdrawn_model_is_refused_with_the_one_to_take_instead(dim, tmp_path, rows):
    gone = {"result": {**MODEL, "withdrawn": "it was wrong", "replacement": "triage:2"}}
    with node(tmp_path, models__ls={"result": {"models": []}}, models__show=gone):
        assert "take triage:2: dim models show" in dim("run", "triage", rows).err


@pytest.mark.parametrize(("words", "told"), [(33, ""), (41, "a text has 41 words, and the model reads 40 tokens")])
def test_a_text_beyond_what_the_model_reads_is_said_to_be_cut(dim, tmp_path, words, told):
    row = {**MODEL, "takes": [{"name": "text", "kind": "text", "columns": [], "dtype": "", "shape": []}]}
    pre = [{"op": "input", "name": "text", "kind": "text"}, {"op": "tokenise", "max_tokens": 40}]
    shown = {"result": {**row, "pre": pre, "withdrawn": None}}
    with node(tmp_path, models__ls={"result": {"models": [row]}}, models__show=shown):
        said = dim("run", "triage", "short", " ".join(["word"] * words))
    assert told in said.err
    assert ("cut off" in said.err) is bool(told) and "E-cli-99" not in said.err


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_batch_takes_a_text_that_is_too_long_for_a_files_name(dim, tmp_path, kind):
    takes = [{"name": "given", "kind": kind, "columns": [], "dtype": "", "shape": []}]
    row = {**MODEL, "takes": takes, "texts": [], "publisher_name": "", "mine": False}
    with node(tmp_path, models__ls={"result": {"models": [row]}}, job__submit=refusal("E-job-02", "no")) as fake:
        said = dim("run", "triage", "word " * 200, "another text", "--batch")
    assert said.code == 1 and "E-cli-99" not in said.err
    assert bool(fake.asked("job.submit")) is (kind == "text")


def test_a_receipt_that_cannot_be_written_does_not_cost_the_answer(dim, tmp_path, rows):
    with node(tmp_path):
        said = dim("run", "triage", rows, "--receipt", "/proc/nowhere/r.dimr")
    assert said.code == 1
    assert "error E-cli-45: cannot write the receipt /proc/nowhere/r.dimr\ncause: " in said.err
    assert f"hint: dim job result {short(SPEC.id)} --receipt PATH" in said.err
    assert said.err.rstrip().endswith("receipt verified, not written")
    assert said.out


def test_a_job_file_finds_its_rows_beside_itself(dim, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "rows.json").write_text(json.dumps(read_output(INPUT)))
    path = tmp_path / "inner" / "job.yaml"
    path.write_text("pattern: chained\ntasks:\n  - model: triage\ninput: {file: rows.json}\n")
    with node(tmp_path) as fake:
        said = dim("job", "run", path)
    assert said.code == 0, said.err
    [request] = fake.asked("job.submit")
    assert (request["blobs"], request["job"]) == ([INPUT], {"pattern": "chained", "tasks": [{"model": "triage"}]})


@pytest.mark.parametrize(
    "named", ["../secret.json", "{folder}/secret.json", "~/secret.json", "link.json", "a/../../secret.json"]
)
def test_a_job_file_sends_nothing_from_outside_its_folder(dim, tmp_path, monkeypatch, named):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "inner" / "a").mkdir(parents=True)
    (tmp_path / "secret.json").write_text(json.dumps(read_output(INPUT)))
    (tmp_path / "inner" / "link.json").symlink_to(tmp_path / "secret.json")
    path = tmp_path / "inner" / "job.yaml"
    path.write_text(f"tasks:\n  - model: triage\ninput: {{file: {named.format(folder=tmp_path)}}}\n")
    with node(tmp_path) as fake:
        said = dim("job", "run", path)
    assert said.code != 0 and not fake.asked("job.submit")
    # A name with ~ is a name like any other: there is no such file in the folder.
    assert ("E-cli-41" if named.startswith("~") else "E-cli-48") in said.err


def test_a_detached_job_prints_its_id_and_does_not_wait(dim, tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"tasks": [{"model": "triage"}], "input": {"x": [1]}}')
    with node(tmp_path, job__submit={"result": {"job": SPEC.id, "status": "submitted"}}) as fake:
        said = dim("job", "run", path, "--detach")
    assert (said.code, said.out) == (0, cid_text(SPEC.id) + "\n")
    assert fake.asked("job.submit")[0]["wait"] is False


@pytest.mark.parametrize(("wanted", "code"), [(2, 0), (3, 4)])
def test_a_dry_run_counts_the_peers_that_a_quorum_needs(dim, tmp_path, wanted, code):
    path = tmp_path / "job.yaml"
    path.write_text(f"tasks: [{{model: triage}}]\ntier: quorum\nquorum: {{n: {wanted}, k: 2}}\n")
    with node(tmp_path):
        said = dim("job", "validate", path)
        document = json.loads(dim("job", "validate", path, "--json").out)
    assert said.code == code
    assert document["runnable"] is (code == 0)
    assert ("TOO FEW" in said.out) is (code == 4)


def test_the_list_of_jobs_is_a_table(dim, tmp_path):
    job = {"job": cid_text(SPEC.id), "label": "", "pattern": "chained", "tier": "signed", "at_ms": 1, "status": "ok"}
    with node(tmp_path, job__ls={"result": {"jobs": [job]}}):
        said = dim("job", "ls")
    assert said.out.splitlines()[1].startswith(short(SPEC.id))


def test_events_are_followed_to_the_end_and_none_is_told_twice(dim, tmp_path):
    shown = {"job": cid_text(SPEC.id), "records": [], "end": {"status": "ok"}, "frames_in": [], "frames_out": []}
    past = {**EVENT, "job": cid_text(SPEC.id), "peer": ""}
    live = {"events": [EVENT, {**EVENT, "at_ms": 2, "what": "ok"}], "result": {"ended": True}}
    answers = {"job__show": {"result": shown}, "job__events": {"result": {"events": [past]}}, "job__watch": live}
    with node(tmp_path, **answers):
        said = dim("job", "events", "x", "--follow")
    assert [line.split("  ")[1] for line in said.out.splitlines()] == ["submitted", "ok"]


def test_a_result_is_verified_again(dim, tmp_path):
    result = {key: value for key, value in ended()["result"].items() if key != "receipt"}
    answers = {"job__result": {"result": result}, "job__receipt": {"result": {"receipt": RECEIPT}}}
    with node(tmp_path, **answers):
        assert dim("job", "result", "x").code == 0
    with node(tmp_path, **{**answers, "job__receipt": {"result": {"receipt": b"junk"}}}):
        said = dim("job", "result", "x")
    assert (said.code, said.out) == (1, "")


def test_cancelling_what_is_over_is_refused(dim, tmp_path):
    with node(tmp_path, job__cancel={"result": {"job": "x", "cancelling": False}}):
        assert dim("job", "cancel", "x").code == 4


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_not_the_job(tmp_path, rows):
    with node(tmp_path, job__submit={"events": [EVENT]}) as fake:
        command = [sys.executable, "-m", "dimnode.cli.main", "run", "triage", str(rows), "--home", str(tmp_path)]
        # In a group of its own, so that the signal is for it alone.
        typed = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert typed.stderr is not None
            lines = [os.fsdecode(typed.stderr.readline())]
            while "submitted" not in lines[-1]:  # the first event, told after a second of quiet
                lines.append(os.fsdecode(typed.stderr.readline()))
                assert lines[-1], lines
            typed.send_signal(signal.SIGINT)
            out, err = typed.communicate(timeout=120)
        finally:
            if typed.poll() is None:
                typed.kill()
                typed.wait()
        assert (typed.returncode, out) == (130, b"")
        assert b"goes on without you" in err
        assert f"dim job show --home {tmp_path} {short(SPEC.id)}".encode() in err
        assert not fake.asked("job.cancel")


def test_an_answer_that_made_room_is_said_to_be_gone_and_its_receipt_is_kept(dim, tmp_path):
    from dimnode.audit.redact import redact

    answers = {"job__result": refusal("E-job-15", "the answer is no longer here")}
    answers["job__receipt"] = {"result": {"receipt": redact(RECEIPT)}}
    with node(tmp_path, **answers):
        said = dim("job", "result", "abcdef")
    assert (said.code, said.out) == (3, "")
    assert "error E-job-15: the answer is no longer here" in said.err
    path = tmp_path / "receipts" / f"{short(SPEC.id)}.dimr"
    assert said.err.rstrip().endswith(f"receipt {path}  authentic, without inputs and answer")
    assert path.read_bytes() == redact(RECEIPT)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_receipt_without_its_answer_that_cannot_be_written_is_not_said_to_be_there(dim, tmp_path, flags):
    answers = {"job__result": refusal("E-job-15", "gone"), "job__receipt": {"result": {"receipt": RECEIPT}}}
    with node(tmp_path, **answers):
        said = dim("job", "result", "abcdef", "--receipt", "/proc/nowhere/r.dimr", *flags)
    assert said.code == 1
    assert "error E-cli-45: cannot write the receipt /proc/nowhere/r.dimr" in said.err
    assert "there already" not in said.err and said.err.rstrip().endswith("not written")
    assert not flags or json.loads(said.out)["receipt"] is None


def test_a_receipt_that_was_written_in_time_is_not_replaced_by_one_without_its_answer(dim, tmp_path):
    path = tmp_path / "receipts" / f"{short(SPEC.id)}.dimr"
    path.parent.mkdir()
    path.write_bytes(RECEIPT)
    answers = {"job__result": refusal("E-job-15", "gone"), "job__receipt": {"result": {"receipt": RECEIPT}}}
    with node(tmp_path, **answers):
        assert dim("job", "result", "abcdef").code == 3
    assert path.read_bytes() == RECEIPT


def test_a_run_says_whose_model_a_name_became_when_several_peers_publish_it(dim, tmp_path, rows):
    plan = {**PLAN, "steps": [{**STEP, "publisher": "brio …abcdefgh", "publishers": 2}]}
    with node(tmp_path, job__validate={"result": plan}):
        said = dim("run", "triage", rows)
    assert "infer triage:1 published by brio …abcdefgh (2 peers publish this name)" in said.err


def test_models_of_one_name_are_told_apart_by_their_publishers(dim, tmp_path):
    twins = [{**MODEL, "publisher": f"12D3KooW{tail}", "publisher_name": "nora"} for tail in ("aaaaaaaa", "bbbbbbbb")]
    twins = [{**row, "bytes": 1, "summary": ""} for row in twins]
    with FakeNode(tmp_path, models__ls={"result": {"models": twins}}):
        said = dim("models", "ls")
    assert "nora …KooWaaaaaaaa " in said.out and "nora …KooWbbbbbbbb " in said.out
    assert "several peers publish triage; name one by its publisher: dim run KooWaaaaaaaa/triage" in said.err
