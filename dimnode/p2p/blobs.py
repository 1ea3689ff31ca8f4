"""Blob exchange: `/dim/blob/1`, for bytes too large to ride in a task frame. A bare CID is asked here for a blob of a
job; a list is a question about a large blob (`blob_server.py`).

Rule: default deny. A blob is served to the peer to whom this node granted it by sending a lease or an answer that
names it, and to nobody else, but for what is everybody's: the small files beside a public model's weights. Chunks carry
no trust: the CID is checked over the whole when the end frame has come.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded, StreamLost
from dimnode.p2p.introduction import one_frame
from dimnode.records.ids import Cid, PeerId, blob_cid
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

BLOB: Final = "/dim/blob/1"
_CHUNK_BYTES: Final = 256 * 1024


class Grants:
    """Who may fetch what; the oldest grant goes first when there are too many."""

    def __init__(self, grants_max: int = LIMITS.peers.blob_grants_max) -> None:
        self._granted: OrderedDict[tuple[PeerId, Cid], None] = OrderedDict()
        self._grants_max = grants_max

    def allow(self, peer: PeerId, cid: Cid) -> None:
        """From now on this peer may fetch this blob."""
        self._granted[peer, cid] = None
        self._granted.move_to_end((peer, cid))
        if len(self._granted) > self._grants_max:
            self._granted.popitem(last=False)

    def allowed(self, peer: PeerId, cid: Cid) -> bool:
        """Whether the peer was granted the blob."""
        return (peer, cid) in self._granted


def serve_blobs(
    grants: Grants,
    read: Callable[[Cid], bytes | None],
    public: Callable[[Cid], bytes | None] = lambda _: None,
    large: BlobServer | None = None,
) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler: one CID asked, chunks and an end frame, or one refusal frame. `public` is for anybody.

    A question about a large blob is handed to `large`; without it, it is refused as older versions refuse it.
    """

    serving: Counter[PeerId] = Counter()

    async def serve(stream: Stream) -> None:
        with trio.fail_after(LIMITS.host.negotiate_seconds_max):
            asked = unpack_body(await one_frame(stream))
        if type(asked) is list and large is not None:
            await large.serve(stream, asked)
            return
        peer = PeerId(stream.peer)
        if serving[peer] >= 2 * LIMITS.peers.blob_fetches_per_peer:  # each may hold a copy of its own
            raise PeerFault("blob: too many at once")
        serving[peer] += 1
        try:
            await send(stream, peer, asked)
        finally:
            serving[peer] -= 1
            if not serving[peer]:
                del serving[peer]

    async def send(stream: Stream, peer: PeerId, asked: object) -> None:
        blob = None
        if type(asked) is bytes:
            blob = read(Cid(asked)) if grants.allowed(peer, Cid(asked)) else public(Cid(asked))
        with trio.fail_after(LIMITS.peers.blob_seconds_max):
            if blob is None:  # one word for "not here" and "not for you": it tells nothing
                await stream.write(pack_frame("refused") + END)
                return
            for start in range(0, len(blob), _CHUNK_BYTES):
                await stream.write(pack_frame(blob[start : start + _CHUNK_BYTES]))
            await stream.write(END)

    return serve


async def fetch_blob(
    host: Host, peer: PeerId, cid: Cid, bytes_max: int = LIMITS.records.tensor_blob_bytes_max
) -> bytes:
    """The bytes of a blob from this peer. Raises `PeerFault` when they are refused, too many or not of this CID."""
    chunks: list[bytes] = []
    size = 0
    with trio.move_on_after(LIMITS.peers.blob_seconds_max) as deadline:
        stream = await host.open_stream(peer, BLOB)
        try:
            await stream.write(pack_frame(bytes(cid)))
            decoder = FrameDecoder()
            while not decoder.ended:
                for body in decoder.feed(await stream.read(LIMITS.wire.read_bytes)):
                    chunk = unpack_body(body, LIMITS.wire.peer_frame_containers_max)
                    if type(chunk) is not bytes or not chunk:  # empty chunks could go on for ever
                        raise PeerFault("blob: refused")
                    size += len(chunk)
                    if size > bytes_max:
                        raise PeerFault("blob: too large")
                    chunks.append(chunk)
        except (StreamEnded, StreamLost):
            raise PeerFault("blob: cut off") from None
        finally:
            await stream.reset()
    if deadline.cancelled_caught:
        raise DialFailed("the blob did not come in time")
    blob = b"".join(chunks)
    if blob_cid(blob) != cid:
        raise PeerFault("blob: wrong bytes")
    return blob
