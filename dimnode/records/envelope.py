"""The signed envelope: libp2p RFC 0002 around a cmp/1 payload.

Rule: one spelling. Protobuf fields 1 (public key), 2 (payload type), 3 (payload), 5 (signature), once each, in that
order, with minimal varints; anything else is refused. The signature covers domain, type and payload as received.
`kind`, `v` and `by` inside the payload must equal kind and version of the type and the key outside. A version of a kind
that is not known here is a kind of its own, `lease/2`: kept and checked, and never taken for a lease.
Pure: no I/O, no clock; the secret key is an argument. Source: libp2p/specs, RFC/0002-signed-envelopes.md
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import nacl.bindings
from nacl.exceptions import BadSignatureError

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.codec import check_value, decode
from dimnode.records.ids import PEER_PREFIX, PeerId, RecordId, peer_of_key, record_id
from dimnode.records.shapes import Check
from dimnode.records.varint import varint

VERSION: Final = 1
"""The version that a kind begins with."""
Schemas = Mapping[tuple[str, int], Check]
"""By kind and version."""
# Envelope header around the payload: 38 key + 2, type <= 32 + 2, payload header 4, signature 66.
ENVELOPE_BYTES_MAX: Final = LIMITS.records.record_bytes_max + 160
_KEY_HEADER: Final = bytes.fromhex("08011220")
_SIGNATURE_BYTES: Final = 64
_SIGNATURE_FIELD: Final = b"\x2a\x40"
_KEY_FIELD: Final = b"\x0a\x24" + _KEY_HEADER
_TYPE_AT: Final = len(_KEY_FIELD) + 32
_TAIL_BYTES: Final = len(_SIGNATURE_FIELD) + _SIGNATURE_BYTES
_TYPE: Final = re.compile(rb"\x12.\x81\x04/(?!_+/)([a-z_]{1,16})/([1-9])", re.DOTALL)
"""Field 2: the payload's type with the record's kind and version."""
_KINDS_KEPT_MAX: Final = 64
_kinds: dict[bytes, tuple[str, int, bytes]] = {}


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


class Record(NamedTuple):
    """A checked record: its id, kind, signer, payload map, the envelope bytes exactly as received, and its version.

    `kind` has the version behind it (`lease/2`) when this node does not know that version: such a record has none of
    the fields that its kind has here.
    A tuple, because one is made for each record that arrives: a frozen dataclass takes several times as long.
    """

    id: RecordId
    kind: str
    by: PeerId
    payload: dict[str, Any]
    envelope: bytes
    version: int = VERSION


_new: Final = tuple.__new__  # what a NamedTuple's own constructor calls, at a third of its price


def seal(key: SigningKey, kind: str, payload: bytes, version: int = VERSION) -> bytes:
    """The envelope of a payload signed by `key`."""
    domain, kind_field = _prefix(kind, version)
    length = varint(len(payload))
    signed = nacl.bindings.crypto_sign(domain + length + payload, key.secret)
    signature: bytes = signed[:_SIGNATURE_BYTES]
    return (
        b"\x0a\x24" + _KEY_HEADER + key.public + kind_field + b"\x1a" + length + payload + _SIGNATURE_FIELD + signature
    )


def open_envelope(envelope: bytes, *, schemas: Schemas = MappingProxyType({}), check_signature: bool = True) -> Record:
    """The record inside. Raises `PeerFault` naming the broken rule; whoever sent the bytes is at fault.

    `schemas`: a payload that does not fit the one of its kind and version is refused.
    `check_signature=False` is for bytes that this node itself checked before it stored them.
    """
    public, kind, version, signed, payload, signature = _split(envelope)
    if check_signature:
        try:
            nacl.bindings.crypto_sign_open(signature + signed + payload, public)
        except BadSignatureError:
            raise PeerFault("envelope: signature") from None
    schema = schemas.get((kind, version))
    value = decode(payload, shaped=schema is not None)
    by = PeerId(PEER_PREFIX + public)
    said = value.get("v")
    if value.get("kind") != kind or type(said) is not int or said != version or value.get("by") != by:
        raise PeerFault("envelope: kind, v or by differ from the payload")
    if schema is not None and not schema(value):
        check_value(value)  # the more basic rule is named first
        raise PeerFault(f"{kind}: fields")
    if schema is None and version != VERSION:
        kind = f"{kind}/{version}"
    return _new(Record, (record_id(payload), kind, by, value, envelope, version))


def signed_bytes(envelope: bytes) -> tuple[bytes, bytes]:
    """Signature and message as libsodium takes them together, and the public key."""
    public, _, _, signed, payload, signature = _split(envelope)
    return signature + signed + payload, public


def version_of(envelope: bytes) -> int:
    """The version of the record's type, without checking anything that it says."""
    return _split(envelope)[2]


def payload_of(envelope: bytes) -> bytes:
    """The payload bytes, without checking the signature."""
    return _split(envelope)[4]


def _split(envelope: bytes) -> tuple[bytes, str, int, bytes, bytes, bytes]:
    """Key, kind, version, what is signed before the payload, payload, signature.

    Lengths are not believed but made again: a field's length and its only spelling follow from what it holds.
    """
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise PeerFault("envelope: too long")
    if not envelope.startswith(_KEY_FIELD):
        raise PeerFault("envelope: key is not Ed25519" if envelope.startswith(_KEY_FIELD[:2]) else "envelope: fields")
    # The type follows the key; its second byte is its length, and behind it stands the payload.
    at = _TYPE_AT + 2 + int.from_bytes(envelope[_TYPE_AT + 1 : _TYPE_AT + 2])
    kind, version, signed = _kind_of(envelope[_TYPE_AT:at])
    header = _payload_header(len(envelope) - at - _TAIL_BYTES)
    if envelope[at : at + len(header)] != header:
        raise PeerFault("envelope: length of the payload")
    if envelope[-_TAIL_BYTES:-_SIGNATURE_BYTES] != _SIGNATURE_FIELD:
        raise PeerFault("envelope: fields")
    payload = envelope[at + len(header) : -_TAIL_BYTES]
    public, signature = envelope[len(_KEY_FIELD) : _TYPE_AT], envelope[-_SIGNATURE_BYTES:]
    return public, kind, version, signed + header[1:], payload, signature


def _kind_of(type_field: bytes) -> tuple[str, int, bytes]:
    """The kind and version that field 2 names, and what is signed before the payload's length."""
    found = _kinds.get(type_field)
    if found is None:
        form = _TYPE.fullmatch(type_field)
        if form is None:
            raise PeerFault("envelope: fields")
        kind, version = form[1].decode(), int(form[2])
        signed, only_spelling = _prefix(kind, version)
        if type_field != only_spelling:
            raise PeerFault("envelope: length of the payload type")
        found = kind, version, signed
        if len(_kinds) < _KINDS_KEPT_MAX:
            _kinds[type_field] = found
    return found


@lru_cache(maxsize=4096)
def _payload_header(rest: int) -> bytes:
    """Field 3 of the envelope up to the payload, when it and the payload take `rest` bytes together."""
    for width in (2, 3, 1, 4):
        length = rest - 1 - width
        if length >= 0 and len(stated := varint(length)) == width:
            return b"\x1a" + stated
    raise PeerFault("envelope: fields")


@lru_cache(maxsize=64)
def _prefix(kind: str, version: int) -> tuple[bytes, bytes]:
    """What is signed before the payload, and field 2 of the envelope.

    Domains are shorter than 32 bytes, so the length byte in front never equals the first letter of another protocol's
    signing prefix (Noise and pubsub begin with letters): a signature made here means nothing there.
    """
    domain = f"dim-sig-{kind}/{version}".encode()
    payload_type = b"\x81\x04" + f"/{kind}/{version}".encode()
    assert len(domain) < 32
    signed = varint(len(domain)) + domain + varint(len(payload_type)) + payload_type
    return signed, b"\x12" + varint(len(payload_type)) + payload_type
