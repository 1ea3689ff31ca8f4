"""The small parts of the host: addresses, the rate of gossip, the guard around handlers."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from host_pair import PEER, run
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerdata import PeerData
from multiaddr import Multiaddr

from dimnode.errors import ConfigError
from dimnode.p2p.host import hardening
from dimnode.p2p.host.addresses import expand, parse_dial, parse_listen, with_peer
from dimnode.p2p.host.dialling import deepest_reason
from dimnode.p2p.host.gossip import RateLimit
from dimnode.p2p.host.multistream import encode_line
from dimnode.p2p.host.peer_store import BoundedPeerStore
from dimnode.p2p.host.streams import DialFailed

TEXT = PEER.to_base58()


def test_a_dialable_address_names_peer_and_place() -> None:
    peer, place = parse_dial(f"/ip4/10.0.0.1/tcp/4001/p2p/{TEXT}")
    assert (peer, str(place)) == (PEER, "/ip4/10.0.0.1/tcp/4001")
    assert with_peer(place, peer) == f"/ip4/10.0.0.1/tcp/4001/p2p/{TEXT}"
    assert with_peer(Multiaddr(f"/ip4/10.0.0.1/tcp/1/p2p/{TEXT}"), peer) == f"/ip4/10.0.0.1/tcp/1/p2p/{TEXT}"


@pytest.mark.parametrize("text", ["", "hello", "/ip4/10.0.0.1", "/ip4/10.0.0.1/tcp/1", "/ip4/1.2.3/tcp/1", "/p2p/x"])
def test_an_address_nobody_can_dial_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(DialFailed) as caught:
        parse_dial(text)
    assert caught.value.reason


@pytest.mark.parametrize("text", ["", "0.0.0.0:4001", "/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1"])
def test_an_address_nobody_can_listen_on_is_the_operators_fault(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_listen([text])
    assert caught.value.complaint.code == "E-p2p-03"
    assert text in caught.value.complaint.what


@pytest.mark.parametrize("text", ["/dns4/localhost/tcp/4710", "/tcp/4710", "/p2p-circuit/tcp/4710"])
def test_without_an_ip_address_nothing_is_listened_on_for_it_would_be_on_every_interface(text: str) -> None:
    with pytest.raises(ConfigError, match="E-p2p-03"):
        parse_listen([text])


def test_an_ip_address_and_a_port_are_listened_on_also_with_a_peer_behind_them() -> None:
    texts = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4710", f"/ip4/0.0.0.0/tcp/4710/p2p/{TEXT}"]
    assert [str(address) for address in parse_listen(texts)] == texts


def test_wildcards_become_the_addresses_of_the_interfaces() -> None:
    place = Multiaddr("/ip4/10.0.0.1/tcp/4001")
    assert expand([place, place]) == [place]
    expanded = [str(address) for address in expand([Multiaddr("/ip4/0.0.0.0/tcp/4001")])]
    assert expanded
    assert all(text.endswith("/tcp/4001") and "0.0.0.0" not in text for text in expanded)


def test_a_source_may_send_a_burst_and_then_its_rate() -> None:
    limit = RateLimit(per_second=2, burst=3, sources_max=2)
    assert [limit.allow(b"a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert limit.allow(b"b", 10.0)
    assert not limit.allow(b"a", 10.4)
    assert limit.allow(b"a", 10.5)
    assert not limit.allow(b"a", 10.6)


def test_the_rate_limit_remembers_so_many_sources_only() -> None:
    limit = RateLimit(per_second=0, burst=1, sources_max=2)
    assert [limit.allow(source, 0.0) for source in (b"a", b"b", b"a", b"c")] == [True, True, False, True]
    assert limit.allow(b"b", 0.0), "b was silent longest and is new again"
    assert not limit.allow(b"c", 0.0)


def test_the_reason_of_a_failed_dial_is_the_innermost_one() -> None:
    error = RuntimeError("all failed")
    error.__cause__ = ExceptionGroup("dials", [ConnectionRefusedError("refused")])
    assert deepest_reason(error) == "refused"
    assert deepest_reason(TimeoutError()) == "TimeoutError"


def test_a_multistream_line_carries_its_length() -> None:
    assert encode_line("na") == b"\x03na\n"
    assert encode_line("x" * 200) == b"\xc9\x01" + b"x" * 200 + b"\n"


class FakeStream:
    """A libp2p stream as far as the guard looks at it."""

    def __init__(self, peer: bytes = b"peer") -> None:
        self.muxed_conn = SimpleNamespace(peer_id=SimpleNamespace(to_bytes=lambda: peer))
        self.muxed_stream = SimpleNamespace(abandon=lambda: None)
        self.was_reset = False

    async def reset(self) -> None:
        self.was_reset = True


def test_the_guard_turns_an_exception_into_a_reset() -> None:
    async def fail(stream: Any) -> None:
        raise ValueError("x")

    async def scenario() -> None:
        stream = FakeStream()
        await hardening.HandlerGuard(1).guarded("/x", fail)(stream)
        assert stream.was_reset

    run(scenario)


def test_the_guard_lets_a_cancel_through() -> None:
    async def wait(stream: Any) -> None:
        await trio.sleep_forever()

    async def scenario() -> None:
        stream = FakeStream()
        with trio.move_on_after(0) as scope:
            await hardening.HandlerGuard(1).guarded("/x", wait)(stream)
        assert scope.cancelled_caught
        assert not stream.was_reset

    run(scenario)


def test_the_guard_counts_open_handlers_per_peer_over_all_protocols() -> None:
    async def scenario() -> None:
        guard = hardening.HandlerGuard(open_per_peer_max=2)

        async def wait(stream: Any) -> None:
            await trio.sleep_forever()

        async def pass_by(stream: Any) -> None:
            pass

        async with trio.open_nursery() as nursery:
            for protocol in ("/x", "/y"):
                nursery.start_soon(guard.guarded(protocol, wait), FakeStream())
            await trio.testing.wait_all_tasks_blocked()
            third, other = FakeStream(), FakeStream(b"another")
            await guard.guarded("/z", pass_by)(third)
            await guard.guarded("/z", pass_by)(other)
            assert third.was_reset
            assert not other.was_reset
            nursery.cancel_scope.cancel()
        again = FakeStream()
        await guard.guarded("/z", pass_by)(again)
        assert not again.was_reset

    run(scenario)


def peer_number(number: int) -> ID:
    return ID(PEER.to_bytes()[:-4] + number.to_bytes(4, "big"))


def test_the_peer_store_keeps_ourselves_and_connected_peers_whatever_strangers_tell() -> None:
    own, connected = peer_number(1_000_000), peer_number(0)
    store = BoundedPeerStore(own, peers_max=20, addresses_per_peer_max=3)
    key_pair = create_new_key_pair(bytes(32))
    store.peer_data_map[own] = PeerData()
    store.peer_data_map[own].add_privkey(key_pair.private_key)
    store.is_connected = lambda peer: peer == connected
    for number in range(100):
        place = [Multiaddr(f"/ip4/10.0.0.1/tcp/{number + 1}")]
        store.add_addrs(peer_number(number), place, 100)
        store.add_addrs(own, place, 1)
        store.add_addrs(connected, place, 100)
    assert store.privkey(own) == key_pair.private_key
    assert own not in store.peers_with_addrs()
    assert [str(place) for place in store.addrs(connected)] == [f"/ip4/10.0.0.1/tcp/{port}" for port in (98, 99, 100)]
    assert len(store.peer_ids()) <= 20
    assert store.addrs(peer_number(99)), "the newest are kept"
