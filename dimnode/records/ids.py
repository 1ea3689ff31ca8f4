"""Names of things: peers, records, blobs, and blinded references to blobs.

Rule: an id is the hash of the bytes it names, so it can be checked by whoever holds them, and a record's id is known
before its signature exists. Text forms exist for people only; records hold bytes.
Pure: no I/O, no clock.

Sources: CIDv1 (github.com/multiformats/cid), libp2p peer ids (github.com/libp2p/specs, peer-ids).
"""

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NewType

from dimnode.errors import PeerFault

PeerId = NewType("PeerId", bytes)
"""38 bytes: identity multihash of a protobuf Ed25519 public key, as libp2p writes it."""
RecordId = NewType("RecordId", bytes)
"""37 bytes: CIDv1, multicodec messagepack (0x0201), sha2-256 of the record's payload."""
Cid = NewType("Cid", bytes)
"""36 bytes: CIDv1, sha2-256: raw (0x55) names the blob's bytes, dag-pb (0x70) the root of a larger blob's tree
(`unixfs.py`)."""
Ref = NewType("Ref", bytes)
"""32 bytes: SHA-256("dim-hash-ref/1" ‖ salt ‖ cid): names a blob without letting anyone guess it."""

RECORD_PREFIX: Final = bytes.fromhex("0181041220")
BLOB_PREFIX: Final = bytes.fromhex("01551220")
TREE_PREFIX: Final = bytes.fromhex("01701220")
PEER_PREFIX: Final = bytes.fromhex("002408011220")
RECORD_ID_BYTES: Final = 37
CID_BYTES: Final = 36
PEER_ID_BYTES: Final = 38
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LETTER_PAIRS: Final = tuple(one + two for one in _BASE32 for two in _BASE32)
_CID_LETTERS: Final = frozenset({-(-8 * size // 5) + 1 for size in (RECORD_ID_BYTES, CID_BYTES)})
REF_BYTES: Final = 32
SALT_BYTES: Final = 32
_REF_TAG: Final = b"dim-hash-ref/1"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def record_id(payload: bytes) -> RecordId:
    """The id of a record, from its payload."""
    return RecordId(RECORD_PREFIX + hashlib.sha256(payload).digest())


def blob_cid(blob: bytes | memoryview) -> Cid:
    """The CID of immutable bytes."""
    return Cid(BLOB_PREFIX + hashlib.sha256(blob).digest())


def is_cid(raw: bytes) -> bool:
    """Whether these bytes are a blob's CID in the one form we use: CIDv1, raw or dag-pb, sha2-256."""
    return len(raw) == CID_BYTES and raw.startswith((BLOB_PREFIX, TREE_PREFIX))


def blob_ref(salt: bytes, cid: Cid) -> Ref:
    """The blinded name of a blob: whoever lacks the salt cannot test a guess of the content."""
    return Ref(hashlib.sha256(_REF_TAG + salt + cid).digest())


def peer_of_key(public_key: bytes) -> PeerId:
    """The peer id that embeds this 32-byte Ed25519 public key."""
    return PeerId(PEER_PREFIX + public_key)


def key_of_peer(peer: bytes) -> bytes:
    """The 32-byte Ed25519 public key inside a peer id. Raises `PeerFault` for any other kind of id."""
    if len(peer) != PEER_ID_BYTES or not peer.startswith(PEER_PREFIX):
        raise PeerFault("peer id is not Ed25519")
    return peer[len(PEER_PREFIX) :]


@lru_cache(maxsize=1024)
def peer_text(peer: bytes) -> str:
    """Base58btc, as every libp2p tool prints it: 12D3KooW…"""
    number = int.from_bytes(peer, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(peer) - len(peer.lstrip(b"\0"))) + digits


def peer_bytes(text: str) -> PeerId:
    """The peer id of its text. Raises `PeerFault` when the text names no Ed25519 peer."""
    number = 0
    for letter in text[:64]:
        digit = _BASE58.find(letter)
        if digit < 0:
            raise PeerFault("peer text is not base58")
        number = number * 58 + digit
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    peer = PeerId(b"\0" * (len(text) - len(text.lstrip("1"))) + raw)
    key_of_peer(peer)
    if peer_text(peer) != text:
        raise PeerFault("peer text is not canonical")
    return peer


@lru_cache(maxsize=1024)
def cid_text(cid: bytes) -> str:
    """Multibase base32 (lower case, no padding), the usual spelling of a CIDv1."""
    # Ten bits at a time: base64.b32encode takes three times as long, and every line of the log names something.
    bits = 8 * len(cid)
    letters = -(-bits // 5)
    top = 10 * ((letters - 1) // 2)
    number = int.from_bytes(cid, "big") << (top + 10 - bits)
    return ("b" + "".join([_LETTER_PAIRS[number >> at & 1023] for at in range(top, -1, -10)]))[: letters + 1]


def ends_wrongly(text: str) -> bool:
    """Whether only the last letter keeps this text from being a CID: it has bits that name nothing."""
    try:
        raw = base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))
    except ValueError:
        return False
    return is_cid(raw) and cid_text(raw) != text and cid_text(raw)[:-1] == text[:-1]


def cid_bytes(text: str) -> bytes:
    """The bytes of a record or blob id in text form. Raises `PeerFault` when it is neither."""
    if len(text) not in _CID_LETTERS:  # most names of models end here
        raise PeerFault("cid text")
    body = text[1:].upper()
    try:
        raw = base64.b32decode(body + "=" * (-len(body) % 8))
    except ValueError:
        raise PeerFault("cid text") from None
    known = (len(raw) == RECORD_ID_BYTES and raw.startswith(RECORD_PREFIX)) or is_cid(raw)
    if not text.startswith("b") or not known or cid_text(raw) != text:
        raise PeerFault("cid text")
    return raw


def record_named(text: str) -> RecordId | None:
    """The record whose id this is; None for any other text. Nothing else may be called so."""
    try:
        raw = cid_bytes(text)
    except PeerFault:
        return None
    return RecordId(raw) if raw.startswith(RECORD_PREFIX) else None


PEER_LETTERS_MIN: Final = 12
"""About 2^70: nobody makes so many keys until one ends like another's. Six letters are 2^35, eight 2^47."""


def named_by(peer: bytes, letters: str) -> bool:
    """Whether the last letters of a peer id, at least 12, name this one. Rights are given to whole ids alone."""
    return len(letters) >= PEER_LETTERS_MIN and peer_text(peer).endswith(letters)


def meant_by(peers: Iterable[bytes], letters: str) -> str:
    """The whole ids, at most four, that end with too few letters to name one; for a message that asks for more."""
    found = sorted({peer_text(peer) for peer in peers if peer_text(peer).endswith(letters)}) if letters else []
    return ", ".join(found[:4]) + (" …" if len(found) > 4 else "")


def peer_letters(peer: PeerId) -> str:
    """As few letters from the end of a peer's id as commands take for it."""
    return peer_text(peer)[-PEER_LETTERS_MIN:]


def short(identifier: bytes) -> str:
    """Eight letters from the end of an id: for people, in tables and log lines; never for comparison."""
    text = peer_text(identifier) if len(identifier) == PEER_ID_BYTES else cid_text(identifier)
    return text[-8:]
