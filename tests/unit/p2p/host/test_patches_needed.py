"""Stock libp2p 0.8.1 still does what docs/patches.md says.

A test that fails here is good news: that change is no longer needed and can be taken out, together with its entry.
"""

import inspect
import subprocess
import sys
from importlib.metadata import requires, version
from types import SimpleNamespace
from typing import Any

import fastecdsa
import libp2p.crypto.ecc
import libp2p.network.swarm as swarm_module
import libp2p.transport.tcp.tcp as tcp_module
import pytest
import trio
import trio.testing
from google.protobuf.message import DecodeError
from host_pair import PEER, RawPeer, run, sessions
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStoreError
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.rcmgr import Direction
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerMessage
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from dimnode.errors import ConfigError
from dimnode.p2p.host import hardening
from dimnode.p2p.host.yamux_frames import RST, SYN, Kind, encode_header

LEAVE_OUT = "from dimnode.p2p.host.slimming import leave_out; leave_out();"
ADDRESSES = [Multiaddr("/ip4/127.0.0.1/tcp/1001"), Multiaddr("/ip4/127.0.0.1/tcp/1002")]


def stock_host() -> Any:
    return new_host(key_pair=create_new_key_pair(bytes(32)))


def stock_pubsub() -> Any:
    router = GossipSub(protocols=[PROTOCOL_ID_V11], degree=6, degree_low=4, degree_high=12)
    pubsub = Pubsub(stock_host(), router)
    pubsub._manager = SimpleNamespace(is_running=True)
    return pubsub


def test_the_changes_are_for_this_version_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version("libp2p") == hardening.LIBP2P_VERSION == "0.8.1"
    monkeypatch.setattr(hardening, "version", lambda name: "0.8.2")
    with pytest.raises(ConfigError, match=r"E-p2p-04.*0\.8\.2"):
        hardening.patch_modules()


def test_stock_imports_fastecdsa_unconditionally() -> None:
    assert "from fastecdsa import" in inspect.getsource(libp2p.crypto.ecc)
    assert [line for line in requires("libp2p") or () if line.startswith("fastecdsa==2.3.2")]


def test_stock_waits_after_a_successful_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        swarm = stock_host().get_network()
        swarm.peerstore.add_addrs(PEER, ADDRESSES[:1], 100)
        swarm._dial_with_retry = connected
        started = trio.current_time()
        assert len(await swarm.dial_peer(PEER)) == 1
        assert trio.current_time() - started == pytest.approx(0.25)

    async def connected(address: Any, peer: Any) -> object:
        return object()

    monkeypatch.setattr(swarm_module, "_HAPPY_EYEBALLS_DELAY", 0.25)
    run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


def test_stock_tries_one_tcp_address_and_then_refuses_the_peer_for_a_minute() -> None:
    async def scenario() -> None:
        swarm = stock_host().get_network()
        swarm.peerstore.add_addrs(PEER, ADDRESSES, 100)
        tried = []

        async def fail(address: Any, peer: Any) -> None:
            tried.append(address)
            raise SwarmException("refused")

        swarm._dial_with_retry = fail
        with pytest.raises(SwarmException, match="no addresses established"):
            await swarm.dial_peer(PEER)
        with pytest.raises(SwarmException, match="negative cache"):
            await swarm.dial_peer(PEER)
        assert tried == ADDRESSES[:1]

    run(scenario)


def test_stock_listens_with_a_port_that_others_can_share() -> None:
    assert "SO_REUSEPORT" in inspect.getsource(tcp_module)


def test_stock_accepts_plaintext_by_default() -> None:
    security = stock_host().get_network().upgrader.security_multistream
    assert PLAINTEXT_PROTOCOL_ID in security.transports


def test_stock_keeps_the_place_of_an_inbound_connection_that_ended() -> None:
    async def scenario() -> None:
        swarm = stock_host().get_network()
        swarm._manager = SimpleNamespace(wait_finished=trio.sleep_forever)
        swarm.upgrade_inbound_raw_conn = upgraded
        async with trio.open_nursery() as nursery:
            carrier = SimpleNamespace(get_remote_address=lambda: ("127.0.0.1", 9))
            nursery.start_soon(swarm._handle_inbound_connection, carrier, ADDRESSES[0])
            await trio.testing.wait_all_tasks_blocked()
            assert swarm._inbound_limiter.borrowed_tokens == 1
            nursery.cancel_scope.cancel()

    async def upgraded(raw_conn: Any, address: Any) -> Any:
        """Return a connection; nothing of it is looked at afterwards, so it may as well be closed."""
        return SimpleNamespace(is_closed=True)

    run(scenario)


def test_stock_loses_the_place_of_a_stream_that_ends_while_it_is_opened() -> None:
    async def scenario() -> None:
        swarm = stock_host().get_network()
        places = swarm._stream_semaphore.value
        await swarm._stream_semaphore.acquire()
        stream = SimpleNamespace(_resource_released=False, _direction=Direction.UNKNOWN, muxed_conn=None)
        await swarm.notify_closed_stream(stream)  # the connection broke before the direction was noted
        stream._direction = Direction.OUTBOUND
        await swarm.notify_closed_stream(stream)
        assert swarm._stream_semaphore.value == places - 1

    run(scenario)


def test_stock_lets_the_exception_of_a_handler_reach_the_host() -> None:
    async def scenario() -> None:
        host = stock_host()

        async def negotiate(communicator: Any, timeout: float) -> tuple[str, Any]:
            return "/x/1", fail

        host.multiselect.negotiate = negotiate
        stream = SimpleNamespace(muxed_conn=None, set_protocol=lambda protocol: None)
        with pytest.raises(RuntimeError, match="of the handler"):
            await host._swarm_stream_handler(stream)

    async def fail(stream: Any) -> None:
        raise RuntimeError("of the handler")

    run(scenario)


def test_stock_pubsub_raises_for_a_frame_that_is_no_protobuf() -> None:
    class OneFrame:
        muxed_conn = SimpleNamespace(peer_id=PEER)
        rest = b"\x40" + b"\xff" * 64

        async def read(self, n: int) -> bytes:
            taken, self.rest = self.rest[:n], self.rest[n:]
            return taken

    async def scenario() -> None:
        with pytest.raises(DecodeError):
            await stock_pubsub().stream_handler(OneFrame())

    run(scenario)


def test_stock_pubsub_raises_for_a_message_with_a_malformed_key() -> None:
    async def scenario() -> None:
        message = rpc_pb2.Message(from_id=b"bad", data=b"x", seqno=b"1", topicIDs=["t"], signature=b"s", key=b"k")
        with pytest.raises(Exception):  # noqa: B017 which one is an accident of the bytes
            await stock_pubsub().push_msg(PEER, message)

    run(scenario)


def test_stock_gossip_ends_with_the_first_failure_of_a_heartbeat() -> None:
    async def scenario() -> None:
        router = stock_pubsub().router

        def fail() -> None:
            raise KeyError("mesh")

        router.mesh_heartbeat = fail
        with pytest.raises(KeyError):
            await router.heartbeat()

    run(scenario)


def test_stock_slows_the_heartbeat_of_a_small_swarm_down() -> None:
    async def scenario() -> None:
        router = stock_pubsub().router
        router.heartbeat_interval = router.heartbeat_interval_base = 1
        router.network_health_score = 0.5
        router._adapt_gossip_parameters()
        assert router.heartbeat_interval == 60

    run(scenario)


def test_stock_ignores_the_muxer_it_is_given() -> None:
    async def scenario() -> None:
        negotiator = MuxerMultistream({YAMUX_ID: NotYamux})

        async def select(*_: Any) -> tuple[str, Any]:
            return YAMUX_ID, NotYamux

        negotiator._selector.select = select
        assert type(await negotiator.new_conn(sessions()[1], PEER)) is Yamux

    class NotYamux:
        def __init__(self, *_: Any) -> None:
            raise AssertionError("it is used after all")

    run(scenario)


def test_stock_yamux_takes_a_reset_for_an_end_and_does_not_enforce_its_window() -> None:
    async def scenario() -> None:
        ours, theirs = sessions()
        stock = Yamux(theirs, PEER, is_initiator=False)
        peer = RawPeer(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stock.start)
            window = 256 * 1024
            payload = encode_header(Kind.DATA, 0, 1, window) + bytes(window)
            await peer.send(encode_header(Kind.WINDOW, SYN, 1, 0), payload, payload)
            stream = await stock.accept_stream()
            while len(stock.stream_buffers[1]) < 2 * window:
                await trio.lowlevel.checkpoint()
            assert len(await stream.read(2 * window)) == 2 * window
            await peer.send(encode_header(Kind.WINDOW, RST, 1, 0))
            with pytest.raises(MuxedStreamEOF):
                await stream.read(1)
            nursery.cancel_scope.cancel()

    run(scenario)


def test_stock_stops_looking_for_providers_at_its_own_shelf() -> None:
    async def scenario() -> None:
        host = SimpleNamespace(get_id=lambda: PEER)
        store = ProviderStore(host=host, peer_routing=object())  # which cannot be asked anything
        store.add_provider(b"key", PeerInfo(PEER, []))
        assert [found.peer_id for found in await store.find_providers(b"key")] == [PEER]

    run(scenario)


def test_stock_forgets_its_own_key_when_it_knows_too_many_peers() -> None:
    host = stock_host()
    store = host.get_peerstore()
    for number in range(store.max_peers + 1):
        store.add_addrs(ID(PEER.to_bytes()[:-4] + number.to_bytes(4, "big")), ADDRESSES, 100)
    with pytest.raises(PeerStoreError):
        host.get_private_key()


def test_the_stub_of_fastecdsa_refuses_to_be_used() -> None:
    if not hasattr(fastecdsa, "refuse"):
        pytest.skip("the real fastecdsa is installed")
    with pytest.raises(NotImplementedError, match="stub"):
        libp2p.crypto.ecc.create_new_key_pair("P-256")


def test_stock_relays_take_a_reservation_in_anothers_name() -> None:
    victim = ID(PEER.to_bytes()[:-1] + b"x")

    class Asking:
        muxed_conn = SimpleNamespace(peer_id=PEER)

        async def write(self, data: bytes) -> None:
            pass

        def is_open(self) -> bool:
            return False

    async def scenario() -> None:
        relay = CircuitV2Protocol(stock_host(), allow_hop=True)
        asked = HopMessage(type=HopMessage.RESERVE, peer=PeerMessage(id=victim.to_bytes()))
        await relay._handle_reserve(Asking(), asked)
        assert victim in relay.resource_manager._reservations

    run(scenario)


def test_stock_cuts_a_circuit_address_down_to_the_relays_own() -> None:
    circuit = Multiaddr(f"/ip4/44.1.1.1/tcp/4710/p2p/{PEER.to_base58()}/p2p-circuit")
    key_pair = create_new_key_pair(bytes(32))
    host = new_host(key_pair=key_pair, addrs_factory=lambda _: [circuit])
    announced = str(host.get_addrs()[0])
    assert announced == f"/ip4/44.1.1.1/tcp/4710/p2p/{host.get_id().to_base58()}"  # where we never were


def test_stock_forgets_subscriptions_of_a_peer_that_is_still_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    pubsub = stock_pubsub()
    pubsub.peer_topics["t"] = {PEER}
    pubsub.peers[PEER] = SimpleNamespace()
    pubsub.router.attach(pubsub)
    monkeypatch.setattr(pubsub, "_peer_is_connected", lambda peer: True)
    monkeypatch.setattr(pubsub, "_schedule_peer_stream_retry", lambda peer: None)
    pubsub._handle_dead_peer(PEER)
    assert PEER not in pubsub.peer_topics.get("t", set())


@pytest.mark.slow
def test_stock_imports_parts_that_are_never_used_here_and_without_them_it_imports_faster() -> None:
    """In processes of their own: this one has imported whatever it has."""
    plain = "import sys, libp2p; print(len(sys.modules), 'requests' in sys.modules, 'zeroconf' in sys.modules)"
    without = plain.replace("import sys, libp2p;", f"{LEAVE_OUT} import sys, dimnode.p2p.host.streams;")
    count, http, mdns = subprocess.check_output([sys.executable, "-c", plain], text=True).split()
    assert (http, mdns) == ("True", "True")
    ours, http, mdns = subprocess.check_output([sys.executable, "-c", without], text=True).split()
    assert (http, mdns) == ("False", "False")
    assert int(ours) < int(count) - 100


@pytest.mark.slow
def test_what_stands_in_for_a_part_that_is_left_out_refuses_to_be_used() -> None:
    code = f"{LEAVE_OUT} from libp2p.host.basic_host import ACMEClient; ACMEClient(1, 2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ACMEClient is left out: docs/patches.md" in done.stderr
