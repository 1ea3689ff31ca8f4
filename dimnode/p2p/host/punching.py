"""Hole punching: two peers that met through a relay try to reach each other directly (DCUtR).

Whoever was visited begins. First it dials the visitor, who may be public. Otherwise both tell each other where they are
seen from outside, wait half a round trip, and open a TCP connection to each other at the same moment: each NAT box sees
its own side call first and lets the other one's packets in as the answer.

The way out must be one that the NAT box knows already. So the new socket is bound to the local port of our connection
to the relay, and the address we tell is the one at which the relay sees that connection. The listening port is not
touched. A box that picks another outside port for each destination cannot be punched: the relayed connection stays.

A box remembers an attempt that failed for two minutes or longer, and takes the packets of a later one between the same
ports for a part of it. So every further attempt has a port of its own, where the relay saw that the box keeps ports.

Rule: a relayed connection is never closed before a direct one stands, and then only when it has fallen quiet.

Source: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md
"""

import ipaddress
import logging
import random
import socket
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import psutil
import trio
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.exceptions import IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.limits import Limits
from dimnode.p2p.host.circuit_messages import (
    DCUTR,
    host_and_port,
    punch_connect,
    read_addresses,
    read_message,
    write_message,
)
from dimnode.p2p.host.circuits import below
from dimnode.p2p.host.dialling import Dialler
from dimnode.p2p.host.lazy import open_negotiated
from dimnode.p2p.host.noise_session import plain_socket
from dimnode.p2p.host.paths import PunchedConnection, carrier_of, relayed
from dimnode.p2p.host.pnet import key_of, with_key
from dimnode.p2p.host.streams import Stream, StreamEnded, StreamLost
from dimnode.p2p.host.upgrading import upgrade_as_dialled, upgrade_as_dialler
from dimnode.p2p.host.yamux import YamuxConnection

log = logging.getLogger(__name__)

IDENTIFY: Final = "/ipfs/id/1.0.0"
_AGAIN_SECONDS: Final = 0.05

_FAILURES = (PeerFault, StreamLost, StreamEnded, SwarmException, IOException, MuxedConnError, MuxedStreamError)


class Punching:
    """Upgrades relayed connections of one host to direct ones."""

    def __init__(self, core: Any, dialler: Dialler, limits: Limits) -> None:
        self._core = core
        self._swarm = core.get_network()
        self._dialler = dialler
        self._limits = limits.reach
        self._negotiate_seconds_max = limits.host.negotiate_seconds_max
        self._rounds: dict[ID, trio.CancelScope] = {}  # those that we began
        self._serving: set[ID] = set()  # those that the peer began
        self._attempts = WeakKeyDictionary[YamuxConnection, int]()  # over each relayed connection

    async def visited(self, peer: ID, muxed: YamuxConnection) -> None:
        """A task: `peer` came to us over a relay; try to get rid of the relay, then let it go. Never raises."""
        pause_seconds = self._limits.punch_again_seconds_min
        rounds = 0
        while not (muxed.is_closed or self._dialler.direct(peer)):
            if rounds >= self._limits.punch_rounds_max:
                if rounds == self._limits.punch_rounds_max:
                    log.info("a peer stays relayed: no direct way was found, now and then it is tried again")
                await trio.sleep(pause_seconds * random.uniform(0.5, 1.0))
                pause_seconds = min(2 * pause_seconds, self._limits.punch_again_seconds_max)
            rounds += 1
            if self._limits.punch_rounds_max:
                await self._round(peer, muxed)
        if self._dialler.direct(peer):
            log.info("a relayed peer is reached directly now")
            await self._retire(peer, muxed)

    async def _round(self, peer: ID, muxed: YamuxConnection) -> None:
        """One attempt, unless another one with this peer is going on: two at once would cross, with the same roles."""
        if peer in self._rounds or peer in self._serving or len(self._rounds) >= self._limits.punches_at_once_max:
            await trio.sleep(random.uniform(0.5, 1.0) * self._limits.punch_seconds_max)
            return
        with trio.move_on_after(2 * self._negotiate_seconds_max) as scope:
            self._rounds[peer] = scope
            try:
                theirs, _ = await self._identify(muxed, peer)
                if not await self._dial_visitor(peer, theirs):
                    await self._punch_first(peer, muxed)
            except (*_FAILURES, OSError) as error:
                log.debug("no hole was punched: %r", error)
            finally:
                del self._rounds[peer]

    async def _dial_visitor(self, peer: ID, theirs: Sequence[Multiaddr]) -> bool:
        """The visitor may be public, or our neighbour: dial it the plain way."""
        plausible = [address for address in theirs if plausible_from_here(host_and_port(address)[0])]
        for address in self._welcome(peer, plausible):
            with trio.move_on_after(self._limits.punch_seconds_max / 2):
                try:
                    await self._swarm.dial_addr(address, peer)
                except (SwarmException, OSError) as error:
                    log.debug("the visitor cannot be dialled at %s: %r", address, error)
            if self._dialler.direct(peer):
                return True
        return False

    async def _punch_first(self, peer: ID, muxed: YamuxConnection) -> None:
        """The side that begins: exchange addresses, measure the round trip, say go, and dial half of it later."""
        source, ours = await self._outside(muxed)
        stream = Stream(await open_negotiated(muxed, DCUTR, lazy=False), peer.to_bytes(), DCUTR)
        try:
            asked = trio.current_time()
            await write_message(stream, punch_connect(ours))
            answer = await read_message(stream, HolePunch)
            round_trip = trio.current_time() - asked
            if answer.type != HolePunch.CONNECT:
                raise PeerFault("dcutr: type")
            await write_message(stream, HolePunch(type=HolePunch.SYNC))
            await trio.sleep(min(round_trip / 2, 1.0))
        finally:
            await stream.reset()
        await self._meet(peer, source, read_addresses(answer.ObsAddrs, self._limits.punch_addresses_max), dialler=False)

    async def serve(self, stream: Stream) -> None:
        """The other side: we visited, the visited peer begins. Raises `PeerFault`, `StreamLost`.

        When both visited each other both may begin at once. Then the attempt of the smaller id goes on.
        """
        peer = ID(stream.peer)
        if not relayed(stream.connection) or self._dialler.direct(peer) or peer in self._serving:
            return
        if (own := self._rounds.get(peer)) is not None:
            if self._core.get_id().to_bytes() < stream.peer:
                return
            own.cancel()
        self._serving.add(peer)
        try:
            await self._punch_second(peer, stream)
        finally:
            self._serving.discard(peer)

    async def _punch_second(self, peer: ID, stream: Stream) -> None:
        with trio.fail_after(self._negotiate_seconds_max):
            said = await read_message(stream, HolePunch)
            if said.type != HolePunch.CONNECT:
                raise PeerFault("dcutr: type")
            try:
                source, ours = await self._outside(stream.connection)
            except _FAILURES as error:  # the relay's fault, or ours
                log.debug("no hole can be punched: %r", error)
                return
            await write_message(stream, punch_connect(ours))
            if (await read_message(stream, HolePunch)).type != HolePunch.SYNC:
                raise PeerFault("dcutr: type")
        theirs = read_addresses(said.ObsAddrs, self._limits.punch_addresses_max)
        # With the key that the peer has: a knock again, between the same two ports, would have to wait for TCP.
        with with_key(key_of(stream.connection)):
            await self._meet(peer, source, theirs, dialler=True)

    # The way out

    async def _outside(self, muxed: YamuxConnection) -> tuple[tuple[str, int], list[Multiaddr]]:
        """Where to dial from, and as what that is seen from outside; at first as the relay says. Raises `PeerFault`."""
        to_relay: YamuxConnection = below(muxed)
        tcp = plain_socket(carrier_of(to_relay))
        if tcp is None:
            raise PeerFault("dcutr: the relay is not on TCP")
        # A second socket may have the same local port only when both allow it, and neither listens.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = tcp.getsockname()[:2]
        _, observed = await self._identify(to_relay, to_relay.peer_id)
        if observed is None:
            raise PeerFault("dcutr: the relay does not say where it sees us")
        seen_host, seen_port = host_and_port(observed)
        tried = self._attempts.get(muxed, 0)
        self._attempts[muxed] = tried + 1
        if tried and seen_port == port:
            port = free_port(host)
            observed = Multiaddr(f"/ip{6 if ':' in seen_host else 4}/{seen_host}/tcp/{port}")
        return (host, port), [observed]

    async def _identify(self, muxed: YamuxConnection, peer: ID) -> tuple[list[Multiaddr], Multiaddr | None]:
        """Ask for the peer's addresses and for ours as the peer sees it. Raises `PeerFault`, `StreamLost`."""
        stream = Stream(await open_negotiated(muxed, IDENTIFY, lazy=False), peer.to_bytes(), IDENTIFY)
        said = b""
        try:
            while len(said) < self._limits.identify_bytes_max:
                said += await stream.read(self._limits.identify_bytes_max)
        except StreamEnded:
            pass
        finally:
            await stream.reset()
        try:
            found = parse_identify_response(said)
        except Exception:  # noqa: BLE001 boundary: libp2p raises many kinds for a stranger's bytes
            raise PeerFault("identify: no message") from None
        most = self._limits.punch_addresses_max
        seen = read_addresses([found.observed_addr], 1)
        return read_addresses(found.listen_addrs, most), seen[0] if seen else None

    # The moment

    async def _meet(self, peer: ID, source: tuple[str, int], theirs: Sequence[Multiaddr], dialler: bool) -> None:
        """Dial all of `theirs` from `source` until a connection stands or the time is up."""
        with trio.move_on_after(self._limits.punch_seconds_max):
            async with trio.open_nursery() as nursery:
                for address in self._welcome(peer, theirs):
                    nursery.start_soon(self._knock, peer, source, address, dialler, nursery.cancel_scope)

    def _welcome(self, peer: ID, addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
        """Without those in networks that the operator keeps out: over a relay nobody could see where the peer is."""
        return [address for address in addresses if not self._dialler.refusal(peer, address)]

    async def _knock(
        self, peer: ID, source: tuple[str, int], address: Multiaddr, dialler: bool, all_knocks: trio.CancelScope
    ) -> None:
        host, port = host_and_port(address)
        if (":" in host) != (":" in source[0]):
            return
        while True:
            try:
                stream = await open_from(source, host, port)
                raw = PunchedConnection(TrioTCPStream(stream), dialler)
                await (upgrade_as_dialler if dialler else upgrade_as_dialled)(self._swarm, raw, peer)
            except (OSError, SwarmException) as error:
                log.debug("a knock at %s: %r", address, error)
                await trio.sleep(_AGAIN_SECONDS)
            else:
                all_knocks.cancel()
                return

    async def _retire(self, peer: ID, muxed: YamuxConnection) -> None:
        """Close the relayed connection when it carries next to nothing any more: its streams move or end by then."""
        await trio.sleep(self._limits.circuit_linger_seconds_min)
        until = trio.current_time() + self._limits.circuit_linger_seconds_max
        while trio.current_time() < until and not muxed.is_closed:
            before = muxed.bytes_in + muxed.bytes_out
            await trio.sleep(self._limits.look_seconds)
            if muxed.bytes_in + muxed.bytes_out - before < self._limits.circuit_quiet_bytes:
                break
        if self._dialler.direct(peer):
            await muxed.close()


def free_port(host: str) -> int:
    """A TCP port of this address that nothing uses now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def open_from(source: tuple[str, int], host: str, port: int) -> trio.SocketStream:
    """Open a TCP connection from a given local port. Raises `OSError`."""
    made = trio.socket.socket(trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET, trio.socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await made.bind(source)
        await made.connect((host, port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


def plausible_from_here(host: str) -> bool:
    """True for a public address, and for one in a network that this machine has an interface in."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback or address.is_global:
        return address.is_global
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6) or not entry.netmask:
                continue
            try:
                network = ipaddress.ip_network(f"{entry.address.partition('%')[0]}/{entry.netmask}", strict=False)
            except ValueError:  # IPv6 netmasks come as addresses
                continue
            if address in network:
                return True
    return False
