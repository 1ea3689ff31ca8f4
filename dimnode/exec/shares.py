"""Whose turn it is: fair shares of worker time between identities, and what each identity may have waiting.

Rule: no identity can starve another. Each is charged the worker time that it used, divided by its share; who was
charged least is served first, and who comes back after a pause starts at the common clock, so that idling saves
nothing up. Priority moves a turn forward by a bounded head start that is not forgiven: it changes when an identity
is served, never how much it gets in the long run.
Sources: start-time fair queueing (Goyal, Vin, Cheng 1996); borrowed virtual time (Duda, Cheriton 1999).
Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

LEVELS: Final[Mapping[str, int]] = MappingProxyType({"high": 0, "normal": 1, "low": 2})


@dataclass(frozen=True, slots=True)
class Quota:
    """What one identity may do here. `share` 2 gets twice the worker time of `share` 1 when both want it."""

    queued_max: int = 256
    share: float = 1.0
    priority_max: str = "high"

    def level(self, priority: str) -> int:
        """The level of an order: the one it asks for, or the best that this identity may have."""
        return max(LEVELS[priority], LEVELS[self.priority_max])


@dataclass(frozen=True, slots=True)
class Quotas:
    """The operator's word: for everybody, and for identities by name (peer id bytes)."""

    standard: Quota = Quota()
    named: Mapping[bytes, Quota] = field(default_factory=dict)

    def of(self, client: bytes) -> Quota:
        """What holds for this identity."""
        return self.named.get(client, self.standard)


@dataclass(slots=True, eq=False)
class Account:
    """One identity. `virtual` is the worker time it was charged, in seconds per share."""

    client: bytes
    quota: Quota
    virtual: float = 0.0
    queued: int = 0
    running: int = 0
    by_level: list[int] = field(default_factory=lambda: [0, 0, 0])
    seconds_by_level: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


class Shares:
    """The accounts of all identities that wait, run, or still owe for what they used."""

    def __init__(self, quotas: Quotas = Quotas(), accounts_max: int = 1024) -> None:
        self.quotas = quotas
        self.clock = 0.0
        self._accounts_max = accounts_max
        self._accounts: dict[bytes, Account] = {}
        self._waiting: dict[bytes, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def present(self) -> list[Account]:
        """Those with something in the queue or with a worker."""
        return [account for account in self._accounts.values() if account.queued or account.running]

    @property
    def waiting(self) -> Iterable[Account]:
        """Those with something in the queue."""
        return self._waiting.values()

    def account(self, client: bytes) -> Account:
        """This identity's account, opened at first sight."""
        found = self._accounts.get(client)
        if found is None:
            if len(self._accounts) >= self._accounts_max:
                self._forget()
            found = self._accounts[client] = Account(client, self.quotas.of(client), self.clock)
        return found

    def peek(self, client: bytes) -> Account:
        """The same, for a question: no account is opened by it."""
        return self._accounts.get(client) or Account(client, self.quotas.of(client), self.clock)

    def enqueue(self, account: Account, level: int, seconds: float) -> None:
        """One more waits, for so many seconds of work. Who had nothing waiting starts at the clock: no credit."""
        if not account.queued:
            self._accounts[account.client] = self._waiting[account.client] = account
            account.virtual = max(account.virtual, self.clock)
        account.queued += 1
        account.by_level[level] += 1
        account.seconds_by_level[level] += seconds

    def dequeue(self, account: Account, level: int, seconds: float) -> None:
        """One less waits, run or removed."""
        account.queued -= 1
        account.by_level[level] -= 1
        account.seconds_by_level[level] -= seconds
        if not account.queued:
            account.seconds_by_level = [0.0, 0.0, 0.0]  # what rounding left
            del self._waiting[account.client]

    def tick(self) -> None:
        """Before an order is taken out: the clock follows the least charged of those that wait, never backwards."""
        least = min((account.virtual for account in self._waiting.values()), default=self.clock)
        self.clock = max(self.clock, least)

    def charge(self, account: Account, seconds: float) -> None:
        """Book worker time; negative gives back what an estimate took too much."""
        account.virtual += seconds / account.quota.share

    def wait_seconds(self, account: Account, level: int, workers: int) -> float:
        """How long an order of this level that comes now will wait for its turn, by what is expected of the others.

        What the identity itself has waiting in front of it, at its share of the machine; at most all that waits.
        """
        own = sum(account.seconds_by_level[: level + 1])
        everything, weights = 0.0, 0.0 if account.queued else account.quota.share
        for other in self._waiting.values():
            everything += sum(other.seconds_by_level)
            weights += other.quota.share
        return min(everything, own * weights / account.quota.share) / max(workers, 1)

    def crowd(self) -> Account | None:
        """Who has most waiting, measured by its share."""
        return max(self._waiting.values(), key=lambda account: account.queued / account.quota.share, default=None)

    def _forget(self) -> None:
        """Make room: the idle one that owes least. With everybody busy, nothing: those are bounded by the queue."""
        idle = [account for account in self._accounts.values() if not account.queued and not account.running]
        if idle:
            del self._accounts[min(idle, key=lambda account: account.virtual).client]
