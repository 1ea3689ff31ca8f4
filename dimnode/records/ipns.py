"""IPNS records: a name that is a peer id points to a path, for a while; who signs it may move it on.

V2 only: the signed part is DAG-CBOR, and nothing is repeated outside it (js refuses what Python's protobuf leaves out
of a V1 part). Of two records the one with the greater sequence counts, then the one that is valid longer.
Rule: read is only what would be written in the same way; the signature is checked before anything is believed.
Pure: no I/O, no clock.

Source: specs.ipfs.tech/ipns/ipns-record.
"""

import re
from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import nacl.bindings
from nacl.exceptions import BadSignatureError

from dimnode.errors import PeerFault
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId, key_of_peer
from dimnode.records.varint import varint

NAME_BYTES_MAX: Final = 10 * 1024
OVER: Final = "ipns: over"
"""The rule of a record whose time has ended: the clock's doing, and maybe nobody's fault."""
_NAMESPACE: Final = b"/ipns/"
_SIGNED: Final = b"ipns-signature:"
_SIGNATURE_BYTES: Final = 64
_NS_PER_MS: Final = 1_000_000
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z")
_U64: Final = 2**64
_DATA_FIELD, _SIGNATURE_FIELD = 9, 8


@dataclass(frozen=True, slots=True)
class Name:
    """What a record says: `value` is a path such as /ipfs/bafy…; it ends at `valid_until_ms`; whoever read it need not
    ask again for `ttl_ms`."""

    value: str
    sequence: int
    valid_until_ms: int
    ttl_ms: int

    @property
    def age_key(self) -> tuple[int, int]:
        """The greater one counts."""
        return self.sequence, self.valid_until_ms


def routing_key(publisher: PeerId) -> bytes:
    """Under which key go and js keep it in the DHT."""
    return _NAMESPACE + publisher


def publisher_of(key: bytes) -> PeerId:
    """Whose record lies under this key of the DHT. Raises `PeerFault` for any other key."""
    publisher = key.removeprefix(_NAMESPACE)
    if len(publisher) == len(key):
        raise PeerFault("ipns: key")
    key_of_peer(publisher)
    return PeerId(publisher)


def seal_name(key: SigningKey, name: Name) -> bytes:
    """The record, signed. The name that it is for is the key's peer id."""
    value, validity = name.value.encode(), time_text(name.valid_until_ms)
    data = _encoded(value, name.sequence, validity, name.ttl_ms * _NS_PER_MS)
    signature = nacl.bindings.crypto_sign(_SIGNED + data, key.secret)[:_SIGNATURE_BYTES]
    return _field(_SIGNATURE_FIELD, signature) + _field(_DATA_FIELD, data)


def open_name(raw: bytes, publisher: PeerId, now_ms: int) -> Name:
    """What this publisher's record says. Raises `PeerFault`: as `read_name`, or over."""
    name = read_name(raw, publisher)
    if name.valid_until_ms <= now_ms:
        raise PeerFault(OVER)
    return name


def read_name(raw: bytes, publisher: PeerId) -> Name:
    """The same of a record that may be over. Raises `PeerFault`: not its signature, or in another form.

    A V1 part beside the signed one is passed over, as others still write it.
    """
    if len(raw) > NAME_BYTES_MAX:
        raise PeerFault("ipns: size")
    fields = _fields(raw)
    data, signature = fields.get(_DATA_FIELD, b""), fields.get(_SIGNATURE_FIELD, b"")
    if not data or len(signature) != _SIGNATURE_BYTES:
        raise PeerFault("ipns: not signed")
    try:
        nacl.bindings.crypto_sign_open(signature + _SIGNED + data, key_of_peer(publisher))
    except BadSignatureError:
        raise PeerFault("ipns: signature") from None
    return _decoded(data)


# ---- the signed part: a map in the order of DAG-CBOR, shorter keys first


def _encoded(value: bytes, sequence: int, validity: bytes, ttl_ns: int) -> bytes:
    return b"".join(
        (
            b"\xa5",
            *(_text("TTL"), _head(0, ttl_ns)),
            *(_text("Value"), _bytes(value)),
            *(_text("Sequence"), _head(0, sequence)),
            *(_text("Validity"), _bytes(validity)),
            *(_text("ValidityType"), _head(0, 0)),
        )
    )


def _decoded(data: bytes) -> Name:
    reader = _Reader(data)
    reader.expect(b"\xa5" + _text("TTL"))
    ttl_ns = reader.number(0)
    reader.expect(_text("Value"))
    value = reader.take(reader.number(2))
    reader.expect(_text("Sequence"))
    sequence = reader.number(0)
    reader.expect(_text("Validity"))
    validity = reader.take(reader.number(2))
    try:
        name = Name(value.decode(), sequence, _time_ms(validity), ttl_ns // _NS_PER_MS)
    except UnicodeDecodeError:
        raise PeerFault("ipns: value") from None
    if _encoded(value, sequence, validity, ttl_ns) != data:
        raise PeerFault("ipns: form")
    return name


def time_text(ms: int) -> bytes:
    """RFC 3339 with nine digits of a second, as go writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode() + b".%03d000000Z" % (ms % 1000)


def _time_ms(raw: bytes) -> int:
    found = _TIME.fullmatch(raw.decode("ascii", "replace"))
    if found is None:
        raise PeerFault("ipns: validity")
    try:
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        seconds = timegm(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timetuple())
    except ValueError:
        raise PeerFault("ipns: validity") from None
    return seconds * 1000 + int((found[7] or "0").ljust(9, "0")) // _NS_PER_MS


def _head(kind: int, number: int) -> bytes:
    assert 0 <= number < _U64
    if number < 24:
        return bytes([kind << 5 | number])
    for code, width in ((24, 1), (25, 2), (26, 4)):
        if number < 256**width:
            return bytes([kind << 5 | code]) + number.to_bytes(width, "big")
    return bytes([kind << 5 | 27]) + number.to_bytes(8, "big")


def _text(word: str) -> bytes:
    return _head(3, len(word)) + word.encode()


def _bytes(raw: bytes) -> bytes:
    return _head(2, len(raw)) + raw


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, count: int) -> bytes:
        found = self._raw[self._at : self._at + count]
        if len(found) != count:
            raise PeerFault("ipns: cut off")
        self._at += count
        return found

    def expect(self, wanted: bytes) -> None:
        if self.take(len(wanted)) != wanted:
            raise PeerFault("ipns: form")

    def number(self, kind: int) -> int:
        first = self.take(1)[0]
        if first >> 5 != kind or first & 31 > 27:
            raise PeerFault("ipns: form")
        return first & 31 if first & 31 < 24 else int.from_bytes(self.take(1 << (first & 31) - 24), "big")


# ---- around it: a protobuf message


def _field(number: int, raw: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def _fields(raw: bytes) -> dict[int, bytes]:
    """Length-delimited fields by number; each at most once. Numbers are passed over: only V1 has them."""
    found: dict[int, bytes] = {}
    at = 0

    def number_here() -> int:
        nonlocal at
        number = 0
        for shift in range(0, 70, 7):
            if at >= len(raw):
                break
            byte = raw[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise PeerFault("ipns: number")

    while at < len(raw):
        number, kind = divmod(number_here(), 8)
        if number in found or kind not in (0, 2):
            raise PeerFault("ipns: field")
        size = number_here()
        found[number] = raw[at : at + size] if kind == 2 else b""
        at += size if kind == 2 else 0
    if at > len(raw):
        raise PeerFault("ipns: cut off")
    return found
