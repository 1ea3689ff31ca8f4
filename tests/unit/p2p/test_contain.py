"""A mistake of ours about what a peer sent ends that work, and nothing else."""

import logging

import pytest
import trio

from dimnode.p2p.contain import contained
from dimnode.records.ids import PeerId, peer_of_key, peer_text

PEER = peer_of_key(b"k" * 32)


def test_a_mistake_ends_its_own_work_and_is_logged_with_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    async def mistaken(peer: PeerId, word: str) -> None:
        await trio.lowlevel.checkpoint()
        raise TypeError(word)

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mistaken, PEER, "unhashable type: 'list'")

    async def other() -> None:
        await trio.lowlevel.checkpoint()
        done.append("other")

    async def main() -> None:
        async with trio.open_nursery() as node:
            node.start_soon(contained, PEER, mistaken, PEER, "int too large")
            node.start_soon(contained, PEER, many)
            node.start_soon(contained, PEER, other)

    with caplog.at_level(logging.ERROR, "dimnode.p2p.contain"):
        trio.run(main)
    assert done == ["other"]
    assert {record.__dict__["peer"] for record in caplog.records} == {peer_text(PEER)}
    assert "int too large" in caplog.text and "unhashable" in caplog.text


def test_a_cancel_goes_through() -> None:
    async def main() -> None:
        with trio.move_on_after(0.01) as scope:
            await contained(PEER, trio.sleep_forever)
        assert scope.cancelled_caught

    trio.run(main)
