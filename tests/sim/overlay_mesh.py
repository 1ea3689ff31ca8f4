"""A model of gossipsub: who passes a message on to whom, when it arrives, and how many bytes that takes.

This is a model, not the router that nodes run. Taken from it: a mesh of degree 6 (grafted below 4, pruned above 12),
mended once a second, eager forwarding along the mesh to all but the sender, and once a second IHAVE with the ids of
the last three seconds to six linked peers outside of the mesh, answered by IWANT and the message. Left out: scores,
back-off after a prune, fan-out, flood publishing, queues (each hop takes its delay, however busy a node is).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

DEGREE: Final = 6
DEGREE_LOW: Final = 4
DEGREE_HIGH: Final = 12
LAZY_PEERS: Final = 6
WINDOW_TICKS: Final = 3
MESSAGE_ID_BYTES: Final = 46  # source and sequence number
FRAME_BYTES: Final = 32  # length prefix, Yamux header, Noise length and tag

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wire:
    """What a hop does to a message."""

    delay_seconds_min: float = 0.01
    delay_seconds_max: float = 0.12
    loss: float = 0.02


class Mesh:
    """Links and mesh of all places a node can have; a place without a live node has neither."""

    def __init__(self, places: int, rng: np.random.Generator, wire: Wire) -> None:
        self.places = places
        self.linked: Bools = np.zeros((places, places), dtype=bool)
        self.sent_bytes: Floats = np.zeros(places)
        self.sent_lazy_bytes: Floats = np.zeros(places)
        self.received: npt.NDArray[np.int64] = np.zeros(places, dtype=np.int64)
        self._mesh: list[set[int]] = [set() for _ in range(places)]
        self._rng = rng
        self._wire = wire
        self._table: npt.NDArray[np.int64] = np.zeros((places, 1), dtype=np.int64)
        self._present: Bools = np.zeros((places, 1), dtype=bool)

    # Links

    def link(self, place: int, others: npt.NDArray[np.int64]) -> None:
        """The node at `place` has a link to each of `others`."""
        self.linked[place, others] = self.linked[others, place] = True

    def cut(self, place: int) -> None:
        """All links of the node at `place` are gone, and its part of the mesh."""
        self.linked[place] = self.linked[:, place] = False
        for other in self._mesh[place]:
            self._mesh[other].discard(place)
        self._mesh[place].clear()

    def part(self, side: Bools) -> None:
        """Cut every link between `side` and the rest."""
        across = side[:, None] != side[None, :]
        self.linked &= ~across
        for place, peers in enumerate(self._mesh):
            peers -= {peer for peer in peers if side[peer] != side[place]}

    # The mesh

    def mend(self, live: Bools) -> None:
        """The router's tick: graft and prune towards the degree."""
        for place in np.flatnonzero(live):
            if len(self._mesh[place]) < DEGREE_LOW:
                self._graft(int(place))
        for place in np.flatnonzero(live):
            if len(self._mesh[place]) > DEGREE_HIGH:
                for other in self._rng.permutation(sorted(self._mesh[place]))[DEGREE:]:
                    self._mesh[place].discard(int(other))
                    self._mesh[other].discard(int(place))
        self._tabulate()

    def _graft(self, place: int) -> None:
        candidates = self._rng.permutation(np.flatnonzero(self.linked[place]))
        for other in candidates[: 4 * DEGREE]:
            if len(self._mesh[place]) >= DEGREE:
                return
            if len(self._mesh[other]) < DEGREE_HIGH:
                self._mesh[place].add(int(other))
                self._mesh[other].add(place)

    def _tabulate(self) -> None:
        """The mesh as arrays: neighbours of each place in a row, filled up with places that do not count."""
        width = max(1, *map(len, self._mesh))
        self._table = np.zeros((self.places, width), dtype=np.int64)
        self._present = np.zeros((self.places, width), dtype=bool)
        for place, peers in enumerate(self._mesh):
            self._table[place, : len(peers)] = sorted(peers)
            self._present[place, : len(peers)] = True

    def degrees(self, live: Bools) -> Floats:
        """Mesh neighbours of each live node."""
        return np.array([len(self._mesh[place]) for place in np.flatnonzero(live)], dtype=float)

    # A message

    def spread(self, source: int, at: float, size_bytes: int, live: Bools) -> Floats:
        """When a message of `source` reaches each place (infinity: never); counts bytes and deliveries."""
        arrival = self._spread_eagerly(source, at, live)
        reached = np.isfinite(arrival)
        sends = self._present.sum(axis=1) - 1
        sends[source] += 1
        self.sent_bytes[reached] += np.maximum(sends[reached], 0) * (size_bytes + FRAME_BYTES)
        senders = self._table[reached]
        hits = (self._present[reached] & np.isfinite(arrival[senders])).sum(axis=1)
        self.received[reached] += np.maximum(hits, 1)
        self._spread_lazily(arrival, size_bytes, live)
        return arrival

    def _spread_eagerly(self, source: int, at: float, live: Bools) -> Floats:
        """Earliest arrival over all paths of the mesh, each hop with its own delay and loss."""
        wire, shape = self._wire, self._table.shape
        hops = self._rng.uniform(wire.delay_seconds_min, wire.delay_seconds_max, shape)
        hops[~self._present | (self._rng.random(shape) < wire.loss)] = np.inf
        arrival = np.full(self.places, np.inf)
        arrival[source] = at
        while True:
            found = np.minimum(arrival, (arrival[self._table] + hops).min(axis=1))
            found[~live] = np.inf
            if np.array_equal(found, arrival):
                return arrival
            arrival = found

    def _spread_lazily(self, arrival: Floats, size_bytes: int, live: Bools) -> None:
        """Who was missed hears of the message in IHAVE of some linked peer, at one of the next three ticks."""
        rng, wire = self._rng, self._wire
        for _ in range(WINDOW_TICKS):
            missed = np.flatnonzero(live & ~np.isfinite(arrival))
            have = np.isfinite(arrival)
            for place in missed:
                peers = np.flatnonzero(self.linked[place] & have)
                chance = LAZY_PEERS / np.maximum(LAZY_PEERS, self.linked[peers].sum(axis=1))
                asked = peers[rng.random(len(peers)) < chance]
                told = asked[rng.random(len(asked)) >= 1 - (1 - wire.loss) ** 3]
                if len(told):
                    # The peer's next tick, then three hops: IHAVE, IWANT, the message.
                    wait = rng.random(len(told)) + 3 * rng.uniform(wire.delay_seconds_min, wire.delay_seconds_max)
                    first = int(np.argmin(arrival[told] + wait))
                    arrival[place] = arrival[told[first]] + wait[first]
                    self.sent_lazy_bytes[told[first]] += size_bytes + FRAME_BYTES

    def count_lazy(self, messages_per_tick: float, live: Bools) -> None:
        """The bytes of one tick's IHAVE, whether or not anybody needed one."""
        if messages_per_tick:
            ids = MESSAGE_ID_BYTES + 2
            self.sent_lazy_bytes[live] += LAZY_PEERS * (WINDOW_TICKS * messages_per_tick * ids + FRAME_BYTES)
