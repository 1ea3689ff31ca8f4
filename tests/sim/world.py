"""Many nodes in one process: one clock, one heap of things to come, one seed.

Rule: nothing here waits or chooses by itself; the same seed gives the same trace, to the last effect.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush

from dimnode.jobs.effects import Effect, Send
from dimnode.jobs.events import Event, Now
from dimnode.limits import LIMITS
from dimnode.records.ids import PeerId

from .checks import check_bounds, check_end
from .clients import wish
from .frames import Frame
from .journal import Broken
from .node import Node
from .universe import EPOCH_SECONDS, Universe

_QUIET_SECONDS = 200.0  # the longest deadline, twice, and the longest run
_DETECTION_SECONDS_MAX = 2.5


@dataclass(slots=True)
class Link:
    """A pair's link: whether it stands, which one it is, and whose end has not yet noticed the last change."""

    stands: bool = False
    number: int = 0
    unaware: set[int] = field(default_factory=set)
    blocked_until: float = 0.0
    last_delivery: dict[int, float] = field(default_factory=dict)


class World:
    """A run of the simulator."""

    def __init__(self, universe: Universe, trace_lines: int = 400) -> None:
        self.universe = universe
        self.trace_lines = trace_lines
        self.rng = random.Random(f"world {universe.seed}")
        self.now = Now(0.0, EPOCH_SECONDS * 1000)
        self.lines: list[str] = []
        self.events = 0
        self._digest = sha256()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.nodes = [Node(index, self) for index in range(universe.nodes)]
        self._index = {node.peer: node.index for node in self.nodes}
        self._links = {(a, b): Link() for b in range(universe.nodes) for a in range(b)}

    # ---- time

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call this later."""
        self._count += 1
        heappush(self._heap, (self.now.mono + seconds, self._count, what))

    def _run_until(self, mono: float) -> None:
        while self._heap and self._heap[0][0] <= mono:
            at, _, what = heappop(self._heap)
            self.now = Now(at, EPOCH_SECONDS * 1000 + int(at * 1000))
            what()
        self.now = Now(mono, EPOCH_SECONDS * 1000 + int(mono * 1000))

    def run(self) -> "World":
        """Live through the universe and check how it ends. Raises `Broken`, or an assertion of the engine."""
        try:
            self._live()
        except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            tail = "\n".join(self.lines[-self.trace_lines :])
            raise Broken(f"seed {self.universe.seed}: {error!r}\n{self.universe}\n{tail}") from error
        return self

    def _live(self) -> None:
        for node in self.nodes:
            node.start()
        for a, b in self._links:
            self.heal(a, b)
        self._plan_jobs()
        self._plan_faults()
        self._run_until(self.universe.fault_seconds)
        for node in self.nodes:
            node.dies_after_commit = False
            if not node.alive:
                self._restart(node)
        for pair in self._links:
            self._links[pair].blocked_until = 0.0
            self.after(1.0, lambda pair=pair: self.heal(*pair))
        self._run_until(self.universe.fault_seconds + _QUIET_SECONDS)
        if not self.universe.honest_links:  # lost frames on standing links are only mended by the next link
            for pair in self._links:
                self.cut(*pair, 0.1)
            self._run_until(self.universe.fault_seconds + 2 * _QUIET_SECONDS)
        check_end(self)

    @property
    def faulty(self) -> bool:
        """Faults still happen."""
        return self.now.mono < self.universe.fault_seconds

    # ---- what is planned

    def _plan_jobs(self) -> None:
        peers = [node.peer for node in self.nodes]
        for _ in range(self.universe.jobs):
            node = self.rng.choice(self.nodes)
            submission = wish(len(node.submissions), self.universe, self.rng, node.peer, peers)
            node.submissions.append(submission)
            at = self.rng.uniform(0.2, self.universe.fault_seconds * 0.7)
            times = 1 + (self.rng.random() < self.universe.repeats)
            for again in range(times):
                self.after(at + again * self.rng.choice([0.0, 0.001, 5.0]), lambda n=node, s=submission: _submit(n, s))

    def _plan_faults(self) -> None:
        world, rng = self.universe, self.rng

        def sometime() -> float:
            return rng.uniform(0, world.fault_seconds * 0.9)

        pairs = list(self._links)
        for _ in range(world.cuts):
            pair, rest = rng.choice(pairs), rng.choice([0.01, 1.0, 10.0])
            self.after(sometime(), lambda pair=pair, rest=rest: self.cut(*pair, rest))
        for _ in range(world.partitions):
            side = set(rng.sample(range(world.nodes), rng.randint(1, world.nodes - 1)))
            rest = rng.uniform(0.5, 20)
            self.after(sometime(), lambda side=side, rest=rest: self._part(side, rest))
        for _ in range(world.crashes):
            node, in_commit = rng.choice(self.nodes), rng.random() < 0.5
            self.after(sometime(), lambda node=node, in_commit=in_commit: self._strike(node, in_commit))

    # ---- faults

    def _strike(self, node: Node, in_commit: bool) -> None:
        if in_commit and node.alive:
            node.dies_after_commit = True
        else:
            self.crash(node)

    def crash(self, node: Node) -> None:
        """The process is gone; it comes back later, at the latest when faults end."""
        if not node.alive:
            return
        self.say(f"{self.now.mono:9.4f} {node.index} CRASH")
        node.die()
        for pair, link in self._links.items():
            if node.index in pair:
                link.unaware.discard(node.index)
                self.cut(*pair, 0.0)
        self.after(self.rng.choice([0.0, 0.5, 5.0]), lambda: self._restart(node))

    def _restart(self, node: Node) -> None:
        if node.alive:
            return
        node.start()
        for other in range(self.universe.nodes):
            if other != node.index:
                self.after(self.rng.uniform(0.01, 1), lambda other=other: self.heal(node.index, other))

    def _part(self, side: set[int], rest_seconds: float) -> None:
        self.say(f"{self.now.mono:9.4f} PARTITION {sorted(side)} for {rest_seconds:.1f} s")
        for a, b in self._links:
            if (a in side) != (b in side):
                self.cut(a, b, rest_seconds)

    def cut(self, a: int, b: int, rest_seconds: float) -> None:
        """The link breaks now; each end notices a little later, and it is mended after the rest."""
        link = self._links[min(a, b), max(a, b)]
        link.blocked_until = max(link.blocked_until, self.now.mono + rest_seconds)
        if link.stands:
            link.stands = False
            link.number += 1
            for end, other in ((a, b), (b, a)):
                node = self.nodes[end]
                if node.alive:
                    link.unaware.add(end)
                    wait = self.rng.choice([0.0, self.rng.uniform(0, _DETECTION_SECONDS_MAX)])
                    node.later(wait, self._notice, link, end, other)
        self.after(rest_seconds + self.rng.uniform(0.01, 0.5), lambda: self.heal(a, b))

    def _notice(self, link: Link, end: int, other: int) -> None:
        link.unaware.discard(end)
        self.nodes[end].link(self.nodes[other].peer, False)

    def heal(self, a: int, b: int) -> None:
        """Mend a link, unless there is a reason to try later."""
        link = self._links[min(a, b), max(a, b)]
        ends = [self.nodes[a], self.nodes[b]]
        if link.stands or not all(node.alive for node in ends):
            return
        link.unaware &= {node.index for node in ends if node.alive}
        if link.unaware or link.blocked_until > self.now.mono:
            self.after(0.25, lambda: self.heal(a, b))
            return
        link.stands = True
        link.number += 1
        link.last_delivery = {}
        for node, other in (ends, reversed(ends)):
            node.link(other.peer, True)
            node.later(self.rng.uniform(0, 0.05), node.take, other.advert)

    def tell(self, speaker: Node) -> None:
        """A node offers more than before: itself and everybody with a link hear of it."""
        speaker.take(speaker.advert)
        for node in self.nodes:
            ends = min(node.index, speaker.index), max(node.index, speaker.index)
            if node is not speaker and node.alive and self._links[ends].stands:
                node.later(self.rng.uniform(0, 0.05), node.take, speaker.advert)

    # ---- frames

    def send(self, sender: Node, peer: PeerId, frame: Frame) -> None:
        """Give a frame to the link; without one it is dropped."""
        receiver = self.nodes[self._index[peer]]
        link = self._links[min(sender.index, receiver.index), max(sender.index, receiver.index)]
        if not link.stands:
            return
        faulty, world = self.faulty, self.universe
        if faulty and self.rng.random() < world.loss:
            return
        for _ in range(2 if faulty and self.rng.random() < world.duplication else 1):
            at = self.now.mono + self.rng.uniform(0.0001, world.delay_seconds_max)
            if not (faulty and self.rng.random() < world.reordering):  # in order, else wherever it falls
                at = max(at, link.last_delivery.get(receiver.index, 0.0) + 1e-6)
                link.last_delivery[receiver.index] = at
            self.after(
                at - self.now.mono, lambda number=link.number: self._deliver(link, number, sender, receiver, frame)
            )

    def _deliver(self, link: Link, number: int, sender: Node, receiver: Node, frame: Frame) -> None:
        if link.stands and link.number == number and receiver.alive:
            receiver.receive(frame, sender.peer)

    # ---- watching

    def trace(self, node: Node, event: Event | str, effects: list[Effect]) -> None:
        """One line for each event: what the same seed must repeat."""
        self.events += 1
        name = event if isinstance(event, str) else type(event).__name__
        self.say(f"{self.now.mono:9.4f} {node.index} {name} {_words(event)} -> {' '.join(map(_line, effects))}")

    def say(self, line: str) -> None:
        """Add to the trace."""
        self._digest.update(line.encode())
        self.lines.append(line)
        if len(self.lines) > 4 * self.trace_lines:
            del self.lines[: 2 * self.trace_lines]

    def check_bounds(self, node: Node) -> None:
        """Nothing is larger than its limit."""
        check_bounds(node, LIMITS)

    @property
    def hash(self) -> str:
        """What happened, in short."""
        return self._digest.hexdigest()


def _submit(node: Node, submission: object) -> None:
    if node.alive:
        node.submit(submission)  # type: ignore[arg-type]
    else:
        node.world.after(1.0, lambda: _submit(node, submission))


def _name(identity: bytes) -> str:
    return identity[-3:].hex()


def _place(key: tuple[bytes, int, int]) -> str:
    return f"{_name(key[0])}.{key[1]}.{key[2]}"


def _words(event: object) -> str:
    key, job, peer = (getattr(event, name, None) for name in ("key", "job", "peer"))
    place = _place(key) if key else _name(job) if job else ""
    extra = [getattr(event, name, "") for name in ("what", "status", "code", "rule")]
    return " ".join([place, _name(peer) if peer else "", *(str(word) for word in extra if word)])


def _line(effect: Effect) -> str:
    if isinstance(effect, Send):
        return f"Send:{effect.what}:{_name(effect.peer)}:{_place(effect.key)}"
    words = [getattr(effect, name, "") for name in ("kind", "what", "status", "code")]
    return ":".join([type(effect).__name__, *(str(word) for word in words if word)])
