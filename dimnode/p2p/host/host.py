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
from dimnode.p2p.conduct import Conduct, Offence
from dimnode.p2p.host import hardening, pnet
from dimnode.p2p.host.accepting import Narrow
from dimnode.p2p.host.addresses import parse_dial, parse_listen
from dimnode.p2p.host.admission_gate import Admission, AdmissionGate
from dimnode.p2p.host.core import ConnectionWatch, Handler, OnConnection, adapt, close_connections, make_core
from dimnode.p2p.host.dht import Dht
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.gate import ConductReport, Cutter, Gate
from dimnode.p2p.host.gossip import Gossip, OnGossip, ValidateGossip
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.name_shelf import OnName
from dimnode.p2p.host.names import Heard
from dimnode.p2p.host.paths import Path, path_of_connection, relayed
from dimnode.p2p.host.pnet import Keys
from dimnode.p2p.host.reaching import Reaching
from dimnode.p2p.host.streams import (
    DialFailed,
    ListenFailed,
    ProtocolRefused,
    Stream,
    StreamEnded,
    StreamLost,
)
from dimnode.p2p.host.yamux import Refusal, YamuxConnection, all_welcome
from dimnode.p2p.host.yamux_stream import ProtocolRefused as MuxedProtocolRefused
from dimnode.records.ids import PeerId
from dimnode.records.ipns import Name

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

    def __init__(
        self,
        core: Any,
        dialler: Dialler,
        reaching: Reaching,
        gossip: Gossip,
        dht: Dht | None,
        limits: Limits,
        gate: Gate,
    ) -> None:
        self._core = core
        self._swarm = core.get_network()
        self._dialler = dialler
        self._reaching = reaching
        self._gossip = gossip
        self._dht = dht
        self._limits = limits.host
        self._gate = gate
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
        """Connect to `peer` at the first of `addresses` that answers as it, else through a relay among our neighbours.

        Raises `DialFailed`.
        """
        await self._reaching.connect(ID(peer), list(addresses))

    async def disconnect(self, peer: bytes) -> None:
        """Close all connections to `peer`, if any; what was written is sent first (bounded)."""
        await self._core.disconnect(ID(peer))

    async def drop_connection_of(self, stream: Stream) -> None:
        """Close the connection that carries `stream`, and others of the peer only when they are dead as well.

        A relayed connection that was replaced by a direct one stays for what else it carries; it is closed when quiet.
        """
        muxed, peer = stream.connection, ID(stream.peer)
        if all(connection.muxed_conn is muxed for connection in self._dialler.live(peer)):
            await self._core.disconnect(peer)
        elif not relayed(muxed):
            await muxed.close()

    def connected(self) -> list[bytes]:
        """Return the peers with a live connection."""
        return [peer.to_bytes() for peer in list(self._swarm.connections) if self._dialler.live(peer)]

    def addresses_of(self, peer: bytes) -> list[str]:
        """Return the addresses `peer` announced or was dialled at; unverified, and none when unknown."""
        return self._dialler.known_addresses(ID(peer))

    def proven(self, peer: bytes) -> list[str]:
        """Return the direct address at which our last dial of `peer` succeeded, if there is one."""
        return self._dialler.proven(ID(peer))

    def hint(self, addresses: Sequence[str]) -> list[bytes]:
        """Note where peers may be found, unverified; return the peers that `addresses` name."""
        named: dict[bytes, None] = {}
        for text in addresses[: self._limits.addresses_per_peer_max]:
            try:
                peer, address = parse_dial(text)
            except DialFailed:
                continue
            if peer != self._core.get_id():
                self._core.get_peerstore().add_addrs(peer, [address], self._limits.address_ttl_seconds)
                named[peer.to_bytes()] = None
        return list(named)

    def remote_ip(self, peer: bytes) -> str:
        """Return the IP address at the other end of the connection to `peer`; "" without one, or over a relay."""
        for connection in self._dialler.live(ID(peer)):
            if (remote := connection.muxed_conn.get_remote_address()) is not None:
                return str(remote[0])
        return ""

    def path_of(self, peer: bytes) -> Path | None:
        """Return `direct` (we dialled it), `reverse` (it dialled us) or `relayed`: what streams to `peer` take now."""
        connections = self._dialler.live(ID(peer))
        return path_of_connection(connections[0].muxed_conn) if connections else None

    @property
    def reach(self) -> Reaching:
        """Relay, circuits and visitors: for `p2p/reach.py`, which decides about them."""
        return self._reaching

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

    # Conduct

    def offend(self, peer: bytes, offence: Offence) -> None:
        """Complain of a connected peer: enough of that, and it is disconnected and refused for a time."""
        self._gate.offend(peer, offence)

    def conduct(self) -> ConductReport:
        """Return what peers did wrong so far, who is refused now, and what became of gossip."""
        return self._gate.report(self._gossip.counts)

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

    async def dht_admit(self, peer: bytes) -> None:
        """Say that `peer` was introduced and is of our swarm: with `dht_vouched`, only such peers are in the table."""
        if self._dht is not None:
            await self._dht.admit(ID(peer))

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

    async def dht_publish(self, record: bytes) -> tuple[int, Heard]:
        """Bring our own IPNS record to others; how many keep it, and what they had of ours before."""
        return (0, Heard()) if self._dht is None else await self._dht.publish(record)

    async def dht_resolve(self, publisher: bytes) -> Heard:
        """Return what others have of a publisher's IPNS records, each verified."""
        return Heard() if self._dht is None else await self._dht.resolve(PeerId(publisher))


def everything(peer: bytes) -> None:
    """Let a peer open whatever is served."""


def nobody_listens(publisher: PeerId, name: Name) -> None:
    """Pass over an IPNS record that came."""


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
    dht_vouched: bool = False,
    on_connection: OnConnection | None = None,
    on_name: OnName = nobody_listens,
    refusal: Refusal = all_welcome,
    admission: Admission | None = None,
    network_keys: Keys | None = None,
    narrow: Narrow = everything,
    limits: Limits = LIMITS,
) -> AsyncIterator[Host]:
    """Run a host as long as the block runs. `seed` (32 bytes) is the Ed25519 secret and so the peer id.

    `handlers` get inbound streams; when one returns, its stream is closed, when it raises, reset.
    `on_connection(peer, up)` is called at the first and after the last connection to a peer, `on_name` when a publisher
    brought its IPNS record here itself; these and `on_gossip` must not block or raise.
    `refusal` is asked before a dial and, both ways, as soon as Noise has proved a peer's id; see `Refusal`.
    `admission` judges each peer after Noise, before any protocol answers it or asks it; `network_keys` returns the
    pre-shared keys of a private network, the newest first. `narrow` is asked at each inbound stream which protocols
    the peer may open.

    Raises `ListenFailed` when an address is taken, `ConfigError` for a malformed address or another libp2p.
    """
    hardening.patch_modules()
    hardening.quiet_loggers()
    listen_at = parse_listen(listen)
    gate = Gate(Conduct(limits.conduct), limits.host)
    welcome = gate.with_refusal(refusal)
    core = make_core(seed, handlers.keys(), limits, gate, welcome)
    for protocol, handler in handlers.items():
        core.set_stream_handler(protocol, adapt(protocol, handler))
    core.acceptor.narrow = narrow
    swarm = core.get_network()
    door = None if admission is None else AdmissionGate(swarm, admission, limits.swarm)
    if network_keys is not None:
        pnet.install(swarm, network_keys)
    watch = ConnectionWatch(on_connection)
    swarm.register_notifee(watch)
    gossip = Gossip(core, topics, on_gossip, validate_gossip, limits.host, limits.peers, gate)
    dialler = Dialler(core, limits.host, welcome)
    table = Dht(core, dialler, gate, limits.host, vouched=dht_vouched, on_name=on_name) if dht else None
    reaching = Reaching(core, dialler, gossip, watch, limits)
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(core.run(listen_addrs=[]))
        for service in gossip.services + (() if table is None else (table.service,)):
            await stack.enter_async_context(background_trio_service(service))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if door is not None:
            door.nursery = nursery
        gate.cut = Cutter(nursery, core.get_network().upgrader.muxer_multistream.connections_of).cut
        stack.callback(gate.stop_cutting)
        await gossip.subscribe(nursery)
        reaching.start(nursery)
        await swarm.listen(*listen_at)
        gate.lengthen_queues(swarm)
        missing = [str(address) for address in listen_at if str(address) not in swarm.listeners]
        if missing:
            failure = listen_failed(missing)
        else:
            try:
                yield Host(core, dialler, reaching, gossip, table, limits, gate)
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
        "another port, or 0 for any free one: --listen /ip4/127.0.0.1/tcp/0",
    )
