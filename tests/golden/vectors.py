"""What goes into vectors.json: values beside their bytes, and bytes that must be refused.

Values are written so that any language can read them: {"int": "…"} for integers, {"bin": "hex"} for bytes,
{"map": {…}} for maps; null, booleans, texts and lists stand for themselves.
"""

import hashlib
from typing import Any

import nacl.bindings

from dimnode.records.codec import encode
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import blob_cid, blob_ref, cid_text, peer_text, record_id
from dimnode.records.kinds import OPEN_SWARM_ENVELOPE, OPEN_SWARM_ID, compose
from dimnode.records.tensors import Tensor, encode_tensors

EDGES = [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1]
EDGES += [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)]
ACCEPTED: list[dict[str, Any]] = [
    {},
    {"a": None, "b": True, "c": False},
    *({"n": edge} for edge in EDGES),
    *({"s": "x" * length} for length in (0, 31, 32, 255, 256)),
    *({"b": bytes(length)} for length in (0, 255, 256)),
    {"s": "Zürich, 東京, 🙂"},
    *({"l": list(range(length))} for length in (0, 15, 16, 512)),
    {f"k{place:03}": place for place in range(17)},
    {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}},
    {"0": 1, "_": 2, "a": 3, "a_": 4, "ab": 5, "x" * 24: 6},
]
REJECTED = [
    ("", "nothing"),
    ("c0", "not a map"),
    ("90", "not a map"),
    ("8000", "a byte after the end"),
    ("81a161", "cut short"),
    ("81a161cc01", "integer not in its shortest form"),
    ("81a161cd0001", "integer not in its shortest form"),
    ("81a161d001", "positive integer in a signed form"),
    ("81a161d0ff", "negative integer not in its shortest form"),
    ("81a161d9017a", "text header not in its shortest form"),
    ("81a161dc000101", "list header not in its shortest form"),
    ("de0001a16101", "map header not in its shortest form"),
    ("81d9016101", "key header not in its shortest form"),
    ("81a161c5000100", "bytes header not in its shortest form"),
    ("82a16201a16101", "keys out of order"),
    ("82a16101a16101", "a key twice"),
    ("81a14101", "capital letter in a key"),
    ("81a161" + "a2c328", "text that is not UTF-8"),
    ("81a161" + "a3eda080", "a lone surrogate"),
    ("81a001", "empty key"),
    ("81b9" + "61" * 25 + "01", "key longer than 24"),
    ("810101", "key that is an integer"),
    ("81c4016101", "key that is bytes"),
    ("81a161ca3f800000", "float32"),
    ("81a161cb3ff0000000000000", "float64"),
    ("81a161cb7ff8000000000000", "not a number"),
    ("81a161d60000000000", "extension"),
    ("81a161d6ff00000000", "timestamp"),
    ("81a161c70005", "empty extension"),
    ("81a161c1", "byte that msgpack never uses"),
    ("81a161" * 8 + "80", "nine levels deep"),
    ("81a161dc0201" + "00" * 513, "513 entries in a list"),
    ("81a16198" + ("dc0200" + "00" * 512) * 8, "more than 4,096 items"),
    ("81a161ddffffffff", "a header that promises four thousand million entries"),
    ("81a161c6ffffffff", "a header that promises four gigabytes"),
    ("91" * 600, "six hundred levels deep"),
]


def described(value: Any) -> Any:
    """A value in the notation of vectors.json."""
    if type(value) is int:
        return {"int": str(value)}
    if type(value) is bytes:
        return {"bin": value.hex()}
    if type(value) is dict:
        return {"map": {key: described(entry) for key, entry in value.items()}}
    return [described(entry) for entry in value] if type(value) is list else value


def value_of(text: Any) -> Any:
    """The value that the notation describes."""
    match text:
        case {"int": str(digits)}:
            return int(digits)
        case {"bin": str(digits)}:
            return bytes.fromhex(digits)
        case {"map": dict(entries)}:
            return {key: value_of(entry) for key, entry in entries.items()}
        case list(entries):
            return [value_of(entry) for entry in entries]
    return text


def envelope_vectors() -> dict[str, Any]:
    """A key, a record of it, and every way in which another spelling of that record must be refused."""
    seed = hashlib.sha256(b"dimnode golden envelope").digest()
    key = SigningKey.from_seed(seed)
    body = {"advert": OPEN_SWARM_ID, "free_slots": 4, "load_permille": 250}
    identity, payload = compose("heartbeat", {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": 1_790_000_000_000}, body)
    envelope = seal(key, "heartbeat", payload)
    return {
        "seed": seed.hex(),
        "public_key": key.public.hex(),
        "peer": peer_text(key.peer),
        "kind": "heartbeat",
        "payload": payload.hex(),
        "envelope": envelope.hex(),
        "id": cid_text(identity),
        "rejected": [{"hex": bad.hex(), "why": why} for bad, why in _bad_envelopes(key, payload, envelope)],
    }


def _bad_envelopes(key: SigningKey, payload: bytes, envelope: bytes) -> list[tuple[bytes, str]]:
    key_field, type_field = envelope[:38], envelope[38:54]
    signature_field = envelope[-66:]
    payload_field = envelope[54:-66]
    length = len(payload)
    assert payload_field == b"\x1a" + bytes([length & 127 | 128, length >> 7]) + payload
    long_varint = b"\x1a" + bytes([length & 127 | 128, length >> 7 | 128, 0]) + payload

    def signed(kind: str, content: bytes, *, domain: str = "", type_bytes: bytes = b"") -> bytes:
        """An envelope whose signature holds, made with a domain, type or payload of our choice."""
        domain_bytes = (domain or f"dim-sig-{kind}/1").encode()
        type_bytes = type_bytes or b"\x81\x04" + f"/{kind}/1".encode()
        head = bytes([len(domain_bytes)]) + domain_bytes + bytes([len(type_bytes)]) + type_bytes
        size = bytes([len(content) & 127 | 128, len(content) >> 7])
        signature = nacl.bindings.crypto_sign(head + size + content, key.secret)[:64]
        return (
            key_field
            + b"\x12"
            + bytes([len(type_bytes)])
            + type_bytes
            + b"\x1a"
            + size
            + content
            + b"\x2a\x40"
            + signature
        )

    other = SigningKey.from_seed(hashlib.sha256(b"dimnode golden other").digest())
    other_key_field = b"\x0a\x24\x08\x01\x12\x20" + other.public
    unsorted = payload[:1] + payload[payload.index(b"\xa2by") :] + payload[1 : payload.index(b"\xa2by")]
    return [
        (b"", "nothing"),
        (envelope[:-1], "cut short"),
        (envelope + b"\0", "a byte after the end"),
        (envelope + b"\x32\x00", "an extra field"),
        (key_field + type_field + long_varint + signature_field, "length not minimal"),
        (b"\x8a\x00" + envelope[1:], "tag not minimal"),
        (type_field + key_field + payload_field + signature_field, "fields out of order"),
        (key_field + type_field + signature_field + payload_field, "fields out of order"),
        (key_field + key_field + type_field + payload_field + signature_field, "a field twice"),
        (key_field + type_field + payload_field, "no signature"),
        (key_field.replace(b"\x08\x01", b"\x08\x02", 1) + envelope[38:], "a secp256k1 key"),
        (b"\x0a\x24\x12\x20" + key.public + b"\x08\x01" + envelope[38:], "key fields out of order"),
        (other_key_field + envelope[38:], "somebody else's key"),
        (envelope[:-64] + bytes(64), "a signature of zeros"),
        (envelope[:-32] + _plus_order(envelope[-32:]), "a signature with its scalar plus the group order"),
        (signed("heartbeat", payload, domain="dim-sig-answer/1"), "signed for another domain"),
        (signed("heartbeat", payload, domain="libp2p-peer-record"), "signed for another domain"),
        (signed("answer", payload), "payload names another kind than the type"),
        (signed("heartbeat", payload, type_bytes=b"\x81\x04/heartbeat/2"), "another version of the type"),
        (signed("heartbeat", payload, type_bytes=b"\x03\x01/heartbeat/1"), "another codec in the type"),
        (signed("Heartbeat", payload.replace(b"heartbeat", b"Heartbeat")), "a kind in capitals"),
        (signed("heartbeat", payload.replace(key.peer, other.peer)), "payload names another signer"),
        (signed("heartbeat", payload.replace(b"\xa1v\x01", b"\xa1v\x02")), "payload names another version"),
        (signed("heartbeat", payload.replace(b"\xa1v\x01", b"\xa1v\xcc\x01")), "payload not canonical"),
        (signed("heartbeat", unsorted), "payload with its keys out of order"),
    ]


def _plus_order(scalar: bytes) -> bytes:
    order = 2**252 + 27742317777372353535851937790883648493
    return ((int.from_bytes(scalar, "little") + order) % 2**256).to_bytes(32, "little")


def tensor_vectors() -> dict[str, Any]:
    """tensors/1: one good blob and many bad ones."""
    good = encode_tensors([Tensor("b", "int64", (2,), bytes(16)), Tensor("a", "uint8", (), b"\x07")])
    row = "94a161a575696e7438900107".replace("900107", "90c40107")
    assert good.hex().startswith("92" + row)
    return {
        "accepted": [
            {"hex": good.hex(), "tensors": [["a", "uint8", [], "07"], ["b", "int64", [2], "00" * 16]]},
            {"hex": "9194a161a4626f6f6c9103c403000100", "tensors": [["a", "bool", [3], "000100"]]},
        ],
        "rejected": [
            {"hex": bad, "why": why}
            for bad, why in [
                ("", "nothing"),
                ("90", "no tensor"),
                ("80", "not a list"),
                (good.hex() + "00", "a byte after the end"),
                (good.hex()[:-2], "cut short"),
                ("92" + row + row, "a name twice"),
                ("92" + row.replace("a161", "a162", 1) + row, "names out of order"),
                ("91" + row.replace("a575696e7438", "a6666c6f617438"), "unknown dtype"),
                ("91" + row.replace("c40107", "c4020707"), "more bytes than the shape has"),
                ("91" + row.replace("90c4", "91ffc4"), "negative size"),
                ("91" + row.replace("90c4", "91c3c4"), "a size that is a boolean"),
                ("91" + row.replace("90c40107", "990101010101010101 01c40107".replace(" ", "")), "nine dimensions"),
                ("91" + row.replace("a161", "a0", 1), "no name"),
                ("91" + row.replace("94", "93", 1)[: -len("c40107")], "three entries in a row"),
                ("91" + row.replace("c40107", "a107"), "numbers as text"),
                ("91" + row.replace("90c4", "dc0000c4"), "shape header not in its shortest form"),
                ("dc0001" + row, "list header not in its shortest form"),
            ]
        ],
    }


def vectors() -> dict[str, Any]:
    """All of vectors.json."""
    salt, blob = bytes(range(32)), b"a blob"
    return {
        "cmp1_accepted": [{"value": described(value), "hex": encode(value).hex()} for value in ACCEPTED],
        "cmp1_rejected": [{"hex": text, "why": why} for text, why in REJECTED],
        "envelope": envelope_vectors(),
        "tensors1": tensor_vectors(),
        "ids": {
            "payload": "80",
            "record_id": record_id(b"\x80").hex(),
            "record_id_text": cid_text(record_id(b"\x80")),
            "blob": blob.hex(),
            "blob_cid": blob_cid(blob).hex(),
            "blob_cid_text": cid_text(blob_cid(blob)),
            "salt": salt.hex(),
            "ref": blob_ref(salt, blob_cid(blob)).hex(),
        },
        "open_swarm": {"id": cid_text(OPEN_SWARM_ID), "envelope": OPEN_SWARM_ENVELOPE.hex()},
    }
