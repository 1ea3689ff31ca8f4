"""Task frames on their way: to a peer's link, and from one, checked and held, into the inbox of THE loop.

Rule: nothing unauthenticated passes. A frame comes from a peer that Noise has proved; each record in it is opened and
compared (`p2p/frames.py`) before an event of it reaches the engine. What is too large for a frame is fetched first.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from dimnode.consensus.combining import check_part
from dimnode.errors import PeerFault
from dimnode.jobs.events import AnswerReceived, BadRecord
from dimnode.node.fetching import Fetching, about, busy, split_large
from dimnode.node.registry import grants_in
from dimnode.p2p.contain import contained
from dimnode.p2p.frames import Arrival, RecordFault, TaskFrame, UnknownWord, arrival, read_task_frame
from dimnode.p2p.links import Link
from dimnode.records.ids import Cid, PeerId

if TYPE_CHECKING:
    from dimnode.node.node import Node

log = logging.getLogger(__name__)


class Courier:
    """Carries the task frames of one node."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._fetching = Fetching(node.limits)

    def send(self, peer: PeerId, frame: TaskFrame) -> None:
        """To a peer's link, or to ourselves by the same code."""
        node = self._node
        if peer == node.me:
            found = arrival(frame, node.me, node.me, node.net, trusted=True)
            if rule := self._unreadable(found):  # a model of our own may be what the rule cannot read
                node.inbox.put_local(BadRecord(peer, frame.key, rule, blame=False))
                return
            self._hold(found.held)
            node.inbox.put_local(found.event)
            return
        small, large = split_large(frame, node.limits.jobs.inline_bytes_max)
        for cid in large:
            node.grants.allow(peer, cid)
        sent = small.to_bytes()
        if node.links.send(peer, sent):
            node.watchers.sent(frame.key, peer, frame.what, len(sent))

    async def receive(self, link: Link, body: bytes) -> None:
        """A frame from a link: checked, held, and put into the inbox."""
        node = self._node
        try:
            frame = read_task_frame(body)
        except UnknownWord as word:
            log.debug("a peer says what this version does not know: %r", str(word))
            return
        node.watchers.received(frame.key, link.peer, frame.what, len(body) + 4)
        if frame.what == "lease" and node.space.scarce:
            self.send(link.peer, busy(frame, node.limits, "E-jobs-24", "the disk is nearly full"))
        elif frame.what == "ruling" or not frame.missing():
            await self._take(link.peer, frame, {})
        elif frame.what == "answer" and not node.engine.owner.expects(link.peer, frame.key):
            await self._take(link.peer, frame, {})  # nobody waits for it: it is refused for want of its blob
        elif self._fetching.begin(link.peer, frame):
            node.background().start_soon(contained, link.peer, self._fetch_and_take, link.peer, frame)
        elif frame.what == "lease":
            self.send(link.peer, busy(frame, node.limits))

    async def _fetch_and_take(self, peer: PeerId, frame: TaskFrame) -> None:
        """Fetch what was too large to travel inline, then go on as usual."""
        node = self._node
        assert node.host is not None
        fetched: dict[Cid, bytes] | None = {}
        try:
            fetched = await self._fetching.fetch(node.host, peer, frame)
        except PeerFault as fault:
            log.info("a blob could not be fetched: %s", fault.rule, extra=about(peer, frame))
        if fetched is not None:
            await self._take(peer, frame, fetched)
        elif frame.what == "lease":  # a lost stream is no fault of a record; an answer is asked for again by its owner
            self.send(peer, busy(frame, node.limits))

    async def _take(self, peer: PeerId, frame: TaskFrame, fetched: Mapping[Cid, bytes]) -> None:
        node = self._node
        try:
            found = arrival(frame, peer, node.me, node.net, fetched)
        except RecordFault as fault:
            log.warning("a peer sent a %s that does not hold: %s", frame.what, fault.rule, extra=about(peer, frame))
            if frame.what == "lease":
                self.send(peer, TaskFrame("refused", frame.key, code="E-records-01", text=fault.rule))
            else:
                await node.inbox.put_peer(BadRecord(peer, frame.key, fault.rule))
            return
        if frame.grants:
            await node.hear_notices(grants_in(frame.grants), peer)
        if rule := self._unreadable(found):
            await node.inbox.put_peer(BadRecord(peer, frame.key, rule, blame=False))
            return
        self._hold(found.held)
        try:
            await node.inbox.put_peer(found.event)
        except trio.Cancelled:  # the link ended while the lane was full: no engine will let go of what the event holds
            for identity, _ in found.held:
                node.vault.release(identity)
            raise

    def _unreadable(self, found: Arrival) -> str:
        """Why the job's rule cannot read this output, "" when it can: said now, or one voter would end the job."""
        event = found.event
        if not isinstance(event, AnswerReceived) or event.output is None:
            return ""
        job = self._node.engine.owner.book.find(event.key[0])
        if job is None or not self._node.engine.owner.expects(event.peer, event.key):
            return ""
        try:
            output = dict(found.held)[event.output.cid]
            check_part(job.spec["rule"]["method"], event.peer, output, len(job.spec["tasks"]))
        except PeerFault as fault:
            return fault.rule
        return ""

    def _hold(self, held: tuple[tuple[bytes, bytes], ...]) -> None:
        for identity, content in held:
            self._node.vault.hold(identity, content)
