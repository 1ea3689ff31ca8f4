"""THE loop: events in, one commit, effects out.

Rule: journal before network. A batch of events is handled, what must be remembered is sealed and committed in one
transaction, and only then does anything leave. A failed commit ends the node: the engine has moved on.
"""

import random
import time
from collections.abc import Callable, Iterable

import trio

from dimnode.jobs.effects import Append, Effect, Forget, Note, Refuse, Remember, Reply
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import Event, Now, TimePassed
from dimnode.limits import Limits
from dimnode.node.diary import Diary
from dimnode.node.inbox import Inbox
from dimnode.node.rows import lazy_rows, rows_of, seal_into
from dimnode.records.envelope import SigningKey
from dimnode.store.journal import Journal, Rows, merge
from dimnode.store.vault import Vault

Perform = Callable[[Effect], None]
Fault = Callable[[Rows], None]


class Loop:
    """One writer of job state. `passes` counts batches, for the benchmark and a test."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        journal: Journal,
        vault: Vault,
        key: SigningKey,
        perform: Perform,
        fault: Fault,
        limits: Limits,
    ) -> None:
        self._engine, self._inbox, self._journal, self._vault = engine, inbox, journal, vault
        self._key, self._perform, self._fault, self._limits = key, perform, fault, limits
        self._commit_by: float | None = None
        self.kept_manifests: Callable[[Append], Rows] = lambda _: {}
        self.concluded: Callable[[Append], None] = lambda _: None
        self.diary = Diary()
        self._breathe_at = 0.0
        self.passes = 0
        self.events = 0
        self.lateness_ms_max = 0.0

    async def run(self) -> None:
        """Until cancelled. What was committed is performed before a cancel takes effect."""
        while True:
            batch = await self._inbox.drain(self._next_due())
            now = Now(trio.current_time(), time.time_ns() // 1_000_000)
            due = self._engine.due()
            if due is not None and due <= now.mono:
                batch.append(TimePassed())
            if batch:
                await self._pass(batch, now)
            elif self._commit_by is not None and self._commit_by <= now.mono:
                await self._commit({})
            else:
                await trio.lowlevel.checkpoint()

    async def start(self, effects: Iterable[Effect]) -> None:
        """Perform what a restart leaves to do."""
        await self._settle(list(effects))

    async def _pass(self, batch: list[Event], now: Now) -> None:
        self._breathe_at = time.perf_counter() + self._limits.jobs.loop_hold_seconds_max
        self.passes += 1
        self.events += len(batch)
        effects: list[Effect] = []
        handle = self._engine.handle
        for event in batch:
            effects += handle(event, now)
            if time.perf_counter() >= self._breathe_at:
                await self._breathe()
        await self._settle(effects)

    async def _breathe(self) -> None:
        """Let others run. Called when this pass has kept them waiting for long: a batch may take many milliseconds.

        Not cancelled there, so that a pass is whole. What others see meanwhile is what they see while it commits.
        """
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._breathe_at = time.perf_counter() + self._limits.jobs.loop_hold_seconds_max

    async def _settle(self, effects: list[Effect]) -> None:
        """Commit the binding appends of a batch, then perform the rest: what people wait for first, else in order."""
        rows: Rows = {}
        told: list[Effect] = []
        rest: list[Effect] = []
        verdicts: list[Append] = []
        lazy: list[Rows] = []
        binding = False
        for effect in effects:
            if time.perf_counter() >= self._breathe_at:
                await self._breathe()
            match effect:
                case Append():
                    envelope = seal_into(effect, self._key, self._vault)
                    found = rows_of(effect, envelope, self._vault)
                    if effect.kind == "spec":
                        merge(found, self.kept_manifests(effect))
                    elif effect.kind == "verdict":
                        verdicts.append(effect)
                    if effect.lazy:
                        lazy.append(found)
                    else:
                        merge(rows, found)
                        binding = True
                case Forget() | Remember():
                    lazy.append(lazy_rows(effect))
                case Note() | Reply() | Refuse():
                    told.append(effect)
                case _:
                    rest.append(effect)
        for found in lazy:  # in one go: the journal must not write half of what belongs together
            self._journal.later(found)
        if binding or self._journal.lazy_rows >= self._limits.store.lazy_rows_max:
            await self._commit(rows)
            self._fault(rows)
        else:
            await trio.lowlevel.checkpoint()
        await self._perform_all(told)
        if verdicts:  # who waits for one of them is answered before this node turns to its peers
            await _let_woken_run()
        await self._perform_all(rest)
        for verdict in verdicts:
            self.concluded(verdict)
        if len(self.diary):
            await _let_woken_run()  # frames leave when their writers run
            self.diary.write()

    async def _perform_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._perform(effect)
            if time.perf_counter() >= self._breathe_at:
                await self._breathe()

    async def _commit(self, rows: Rows) -> None:
        with trio.CancelScope(shield=True):
            await self._journal.commit(rows)
        self._commit_by = None

    def _next_due(self) -> float | None:
        # Others too leave lazy rows in the journal, and their commits take along ours: only the journal knows.
        if not self._journal.lazy_rows:
            self._commit_by = None
        elif self._commit_by is None:
            self._commit_by = trio.current_time() + self._limits.store.lazy_commit_seconds_max
        moments = [moment for moment in (self._engine.due(), self._commit_by) if moment is not None]
        return min(moments, default=None)


async def _let_woken_run() -> None:
    """Until every task that was woken has run. Twice, because the order within a pass of trio is random."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()


def engine_rng() -> random.Random:
    """The engine's randomness: real in a node, seeded in the simulator."""
    return random.Random(random.SystemRandom().getrandbits(64))
