"""What a member tells another one later, also one that does not listen."""

from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
from swarm_stage import ALBA, FOUNDER, T0, Paper

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.member_door import MemberDoor, OpenDoor
from dimnode.records.ids import PEER_PREFIX, PeerId
from dimnode.wire import pack_frame


class Unread:
    """A stream to a peer that reads nothing."""

    given_up = False

    async def write(self, _: bytes) -> None:
        await trio.sleep_forever()

    async def reset(self) -> None:
        self.given_up = True


class Neighbour:
    """A host whose one peer reads nothing."""

    def __init__(self) -> None:
        self.opened: list[Unread] = []

    async def open_stream(self, *_: Any) -> Unread:
        self.opened.append(Unread())
        return self.opened[-1]


def test_a_stream_to_a_member_that_reads_nothing_is_given_up_when_its_time_is_over() -> None:
    paper = Paper()
    book = paper.book(paper.member(FOUNDER, ALBA.peer))
    door = MemberDoor(FOUNDER.peer, book, (), lambda: T0 + 2000, lambda: None)
    host = Neighbour()

    async def tell() -> None:
        await door.tell(host, ALBA.peer, book.records())  # type: ignore[arg-type]
        assert trio.current_time() <= LIMITS.swarm.announce_seconds_max + 1

    trio.run(tell, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [stream.given_up for stream in host.opened] == [True]


@dataclass(slots=True)
class Saying:
    """A stream on which a peer says one thing."""

    peer: bytes
    said: bytes

    async def read(self, _: int) -> bytes:
        return self.said


def test_of_more_refusals_than_are_kept_the_oldest_are_forgotten_and_each_peers_last_counts() -> None:
    door, most = OpenDoor(), LIMITS.peers.peers_max
    peers = [PEER_PREFIX + number.to_bytes(32) for number in range(most + 1)]

    async def hear() -> None:
        for code, peer in [("E-swarm-10", peer) for peer in peers] + [("E-swarm-12", peers[most])]:
            await door.serve(Saying(peer, pack_frame(["no", code, "go away", []])))  # type: ignore[arg-type]

    trio.run(hear)
    assert list(door.turned_away_by) == peers[1:]
    assert door.turned_away_by[PeerId(peers[most])] == "E-swarm-12: go away"


def test_a_stranger_that_dials_and_refuses_before_it_showed_anything_says_nothing_of_our_invite() -> None:
    heard: list[str] = []
    door = MemberDoor(FOUNDER.peer, Paper().book(), (), lambda: T0, lambda: None, own_invite=heard.append)
    stream: Any = Saying(ALBA.peer, pack_frame(["no", "E-swarm-14", "the invite is used up", []]))

    async def answer() -> None:
        with pytest.raises(PeerFault, match="chain"):
            await door.exchange(stream, dialled=False)

    trio.run(answer)
    assert (heard, door.turned_away_by) == ([], {})
