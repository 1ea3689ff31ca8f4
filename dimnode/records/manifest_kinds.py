"""Records about models: the manifest in each of its versions, who may use one (`grant`), and its end (`withdraw`).

Rule: version 1 is read for ever and no longer written; what a later version says more is optional, so that a model
needs no more words than it has to say. Paths inside a model are a narrow set of ASCII names, of which no two could be
the same file on any system. A grant or withdrawal means something only when the signer of what it names signed it.
Frozen like every kind. Pure: no I/O, no clock. Field by field in docs/receipt.md.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from dimnode.records.ids import (
    BLOB_PREFIX,
    CID_BYTES,
    PEER_ID_BYTES,
    PEER_PREFIX,
    RECORD_ID_BYTES,
    RECORD_PREFIX,
    TREE_PREFIX,
)
from dimnode.records.shapes import Check, any_of, exact_bytes, fields, integer, list_of, one_of, row, text
from dimnode.records.transforms import transforms

MANIFEST_VERSION: Final = 2
"""The version in which manifests are written today."""
PROFILE: Final = "unixfs-v1-2025"
"""How the CIDs of a model's files are made: 1 MiB raw leaves, 1,024 links a node, balanced (IPIP-499)."""
FORMATS: Final = ("onnx", "torch", "mlx", "coreml")
ROLES: Final = ("model", "weights", "config", "tokenizer", "labels", "other")
ORIGINS: Final = ("trained", "rule", "imported", "converted", "quantised")
ACCESS: Final = ("public", "private", "restricted", "pay-per-use")
OPERATIONS: Final = ("fetch", "infer", "evaluate")
"""What a grant may allow: to hold the files, and to have a model run by whoever holds it."""
PRICE_UNITS: Final = ("answer", "row")
PATH_CHARS_MAX: Final = 255
FILES_MAX: Final = 64
COLUMN_NAME_MAX: Final = 128
_PATH_DEPTH_MAX: Final = 8
_PATH_PART_CHARS: Final = 128
_PATH_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9 ._+@=,()-]{0,126}[A-Za-z0-9_+@=,()-])?")
_CURRENCY: Final = re.compile(r"[A-Za-z0-9-]{1,16}")

_name = text(128, 1)
_record = exact_bytes(RECORD_ID_BYTES, prefix=RECORD_PREFIX)
_raw = exact_bytes(CID_BYTES, prefix=BLOB_PREFIX)
file_root = any_of(_raw, exact_bytes(CID_BYTES, prefix=TREE_PREFIX))
_identifier = any_of(_record, file_root)
_port = row(_name, text(16, 1), list_of(integer(-1, 2**31 - 1), 8))


def path_problem(path: str) -> str:
    """Why a model may have no file of this name; "" when it may.

    Parts are parted by `/`. A part begins with a letter, digit or `_`, so that there is neither `..` nor a hidden file,
    and does not end in a dot or space, which some systems drop.
    """
    parts = path.split("/")
    if len(path) > PATH_CHARS_MAX or len(parts) > _PATH_DEPTH_MAX:
        return f"longer than {PATH_CHARS_MAX} characters, or more than {_PATH_DEPTH_MAX} levels deep"
    if not all(_PATH_PART.fullmatch(part) for part in parts):
        return "absolute, hidden, with an empty part or `..`, or with others than A-Z a-z 0-9 ._+@=,()- and space"
    return ""


def safe_path(name: str) -> str:
    """A file's own name as a path inside a model: what may not stand there becomes `_`."""
    kept = re.sub(r"[^A-Za-z0-9 ._+@=,()-]", "_", name)[:_PATH_PART_CHARS].rstrip(" .")
    return kept if kept and not path_problem(kept) else f"_{kept}"[:_PATH_PART_CHARS]


def clash(paths: list[str]) -> str:
    """A path that is another's, in small letters, or another's folder; "" when there is none."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        lower = path.lower()
        above = {lower[:place] for place, letter in enumerate(lower) if letter == "/"}
        if lower in seen or lower in folders or above & seen:
            return path
        seen.add(lower)
        folders |= above
    return ""


def price(value: Any) -> bool:
    """What one answer or one row costs, in millionths of a currency."""
    known = fields({"unit": one_of(*PRICE_UNITS), "micro": integer(0), "currency": text(16, 1)})
    return known(value) and _CURRENCY.fullmatch(value["currency"]) is not None


def _path(value: Any) -> bool:
    return type(value) is str and not path_problem(value)


_files = list_of(row(_path, one_of(*ROLES), file_root, integer(1)), FILES_MAX, 1)


def _all_files(value: Any) -> bool:
    return _files(value) and not clash([entry[0] for entry in value])


def _second(common: Mapping[str, Check]) -> Check:
    known = fields(
        {
            **common,
            "v": integer(2, 2),
            "name": _name,
            "version": text(32, 1),
            "profile": one_of(PROFILE),
            "format": one_of(*FORMATS),
            "files": _all_files,
            "inputs": list_of(_port, 64),
            "outputs": list_of(_port, 64),
            "labels": list_of(text(64), 256),
            "licence": text(128),
            "origin": one_of(*ORIGINS),
            "access": one_of(*ACCESS),
        },
        {
            "summary": text(512),
            "price": price,
            "previous": _record,
            "lineage": list_of(row(text(32, 1), _identifier), 32),
            "parity": _record,
            "architecture": text(64, 1),
            "dtype": text(32, 1),
            "quantisation": text(32, 1),
            "memory_bytes": integer(1),
            "pre": transforms,
            "post": transforms,
            "max_batch": integer(1),
        },
    )

    def check(value: Any) -> bool:
        """Pay-per-use is restricted with a price; what is not for sale has none."""
        return known(value) and (value["access"] == "pay-per-use") == ("price" in value)

    return check


def manifest_schemas(common: Mapping[str, Check]) -> dict[tuple[str, int], Check]:
    """The schema of each kind and version; `common` are the fields that every record has."""
    first = fields(
        {
            **common,
            "name": _name,
            "version": text(32, 1),
            "format": one_of("onnx"),
            "files": list_of(row(_name, _raw, integer(1)), FILES_MAX, 1),
            "inputs": list_of(_port, 64),
            "outputs": list_of(_port, 64),
            "labels": list_of(text(64), 256),
            "licence": text(128),
            "origin": one_of("trained", "rule", "imported"),
            "access": one_of("public", "private"),
        },
        {"summary": text(512)},
    )
    grant = fields(
        {
            **common,
            "peer": exact_bytes(PEER_ID_BYTES, prefix=PEER_PREFIX),
            "models": list_of(_record, 64, 1),
            "operations": list_of(one_of(*OPERATIONS), 8, 1),
        },
        {"expires_ms": integer(1), "price": price, "terms": text(256)},
    )
    withdraw = fields({**common, "subject": _record, "reason": text(256)}, {"replacement": _record})
    return {
        ("manifest", 1): first,
        ("manifest", MANIFEST_VERSION): _second(common),
        ("grant", 1): grant,
        ("withdraw", 1): withdraw,
    }
