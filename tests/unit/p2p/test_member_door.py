"""What a member tells another one later, also one that does not listen."""

from typing import Any

import trio
import trio.testing
from swarm_stage import ALBA, FOUNDER, T0, Paper

from dimnode.limits import LIMITS
from dimnode.p2p.member_door import MemberDoor


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
