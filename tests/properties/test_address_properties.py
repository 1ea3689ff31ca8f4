"""Addresses are words of strangers: whatever they say, it is a way to a peer or a dial that failed."""

from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.peer.id import ID

from dimnode.p2p.host.addresses import ip_of, is_circuit, parse_dial, split_circuit, with_peer
from dimnode.p2p.host.streams import DialFailed
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import peer_text

PEERS = [peer_text(SigningKey.from_seed(bytes([number]) * 32).peer) for number in (1, 2)]
PARTS = [
    "/ip4/1.2.3.4",
    "/ip6/::1",
    "/dns4/p2p-circuit-x",
    "/dns4/p2p",
    "/unix/p2p-circuit",
    "/tcp/1",
    "/tcp/0",
    "/udp/1",
    "/ws",
    "/p2p-circuit",
    "/p2p",
    "/",
    "p2p-circuit",
    *(f"/p2p/{peer}" for peer in PEERS),
]


@example(f"/p2p/{PEERS[0]}/unix/p2p-circuit/p2p/{PEERS[1]}")  # a path, in which words mean nothing
@example(f"/p2p/{PEERS[0]}/tcp/1/p2p-circuit/p2p/{PEERS[1]}")
@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join) | st.text(max_size=60))
def test_an_address_of_any_words_names_a_peer_and_a_way_or_is_a_dial_that_failed(text: str) -> None:
    try:
        peer, way = parse_dial(text)
    except DialFailed:
        return
    assert isinstance(peer, ID)
    assert with_peer(way, peer).endswith(f"/p2p/{peer.to_base58()}")
    assert isinstance(ip_of(way), str)
    if is_circuit(way):
        relay, _ = split_circuit(way)
        assert isinstance(relay, ID)
