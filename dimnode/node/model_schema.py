"""What a card does not say of a model's inputs and outputs, taken from the model itself.

Rule: what a person wrote stays, and is refused where the model says otherwise. The rest comes from the config where
that is enough, else from loading the model behind the walls of a process of its own (`exec/schema.py`); nothing is
guessed. Everything here blocks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from dimnode.errors import DimError, Refused
from dimnode.exec import orders
from dimnode.exec.runtimes.architectures.choice import LLAMAS
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.config_file import config_of
from dimnode.exec.runtimes.pretrained import pretrained_of
from dimnode.exec.schema import Rows, schema_of
from dimnode.limits import LIMITS
from dimnode.node.model_card import ModelCard, card_of, check_card, gather_for
from dimnode.node.model_files import SourceFile, format_of, gather_listed
from dimnode.records.manifest import TRANSFORMERS, runtime_for

_FACTS: Final = ("architecture", "dtype", "quantisation", "inputs", "outputs")
_NOT_THE_MODEL: Final = ("tokenizer", "labels")
_GRAPH: Final = ("model", "weights")
_NOT_SEEN: Final = frozenset({"E-cli-31", "E-cli-32", "E-models-06", orders.NO_RUNTIME, orders.OUT_OF_MEMORY})
"""It was not found out what the model is: it is too large, or there are no walls or no runtime for it here."""


def compared(card: ModelCard, source: Path | Sequence[SourceFile]) -> ModelCard:
    """The same for a card of any door, with a model from a path or of listed files."""
    check_card(card)
    gathered = gather_for(source, card) if isinstance(source, Path) else gather_listed(source)
    facts = {key: value for key in ("format", *_FACTS) if (value := getattr(card, key))}
    return card_of({**msgspec.to_builtins(card), **with_schema(facts, gathered.files)})


def with_schema(card: dict[str, Any], files: Sequence[SourceFile]) -> dict[str, Any]:
    """The card with inputs, outputs and, for torch and mlx, the architecture that its config means.

    Raises `RunFailed` or `Refused`: the model does not load, is another than the card says (E-models-07), or there is
    no way to look into it here and the card does not say all.
    """
    form = card.get("format") or format_of(tuple(files)) or "onnx"
    if form in ("torch", "mlx") and (means := _architecture(files)) and not card.get("architecture"):
        card["architecture"] = means
    if card.get("architecture") == TRANSFORMERS:
        return _of_config(card, files)
    try:
        inputs, outputs = _looked_at(form, card, files)
    except DimError as error:
        code = error.complaint.code
        unseen = code in _NOT_SEEN or (form == "onnx" and code == orders.UNFIT_MODEL)  # another output is no tensor
        if not (unseen and card.get("inputs") and card.get("outputs")):
            raise
        return card
    for key, found in (("inputs", inputs), ("outputs", outputs)):
        _check(key, card.get(key) or found, found)
    return {**card, "format": form, "inputs": card.get("inputs") or inputs, "outputs": card.get("outputs") or outputs}


def _looked_at(form: str, card: Mapping[str, Any], files: Sequence[SourceFile]) -> tuple[Rows, Rows]:
    shown = [
        (file.path, file.role, file.place)
        for file in files
        if (file.role in _GRAPH if form == "onnx" else file.role not in _NOT_THE_MODEL)
    ]
    if sum(place.stat().st_size for _, _, place in shown) > LIMITS.exec.parsed_bytes_max:
        what = f"inputs and outputs are read from models of at most {LIMITS.exec.parsed_bytes_max >> 30} GiB"
        cause = "this one is larger, and has no card that says them"
        raise Refused("E-models-06", what, cause, "write a card with inputs and outputs (docs/operator.md, Models)")
    facts = {key: card[key] for key in _FACTS if card.get(key)}
    return schema_of(runtime_for(form, card.get("architecture", "")), shown, facts)


def _check(key: str, said: Rows, found: Rows) -> None:
    """Raises `Refused` E-models-07 where the card's rows cannot be the model's: no job could run.

    A card may name fewer outputs, and say sizes that the model leaves free; every input has to be there.
    """
    there = {name: (dtype, shape) for name, dtype, shape in found}
    hint = f"the model's {key} are {', '.join(f'{name} {dtype}{shape}' for name, dtype, shape in found[:8])}"
    for name, dtype, shape in said:
        if name not in there:
            raise Refused("E-models-07", f"the card's {key} are not the model's: it has no {name!r}", "", hint)
        if dtype != there[name][0] or not _may_be(shape, there[name][1]):
            what = f"the card's {key} are not the model's: {name} is no {dtype}{list(shape)}"
            raise Refused("E-models-07", what, "", hint)
    if key == "inputs" and (missing := sorted(there.keys() - {name for name, _, _ in said})):
        raise Refused("E-models-07", f"the card's inputs are not the model's: {missing[0]!r} is missing", "", hint)


def _may_be(said: Sequence[int], found: Sequence[int]) -> bool:
    """An empty shape is a scalar's, and that of a tensor whose rank is not declared."""
    pairs = zip(said, found, strict=False)
    return not found or (len(said) == len(found) and all(-1 in pair or pair[0] == pair[1] for pair in pairs))


def _of_config(card: dict[str, Any], files: Sequence[SourceFile]) -> dict[str, Any]:
    found = pretrained_of(config_of(_configs(files)))
    inputs, outputs = ([entry[0] for entry in card.get(key, ())] for key in ("inputs", "outputs"))
    rows = [[name, dtype, list(shape)] for name, dtype, shape in (*found.inputs(inputs), found.output(outputs))]
    for key, there in (("inputs", rows[:-1]), ("outputs", rows[-1:])):
        _check(key, card.get(key) or there, there)
    return {**card, "inputs": card.get("inputs") or rows[:-1], "outputs": card.get("outputs") or rows[-1:]}


def _architecture(files: Sequence[SourceFile]) -> str:
    """The word for what a config describes; "" when it is none of ours."""
    configs = _configs(files)
    config = config_of(configs) if configs else {}
    kind = config.get("model_type")
    return "layers" if "layers" in config else "bert" if kind == "bert" else "llama" if str(kind) in LLAMAS else ""


def _configs(files: Sequence[SourceFile]) -> Files:
    found = {file.path: _head(file.place) for file in files if file.role == "config"}
    return {path: Content("config", memoryview(raw)) for path, raw in found.items()}


def _head(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(LIMITS.exec.model_config_bytes_max + 1)
