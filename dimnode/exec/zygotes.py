"""The zygotes of one pool: one that is always there, those of other runtimes from when something first needs them.

Rule: each is listened to by one task, and what it says of workers goes to whoever has them. One that dies is started
again a few times, counted anew at each result; one that was only asked what it can is ended when it has said so, and
one that nothing came from for a while is ended too: torch takes 220 MB of a node that needs it once a week.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import trio

from dimnode.exec import orders
from dimnode.exec.channel import unpack_body
from dimnode.exec.launch import Hello, Zygote, hello_from
from dimnode.exec.runtimes.choice import ALWAYS
from dimnode.limits import ExecLimits

READ_BYTES = 256 * 1024


class Owner(Protocol):
    """Whoever has the workers."""

    def zygote_knows(self, zygote: Zygote, hello: Hello) -> None:
        """It said what it can, or that it cannot."""

    def zygote_died(self, zygote: Zygote) -> None:
        """And all its workers with it."""

    def hear_of_worker(self, report: list[object]) -> None:
        """Started, exited or unborn."""

    def has_workers_of(self, zygote: Zygote) -> bool:
        """Whether ending it would end somebody's work."""


class Zygotes:
    """By runtime."""

    def __init__(
        self, lent: Sequence[Zygote], limits: ExecLimits, require_sandbox: bool, owner: Owner, nursery: trio.Nursery
    ) -> None:
        self._all = {zygote.runtime: zygote for zygote in lent}
        self.first = self._all[ALWAYS]
        for zygote in lent:
            zygote.tokens = self.first.tokens  # a token names one worker of the whole pool
        self.first_known = trio.Event()
        self._lent = frozenset(self._all)
        self._limits, self._require_sandbox = limits, require_sandbox
        self._owner, self._nursery = owner, nursery
        self._said: dict[str, Hello] = {}
        self._unused_since: dict[str, float] = {}
        self._news = trio.Event()

    def __iter__(self) -> Iterator[Zygote]:
        return iter(self._all.values())

    def said(self, runtime: str) -> Hello | None:
        """What it said last, also when it is ended by now. None: it was not asked yet, or it is starting."""
        zygote = self._all.get(runtime)
        return zygote.hello if zygote is not None else self._said.get(runtime)

    def obtain(self, runtime: str) -> Zygote:
        """The zygote of a runtime, started now when there is none."""
        if runtime not in self._all:
            self._all[runtime] = Zygote(self._limits, runtime, self.first.tokens, self.first.devices)
            self._nursery.start_soon(self._follow, self._all[runtime])
        return self._all[runtime]

    def follow_all(self) -> None:
        """Start to listen to those that are there already."""
        for zygote in list(self._all.values()):
            self._nursery.start_soon(self._follow, zygote)

    def stop_own(self) -> None:
        """End those that were started here."""
        for runtime, zygote in self._all.items():
            if runtime not in self._lent:
                zygote.stop()

    async def prove(self, runtimes: Sequence[str]) -> None:
        """Have each of them say what it can. What was started for that alone is ended again: torch takes 220 MB."""
        started = [runtime for runtime in runtimes if runtime not in self._said and runtime not in self._all]
        for runtime in started:
            self.obtain(runtime)
        # They share the cores for their imports.
        with trio.move_on_after(self._limits.zygote_start_seconds_max * max(1, len(started))):
            while not self._said.keys() >= set(runtimes):
                await self._news.wait()
        for runtime in started:
            if runtime in self._said and self._is_unused(runtime):
                await self._end(runtime)

    async def retire(self, idle_seconds: float, now: float) -> None:
        """End those that were started here and had no worker for so long. Whoever needs one has it started again."""
        unused = [runtime for runtime in self._all if runtime not in self._lent and self._is_unused(runtime)]
        self._unused_since = {runtime: self._unused_since.get(runtime, now) for runtime in unused}
        for runtime, since in list(self._unused_since.items()):
            if now - since >= idle_seconds and self._is_unused(runtime):
                del self._unused_since[runtime]
                await self._end(runtime)

    def _is_unused(self, runtime: str) -> bool:
        """It is there, said what it can, and no worker of it lives."""
        zygote = self._all.get(runtime)
        return zygote is not None and zygote.hello is not None and not self._owner.has_workers_of(zygote)

    async def _end(self, runtime: str) -> None:
        zygote = self._all.pop(runtime)
        trio.lowlevel.notify_closing(zygote.channel.fileno())
        await trio.to_thread.run_sync(zygote.stop)

    def fault_of(self, runtime: str) -> tuple[str, str] | None:
        """Code and message when nothing can be run by what comes from this zygote; None also while it starts."""
        hello = self.said(runtime)
        if hello is None:
            return None
        if hello.failure:
            return hello.code, f"no worker can be started: {hello.failure}"
        if self._require_sandbox and not hello.complete:
            return orders.NO_SANDBOX, f"a sandbox is required and this system gives: {hello.sandbox}"
        return None

    # ---- listening

    async def _follow(self, zygote: Zygote) -> None:
        if zygote.hello is not None:
            self._know(zygote, zygote.hello)
        while True:
            await self._read(zygote)
            if self._all.get(zygote.runtime) is not zygote:
                return None
            said = zygote.hello if zygote.hello and zygote.hello.failure else None
            self._owner.zygote_died(zygote)
            zygote.restarts += 1
            if said or zygote.restarts > self._limits.zygote_restarts_max:
                return self._know(zygote, said or Hello(failure="the process that starts workers keeps dying"))
            try:
                zygote.launch()
            except OSError as error:
                return self._know(zygote, Hello(failure=f"no process can be started: {error.strerror}"))

    async def _read(self, zygote: Zygote) -> None:
        """Until the end of its stream."""
        channel, frames = zygote.channel, zygote.frames
        while True:
            try:
                await trio.lowlevel.wait_readable(channel.fileno())
                chunk = channel.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):  # it is gone, or was ended between the wake-up and now
                return
            if not chunk:
                return
            for body in frames.feed(chunk):
                match report := unpack_body(body):
                    case ["hello" | "failed", *_]:
                        self._know(zygote, hello_from(report))
                    case _:
                        self._owner.hear_of_worker(report)

    def _know(self, zygote: Zygote, hello: Hello) -> None:
        zygote.hello = self._said[zygote.runtime] = hello
        if zygote is self.first:
            self.first_known.set()
        self._news.set()
        self._news = trio.Event()
        self._owner.zygote_knows(zygote, hello)
