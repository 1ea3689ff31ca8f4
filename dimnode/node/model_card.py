"""What a person says of a model when it is added, and the manifest that comes of it.

Rule: what is not said is left out; what cannot stand in a manifest is refused before a byte is copied.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from dimnode.errors import PeerFault, Refused
from dimnode.node.model_files import Gathered, gather
from dimnode.node.registry import looks_strange
from dimnode.records.codec import in_order
from dimnode.records.ids import cid_bytes
from dimnode.records.manifest_kinds import COLUMN_NAME_MAX, FORMATS, PROFILE, safe_path
from dimnode.records.transforms import fault_of, first_wrong
from dimnode.schema_words import in_words

_WORD: Final = re.compile(r"[^\s/:](?:[^/:]{0,98}[^\s/:])?")


class PriceCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In millionths of a currency."""

    unit: Literal["answer", "row"] = "answer"
    micro: Annotated[int, msgspec.Meta(ge=0)]
    currency: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says about a model file when it is added. Shapes use -1 for a free size.

    A key that is not one of these is refused: a policy with a slip in its name would leave the model public.
    """

    name: str
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "1.0.0"
    format: str = ""
    """Empty: what the files look like, else onnx."""
    file: str = ""
    sha256: str = ""
    licence: Annotated[str, msgspec.Meta(max_length=128)] = ""
    origin: Literal["trained", "rule", "imported", "converted", "quantised"] = "imported"
    summary: Annotated[str, msgspec.Meta(max_length=512)] = ""
    inputs: list[tuple[str, str, list[int]]] = []
    outputs: list[tuple[str, str, list[int]]] = []
    labels: Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=256)] = []
    columns: list[str] = []
    """What the columns of the only input are called: a table that has them all is read by these names."""
    tokenizer: str = ""
    """For a text encoder: its tokenizer.json beside the model. Who asks it cuts text by that, to `max_tokens`."""
    max_tokens: int = 512
    access: Literal["public", "private", "restricted", "pay-per-use"] = "public"
    price: PriceCard | None = None
    """What an answer or a row costs, with access pay-per-use."""
    previous: str = ""
    """The id of the manifest that this one updates."""
    lineage: list[tuple[str, str]] = []
    """What it was made of: relation, and the id of a manifest or the CID of a file."""
    architecture: str = ""
    dtype: str = ""
    quantisation: str = ""
    memory_bytes: int = 0
    max_batch: int = 0
    pre: list[dict[str, Any]] = []
    post: list[dict[str, Any]] = []


def card_of(said: Mapping[str, Any]) -> ModelCard:
    """A card as a person wrote it; `license` is `licence`. Raises `Refused` E-models-07 naming the key."""
    spelt = dict(said)
    if "license" in spelt and spelt.setdefault("licence", spelt["license"]) != spelt.pop("license"):
        raise Refused("E-models-07", "the model's card is wrong: two licences", "", "licence or license, once")
    try:
        return msgspec.convert(spelt, ModelCard)
    except msgspec.ValidationError as error:
        what = f"the model's card is wrong: {in_words(error, ModelCard)}"
        raise Refused("E-models-07", what, "", "docs/operator.md, Models") from None
    except UnicodeEncodeError:  # JSON can say it, and no record can
        raise Refused("E-models-07", "the model's card is wrong: half of a letter in a text", "", "UTF-8") from None


def check_card(card: ModelCard) -> None:
    """Raises `Refused` for a name or version by which nobody could find it, or that looks like another, and a price
    that does not fit its policy."""
    if (card.access == "pay-per-use") != (card.price is not None):
        what = f"the model's card is wrong: access {card.access} {'with' if card.price else 'without'} a price"
        hint = 'pay-per-use goes with a price, as in --price "0.002 EUR/row"; no other access does'
        raise Refused("E-models-07", what, "", hint)
    for what, word in (("a model cannot be named", card.name), ("a model cannot have the version", card.version)):
        if not _WORD.fullmatch(word) or looks_strange(word):
            cause = "it is typed as publisher/name:version, in ASCII: other alphabets have letters that look like these"
            raise Refused("E-models-07", f"{what} {word!r}", cause, "letters, digits, and . - _ between them")
    if card.format and card.format not in FORMATS:
        raise Refused("E-models-03", f"format {card.format!r} is not supported", f"formats are {', '.join(FORMATS)}")


def gather_for(source: Path, card: ModelCard) -> Gathered:
    """The model's files, with the tokenizer that the card names beside a single file."""
    found = gather(source)
    if not card.tokenizer or source.is_dir():
        return found
    beside = gather(source.parent / card.tokenizer).files[0]
    return Gathered((*found.files, replace(beside, role="tokenizer")), found.skipped)


def check_sha256(place: Path, wanted: str) -> None:
    """Raises `Refused` when the file is not the one that the card means."""
    with place.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise Refused(
                "E-models-04",
                f"{place.name} does not have the declared sha256",
                "the file changed",
                "get the file again, or take sha256 out of the card when it is the right one",
            )


def body_of(card: ModelCard, chosen: str, files: list[list[Any]]) -> dict[str, Any]:
    """The manifest's fields; what the card does not say is left out."""
    body: dict[str, Any] = {
        "name": card.name,
        "version": card.version,
        "profile": PROFILE,
        "format": chosen,
        "files": files,
        "inputs": [list(entry) for entry in card.inputs],
        "outputs": [list(entry) for entry in card.outputs],
        "labels": list(card.labels),
        "licence": card.licence,
        "origin": card.origin,
        "access": card.access,
    }
    optional = ("summary", "architecture", "dtype", "quantisation", "memory_bytes", "max_batch", "pre", "post")
    body |= {key: value for key in optional if (value := getattr(card, key))}
    if card.price is not None:
        body["price"] = msgspec.structs.asdict(card.price)
    try:
        if card.previous:
            body["previous"] = cid_bytes(card.previous)
        if card.lineage:
            body["lineage"] = [[relation, cid_bytes(identity)] for relation, identity in card.lineage]
    except PeerFault:
        raise Refused("E-models-07", "the card names what is no id", "", "dim models show gives ids") from None
    _check_transforms(body)
    if card.columns:
        body["x_columns"] = _columns(card)
    if card.tokenizer and not card.pre:  # `pre` says more of the same
        body["x_text"] = {"tokenizer": safe_path(card.tokenizer), "max_tokens": card.max_tokens}
    return body


def _columns(card: ModelCard) -> list[str]:
    """Raises `Refused` E-models-07 when they cannot be the columns of the only input."""
    names, shapes = card.columns, [shape for _, _, shape in card.inputs]
    if len(set(names)) < len(names) or any(not 0 < len(name) <= COLUMN_NAME_MAX for name in names):
        raise Refused("E-models-07", "the card's columns are names, each once", f"of 1 to {COLUMN_NAME_MAX} letters")
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] not in (-1, len(names)):
        what = f"the card names {len(names)} columns, which its inputs do not have"
        raise Refused("E-models-07", what, "", 'inputs = [["x", "float32", [-1, NUMBER OF COLUMNS]]]')
    return list(names)


def _check_transforms(body: dict[str, Any]) -> None:
    """Raises `Refused` E-exec-90 for lists that no executor could carry out, naming the word."""
    hint = "docs/transforms.md"
    try:
        pre, post = (in_order(body.get(key, [])) for key in ("pre", "post"))
    except PeerFault as no:
        raise Refused("E-exec-90", "the card's transforms are no lists of words", no.rule, hint) from None
    for key, words in (("pre", pre), ("post", post)):
        if wrong := first_wrong(words):
            raise Refused("E-exec-90", f"the card's {key}{wrong}", "", hint)
    inputs, outputs, paths = ([entry[0] for entry in body[key]] for key in ("inputs", "outputs", "files"))
    if (pre or post) and (fault := fault_of(pre, post, inputs, outputs, paths)):
        raise Refused("E-exec-90", f"the card's transforms make no sense: {fault}", "", hint)
