"""Peers that speak nothing of ours: what a node knows of them while they are connected, and no longer."""

from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock

from dimnode.limits import LIMITS
from dimnode.p2p.host.streams import ProtocolRefused
from dimnode.p2p.links import Links
from dimnode.records.ids import PeerId

ME, OTHER = PeerId(b"a"), PeerId(b"b")


class Host:
    """Its peers refuse whatever is proposed to them."""

    def __init__(self) -> None:
        self.peers: list[bytes] = [OTHER]
        self.reach = SimpleNamespace(needed=lambda _: False)

    def connected(self) -> list[bytes]:
        return self.peers

    async def open_stream(self, peer: bytes, protocol: str) -> None:
        raise ProtocolRefused(f"the peer does not speak {protocol}")


async def no_frames(link: Any, body: bytes) -> None:
    raise AssertionError("there is no link")


def test_a_peer_of_another_kind_that_was_let_stay_is_forgotten_when_it_is_gone() -> None:
    async def main() -> None:
        links, host = Links(ME, no_frames, lambda peer, up: None), Host()
        links.stays = lambda _: True
        seconds = 2 * LIMITS.peers.ping_interval_seconds
        async with trio.open_nursery() as nursery:
            links.attach(host, nursery)  # type: ignore[arg-type]
            await trio.sleep(seconds)
            assert links.is_foreign(OTHER)
            host.peers = []
            await trio.sleep(seconds)
            assert not links.is_foreign(OTHER)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
