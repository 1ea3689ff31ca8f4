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

import libp2p.network.swarm as swarm_module
import libp2p.transport.tcp.tcp as tcp_module
import trio
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub

from dimnode.errors import ConfigError

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


def _set_exclusive_flags(sock: Any) -> None:
    """Listen without SO_REUSEPORT: with it, a second node would silently share the port and half of its visitors."""
    if sys.platform != "win32":  # there the flag would allow what it forbids elsewhere
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def quiet_loggers() -> None:
    """Keep libp2p's reports of ordinary life out of the log; its warnings elsewhere stay."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.CRITICAL)  # sets its own level at import


class InboundConnectionEnded(Exception):
    """Not an error: how `free_inbound_places` makes libp2p leave the task of an inbound connection."""


def free_inbound_places(swarm: Any) -> None:
    """Give the place of an inbound connection back when it ends.

    Stock 0.8.1 keeps the place until the host stops: after some 250 inbound connections, however short, nobody gets in.
    """
    upgrade = swarm.upgrade_inbound_raw_conn

    async def upgrade_and_stay(raw_conn: Any, listen_address: Any) -> Any:
        connection = await upgrade(raw_conn, listen_address)
        await connection.event_closed.wait()
        raise InboundConnectionEnded

    swarm.upgrade_inbound_raw_conn = upgrade_and_stay


class HandlerGuard:
    """Wraps every stream handler: it counts the open ones per peer, and no exception of one reaches the host.

    A failure is logged, as a warning for the protocols in `loud`: libp2p's own handlers raise for any odd byte.
    """

    def __init__(self, open_per_peer_max: int, loud: Collection[str] = ()) -> None:
        self._open_per_peer_max = open_per_peer_max
        self._loud = frozenset(loud)
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
                await handler(stream)
                stream.muxed_stream.abandon()
            except Exception as error:
                level = logging.WARNING if protocol in self._loud else logging.DEBUG
                log.log(level, "handler of %s failed: %r", protocol, error, exc_info=log.isEnabledFor(logging.DEBUG))
                await _reset(stream)
            finally:
                self._open[peer] -= 1
                if self._open[peer] <= 0:
                    del self._open[peer]

        return run_guarded


async def _reset(stream: Any) -> None:
    with trio.CancelScope(deadline=trio.current_time() + RESET_SECONDS_MAX, shield=True):
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001 boundary: the stream is lost either way
            log.debug("reset failed: %r", error)


class SafePubsub(Pubsub):
    """Pubsub that survives a malformed message: stock 0.8.1 raises out of its service and ends the process."""

    def __init__(self, *args: Any, admit: Callable[[Any], bool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admit = admit

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        """Take a message in, if its forwarder may send one now; one that makes libp2p raise is dropped."""
        if not self._admit(msg_forwarder):  # before the signature is checked: that is what costs
            return
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # noqa: BLE001 boundary: bytes of a stranger, parsed by libp2p
            log.debug("malformed gossip dropped: %r", error)


class SafeGossipSub(GossipSub):
    """GossipSub whose heartbeat goes on after a failure; stock 0.8.1 ends the process with it."""

    async def heartbeat(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 boundary: the mesh is made of what strangers sent
                log.warning("gossip heartbeat failed: %r", error)
                await trio.sleep(self.heartbeat_interval)
