"""What goes into multicast DNS, and what is believed of what comes out."""

import hashlib
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import trio

from dimnode.limits import LIMITS
from dimnode.p2p.mdns import LocalNetwork, local_ip, properties, read_properties, service_type
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import OPEN_SWARM_ID

ME = PeerId(b"\x00\x24\x08\x01\x12\x20" + bytes(32))
ADDRESS = "/ip4/192.168.1.7/tcp/4710/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
LIMIT = LIMITS.reach


def test_nodes_of_another_swarm_look_for_another_name() -> None:
    other = RecordId(OPEN_SWARM_ID[:5] + hashlib.sha256(b"another").digest())
    assert service_type(OPEN_SWARM_ID) != service_type(other)
    label = service_type(OPEN_SWARM_ID).partition(".")[0]
    assert label.startswith("_p2p-") and len(label) <= 16  # RFC 6763: fifteen letters after the underscore


def test_addresses_survive_the_way_through_txt_entries() -> None:
    said = properties([ADDRESS, ADDRESS.replace("192.168.1.7", "10.0.0.7")], LIMIT)
    raw = {key.encode(): value.encode() for key, value in said.items()}
    assert read_properties(raw, LIMIT) == list(said.values())
    assert len(said) == 2


def test_what_does_not_fit_is_not_said_and_what_is_too_much_is_not_read() -> None:
    assert properties(["/ip4/1.2.3.4/tcp/1/p2p/" + "x" * 300], LIMIT) == {}
    flood = {f"dnsaddr{n}".encode(): ADDRESS.encode() for n in range(1000)}
    assert len(read_properties(flood, LIMIT)) == LIMIT.mdns_addresses_max
    assert read_properties({b"dnsaddr": None, b"other": b"x", b"dnsaddr1": b"y" * 300}, LIMIT) == []


def test_only_direct_addresses_beyond_this_machine_are_announced() -> None:
    assert local_ip(ADDRESS) == "192.168.1.7"
    assert local_ip("/ip6/fd00::1/tcp/4710/p2p/x") == "fd00::1"
    for text in ("/ip4/127.0.0.1/tcp/1", f"{ADDRESS}/p2p-circuit/p2p/x", "/dns4/x/tcp/1/p2p/x", "", "/ip4/x/tcp/1/p"):
        assert local_ip(text) == ""


def test_a_found_peer_is_told_once_until_its_addresses_change_and_the_memory_is_bounded() -> None:
    told: list[list[str]] = []
    network = LocalNetwork(ME, OPEN_SWARM_ID, told.append)
    for _ in range(3):
        network._hear("peer", (ADDRESS,))
    network._hear("peer", (ADDRESS, ADDRESS))
    network._hear("silent", ())
    assert told == [[ADDRESS], [ADDRESS, ADDRESS]]
    for n in range(2 * LIMIT.mdns_peers_max):
        network._hear(str(n), (ADDRESS,))
    assert len(network._heard) == LIMIT.mdns_peers_max


def test_a_network_that_does_not_close_keeps_nobody_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, never = trio.Event(), threading.Event()

    class Stuck:
        """A responder whose goodbye nobody takes."""

        def close(self) -> None:
            never.wait(60)

    def stuck(_: LocalNetwork, made: list[Any], __: list[str]) -> None:
        made.append(Stuck())
        trio.from_thread.run_sync(opened.set)

    monkeypatch.setattr(LocalNetwork, "_open", stuck)
    network = LocalNetwork(ME, OPEN_SWARM_ID, lambda _: None, replace(LIMIT, mdns_start_seconds_max=0.2))

    async def life() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(network.run, [ADDRESS])
                await opened.wait()
                nursery.cancel_scope.cancel()

    began = time.monotonic()
    try:
        trio.run(life)
    finally:
        never.set()
    assert time.monotonic() - began < 20
