"""Blocks from one IPFS peer: wants go out over a stream of ours, blocks come in over streams of its own.

Rule: a block is who its hash says it is. One that was not asked for is a lie, and ends the session; a peer that for a
while answers nothing that is asked, whatever else it says, or that has not what is asked for, is asked no more.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import trio

from dimnode.errors import Refused
from dimnode.limits import BitswapLimits
from dimnode.p2p.bitswap_words import Message, Want, pack_wants
from dimnode.p2p.host.streams import Stream, StreamLost
from dimnode.records.ids import Cid, PeerId, cid_text, peer_text

_REMEMBERED: Final = 64


@dataclass(slots=True)
class _Wanted:
    """One block: for how many it is asked, and what came."""

    users: int = 0
    over: trio.Event = field(default_factory=trio.Event)
    content: memoryview | None = None


class Session:
    """Made by `Bitswap.session`. `block` may be called by several tasks at once."""

    def __init__(self, peer: PeerId, limits: BitswapLimits) -> None:
        self.peer, self._limits = peer, limits
        self._wanted: dict[Cid, _Wanted] = {}
        self._had: OrderedDict[Cid, None] = OrderedDict()  # a block may come twice when both sides hurry
        self._to_say: list[Want] = []
        self._news = trio.Event()
        self._heard_at = trio.current_time()
        self._over = ""
        self.lied = False
        self.scope = trio.CancelScope()
        self.bytes_in = 0

    async def block(self, cid: Cid, bytes_max: int) -> memoryview:
        """A block with this hash. Raises `Refused` E-p2p-66: it has it not, says nothing, lied, or sent too much."""
        if self._over:
            raise self._no(self._over)
        wanted = self._wanted.get(cid)
        if wanted is None:
            wanted = self._wanted[cid] = _Wanted()
            if len(self._wanted) == 1:
                self._heard_at = trio.current_time()
            self._say(Want(cid))
        wanted.users += 1
        try:
            await self._wait(wanted)
        finally:
            wanted.users -= 1
            if not wanted.users and self._wanted.get(cid) is wanted:
                del self._wanted[cid]
                self._say(Want(cid, cancel=True))
        if wanted.content is None and self._over:
            raise self._no(self._over)
        if wanted.content is None:
            raise self._no(f"it does not have {cid_text(cid)}")
        if len(wanted.content) > bytes_max:
            raise self._no(f"{cid_text(cid)} is larger than a block of ours")
        return wanted.content

    async def _wait(self, wanted: _Wanted) -> None:
        while not wanted.over.is_set():
            left = self._heard_at + self._limits.silence_seconds_max - trio.current_time()
            if left <= 0:
                raise self._no(f"it answered nothing for {self._limits.silence_seconds_max:g} s")
            with trio.move_on_after(left):
                await wanted.over.wait()

    def _no(self, why: str) -> Refused:
        return Refused("E-p2p-66", f"{peer_text(self.peer)} gives no more blocks", why, "another peer", 5000)

    def _say(self, want: Want) -> None:
        self._to_say.append(want)
        self._news.set()

    async def write(self, stream: Stream) -> None:
        """Tell the peer what is wanted, until `scope` is cancelled or it is gone."""
        try:
            with self.scope:
                while True:
                    await self._news.wait()
                    self._news = trio.Event()
                    said, self._to_say = self._to_say, []
                    with trio.fail_after(self._limits.message_seconds_max):
                        await stream.write(pack_wants(said))
        except (StreamLost, trio.TooSlowError):
            self._end("its connection broke")

    def hear(self, message: Message) -> None:
        """What the peer sent. Only an answer is a sign of life: empty messages could go on for ever."""
        for cid, content in message.blocks:
            self.bytes_in += len(content)
            if (wanted := self._wanted.pop(cid, None)) is not None:
                wanted.content = content
                self._answered(wanted)
                self._had[cid] = None
                if len(self._had) > _REMEMBERED:
                    self._had.popitem(last=False)
            elif cid not in self._had:
                self._lie()
        for named, have in message.presences:
            if not have and (wanted := self._wanted.pop(Cid(named), None)) is not None:
                self._answered(wanted)

    def _answered(self, wanted: _Wanted) -> None:
        self._heard_at = trio.current_time()
        wanted.over.set()

    def _lie(self) -> None:
        self.lied = True
        self._end("it sent what nobody asked for")

    def _end(self, why: str) -> None:
        """Nothing more is expected of it."""
        self._over = self._over or why
        for wanted in self._wanted.values():
            wanted.over.set()
        self._wanted.clear()
