"""The life of every job on this node: `handle(event, now) -> effects`.

Rule: this is the only writer of job state, and it performs nothing itself. The same engine owns jobs and executes
leases; a node that gives itself a task sends itself the same frames as anybody else.
Pure: no I/O, no clock, no secret; randomness comes in as an argument. The simulator runs many of these in one process.
"""

import random
from collections.abc import Collection, Sequence
from typing import assert_never

from dimnode.consensus.standing import Standing
from dimnode.jobs.author import Author
from dimnode.jobs.deadlines import earliest
from dimnode.jobs.effects import Effect
from dimnode.jobs.events import (
    AdvertHeard,
    AnswerReceived,
    BadRecord,
    CancelAsked,
    Combined,
    Compared,
    Event,
    Key,
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
from dimnode.jobs.replay import Held, JournalRow, held_by, kept_works, open_jobs
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
        self._limits = limits
        author = Author(me, net)
        self.roster = Roster(me, limits, standing or Standing(limits.standing), rng)
        self.owner = Owner(author, limits, self.roster)
        self.executor = Executor(author, limits)

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
                return self.owner.deciding.compared(event, now)
            case Combined():
                return self.owner.deciding.combined(event, now)
            case Ruled():
                return self.executor.ruled(event, now)
            case RulingReceived():
                return self.owner.ruled_out(event, now)
            case RunRefused():
                return self.executor.run_refused(event)
            case BadRecord():
                return self.owner.bad_record(event, now)
            case CancelAsked():
                return self.owner.cancel(event, now)
            case PeerUp(peer):
                self.roster.link(peer, True)
                return self.owner.peer_up(peer, now) + self.executor.peer_up(peer)
            case PeerDown(peer):
                self.roster.link(peer, False)
                return self.owner.peer_down(peer, now)
            case AdvertHeard():
                self.roster.hear(event)
                return self.owner.offers_changed(now)
            case TimePassed():
                return self.owner.time_passed(now) + self.executor.time_passed(now)
            case _:
                assert_never(event)

    def restore(self, rows: Sequence[JournalRow], forgotten: Collection[Key], now: Now) -> tuple[list[Effect], Held]:
        """Take over what the journal knows, once, on a new engine before any event.

        `rows` are all rows that may matter, in the order of commits; `forgotten` the keys of `Forget` effects. First
        load `Held` into memory, each record and blob as often as it is named, then perform the effects like those of
        any batch. Jobs that are over are not restored: ask the journal for their nonces before `Submitted`.
        """
        jobs = open_jobs(rows, self.me, forgotten, self._limits, now)
        works = kept_works(rows, self.me, forgotten, self._limits, now)
        self.owner.restore(jobs, now)
        for work, keep_seconds in works:
            self.executor.adopt(work, keep_seconds, now)
        held = held_by(jobs, [work for work, _ in works])
        # No link to ourselves will ever come up, so what peers will ask and say then is asked and said now.
        return self.owner.go_on(now) + self.executor.peer_up(self.me), held

    def due(self) -> float | None:
        """When `TimePassed` is wanted next (trio clock), or None."""
        return earliest(self.owner.due(), self.executor.due())

    def sizes(self) -> dict[str, int]:
        """How much the engine holds; all zero when every job is over and every answer acknowledged."""
        return {**self.owner.sizes(), **self.executor.sizes()}

    def _told(self, event: Told, now: Now) -> list[Effect]:
        # "refused" is said by an executor about our lease, and by an owner about our answer: who we are to each
        # other in this lease says which.
        if event.what in _TO_EXECUTOR or (event.what == "refused" and not self.owner.expects(event.peer, event.key)):
            return self.executor.told(event)
        return self.owner.told(event, now)
