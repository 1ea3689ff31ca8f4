"""A folder as transformers saves it, and the card that follows from it: what goes in, what comes out, and how.

Rule: only JSON is read here, with the same suspicion as in a worker; the weights are opened by nobody but a worker.
What a folder says in a way that is not known is left out, so that the model takes tensors.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dimnode.errors import ConfigError, Refused, RunFailed
from dimnode.exec.orders import NO_ARCHITECTURE
from dimnode.exec.runtimes.base import Content
from dimnode.exec.runtimes.choice import PACKAGES
from dimnode.exec.runtimes.config_file import Config, config_of
from dimnode.exec.runtimes.pretrained import CLASSES, Pretrained, pretrained_of
from dimnode.exec.runtimes.refusals import refusal_of, require_model_format
from dimnode.limits import LIMITS
from dimnode.records.manifest import HF, TRANSFORMERS

Words = list[dict[str, Any]]
_TOKENS_MAX: Final = 512
_NEXT_TOKENS: Final = 5
_LABELS_MAX: Final = 256
"""As many as a manifest may name."""
_FILTERS: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as preprocessor_config.json has them."""
_NANO: Final = 1_000_000_000
_FRONT_MATTER: Final = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_LICENCE: Final = re.compile(r"^license:[ \t]*['\"]?([\w.+-]{1,64})['\"]?[ \t]*$", re.MULTILINE)
_SPDX: Final = {
    word.lower(): word
    for word in ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "ISC")
}
"""Hubs write the ids of https://spdx.org/licenses in small letters."""


def config_in(folder: Path) -> Config | None:
    """Its config.json when that names a class of the list, else None. Raises `RunFailed` for one that is hostile."""
    config = _json(folder / "config.json")
    named = config.get("architectures") if config is not None else None
    known = isinstance(named, list) and len(named) == 1 and str(named[0]) in CLASSES
    return config if known else None


def is_chain(folder: Path) -> bool:
    """Whether its config is a chain of `layers`, which is none of transformers."""
    return "layers" in (_json(folder / "config.json") or {})


def require_bert(folder: Path) -> None:
    """For a folder that names no class of the list: only a BERT encoder can still be converted.

    Raises `RunFailed` E-exec-60 with the classes that run, and E-exec-64 for a config that is not of its class.
    """
    config = _json(folder / "config.json") or {}
    if config.get("model_type") == "bert":
        return
    hint = "export it to ONNX where it was made; or write a card (docs/operator.md, Models)"
    try:
        found = pretrained_of(config)
    except RunFailed as no:
        raise RunFailed(no.complaint.code, f"{folder.name}: {no.complaint.what}", "", hint) from None
    what = f"{folder.name}: a {found.name} is not converted to ONNX here, a BertModel is"
    raise RunFailed(NO_ARCHITECTURE, what, "", "--format torch, or export it to ONNX where it was made")


def card_of(folder: Path, config: Config) -> dict[str, Any]:
    """The card of a folder whose config names a class of the list.

    Raises `ConfigError` when transformers is not installed, `Refused` when there are no weights that may be read,
    `RunFailed` for a config that does not fit its class.
    """
    if not all(map(importlib.util.find_spec, PACKAGES[HF])):
        what = f"{folder.name} is a model of transformers, which is not installed here"
        raise ConfigError("E-cli-36", what, "this node could not run it", "pip install 'dimnode[hf]'")
    _require_weights(folder)
    found = pretrained_of(config)
    card: dict[str, Any] = {"name": folder.resolve().name, "format": "torch", "architecture": TRANSFORMERS}
    pre, post = _words(folder, found)
    wanted = {str(word.get("name")) for word in post} if found.family.decodes else set()
    card |= {"inputs": _rows(found.inputs(wanted)), "outputs": _rows((found.output(wanted),)), "pre": pre, "post": post}
    labels = found.labels()
    if labels and len(labels) <= _LABELS_MAX and all(len(label) <= 64 for label in labels):
        card["labels"] = list(labels)
    return {key: value for key, value in card.items() if value != []}


def licence_in(folder: Path) -> str:
    """The licence that the front matter of the folder's README.md states, as hubs have it; "" when none does."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            head = file.read(LIMITS.exec.model_config_bytes_max)
    except OSError:
        return ""
    front = _FRONT_MATTER.match(head)
    found = _LICENCE.search(front[1]) if front else None
    return "" if found is None else _SPDX.get(found[1].lower(), found[1])


def _require_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if refusal_of(path.name, b""))
    if pickles:
        require_model_format(f"{folder.name}/{pickles[0]}", b"")
    raise Refused("E-models-05", f"{folder.name} has no weights", "model.safetensors is not there", "check the path")


def _rows(ports: Any) -> list[list[Any]]:
    return [[name, dtype, list(shape)] for name, dtype, shape in ports]


def _words(folder: Path, found: Pretrained) -> tuple[Words, Words]:
    """What stands before and after it, where the folder says so."""
    pre = _picture(folder, found) if found.family.takes == "picture" else _text(folder, found)
    return (pre, _after(folder, found)) if pre else ([], [])


def _text(folder: Path, found: Pretrained) -> Words:
    if not (folder / "tokenizer.json").is_file():
        return []
    said = _json(folder / "sentence_bert_config.json") or {}
    most = min(found.positions, _whole(said.get("max_seq_length"), _TOKENS_MAX))
    cut = {"op": "tokenise", "name": "text", "into": "input_ids", "file": "tokenizer.json", "max_tokens": most}
    words: Words = [{"op": "input", "name": "text", "kind": "text"}]
    if found.family.decodes:  # without a mask, so of one length each
        return [*words, {**cut, "pad": "none"}, {"op": "call", "mode": "each"}]
    padding = _whole(found.config.get("pad_token_id"), 0)
    return [*words, {**cut, "mask": "attention_mask", "pad": "longest", "pad_id": padding}]


def _picture(folder: Path, found: Pretrained) -> Words:
    """As its preprocessor_config.json says; none when that says something that is not known."""
    said, side = _json(folder / "preprocessor_config.json") or {}, found.size("image_size")
    size = said.get("size")
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    filters, mean, std = (
        _FILTERS.get(_whole(said.get("resample", 2), -1)),
        said.get("image_mean"),
        said.get("image_std"),
    )
    plain = all(said.get(key, True) is True for key in ("do_resize", "do_rescale", "do_normalize"))
    plain = plain and not said.get("do_center_crop") and _is_one(said.get("rescale_factor", 1 / 255), 255)
    if sides != (side, side) or filters is None or not plain or not (_three(mean) and _three(std)):
        return []
    return [
        {"op": "input", "name": "picture", "kind": "image"},
        {"op": "decode_image", "name": "picture", "into": "pixels", "colour": "rgb"},
        {"op": "resize", "name": "pixels", "height": side, "width": side, "filter": filters},
        {"op": "scale", "name": "pixels", "multiply": 1, "divide": 255},
        {"op": "normalise", "name": "pixels", "mean_nano": _nano(mean), "std_nano": _nano(std)},
        {"op": "transpose", "name": "pixels", "into": "pixel_values", "axes": [2, 0, 1]},
    ]


def _three(said: Any) -> bool:
    """Numbers that have billionths."""
    numbers = isinstance(said, list) and len(said) == 3 and all(type(each) in (int, float) for each in said)
    return numbers and all(abs(each) <= _NANO for each in said)


def _is_one(number: Any, times: int) -> bool:
    return type(number) in (int, float) and abs(number * times - 1) < 1e-6


def _nano(said: Any) -> list[int]:
    return [round(each * _NANO) for each in said]


def _after(folder: Path, found: Pretrained) -> Words:
    if found.family.decodes:
        best = {"op": "top_k", "name": "next_logits", "into": "next_score", "places": "next_token", "k": _NEXT_TOKENS}
        return [best, {"op": "keep", "names": ["next_token", "next_score"]}]
    if found.name.endswith(("ForSequenceClassification", "ForImageClassification")):
        return [
            {"op": "softmax", "name": "logits", "into": "probabilities"},
            {"op": "argmax", "name": "probabilities", "into": "label"},
            {"op": "keep", "names": ["label", "probabilities"]},
        ]
    if found.name.endswith("Model") and found.family.takes == "tokens" and _means(folder):
        return [
            {"op": "mean_pool", "name": "last_hidden_state", "into": "embedding", "mask": "attention_mask"},
            {"op": "l2_normalise", "name": "embedding"},
            {"op": "sum", "name": "attention_mask", "into": "tokens", "axis": 0},
            {"op": "keep", "names": ["embedding", "tokens"]},
        ]
    return []


def _means(folder: Path) -> bool:
    """Whether it is a sentence encoder that takes the mean of its tokens, of length 1."""
    pooling, modules = _json(folder / "1_Pooling" / "config.json") or {}, folder / "2_Normalize"
    ways = [key for key, value in pooling.items() if key.startswith("pooling_mode") and value is True]
    said = folder / "modules.json"
    normalises = modules.is_dir() or b"Normalize" in _head(said)
    return ways == ["pooling_mode_mean_tokens"] and normalises


def _whole(said: Any, default: int) -> int:
    return said if type(said) is int and said >= 0 else default


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(LIMITS.exec.model_config_bytes_max)


def _json(path: Path) -> Mapping[str, Any] | None:
    """A map from a small file of the folder; None when there is none. Raises `RunFailed` for one that is no JSON."""
    try:
        with path.open("rb") as file:
            raw = file.read(LIMITS.exec.model_config_bytes_max + 1)
    except OSError:
        return None
    return config_of({path.name: Content("config", memoryview(raw))})
