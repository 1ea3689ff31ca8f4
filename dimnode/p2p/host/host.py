"""The host: connections, streams, gossip and DHT of one node. The only door to libp2p.

Rule: peers are `bytes`, addresses `str`, failures those of `streams.py`; every wait is bounded by `HostLimits` except
reading and writing a stream, whose deadline the caller sets.

Only Noise over TCP with Yamux is spoken: no plaintext, no secio, no QUIC, no mDNS.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from libp2p.tools.anyio_service import background_trio_service

from dimnode.limits import LIMITS, Limits
from dimnode.p2p.host import hardening
from dimnode.p2p.host.addresses import parse_dial, parse_listen
from dimnode.p2p.host.core import ConnectionWatch, Handler, OnConnection, adapt, close_connections, make_core
from dimnode.p2p.host.dht import Dht
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.gossip import Gossip, OnGossip, ValidateGossip
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.streams import (
    DialFailed,
    ListenFailed,
    ProtocolRefused,
    Stream,
    StreamEnded,
    StreamLost,
)
from dimnode.p2p.host.yamux import YamuxConnection
from dimnode.p2p.host.yamux_stream import ProtocolRefused as MuxedProtocolRefused

__all__ = [
    "DialFailed",
    "Handler",
    "Host",
    "ListenFailed",
    "ProtocolRefused",
    "Stream",
    "StreamEnded",
    "StreamLost",
    "open_host",
]


class Host:
    """What the rest of dimnode sees of the network. Made by `open_host`."""

    def __init__(self, core: Any, dialler: Dialler, gossip: Gossip, dht: Dht | None, limits: Limits) -> None:
        self._core = core
        self._swarm = core.get_network()
        self._dialler = dialler
        self._gossip = gossip
        self._dht = dht
        self._limits = limits.host
        self.peer: bytes = core.get_id().to_bytes()

    def addresses(self) -> list[str]:
        """Return what others can dial, each with our peer id; wildcards are expanded to interface addresses."""
        return [str(address) for address in self._core.get_addrs()]

    # Connections

    async def connect(self, address: str) -> bytes:
        """Connect to `/ip4/…/tcp/…/p2p/<id>` unless connected already; return the peer. Raises `DialFailed`."""
        peer, _ = parse_dial(address)
        await self._dialler.connect(peer, [address])
        return peer.to_bytes()

    async def connect_peer(self, peer: bytes, addresses: Sequence[str]) -> None:
        """Connect to `peer` at the first of `addresses` that answers as it. Raises `DialFailed`."""
        await self._dialler.connect(ID(peer), addresses)

    async def disconnect(self, peer: bytes) -> None:
        """Close all connections to `peer`, if any; what was written is sent first (bounded)."""
        await self._core.disconnect(ID(peer))

    def connected(self) -> list[bytes]:
        """Return the peers with a live connection."""
        return [peer.to_bytes() for peer in list(self._swarm.connections) if self._dialler.live(peer)]

    def addresses_of(self, peer: bytes) -> list[str]:
        """Return the addresses `peer` announced or was dialled at; unverified, and none when unknown."""
        return self._dialler.known_addresses(ID(peer))

    async def open_stream(self, peer: bytes, protocol: str, *, lazy: bool = False) -> Stream:
        """Open a stream over an existing connection. With `lazy` the first write carries the negotiation.

        Raises `DialFailed` without a connection, `ProtocolRefused` when the peer does not speak `protocol` (a lazy
        stream raises `StreamLost` at its first read instead), `StreamLost` when the connection breaks meanwhile.
        """
        connections = self._dialler.live(ID(peer))
        if not connections:
            raise DialFailed("not connected")
        muxed: YamuxConnection = connections[0].muxed_conn
        try:
            with trio.fail_after(self._limits.negotiate_seconds_max):
                return Stream(await open_negotiated(muxed, protocol, lazy=lazy), peer, protocol)
        except MuxedProtocolRefused:
            raise ProtocolRefused(f"the peer does not speak {protocol}") from None
        except trio.TooSlowError:
            raise DialFailed(f"no answer to {protocol} within {self._limits.negotiate_seconds_max:g} s") from None
        except (MuxedConnError, MuxedStreamError) as error:
            raise StreamLost(str(error)) from None

    # Gossip and DHT

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign `data` and gossip it. Raises `ValueError` for a topic not given to `open_host` or too many bytes."""
        await self._gossip.publish(topic, data)

    def gossip_neighbours(self, topic: str) -> list[bytes]:
        """Return the peers we exchange `topic` with directly."""
        return self._gossip.neighbours(topic)

    async def dht_join(self) -> int:
        """Enter our connected peers in the routing table and look ourselves up; return its size. Retry with jitter."""
        return 0 if self._dht is None else await self._dht.join([ID(peer) for peer in self.connected()])

    async def dht_find(self, peer: bytes) -> list[str]:
        """Return addresses of `peer`, possibly none."""
        return [] if self._dht is None else await self._dht.find(ID(peer))

    def dht_peers(self) -> list[bytes]:
        """Return the routing table."""
        return [] if self._dht is None else [peer.to_bytes() for peer in self._dht.peers()]

    async def dht_provide(self, key: bytes) -> bool:
        """Announce that we have `key`; return whether another peer stored that."""
        return False if self._dht is None else await self._dht.provide(key)

    async def dht_providers(self, key: bytes) -> list[bytes]:
        """Return other peers that announced `key`; `addresses_of` then knows where they are."""
        return [] if self._dht is None else [peer.to_bytes() for peer in await self._dht.providers(key)]


@asynccontextmanager
async def open_host(
    seed: bytes,
    listen: Sequence[str],
    handlers: Mapping[str, Handler],
    *,
    topics: Sequence[str] = (),
    on_gossip: OnGossip | None = None,
    validate_gossip: ValidateGossip | None = None,
    dht: bool = True,
    on_connection: OnConnection | None = None,
    announce: Sequence[str] = (),
    limits: Limits = LIMITS,
) -> AsyncIterator[Host]:
    """Run a host as long as the block runs. `seed` (32 bytes) is the Ed25519 secret and so the peer id.

    `handlers` get inbound streams; when one returns, its stream is closed, when it raises, reset.
    `on_connection(peer, up)` is called at the first and after the last connection to a peer; it and `on_gossip` must
    not block or raise.
    `announce` replaces what `addresses()` says and peers are told (for a node behind a port forwarding).

    Raises `ListenFailed` when an address is taken, `ConfigError` for a malformed address or another libp2p.
    """
    hardening.patch_modules()
    hardening.quiet_loggers()
    listen_at = parse_listen(listen)
    core = make_core(seed, announce, handlers.keys(), limits)
    for protocol, handler in handlers.items():
        core.set_stream_handler(protocol, adapt(protocol, handler))
    swarm = core.get_network()
    swarm.register_notifee(ConnectionWatch(on_connection))
    gossip = Gossip(core, topics, on_gossip, validate_gossip, limits.host, limits.peers)
    table = Dht(core, limits.host) if dht else None
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(core.run(listen_addrs=[]))
        for service in gossip.services + (() if table is None else (table.service,)):
            await stack.enter_async_context(background_trio_service(service))
        nursery = await stack.enter_async_context(trio.open_nursery())
        await gossip.subscribe(nursery)
        await swarm.listen(*listen_at)
        missing = [str(address) for address in listen_at if str(address) not in swarm.listeners]
        if missing:
            failure = listen_failed(missing)
        else:
            try:
                yield Host(core, Dialler(core, limits.host), gossip, table, limits)
            except Exception as error:  # noqa: BLE001 boundary: raised again below
                failure = error
            finally:
                await close_connections(swarm, limits.host.close_seconds_max)
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure  # out here, where none of libp2p's nurseries wraps it in a group of groups


def listen_failed(missing: Sequence[str]) -> ListenFailed:
    """Return the failure that names the addresses we could not listen on."""
    return ListenFailed(
        "E-p2p-02",
        f"cannot listen on {', '.join(missing)}",
        "another process has the port, or the address is not of this machine",
        "choose another port, or 0 for any free one",
    )
