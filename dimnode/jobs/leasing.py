"""Which leases are out, which tasks wait for a peer with room, and when either has to change.

Rule: a task is leased to at most one peer at a time, under an epoch that only grows; `find` is the one place that says
whether a lease is current. Pure: no I/O, no clock.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from dimnode.consensus.selection import Need
from dimnode.jobs.author import Author
from dimnode.jobs.deadlines import Deadlines, earliest
from dimnode.jobs.effects import Append, Effect, Note, Send
from dimnode.jobs.events import Key, Now
from dimnode.jobs.job import Job, Task
from dimnode.jobs.roster import Roster
from dimnode.jobs.states import TaskMove, TaskState
from dimnode.jobs.waiting import WaitingTasks
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, RecordId


class Leased(NamedTuple):
    """A task whose lease is out."""

    job: Job
    task: Task


class Leasing:
    """The leases of one owner. `given_up` collects jobs of which a task has failed: their pattern must look again."""

    def __init__(self, author: Author, limits: Limits, roster: Roster) -> None:
        self._author, self._limits, self._roster = author, limits, roster
        self._waiting = WaitingTasks()
        self._at: dict[PeerId, dict[Key, Leased]] = {}
        self._stranded: dict[Key, PeerId] = {}
        self._ends: Deadlines[tuple[PeerId, Key]] = Deadlines()
        self._busy_ends: Deadlines[PeerId] = Deadlines()
        self._late: OrderedDict[RecordId, tuple[PeerId, Key]] = OrderedDict()
        self._patience: float | None = None
        self.given_up: list[Job] = []

    # ---- questions

    def find(self, peer: PeerId, key: Key) -> Leased | None:
        """The task, if this is its current lease and this peer its executor."""
        leases = self._at.get(peer)
        return None if leases is None else leases.get(key)

    def at(self, peer: PeerId) -> list[Leased]:
        """All leases that are out with a peer."""
        return list(self._at.get(peer, {}).values())

    def sizes(self) -> dict[str, int]:
        """How much is held here: all zero when no job is open."""
        return {
            "leases": sum(map(len, self._at.values())),
            "waiting": len(self._waiting),
            "stranded": len(self._stranded),
            "lease deadlines": len(self._ends),
        }

    def due(self) -> float | None:
        """When this wants to be looked at again."""
        concerned = self._patience is not None and (self._waiting or self._stranded)
        return earliest(self._ends.due(), self._busy_ends.due(), self._patience if concerned else None)

    # ---- giving out

    def place_first(self, tasks: list[Task], job: Job, now: Now) -> list[Effect]:
        """Add tasks to a job and place them; those that few peers could take come first, so that peers can differ."""
        for task in tasks:
            job.tasks[task.number] = task
        if len(tasks) > 1:
            tasks = sorted(tasks, key=lambda task: self._roster.usable(job.need(task), now))
        return [effect for task in tasks for effect in self.place(job, task, now)]

    def place(self, job: Job, task: Task, now: Now) -> list[Effect]:
        """Lease a waiting task to a peer with room, or let it wait; give up when nobody could ever take it."""
        need = job.need(task)
        avoided = job.avoided(task)
        peer = self._roster.pick(_without(need, avoided), now) if avoided else None
        if peer is None:
            peer = self._roster.pick(need, now)
        if peer is not None:
            return self._lease(job, task, peer, now)
        if self._hopeless(job, task) and not self._roster.usable(need, now) and self._patience is None:
            self.give_up(job, task)
            return []
        self._waiting.add(need, job, task)
        return []

    def pump(self, now: Now) -> list[Effect]:
        """Lease waiting tasks to peers that have room now, one from each line in turn."""
        effects: list[Effect] = []
        served = len(self._waiting) > 0
        while served:
            served = False
            for need in self._waiting.needs():
                peer = self._roster.pick(need, now)
                if peer is None or (entry := self._waiting.pop(need)) is None:
                    continue
                served = True
                job, task = entry
                if job.need(task) == need:
                    effects += self._lease(job, task, peer, now)
                else:  # another replica went to a peer of this need while this one waited
                    effects += self.place(job, task, now)
        return effects

    def _hopeless(self, job: Job, task: Task) -> bool:
        """Waiting makes no sense when those who are here have failed it, or when a quorum can be had without it."""
        return bool(task.failed_at) or job.can_do_without(task)

    def _lease(self, job: Job, task: Task, peer: PeerId, now: Now) -> list[Effect]:
        if not task.inputs:
            task.inputs = job.inputs_of(task)
        self._waiting.leave(job, task)
        task.move(TaskMove.LEASE)
        task.epoch += 1
        task.attempts += 1
        task.peer = peer
        template = job.template(task)
        task.context = self._roster.context(template["op"], template.get("model", b""))
        key = job.key(task)
        body = {
            "job": job.id,
            "task": task.number,
            "epoch": task.epoch,
            "executor": peer,
            "ttl_ms": self._limits.jobs.lease_ttl_ms,
            "inputs": [opening.ref for opening in task.inputs],
        }
        task.lease, payload = self._author.compose("lease", body, now)
        job.held.append(task.lease)
        self._out(job, task, peer, now)
        self._roster.fetch_begins(key, peer, template.get("model", b""))
        return [
            Append("lease", task.lease, key, payload),
            Send(peer, "lease", key, (task.lease, job.id), task.inputs),
            Note(job.id, "leased", task.number, task.epoch, peer),
        ]

    def _out(self, job: Job, task: Task, peer: PeerId, now: Now) -> None:
        seat = self._roster.seat(peer)
        seat.inflight += 1
        self._at.setdefault(peer, {})[job.key(task)] = Leased(job, task)
        self.begin(job, task, now)
        if not seat.up:
            self._stranded[job.key(task)] = peer

    # ---- keeping and taking back

    def begin(self, job: Job, task: Task, now: Now) -> None:
        """The lease runs for a time to live, and may be renewed for as long as a run may take.

        Not longer, and not for more than half of what is left of the job: words cost nothing, and whoever only says
        that it is at it would hold the task until the job's deadline, though others could take it.
        """
        ttl_seconds = self._limits.jobs.lease_ttl_ms / 1000
        half_seconds = max(ttl_seconds, (job.deadline - now.mono) / 2)
        task.lease_until = now.mono + min(self._limits.jobs.lease_seconds_max, half_seconds)
        self.renew(job, task, now)

    def renew(self, job: Job, task: Task, now: Now) -> None:
        """The lease runs for another time to live, within its bound."""
        assert task.peer is not None
        ttl_seconds = self._limits.jobs.lease_ttl_ms / 1000
        self._ends.set((task.peer, job.key(task)), min(now.mono + ttl_seconds, task.lease_until))

    def others_can(self, job: Job, task: Task, now: Now) -> bool:
        """Somebody but the peer that has the task could take it."""
        assert task.peer is not None
        return self._roster.usable(_without(job.need(task), {task.peer}), now) > 0

    def end(self, job: Job, task: Task) -> None:
        """The lease is no longer out: it was answered, refused or lost."""
        peer, key = task.peer, job.key(task)
        assert peer is not None
        leases = self._at[peer]
        del leases[key]
        if not leases:
            del self._at[peer]
        self._ends.drop((peer, key))
        self._stranded.pop(key, None)
        self._roster.fetch_over(key)
        self._roster.seat(peer).inflight -= 1

    def abandon(self, job: Job, task: Task) -> None:
        """End a lease that may still be answered: late answers to it are kept once, unaccepted."""
        assert task.lease is not None and task.peer is not None
        self.end(job, task)
        if len(job.abandoned) < self._limits.jobs.abandoned_leases_listed_max:
            job.abandoned.append(task.lease)
        self._late[task.lease] = (task.peer, job.key(task))
        if len(self._late) > self._limits.jobs.late_leases_remembered_max:
            self._late.popitem(last=False)

    def take_late(self, lease: RecordId, peer: PeerId, key: Key) -> bool:
        """True once for each lease of ours that was abandoned, for its own executor under its own key.

        A lease's id is no secret, and its one place is not for strangers, nor for answers to other jobs.
        """
        if self._late.get(lease) != (peer, key):
            return False
        del self._late[lease]
        return True

    def give_up(self, job: Job, task: Task) -> None:
        """Nobody will do this task."""
        if not task.code:
            task.code, task.reason = "E-jobs-03", "nobody is left who could take this task"
        self._waiting.leave(job, task)
        task.move(TaskMove.GIVE_UP)
        self.given_up.append(job)
        self.line_up(job)

    def line_up(self, job: Job) -> None:
        """A task has left its peer, which may now do for another replica or site: those that wait change lines."""
        if job.quorum or job.pattern == "collaborative":
            for task in job.tasks.values():
                if task.state is TaskState.WAITING:
                    self._waiting.add(job.need(task), job, task)

    def call_back(self, job: Job) -> list[Effect]:
        """Cancel every lease of a job and take its tasks out of the lines; they give up."""
        effects: list[Effect] = []
        for task in job.tasks.values():
            if task.state is TaskState.LEASED:
                assert task.peer is not None
                effects.append(Send(task.peer, "cancel", job.key(task)))
                self.abandon(job, task)
                task.move(TaskMove.GIVE_UP)
            elif task.state is TaskState.WAITING:
                self._waiting.leave(job, task)
                task.move(TaskMove.GIVE_UP)
        return effects

    # ---- links and time

    def resume(self, peer: PeerId) -> list[Effect]:
        """A link stands: ask what became of every lease that is out there."""
        for key in self._at.get(peer, ()):
            self._stranded.pop(key, None)
        return [Send(peer, "resume", key) for key in self._at.get(peer, ())]

    def strand(self, peer: PeerId, now: Now) -> list[Leased]:
        """The link to a peer is gone: its leases that somebody else could take; the others wait for the peer."""
        self._stranded.update(dict.fromkeys(self._at.get(peer, ()), peer))
        return self._movable(tuple(self._at.get(peer, ())), now)

    def movable(self, now: Now) -> list[Leased]:
        """Stranded leases that somebody could take by now, unless we have just restarted and peers may yet return."""
        if not self._stranded or self._patience is not None:
            return []
        return self._movable(tuple(self._stranded), now)

    def _movable(self, keys: Iterable[Key], now: Now) -> list[Leased]:
        stranded = [self._at[self._stranded[key]][key] for key in keys]
        return [leased for leased in stranded if self._roster.usable(leased.job.need(leased.task), now)]

    def set_busy(self, peer: PeerId, retry_after_ms: int, now: Now) -> None:
        """The peer has no room: ask it again later, and wake up for that."""
        self._busy_ends.set(peer, self._roster.busy(peer, retry_after_ms, now))

    def expired(self, now: Now) -> list[Leased]:
        """Leases whose time to live is over. Their deadlines are gone: end or renew each of them."""
        self._busy_ends.pop(now.mono)
        return [self._at[peer][key] for peer, key in self._ends.pop(now.mono)]

    # ---- after a restart

    def adopt(self, job: Job, task: Task, now: Now) -> None:
        """Take over a lease from the journal."""
        assert task.peer is not None
        self._out(job, task, task.peer, now)

    def be_patient(self, now: Now) -> None:
        """Peers may need a moment to link up again: until then no task is hopeless and no lease moves."""
        self._patience = now.mono + self._limits.jobs.restart_patience_seconds

    def look_again(self, now: Now) -> list[Effect]:
        """When patience has ended: whoever still waits is leased, or given up."""
        if self._patience is None or now.mono < self._patience:
            return []
        self._patience = None
        return [effect for job, task in self._waiting.everyone() for effect in self.place(job, task, now)]


def _without(need: Need, peers: set[PeerId]) -> Need:
    return replace(need, exclude=need.exclude | peers)
