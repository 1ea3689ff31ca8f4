"""Pings over `/dim/ping/1`: whether the other end of a link lives, the round trip, and how far its clock is off.

libp2p never notices a peer that was stopped or whose cable was cut, so each link is pinged every second: after two
seconds of silence it ends, and with it the connection. Who pings notices within 3 s, who is pinged within 3.5 s.

Rule: the side that opened the task stream asks, the other answers and counts on being asked. Clocks are for people.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from dimnode.limits import PeerLimits
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.records.ids import PeerId, peer_text

if TYPE_CHECKING:
    from dimnode.p2p.links import Link

log = logging.getLogger(__name__)

PING: Final = "/dim/ping/1"
PING_BYTES: Final = 32
_RTT_BYTES: Final = 4
_CLOCK_BYTES: Final = 8
_ASKING_CLOCK: Final = slice(_RTT_BYTES, _RTT_BYTES + _CLOCK_BYTES)
_ANSWERING_CLOCK: Final = slice(_RTT_BYTES + _CLOCK_BYTES, _RTT_BYTES + 2 * _CLOCK_BYTES)
"""Where a ping carries the round trip measured last (us) and the clocks of both sides (ms since 1970; 0: not said)."""


def wall_clock_ms() -> int:
    """This machine's clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class ClockSamples:
    """How far a peer's clock is ahead of ours: the newest measures, each with the round trip that it took."""

    def __init__(self, most: int) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, round_trip_ms: float, ahead_ms: float) -> None:
        """Note one measure; its error is at most half of the round trip."""
        self._samples.append((round_trip_ms, ahead_ms))

    @property
    def ahead_ms(self) -> float | None:
        """The measure with the smallest error, None before the first (as in NTP's clock filter; RFC 5905, 10)."""
        return min(self._samples)[1] if self._samples else None


class Pings:
    """Asks and answers over the ping streams of a node; `link_of` finds the link that an answer concerns."""

    def __init__(
        self, link_of: Callable[[PeerId], "Link | None"], limits: PeerLimits, wall_ms: Callable[[], int]
    ) -> None:
        self._link_of, self._limits, self._wall_ms = link_of, limits, wall_ms

    async def serve(self, stream: Stream) -> None:
        """Echo 32 bytes at a time, with our clock put in; see `_ANSWERING_CLOCK` for what they say."""
        peer = PeerId(stream.peer)
        while True:
            chunk = await stream.read(PING_BYTES)
            while len(chunk) < PING_BYTES:
                chunk += await stream.read(PING_BYTES - len(chunk))
            if (link := self._link_of(peer)) is not None:
                link.pinged.set()
                said_us = int.from_bytes(chunk[:_RTT_BYTES], "big")
                link.rtt_ms = said_us / 1000 if said_us else None
                if link.rtt_ms is not None and (theirs_ms := int.from_bytes(chunk[_ASKING_CLOCK], "big")):
                    link.clock.add(link.rtt_ms, theirs_ms + link.rtt_ms / 2 - self._wall_ms())
            answer = bytearray(chunk)
            answer[_ANSWERING_CLOCK] = self._wall_ms().to_bytes(_CLOCK_BYTES, "big")
            await stream.write(bytes(answer))

    async def ask(self, link: "Link", stream: Stream) -> None:
        """Ping each second; silence ends the link."""
        limits = self._limits
        try:
            while True:
                sent, sent_ms = trio.current_time(), self._wall_ms()
                said_us = min(int((link.rtt_ms or 0) * 1000), 2**32 - 1)
                said = said_us.to_bytes(_RTT_BYTES, "big") + sent_ms.to_bytes(_CLOCK_BYTES, "big")
                answer = await self._answer_to(link, stream, said.ljust(PING_BYTES, b"\0"))
                link.rtt_ms = (trio.current_time() - sent) * 1000
                if theirs_ms := int.from_bytes(answer[_ANSWERING_CLOCK], "big"):
                    link.clock.add(link.rtt_ms, theirs_ms - sent_ms - link.rtt_ms / 2)
                await trio.sleep(limits.ping_interval_seconds)
        except trio.TooSlowError:
            log.info("a peer is silent: its link ends", extra={"peer": peer_text(link.peer)})
            link.cut(f"it was silent for {limits.ping_wait_seconds:g} s")
        except (StreamLost, StreamEnded):
            log.info("a peer answers no pings: its link ends", extra={"peer": peer_text(link.peer)})
            link.cut("its connection broke")
        finally:
            await stream.reset()  # never waits

    async def _answer_to(self, link: "Link", stream: Stream, question: bytes) -> bytes:
        """Put one ping and return its answer. Raises `trio.TooSlowError` when the peer is silent."""
        heard, answer = link.heard_bytes, bytearray()
        limits = self._limits
        busy = (link.rtt_ms or 0) > limits.ping_busy_rtt_seconds * 1000
        with trio.move_on_after(max(limits.ping_wait_seconds, limits.ping_wait_busy_seconds * busy)):
            await stream.write(question)
            while len(answer) < PING_BYTES:
                answer += await stream.read(PING_BYTES - len(answer))
        if len(answer) < PING_BYTES and await self._is_late(link, heard, busy):
            with trio.move_on_after(limits.ping_wait_seconds):
                while len(answer) < PING_BYTES:
                    answer += await stream.read(PING_BYTES - len(answer))
        if len(answer) < PING_BYTES:
            raise trio.TooSlowError
        return bytes(answer)

    async def _is_late(self, link: "Link", heard: int, busy: bool) -> bool:
        """Whether the peer is late rather than gone: something came from it, and one side is known to be busy.

        What lies in our own socket, because we are late ourselves, counts as well.
        """
        began, pause_seconds = trio.current_time(), self._limits.ping_again_seconds
        await trio.sleep(pause_seconds)
        late_here = trio.current_time() - began > 2 * pause_seconds
        return link.heard_bytes > heard and (busy or late_here)

    async def expect(self, link: "Link") -> None:
        """The side that is pinged: no ping for three seconds and a half means that the other side is gone."""
        limits = self._limits
        patience_seconds = limits.ping_interval_seconds + limits.ping_wait_seconds + 0.5
        while True:
            heard = link.heard_bytes
            with trio.move_on_after(patience_seconds):
                await link.pinged.wait()
            if not link.pinged.is_set() and await self._is_late(link, heard, busy=False):
                with trio.move_on_after(limits.ping_wait_seconds):
                    await link.pinged.wait()
            if not link.pinged.is_set():
                break
            link.pinged = trio.Event()
        log.info("a peer pings no more: its link ends", extra={"peer": peer_text(link.peer)})
        link.cut(f"it was silent for {patience_seconds:g} s")
