"""The life of every job on this node: `handle(event, now) -> effects`.

Rule: this is the only writer of job state, and it performs nothing itself. The same engine owns jobs and executes
leases; a node that gives itself a task sends itself the same frames as anybody else.
Pure: no I/O, no clock, no secret; randomness comes in as an argument. The simulator runs many of these in one process.
"""

import random
from collections.abc import Callable
from typing import assert_never

from dimnode.consensus.standing import Standing
from dimnode.jobs.effects import Effect
from dimnode.jobs.events import (
    AdvertHeard,
    AnswerReceived,
    BadRecord,
    CancelAsked,
    Combined,
    Compared,
    Event,
    LeaseReceived,
    Now,
    PeerDown,
    PeerUp,
    Ruled,
    RulingReceived,
    RunFinished,
    RunRefused,
    Submitted,
    TimePassed,
    Told,
)
from dimnode.jobs.executor import Executor
from dimnode.jobs.owner import Owner
from dimnode.jobs.roster import Roster
from dimnode.limits import LIMITS, Limits
from dimnode.records.ids import PeerId, RecordId

_TO_EXECUTOR = frozenset({"ack", "resume", "cancel"})


class Engine:
    """Owner and executor of one node, over one roster of peers."""

    def __init__(
        self,
        me: PeerId,
        net: RecordId,
        rng: random.Random,
        limits: Limits = LIMITS,
        standing: Standing | None = None,
    ) -> None:
        self.me = me
        self.roster = Roster(me, limits, standing or Standing(limits.standing), rng)
        self.owner = Owner(me, net, limits, self.roster)
        self.executor = Executor(me, net, limits)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """What follows from an event. Never fails on anything that a peer or client sent: that was checked before."""
        match event:
            case Submitted():
                return self.owner.submitted(event, now)
            case LeaseReceived():
                return self.executor.leased(event, now)
            case RunFinished():
                return self.executor.finished(event, now)
            case AnswerReceived():
                return self.owner.answered(event, now)
            case Told():
                return self._told(event, now)
            case Compared():
                return self.owner.compared(event, now)
            case Combined():
                return self.owner.combined(event, now)
            case Ruled():
                return self.executor.ruled(event, now)
            case RulingReceived():
                return self.owner.ruled_out(event, now)
            case RunRefused():
                return self.executor.run_refused(event, now)
            case BadRecord():
                return self.owner.bad_record(event, now)
            case CancelAsked():
                return self.owner.cancel(event, now)
            case PeerUp(peer):
                self.roster.link(peer, True)
                return self.owner.peer_up(peer, now)
            case PeerDown(peer):
                self.roster.link(peer, False)
                return self.owner.peer_down(peer, now)
            case AdvertHeard():
                self.roster.hear(event.peer, event.models, event.cabinets, event.slots)
                return self.owner.pump(now)
            case TimePassed():
                return self.owner.time_passed(now) + self.executor.time_passed(now)
            case _:
                assert_never(event)

    def due(self) -> float | None:
        """When `TimePassed` is wanted next (trio clock), or None."""
        moments = [moment for moment in (self.owner.due(), self.executor.due()) if moment is not None]
        return min(moments, default=None)

    def _told(self, event: Told, now: Now) -> list[Effect]:
        if event.what in _TO_EXECUTOR:
            return self.executor.told(event, now)
        if event.what == "refused":  # said by an executor to an owner, or by an owner about a bad record
            return self.owner.told(event, now) or self.executor.told(event, now)
        return self.owner.told(event, now)


Handle = Callable[[Event, Now], list[Effect]]
