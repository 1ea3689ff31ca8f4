"""The signed envelope: libp2p RFC 0002 around a cmp/1 payload.

Rule: one spelling. Protobuf fields 1 (public key), 2 (payload type), 3 (payload), 5 (signature), once each, in that
order, with minimal varints; anything else is refused. The signature covers domain, type and payload as received.
`kind`, `v` and `by` inside the payload must equal the type, the version and the key outside.
Pure: no I/O, no clock; the secret key is an argument. Source: libp2p/specs, RFC/0002-signed-envelopes.md
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import nacl.bindings
from nacl.exceptions import BadSignatureError

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.codec import decode
from dimnode.records.ids import PEER_PREFIX, PeerId, RecordId, peer_of_key, record_id

VERSION: Final = 1
# Envelope header around the payload: 38 key + 2, type <= 32 + 2, payload header 4, signature 66.
ENVELOPE_BYTES_MAX: Final = LIMITS.records.record_bytes_max + 160
_KEY_HEADER: Final = bytes.fromhex("08011220")
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key pair: `secret` is libsodium's 64-byte form, `peer` the id that embeds the public key."""

    secret: bytes
    public: bytes
    peer: PeerId

    @staticmethod
    def from_seed(seed: bytes) -> "SigningKey":
        """The key pair of a 32-byte seed."""
        public, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        return SigningKey(secret, public, peer_of_key(public))

    def __repr__(self) -> str:  # a key must not reach a log by accident
        return "SigningKey(…)"


@dataclass(frozen=True, slots=True)
class Record:
    """A checked record: its id, kind, signer, payload map, and the envelope bytes exactly as received."""

    id: RecordId
    kind: str
    by: PeerId
    payload: dict[str, Any]
    envelope: bytes


def seal(key: SigningKey, kind: str, payload: bytes) -> bytes:
    """The envelope of a payload signed by `key`."""
    domain, kind_field = _prefix(kind)
    length = _varint(len(payload))
    signed = nacl.bindings.crypto_sign(domain + length + payload, key.secret)
    signature: bytes = signed[:_SIGNATURE_BYTES]
    return b"\x0a\x24" + _KEY_HEADER + key.public + kind_field + b"\x1a" + length + payload + b"\x2a\x40" + signature


def open_envelope(envelope: bytes, *, check_signature: bool = True) -> Record:
    """The record inside. Raises `PeerFault` naming the broken rule; whoever sent the bytes is at fault.

    `check_signature=False` is for bytes that this node itself checked before it stored them.
    """
    public, kind, payload, signature = _split(envelope)
    if check_signature:
        domain, _ = _prefix(kind)
        try:
            nacl.bindings.crypto_sign_open(signature + domain + _varint(len(payload)) + payload, public)
        except BadSignatureError:
            raise PeerFault("envelope: signature") from None
    value = decode(payload)
    by = PeerId(PEER_PREFIX + public)
    if value.get("kind") != kind or value.get("v") != VERSION or value.get("by") != by:
        raise PeerFault("envelope: kind, v or by differ from the payload")
    return Record(record_id(payload), kind, by, value, envelope)


def payload_of(envelope: bytes) -> bytes:
    """The payload bytes, without checking the signature."""
    return _split(envelope)[2]


def _split(envelope: bytes) -> tuple[bytes, str, bytes, bytes]:
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise PeerFault("envelope: too long")
    key_field, position = _field(envelope, 0, 0x0A)
    type_field, position = _field(envelope, position, 0x12)
    payload, position = _field(envelope, position, 0x1A)
    signature, position = _field(envelope, position, 0x2A)
    if position != len(envelope) or len(signature) != _SIGNATURE_BYTES:
        raise PeerFault("envelope: fields")
    if len(key_field) != 36 or key_field[:4] != _KEY_HEADER:
        raise PeerFault("envelope: key is not Ed25519")
    return key_field[4:], _kind_of(type_field), payload, signature


def _field(envelope: bytes, position: int, tag: int) -> tuple[bytes, int]:
    if position >= len(envelope) or envelope[position] != tag:
        raise PeerFault("envelope: order of fields")
    length = shift = 0
    while True:
        position += 1
        if position >= len(envelope) or shift > 21:
            raise PeerFault("envelope: varint")
        byte = envelope[position]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if byte == 0 and shift > 7:
        raise PeerFault("envelope: varint not minimal")
    start = position + 1
    if start + length > len(envelope):
        raise PeerFault("envelope: short")
    return envelope[start : start + length], start + length


@lru_cache(maxsize=64)
def _kind_of(type_field: bytes) -> str:
    kind = type_field[3:-2]
    if type_field[:3] != b"\x81\x04/" or type_field[-2:] != b"/1" or not 0 < len(kind) <= 16:
        raise PeerFault("envelope: payload type")
    if not kind.replace(b"_", b"a").isalpha() or not kind.islower():
        raise PeerFault("envelope: payload type")
    return kind.decode()


@lru_cache(maxsize=64)
def _prefix(kind: str) -> tuple[bytes, bytes]:
    """What is signed before the payload, and field 2 of the envelope.

    Domains are shorter than 32 bytes, so the length byte in front never equals the first letter of another protocol's
    signing prefix (Noise and pubsub begin with letters): a signature made here means nothing there.
    """
    domain = f"dim-sig-{kind}/1".encode()
    payload_type = b"\x81\x04" + f"/{kind}/1".encode()
    assert len(domain) < 32
    signed = _varint(len(domain)) + domain + _varint(len(payload_type)) + payload_type
    return signed, b"\x12" + _varint(len(payload_type)) + payload_type


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
