"""Which leaf is asked of whom: one queue of missing leaves, and whoever is free takes the next.

A provider gets several questions at a time, as many as it answers in a quarter of a second: so a fast one takes more,
and a slow one never holds much of the rest. When every missing leaf is asked for, a provider that is free asks for one
of the last few that another one is late with.
When this node is the limit, more providers only cost: who is not the one that gave most rests for a while, and longer
the next time, until the node is in need of it again.
A leaf that came is held until somebody checked it: meanwhile it is asked of nobody, also when who gave it left.
Rule: a leaf is counted once, and asked of a second provider only at the end; a provider that left has nothing.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from dimnode.limits import LIMITS, ExchangeLimits
from dimnode.records.ids import PeerId


@dataclass(slots=True)
class _Provider:
    have: bytearray | None  # None: everything
    asked: dict[int, float] = field(default_factory=dict)  # leaf -> when, the oldest first
    candidates: list[int] = field(default_factory=list)  # of one that has not everything, the next one last
    seconds_per_leaf: float = 0.0
    answered_at: float = 0.0
    leaves: int = 0
    rests_until: float = 0.0
    rest_seconds: float = 0.0  # its last rest; 0 once it was at work for as long and crowded nobody


@dataclass(frozen=True, slots=True)
class Share:
    """What one provider gave."""

    peer: PeerId
    leaves: int


class Exchange:
    """The leaves of one blob. `now` is any clock that only goes forward, in seconds."""

    def __init__(
        self, leaves: int, missing: Iterable[int], first: int = 0, limits: ExchangeLimits = LIMITS.exchange
    ) -> None:
        """first: where to begin, another number for each fetcher, so that they have something to give each other."""
        self._leaves, self._limits = leaves, limits
        self._missing = set(missing)  # none of those that are held
        self._held: dict[int, PeerId] = {}  # leaf -> who gave it
        order = sorted(self._missing, key=lambda leaf: ((leaf - first) % leaves, leaf))
        self._queue = order[::-1]  # the next one last
        self._providers: dict[PeerId, _Provider] = {}
        self._askers: dict[int, set[PeerId]] = {}
        self.duplicates = 0  # leaves that were asked of a second provider
        self._gone: dict[PeerId, int] = {}

    @property
    def done(self) -> bool:
        """Every leaf is here, and the right one."""
        return not self._missing and not self._held

    @property
    def missing(self) -> int:
        """How many leaves are not here, or not checked."""
        return len(self._missing) + len(self._held)

    def shares(self) -> list[Share]:
        """What each one gave so far, also those that left."""
        now = {peer: each.leaves for peer, each in self._providers.items()}
        return [Share(peer, leaves) for peer, leaves in (self._gone | now).items()]

    # ---- providers

    def join(self, peer: PeerId, have: bytes | None) -> None:
        """A provider, and one byte a leaf of what it has; None: all of them."""
        assert peer not in self._providers, "joined twice"
        provider = _Provider(None if have is None else bytearray(have), leaves=self._gone.get(peer, 0))
        self._providers[peer] = provider
        self._choose(provider)

    def update(self, peer: PeerId, have: bytes | None) -> None:
        """It has more by now. Nothing for one that left."""
        provider = self._providers.get(peer)
        if provider is None:
            return
        provider.have = None if have is None else bytearray(have)
        self._choose(provider)

    def _choose(self, provider: _Provider) -> None:
        """Candidates of a provider that has not everything: in the order of the queue."""
        if provider.have is None:
            provider.candidates = []
        else:
            have = provider.have
            provider.candidates = [leaf for leaf in self._queue if leaf in self._missing and have[leaf]]

    def leave(self, peer: PeerId) -> None:
        """It died, lied or is not wanted any more: what it was asked for and did not bring is asked of others."""
        provider = self._providers.pop(peer, None)
        if provider is None:
            return
        self._gone[peer] = provider.leaves
        for leaf in list(provider.asked):
            self._unask(peer, provider, leaf)
        for other in self._providers.values():  # whoever rests is needed now
            other.rests_until = 0.0

    def _unask(self, peer: PeerId, provider: _Provider, leaf: int) -> None:
        provider.asked.pop(leaf, None)
        askers = self._askers.get(leaf)
        if askers is None:
            return
        askers.discard(peer)
        if not askers:
            del self._askers[leaf]
            if leaf in self._missing:
                self._put_back(leaf)

    def _put_back(self, leaf: int) -> None:
        self._queue.append(leaf)
        for provider in self._providers.values():
            if provider.have is not None and provider.have[leaf]:
                provider.candidates.append(leaf)

    # ---- leaves

    def ask(self, peer: PeerId, now: float) -> int | None:
        """The leaf to ask this provider for now; None when it has enough to do, or nothing for us."""
        provider = self._providers.get(peer)
        if provider is None or provider.rests_until > now or len(provider.asked) >= self.depth(peer):
            return None
        leaf = self._next(provider)
        if leaf is None:
            leaf = self._late(peer, provider, now)
            if leaf is None:
                return None
            self.duplicates += 1
        if not provider.asked:
            provider.answered_at = now
        provider.asked[leaf] = now
        self._askers.setdefault(leaf, set()).add(peer)
        return leaf

    def crowd(self, peer: PeerId, now: float) -> None:
        """A leaf of this provider came before there was room for it: the others bring as much as this node takes.

        It rests, unless it gave more than all others that are at work. What it was asked for still comes.
        """
        provider = self._providers.get(peer)
        if provider is None or provider.rests_until > now:
            return
        busy = {name for name, other in self._providers.items() if other.asked} | set(self._held.values())
        others = [other for name, other in self._providers.items() if name in busy and name != peer]
        at_work = [other.leaves for other in others if other.rests_until <= now]
        if max(at_work, default=-1) >= provider.leaves:
            longer = max(2 * provider.rest_seconds, self._limits.rest_seconds_first)
            provider.rest_seconds = min(longer, self._limits.rest_seconds_max)
            provider.rests_until = now + provider.rest_seconds

    def rests_until(self, peer: PeerId) -> float:
        """When this provider may be asked again; the past when it may be asked now."""
        provider = self._providers.get(peer)
        return provider.rests_until if provider is not None else 0.0

    def depth(self, peer: PeerId) -> int:
        """How many questions this provider may have at a time; none when it left."""
        if peer not in self._providers:
            return 0
        provider = self._providers[peer]
        seconds = provider.seconds_per_leaf
        if not seconds or provider.rest_seconds:
            return self._limits.requests_first
        return max(1, min(self._limits.requests_max, int(self._limits.requests_seconds / seconds) + 1))

    def _next(self, provider: _Provider) -> int | None:
        waiting = self._queue if provider.have is None else provider.candidates
        while waiting:
            leaf = waiting.pop()
            if leaf in self._missing and leaf not in self._askers:
                if provider.have is not None and not provider.have[leaf]:
                    continue
                return leaf
        return None

    def _late(self, peer: PeerId, provider: _Provider, now: float) -> int | None:
        """One of the last leaves, the last to come from one that is silent for longer than this one needs for two.

        Or would need longer for it than this one for all of them: one that keeps its pace is left alone.
        """
        if len(self._missing) > self._limits.endgame_leaves_max or self.duplicates >= self._limits.duplicates_max:
            return None
        seconds = provider.seconds_per_leaf
        late: list[tuple[float, int]] = []
        for leaf in self._missing:
            askers = self._askers.get(leaf, set())
            has = provider.have is None or bool(provider.have[leaf])
            if len(askers) == 1 and peer not in askers and has:
                [name] = askers
                other = self._providers[name]
                since = max(other.answered_at, other.asked[leaf])
                due = since + other.seconds_per_leaf * (1 + list(other.asked).index(leaf))
                if now - since > 2 * seconds or due - now > self._limits.endgame_leaves_max * seconds:
                    late.append((-due, leaf))
        return min(late)[1] if late else None

    def came(self, peer: PeerId, leaf: int, now: float) -> bool:
        """A leaf came from this provider. True: check it, then `take` or `wrong`. False: drop it.

        Another one gave it before, or this one left.
        """
        provider = self._providers.get(peer)
        if provider is None or leaf not in provider.asked:
            return False
        spent = max(now - max(provider.answered_at, provider.asked[leaf]), 1e-6)
        old = provider.seconds_per_leaf
        provider.seconds_per_leaf = spent if not old else 0.75 * old + 0.25 * spent
        provider.answered_at = now
        if now - provider.rests_until > provider.rest_seconds:
            provider.rest_seconds = 0.0
        fresh = leaf in self._missing
        if fresh:
            self._missing.discard(leaf)
            self._held[leaf] = peer
        self._unask(peer, provider, leaf)
        return fresh

    def take(self, leaf: int) -> None:
        """A leaf that is held is the right one."""
        peer = self._held.pop(leaf)
        if peer in self._providers:
            self._providers[peer].leaves += 1
        else:
            self._gone[peer] += 1

    def wrong(self, leaf: int) -> None:
        """A leaf that is held is not the right one: who gave it leaves, and it is asked of others."""
        self.leave(self._held.pop(leaf))
        self._missing.add(leaf)
        if leaf not in self._askers:
            self._put_back(leaf)

    def absent(self, peer: PeerId, leaf: int) -> None:
        """The provider has not this leaf after all."""
        provider = self._providers.get(peer)
        if provider is None:
            return
        if provider.have is None:
            provider.have = bytearray(b"\1") * self._leaves
            self._choose(provider)  # only once: one that lacks every leaf would have the whole queue read for each
        provider.have[leaf] = 0
        self._unask(peer, provider, leaf)

    def useful(self, peer: PeerId) -> bool:
        """Whether it takes part and has a leaf that is not here."""
        provider = self._providers.get(peer)
        if provider is None:
            return False
        have = provider.have
        return have is None or any(have[leaf] for leaf in chain(self._missing, self._held))
