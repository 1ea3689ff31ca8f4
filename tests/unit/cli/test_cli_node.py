"""init, doctor and the offers, as far as they go without a real node."""

import json
import logging
import os
import tomllib

import pytest
from fake_node import FakeNode

from dimnode.cli.logs import configure_logging
from dimnode.config import Config, load_config
from dimnode.errors import ConfigError
from dimnode.records.ids import cid_text, record_id
from dimnode.store.home import load_key

CSV = "age,score,truth\n1,2,0\n"


def test_init_makes_settings_that_load_and_a_key_nobody_else_can_read(dim, tmp_path):
    home = tmp_path / "new"
    said = dim("init", "--home", home, "--name", "alba", "--listen", "/ip4/127.0.0.1/tcp/0", "--json")
    assert said.code == 0
    config = load_config(home)
    assert (config.name, config.listen) == ("alba", ("/ip4/127.0.0.1/tcp/0",))
    assert (home / "identity.key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert json.loads(said.out)["peer"].startswith("12D3KooW")


def test_init_says_what_comes_next(dim, tmp_path):
    said = dim("init", "--home", tmp_path / "new")
    assert said.err.startswith(f"next: dim up --home {tmp_path / 'new'}")
    assert "12D3KooW" in said.out


def test_a_second_init_changes_nothing_unless_forced_and_never_the_key(dim, tmp_path):
    dim("init")
    key = load_key(tmp_path).peer
    again = dim("init", "--name", "other")
    assert (again.code, again.err.split(":")[0]) == (2, "error E-cli-20")
    assert load_config(tmp_path).name == ""
    assert dim("init", "--name", "other", "--force", "--profile", "prod").code == 0
    assert (load_config(tmp_path).name, load_config(tmp_path).profile) == ("other", "prod")
    assert load_key(tmp_path).peer == key


def test_settings_that_are_wrong_are_one_paragraph(dim, tmp_path):
    (tmp_path / "config.toml").write_text("workers = 'many'\n")
    said = dim("up")
    assert said.code == 2
    assert "E-config-01" in said.err
    assert "workers" in said.err
    assert "Traceback" not in said.err


def test_a_doctor_without_a_node_looks_around_and_says_that_none_runs(dim, tmp_path):
    dim("init")
    said = dim("doctor")
    assert said.code == 5
    assert "✓ settings" in said.out
    assert "✗" not in said.out
    assert "dim up" in said.err
    (tmp_path / "identity.key").chmod(0o644)
    assert f"mend: chmod 600 {tmp_path / 'identity.key'}" in dim("doctor").out


def test_a_doctor_changes_nothing(dim, tmp_path):
    dim("doctor", "--home", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("ok", "stops", "mark", "code"), [(True, False, "✓", 0), (False, False, "!", 0), (False, True, "✗", 1)]
)
def test_a_doctor_shows_the_mend_of_what_is_not_fine_and_fails_when_it_stops_work(dim, tmp_path, ok, stops, mark, code):
    mend = "" if ok else "dim up --bootstrap ADDRESS"
    finding = {"check": "peers", "ok": ok, "stops": stops, "detail": "0 linked", "mend": mend}
    with FakeNode(tmp_path, doctor={"result": {"findings": [finding]}}):
        said = dim("doctor")
    assert said.code == code
    assert f"{mark} peers" in said.out
    assert ("mend: dim up --bootstrap ADDRESS" in said.out) is not ok


@pytest.mark.slow
def test_a_card_beside_the_model_says_everything(dim, tmp_path):
    from dimnode.exec.runtimes.onnx import IDENTITY

    (tmp_path / "m.onnx").write_bytes(IDENTITY)
    card = 'name = "m"\nfile = "m.onnx"\nlicence = "MIT"\ninputs = [["x", "float32", [2]]]\nlabels = ["a", "b"]\n'
    (tmp_path / "m.toml").write_text(card)
    with FakeNode(tmp_path, models__add={"result": {"name": "m:1", "model": "b…"}}) as node:
        assert dim("models", "add", tmp_path / "m.onnx", "--version", "2").code == 0
        assert dim("models", "add", tmp_path / "m.toml", "--labels", "c,d").code == 0
    first, second = node.asked("models.add")
    assert first["path"] == second["path"] == str(tmp_path / "m.onnx")
    plain = {"name": "m", "format": "onnx", "licence": "MIT", "inputs": [["x", "float32", [2]]]}
    plain["outputs"] = [["y", "float32", [-1]]]
    assert first["card"] == {**plain, "labels": ["a", "b"], "version": "2"}
    assert second["card"] == {**plain, "labels": ["c", "d"]}


@pytest.mark.parametrize("card", ["not toml [", 'name = "m"\n'])
def test_a_card_that_cannot_be_used_is_a_usage_error(dim, tmp_path, card):
    (tmp_path / "m.toml").write_text(card)
    said = dim("models", "add", tmp_path / "m.toml")
    assert (said.code, said.err.split(":")[0]) == (2, "error E-cli-30")


@pytest.mark.slow
def test_the_schema_of_a_bare_model_is_read_in_a_process_of_its_own(dim, tmp_path):
    from dimnode.exec.runtimes.onnx import IDENTITY

    (tmp_path / "identity.onnx").write_bytes(IDENTITY)
    (tmp_path / "junk.onnx").write_bytes(os.urandom(1000))
    with FakeNode(tmp_path, models__add={"result": {"name": "identity:1", "model": "b…"}}) as node:
        assert dim("models", "add", tmp_path / "identity.onnx").code == 0
        refused = dim("models", "add", tmp_path / "junk.onnx")
    [request] = node.asked("models.add")
    assert request["card"]["inputs"] == [["x", "float32", [-1]]]
    assert request["card"]["name"] == "identity"
    assert refused.code == 1
    assert "E-exec-22" in refused.err


PICKLE, HDF5 = b"\x80\x04\x95.", b"\x89HDF\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "raw", "conversion"),
    [
        ("p.pt", PICKLE, "dimnode.exec.state_dict"),
        ("p.bin", PICKLE, "dimnode.exec.state_dict"),
        ("p.pkl", PICKLE, "skl2onnx"),
        ("p.onnx", PICKLE, "dimnode.exec.state_dict"),
        ("z.onnx", b"PK\x03\x04", "dimnode.exec.state_dict"),
        ("h.h5", HDF5, "ONNX"),
        ("h.onnx", HDF5, "ONNX"),
        ("g.gguf", b"GGUF", "safetensors"),
        ("n.npz", b"PK\x03\x04", "safetensors.numpy.save_file"),
        ("s.pt", PICKLE, "TorchScript to ONNX"),
    ],
)
def test_what_can_hold_code_is_refused_with_the_conversion_before_anything_reads_it(
    dim, tmp_path, name, raw, conversion
):
    (tmp_path / name).write_bytes(raw)
    with FakeNode(tmp_path) as node:
        said = dim("models", "add", tmp_path / name)
        assert not node.asked("models.add")
    hint = said.err.splitlines()[-1]
    assert (said.code, said.err.split(":")[0], conversion in hint) == (4, "error E-exec-62", True), said.err


def test_allowed_operations_become_a_policy_for_any_peer(dim, tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    added = {"result": {"name": "ward", "columns": ["age"], "policy": "b…"}}
    with FakeNode(tmp_path, data__add=added) as node:
        typed = ["data", "add", "ward", tmp_path / "rows.csv", "--label", "truth", "--exclude", "score"]
        more = ["--min-cohort", "20", "--any-model", "--where", "ward,year"]
        said = dim(*typed, "--allow", "evaluate,statistics", *more)
    assert said.code == 0
    assert "any model that this node holds" in said.err
    [request] = node.asked("data.add")
    assert (request["label"], request["exclude"]) == ("truth", ["score"])
    assert request["policy"] == {
        "operations": ["evaluate", "statistics"],
        "submitters": "any",
        "models": "any",
        "min_cohort": 20,
        "output_classes": ["count", "mean"],
        "where": ["ward", "year"],
    }


def test_a_model_that_a_policy_names_becomes_the_id_of_the_one_held_here(dim, tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    here, away = (cid_text(record_id(text)) for text in (b"here", b"away"))
    rows = [{"model": model, "name": "triage:1.0.0", "here": model == here} for model in (away, here)]
    added = {"result": {"name": "ward", "columns": ["age"], "policy": "b…"}}
    with FakeNode(tmp_path, data__add=added, models__ls={"result": {"models": rows}}) as node:
        typed = ["data", "add", "ward", tmp_path / "rows.csv", "--label", "truth", "--allow", "evaluate", "--models"]
        assert dim(*typed, f"triage,{away}").code == 0
        nobody = dim(*typed, "nosuch")
    [request] = node.asked("data.add")
    assert request["policy"]["models"] == [here, away]
    assert nobody.code == 4
    assert "error E-models-01" in nobody.err


def test_the_expiry_of_a_policy_travels_as_milliseconds(dim, tmp_path):
    (tmp_path / "rows.csv").write_text(CSV)
    policy = 'operations = ["evaluate"]\nsubmitters = "any"\nmodels = "any"\nexpires = 2030-01-01T00:00:00Z\n'
    (tmp_path / "policy.toml").write_text(policy)
    with FakeNode(tmp_path, data__add={"result": {"name": "w", "columns": [], "policy": "b…"}}) as node:
        assert dim("data", "add", "w", tmp_path / "rows.csv", "--policy", tmp_path / "policy.toml").code == 0
    assert node.asked("data.add")[0]["policy"]["expires_ms"] == 1_893_456_000_000
    assert tomllib.loads(policy)["expires"].year == 2030


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ([], "E-cli-33"),
        (["--allow", "evaluate", "--policy", "p.toml"], "E-cli-33"),
        (["--policy", "nowhere.toml"], "E-cli-34"),
        (["--allow", "everything"], "E-cabinet-10"),
        (["--allow", "evaluate"], "E-cli-35"),
        (["--policy", "p.toml", "--any-model"], "E-cli-33"),
        (["--policy", "p.toml", "--where", "age"], "E-cli-33"),
    ],
)
def test_a_cabinet_without_a_clear_policy_is_not_offered(dim, tmp_path, typed, code):
    with FakeNode(tmp_path) as node:
        said = dim("data", "add", "ward", tmp_path / "rows.csv", *typed)
    assert said.code == 2
    assert said.err.startswith(f"error {code}")
    assert "Errno" not in said.err
    assert not node.requests


def test_log_records_are_one_line_each(capsys):
    before = logging.getLogger().handlers[:]
    try:
        configure_logging("info")
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger("dimnode.test").exception("it\nbroke")
        logging.getLogger("libp2p").info("chatter")
    finally:
        logging.basicConfig(handlers=before, force=True)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "it | broke" in said
    assert "chatter" not in said


def test_every_profile_of_init_is_one_that_up_accepts(dim, tmp_path):
    for profile in ("dev", "prod"):
        assert dim("init", "--profile", profile, "--home", tmp_path / profile).code == 0
        assert isinstance(load_config(tmp_path / profile), Config)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "dev", {"profile": "other"})


def test_connect_says_when_a_peer_was_connected_already_and_the_address_was_not_tried(dim, tmp_path):
    for dialled, tried, linked, words in (
        (True, True, True, "connected"),
        (False, True, True, "was connected already"),
        (False, False, True, "was connected already; this address was not tried"),
        (True, True, False, "connected, but there is no link yet: dim peers says why"),
    ):
        answer = {"peer": "12D3KooWx", "dialled": dialled, "tried": tried, "linked": linked}
        with FakeNode(tmp_path, connect={"result": answer}):
            said = dim("connect", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWx")
        assert (said.code, said.out) == (0, "12D3KooWx\n")
        assert said.err == f"{words}\n"
