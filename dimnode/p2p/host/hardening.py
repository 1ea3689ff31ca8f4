"""What has to be changed in libp2p 0.8.1 before a node may face strangers (docs/patches.md gives the reasons).

Rule: every change checks the exact version first, and has a test that fails when the change is no longer needed.
"""

import logging
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import version
from typing import Any, Final

import libp2p.kad_dht.kad_dht as kad_module
import libp2p.network.swarm as swarm_module
import libp2p.transport.tcp.tcp as tcp_module
import trio
from libp2p.network.connection.swarm_connection import SwarmConn

from dimnode.errors import ConfigError
from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host import address_records
from dimnode.p2p.host.accepting import handle_muxed_stream
from dimnode.p2p.host.services import SERVICES, ServiceStreams, WatchedStream, offence_of
from dimnode.p2p.host.yamux_budget import Offend, nobody_minds

log = logging.getLogger(__name__)

LIBP2P_VERSION: Final = "0.8.1"
RESET_SECONDS_MAX: Final = 1.0

# Loggers that report a peer's ordinary behaviour (closing a stream, being unreachable) as an error of ours.
NOISY_LOGGERS: Final = (
    "libp2p.host",
    "libp2p.identity",
    "libp2p.kad_dht",
    "libp2p.network",
    "libp2p.protocol_muxer",
    "libp2p.pubsub",
    "libp2p.transport",
)

RawHandler = Callable[[Any], Awaitable[None]]


def check_version() -> None:
    """Raise `ConfigError` unless libp2p is exactly the version these changes were written and tested for."""
    found = version("libp2p")
    if found != LIBP2P_VERSION:
        raise ConfigError(
            "E-p2p-04",
            f"libp2p {found} is installed, dimnode needs exactly {LIBP2P_VERSION}",
            "its behaviour towards hostile peers is corrected version by version (docs/patches.md)",
            f"pip install libp2p=={LIBP2P_VERSION}",
        )


def patch_modules() -> None:
    """Apply the changes to module globals. Idempotent. Raises `ConfigError` for another version."""
    check_version()
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.0  # a successful dial does not end this wait
    tcp_module._set_reuse_flags = _set_exclusive_flags
    address_records.install()
    SwarmConn._handle_muxed_stream = handle_muxed_stream
    # A question of 4 MiB may list a hundred thousand providers, each of which is looked at.
    kad_module.MAX_DHT_MESSAGE_SIZE = LIMITS.host.dht_answer_bytes_max


def _set_exclusive_flags(sock: Any) -> None:
    """Listen without SO_REUSEPORT: with it, a second node would silently share the port and half of its visitors."""
    if sys.platform != "win32":  # there the flag would allow what it forbids elsewhere
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def quiet_loggers() -> None:
    """Keep libp2p's reports of ordinary life out of the log; its warnings elsewhere stay."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.CRITICAL)  # sets its own level at import


class HandlerGuard:
    """Wraps every stream handler: it counts the open ones per peer, and no exception of one reaches the host.

    A failure is logged, as a warning for the protocols in `loud`: libp2p's own handlers raise for any odd byte. What it
    says about the peer goes to `offend`.
    """

    def __init__(
        self,
        open_per_peer_max: int,
        loud: Collection[str] = (),
        offend: Offend = nobody_minds,
        services: ServiceStreams | None = None,
    ) -> None:
        self._open_per_peer_max = open_per_peer_max
        self._loud = frozenset(loud)
        self._offend = offend
        self._services = services
        self._open: Counter[bytes] = Counter()

    def install(self, host: Any) -> None:
        """Guard the handlers `host` has and those it will be given."""
        plain_set = host.set_stream_handler

        def set_guarded(protocol: str, handler: RawHandler) -> None:
            plain_set(protocol, self.guarded(protocol, handler))

        host.set_stream_handler = set_guarded
        for protocol, handler in list(host.get_mux().handlers.items()):
            if protocol is not None and handler is not None:
                set_guarded(protocol, handler)

    def guarded(self, protocol: str, handler: RawHandler) -> RawHandler:
        """Return `handler` with the cap before it and the boundary around it."""

        async def run_guarded(stream: Any) -> None:
            peer = stream.muxed_conn.peer_id.to_bytes()
            if self._open[peer] >= self._open_per_peer_max:
                await stream.reset()
                return
            self._open[peer] += 1
            try:
                await self._run(peer, protocol, handler, stream)
            finally:
                self._open[peer] -= 1
                if self._open[peer] <= 0:
                    del self._open[peer]

        return run_guarded

    async def _run(self, peer: bytes, protocol: str, handler: RawHandler, stream: Any) -> None:
        try:
            if self._services is not None and protocol in SERVICES:
                await self._serve(peer, protocol, handler, stream, self._services)
            else:
                await handler(stream)
            stream.muxed_stream.abandon()
        except Exception as error:
            level = logging.WARNING if protocol in self._loud else logging.DEBUG
            log.log(level, "handler of %s failed: %r", protocol, error, exc_info=log.isEnabledFor(logging.DEBUG))
            await _reset(stream)
            if (offence := offence_of(error, ours=protocol not in SERVICES)) is not None:
                self._offend(peer, offence)

    async def _serve(
        self, peer: bytes, protocol: str, handler: RawHandler, stream: Any, services: ServiceStreams
    ) -> None:
        """One of libp2p's own protocols: few streams per peer, each read at its pace."""
        if not services.enter(peer, protocol):
            await stream.reset()
            return
        watched = WatchedStream(stream, services, peer)
        try:
            await handler(watched)
        finally:
            services.leave(peer, protocol)
            if watched.given_up:
                self._offend(peer, Offence.MALFORMED)


async def _reset(stream: Any) -> None:
    with trio.CancelScope(deadline=trio.current_time() + RESET_SECONDS_MAX, shield=True):
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001 boundary: the stream is lost either way
            log.debug("reset failed: %r", error)
