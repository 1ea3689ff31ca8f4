"""Models: offer one, list all.

Rule: a card says what a model is; the file itself is only ever opened by the node, and parsed only in a sandbox.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

from dimnode.cli.node import open_client
from dimnode.cli.onnx_schema import declared_schema
from dimnode.cli.output import say, say_json, size_text, table, talk
from dimnode.errors import ConfigError, Refused

_CARD_KEYS = ("name", "version", "format", "sha256", "licence", "origin", "summary", "inputs", "outputs", "labels")
_OVERRIDES = ("name", "version", "licence", "origin", "summary", "labels")


def add(chosen: argparse.Namespace) -> int:
    """Offer a model: its card from a .toml file, from the .toml beside it, or from flags and the file's own schema."""
    card, path = _card_and_file(chosen.file.expanduser())
    card |= {key: value for key in _OVERRIDES if (value := getattr(chosen, key)) is not None}
    card.setdefault("name", path.stem)
    if not path.is_file():
        raise Refused("E-models-05", f"cannot read {path}", "there is no such file", "check the path")
    with open_client(chosen) as client:
        if not card.get("inputs"):
            card["inputs"], card["outputs"] = declared_schema(path)
        added = client.add_model(card, path)
    if not card.get("licence"):
        talk("no licence was given: --licence says what others may do with it")
    if chosen.json:
        say_json(added)
    else:
        say(f"{added['name']}  {added['model']}")
        inputs = ", ".join(f"{name} {dtype}{shape}" for name, dtype, shape in card["inputs"])
        talk(f"offered to the swarm; it takes {inputs}. next: dim run {added['name']} rows.csv")
    return 0


def ls(chosen: argparse.Namespace) -> int:
    """Models here and on peers that were heard lately."""
    with open_client(chosen) as client:
        rows = client.models()
    if chosen.json:
        say_json({"models": rows})
        return 0
    cells = []
    for row in rows:
        where = (["here"] if row["here"] else []) + row["peers"]
        takes = ", ".join(f"{name} {dtype}{_shape(shape)}" for name, dtype, shape in row["inputs"])
        cells.append([row["name"], where, takes, row["labels"], size_text(row["bytes"]), row["summary"]])
    table(("name", "where", "takes", "labels", "size", "summary"), cells, "no models yet; hint: dim models add FILE")
    return 0


def _shape(shape: list[int]) -> str:
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"


def _card_and_file(path: Path) -> tuple[dict[str, Any], Path]:
    """The card as far as a file names it, and the model's file."""
    if path.suffix == ".toml":
        card = _read_card(path)
        if not card.get("file"):
            raise ConfigError("E-cli-30", f"{path} names no model", "", 'add a line: file = "model.onnx"')
        return _kept(card), path.parent / str(card["file"])
    beside = path.with_suffix(".toml")
    if beside.is_file():
        talk(f"card: {beside}")
        return _kept(_read_card(beside)), path
    return {}, path


def _kept(card: dict[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in _CARD_KEYS if key in card}


def _read_card(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("E-cli-30", f"cannot read the card {path}", str(error), "docs/operator.md, Models") from None
