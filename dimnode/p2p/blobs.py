"""Blob exchange: `/dim/blob/1`, for bytes too large to ride in a task frame. A bare CID is asked here for a blob of a
job; a list is a question about a large blob (`blob_server.py`).

Rule: default deny. A blob is served to the peer to whom this node granted it by sending a lease or an answer that
names it, and to nobody else, but for what is everybody's: the small files beside a public model's weights. Those are
read by threads, a chunk at a time, one chunk of a peer after the other: many streams of one peer are no larger share.
Chunks carry no trust: the CID is checked over the whole when the end frame has come.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.p2p.blob_server import BlobServer
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream, StreamEnded
from dimnode.p2p.introduction import one_frame
from dimnode.records.ids import Cid, PeerId, blob_cid
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

BLOB: Final = "/dim/blob/1"
_CHUNK_BYTES: Final = 256 * 1024


PartOf = Callable[[int, int], bytes]
"""Bytes of a file from an offset on, at most so many; none at its end. Blocks; raises `Refused` when it went."""


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
    public: Callable[[Cid], PartOf | None] = lambda _: None,
    large: BlobServer | None = None,
) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler: one CID asked, chunks and an end frame, or one refusal frame. `public` is for anybody.

    A question about a large blob is handed to `large`; without it, it is refused as older versions refuse it.
    """

    serving: Counter[PeerId] = Counter()
    turns: dict[PeerId, trio.Lock] = {}
    readers = trio.CapacityLimiter(LIMITS.peers.small_file_reads_max)

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
            with trio.fail_after(LIMITS.peers.blob_seconds_max):
                if type(asked) is not bytes or not await send(stream, peer, Cid(asked)):
                    await stream.write(
                        pack_frame("refused")
                    )  # "not here" and "not for you" in one word: it tells nothing
                await stream.write(END)
        except Refused:
            await stream.reset()  # the file went while it was read: no end frame, so nobody takes it for whole
        finally:
            serving[peer] -= 1
            if not serving[peer]:
                del serving[peer]
                turns.pop(peer, None)

    async def send(stream: Stream, peer: PeerId, cid: Cid) -> bool:
        if grants.allowed(peer, cid):
            blob = read(cid)
            for start in range(0, len(blob or b""), _CHUNK_BYTES):
                await stream.write(pack_frame((blob or b"")[start : start + _CHUNK_BYTES]))
            return blob is not None
        part, offset = public(cid), 0
        while part is not None:
            async with turns.setdefault(peer, trio.Lock()):
                chunk = await trio.to_thread.run_sync(part, offset, _CHUNK_BYTES, limiter=readers)
            if not chunk:
                return True
            await stream.write(pack_frame(chunk))
            offset += len(chunk)
        return False

    return serve


async def fetch_blob(
    host: Host, peer: PeerId, cid: Cid, bytes_max: int = LIMITS.records.tensor_blob_bytes_max
) -> bytes:
    """The bytes of a blob from this peer.

    Raises `PeerFault` when they are refused, too many or not of this CID, or the peer ends without the end frame;
    `DialFailed` or `StreamLost` when it cannot be reached, is too slow, or the stream was lost.
    """
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
        except StreamEnded:  # its own deed; a stream that was lost is nobody's
            raise PeerFault("blob: cut off") from None
        finally:
            await stream.reset()
    if deadline.cancelled_caught:
        raise DialFailed("the blob did not come in time")
    blob = b"".join(chunks)
    if blob_cid(blob) != cid:
        raise PeerFault("blob: wrong bytes")
    return blob
