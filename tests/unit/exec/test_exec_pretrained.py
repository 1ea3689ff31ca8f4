"""What a config of transformers says of its model, found out without transformers."""

import pytest

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.base import Content
from dimnode.exec.runtimes.config_file import config_of
from dimnode.exec.runtimes.pretrained import known_keys, pretrained_of

ENCODER = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "vocab_size": 5,
    "max_position_embeddings": 16,
}
DECODER = {**ENCODER, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 1e4}
PICTURE = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "image_size": 4}
TEXT = ("input_ids", "int64", (-1, -1))
MASK, TYPES = ("attention_mask", *TEXT[1:]), ("token_type_ids", *TEXT[1:])


@pytest.mark.parametrize(
    ("config", "inputs", "output"),
    [
        ({**ENCODER, "architectures": ["BertModel"]}, (TEXT, MASK), ("last_hidden_state", "float32", (-1, -1, 8))),
        ({**ENCODER, "architectures": ["BertForMaskedLM"]}, (TEXT, MASK), ("logits", "float32", (-1, -1, 5))),
        (
            {**ENCODER, "architectures": ["BertForTokenClassification"]},
            (TEXT, MASK),
            ("logits", "float32", (-1, -1, 2)),
        ),
        (
            {**ENCODER, "architectures": ["BertForSequenceClassification"], "num_labels": 3},
            (TEXT, MASK),
            ("logits", "float32", (-1, 3)),
        ),
        (DECODER, (TEXT,), ("logits", "float32", (-1, -1, 5))),
        (
            {**PICTURE, "architectures": ["ViTForImageClassification"], "id2label": {"0": "cat"}},
            (("pixel_values", "float32", (-1, 3, 4, 4)),),
            ("logits", "float32", (-1, 1)),
        ),
    ],
)
def test_a_config_says_what_goes_in_and_out(config: dict, inputs: tuple, output: tuple) -> None:
    found = pretrained_of(config)
    assert found.inputs() == inputs
    assert found.output() == output


def test_a_manifest_may_ask_for_types_of_tokens_and_for_the_last_logits_alone() -> None:
    encoder = pretrained_of({**ENCODER, "architectures": ["BertModel"]})
    assert encoder.inputs({"token_type_ids"}) == (TEXT, MASK, TYPES)
    assert pretrained_of(DECODER).output({"next_logits"}) == ("next_logits", "float32", (-1, 5))


def test_labels_are_those_of_the_config_in_order_or_none() -> None:
    said = {**ENCODER, "architectures": ["BertForSequenceClassification"]}
    assert pretrained_of({**said, "id2label": {"1": "bad", "0": "good"}}).labels() == ("good", "bad")
    assert pretrained_of({**said, "id2label": {"7": "bad"}}).labels() == ()
    assert pretrained_of(said).labels() == ()
    assert pretrained_of({**ENCODER, "architectures": ["BertModel"], "id2label": {"0": "x"}}).labels() == ()


def test_keys_that_change_nothing_are_dropped_and_unknown_ones_refused() -> None:
    said = {**ENCODER, "architectures": ["BertModel"], "torch_dtype": "float32", "use_cache": True, "pruned_heads": {}}
    assert known_keys(pretrained_of(said), ENCODER) == {key: ENCODER[key] for key in ENCODER if key != "model_type"}
    with pytest.raises(RunFailed, match="pruned_heads") as caught:
        known_keys(pretrained_of({**said, "pruned_heads": {"0": [1]}}), ENCODER)
    assert caught.value.complaint.code == orders.BAD_CONFIG


def test_the_base_of_positions_reaches_the_class_in_one_spelling() -> None:
    inner = {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}
    for said in ({"rope_theta": 5.0}, {"rope_theta": None, **inner}, {"rope_theta": 5.0, **inner}):
        config = {key: value for key, value in {**DECODER, **said}.items() if value is not None}
        assert known_keys(pretrained_of(config), DECODER)["rope_parameters"] == inner["rope_parameters"]


def test_of_several_configs_the_one_nearest_to_the_top_counts() -> None:
    files = {
        path: Content("config", b'{"a": %d}' % place) for place, path in enumerate(("1_P/config.json", "config.json"))
    }
    assert config_of(files) == {"a": 1}
    with pytest.raises(RunFailed, match="not 2"):
        config_of({"a/config.json": Content("config", b"{}"), "b/config.json": Content("config", b"{}")})


@pytest.mark.parametrize("named", [[[]], [{}], [None], [7], {}, "BertModel", ["BertModel", "BertModel"]])
def test_a_class_is_named_by_one_word(named: object) -> None:
    with pytest.raises(RunFailed) as caught:
        pretrained_of({**ENCODER, "architectures": named})
    assert caught.value.complaint.code == orders.NO_ARCHITECTURE


@pytest.mark.parametrize(
    "raw", [b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": -1e999}', b"[1]", b"{"]
)
def test_a_config_that_could_be_read_in_two_ways_is_none(raw: bytes) -> None:
    with pytest.raises(RunFailed) as caught:
        config_of({"config.json": Content("config", raw)})
    assert caught.value.complaint.code == orders.BAD_CONFIG


def test_tokens_of_roberta_are_counted_from_behind_its_padding() -> None:
    said = {**ENCODER, "model_type": "roberta", "architectures": ["RobertaModel"]}
    assert pretrained_of(said).positions == 14
    assert pretrained_of({**said, "pad_token_id": 4}).positions == 11
    assert pretrained_of({**ENCODER, "architectures": ["BertModel"], "pad_token_id": 4}).positions == 16
