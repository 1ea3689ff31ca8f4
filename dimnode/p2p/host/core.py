"""The libp2p host below ours: how it is configured, and what is told about its connections.

Rule: libp2p does nothing by itself: it dials nobody, keeps no count that can leak, and speaks Noise and Yamux over TCP
only.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID

from dimnode.limits import Limits
from dimnode.p2p.host import hardening
from dimnode.p2p.host.accepting import Acceptor
from dimnode.p2p.host.addresses import expand
from dimnode.p2p.host.gate import Gate
from dimnode.p2p.host.handshaking import NoiseOnly
from dimnode.p2p.host.noise_session import EventNoise
from dimnode.p2p.host.paths import relayed
from dimnode.p2p.host.peer_store import BoundedPeerStore
from dimnode.p2p.host.services import ServiceStreams
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.p2p.host.yamux import Refusal, YamuxConnection, YamuxOnly, all_welcome

log = logging.getLogger(__name__)

Handler = Callable[[Stream], Awaitable[None]]
OnConnection = Callable[[bytes, bool], None]


def make_core(
    seed: bytes,
    ours: Collection[str],
    limits: Limits,
    gate: Gate,
    refusal: Refusal = all_welcome,
) -> Any:
    """Return a libp2p host that speaks Noise and our Yamux, dials nobody by itself and has not started.

    `ours` are the protocols whose failing handlers are worth a warning; `refusal` is asked about each peer after Noise.
    """
    key_pair = create_new_key_pair(seed)
    noise = EventNoise(key_pair, create_noise_key_pair().private_key, limits.host)
    store = BoundedPeerStore(
        ID.from_pubkey(key_pair.public_key), limits.host.known_peers_max, limits.host.addresses_per_peer_max
    )
    core = new_host(
        key_pair=key_pair,
        peerstore_opt=store,
        sec_opt={NOISE_ID: noise},
        muxer_preference="YAMUX",
        negotiate_timeout=int(limits.host.negotiate_seconds_max),
        disable_identify_address_discovery=True,
        addrs_factory=expand,
        connection_config=ConnectionConfig(
            max_connections=limits.host.connections_max,
            min_connections=0,  # nothing is dialled behind our back
            low_watermark=0,
            high_watermark=limits.host.connections_max,
            max_connections_per_peer=3,  # a relayed one, and two that are dialled at the same moment
            inbound_upgrade_timeout=limits.host.negotiate_seconds_max,
            outbound_upgrade_timeout=limits.host.negotiate_seconds_max,
            inbound_stream_protocol_negotiation_timeout=limits.host.negotiate_seconds_max,
            outbound_stream_protocol_negotiation_timeout=limits.host.negotiate_seconds_max,
        ),
    )
    swarm: Any = core.get_network()
    store.is_connected = lambda peer: peer in swarm.connections
    swarm.set_resource_manager(None)  # its stream count leaks with every lost connection, and then all streams wait
    swarm.retry_config = RetryConfig(max_retries=0)  # redialling is the business of the links
    swarm.upgrader.muxer_multistream = YamuxOnly(limits.host, refusal, gate.offend)
    swarm.upgrader.security_multistream = NoiseOnly(noise, limits.host)
    gate.install(swarm)
    services = ServiceStreams(limits.host)
    hardening.HandlerGuard(limits.host.inbound_streams_max, ours, gate.offend, services).install(core)
    Acceptor(core, limits.host, gate.offend)
    return core


def adapt(protocol: str, handler: Handler) -> Callable[[Any], Awaitable[None]]:
    """Return a libp2p handler that gives `handler` our kind of stream and ends it afterwards."""

    async def run(net_stream: Any) -> None:
        muxed = net_stream.muxed_stream
        muxed.bytes_in = muxed.bytes_out = 0
        stream = Stream(muxed, muxed.muxed_conn.peer_id.to_bytes(), protocol)
        try:
            await handler(stream)
            await stream.close()
        except (StreamEnded, StreamLost) as error:
            log.debug("handler of %s left by %r", protocol, error)
            await stream.reset()

    return run


async def close_connections(swarm: Any, seconds_max: float) -> None:
    """Say goodbye to all peers at once, so that what was written arrives; bounded, also while being cancelled."""
    muxed = [connection.muxed_conn for group in list(swarm.connections.values()) for connection in group]
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * seconds_max):
        async with trio.open_nursery() as nursery:
            for connection in muxed:
                nursery.start_soon(connection.close)


class ConnectionWatch(INotifee):
    """Turns libp2p's notices into `on_connection`: up at the first connection to a peer, down after the last.

    Up is told again when a peer that was only relayed is reached without the relay: streams opened from then on take
    the better path.
    """

    def __init__(self, on_connection: OnConnection | None) -> None:
        self.on_thinned: Callable[[ID], None] = lambda peer: None  # a connection ended, and another one stands
        self._on_connection = on_connection
        self._live: dict[bytes, set[YamuxConnection]] = {}

    async def connected(self, network: Any, conn: Any) -> None:
        """Count a connection; its end is learned from the connection itself, at once and without waiting."""
        muxed: YamuxConnection = conn.muxed_conn
        if muxed.is_closed:
            return
        peer = muxed.peer_id.to_bytes()
        live = self._live.setdefault(peer, set())
        better = not relayed(muxed) and all(relayed(other) for other in live)
        live.add(muxed)
        muxed.on_lost = lambda: self._lost(peer, muxed)
        if len(live) == 1 or better:
            self._tell(peer, True)

    def _lost(self, peer: bytes, muxed: YamuxConnection) -> None:
        live = self._live[peer]
        live.discard(muxed)
        if not live:
            del self._live[peer]
            self._tell(peer, False)
        else:
            self.on_thinned(muxed.peer_id)

    def _tell(self, peer: bytes, up: bool) -> None:
        if self._on_connection is None:
            return
        try:
            self._on_connection(peer, up)
        except Exception:  # boundary: above is libp2p, which would swallow it or end all connections
            log.exception("on_connection failed")

    async def disconnected(self, network: Any, conn: Any) -> None:
        """Nothing: see `connected`."""

    async def opened_stream(self, network: Any, stream: Any) -> None:
        """Nothing."""

    async def closed_stream(self, network: Any, stream: Any) -> None:
        """Nothing."""

    async def listen(self, network: Any, multiaddr: Any) -> None:
        """Nothing."""

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        """Nothing."""
