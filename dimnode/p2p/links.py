"""Links: one kept task stream to each peer, with its pings beside it (`pings.py`).

Rule: the peer with the smaller id opens both streams, so two nodes never hold two links. Frames to a peer without a
link are dropped: when a link stands again the owner asks (`resume`), so nothing is queued for the absent. A broken
frame drops the link; a bad record is handed on by name.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS, Limits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.contain import contained
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, ProtocolRefused, Stream, StreamEnded, StreamLost
from dimnode.p2p.pings import PING, ClockSamples, Pings, wall_clock_ms
from dimnode.p2p.ticks import next_tick
from dimnode.records.ids import PeerId, peer_text
from dimnode.wire import END, FrameDecoder

log = logging.getLogger(__name__)

TASK: Final = "/dim/task/1"

LEFT: Final = "it left"
BLOCKED: Final = "it is blocked"
_BROKE: Final = "it broke the protocol"

OnFrame = Callable[["Link", bytes], Awaitable[None]]
OnLink = Callable[[PeerId, bool], None]


class Link:
    """The task stream to one peer. Frames queued in one tick are written together."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.peer = PeerId(stream.peer)
        self.stream = stream
        self.rtt_ms: float | None = None
        self.clock = ClockSamples(limits.peers.clock_samples_max)
        self.since = trio.current_time()
        self.closed = False
        self.why = ""
        self.scope = trio.CancelScope()
        self.pinged = trio.Event()
        self._said_end = False
        self._limits = limits
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._wake = trio.Event()

    @property
    def heard_bytes(self) -> int:
        """What came over its connection so far, whatever the stream."""
        return self.stream.connection.bytes_in

    def send(self, frame: bytes) -> bool:
        """Queue a frame; False after the end. A peer that lets too much pile up is cut off; it is asked again later."""
        if self.closed or self._said_end:
            return False
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame)
        if self._outgoing_bytes > self._limits.peers.link_outgoing_bytes_max:
            log.warning("a peer does not read: its link is closed", extra=_about(self.peer))
            self.cut("it did not read what we sent")
            return False
        self._wake.set()
        return True

    def cut(self, why: str = "") -> None:
        """End the link at once, also while its writer waits for a peer that does not read. The first reason counts."""
        self.why = self.why or why
        self.closed = True
        self._outgoing.clear()
        self._outgoing_bytes = 0
        self.scope.cancel()

    def end(self) -> None:
        """Say that this is the end, after all that is queued."""
        if self.send(END):
            self._said_end = True

    async def leave(self) -> None:
        """Give the stream back, also while cancelled. After an END it is finished: a reset could overtake the END."""
        self.closed = True
        with trio.CancelScope(shield=True):  # neither call waits
            if self._said_end:
                await self.stream.close()
            else:
                await self.stream.reset()

    async def write_frames(self) -> None:
        """Write what is queued until the link is cut."""
        while not self.closed:
            if not self._outgoing:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            chunk = b"".join(self._outgoing)
            self._outgoing.clear()
            self._outgoing_bytes = 0
            if not self.stream.write_nowait(chunk):
                await self.stream.write(chunk)

    async def read_frames(self, on_frame: OnFrame) -> None:
        """Hand on every frame until the peer ends the stream; raises `PeerFault` when it is cut off or malformed."""
        decoder = FrameDecoder(self._limits.wire.frame_bytes_max)
        few = self._limits.peers.frames_per_checkpoint_max
        while not decoder.ended:
            try:
                chunk = await self.stream.read(self._limits.wire.read_bytes)
            except StreamEnded:
                raise PeerFault("stream ended without its end frame") from None
            for index, body in enumerate(decoder.feed(chunk)):
                if index and index % few == 0:  # a read may hold 70 answers: let other peers' frames through
                    await trio.lowlevel.checkpoint()
                await on_frame(self, body)


class Links:
    """All links of a node. `serve_task` and `pings.serve` are stream handlers, `connection` the host's callback."""

    def __init__(
        self,
        me: PeerId,
        on_frame: OnFrame,
        on_link: OnLink,
        limits: Limits = LIMITS,
        wall_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._me = me
        self._on_frame = on_frame
        self._on_link = on_link
        self._limits = limits
        self._links: dict[PeerId, Link] = {}
        self.pings = Pings(self._links.get, limits.peers, wall_ms)
        self._opening: set[PeerId] = set()
        self._dropping: set[PeerId] = set()
        self._foreign: set[PeerId] = set()  # who speaks nothing of ours, and is needed or stays all the same
        self.meet: Callable[[PeerId], None] = lambda _: None  # told of each such peer
        self.stays: Callable[[PeerId], bool] = lambda _: False  # whether it is let stay
        self._partings: OrderedDict[PeerId, str] = OrderedDict()
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None

    def attach(self, host: Host, nursery: trio.Nursery) -> None:
        """Give the links their host and the nursery in which links live; connections made before are linked now."""
        self._host, self._nursery = host, nursery
        for peer in host.connected():
            self.connection(peer, True)
        nursery.start_soon(self._look_for_unlinked)

    def get(self, peer: PeerId) -> Link | None:
        """The link to this peer, if one stands."""
        return self._links.get(peer)

    def all(self) -> list[Link]:
        """All links that stand."""
        return list(self._links.values())

    def is_foreign(self, peer: PeerId) -> bool:
        """Whether a connected peer refused to have a link."""
        return peer in self._foreign

    def parting(self, peer: PeerId) -> str:
        """Why the last link to this peer ended: one clause for a person, `LEFT` after a farewell, "" when unknown."""
        return self._partings.get(peer, "")

    def was_lost(self, peer: PeerId) -> bool:
        """Whether the last link to this peer ended against the will of both sides."""
        why = self._partings.get(peer, LEFT)
        return why not in (LEFT, BLOCKED) and not why.startswith(_BROKE)

    def end_with(self, peer: PeerId, why: str) -> None:
        """Cut the link to this peer, if one stands; its connection is closed afterwards."""
        if (link := self._links.get(peer)) is not None:
            link.cut(why)

    def send(self, peer: PeerId, frame: bytes) -> bool:
        """Queue a frame for the peer; False when it was dropped, because no link stands."""
        link = self._links.get(peer)
        return link is not None and link.send(frame)

    def connection(self, peer: bytes, up: bool) -> None:
        """The host's notice of a connection. The smaller id opens the streams, the other one waits for them."""
        identity = PeerId(peer)
        if not up or self._nursery is None or self._me > identity or identity in self._opening:
            return
        self._opening.add(identity)
        self._nursery.start_soon(contained, identity, self._open, identity)

    async def _open(self, peer: PeerId) -> None:
        assert self._host is not None
        task: Stream | None = None
        try:
            task = await self._host.open_stream(peer, TASK)
            ping = await self._host.open_stream(peer, PING)
        except (DialFailed, StreamLost) as error:
            if isinstance(error, ProtocolRefused):
                self._foreign.add(peer)
                self.meet(peer)
            log.info("no link: %s", error, extra=_about(peer))
            self._part(peer, f"no link over its connection: {error}")
            if task is not None:
                await task.reset()
            await self._drop_connection(peer)  # connected without a link would look like health for ever
            return
        finally:
            self._opening.discard(peer)
        await self._live(Link(task, self._limits), ping)
        await self._drop_connection(peer, task)

    async def _look_for_unlinked(self) -> None:
        """A new connection of a peer whose old one is not known dead yet brings no notice, and so no link."""
        assert self._host is not None
        while True:
            await next_tick(self._limits.peers.ping_interval_seconds)
            connected = [PeerId(peer) for peer in self._host.connected()]
            self._foreign.intersection_update(connected)  # who is gone need not be remembered
            for peer in connected:
                if peer in self._foreign and not self._kept(peer):
                    self._foreign.discard(peer)  # asked once more, it is dropped
                if not (peer in self._links or peer in self._dropping or peer in self._foreign):
                    self.connection(peer, True)

    async def serve_task(self, stream: Stream) -> None:
        """The other side opened the link."""
        peer = PeerId(stream.peer)
        if peer >= self._me:
            raise PeerFault("the task stream is opened by the smaller id")
        await self._live(Link(stream, self._limits), None)
        await self._drop_connection(peer, stream)

    async def _live(self, link: Link, ping: Stream | None) -> None:
        """Run one link from its first to its last frame. `ping` is the ping stream when it is ours to ping."""
        old = self._links.get(link.peer)
        self._links[link.peer] = link
        if old is not None:
            old.cut("a newer link took its place")
        try:
            self._on_link(link.peer, True)
            with link.scope:
                async with trio.open_nursery() as nursery:  # the link's writer and its pings beside its reader
                    nursery.start_soon(self._write, link)
                    if ping is not None:
                        nursery.start_soon(self.pings.ask, link, ping)
                    else:
                        nursery.start_soon(self.pings.expect, link)
                    await self._read(link)
                    nursery.cancel_scope.cancel()
        finally:
            await link.leave()
            if self._links.get(link.peer) is link:
                del self._links[link.peer]
                self._part(link.peer, link.why)
                self._on_link(link.peer, False)

    def _part(self, peer: PeerId, why: str) -> None:
        self._partings[peer] = why
        self._partings.move_to_end(peer)
        if len(self._partings) > self._limits.peers.adverts_max:
            self._partings.popitem(last=False)

    async def _read(self, link: Link) -> None:
        try:
            await link.read_frames(self._on_frame)
            link.why = link.why or LEFT
        except StreamLost as error:
            link.why = link.why or "its connection broke"
            log.info("link lost: %s", error, extra=_about(link.peer))
        except PeerFault as fault:
            link.why = link.why or f"{_BROKE}: {fault.rule}"
            if self._host is not None:
                self._host.offend(link.peer, Offence.MALFORMED)
            log.warning("link dropped: %s", fault.rule, extra=_about(link.peer))

    async def _write(self, link: Link) -> None:
        try:
            await link.write_frames()
        except StreamLost as error:
            log.info("link lost while writing: %s", error, extra=_about(link.peer))
        link.cut("its connection broke")

    def _kept(self, peer: PeerId) -> bool:
        assert self._host is not None
        return self._host.reach.needed(peer) or self.stays(peer)

    async def _drop_connection(self, peer: PeerId, carried: Stream | None = None) -> None:
        """Without a link the connection has no use; a silent one must not look alive. Others of the peer stay."""
        if self._host is not None and peer not in self._links:
            if peer in self._foreign and self._kept(peer):
                return
            self._foreign.discard(peer)
            self._dropping.add(peer)
            try:
                with trio.move_on_after(self._limits.host.dial_seconds_max):
                    await (self._host.disconnect(peer) if carried is None else self._host.drop_connection_of(carried))
            finally:
                self._dropping.discard(peer)

    async def close(self) -> None:
        """Tell every peer that this is the end, not a crash."""
        for link in self.all():
            link.end()
        await trio.lowlevel.checkpoint()


def _about(peer: PeerId) -> dict[str, str]:
    """For the log."""
    return {"peer": peer_text(peer)}
