"""A swarm's heartbeats in simulated time: what each node knows of the others, how late, and what that costs.

    python -m tests.sim.overlay [--nodes 1000] [--seconds 120] [--churn 0.01] [--loss 0.02] [--part 0] [--seed 1]

Real: every node's `Members` (dimnode/p2p/membership.py) with its interval, its replay check, its bound and its rule
about who is gone, and the size of a signed heartbeat. A model: links, mesh and delays (overlay_mesh.py). A node that
dies says nothing; who has a link to it notices within 0 to 3.5 s. A new one is linked at once: how fast that goes is
measured on real nodes (benchmarks/swarm.py).

Everything is drawn from one seed, which is printed.
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dimnode.limits import LIMITS
from dimnode.p2p.gossip import heartbeat
from dimnode.p2p.membership import MISSED_MAX, Member, Members, heartbeat_seconds
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import OPEN_SWARM_ID

from .overlay_mesh import Mesh, Wire

TICK_SECONDS = 1.0
EPOCH_MS = 1_700_000_000_000
NOTICE_SECONDS_MAX = 3.5
REDIAL_SECONDS_MAX = LIMITS.peers.redial_seconds_max
PUBSUB_BYTES = 178  # source, sequence number, topic, signature and key around the envelope
ADVERT = RecordId(OPEN_SWARM_ID)


@dataclass(frozen=True, slots=True)
class Setting:
    """One run."""

    nodes: int = 1000
    seconds: int = 120
    churn_per_second: float = 0.01
    part_at: int = 0
    part_seconds: int = 0
    seed: int = 1
    settled: bool = True
    """Begin with everybody known to everybody, as after a long calm."""
    wire: Wire = field(default_factory=Wire)


@dataclass(slots=True)
class Node:
    """Who is at a place now."""

    peer: PeerId
    members: Members
    born: float
    next_beat: float


class Overlay:
    """A run. Places are reused: who dies leaves one, the next newcomer takes it under another peer id."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rng = np.random.default_rng(setting.seed)
        self.places = setting.nodes
        self.mesh = Mesh(self.places, self.rng, setting.wire)
        self.live = np.ones(self.places, dtype=bool)
        self.now = 0.0
        self.delays: list[np.ndarray[Any, Any]] = []
        self.reached_in_a_second: list[float] = []
        self.reached: list[float] = []
        self.messages = 0
        self.ghosts = 0  # entries of the dead that outlived three missed heartbeats
        self.stale: list[float] = []  # entries of the dead that are not yet due, for each live node
        self.unknown: list[float] = []  # share of the live that a node does not list
        self.no_room = 0
        self.agreed_after: float | None = None
        self._born = 0
        self._died: dict[PeerId, float] = {}
        self._notices: list[tuple[float, PeerId]] = []
        self._side: np.ndarray[Any, Any] | None = None
        self._last_beat: dict[PeerId, float] = {}
        key = SigningKey.from_seed(bytes(32))
        self.size_bytes = len(heartbeat(key, RecordId(OPEN_SWARM_ID), EPOCH_MS, ADVERT, 4, 300)) + PUBSUB_BYTES
        self.nodes = [self._newborn() for _ in range(self.places)]
        for place in range(self.places):
            self._link(place)
        if setting.settled:
            self._settle()

    # ---- who there is

    def _newborn(self) -> Node:
        self._born += 1
        peer = PeerId(b"\x00\x24\x08\x01\x12\x20" + self._born.to_bytes(32, "big"))
        return Node(peer, Members(peer), self.now, self.now)

    def _link(self, place: int) -> None:
        """Links to as many as a node keeps."""
        others = np.flatnonzero(self.live)
        others = others[others != place]
        if self._side is not None:
            others = others[self._side[others] == self._side[place]]
        room = LIMITS.peers.peers_max - int(self.mesh.linked[place].sum())
        # In a large swarm most peers have no room left either; whoever was linked first keeps its place.
        others = others[self.mesh.linked[others].sum(axis=1) < LIMITS.peers.peers_max]
        chosen = self.rng.permutation(others)[: max(0, room)]
        self.mesh.link(place, chosen)
        node = self.nodes[place]
        for other in chosen:
            peer = self.nodes[other]
            node.members.entry(peer.peer).linked = True
            peer.members.entry(node.peer).linked = True

    def _settle(self) -> None:
        """Everybody has heard everybody at some time within the last interval."""
        interval = heartbeat_seconds(self.places)
        phases = self.rng.uniform(0, interval, self.places)
        for place, node in enumerate(self.nodes):
            node.next_beat = float(phases[place])
            self._last_beat[node.peer] = node.next_beat - interval
            for other, peer in enumerate(self.nodes):
                heard = float(phases[other]) - interval
                node.members.heartbeat(peer.peer, ADVERT, EPOCH_MS + int(heard * 1000), 1, 0, heard)

    def _churn(self) -> None:
        """Some die without a word, as many arrive."""
        share = self.setting.churn_per_second * TICK_SECONDS
        for place in self.rng.choice(self.places, self.rng.binomial(self.places, share), replace=False):
            old = self.nodes[place]
            self._died[old.peer] = self.now
            self._notices.append((self.now + self.rng.uniform(0, NOTICE_SECONDS_MAX), old.peer))
            self.mesh.cut(int(place))
            self.nodes[place] = self._newborn()
            self._link(int(place))

    def _notice(self) -> None:
        """Links to the dead end at their peers."""
        due = {peer for at, peer in self._notices if at <= self.now}
        self._notices = [(at, peer) for at, peer in self._notices if peer not in due]
        for node in self.nodes:
            for peer in due:
                if (member := node.members.get(peer)) is not None:
                    member.linked = False

    # ---- a partition

    def _part(self) -> None:
        """Half of the swarm is cut off from the other half: every link across ends."""
        self._side = np.arange(self.places) % 2 == 0
        self.mesh.part(self._side)
        for place, node in enumerate(self.nodes):
            for other in np.flatnonzero(self._side != self._side[place]):
                if (member := node.members.get(self.nodes[other].peer)) is not None:
                    member.linked = False

    def _join_again(self) -> None:
        """The cable is back: each node redials at some time within the longest pause between two rounds."""
        for place in self.rng.permutation(self.places):
            if self.rng.random() < TICK_SECONDS / REDIAL_SECONDS_MAX or self.now > self._healed + REDIAL_SECONDS_MAX:
                self._link(int(place))

    @property
    def _healed(self) -> float:
        return self.setting.part_at + self.setting.part_seconds

    # ---- time

    def run(self) -> "Overlay":
        """Live through all ticks."""
        self.mesh.mend(self.live)
        setting = self.setting
        for tick in range(setting.seconds):
            self.now = tick * TICK_SECONDS
            if setting.part_seconds and self.now == setting.part_at:
                self._part()
            if setting.part_seconds and self._healed <= self.now:
                self._side = None
                if self.now <= self._healed + REDIAL_SECONDS_MAX + TICK_SECONDS:
                    self._join_again()
            if setting.churn_per_second:
                self._churn()
            self._notice()
            self.mesh.mend(self.live)
            before = self.messages
            self._beat()
            self.mesh.count_lazy(self.messages - before, self.live)
            self._look()
        return self

    def _beat(self) -> None:
        """Whose interval is over publishes, and forgets who is silent."""
        for place, node in enumerate(self.nodes):
            while node.next_beat < self.now + TICK_SECONDS:
                at = max(node.next_beat, self.now)
                self._publish(place, at)
                node.members.forget_silent(at)
                self._count_ghosts(node, at)
                node.next_beat = at + heartbeat_seconds(len(node.members) + 1)

    def _publish(self, place: int, at: float) -> None:
        source = self.nodes[place]
        arrival = self.mesh.spread(place, at, self.size_bytes, self.live)
        self.messages += 1
        self._last_beat[source.peer] = at
        at_ms = EPOCH_MS + int(at * 1000)
        for other, heard in enumerate(arrival.tolist()):
            if heard != np.inf and other != place:
                fresh = self.nodes[other].members.heartbeat(source.peer, ADVERT, at_ms, 1, 0, heard)
                self.no_room += not fresh
        same = self.live if self._side is None else self.live & (self._side == self._side[place])
        same = same.copy()
        same[place] = False
        waits = arrival[same] - at
        self.delays.append(waits[np.isfinite(waits)])
        self.reached.append(float(np.isfinite(waits).mean()))
        self.reached_in_a_second.append(float((waits <= 1.0).mean()))

    def _count_ghosts(self, node: Node, at: float) -> None:
        """Right after it forgot the silent: nobody dead may be left who missed three of its heartbeats."""
        patience = MISSED_MAX * heartbeat_seconds(len(node.members) + 1)
        late = self.setting.wire.delay_seconds_max * 20 + 2.0  # the last heartbeat itself took its time
        listed = [peer for peer in self._died if node.members.get(peer) is not None]
        gone = [
            peer for peer in listed if at - max(self._last_beat[peer], self._died[peer] - patience) > patience + late
        ]
        self.ghosts += sum(not node.members.entry(peer).linked for peer in gone)
        self.stale.append(len(listed))
        if len(self._died) > 4 * self.places:  # the long dead are in nobody's list any more
            for peer in list(self._died)[: self.places]:
                del self._died[peer]

    def _look(self) -> None:
        """How many of the living a node does not list, among those who had the time to be heard."""
        old_enough = [node for node in self.nodes if self.now - node.born > heartbeat_seconds(self.places) + 2.0]
        peers = {node.peer for node in old_enough}
        if not peers:
            return
        missing = []
        for node in old_enough:
            known = {member.peer for member in node.members.alive(self.now)} if len(peers) < 200 else node.members
            missing.append(sum(_lacks(known, peer) for peer in peers if peer != node.peer) / len(peers))
        self.unknown.append(float(np.mean(missing)))
        if self.setting.part_seconds and self.now >= self._healed and max(missing) == 0 and self.agreed_after is None:
            self.agreed_after = self.now - self._healed

    # ---- what came out

    def report(self) -> dict[str, Any]:
        """Figures of the run."""
        delays = np.concatenate(self.delays)
        seconds = self.setting.seconds
        return {
            "seed": self.setting.seed,
            "nodes": self.places,
            "seconds": seconds,
            "interval_seconds": heartbeat_seconds(self.places),
            "messages_per_second": round(self.messages / seconds, 1),
            "reached": round(float(np.mean(self.reached)), 5),
            "reached_within_1_s": round(float(np.mean(self.reached_in_a_second)), 5),
            "delay_p50_ms": round(float(np.median(delays)) * 1000),
            "delay_p99_ms": round(float(np.quantile(delays, 0.99)) * 1000),
            "copies_of_each_message": round(float(self.mesh.received.sum() / max(1, len(delays))), 2),
            "eager_kb_per_second": round(float(self.mesh.sent_bytes.mean()) / seconds / 1000, 2),
            "ihave_kb_per_second": round(float(self.mesh.sent_lazy_bytes.mean()) / seconds / 1000, 2),
            "mesh_degree": round(float(self.mesh.degrees(self.live).mean()), 1),
            "ghosts": self.ghosts,
            "dead_still_listed": round(float(np.mean(self.stale)), 1),
            "living_not_listed": round(float(np.mean(self.unknown)) if self.unknown else 0.0, 4),
            "living_not_listed_at_the_end": round(self.unknown[-1] if self.unknown else 0.0, 4),
            "heartbeats_without_room": self.no_room,
            "members_per_node": round(float(np.mean([len(node.members) for node in self.nodes])), 1),
            "agreed_after_seconds": self.agreed_after,
        }


def _lacks(known: Any, peer: PeerId) -> bool:
    return known.get(peer) is None if isinstance(known, Members) else peer not in known


def member_bytes(models: int = 4, addresses: int = 3) -> int:
    """Memory of one entry whose advert was read: the object, and what only it refers to."""
    member = Member(PeerId(bytes(38)))
    member.models = tuple(RecordId(bytes([number]) * 37) for number in range(models))
    member.addresses = tuple(f"/ip4/192.168.100.{number}/tcp/4710/p2p/{'x' * 52}" for number in range(addresses))
    member.name, member.sandbox, member.agent = "hospital-seventeen", "bubblewrap,seccomp,landlock", "dimnode/0.1.0"
    member.advert = member.advert_said = RecordId(bytes(37))
    member.rtt_ms, member.heard_mono = 0.3, 12345.678
    seen: set[int] = set()

    def size(thing: Any) -> int:
        if id(thing) in seen or thing is None or isinstance(thing, bool):
            return 0
        seen.add(id(thing))
        inside = thing if isinstance(thing, tuple) else ()
        return sys.getsizeof(thing) + sum(map(size, inside))

    slots = [getattr(member, name) for name in Member.__slots__]
    return sys.getsizeof(member) + sum(map(size, slots)) + 104  # its place in the dictionary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--churn", type=float, default=0.01, help="share of the nodes that is replaced each second")
    parser.add_argument("--loss", type=float, default=0.02)
    parser.add_argument("--part", type=int, default=0, help="seconds of a partition into halves, after ten seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    setting = Setting(
        options.nodes,
        options.seconds,
        options.churn,
        part_at=10,
        part_seconds=options.part,
        seed=options.seed,
        wire=Wire(loss=options.loss),
    )
    found = {**Overlay(setting).run().report(), "member_bytes": member_bytes()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
