"""What jobs of other peers hold here: a place and bytes each, until the job is over, however its streams end.

Rule: one token per job, shared by all streams that wait for it. A stream that breaks gives nothing back, because the
job goes on; one that comes again for the same job costs nothing new.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from dimnode.jobs.effects import Refuse, Reply
from dimnode.limits import PeerLimits
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.records.ids import PeerId, RecordId


class Shares:
    """Bytes that are held for strangers, of a bound for all of them.

    As with the places for large blobs (`p2p/blob_places.py`) the last bytes are kept for who has least against them: a
    peer, or a network, that has its share already leaves some free, and one that has both leaves more.
    """

    def __init__(self, bytes_max: int, limits: PeerLimits) -> None:
        self._bytes_max, self._limits = bytes_max, limits
        self._of_peer: Counter[PeerId] = Counter()
        self._of_group: Counter[str] = Counter()
        self.held = 0

    def take(self, peer: PeerId, group: str, size: int) -> bool:
        """Take bytes, to be given back with `leave`; False when there is no room for this peer."""
        limits, whole = self._limits, self._bytes_max
        over_peer = (self._of_peer[peer] + size) * 1000 > limits.foreign_peer_share_permille * whole
        over_group = (self._of_group[group] + size) * 1000 > limits.foreign_group_share_permille * whole
        kept = limits.foreign_kept_permille[over_peer + over_group] * whole // 1000
        if self.held + size + kept > whole:
            return False
        self._count(peer, group, size)
        return True

    def leave(self, peer: PeerId, group: str, size: int) -> None:
        """Give back what was taken."""
        self._count(peer, group, -size)

    @contextmanager
    def while_here(self, peer: PeerId, group: str) -> Iterator[Callable[[int], bool]]:
        """A `take` of which everything is given back in the end."""
        taken = 0

        def take(size: int) -> bool:
            nonlocal taken
            there = self.take(peer, group, size)
            taken += size * there
            return there

        try:
            yield take
        finally:
            self.leave(peer, group, taken)

    def _count(self, peer: PeerId, group: str, size: int) -> None:
        self.held += size
        self._of_peer[peer] += size
        self._of_group[group] += size
        self._of_peer, self._of_group = +self._of_peer, +self._of_group  # without zeros


class Foreign:
    """The token of a foreign job. `let_go` is called once, when the job is over or was not taken."""

    def __init__(self, streams_max: int, let_go: Callable[[], None]) -> None:
        self.over = trio.Event()
        self.job: RecordId | None = None
        self.refusal: Refuse | None = None
        self._streams_max, self._let_go = streams_max, let_go
        self._waiting: list[trio.CancelScope] = []

    async def wait(self, stream: Stream) -> bool:
        """True when the job is over; False when the stream broke, or newer ones for this job took its place.

        The oldest makes room: of a peer that comes again it is the one that nobody reads any more.
        """
        scope = trio.CancelScope()
        self._waiting.append(scope)
        if len(self._waiting) > self._streams_max:
            self._waiting.pop(0).cancel()
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_lost, stream, scope)
                await self.over.wait()
                nursery.cancel_scope.cancel()
        if scope in self._waiting:
            self._waiting.remove(scope)
        return not scope.cancel_called

    def ended(self, reply: Reply, outputs: tuple[bytes, ...]) -> None:
        """The job is over; its receipt is made from the journal. An earlier spec with its nonce may have begun it."""
        self.is_known(reply.job)

    def is_known(self, job: RecordId) -> None:
        """This job is over."""
        self.job = job
        self._end()

    def refused(self, refuse: Refuse) -> None:
        """The job was not taken."""
        self.refusal = refuse
        self._end()

    def _end(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self._let_go()


@dataclass(slots=True)
class Desk:
    """One peer's streams and open jobs here, these by nonce. A request may be large and need never be finished: few
    are read at a time.
    """

    reading: trio.CapacityLimiter
    streams: int = 0
    jobs: dict[bytes, Foreign] = field(default_factory=dict)


async def _until_lost(stream: Stream, scope: trio.CancelScope) -> None:
    """Cancel when the stream breaks. A peer may finish its side and wait; what it says beyond its job nobody reads."""
    try:
        await stream.read(1)
    except StreamEnded:
        pass
    except StreamLost:
        scope.cancel()
