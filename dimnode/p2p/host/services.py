"""Streams of libp2p's own protocols (gossip, DHT, identify, ping): slowed down, few per peer, and watched.

libp2p's handlers read as fast as a peer sends and wait for ever for one that does not. Here a peer that sends too fast
is simply read more slowly, which slows its writer by flow control, and a handler that gives a live stream up is taken
as its word that the peer sent what is no message.

Rule: what a peer may make libp2p do is bounded per peer, whatever the protocol.
"""

from collections import Counter, OrderedDict
from typing import Any, Final

import trio
from libp2p.io.exceptions import MessageTooLarge

from dimnode.errors import PeerFault
from dimnode.limits import HostLimits
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.streams import StreamEnded, StreamLost

SERVICES: Final = frozenset(
    {
        "/meshsub/1.1.0",
        "/ipfs/kad/1.0.0",
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
    }
)


class RateLimit:
    """A token bucket per source; forgets the source that was silent longest. Pure: the clock is an argument."""

    def __init__(self, per_second: float, burst: float, sources_max: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._sources_max = sources_max
        self._buckets: OrderedDict[Any, tuple[float, float]] = OrderedDict()

    def allow(self, source: Any, now_seconds: float) -> bool:
        """Take one token of `source` if there is one."""
        tokens, since = self._buckets.pop(source, (self._burst, now_seconds))
        tokens = min(self._burst, tokens + (now_seconds - since) * self._per_second)
        allowed = tokens >= 1.0
        self._buckets[source] = (tokens - 1.0 if allowed else tokens, now_seconds)
        if len(self._buckets) > self._sources_max:
            self._buckets.popitem(last=False)
        return allowed

    def reserve(self, source: Any, now_seconds: float) -> float:
        """Take one token of `source` in any case; return how many seconds to wait before it may be used."""
        if self.allow(source, now_seconds):
            return 0.0
        tokens, since = self._buckets[source]
        self._buckets[source] = (tokens - 1.0, since)
        return (1.0 - tokens) / self._per_second


class ServiceStreams:
    """What each peer has open of libp2p's protocols, and how fast it is read."""

    def __init__(self, limits: HostLimits) -> None:
        self._per_peer_max = limits.service_streams_per_peer_max
        self._open: Counter[tuple[bytes, str]] = Counter()
        self._reads = RateLimit(
            limits.service_reads_per_second_max, limits.service_reads_burst_max, limits.known_peers_max
        )

    def enter(self, peer: bytes, protocol: str) -> bool:
        """Take a place for one more stream; False when the peer has as many as it may."""
        if self._open[peer, protocol] >= self._per_peer_max:
            return False
        self._open[peer, protocol] += 1
        return True

    def leave(self, peer: bytes, protocol: str) -> None:
        """Give the place back."""
        self._open[peer, protocol] -= 1
        if self._open[peer, protocol] <= 0:
            del self._open[peer, protocol]

    async def pace(self, peer: bytes) -> None:
        """Wait until this peer may be read again."""
        if wait_seconds := self._reads.reserve(peer, trio.current_time()):
            await trio.sleep(wait_seconds)


class WatchedStream:
    """A libp2p stream that reads at its peer's pace and remembers whether its handler gave it up."""

    def __init__(self, stream: Any, services: ServiceStreams, peer: bytes) -> None:
        self._stream, self._services, self._peer = stream, services, peer
        self.given_up = False
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def pace(self) -> None:
        """Wait until the peer may be read again: for handlers that read the muxed stream themselves."""
        await self._services.pace(self._peer)

    async def read(self, n: int | None = None) -> bytes:
        """As the stream, paced."""
        await self.pace()
        try:
            found: bytes = await self._stream.read(n)
        except Exception:
            self._ended = True
            raise
        return found

    async def reset(self) -> None:
        """As the stream; when its end was not what the handler had just read, it is the handler's complaint."""
        self.given_up = self.given_up or not (self._ended or self._stream.muxed_stream.lost)
        await self._stream.reset()


def offence_of(error: BaseException, ours: bool) -> Offence | None:
    """What an exception out of a stream handler says about the peer; None when it says nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case PeerFault(rule=rule):
            return Offence.OVERSIZE if "too l" in rule else Offence.MALFORMED
        case MessageTooLarge():
            return Offence.OVERSIZE
        case trio.TooSlowError():
            return Offence.SLOW
        case StreamEnded() | StreamLost():
            return None
    # libp2p's own handlers raise for odd bytes; in ours any other exception is our bug rather than the peer's.
    return Offence.HANDLER if ours or isinstance(error, OSError | EOFError) else Offence.MALFORMED
