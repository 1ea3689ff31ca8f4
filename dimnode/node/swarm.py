"""This node among the others: what it says of itself, what it has heard, whom it talks to.

Rule: everything heard is checked by its signature before it counts; gossip only says that an advert changed, the advert
itself is fetched from its author.
"""

import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

import trio

from dimnode.errors import PeerFault
from dimnode.exec.runtimes.choice import extras_of
from dimnode.jobs.events import AdvertHeard, Event
from dimnode.jobs.job import walls_in
from dimnode.limits import Limits
from dimnode.node.clock import wall_ms
from dimnode.node.library import Library
from dimnode.p2p.conduct import Judgement, Offence
from dimnode.p2p.contain import contained
from dimnode.p2p.gossip import (
    HEARTBEAT_TOPIC,
    JOBS_PER_MESSAGE,
    JOBS_TOPIC,
    RESULTS_TOPIC,
    Freshness,
    Stamps,
    announcement,
    heartbeat,
    judge_gossip,
    read_gossip,
)
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, StreamLost
from dimnode.p2p.introduction import Introduction, fetch_introduction
from dimnode.p2p.membership import Members, heartbeat_seconds
from dimnode.p2p.ticks import tick_after
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import PeerId, RecordId
from dimnode.records.kinds import ADDRESS_CHARACTERS_MAX, ADDRESSES_MAX, compose
from dimnode.records.manifest import Manifest

log = logging.getLogger(__name__)

AGENT = f"dimnode/{version('dimnode')}"
_EXTRAS_MAX: Final = 16
_DEVICE_CHARACTERS_MAX: Final = 32


class Fetches(Protocol):
    """Up to which size this node fetches a model that a job names."""

    def __call__(self, *, own: bool) -> int:
        """In bytes, 0 for none: for its own jobs, or for others."""


def _none(*, own: bool) -> int:
    return 0


class Swarm:
    """Adverts, heartbeats and announcements of one node."""

    def __init__(self, key: SigningKey, net: RecordId, library: Library, limits: Limits, name: str = "") -> None:
        self._name = name[:64]
        self._key, self._net, self._library, self._limits = key, net, library, limits
        self.members = Members(key.peer, limits.peers)
        self._host: Host | None = None
        self._freshness, self._stamps = Freshness(limits.peers), Stamps(limits.peers)
        self._validated: tuple[bytes, Record] | None = None
        self._fetching: set[PeerId] = set()
        self._nursery: trio.Nursery | None = None
        self._put: Callable[[Event], None] = lambda _: None
        self._advert: tuple[RecordId, bytes] | None = None
        self._named: frozenset[RecordId] = frozenset()  # the models in it
        self._public: OrderedDict[RecordId, None] = OrderedDict()
        self._states: dict[RecordId, str] = {}
        self._verdicts: deque[RecordId] = deque(maxlen=JOBS_PER_MESSAGE * 10)
        self._load: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.strangers: Callable[[PeerId], None] = lambda _: None
        self.ignores: Callable[[PeerId], bool] = lambda _: False
        self.renewed: Callable[[], None] = lambda: None
        self.notices: Callable[[Sequence[Record], PeerId], Awaitable[None]] = _pass_over
        self.sandbox = ""
        self.runtimes: tuple[str, ...] = ()
        self.extras: tuple[str, ...] = ()
        self.devices: Mapping[str, str] = {}
        self.slots = 0
        self.jobs_per_second = 0
        self.fetches: Fetches = _none

    def attach(
        self, host: Host, nursery: trio.Nursery, put: Callable[[Event], None], load: Callable[[], tuple[int, int]]
    ) -> None:
        """Give it its host, the nursery for fetches, the inbox, and a question for free slots and load."""
        self._host, self._nursery, self._put, self._load = host, nursery, put, load

    # ---- what we say

    def introduction(self) -> Sequence[bytes]:
        """Our advert's envelope and the manifests it names."""
        assert self._advert is not None
        room_bytes, mine = self._limits.peers.introduction_bytes_max - len(self._advert[1]), []
        offered = self._library.offered() if self.slots else []  # who offers no slots names no models
        for model in offered:
            if model.manifest.id not in self._named:  # whoever asks takes it for a false introduction
                continue
            room_bytes -= len(model.manifest.envelope)
            if room_bytes < 0:
                break
            mine.append(model.manifest.envelope)
        return [self._advert[1], *mine]

    def renew_advert(self) -> None:
        """After any change of what we offer; the next heartbeat tells the others."""
        host = self._host
        assert host is not None
        # A way through a relay holds the address at which that was dialled: its own words, and of any length.
        addresses = [address for address in host.addresses() if len(address) <= ADDRESS_CHARACTERS_MAX]
        body: dict[str, Any] = {
            **self._library.advert_body(),
            "slots": self.slots,
            "runtimes": list(self.runtimes),
            "sandbox": self.sandbox[:128],
            "agent": AGENT,
            "addresses": addresses[:ADDRESSES_MAX],
        }
        if self._name:
            body["name"] = self._name
        if self.jobs_per_second:
            body["jobs_per_second"] = self.jobs_per_second
        if not self.slots:  # it runs nothing, but may hand out files
            body["cabinets"] = []
        if most := self.fetches(own=False):
            body["x_fetch_bytes"] = most
        body["x_extras"] = list(self.extras)
        body["x_devices"] = dict(self.devices)
        at_ms = wall_ms()
        identity, payload = compose("advert", {"net": self._net, "by": self._key.peer, "at_ms": at_ms}, body)
        self._advert = (identity, seal(self._key, "advert", payload))
        self._named = frozenset(body["models"])
        here = self._library.usable() if self.slots else ()  # also a private one, of which nobody else hears
        classes = {model: self._model_class(model) for model in here}
        cabinets = frozenset(cabinet["name"] for cabinet in body["cabinets"])
        formats, extras, most = frozenset(self.runtimes), frozenset(self.extras), self.fetches(own=True)
        offer = self._key.peer, classes, cabinets, self.slots, self._sizes(classes), formats, most
        drained = not self.slots and bool(self.runtimes)  # without a runtime it executes nothing anyway
        resting = frozenset(self._library.usable()) if drained else frozenset()
        self._put(AdvertHeard(*offer, extras, self._asks(classes), walls_in(self.sandbox), resting))
        self.renewed()

    def _asks(self, models: Iterable[RecordId]) -> dict[RecordId, frozenset[str]]:
        """The extras that models need, of those that need any."""
        heard = self._library.registry.manifests
        known = {model: Manifest.of(heard[model]) for model in models if model in heard}
        return {model: asked for model, found in known.items() if (asked := extras_of(found.pre, found.post))}

    def _sizes(self, models: Iterable[RecordId]) -> dict[RecordId, int]:
        manifests = self._library.registry.manifests
        return {model: Manifest.of(manifests[model]).size_bytes for model in models if model in manifests}

    def _model_class(self, model: RecordId) -> str:
        manifest = self._library.registry.manifests.get(model)
        return Manifest.of(manifest).runtime if manifest else "-"

    def opened(self, job: RecordId, public: bool) -> None:
        """A job of ours began. Nothing is ever announced of one that only its participants may see."""
        if public:
            if len(self._public) >= self._limits.jobs.open_jobs_max:
                self._public.popitem(last=False)
            self._public[job] = None
            self.job_state(job, "submitted")

    def job_state(self, job: RecordId, state: str) -> None:
        """Queue a state for the next announcement; only the newest of a job goes out."""
        if job in self._public and len(self._states) < JOBS_PER_MESSAGE * 10:
            self._states[job] = state

    def verdict(self, job: RecordId, verdict: RecordId) -> None:
        """A job is over: queue its verdict's id for the next announcement."""
        if job in self._public:
            del self._public[job]
            self._verdicts.append(verdict)

    async def run(self) -> None:
        """Heartbeats at their interval, announcements once a second when there is something to say."""
        assert self._host is not None
        next_beat = trio.current_time()
        while True:
            now = trio.current_time()
            if now >= next_beat:
                await self._beat()
                self.members.forget_silent(now)
                next_beat = now + heartbeat_seconds(len(self.members) + 1)
            await self._announce()
            await trio.sleep_until(min(next_beat, tick_after(1.0)))

    async def _beat(self) -> None:
        assert self._host is not None
        assert self._advert is not None
        free, load = self._load()
        at_ms = self._stamps.next_ms(wall_ms())
        message = heartbeat(self._key, self._net, at_ms, self._advert[0], free, load)
        await self._host.publish(HEARTBEAT_TOPIC, message)

    async def _announce(self) -> None:
        assert self._host is not None
        at_ms = self._stamps.next_ms(wall_ms())
        if self._states:
            pairs = [(job, self._states.pop(job)) for job in list(self._states)[:JOBS_PER_MESSAGE]]
            await self._host.publish(JOBS_TOPIC, announcement(self._key, self._net, at_ms, pairs))
        if self._verdicts:
            ids = [self._verdicts.popleft() for _ in range(min(len(self._verdicts), JOBS_PER_MESSAGE))]
            await self._host.publish(RESULTS_TOPIC, announcement(self._key, self._net, at_ms, (), ids))

    # ---- what we hear

    def validate(self, topic: str, peer: bytes, message: bytes) -> Judgement:
        """Gossip that is not a valid record of its source, or no news, is not passed on."""
        now_ms = wall_ms()
        judgement, record = judge_gossip(topic, peer, message, self._net, self._freshness, now_ms)
        if record is not None:
            self._validated = (message, record)
        return judgement

    def hear(self, topic: str, source: bytes, message: bytes) -> None:
        """A validated message of another peer. What is announced of jobs is passed on; this node needs none of it."""
        validated, record = self._validated or (b"", None)
        if record is None or validated != message:  # mostly it was checked a moment ago, on its way in
            record = read_gossip(topic, source, message, self._net)
        peer = PeerId(record.by)
        if self.ignores(peer):  # it is passed on all the same: who forwards it has done nothing wrong
            return
        if topic == HEARTBEAT_TOPIC:
            self._heartbeat(peer, record.payload)

    def _heartbeat(self, peer: PeerId, said: Mapping[str, Any]) -> None:
        ahead_ms = said["at_ms"] - wall_ms()
        if ahead_ms < -self._limits.peers.heartbeat_age_ms_max:
            return  # replayed, after its author was forgotten
        mono = trio.current_time()
        fresh = self.members.heartbeat(
            peer, said["advert"], said["at_ms"], said["free_slots"], said["load_permille"], mono
        )
        member = self.members.get(peer)
        if fresh and member is not None:
            member.heartbeat_ahead_ms = float(ahead_ms)
            if not member.linked:
                self.strangers(peer)
        self._refresh(peer)

    def addresses_of(self, peer: PeerId) -> Sequence[str]:
        """Where the peer says in its advert that it can be dialled."""
        member = self.members.get(peer)
        return () if member is None else member.addresses

    def holders(self, model: RecordId) -> list[PeerId]:
        """Peers whose adverts name a model, those with a link first."""
        found = [member for member in self.members.alive(trio.current_time()) if model in member.models]
        return [member.peer for member in sorted(found, key=lambda member: not member.linked)]

    def linked(self, peer: PeerId) -> bool:
        """Whether there is a link to the peer."""
        member = self.members.get(peer)
        return member is not None and member.linked

    def link(self, peer: PeerId, up: bool) -> None:
        """A link came or went."""
        member = self.members.entry(peer)
        member.linked = up
        if up:
            self._refresh(peer)

    def _refresh(self, peer: PeerId) -> None:
        if self._nursery is not None and peer not in self._fetching and self.members.wants_advert(peer):
            self._fetching.add(peer)
            self._nursery.start_soon(contained, peer, self._fetch, peer)

    async def _fetch(self, peer: PeerId) -> None:
        assert self._host is not None
        member = self.members.entry(peer)
        try:
            # Reading one costs hundreds of signatures: a peer may not name another advert with every heartbeat.
            await trio.sleep_until(member.asked_mono + self._limits.peers.introduction_seconds_min)
            member.asked_mono = trio.current_time()
            found = await fetch_introduction(self._host, peer, self._net)
        except PeerFault as fault:
            log.info("no advert: %s", fault)
            self._host.offend(peer, Offence.DHT)  # it may be of another swarm or version: that weighs little
            return
        except (DialFailed, StreamLost) as error:
            log.info("no advert: %s", error)
            return
        finally:
            self._fetching.discard(peer)
        self._take(peer, found)
        await self.notices(found.notices, peer)
        await self._host.dht_admit(peer)

    def _take(self, peer: PeerId, found: Introduction) -> None:
        for manifest in found.manifests:
            self._library.registry.hear(manifest, peer)
        said = found.advert.payload
        member = self.members.entry(peer)
        member.advert = found.advert.id
        member.advert_said = member.advert_said or found.advert.id
        member.name = said.get("name", "")
        member.agent, member.slots, member.sandbox = said["agent"], said["slots"], said["sandbox"]
        member.models = tuple(RecordId(model) for model in said["models"])
        member.cabinets = tuple(cabinet["name"] for cabinet in said["cabinets"])
        member.columns = {cabinet["name"]: tuple(cabinet["columns"]) for cabinet in said["cabinets"]}
        member.addresses = tuple(said["addresses"])
        member.jobs_per_second = said.get("jobs_per_second", 0)
        member.runtimes, member.extras = tuple(said["runtimes"]), extras_said(said)
        member.devices = devices_said(said)
        classes = {model: self._model_class(model) for model in member.models}
        most = said.get("x_fetch_bytes", 0)
        most = most if type(most) is int else 0  # it has no schema: a stranger may have written anything
        extras = None if member.extras is None else frozenset(member.extras)
        # Of the last version an empty list may mean that it did not say.
        formats = frozenset(member.runtimes) if member.runtimes or extras is not None else None
        offer = peer, classes, frozenset(member.cabinets), member.slots, self._sizes(classes), formats, most
        self._put(AdvertHeard(*offer, extras, self._asks(classes), walls_in(member.sandbox)))


def extras_said(advert: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The extras that a peer says it has; None: it is of the last version, or wrote something else."""
    said = advert.get("x_extras")
    if type(said) is not list or len(said) > _EXTRAS_MAX or not all(type(word) is str for word in said):
        return None
    return tuple(said)


def devices_said(advert: Mapping[str, Any]) -> dict[str, str]:
    """On what its runtimes compute, as far as a peer knows and says it."""
    said = advert.get("x_devices")
    pairs = list(said.items()) if type(said) is dict else []
    words = all(type(word) is str and len(word) <= _DEVICE_CHARACTERS_MAX for pair in pairs for word in pair)
    return dict(pairs) if len(pairs) <= _EXTRAS_MAX and words else {}


async def _pass_over(notices: Sequence[Record], teller: PeerId) -> None:
    """Nobody listens yet."""


def jitter() -> random.Random:
    """Randomness for retries."""
    return random.Random(random.SystemRandom().getrandbits(64))
