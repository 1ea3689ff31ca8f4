"""What a card leaves out of inputs and outputs comes from the model, behind walls where it has to be loaded."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dimnode.errors import Refused, RunFailed
from dimnode.exec import orders, schema
from dimnode.limits import LIMITS
from dimnode.node.model_files import gather
from dimnode.node.model_schema import with_schema

sys.path.insert(0, str(Path(__file__).parents[1] / "exec"))
from exec_formats import CHAIN, mlp, mlp_weights, onnx_mlp  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
X, Y = [["x", "float32", [-1, 3]]], [["y", "float32", [-1, 2]]]
BERT = {"model_type": "bert", "hidden_size": 2, "intermediate_size": 2, "num_attention_heads": 1, "vocab_size": 3}
BERT |= {"num_hidden_layers": 1, "max_position_embeddings": 4, "type_vocab_size": 1, "layer_norm_eps": 1e-12}


@pytest.fixture(autouse=True)
def _time_for_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long to import torch, and how long is not asked here."""
    limits = replace(LIMITS, exec=replace(LIMITS.exec, schema_seconds_max=600.0))
    monkeypatch.setattr(schema, "LIMITS", limits)


def folder(place: Path, form: str) -> Path:
    for path, file in mlp(form)[0].items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(bytes(file.raw))
    return place


def test_a_package_of_coreml_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    found = with_schema({"name": "a"}, gather(folder(tmp_path, "coreml")).files)
    assert (found["format"], found["inputs"], found["outputs"]) == ("coreml", X, Y)


@pytest.mark.parametrize("form", ["torch", "mlx"])
def test_a_chain_says_what_it_gives_when_a_card_says_what_it_takes(tmp_path: Path, form: str) -> None:
    found = with_schema({"format": form, "inputs": X}, gather(folder(tmp_path, form)).files)
    assert (found["architecture"], found["outputs"]) == ("layers", Y)


def test_a_chain_without_a_word_on_its_input_needs_a_card(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="one input") as caught:
        with_schema({}, gather(folder(tmp_path, "torch")).files)
    assert caught.value.complaint.code == orders.UNFIT_MODEL
    assert "card" in caught.value.complaint.hint


def test_an_encoder_says_all_by_its_config_when_its_weights_fit(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save

    from dimnode.exec.runtimes.architectures.bert import Bert

    (tmp_path / "config.json").write_text(json.dumps(BERT))
    needs = {name: np.ones(need.shape, np.float32) for name, need in Bert.of(BERT).needs().items()}
    (tmp_path / "m.safetensors").write_bytes(save(needs))
    found = with_schema({"format": "mlx"}, gather(tmp_path).files)
    assert found["architecture"] == "bert"
    assert found["inputs"] == [[name, "int64", [-1, -1]] for name in ("input_ids", "attention_mask")]
    assert found["outputs"] == [["embedding", "float32", [-1, 2]]]


def test_weights_that_do_not_fit_their_config_are_found_before_anything_is_offered(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    (tmp_path / "m.safetensors").write_bytes(mlp_weights())
    with pytest.raises(RunFailed) as caught:
        with_schema({}, gather(tmp_path).files)
    assert caught.value.complaint.code == orders.UNFIT_WEIGHTS


def test_a_config_that_is_none_of_ours_needs_a_card_or_a_conversion(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tapas"}')
    (tmp_path / "m.safetensors").write_bytes(mlp_weights())
    with pytest.raises(RunFailed, match="not known here") as caught:
        with_schema({}, gather(tmp_path).files)
    assert (caught.value.complaint.code, "card" in caught.value.complaint.hint) == (orders.NO_ARCHITECTURE, True)


def test_a_config_of_transformers_needs_no_process(tmp_path: Path) -> None:
    said = {**BERT, "architectures": ["BertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "m.safetensors").write_bytes(mlp_weights())
    found = with_schema({"architecture": "transformers"}, gather(tmp_path).files)
    assert found["outputs"] == [["logits", "float32", [-1, 2]]]


def test_what_a_card_says_stays(tmp_path: Path) -> None:
    files = gather(folder(tmp_path, "torch")).files
    said = {"format": "torch", "inputs": [["in", "float32", [2, 3]]], "outputs": [["y", "float32", [2, 2]]]}
    found = with_schema(dict(said), files)
    assert (found["inputs"], found["outputs"], found["architecture"]) == (said["inputs"], said["outputs"], "layers")
    assert CHAIN[-1]["as"] == "y"


@pytest.mark.parametrize(
    ("key", "row", "word"),
    [
        ("inputs", ["x", "float32", [-1, 4]], "x is no float32"),
        ("inputs", ["x", "int64", [-1, 3]], "x is no int64"),
        ("inputs", ["x", "float32", [-1]], "x is no float32"),
        ("inputs", ["bytes", "float32", [-1, 3]], "no 'bytes'"),
        ("outputs", ["z", "float32", [-1, 2]], "no 'z'"),
    ],
)
def test_a_card_of_another_model_is_refused_with_what_the_model_says(tmp_path: Path, key, row, word) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_mlp())
    card = {"inputs": X, "outputs": Y}
    with pytest.raises(Refused, match=word) as caught:
        with_schema(card | {key: [row]}, gather(tmp_path / "m.onnx").files)
    assert (caught.value.complaint.code, "float32[-1" in caught.value.complaint.hint) == ("E-models-07", True)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, orders.BAD_CONFIG),
        ({"layers": [{**CHAIN[0], "out": 5}, *CHAIN[1:]]}, orders.UNFIT_WEIGHTS),
        ({"layers": CHAIN, "auto_map": {"AutoModel": "evil.Model"}}, orders.CODE_IN_CONFIG),
    ],
)
def test_a_chain_with_a_whole_card_is_loaded_all_the_same(tmp_path: Path, config, code) -> None:
    (tmp_path / "m.safetensors").write_bytes(mlp_weights())
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFailed) as caught:
        with_schema({"architecture": "layers", "inputs": X, "outputs": Y}, gather(tmp_path).files)
    assert caught.value.complaint.code == code


def test_a_whole_card_stands_for_a_model_that_cannot_be_looked_at_here(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x" * 100)
    monkeypatch.setattr(
        "dimnode.node.model_schema.LIMITS", replace(LIMITS, exec=replace(LIMITS.exec, parsed_bytes_max=99))
    )
    card = {"inputs": X, "outputs": Y}
    assert with_schema(dict(card), gather(tmp_path / "m.onnx").files) == card
    with pytest.raises(Refused, match="E-models-06: inputs and outputs are read from models of at most"):
        with_schema({"inputs": X}, gather(tmp_path / "m.onnx").files)
