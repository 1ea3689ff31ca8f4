"""Circuit addresses and messages: exactly as much is read as was said, and a stranger's nonsense is refused."""

from dataclasses import dataclass

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.p2p.host.addresses import parse_dial, split_circuit, with_peer, without_peer
from dimnode.p2p.host.circuit_messages import (
    hop_connect,
    hop_status,
    host_and_port,
    read_addresses,
    read_message,
    write_message,
)
from dimnode.p2p.host.punching import plausible_from_here
from dimnode.p2p.host.streams import DialFailed, StreamEnded, StreamLost

RELAY = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
PEER = "12D3KooWEWkpvStWuxZQs8zXLxmxKpFyHm5J5aMVKkJUsDvmVbLH"
WAY = f"/ip4/44.1.1.1/tcp/4710/p2p/{RELAY}"
CIRCUIT = f"{WAY}/p2p-circuit/p2p/{PEER}"


@dataclass(slots=True)
class Tape:
    """A stream that gives back what was written to it, at most `most` bytes at a time."""

    held: bytes = b""
    most: int = 3

    async def write(self, chunk: bytes) -> None:
        self.held += chunk

    async def read(self, n: int) -> bytes:
        if not self.held:
            raise StreamEnded
        n = min(n, self.most)
        taken, self.held = self.held[:n], self.held[n:]
        return taken


def read(tape: Tape) -> HopMessage:
    async def reading() -> HopMessage:
        return await read_message(tape, HopMessage)  # type: ignore[arg-type]

    return trio.run(reading)


def test_a_message_is_read_to_its_last_byte_and_no_further() -> None:
    for message in (hop_connect(b"p" * 38), hop_connect(b"p" * 1000), hop_status(Status.OK)):
        tape = Tape()
        trio.run(write_message, tape, message)
        tape.held += b"what the two peers say"
        assert read(tape) == message
        assert tape.held == b"what the two peers say"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"\xff\xff\xff\xff", PeerFault),
        (b"\xff\x7f", PeerFault),
        (b"\x03abc", PeerFault),
        (b"", StreamLost),
        (b"\x05ab", StreamLost),
    ],
)
def test_what_is_no_message_is_refused(said: bytes, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        read(Tape(said))


def test_a_circuit_address_names_the_peer_at_its_end_and_keeps_the_relay() -> None:
    peer, way = parse_dial(CIRCUIT)
    assert (peer.to_base58(), str(way)) == (PEER, f"{WAY}/p2p-circuit")
    assert with_peer(way, peer) == with_peer(Multiaddr(CIRCUIT), peer) == CIRCUIT
    assert without_peer(Multiaddr(CIRCUIT)) == way
    relay, text = split_circuit(way)
    assert (relay, text) == (ID.from_base58(RELAY), WAY)


@pytest.mark.parametrize(
    "text",
    [f"/ip4/44.1.1.1/tcp/1/p2p-circuit/p2p/{PEER}", f"{WAY}/p2p-circuit", f"{CIRCUIT}/p2p-circuit/p2p/{RELAY}"],
)
def test_a_circuit_address_without_its_relay_or_its_peer_or_with_two_relays_is_refused(text: str) -> None:
    with pytest.raises(DialFailed):
        parse_dial(text)


def test_of_a_strangers_addresses_only_direct_tcp_ones_are_taken_and_few() -> None:
    good = Multiaddr("/ip4/44.1.1.1/tcp/4710")
    raw = [b"\xff\xff", Multiaddr("/dns4/example.org/tcp/1").to_bytes(), Multiaddr(CIRCUIT).to_bytes(), good.to_bytes()]
    assert read_addresses(raw, 4) == [good]
    assert len(read_addresses([good.to_bytes()] * 9, 4)) == 4
    assert host_and_port(Multiaddr("/ip6/fd00::1/tcp/7")) == ("fd00::1", 7)
    with pytest.raises(ValueError, match="no IP"):
        host_and_port(Multiaddr("/ip4/1.2.3.4/udp/7"))


@pytest.mark.parametrize("more", ["/http-path/" + "a" * 300, "/unix/a", "/dns4/example.org", "/ws", f"/p2p/{PEER}/ws"])
def test_what_hangs_on_behind_a_strangers_direct_tcp_address_makes_it_none(more: str) -> None:
    good, named = Multiaddr("/ip4/44.1.1.1/tcp/4710"), Multiaddr(f"/ip6/fd00::1/tcp/7/p2p/{PEER}")
    raw = [Multiaddr(f"{good}{more}").to_bytes(), named.to_bytes(), good.to_bytes()]
    assert read_addresses(raw, 4) == [named, good]


def test_private_addresses_of_other_networks_are_not_dialled() -> None:
    assert plausible_from_here("44.1.1.1")
    assert not any(plausible_from_here(host) for host in ("127.0.0.1", "10.255.255.254", "::1", "nonsense"))
