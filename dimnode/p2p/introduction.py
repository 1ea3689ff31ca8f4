"""What a node says of itself on request: `/dim/info/1`.

Rule: the signed advert is the only truth about what a peer offers; it travels with the manifests it names, each checked
by its own signature. Heartbeats only say which advert is current. `offers` is asked first; a peer that does not know
the word says nothing, and is asked for its `advert`: to that word no record is told but of version 1.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.records.envelope import VERSION, Record, version_of
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import KINDS, open_record
from dimnode.wire import END, HEADER_BYTES, FrameDecoder, pack_frame, unpack_body

INFO: Final = "/dim/info/1"
_ASK: Final = "offers"
_ASK_FIRST: Final = "advert"
_WORDS: Final = (_ASK, _ASK_FIRST)
_NOTICES: Final = ("grant", "withdraw")
_RECORDS_MAX: Final = LIMITS.peers.manifests_per_advert_max + LIMITS.peers.notices_per_introduction_max


@dataclass(frozen=True, slots=True)
class Introduction:
    """A peer's advert, the manifests of the models it offers, and the grants and withdrawals it knows of.

    Grants and withdrawals are anybody's, signed by whoever they are of.
    """

    advert: Record
    manifests: tuple[Record, ...]
    notices: tuple[Record, ...] = ()


def serve_info(
    current: Callable[[], Sequence[bytes]], notices: Callable[[PeerId], Sequence[bytes]] = lambda _: ()
) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler that answers with `current()`: the advert's envelope first, then manifests.

    `notices`: the grants and withdrawals for this asker.
    """

    async def serve(stream: Stream) -> None:
        with trio.fail_after(LIMITS.host.negotiate_seconds_max):
            asked = unpack_body(await one_frame(stream))
            if type(asked) is not str:
                raise PeerFault("info: question")
            for envelope in current() if asked in _WORDS else ():  # a later version may ask more: no answer
                if asked == _ASK or version_of(envelope) == VERSION:
                    await stream.write(pack_frame(envelope))
            for envelope in notices(PeerId(stream.peer)) if asked == _ASK else ():
                await stream.write(pack_frame(envelope))
            await stream.write(END)

    return serve


async def fetch_introduction(host: Host, peer: PeerId, net: RecordId) -> Introduction:
    """Ask a connected peer who it is. Raises `PeerFault` on a bad answer, `DialFailed`/`StreamLost` without one."""
    records: list[Record] = []
    with trio.move_on_after(LIMITS.host.negotiate_seconds_max) as deadline:
        for word in _WORDS:
            try:
                records = await _answer(host, peer, word)
            except StreamLost:  # one that knows no further words may also reset the stream
                if word == _ASK_FIRST:
                    raise
            if records:
                break
    if deadline.cancelled_caught:
        raise DialFailed("no answer about itself")
    return _checked(records, peer, net)


async def _answer(host: Host, peer: PeerId, word: str) -> list[Record]:
    records: list[Record] = []
    room_bytes = LIMITS.peers.introduction_bytes_max
    stream = await host.open_stream(peer, INFO)
    try:
        await stream.write(pack_frame(word))
        decoder = FrameDecoder()
        while not decoder.ended:
            for body in decoder.feed(await stream.read(LIMITS.wire.read_bytes)):
                envelope = unpack_body(body, LIMITS.wire.peer_frame_containers_max)
                if type(envelope) is not bytes or len(records) > _RECORDS_MAX:
                    raise PeerFault("info: answer")
                room_bytes -= len(envelope)
                if room_bytes < 0:
                    raise PeerFault("info: too long")
                records.append(open_record(envelope))
    except StreamEnded:
        raise PeerFault("info: cut off") from None
    finally:
        await stream.reset()
    return records


def _checked(records: Sequence[Record], peer: PeerId, net: RecordId) -> Introduction:
    if not records or records[0].kind != "advert" or records[0].by != peer or records[0].payload["net"] != net:
        raise PeerFault("info: no advert of this peer and swarm")
    known = [record for record in records[1:] if record.kind in KINDS]  # others are of a later version
    notices = tuple(record for record in known if record.kind in _NOTICES and record.payload["net"] == net)
    manifests = tuple(record for record in known if record.kind not in _NOTICES)
    offered = set(records[0].payload["models"])
    if any(manifest.kind != "manifest" or manifest.id not in offered for manifest in manifests):
        raise PeerFault("info: a manifest that the advert does not name")
    return Introduction(records[0], manifests, notices)


async def one_frame(
    stream: Stream, bytes_max: int = LIMITS.wire.question_bytes_max, room: Callable[[int], None] = lambda _: None
) -> bytes:
    """The body of the next frame (b"" for the end frame), and not one byte more: the next one may have come with it.

    The caller sets a deadline. Raises `PeerFault` for a longer frame or an end before its last byte. `StreamLost` goes
    on as it is: a connection that broke is nobody's fault. `room` is told how long the body will be, and may refuse it.
    """
    length = int.from_bytes(await _exactly(stream, HEADER_BYTES), "big")
    if length > bytes_max:
        raise PeerFault("frame too long")
    room(length)
    return await _exactly(stream, length)


async def _exactly(stream: Stream, count: int) -> bytes:
    found = bytearray()
    try:
        while len(found) < count:
            found += await stream.read(count - len(found))
    except StreamEnded:
        raise PeerFault("a frame cut off") from None
    return bytes(found)
