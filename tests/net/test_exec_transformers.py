"""Models of transformers behind the walls: what that library computes, and nothing else that a config may ask."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from exec_tools import arrays, open_rig
from real_models import minilm, minilm_onnx, smollm

from dimnode.exec import orders
from dimnode.exec.launch import Zygote
from dimnode.exec.orders import Facts, Finished
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.pretrained import CLASSES, pretrained_of
from dimnode.exec.runtimes.pretrained_samples import sample_config, sample_files, sample_inputs
from dimnode.records.manifest import TRANSFORMERS
from dimnode.records.tensors import Tensor, encode_tensors

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")]
Case = tuple[str, Files, Facts, Mapping[str, np.ndarray]]
IT = Facts(TRANSFORMERS)
TEXT = "BertForSequenceClassification"


def run_all(zygotes: list[Zygote], folder: Path, *cases: Case) -> list[Finished]:
    """One order after the other in one pool, each with a worker of its own."""
    found: list[Finished] = []

    async def main() -> None:
        async with open_rig(zygotes[0], folder, warm=zygotes[1:]) as rig:
            for form, files, facts, values in cases:
                blob = encode_tensors([Tensor(n, str(v.dtype), v.shape, v.tobytes()) for n, v in values.items()])
                found.extend(await rig.run(rig.asks(rig.model(form, files, facts), blob, timeout_seconds=60.0)))

    trio.run(main)
    return found


def within(one: np.ndarray, other: np.ndarray) -> bool:
    """The tolerance of fp32 across runtimes."""
    return bool(np.abs(one - other).max() <= 1e-4 * np.abs(other).max() + 1e-6)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(len(shape) * 1000 + shape[0]).normal(size=shape) * 0.3


def good(name: str = TEXT) -> Files:
    return sample_files(name, numbers)


def saved_by_transformers(name: str, folder: Path) -> tuple[Files, dict[str, np.ndarray]]:
    """A folder as people find it, and what transformers' own way of loading it computes."""
    import torch
    import transformers

    made = getattr(transformers, name)
    said = sample_config(name)
    theta = said.pop("rope_theta", None)
    torch.manual_seed(1)
    made(made.config_class(**said, **({"rope_theta": theta} if theta else {}))).save_pretrained(folder)
    loaded = made.from_pretrained(folder, local_files_only=True).eval()
    inputs = inputs_of(name)
    with torch.no_grad():
        answer = loaded(**{port: torch.from_numpy(values) for port, values in inputs.items()})
    (output, _, _) = pretrained_of(sample_config(name)).output()
    files = {
        "config.json": Content("config", (folder / "config.json").read_bytes()),
        "generation_config.json": Content("config", b"{}"),
        "model.safetensors": Content("weights", (folder / "model.safetensors").read_bytes()),
    }
    return files, {output: answer[output].numpy()}


def inputs_of(name: str) -> dict[str, np.ndarray]:
    """Two rows; of text the second one is shorter."""
    found = {port: np.concatenate([values, values]) for port, values in sample_inputs(name).items()}
    if "pixel_values" in found:
        return {"pixel_values": numbers(found["pixel_values"].shape).astype(np.float32)}
    found["input_ids"] = np.array([[2, 3], [4, 2]])
    if "attention_mask" in found:
        found["attention_mask"] = np.array([[1, 1], [1, 0]])
    return found


def test_every_class_gives_what_transformers_itself_gives(zygotes: list[Zygote], tmp_path: Path) -> None:
    cases, wanted = [], []
    for name in CLASSES:
        files, direct = saved_by_transformers(name, tmp_path / name)
        cases.append(("hf", files, IT, inputs_of(name)))
        wanted.append(direct)
    for name, done, direct in zip(CLASSES, run_all(zygotes, tmp_path, *cases), wanted, strict=True):
        assert (done.status, done.message) == ("ok", ""), name
        answer = arrays(done.output)
        assert answer.keys() == direct.keys(), name
        assert all(within(answer[key], direct[key]) for key in direct), name
        assert done.runtime["engine"] == "transformers" and "torch" in str(done.runtime["version"])
        assert {"landlock", "seccomp", "rlimits"} <= set(done.sandbox.split("+"))


def test_minilm_gives_one_embedding_by_transformers_by_torch_and_by_onnx(zygotes: list[Zygote], tmp_path: Path) -> None:
    ids = np.random.default_rng(4).integers(1000, 5000, (2, 24))
    mask = np.ones_like(ids)
    mask[1, 10:] = 0
    asked, files = {"input_ids": ids, "attention_mask": mask}, minilm()
    found = run_all(
        zygotes,
        tmp_path,
        ("onnx", minilm_onnx(tmp_path / "m.onnx"), Facts(), asked),
        ("torch", files, Facts("bert"), asked),
        *(("hf", files, Facts(TRANSFORMERS, dtype), asked) for dtype in ("", "bfloat16", "float16", "int8")),
    )
    assert [(done.status, done.message) for done in found] == [("ok", "")] * len(found)
    onnx, torch, *others = [arrays(done.output) for done in found]
    assert within(torch["embedding"], onnx["embedding"])
    embeddings = [sentence(other["last_hidden_state"], mask) for other in others]
    assert within(embeddings[0], onnx["embedding"])
    cosines = [float((near * onnx["embedding"]).sum(axis=1).min()) for near in embeddings[1:]]
    assert all(cosine > least for cosine, least in zip(cosines, (0.999, 0.9999, 0.998), strict=True)), cosines
    classes = [(done.runtime["dtype"], done.runtime["quantisation"]) for done in found[2:]]
    assert classes == [("float32", "none"), ("bfloat16", "none"), ("float16", "none"), ("int8", "int8-rows")]


def sentence(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of the tokens that are there, of length 1."""
    mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_smollm_finishes_a_sentence_by_transformers_as_by_torch(zygotes: list[Zygote], tmp_path: Path) -> None:
    files, words = smollm()
    files = {**files, "config.json": with_config(files, architectures=["LlamaForCausalLM"])}
    ids = {"input_ids": np.array([[words.index(word) for word in ("The", "Ġcapital", "Ġof", "ĠFrance", "Ġis")]])}
    outputs = (("next_logits", "float32", (-1, len(words))),)
    found = run_all(
        zygotes,
        tmp_path,
        *(
            (form, files, Facts(architecture, dtype, outputs=outputs), ids)
            for form, architecture in (("torch", "llama"), ("hf", TRANSFORMERS))
            for dtype in ("float32", "")
        ),
    )
    assert [(done.status, done.message) for done in found] == [("ok", "")] * 4
    logits = [arrays(done.output)["next_logits"][0] for done in found]
    assert [words[int(row.argmax())] for row in logits] == ["ĠParis"] * 4
    assert within(logits[2], logits[0])
    assert [done.runtime["dtype"] for done in found] == ["float32", "bfloat16"] * 2


def with_config(files: Files, **changes: Any) -> Content:
    """Its config with some keys changed; None takes one away."""
    said = {**json.loads(bytes(files["config.json"].raw)), **changes}
    return Content("config", json.dumps({key: value for key, value in said.items() if value is not None}).encode())


def weights_without(files: Files, name: str, add: str = "") -> Content:
    from safetensors.numpy import load, save

    found = load(bytes(files["model.safetensors"].raw))
    found.pop(name, None)
    return Content("weights", save({**found, **({add: np.ones(3, np.float32)} if add else {})}))


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a class of another library": ({"architectures": ["os.system"]}, orders.NO_ARCHITECTURE),
    "two classes": ({"architectures": [TEXT, TEXT]}, orders.NO_ARCHITECTURE),
    "no class": ({"architectures": None}, orders.NO_ARCHITECTURE),
    "another class than the config's": ({"architectures": ["RobertaModel"]}, orders.BAD_CONFIG),
    "code": ({"auto_map": {"AutoModel": "evil.Model"}}, orders.CODE_IN_CONFIG),
    "code deep inside": ({"id2label": {"0": {"trust_remote_code": True}}}, orders.CODE_IN_CONFIG),
    "an attention kernel from a hub": ({"_attn_implementation": "evil/kernels"}, orders.BAD_CONFIG),
    "a quantiser": ({"quantization_config": {"quant_method": "bitsandbytes"}}, orders.BAD_CONFIG),
    "a key that nobody knows": ({"frobnicate": 1}, orders.BAD_CONFIG),
    "an activation that nobody knows": ({"hidden_act": "__import__"}, orders.BAD_CONFIG),
    "text for a size": ({"intermediate_size": "8"}, orders.BAD_CONFIG),
    "a decoder in disguise": ({"is_decoder": True}, orders.BAD_CONFIG),
    "a million layers": ({"num_hidden_layers": 10**6}, orders.BAD_CONFIG),
    "heads that do not fit": ({"num_attention_heads": 3}, orders.BAD_CONFIG),
    "a width of 2^40": ({"hidden_size": 2**40}, orders.BAD_CONFIG),
    "a terabyte": ({"hidden_size": 2**19}, orders.UNFIT_WEIGHTS),
    "a vocabulary of 16 million": ({"vocab_size": 2**24}, orders.UNFIT_WEIGHTS),
    "sixteen million classes": ({"num_labels": 2**24}, orders.BAD_CONFIG),
    "padding that is no word": ({"pad_token_id": 99}, orders.BAD_CONFIG),
    "three classes": ({"num_labels": 3}, orders.UNFIT_WEIGHTS),
}


def hostile() -> dict[str, tuple[Files, str]]:
    """Every sample with the code that it has to end with."""
    files, decoder = good(), good("LlamaForCausalLM")
    found = {
        what: ({**files, "config.json": with_config(files, **said)}, code) for what, (said, code) in CONFIGS.items()
    }
    raw, pickled = bytes(files["config.json"].raw), Content("weights", b"\x80\x02}q\x00.")
    for what, config in (
        ("a name twice", raw[:-1] + b', "vocab_size": 9}'),
        ("NaN", raw[:-1] + b', "layer_norm_eps": NaN}'),
    ):
        found[what] = {**files, "config.json": Content("config", config)}, orders.BAD_CONFIG
    bare = {"config.json": files["config.json"]}
    found["a pickle by name"] = {**bare, "pytorch_model.bin": files["model.safetensors"]}, orders.REFUSED_FORMAT
    found["a pickle in disguise"] = {**bare, "model.safetensors": pickled}, orders.REFUSED_FORMAT
    name = "classifier.weight"
    found["a tensor too few"] = {**files, "model.safetensors": weights_without(files, name)}, orders.UNFIT_WEIGHTS
    more = weights_without(files, "", "extra.weight")
    found["a tensor too many"] = {**files, "model.safetensors": more}, orders.UNFIT_WEIGHTS
    for what, changes in (
        ("no base of positions", {"rope_theta": None}),
        ("two bases", {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}),
        ("scaled positions", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    ):
        found[what] = {**decoder, "config.json": with_config(decoder, **changes)}, orders.BAD_CONFIG
    return found


def test_a_config_that_asks_for_more_is_refused_with_a_code_and_the_pool_stays_whole(
    zygotes: list[Zygote], tmp_path: Path
) -> None:
    samples = hostile()
    asked = [("hf", files, IT, inputs_of(TEXT)) for files, _ in samples.values()]
    *found, last = run_all(zygotes, tmp_path, *asked, ("hf", good(), IT, inputs_of(TEXT)))
    said = {what: (done.status, done.code) for what, done in zip(samples, found, strict=True)}
    assert said == {what: ("failed", code) for what, (_, code) in samples.items()}
    bombs = [done for what, done in zip(samples, found, strict=True) if what in ("a terabyte", "a width of 2^40")]
    assert all(done.rss_bytes < 1024**3 for done in bombs)
    assert "numbers" in bombs[1].message, "it says how many the config describes and how many there are"
    assert last.status == "ok"


INPUTS: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "an id outside the table": (TEXT, {"input_ids": np.array([[1, 5]])}, orders.BAD_DTYPE),
    "more tokens than positions": (TEXT, {"input_ids": np.ones((1, 17), int)}, orders.BAD_SHAPE),
    "no token": (TEXT, {"input_ids": np.ones((1, 0), int), "attention_mask": np.ones((1, 0), int)}, orders.BAD_SHAPE),
    "a mask of another shape": (TEXT, {"attention_mask": np.ones((1, 3), int)}, orders.BAD_SHAPE),
    "a mask of two": (TEXT, {"attention_mask": np.full((1, 2), 2)}, orders.BAD_SHAPE),
    "a row that is all padding": (TEXT, {"attention_mask": np.zeros((1, 2), int)}, orders.BAD_SHAPE),
    "a picture of another size": ("ViTModel", {"pixel_values": np.ones((1, 3, 5, 4), np.float32)}, orders.BAD_SHAPE),
    "a picture of NaN": ("ViTModel", {"pixel_values": np.full((1, 3, 4, 4), np.nan, np.float32)}, orders.NOT_FINITE),
    "no picture": ("ViTModel", {"pixel_values": np.ones((0, 3, 4, 4), np.float32)}, orders.BAD_SHAPE),
}


def test_an_input_that_does_not_fit_ends_its_own_task(zygotes: list[Zygote], tmp_path: Path) -> None:
    files = {name: good(name) for name in (TEXT, "ViTModel")}
    asked = [("hf", files[name], IT, {**sample_inputs(name), **said}) for name, said, _ in INPUTS.values()]
    found = run_all(zygotes, tmp_path, *asked)
    said = {what: (done.status, done.code) for what, done in zip(INPUTS, found, strict=True)}
    assert said == {what: ("failed", code) for what, (_, _, code) in INPUTS.items()}


def test_what_a_manifest_declares_decides_what_it_takes_and_gives(zygotes: list[Zygote], tmp_path: Path) -> None:
    typed = Facts(TRANSFORMERS, inputs=(("token_type_ids", "int64", (-1, -1)),))
    last = Facts(TRANSFORMERS, outputs=(("next_logits", "float32", (-1, 5)),))
    plain, types = inputs_of(TEXT), np.array([[0, 1], [1, 1]])
    found = run_all(
        zygotes,
        tmp_path,
        ("hf", good(), IT, plain),
        ("hf", good(), typed, {**plain, "token_type_ids": types}),
        ("hf", good("LlamaForCausalLM"), IT, inputs_of("LlamaForCausalLM")),
        ("hf", good("LlamaForCausalLM"), last, inputs_of("LlamaForCausalLM")),
        ("hf", good(), Facts("bert"), plain),
    )
    assert [done.status for done in found] == ["ok"] * 4 + ["failed"]
    one, other, logits, following = [arrays(done.output) for done in found[:4]]
    assert not within(one["logits"], other["logits"])
    assert within(following["next_logits"], logits["logits"][:, -1])
    assert found[4].code == orders.NO_ARCHITECTURE
