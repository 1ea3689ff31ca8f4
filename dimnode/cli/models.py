"""Models: offer one or a new version of it, list all.

Rule: a card says what a model is; the file itself is only ever opened by the node, and parsed only in a sandbox.
"""

import argparse
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dimnode.cli.blobs import ANEW, watched
from dimnode.cli.model_care import price_of, takes_text
from dimnode.cli.node import open_client
from dimnode.cli.output import counted, say, say_json, shown, size_text, table, talk
from dimnode.cli.pretrained import card_of, config_in, is_chain, licence_in, require_bert
from dimnode.errors import ConfigError, Refused, why_of
from dimnode.node.model_files import CARD, gather
from dimnode.node.model_schema import with_schema
from dimnode.records.ids import PEER_LETTERS_MIN
from dimnode.records.transforms import sources_of, takes_row

_EMBEDDING_TOKENS = 256
_EXAMPLES = {"text": '"a sentence"', "image": "picture.png", "audio": "sound.wav", "bytes": "some.file"}
_EXAMPLES |= {"rows": "rows.csv", "tensor": "rows.npy"}
_OVERRIDES = ("format", "licence", "origin", "summary", "labels", "access")
_NOT_PUBLISHED = ("file", "notes")
_LABELS_SHOWN = 4
_OFFERED = {
    "public": "offered to the swarm",
    "private": "for this node alone, and nobody hears of it",
    "restricted": "the swarm hears of it; who may use it says dim models grant",
    "pay-per-use": "the swarm hears of it and its price; who may use it says dim models grant",
}


def add(chosen: argparse.Namespace) -> int:
    """Offer a model: its card from a .toml file, from the .toml beside it, or from flags and the file's own schema."""
    source = chosen.file.expanduser().absolute()
    with tempfile.TemporaryDirectory(prefix="dim-model-") as folder:
        return _add(chosen, *_card_and_source(chosen, source, Path(folder)))


def update(chosen: argparse.Namespace) -> int:
    """A new version of a model of this node's own; what is not said again stays."""
    card = _said(chosen, {}) | {"version": chosen.version}
    with open_client(chosen) as client, tempfile.TemporaryDirectory(prefix="dim-model-") as folder:
        path = None
        if chosen.file is not None:
            said, path = _card_and_source(chosen, chosen.file.expanduser().absolute(), Path(folder))
            card = _with_schema({**said, **_said(chosen, said), "version": chosen.version}, path)
        elif chosen.card is not None:
            card = _kept(_read_card(chosen.card)) | card
        done = watched(
            client,
            str(path),
            lambda: client.ask("models.update", model=chosen.model, card=card, **_place(path)),
            quiet=chosen.json,
            stopped=ANEW,
        )
    if chosen.json:
        say_json(done)
    else:
        say(f"{done['name']}  {done['model']}")
    return 0


def _add(chosen: argparse.Namespace, card: dict[str, Any], path: Path) -> int:
    card |= _said(chosen, card)
    card |= {key: value for key in ("name", "version") if (value := getattr(chosen, key)) is not None}
    card.setdefault("name", path.stem)
    if "price" in card:
        card.setdefault("access", "pay-per-use")
    if not path.exists():
        raise Refused("E-models-05", f"cannot read {path}", "there is no such file", "check the path")
    with open_client(chosen) as client:
        card = _with_schema(card, path)
        added = watched(
            client,
            str(path),
            lambda: client.ask("models.add", card=card, **_place(path)),
            quiet=chosen.json,
            stopped=ANEW,
        )
    if not card.get("licence"):
        talk("no licence was given: --licence says what others may do with it")
    if chosen.json:
        say_json(added)
    else:
        say(f"{added['name']}  {added['model']}")
        takes = [takes_row(source) for source in sources_of(card.get("pre", ()))]
        example = _example(takes, card.get("inputs", ()))
        given = takes_text({"inputs": [], **card, "takes": takes})
        run = f"dim run {shlex.quote(added['name'])} {example}"
        talk(f"{_OFFERED[card.get('access', 'public')]}; it takes {given}. next: {run}")
    return 0


def _said(chosen: argparse.Namespace, card: Mapping[str, Any]) -> dict[str, Any]:
    """What flags say beside a card. Raises `ConfigError` for a price of what is not sold."""
    said = {key: value for key in _OVERRIDES if (value := getattr(chosen, key)) is not None}
    if (price := price_of(chosen.price)) is not None:
        access = said.get("access", card.get("access", "pay-per-use"))
        if access != "pay-per-use":
            what = f"--price says pay-per-use, and access is {access}"
            raise ConfigError("E-cli-10", what, "", "leave one of them out, or --access pay-per-use")
        said["price"] = price
    return said


def _with_schema(card: dict[str, Any], path: Path) -> dict[str, Any]:
    """Inputs and outputs from the model itself, where the card does not say them."""
    found = gather(path)
    if left_out := [name for name in found.skipped if not name.startswith(".")]:
        talk(f"left out, being empty or of a format that can hold code: {shown(left_out)}")
    return with_schema(card, found.files)


def _place(path: Path | None) -> dict[str, Any]:
    """Of a model whose card is compared with it already."""
    return {"path": str(path) if path else None, "looked_at": path is not None}


def _card_and_source(chosen: argparse.Namespace, source: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    """A folder of one format is offered as it is; one of transformers gets the card that its config says, or is
    converted when it is a BERT encoder and nobody said a format."""
    card, path = _found(chosen, source, folder)
    if source.is_dir() and not card.get("licence") and (licence := licence_in(source)):
        card["licence"] = licence
    if chosen.card is not None:
        card |= {key: value for key, value in _kept(_read_card(chosen.card)).items() if key != "tokenizer"}
    return card, path


def _found(chosen: argparse.Namespace, source: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    if not source.is_dir():
        return _card_and_file(source)
    beside = source / CARD
    card = _kept(_read_card(beside)) if beside.is_file() else {}
    if card or not (source / "config.json").is_file():
        return card, source
    config = config_in(source) if chosen.format in (None, "torch") else None
    if chosen.format and config is not None:
        return card_of(source, config), source
    if chosen.format == "coreml" and not any(source.rglob("*.mlmodel")):
        hint = "leave --format out; or convert it with coremltools and add the .mlpackage"
        raise Refused("E-models-05", f"{source.name} has no .mlpackage", "so it is no model of CoreML", hint)
    if chosen.format not in (None, "onnx") or any(source.rglob("*.onnx")) or is_chain(source):
        return card, source
    if config is None or config["architectures"] == ["BertModel"]:  # faster as a graph
        require_bert(source)
        return _converted(source, folder)
    return card_of(source, config), source


def ls(chosen: argparse.Namespace) -> int:
    """Models here and on peers that were heard lately; or all that one publisher publishes, by its index."""
    with open_client(chosen) as client:
        answer = client.ask("models.ls", publisher=chosen.publisher)
    rows = [row for row in answer["models"] if row.get("mine") or not chosen.mine]
    if chosen.json:
        say_json({**answer, "models": rows})
        return 0
    _list(rows)
    if (problem := answer.get("problem")) is not None:
        talk(f"these were heard from peers; {problem['what']} ({problem['code']}): {problem['cause']}")
    if left_out := (answer.get("index") or {}).get("left_out"):
        talk(f"its index has no room for {left_out} older ones")
    return 0


def _list(rows: Sequence[Mapping[str, Any]]) -> None:
    publishers = {name: {row["publisher"] for row in rows if _bare(row) == name} for name in map(_bare, rows)}
    cells = []
    for row in rows:
        where = (["here"] if row["here"] else []) + row["peers"]
        takes = takes_text(row)
        publisher, whole = row.get("publisher_name", ""), row["publisher"]
        if len(publishers[_bare(row)]) > 1:  # enough letters to name it; a label has none, or too few
            name = publisher.removesuffix(whole[-8:]).rstrip("… ")
            publisher = f"{name} …{whole[-PEER_LETTERS_MIN:]}".strip()
        # Letters of other alphabets may look like these: a stranger's name is shown so that it cannot pass for another.
        name = row["name"].encode("ascii", "backslashreplace").decode()
        access = row.get("access", "public")  # a node of the last version does not say
        policy = access if row.get("allowed", True) else f"{access}, not for you"
        labels = row["labels"] if len(row["labels"]) <= _LABELS_SHOWN else counted(len(row["labels"]), "label")
        cells.append([name, publisher, where, policy, takes, labels, size_text(row["bytes"]), row["summary"]])
    columns = ("name", "publisher", "where", "policy", "takes", "labels", "size", "summary")
    table(columns, cells, "no models yet; hint: dim models add FILE")
    if several := sorted(name for name, whose in publishers.items() if len(whose) > 1):
        letters = next(row["publisher"][-PEER_LETTERS_MIN:] for row in rows if _bare(row) == several[0])
        talk(f"several peers publish {shown(several)}; name one by its publisher: dim run {letters}/{several[0]}")


def _example(takes: Sequence[Mapping[str, Any]], inputs: Sequence[Sequence[Any]]) -> str:
    """An input that such a model takes, to be typed after `dim run MODEL`."""
    if takes:
        return _EXAMPLES[takes[0]["kind"]] if len(takes) == 1 else "rows.csv"
    if len(inputs) > 1:
        form = ", ".join(f'"{name}": {_nested(len(shape))}' for name, _, shape in inputs)
        return f"rows.json, which holds {{{form}}}"
    return "rows.csv" if not inputs or len(inputs[0][2]) <= 2 else "rows.npy"


def _nested(rank: int) -> str:
    return "[" * rank + "…" + "]" * rank


def _bare(row: Mapping[str, Any]) -> str:
    return str(row["name"].rpartition(":")[0])


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


def _converted(source: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    """A HuggingFace directory of a BERT sentence encoder, as ONNX with its tokenizer beside it."""
    try:
        from dimnode.models.bert import bert_to_onnx
    except ImportError as error:
        what = "converting a directory needs packages that are not installed"
        raise ConfigError("E-cli-36", what, str(error), "pip install 'dimnode[models]'") from None
    talk(f"converting {source} to ONNX …")
    path = folder / "model.onnx"
    shape = bert_to_onnx(source, path)
    tokenizer = source / "tokenizer.json"
    if not tokenizer.is_file():
        raise Refused("E-models-05", f"cannot read {tokenizer}", "there is no such file", "a fast tokenizer is needed")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    ids = [[name, "int64", [-1, -1]] for name in ("input_ids", "attention_mask")]
    card = {
        "name": source.resolve().name,
        "inputs": ids,
        "outputs": [["embedding", "float32", [-1, shape.hidden]]],
        "tokenizer": "tokenizer.json",
        **_sentences(min(shape.positions, _EMBEDDING_TOKENS)),
    }
    return card, path


def _sentences(max_tokens: int) -> dict[str, Any]:
    """How text becomes the tokens of such an encoder; `tokens` is how many they were."""
    cut = {"op": "tokenise", "name": "text", "file": "tokenizer.json", "max_tokens": max_tokens, "pad": "longest"}
    return {
        "pre": [
            {"op": "input", "name": "text", "kind": "text"},
            {**cut, "into": "input_ids", "mask": "attention_mask"},
        ],
        "post": [
            {"op": "sum", "name": "attention_mask", "into": "tokens", "axis": 0},
            {"op": "keep", "names": ["embedding", "tokens"]},
        ],
    }


def _kept(card: dict[str, Any]) -> dict[str, Any]:
    """A card of a file, checked. Raises `Refused` for a key that no card has, and for what cannot be its value."""
    from dimnode.node.model_card import card_of as checked

    said = {key: value for key, value in card.items() if key not in _NOT_PUBLISHED}
    checked({"name": "model", **said})
    return {"licence" if key == "license" else key: value for key, value in said.items()}


def _read_card(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "E-cli-30", f"cannot read the card {path}", why_of(error), "docs/operator.md, Models"
        ) from None
