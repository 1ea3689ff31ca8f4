"""The gate: whom this host lets in, how many at once, and what becomes of those that misbehave.

A socket costs memory and a file from the moment it is accepted, long before anybody knows whose it is. So sockets
whose handshake is not finished are counted, per source address and in all, and in a crowd the oldest one that never
spoke makes room for the newest: an honest handshake takes milliseconds, a hostile one as long as it is allowed to, and
libp2p's part of the work begins with a whole greeting. After the handshake connections are counted per peer and per
source address, and peers that the ledger of conduct refuses are turned away.

Rule: what is beyond a bound is refused at once; nothing waits for a place.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from socket import MSG_PEEK, SO_RCVLOWAT, SOL_SOCKET
from typing import Any, Final

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID

from dimnode.limits import HostLimits
from dimnode.p2p.conduct import BANNED_CODE, CODES, Ban, Conduct, Offence, Verdict
from dimnode.p2p.host.multistream import GREETING, encode_line
from dimnode.records.ids import PeerId, peer_text

log = logging.getLogger(__name__)

UNKNOWN_SOURCE: Final = "unknown"
GREETING_BYTES: Final = len(encode_line(GREETING))  # a private swarm's nonce is longer


class InboundConnectionEnded(Exception):
    """Not an error: how the gate makes libp2p leave the task of an inbound connection."""


@dataclass(frozen=True, slots=True)
class ConductReport:
    """What peers did wrong since the start: offences by kind, refusals by code, gossip by topic and fate."""

    offences: dict[str, int]
    refusals: dict[str, int]
    gossip: dict[str, dict[str, int]]
    bans: int
    banned: tuple[Ban, ...]
    half_open: int


class Cutter:
    """Closes the connections of a peer at once: what was written to it is not waited for."""

    def __init__(self, nursery: trio.Nursery, connections_of: Callable[[bytes], list[Any]]) -> None:
        self._nursery = nursery
        self._connections_of = connections_of
        self._cutting: set[bytes] = set()

    def cut(self, peer: bytes) -> None:
        """Begin; a peer that offends a hundred times meanwhile is cut once."""
        if peer not in self._cutting:
            self._cutting.add(peer)
            self._nursery.start_soon(self._close, peer)

    async def _close(self, peer: bytes) -> None:
        try:
            for connection in self._connections_of(peer):
                await connection.session.close()
        finally:
            self._cutting.discard(peer)


class _HalfOpen:
    """A socket between its accept and the end of its handshake; `scope` ends it, `fault` is what that is then."""

    __slots__ = ("done", "fault", "scope", "source", "spoke")

    def __init__(self, source: str, seconds_max: float) -> None:
        self.source = source
        self.scope = trio.CancelScope(deadline=trio.current_time() + seconds_max)
        self.done = self.spoke = False
        self.fault = Offence.HALF_OPEN


class Gate:
    """One per host. `offend` is how every door of the host complains about a peer."""

    def __init__(self, conduct: Conduct, limits: HostLimits) -> None:
        self.conduct = conduct
        self.refused: Counter[str] = Counter()
        self.cut: Callable[[bytes], None] = lambda peer: None  # closes all connections to a peer; set by the host
        self._limits = limits
        self._half_open: dict[Any, _HalfOpen] = {}  # by the task that serves the socket, oldest first
        self._half_open_of: Counter[str] = Counter()
        self._established_of: Counter[str] = Counter()

    # Conduct

    def offend(self, peer: bytes, offence: Offence) -> None:
        """Write down an offence of a peer that Noise proved, and act on the verdict."""
        before = self.conduct.verdict(peer, trio.current_time())
        verdict = self.conduct.offend(peer, offence, trio.current_time())
        worse = verdict >= Verdict.DISCONNECT and verdict > before  # said once, not for each message under way
        words = (CODES[offence], peer_text(PeerId(peer))[-12:], offence.value, verdict.name.lower())
        log.log(logging.INFO if worse else logging.DEBUG, "%s: peer …%s offends (%s): %s", *words)
        if verdict >= Verdict.DISCONNECT:
            self.cut(peer)

    def stop_cutting(self) -> None:
        """The host is closing all connections itself."""
        self.cut = lambda peer: None

    def report(self, gossip: Counter[tuple[str, str]]) -> ConductReport:
        """Counters for people; `gossip` counts messages by topic and fate."""
        by_topic: dict[str, dict[str, int]] = {}
        for (topic, fate), count in gossip.items():
            by_topic.setdefault(topic, {})[fate] = count
        return ConductReport(
            {offence.value: count for offence, count in self.conduct.counts.items()},
            dict(self.refused),
            by_topic,
            self.conduct.bans,
            tuple(self.conduct.banned(trio.current_time())),
            self.half_open,
        )

    def muted(self, peer: bytes) -> bool:
        """Whether nothing that `peer` hands on is listened to."""
        return self.conduct.verdict(peer, trio.current_time()) >= Verdict.MUTED

    def refusal(self, peer: bytes) -> str:
        """Why there may be no connection with `peer` now, for a person; "" when there may."""
        seconds = self.conduct.refused_seconds(peer, trio.current_time())
        if not seconds:
            return ""
        self.refused[BANNED_CODE] += 1
        return f"{BANNED_CODE}: this peer misbehaved and is refused for another {seconds:.0f} s"

    def with_refusal(self, refusal: Callable[[bytes, str], str]) -> Callable[[bytes, str], str]:
        """Both reasons to refuse a peer in one: its conduct, and what our operator said."""
        return lambda peer, ip: self.refusal(peer) or refusal(peer, ip)

    # Sockets and connections

    @property
    def half_open(self) -> int:
        """Sockets whose handshake is not finished."""
        return len(self._half_open)

    def install(self, swarm: Any) -> None:
        """Stand before a libp2p swarm's own handling of inbound sockets and of all new connections."""
        handle, upgrade, add = swarm._handle_inbound_connection, swarm.upgrade_inbound_raw_conn, swarm.add_conn

        async def guarded_handle(socket: Any, listen_address: Any) -> None:
            await self._serve_socket(socket, lambda: handle(socket, listen_address))

        async def upgrade_and_stay(raw: Any, listen_address: Any) -> Any:
            # Stock 0.8.1 keeps the place of an inbound connection until the host stops; leaving its task frees it.
            connection = await upgrade(raw, listen_address)
            await connection.event_closed.wait()
            raise InboundConnectionEnded

        async def guarded_add(muxed: Any, direction: str = "unknown") -> Any:
            if not self._establish():
                await muxed.session.close()
                raise SwarmException("too many connections from this address")
            await self._drop_surplus(swarm, muxed.peer_id)
            return await add(muxed, direction)

        # Stock counts half-open sockets among the connections: a few hundred would keep everybody out.
        swarm._inbound_limiter = trio.CapacityLimiter(self._limits.connections_max + self._limits.half_open_max)
        swarm._handle_inbound_connection = guarded_handle
        swarm.upgrade_inbound_raw_conn = upgrade_and_stay
        swarm.add_conn = guarded_add

    def lengthen_queues(self, swarm: Any) -> None:
        """Let more sockets wait for their accept: stock's 128 are full for a second after a burst of some hundred."""
        for listener in swarm.listeners.values():
            for each in getattr(listener, "listeners", ()):
                each.socket.listen(self._limits.accept_queue_max)

    async def _serve_socket(self, socket: Any, handle: Callable[[], Awaitable[None]]) -> None:
        source = source_of(socket)
        if self._is_crowded(source):
            self._refuse(source, Offence.CROWDING)
            await close_quietly(socket)
            return
        self._make_room(source)
        task = trio.lowlevel.current_task()
        entry = self._half_open[task] = _HalfOpen(source, self._limits.negotiate_seconds_max)
        self._half_open_of[source] += 1
        try:
            with entry.scope:
                if await has_greeted(socket):
                    entry.spoke = True
                    await handle()
        finally:
            if entry.done:
                _decrease(self._established_of, source)
            else:
                self._finish(task)
                self._refuse(source, entry.fault)
                await close_quietly(socket)

    def _make_room(self, source: str) -> None:
        """One half-open socket of a crowded source ends, or of the most crowded one: the oldest that never spoke."""
        crowded = self._half_open_of[source] >= self._limits.half_open_per_source_max
        if not crowded and len(self._half_open) < self._limits.half_open_max:
            return
        victim_source = source if crowded else self._half_open_of.most_common(1)[0][0]
        crowd = [task for task, entry in self._half_open.items() if entry.source == victim_source]
        task = next((task for task in crowd if not self._half_open[task].spoke), crowd[0])
        self._half_open[task].scope.cancel()
        self._finish(task)

    def _finish(self, task: Any) -> _HalfOpen | None:
        entry = self._half_open.pop(task, None)
        if entry is not None:
            _decrease(self._half_open_of, entry.source)
        return entry

    async def _drop_surplus(self, swarm: Any, peer: ID) -> None:
        """The newest stays: a peer whose network changed comes back before its old connections are known dead."""
        live = [found for found in swarm.connections.get(peer, ()) if not found.is_closed]
        if len(live) >= self._limits.connections_per_peer_max:
            self.refused[CODES[Offence.CROWDING]] += 1
            self.offend(peer.to_bytes(), Offence.CROWDING)
            await live[0].muxed_conn.session.close()

    def _is_crowded(self, source: str) -> bool:
        return self._established_of[source] >= self._limits.connections_per_source_max

    def _establish(self) -> bool:
        """The handshake that this task served is over; there is none for a connection that we dialled.

        False when its source has become crowded: others of it, let in at the same time, were faster.
        """
        entry = self._finish(trio.lowlevel.current_task())
        if entry is None:
            return True
        if self._is_crowded(entry.source):
            entry.fault = Offence.CROWDING
            return False
        entry.done = True
        entry.scope.deadline = inf
        self._established_of[entry.source] += 1
        return True

    def _refuse(self, source: str, offence: Offence) -> None:
        self.conduct.counts[offence] += 1  # a source address is no peer: it is counted, and bounded by its places
        self.refused[CODES[offence]] += 1
        log.debug("%s: a socket from %s refused (%s)", CODES[offence], source, offence.value)


def source_of(socket: Any) -> str:
    """The address that a socket comes from; all IPv6 addresses of one /64 are one source."""
    try:
        found = socket.get_remote_address()
    except Exception:  # noqa: BLE001 boundary: the socket may be gone already
        return UNKNOWN_SOURCE
    if found is None:
        return UNKNOWN_SOURCE
    host = str(found[0])
    if ":" not in host or host.lower().startswith("::ffff:"):
        return host
    return ":".join(host.split("%")[0].split(":")[:4])


async def has_greeted(socket: Any) -> bool:
    """Wait for a greeting's worth of bytes, without reading them; False when the peer ends before.

    Whoever dials speaks first, and until then the kernel alone keeps the socket: it costs us a task that sleeps. Raises
    `trio.ClosedResourceError` when the socket is closed meanwhile.
    """
    found = getattr(getattr(socket, "stream", None), "socket", None)
    if found is None:  # not TCP
        return True
    found.setsockopt(SOL_SOCKET, SO_RCVLOWAT, GREETING_BYTES)
    await trio.lowlevel.wait_readable(found)
    greeted = len(await found.recv(GREETING_BYTES, MSG_PEEK)) == GREETING_BYTES
    found.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 1)
    return greeted


async def close_quietly(socket: Any) -> None:
    """Close, also while cancelled and whatever the state of the socket."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
        try:
            await socket.close()
        except Exception as error:  # noqa: BLE001 boundary: it is gone in any case
            log.debug("closing a socket: %r", error)


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
