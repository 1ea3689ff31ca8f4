"""What a card does not say of a model's inputs and outputs, taken from the model itself.

Rule: what a person wrote stays. The rest comes from the config where that is enough, else from loading the model behind
the walls of a process of its own (`exec/schema.py`); nothing is guessed. Everything here blocks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dimnode.exec.runtimes.architectures.choice import LLAMAS
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.config_file import config_of
from dimnode.exec.runtimes.pretrained import pretrained_of
from dimnode.exec.schema import declared_schema, schema_of
from dimnode.limits import LIMITS
from dimnode.node.model_files import SourceFile, format_of
from dimnode.records.manifest import TRANSFORMERS, runtime_for

_FACTS: Final = ("architecture", "dtype", "quantisation", "inputs", "outputs")
_NOT_THE_MODEL: Final = ("tokenizer", "labels")


def with_schema(card: dict[str, Any], files: Sequence[SourceFile]) -> dict[str, Any]:
    """The card with inputs, outputs and, for torch and mlx, the architecture that its config means.

    Raises `RunFailed` or `Refused`: the model does not load, or there is no way to look into it here.
    """
    form = card.get("format") or format_of(tuple(files)) or "onnx"
    if form == "onnx":
        graphs = [file.place for file in files if file.path.endswith(".onnx")] or [file.place for file in files][:1]
        if not card.get("inputs") and len(graphs) == 1:
            card["inputs"], card["outputs"] = declared_schema(graphs[0])
        return card
    if card.get("inputs") and card.get("outputs"):
        return card
    if form in ("torch", "mlx") and not card.get("architecture") and (found := _architecture(files)):
        card["architecture"] = found
    if card.get("architecture") == TRANSFORMERS:
        return _of_config(card, files)
    shown = [(file.path, file.role, file.place) for file in files if file.role not in _NOT_THE_MODEL]
    facts = {key: card[key] for key in _FACTS if card.get(key)}
    inputs, outputs = schema_of(runtime_for(form, card.get("architecture", "")), shown, facts)
    return {**card, "format": form, "inputs": card.get("inputs") or inputs, "outputs": card.get("outputs") or outputs}


def _of_config(card: dict[str, Any], files: Sequence[SourceFile]) -> dict[str, Any]:
    found = pretrained_of(config_of(_configs(files)))
    inputs, outputs = ([entry[0] for entry in card.get(key, ())] for key in ("inputs", "outputs"))
    rows = [[name, dtype, list(shape)] for name, dtype, shape in (*found.inputs(inputs), found.output(outputs))]
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
