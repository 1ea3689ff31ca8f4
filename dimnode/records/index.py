"""A publisher's index: the manifests that it publishes and what it took back, in one blob of at most a leaf.

Frames (`wire.py`): `["index/1", publisher, swarm, left out]`, then the envelopes of withdrawals and of manifests, each
the newest first, then the end frame. The same models make the same bytes, and so the same CID.
Rule: an index gives no rights. It is believed for nothing but where its records are: each of them is the publisher's by
its own signature, and what is left out is merely not heard of here.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.ids import BLOB_PREFIX, Cid, PeerId, RecordId, cid_bytes, cid_text
from dimnode.records.kinds import KINDS, open_record
from dimnode.records.unixfs import LEAF_BYTES
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

INDEX_BYTES_MAX: Final = LEAF_BYTES
"""One leaf: its CID is that of its bytes, and tells nobody's store how large it may be."""
_FORM: Final = "index/1"
_PATH: Final = "/ipfs/"
_LIMITS: Final = LIMITS.index


@dataclass(frozen=True, slots=True)
class Index:
    """What was read. `left_out`: how many manifests had no room."""

    manifests: tuple[Record, ...]
    withdrawals: tuple[Record, ...]
    left_out: int = 0


def write_index(publisher: PeerId, net: RecordId, manifests: Iterable[Record], withdrawals: Iterable[Record]) -> bytes:
    """The index of these records, the newest of each kind; the oldest are left out when there is no room."""
    gone, listed = _newest(withdrawals), _newest(manifests)
    frames = [pack_frame(record.envelope) for record in gone[: _LIMITS.withdrawals_max]]
    room_bytes = INDEX_BYTES_MAX - len(_head(publisher, net, len(listed))) - len(END) - sum(map(len, frames))
    taken = 0
    for record in listed[: _LIMITS.manifests_max]:
        frame = pack_frame(record.envelope)
        room_bytes -= len(frame)
        if room_bytes < 0:
            break
        frames.append(frame)
        taken += 1
    return b"".join((_head(publisher, net, len(listed) - taken), *frames, END))


def read_index(raw: bytes, publisher: PeerId, net: RecordId) -> Index:
    """What a publisher's index says, every signature checked. Raises `PeerFault`: it is not what its publisher made."""
    if len(raw) > INDEX_BYTES_MAX:
        raise PeerFault("index: too long")
    decoder = FrameDecoder()
    bodies = decoder.feed(raw)
    if not decoder.ended or not 1 <= len(bodies) <= 1 + _LIMITS.withdrawals_max + _LIMITS.manifests_max:
        raise PeerFault("index: frames")
    frames = [unpack_body(body, LIMITS.wire.peer_frame_containers_max) for body in bodies]
    match frames[0]:
        case [form, by, swarm, int(left_out), *_] if (form, by, swarm) == (_FORM, publisher, net) and left_out >= 0:
            pass
        case _:
            raise PeerFault("index: head")
    records = [_record(envelope, publisher, net) for envelope in frames[1:]]
    manifests = tuple(record for record in records if record.kind == "manifest")
    return Index(manifests, tuple(record for record in records if record.kind == "withdraw"), left_out)


def path_of(root: Cid) -> str:
    """The value of an IPNS record that names this blob."""
    return _PATH + cid_text(root)


def root_of(path: str) -> Cid:
    """The blob that the value of an IPNS record names. Raises `PeerFault` when it cannot be an index of one leaf."""
    raw = cid_bytes(path.removeprefix(_PATH))
    if not path.startswith(_PATH) or not raw.startswith(BLOB_PREFIX):
        raise PeerFault("index: path")
    return Cid(raw)


def _head(publisher: PeerId, net: RecordId, left_out: int) -> bytes:
    return pack_frame([_FORM, publisher, net, left_out])


def _newest(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (-record.payload["at_ms"], record.id))


def _record(envelope: object, publisher: PeerId, net: RecordId) -> Record:
    if type(envelope) is not bytes:
        raise PeerFault("index: frames")
    record = open_record(envelope)
    if record.by != publisher:
        raise PeerFault("index: another's record")
    known = record.kind in KINDS  # others are of a later version: passed over, as in an introduction
    if known and (record.kind not in ("manifest", "withdraw") or record.payload["net"] != net):
        raise PeerFault("index: a record of another kind or swarm")
    return record
