"""What a node says of itself on request: `/dim/info/1`.

Rule: the signed advert is the only truth about what a peer offers; it travels with the manifests it names, each checked
by its own signature. Heartbeats only say which advert is current.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import KINDS, open_record
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

INFO: Final = "/dim/info/1"
_ASK: Final = "advert"


@dataclass(frozen=True, slots=True)
class Introduction:
    """A peer's advert and the manifests of the models it offers."""

    advert: Record
    manifests: tuple[Record, ...]


def serve_info(current: Callable[[], Sequence[bytes]]) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler that answers with `current()`: the advert's envelope first, then manifests."""

    async def serve(stream: Stream) -> None:
        with trio.fail_after(LIMITS.host.negotiate_seconds_max):
            asked = unpack_body(await one_frame(stream))
            if type(asked) is not str:
                raise PeerFault("info: question")
            for envelope in current() if asked == _ASK else ():  # a later version may ask more: that gets no answer
                await stream.write(pack_frame(envelope))
            await stream.write(END)

    return serve


async def fetch_introduction(host: Host, peer: PeerId, net: RecordId) -> Introduction:
    """Ask a connected peer who it is. Raises `PeerFault` on a bad answer, `DialFailed`/`StreamLost` without one."""
    records: list[Record] = []
    room_bytes = LIMITS.peers.introduction_bytes_max
    with trio.move_on_after(LIMITS.host.negotiate_seconds_max) as deadline:
        stream = await host.open_stream(peer, INFO)
        try:
            await stream.write(pack_frame(_ASK))
            decoder = FrameDecoder()
            while not decoder.ended:
                for body in decoder.feed(await stream.read(LIMITS.wire.read_bytes)):
                    envelope = unpack_body(body, LIMITS.wire.peer_frame_containers_max)
                    if type(envelope) is not bytes or len(records) > LIMITS.peers.manifests_per_advert_max:
                        raise PeerFault("info: answer")
                    room_bytes -= len(envelope)
                    if room_bytes < 0:
                        raise PeerFault("info: too long")
                    records.append(open_record(envelope))
        except StreamEnded:
            raise PeerFault("info: cut off") from None
        finally:
            await stream.reset()
    if deadline.cancelled_caught:
        raise DialFailed("no answer about itself")
    return _checked(records, peer, net)


def _checked(records: Sequence[Record], peer: PeerId, net: RecordId) -> Introduction:
    if not records or records[0].kind != "advert" or records[0].by != peer or records[0].payload["net"] != net:
        raise PeerFault("info: no advert of this peer and swarm")
    manifests = tuple(record for record in records[1:] if record.kind in KINDS)  # others are of a later version
    offered = set(records[0].payload["models"])
    if any(manifest.kind != "manifest" or manifest.id not in offered for manifest in manifests):
        raise PeerFault("info: a manifest that the advert does not name")
    return Introduction(records[0], manifests)


async def one_frame(stream: Stream) -> bytes:
    decoder = FrameDecoder(LIMITS.wire.question_bytes_max)
    while True:
        try:
            bodies = decoder.feed(await stream.read(LIMITS.wire.question_bytes_max))
        except (StreamEnded, StreamLost):
            raise PeerFault("a question cut off") from None
        if bodies:
            return bodies[0]
