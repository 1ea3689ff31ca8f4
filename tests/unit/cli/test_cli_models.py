"""What a person says of a model when it is added or updated: nothing is published that was not meant to be."""

import json

import pytest
from fake_node import FakeNode

from dimnode.api.http.examples import BODIES

CARD = 'architecture = "transformers"\n'
CONFIG = {"architectures": ["ViTModel"], "model_type": "vit", "num_hidden_layers": 1, "image_size": 2, "hidden_size": 2}
ADDED = {"result": {"name": "m:1.0.0", "model": "b…"}}


@pytest.fixture
def model(tmp_path):
    """Of a kind whose card is compared with its config alone."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "m.safetensors").write_bytes(b"weights")
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "m" / "model.toml").write_text(CARD)
    return tmp_path / "m"


@pytest.mark.parametrize("access", ["private", "public", "restricted"])
@pytest.mark.parametrize("where", ["flag", "card"])
def test_a_price_does_not_open_what_has_another_policy(dim, tmp_path, model, access, where):
    said = ("--access", access) if where == "flag" else ()
    if where == "card":
        (model / "model.toml").write_text(CARD + f'access = "{access}"\n')
    with FakeNode(tmp_path, models__add=ADDED) as node:
        refused = dim("models", "add", model, "--price", "0.002 EUR/row", *said)
    assert (refused.code, "error E-cli-10" in refused.err) == (2, True)
    assert access in refused.err
    assert not node.asked("models.add")


def test_a_price_alone_means_pay_per_use(dim, tmp_path, model):
    with FakeNode(tmp_path, models__add=ADDED) as node:
        assert dim("models", "add", model, "--price", "0.002 EUR/row").code == 0
    assert node.asked("models.add")[0]["card"]["access"] == "pay-per-use"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('acces = "private"', "did you mean `access`"),
        ('access = "secret"', "pay-per-use, private, public, restricted"),
        ('price = { micro = 1, curency = "EUR" }', "`currency`"),
        ('licence = "MIT"\nlicense = "ISC"', "two licences"),
        (f'summary = "{"long" * 200}"', "`summary` is wrong: Expected `str` of length <= 512"),
        ('price = { micro = 1, currency = "EUR", unit = "day" }', "`price.unit` cannot be 'day': answer, row"),
    ],
)
def test_a_slip_in_a_card_is_named_and_nothing_is_published(dim, tmp_path, model, line, word):
    (model / "model.toml").write_text(CARD + line + "\n")
    with FakeNode(tmp_path, models__add=ADDED) as node:
        refused = dim("models", "add", model)
    assert "error E-models-07" in refused.err
    assert word in refused.err
    assert not node.asked("models.add")


def test_a_card_may_spell_licence_as_the_option_may(dim, tmp_path, model):
    (model / "model.toml").write_text(CARD + 'license = "MIT"\n[notes]\nanything = 1\n')
    with FakeNode(tmp_path, models__add=ADDED) as node:
        dim("models", "add", model)
    [asked] = node.asked("models.add")
    assert (asked["card"]["licence"], "notes" in asked["card"]) == ("MIT", False)


@pytest.mark.parametrize(
    ("access", "line"),
    [("public", "offered to the swarm"), ("private", "for this node alone"), ("restricted", "grant")],
)
def test_who_may_have_a_new_model_is_said_by_its_policy(dim, tmp_path, model, access, line):
    with FakeNode(tmp_path, models__add=ADDED):
        said = dim("models", "add", model, "--access", access)
    assert line in said.err
    assert ("offered to the swarm" in said.err) is (access == "public")


def test_an_update_with_another_file_says_what_its_card_and_its_flags_say(dim, tmp_path, model):
    with FakeNode(tmp_path, models__update=ADDED) as node:
        assert dim("models", "update", "m", model, "--version", "7").code == 0
        assert (
            dim("models", "update", "m", "--version", "8", "--card", model / "model.toml", "--summary", "s").code == 0
        )
    first, second = node.asked("models.update")
    assert (first["path"], first["card"]["version"], first["card"]["inputs"][0][0]) == (str(model), "7", "pixel_values")
    assert (second["path"], second["card"]["version"], second["card"]["summary"]) == (None, "8", "s")
    assert second["card"]["architecture"] == "transformers"


def test_a_model_of_many_labels_is_one_readable_line(dim, tmp_path):
    row = {"name": "magika:1", "publisher": "12D3KooWpublisher", "publisher_name": "alba", "here": True, "peers": []}
    row |= {"labels": [f"label{number}" for number in range(214)], "inputs": [], "bytes": 1, "summary": ""}
    with FakeNode(tmp_path, models__ls={"result": {"models": [row]}}):
        said = dim("models", "ls")
    assert "214 labels" in said.out
    assert "label7" not in said.out


@pytest.mark.parametrize(("shared", "line"), [(True, "everybody may fetch it"), (False, "nobody is given it")])
def test_a_blob_that_is_shared_already_is_said_to_be(dim, tmp_path, shared, line):
    (tmp_path / "f").write_bytes(b"x")
    with FakeNode(tmp_path, blobs__add={"result": {"blob": "b…", "bytes": 1, "shared": shared}}):
        assert line in dim("blobs", "add", tmp_path / "f").err


def test_files_that_are_left_out_are_named(dim, model):
    (model / "sd.pt").write_bytes(b"PK\x03\x04")
    with FakeNode(model.parent, models__add=ADDED):
        said = dim("models", "add", model)
    assert (said.code, "hold code: sd.pt" in said.err) == (0, True)


@pytest.mark.parametrize("form", [(), ("--format", "onnx")])
def test_a_folder_of_a_class_that_does_not_run_is_told_which_do(dim, model, form):
    (model / "model.toml").unlink()
    (model / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}')
    said = dim("models", "add", model, *form)
    assert (said.code, "error E-exec-60" in said.err) == (1, True), said.err
    for word in ("GPT2LMHeadModel", "BertModel", "LlamaForCausalLM", "write a card"):
        assert word in said.err


def test_a_folder_without_a_package_of_coreml_is_none_of_coreml(dim, model):
    (model / "model.toml").unlink()
    said = dim("models", "add", model, "--format", "coreml")
    assert "error E-models-05" in said.err
    assert "leave --format out" in said.err


@pytest.mark.parametrize(
    ("states", "said"),
    [(("missing", "missing"), "none of its files is here"), (("holds", "missing"), "a file is damaged or missing")],
)
def test_a_model_that_never_was_here_is_not_told_to_be_damaged(dim, tmp_path, states, said):
    files = [{"path": f"part{n}", "root": "bafk", "state": state} for n, state in enumerate(states)]
    found = {"name": "scribe:1", "holds": False, "files": files}
    with FakeNode(tmp_path, models__verify={"result": found}):
        verified = dim("models", "verify", "scribe")
    assert verified.code == 1
    assert said in verified.err
    assert "dim models pull" in verified.err


MODEL = BODIES["ModelShown"] | {"publisher_name": "alba", "parity": ""}


def lines_about(dim, tmp_path, **more):
    with FakeNode(tmp_path, models__show={"result": MODEL | more}):
        return {" ".join(line.split()) for line in dim("models", "show", "triage").out.splitlines()}


def test_what_a_text_model_takes_is_its_text(dim, tmp_path):
    said = lines_about(dim, tmp_path)
    assert {"takes text", "as tensors x float32[any, 2]", "withdrawn -", "to take instead -"} <= said


def test_who_looks_at_a_withdrawn_model_is_told_what_to_take_instead(dim, tmp_path):
    said = lines_about(dim, tmp_path, withdrawn="it was wrong", replacement="triage:2")
    assert {"withdrawn it was wrong", "to take instead triage:2"} <= said
