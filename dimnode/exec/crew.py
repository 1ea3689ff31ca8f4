"""The crew: starts workers, hands orders to them, hears their answers and draws the conclusions when one is lost.

Rule: only the order at fault pays. Whatever a model does (spin, crash, eat memory, lie on its socket) ends the order
that ran; others that were behind it in the same worker did not run and go back to their place in the queue.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import trio

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.admission import worker_bytes
from dimnode.exec.batching import Batch, share_of
from dimnode.exec.channel import BrokenFrame, unpack_body
from dimnode.exec.desk import Desk
from dimnode.exec.hiring import hire
from dimnode.exec.launch import Hello, Zygote
from dimnode.exec.ledger import Ledger, believed
from dimnode.exec.member import Member, read_traits
from dimnode.exec.orders import Status
from dimnode.exec.placement import Assign, Bounds, Pause, Start, Unload, least_used, next_step
from dimnode.exec.queue import Lane, OrderQueue, Ticket
from dimnode.exec.runtimes.choice import ALWAYS
from dimnode.exec.zygotes import Zygotes
from dimnode.limits import ExecLimits
from dimnode.posix import processes

READ_BYTES = 256 * 1024


class Crew:
    """All workers of one pool, and the zygotes they come from: one that is always there, others when first needed."""

    def __init__(
        self,
        zygotes: Sequence[Zygote],
        limits: ExecLimits,
        scratch: Path,
        workers_max: int,
        memory_bytes_max: int,
        runtime_idle_seconds: float,
        require_sandbox: bool,
        queue: OrderQueue,
        desk: Desk,
        nursery: trio.Nursery,
    ) -> None:
        self.zygotes = Zygotes(zygotes, limits, require_sandbox, self, nursery)
        self.workers_max = workers_max
        self._runtime_idle_seconds = runtime_idle_seconds
        self.require_sandbox = require_sandbox
        self._limits = limits
        self._scratch = scratch
        self._queue = queue
        self._desk = desk
        self._nursery = nursery
        self._members: dict[int, Member] = {}
        self._nap = trio.CancelScope()
        self._numbers = 0
        self.ledger = Ledger(limits, queue, memory_bytes_max)
        self.pinned: frozenset[str] = frozenset()
        self._bounds = Bounds(workers_max, limits.workers_loaded_max, memory_bytes_max, self.ledger.needs)

    @property
    def members(self) -> Collection[Member]:
        """The workers that live now."""
        return self._members.values()

    def dismiss_all(self) -> None:
        """End all workers, and the zygotes that were started here."""
        for member in list(self._members.values()):
            self._dismiss(member)
        self.zygotes.stop_own()

    def hurry(self, ticket: Ticket) -> None:
        """This order was cancelled: when it is the one that runs, look at it again at the end of the grace.

        Of a batch, only when nobody wants any of it: the others did nothing wrong.
        """
        for member in self._members.values():
            if member.flight and self._is_forlorn(member, ticket):
                grace_end = trio.current_time() + self._limits.cancel_grace_seconds
                self._set_deadline(member, min(member.deadline, grace_end))

    @staticmethod
    def _is_forlorn(member: Member, ticket: Ticket) -> bool:
        first = next(iter(member.flight.values()))
        if first is ticket and ticket.batch is None:
            return True
        mates = [entry for entry in member.flight.values() if entry.batch is first.batch]
        return ticket in mates and first.batch is not None and all(entry.cancelled for entry in mates)

    # ---- queue to workers

    def dispatch(self) -> None:
        """Hand over all that can be handed over now."""
        hello = self.zygotes.first.hello
        if hello is None or hello.failure:
            return
        now = trio.current_time()
        handed: dict[int, Member] = {}
        while self._queue.count:
            match next_step(self._queue, self._members.values(), self._bounds, self._limits, now):
                case Assign(lane, member):
                    if member.idle:
                        member.serve_from(now)
                    self._assign(member, self._queue.pop(lane), now)
                    handed[member.token] = member
                case Start(lane):
                    self._start(lane, now)
                case Unload(member):
                    self._dismiss(member)
                case Pause(member):
                    member.leaving = True
                case None:
                    break
        for member in handed.values():
            member.flush(self._nursery)

    def _assign(self, member: Member, ticket: Ticket, now: float) -> None:
        """Hand over one order, and what may share a batch with it."""
        tickets = [ticket, *self._mates(member, ticket)]
        numbers = range(self._numbers + 1, self._numbers + 1 + len(tickets))
        self._numbers += len(tickets)
        was_empty = not member.flight
        try:
            if len(tickets) == 1:
                member.hand(numbers[0], ticket, self._limits.inline_input_bytes_max)
            else:
                batch = Batch(sum(entry.rows for entry in tickets), len(tickets))
                for entry in tickets:
                    entry.batch = batch
                member.hand_together(numbers[0], tickets)
        except (RunFailed, OSError) as error:
            self._fail_unbegun(ticket, error, "a worker could not be given its rows")
            if member.lane[1] is not None:
                self._dismiss(member)  # it was started for this order alone
            return
        if member.ready and was_empty:
            self._begin(member, now)

    def _mates(self, member: Member, ticket: Ticket) -> list[Ticket]:
        """What goes into one batch with this order: nothing while its model was never run by itself."""
        if ticket.kind is None or member.mean_run_us < 0 or ticket.input_bytes > self._limits.batch_input_bytes_max:
            return []
        waiting = ticket.rows + self._queue.behind(ticket)
        free = sum(1 for other in self._members.values() if other.lane == ticket.lane and other.idle)
        return self._queue.mates(ticket, self.ledger.batches.of(ticket.lane[0]).rows(share_of(waiting, free)))

    def _begin(self, member: Member, now: float) -> None:
        """The first order of its flight, with its batch, is now what runs: its time begins."""
        first = next(iter(member.flight.values()))
        for ticket in member.flight.values():
            if ticket is first or (first.batch is not None and ticket.batch is first.batch):
                ticket.started_at = now if ticket.started_at < 0 else ticket.started_at
        wanted = not first.cancelled or not self._is_forlorn(member, first)
        seconds = first.order.timeout_seconds if wanted else self._limits.cancel_grace_seconds
        self._set_deadline(member, now + seconds)

    def _start(self, lane: Lane, now: float) -> None:
        """Ask the zygote for a worker. When that fails at once, the order that needed it fails."""
        order = self._queue.head(lane).order
        memory_bytes = worker_bytes(order, self._limits, self.ledger.memory_bytes_max)
        try:
            zygote = self.zygotes.obtain(order.runtime or ALWAYS)
            member = hire(
                zygote,
                order,
                lane,
                now,
                self._limits,
                scratch=self._scratch,
                sandbox_required=self.require_sandbox,
                memory_bytes=memory_bytes,
            )
        except (RunFailed, OSError) as error:
            return self._fail_unbegun(self._queue.pop(lane), error, "no worker could be started")
        member.pinned, member.memory_bytes = lane[0] in self.pinned, self.ledger.needs(lane)
        self._members[member.token] = member
        member.flush(self._nursery)
        starting = 0.0 if zygote.hello is not None else self._limits.zygote_start_seconds_max
        reading = order.model.file_bytes / self._limits.load_bytes_per_second_min if order.model is not None else 0.0
        self._set_deadline(member, now + starting + self._limits.worker_start_seconds_max + reading)
        self._nursery.start_soon(self._listen, member)
        return None

    def _fail_unbegun(self, ticket: Ticket, error: RunFailed | OSError, what: str) -> None:
        """The order's own fault, or this system's, which has no process or file left."""
        self._queue.landed(ticket, 0.0)
        if isinstance(error, RunFailed):
            self._desk.fail_soon(ticket, "failed", error.complaint.code, error.complaint.what)
        else:
            self._desk.fail_soon(ticket, "crashed", orders.NOT_STARTED, f"{what}: {error}")

    def _dismiss(self, member: Member) -> None:
        """End a worker now, without waiting for it; its place is free at once."""
        if self._members.pop(member.token, None) is not None:
            member.zygote.end_worker(member.token)
            member.hang_up()

    # ---- workers to outcomes

    async def _listen(self, member: Member) -> None:
        try:
            while not member.gone:
                await trio.lowlevel.wait_readable(member.channel.fileno())
                if member.gone:
                    return  # dismissed by another task between the wake-up and now
                try:
                    chunk = member.channel.recv(READ_BYTES)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    chunk = b""
                if not chunk:
                    await self._mourn(member)
                    return
                for body in member.frames.feed(chunk):
                    if not member.gone:
                        self._hear(member, unpack_body(body))
                self.dispatch()
        except trio.ClosedResourceError:
            pass  # we hung up ourselves
        except BrokenFrame as broken:
            self._lose(member, "crashed", orders.BROKE_PROTOCOL, f"the worker broke its protocol: {broken}")

    def _hear(self, member: Member, fields: list[object]) -> None:
        now = trio.current_time()
        if not member.ready:
            match fields:
                case [0, "ready", str(walls), dict(traits)]:
                    member.traits = read_traits(traits)
                    member.ready = True
                    self.ledger.became_ready(member, now)
                    member.serve_from(now)
                    member.sandbox = walls
                case [0, "refused", str(walls)]:
                    return self._lose(
                        member, "failed", orders.NO_SANDBOX, f"a sandbox is required and the worker got: {walls}"
                    )
                case _:
                    raise BrokenFrame("not a greeting")
        else:
            result = member.result(fields, self._limits.output_bytes_max)
            # A worker answers in the order in which it was asked.
            if next(iter(member.flight), None) != result.number:
                raise BrokenFrame("answer to nothing")
            ticket, result = member.land(result.number), believed(member, result, now)
            if ticket.order.op not in ("load", "measure"):
                member.ran(result.run_us)
            member.zygote.restarts = 0
            self.ledger.landed(member, ticket, result, now)
            self._desk.answered(ticket, result, member.sandbox, member.traits)
            # After a cabinet's rows it serves nobody else; after a failed allocation its heap is in pieces.
            if member.lane[1] is not None or result.status == "memory":
                return self._send_back(member)
        if member.flight:
            self._begin(member, now)
        else:
            member.leaving = False
            member.idle_since = now
            idle = math.inf if member.pinned else self._limits.worker_idle_seconds_max
            self._set_deadline(member, now + idle)
        return None

    async def _mourn(self, member: Member) -> None:
        """The worker is dead and we did not kill it: ask the zygote how, then blame the order that ran.

        It is given nothing more meanwhile: an order that came later has nothing to do with its death.
        """
        member.leaving = True
        with trio.move_on_after(self._limits.exit_report_seconds_max if member.flight else 0.0):
            await member.exited.wait()
        if not member.gone:
            self._lose(member, *_how_it_died(member.wait_status))

    def _lose(self, member: Member, status: Status, code: str, message: str) -> None:
        """The order that ran ends like this; the others that were handed over go back to the queue.

        Of a batch nobody knows who is at fault: each of it goes back, to be run alone. Then it will be seen.
        """
        first = next(iter(member.flight.values()), None)
        if first is not None and first.batch is not None and first.batch.size > 1 and not first.cancelled:
            self.ledger.lost_together(first, trio.current_time())
            for ticket in member.flight.values():
                if ticket.batch is first.batch:
                    ticket.kind = None
        elif first is not None:
            ticket = member.land(next(iter(member.flight)))
            now = trio.current_time()
            used = self.ledger.lost(member, ticket, now)
            run_us = int((now - ticket.started_at) * 1e6) if ticket.started_at >= 0 else 0
            self._desk.failed(ticket, status, code, message, run_us, member.sandbox, used)
        self._send_back(member)
        self.dispatch()

    def _send_back(self, member: Member) -> None:
        self._dismiss(member)
        for ticket in member.flight.values():
            if ticket.cancelled:
                self._queue.landed(ticket, 0.0)
            else:
                self._queue.push(ticket)
        member.flight.clear()

    # ---- memory

    def unload(self, model: str) -> None:
        """End the idle workers that hold this model."""
        for member in [member for member in self._members.values() if member.lane[0] == model and member.idle]:
            self._dismiss(member)

    def pin(self, models: frozenset[str]) -> None:
        """These models stay loaded once they are."""
        self.pinned = models
        for member in self._members.values():
            member.pinned = member.lane[0] in models
            if member.idle:
                idle = math.inf if member.pinned else self._limits.worker_idle_seconds_max
                self._set_deadline(member, member.idle_since + idle)

    async def keep_memory(self) -> None:
        """Once a second: measure the workers; while they or others press the machine, unload what was used least.

        Runtimes that had no worker for long are ended with their imports.
        """
        while True:
            await trio.sleep(self._limits.memory_look_seconds)
            now = trio.current_time()
            for member in list(self._members.values()):
                self.ledger.measure(member, now)
            while self._members and self.ledger.is_pressed(sum(m.memory_bytes for m in self._members.values())):
                spare = least_used(self._members.values())
                if spare is None:
                    break
                self._dismiss(spare)
            await self.zygotes.retire(self._runtime_idle_seconds, now)
            if self._queue.count:
                self.dispatch()

    # ---- time

    def _set_deadline(self, member: Member, deadline: float) -> None:
        member.deadline = deadline
        self.wake_before(deadline)

    def wake_before(self, deadline: float) -> None:
        """Only an earlier deadline has to wake the keeper; it looks again whenever it wakes."""
        if deadline < self._nap.deadline:
            self._nap.deadline = deadline

    async def keep_deadlines(self) -> None:
        """Sleep until the earliest deadline of any worker, act, repeat. Wakes about once per timeout, not per order."""
        while True:
            earliest = min((member.deadline for member in self._members.values()), default=math.inf)
            earliest = min(earliest, self._queue.next_deadline())
            with trio.CancelScope(deadline=earliest) as self._nap:
                await trio.sleep_forever()
            now = trio.current_time()
            for member in list(self._members.values()):
                # Looked at one by one: the end of one may have given another, which was idle for long, its next order.
                if member.deadline <= now and not member.gone:
                    self._expire(member)
            for ticket in self._queue.overdue(now):
                self._desk.failed(ticket, "refused", orders.TOO_LATE, "it waited here until nobody wanted its answer")

    def _expire(self, member: Member) -> None:
        if not member.ready:
            seconds = self._limits.worker_start_seconds_max
            self._lose(member, "timeout", orders.NOT_STARTED, f"the model was not loaded within {seconds:g} s")
        elif member.flight:
            seconds = next(iter(member.flight.values())).order.timeout_seconds
            self._lose(member, "timeout", orders.TIMED_OUT, f"did not end within {seconds:g} s")
        else:
            self._dismiss(member)

    # ---- the zygotes

    def has_workers_of(self, zygote: Zygote) -> bool:
        """See `Owner`."""
        return any(member.zygote is zygote for member in self._members.values())

    def zygote_died(self, zygote: Zygote) -> None:
        """See `Owner`. What its workers held goes back to the queue."""
        for member in [member for member in self._members.values() if member.zygote is zygote]:
            self._send_back(member)

    def hear_of_worker(self, report: list[object]) -> None:
        """See `Owner`."""
        match report:
            case ["started", int(token), int(pid)] if token in self._members:
                self._know_process(self._members[token], pid)
            case ["exited", int(token), int(status), int(cpu_us), int(peak_bytes)] if token in self._members:
                self._members[token].wait_status = status
                self._members[token].ended_with = cpu_us, peak_bytes
                self._members[token].exited.set()
            case ["unborn", int(token), str(reason)] if token in self._members:
                what = f"no worker could be started: {reason}"
                self._lose(self._members[token], "crashed", orders.NOT_STARTED, what)

    def _know_process(self, member: Member, pid: int) -> None:
        member.pid = pid
        if member.ready:  # it was faster than its zygote's report: what it takes could not be measured till now
            self.ledger.measure(member, trio.current_time())

    def zygote_knows(self, zygote: Zygote, hello: Hello) -> None:
        """See `Owner`. When nothing can come from it, what waits for it fails with the reason."""
        self._desk.runtimes[zygote.runtime] = hello.runtime
        fault = self.zygotes.fault_of(zygote.runtime)
        if fault is not None:
            self.zygote_died(zygote)
            first = zygote is self.zygotes.first
            for lane in self._queue.lanes(self._queue.count):
                if first or self._queue.head(lane).order.runtime == zygote.runtime:
                    self._fail_lane(lane, *fault)
        self.dispatch()

    def _fail_lane(self, lane: Lane, code: str, message: str) -> None:
        while lane in self._queue:
            ticket = self._queue.pop(lane)
            self._queue.landed(ticket, 0.0)
            self._desk.fail_soon(ticket, "crashed", code, message)


def _how_it_died(wait_status: int | None) -> tuple[Status, str, str]:
    """Status, code and message from what `waitpid` said; None: nobody said anything."""
    if wait_status is None:
        return "crashed", orders.CRASHED, "the worker hung up"
    number, name = processes.how_it_ended(wait_status)
    if not name:
        return "crashed", orders.CRASHED, f"the worker ended by itself with code {number}"
    if name == "SIGXCPU":
        return "timeout", orders.TIMED_OUT, "used more processor time than it may"
    hint = ", perhaps because the machine ran out of memory" if name == "SIGKILL" else ""
    return "crashed", orders.CRASHED, f"the worker was ended by {name}{hint}"
