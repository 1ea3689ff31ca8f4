"""What goes into models.json: records about models, and bodies of them that must be refused."""

import hashlib
import json
from typing import Any

from dimnode.records.codec import encode
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import TREE_PREFIX, blob_cid, cid_text, record_id
from dimnode.records.kinds import OPEN_SWARM_ID

T0 = 1_790_000_000_000
PUBLISHER = SigningKey.from_seed(hashlib.sha256(b"dimnode golden publisher").digest())
SMALL, LARGE = blob_cid(b"a small file"), TREE_PREFIX + hashlib.sha256(b"a root").digest()
FIRST: dict[str, Any] = {
    "name": "triage",
    "version": "1.0.0",
    "format": "onnx",
    "files": [["model.onnx", SMALL, 12]],
    "inputs": [["x", "float32", [-1, 4]]],
    "outputs": [["label", "int64", [-1]]],
    "labels": ["home", "ward"],
    "licence": "Apache-2.0",
    "origin": "trained",
    "access": "public",
}
SECOND: dict[str, Any] = FIRST | {"profile": "unixfs-v1-2025", "files": [["model.onnx", "model", SMALL, 12]]}
FULL: dict[str, Any] = SECOND | {
    "format": "torch",
    "files": [
        ["config.json", "config", SMALL, 12],
        ["weights/part-1.safetensors", "weights", LARGE, 3_000_000],
        ["tokenizer.json", "tokenizer", SMALL, 12],
    ],
    "origin": "quantised",
    "access": "pay-per-use",
    "summary": "sorts who comes in",
    "price": {"unit": "row", "micro": 250, "currency": "EUR"},
    "previous": record_id(b"an older manifest"),
    "lineage": [["fine-tuned", record_id(b"another manifest")], ["data", LARGE]],
    "parity": record_id(b"a certificate"),
    "architecture": "bert",
    "dtype": "int8",
    "quantisation": "dynamic-int8",
    "memory_bytes": 12_000_000,
    "pre": [{"kind": "rows", "name": "x", "op": "input"}],
    "post": [{"op": "a_later_word", "steps": [1, 2]}],
    "max_batch": 64,
}


FRIEND = SigningKey.from_seed(hashlib.sha256(b"dimnode golden friend").digest())
GRANT: dict[str, Any] = {"peer": FRIEND.peer, "models": [record_id(b"a manifest")], "operations": ["fetch", "infer"]}
WITHDRAW: dict[str, Any] = {"subject": record_id(b"a manifest"), "reason": "a label was wrong"}


def sealed(kind: str, body: dict[str, Any], version: int, at_ms: int = T0) -> tuple[bytes, bytes]:
    """Id and envelope of any body, also of one that the schema forbids."""
    common = {"v": version, "kind": kind, "net": OPEN_SWARM_ID, "by": PUBLISHER.peer, "at_ms": at_ms}
    payload = encode(common | body)
    return record_id(payload), seal(PUBLISHER, kind, payload, version)


def _files(*paths: str) -> dict[str, Any]:
    return SECOND | {"files": [[path, "other", SMALL, 12] for path in paths]}


def _wrong_manifests() -> list[tuple[dict[str, Any], str]]:
    bad_paths = ["", ".", "..", "../up", "a/../b", "/etc/passwd", "a//b", "a/", "C:/x", "a\\b", ".hidden", "a.", "a "]
    bad_paths += ["a\0b", "a\nb", "zürich.onnx", "\u202eonnx", "x" * 256, "/".join("abcdefghi")]
    return [
        *((_files(path), f"a file called {path[:20]!r}") for path in bad_paths),
        (_files("model.onnx", "model.onnx"), "a path twice"),
        (_files("model.onnx", "Model.ONNX"), "a path twice, in other letters"),
        (_files("a", "a/b"), "a path that is another's folder"),
        (_files("a/b", "A"), "a path that is another's folder, in other letters"),
        (_files(*(f"f{number}" for number in range(65))), "65 files"),
        (SECOND | {"files": []}, "no file"),
        (SECOND | {"files": FIRST["files"]}, "files as version 1 wrote them"),
        (SECOND | {"files": [["m", "virus", SMALL, 12]]}, "an unknown role"),
        (SECOND | {"files": [["m", "model", SMALL, 0]]}, "an empty file"),
        (SECOND | {"files": [["m", "model", b"\x01\x71" + SMALL[2:], 12]]}, "a CID of another codec"),
        (SECOND | {"files": [["m", "model", SMALL[:-1], 12]]}, "a CID cut short"),
        ({key: entry for key, entry in SECOND.items() if key != "profile"}, "no profile"),
        (SECOND | {"profile": "unixfs-v0-2015"}, "another profile"),
        (SECOND | {"format": "pickle"}, "an unknown format"),
        (SECOND | {"access": "secret"}, "an unknown policy"),
        (SECOND | {"access": "pay-per-use"}, "pay-per-use without a price"),
        (FULL | {"access": "restricted"}, "a price of what is not for sale"),
        (FULL | {"price": FULL["price"] | {"micro": -1}}, "a price below nothing"),
        (FULL | {"price": FULL["price"] | {"currency": "€"}}, "a currency that is no word"),
        (FULL | {"price": FULL["price"] | {"unit": "hour"}}, "a price for an unknown unit"),
        (FULL | {"lineage": [["base", b"x"]]}, "lineage to nothing"),
        (FULL | {"previous": SMALL}, "an update of what is no record"),
        (FULL | {"pre": [{"how": 1}]}, "a transform without a name"),
        (FULL | {"memory_bytes": 0}, "a model that needs no memory"),
        (SECOND | {"surprise": 1}, "an unknown field"),
    ]


def _wrong_grants() -> list[tuple[dict[str, Any], str]]:
    return [
        (GRANT | {"models": []}, "a grant of nothing"),
        (GRANT | {"models": [SMALL]}, "a grant of what is no record"),
        (GRANT | {"models": [record_id(b"m")] * 65}, "a grant of 65 models"),
        (GRANT | {"operations": []}, "a grant to do nothing"),
        (GRANT | {"operations": ["statistics"]}, "a grant of an unknown operation"),
        (GRANT | {"peer": PUBLISHER.peer[:-1]}, "a grant to nobody"),
        (GRANT | {"expires_ms": 0}, "a grant that ends before time began"),
        ({key: entry for key, entry in GRANT.items() if key != "peer"}, "a grant to everybody"),
        (GRANT | {"surprise": 1}, "a grant with an unknown field"),
    ]


def _wrong_withdrawals() -> list[tuple[dict[str, Any], str]]:
    return [
        (WITHDRAW | {"subject": SMALL}, "a withdrawal of what is no record"),
        ({"subject": WITHDRAW["subject"]}, "a withdrawal without a word"),
        (WITHDRAW | {"reason": "x" * 257}, "a long withdrawal"),
        (WITHDRAW | {"replacement": ""}, "a replacement that is none"),
    ]


def model_vectors() -> dict[str, Any]:
    """All of models.json."""
    accepted = [
        ("manifest", 1, FIRST),
        ("manifest", 2, SECOND),
        ("manifest", 2, FULL),
        ("manifest", 2, SECOND | {"x_text": {"tokenizer": "tokenizer.json", "max_tokens": 256}}),
        ("grant", 1, GRANT),
        ("grant", 1, GRANT | {"expires_ms": T0 + 1, "price": FULL["price"], "terms": "invoiced by the month"}),
        ("withdraw", 1, WITHDRAW),
        ("withdraw", 1, WITHDRAW | {"replacement": record_id(b"a newer manifest")}),
    ]
    rows = []
    for kind, version, body in accepted:
        identity, envelope = sealed(kind, body, version)
        rows.append({"kind": kind, "version": version, "id": cid_text(identity), "envelope": envelope.hex()})
    refused = [("manifest", 2, body, why) for body, why in _wrong_manifests()]
    refused += [("grant", 1, body, why) for body, why in _wrong_grants()]
    refused += [("withdraw", 1, body, why) for body, why in _wrong_withdrawals()]
    refused.append(("manifest", 1, SECOND, "a manifest of version 2 in an envelope of version 1"))
    later = sealed("manifest", {"anything": [1, {"goes": None}]}, 3)
    return {
        "accepted": rows,
        "refused": [
            {"envelope": sealed(kind, body, version)[1].hex(), "why": why} for kind, version, body, why in refused
        ],
        "later": {"kind": "manifest/3", "id": cid_text(later[0]), "envelope": later[1].hex()},
    }


def models_text() -> str:
    """models.json as it is kept."""
    return json.dumps(model_vectors(), indent=1) + "\n"
