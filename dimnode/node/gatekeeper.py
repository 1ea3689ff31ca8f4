"""The running node's side of its private swarm: keeps the home's file true, cuts off who is out, spreads what is new.

Rule: what was learned is on the disk before it is told or acted upon; who is no member any more is disconnected as soon
as that is known: at a removal, and at the moment at which a membership expires.
"""

import logging
from typing import Any

import trio

from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.node.clock import wall_ms
from dimnode.node.private_swarm import InviteWish, PrivateSwarm
from dimnode.p2p.host.host import Host
from dimnode.p2p.member_door import MemberDoor
from dimnode.records.envelope import Record
from dimnode.records.ids import PeerId, RecordId, short
from dimnode.store.swarm_state import save_state

log = logging.getLogger(__name__)


class Gatekeeper:
    """One per node that is in a private swarm."""

    def __init__(self, swarm: PrivateSwarm) -> None:
        self.swarm = swarm
        chain, hear = swarm.state.chain, self._hear_of_invite
        self.door = MemberDoor(
            swarm.me, swarm.book, chain, wall_ms, self._wake, self.keys, self._take_keys, own_invite=hear
        )
        self._taken_in = False
        self._changed = trio.Event()
        self._saving = trio.Lock()
        self._told: set[RecordId] = {record.id for record in swarm.book.records()}
        self._warned = ""

    def keys(self) -> list[bytes]:
        """The pre-shared keys that are valid now."""
        return self.swarm.keys(wall_ms())

    @property
    def has_keys(self) -> bool:
        """Whether this swarm has a pre-shared key at all."""
        return bool(self.swarm.state.keys)

    def _take_keys(self, told: list[bytes]) -> None:
        if self.swarm.take_keys(told, wall_ms()):
            log.info("the swarm's pre-shared key was rotated")
            self._wake()

    def _hear_of_invite(self, words: str) -> None:
        """A refusal is kept for the operator, until somebody takes this node in."""
        self._taken_in = self._taken_in or not words
        kept = "" if self._taken_in else words
        if kept != self.swarm.state.refused:
            self.swarm.state.refused = kept
            self._wake()

    def _wake(self) -> None:
        self._changed.set()

    # ---- the task

    async def run(self, host: Host) -> None:
        """Until cancelled: save, cut off, tell; then wait for a change or the next expiry."""
        async with trio.open_nursery() as nursery:  # farewells and news, each bounded
            while True:
                self._changed = trio.Event()
                await self._save_quietly()
                self._cut_off(host, nursery)
                self._tell_news(host, nursery)
                with trio.move_on_after(self._seconds_to_next_expiry()):
                    await self._changed.wait()

    def _seconds_to_next_expiry(self) -> float:
        now_ms = wall_ms()
        next_ms = self.swarm.book.next_expiry_ms(now_ms)
        patience_seconds = 3600.0  # wall clocks jump: look again now and then
        return patience_seconds if next_ms is None else min(patience_seconds, (next_ms - now_ms) / 1000 + 0.01)

    async def save(self) -> None:
        """Returns when all that is known now is on the disk."""
        async with self._saving:
            await trio.to_thread.run_sync(save_state, self.swarm.home, self.swarm.snapshot())

    async def _save_quietly(self) -> None:
        try:
            await self.save()
        except ConfigError as error:  # a full disk: what was learned is asked for again after the next start
            log.warning("the swarm's state was not saved: %s", error)

    def _cut_off(self, host: Host, nursery: trio.Nursery) -> None:
        now_ms = wall_ms()
        for connected in host.connected():
            peer = PeerId(connected)
            try:
                self.swarm.book.judge(peer, now_ms)
            except Refused as refused:
                log.info("%s is disconnected: %s", short(peer), refused)
                nursery.start_soon(self.door.dismiss, host, peer, refused)
        self._look_at_own(now_ms)

    def _look_at_own(self, now_ms: int) -> None:
        try:
            self.swarm.judge_me(now_ms)
            self._warned = ""
        except Refused as refused:
            if self._warned != refused.complaint.code:
                self._warned = refused.complaint.code
                log.warning("this node is no member of its swarm any more: %s", refused)

    def _tell_news(self, host: Host, nursery: trio.Nursery) -> None:
        news = [record for record in self.swarm.book.records() if record.id not in self._told]
        if not news:
            return
        self._told.update(record.id for record in news)
        limiter = trio.CapacityLimiter(LIMITS.swarm.announce_at_once_max)

        async def tell(peer: PeerId) -> None:
            async with limiter:
                await self.door.tell(host, peer, news)

        for connected in host.connected():
            nursery.start_soon(tell, PeerId(connected))

    # ---- what the operator asks for

    async def invite(self, wish: InviteWish) -> tuple[Record, str]:
        """See `PrivateSwarm.invite`; the invite is on the disk when this returns."""
        made = self.swarm.invite(wish, wall_ms())
        await self.save()
        self._wake()
        return made

    async def remove(self, target: Any, reason: str) -> list[Record]:
        """See `PrivateSwarm.remove`; on the disk when this returns, and told within the moment."""
        made = self.swarm.remove(target, wall_ms(), reason)
        await self.save()
        self._wake()
        return made

    def describe(self) -> dict[str, Any]:
        """What `dim swarm show` says of a running node."""
        refused = dict(sorted(self.door.refused.items()))
        away = {short(peer): words for peer, words in self.door.turned_away_by.items()}
        return self.swarm.describe(wall_ms()) | {"running": True, "refused": refused, "turned_away_by": away}
