"""A node: composition root and nursery tree. Whatever runs in this process is opened here.

Rule: shutdown order is indentation. run ⊃ store ⊃ exec pool ⊃ p2p host ⊃ {links, loop, doors}: each is closed before
what it stands on. The zygote was started before trio and before the key is read (`starting.py`), and ends after all.
"""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from dimnode.config import Config, socket_path
from dimnode.exec.launch import Zygote
from dimnode.exec.pool import Pool, open_pool
from dimnode.jobs.effects import Append, Note
from dimnode.jobs.engine import Engine
from dimnode.jobs.events import Now, PeerDown, PeerUp
from dimnode.limits import LIMITS, Limits
from dimnode.node.backstage import Backstage
from dimnode.node.bitswap import bitswap_of
from dimnode.node.content import Content
from dimnode.node.costs import KnownCosts
from dimnode.node.courier import Courier
from dimnode.node.faults import fault_point, model_to_run
from dimnode.node.gatekeeper import Gatekeeper
from dimnode.node.guests import Guests
from dimnode.node.httpdoor import HttpPlace
from dimnode.node.inbox import Inbox
from dimnode.node.indexes import Indexes
from dimnode.node.jobdoor import JobDoor
from dimnode.node.kubo_answers import bridge_of
from dimnode.node.labour import Labour
from dimnode.node.library import Library
from dimnode.node.long_reads import LongReads
from dimnode.node.loop import Loop, engine_rng
from dimnode.node.models import Models
from dimnode.node.own_index import OwnIndex
from dimnode.node.perform import Performer
from dimnode.node.private_swarm import PrivateSwarm
from dimnode.node.quotas import check_quotas, quotas_of
from dimnode.node.restore import load_engine, load_standing
from dimnode.node.space import Space, allow_open_files
from dimnode.node.swarm import Swarm, jitter
from dimnode.node.upkeep import Upkeep
from dimnode.node.usage import CabinetUse
from dimnode.node.watch import Watchers
from dimnode.p2p.bitswap_words import BITSWAP
from dimnode.p2p.blobs import BLOB, Grants, serve_blobs
from dimnode.p2p.discovery import Discovery
from dimnode.p2p.gossip import TOPICS
from dimnode.p2p.host.addresses import check_dial, local_ip
from dimnode.p2p.host.host import Host, everything, open_host
from dimnode.p2p.introduction import INFO, serve_info
from dimnode.p2p.links import TASK, Links
from dimnode.p2p.member_door import MEMBER, OpenDoor
from dimnode.p2p.models import MODEL, serve_models
from dimnode.p2p.pings import PING
from dimnode.p2p.reach import DIALBACK, Reach
from dimnode.p2p.ticks import tick_after
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.ids import Cid, PeerId, RecordId, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, VERDICT_STATUS
from dimnode.records.membership_kinds import OPEN_SWARM_NAME
from dimnode.store.blobs import BlobStore
from dimnode.store.home import load_seed
from dimnode.store.journal import Journal, Rows
from dimnode.store.peers import PeerCache
from dimnode.store.vault import Vault

SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Ready:
    """What `dim up` says when the node can be used."""

    peer: PeerId
    addresses: tuple[str, ...]
    socket: Path
    sandbox: str
    swarm: str = OPEN_SWARM_NAME
    http: str = ""
    fault: str = ""
    """Why no worker can be started."""


def run_opened(home: Path, config: Config, zygote: Zygote | None, on_ready: Callable[[Ready], None]) -> None:
    """Run a node in a home that is locked for it, until SIGINT or SIGTERM. Raises `ConfigError`."""
    for address in (*config.bootstrap, *config.relays):
        check_dial(address)
    check_quotas(config)
    allow_open_files(LIMITS)
    # The journal's thread must not keep the loop waiting for Python's lock: the default of 5 ms is three fsyncs long.
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as stack:
        seed = load_seed(home)
        journal = stack.enter_context(Journal(home / "journal.db"))
        blobs = stack.enter_context(BlobStore(home, int(config.max_cache_gb * 1024**3), LIMITS.store))
        node = Node(home, config, seed, journal, blobs, LIMITS)
        trio.run(node.run, zygote, on_ready)


class Node:
    """One symmetric peer."""

    def __init__(
        self, home: Path, config: Config, seed: bytes, journal: Journal, blobs: BlobStore, limits: Limits
    ) -> None:
        self.home, self.config, self.limits, self.journal = home, config, limits, journal
        self._seed = seed
        self.key = SigningKey.from_seed(seed)
        self.me = self.key.peer
        private = PrivateSwarm.load(home, self.key)
        self.gatekeeper = Gatekeeper(private) if private is not None else None
        self.open_door = OpenDoor()
        self.net = private.book.net if private is not None else OPEN_SWARM_ID
        self.vault = Vault()
        self.library = Library(home, self.key, self.net, journal, blobs)
        self.registry = self.library.registry
        self.inbox = Inbox(limits.jobs)
        self.engine = Engine(self.me, self.net, engine_rng(), _engine_limits(config, limits), load_standing(journal))
        self.swarm = Swarm(self.key, self.net, self.library, limits, config.name)
        self.watchers = Watchers(limits.jobs)
        self.grants = Grants()
        self.blobs, self.content = blobs, Content(blobs, limits)
        self.kubo, self.bitswap = bridge_of(self), bitswap_of(self)
        self.own_index = OwnIndex(self.key, self.net, journal, self.content, self.registry.published, limits)
        self.indexes = Indexes(self.net, self.registry, self.content, limits)
        self.indexes.linked, self.indexes.notices = self.swarm.linked, self.hear_notices
        self.models = Models(self.library, self.content, self.vault, config, limits)
        self.models.private = self.gatekeeper is not None
        self.models.holders, self.models.changed = self.swarm.holders, self.swarm.renew_advert
        self.swarm.fetches = self.models.fetches_bytes
        self.guests = Guests(home, config, self.me, limits)
        self.swarm.ignores = self.guests.ignores
        self.swarm.notices, self.swarm.renewed = self.hear_notices, self.own_index.news
        self.space = Space(home, limits.store)
        self.courier = Courier(self)
        self.links = Links(self.me, self.courier.receive, self._link, limits)
        self.reach = Reach(config.relay, self.swarm.renew_advert, jitter(), limits, config.relays)
        self.performer = Performer(
            self.me,
            self.vault,
            journal,
            self.library,
            CabinetUse(journal),
            self.courier.send,
            self.inbox.put_local,
            self._note,
            config.task_timeout_seconds,
            limits,
            self._spec_of,
        )
        self.performer.model_to_run = model_to_run(config.faults, self.library)
        self.models.fetched = self.performer.fetched
        self.performer.fetch, self.performer.leased = self.models.begin, self.models.leave.leased
        self.loop = Loop(
            self.engine,
            self.inbox,
            journal,
            self.vault,
            self.key,
            self.performer.perform,
            fault_point(config.faults, self.me),
            limits,
        )
        self.loop.kept_manifests = self._manifests_of
        self.loop.concluded = lambda append: self.swarm.verdict(append.key[0], append.id)
        self.loop.diary = self.performer.diary
        self.host: Host | None = None
        self.pool: Pool | None = None
        self.discovery: Discovery | None = None
        self._nursery: trio.Nursery | None = None
        self.long_reads = LongReads(journal, limits.store)
        self.upkeep = Upkeep(journal, home / "journal.db", int(config.max_cache_gb * 1024**3), limits)
        self.http: HttpPlace | None = None
        self.labour = Labour(self)
        self.stop = trio.Event()

    # ---- life

    async def run(self, zygote: Zygote | None, on_ready: Callable[[Ready], None]) -> None:
        """Open every door, say ready, and run until told to stop."""
        async with AsyncExitStack() as stack:
            background = await stack.enter_async_context(trio.open_nursery())
            background.start_soon(self._wait_for_signal)
            if zygote is not None:
                scratch = self.home / "scratch"
                pool = open_pool(
                    self.limits.exec,
                    scratch,
                    self.performer.finished,
                    zygote=zygote,
                    workers=self.config.workers,
                    require_sandbox=self.config.require_sandbox,
                    quotas=quotas_of(self.config, self.me),
                    memory_bytes_max=int(self.config.max_loaded_gb * 1024**3),
                    runtime_idle_seconds=self.config.runtime_idle_seconds,
                )
                self.pool = self.performer.pool = await stack.enter_async_context(pool)
                costs = KnownCosts(self.home, self.pool, self.limits.exec, self.config.torch_device)
                background.start_soon(costs.watch)
                stack.callback(costs.keep)
            jobdoor = JobDoor(self)
            host = open_host(
                self._seed,
                self.config.listen,
                {
                    TASK: self.links.serve_task,
                    PING: self.links.pings.serve,
                    INFO: serve_info(self.swarm.introduction, self.registry.notices_for),
                    DIALBACK: self.reach.serve_dialback,
                    BLOB: serve_blobs(self.grants, self._granted_blob, self.library.small_file, self.content.server),
                    MODEL: serve_models(self.models.answer),
                    MEMBER: (self.gatekeeper.door if self.gatekeeper else self.open_door).serve,
                    **jobdoor.handlers(),
                    **({BITSWAP: self.bitswap.serve} if self.bitswap else {}),
                },
                topics=TOPICS,
                on_gossip=self.swarm.hear,
                validate_gossip=self.swarm.validate,
                dht_vouched=True,
                on_connection=self.links.connection,
                on_name=self.indexes.told,
                refusal=self.guests.refusal,
                admission=self.gatekeeper.door if self.gatekeeper else None,
                network_keys=self.gatekeeper.keys if self.gatekeeper and self.gatekeeper.has_keys else None,
                narrow=self.bitswap.narrow if self.bitswap else everything,
                limits=self.limits,
            )
            await stack.enter_async_context(self.kubo.opened())
            self.host = await stack.enter_async_context(host)
            nursery = await stack.enter_async_context(trio.open_nursery())
            self._nursery = nursery
            await self._start(nursery, self.host)
            on_ready(self._ready())
            await self.stop.wait()
            if self.http is not None:
                await self.http.close()
            await self.links.close()
            nursery.cancel_scope.cancel()
            background.cancel_scope.cancel()

    async def _start(self, nursery: trio.Nursery, host: Host) -> None:
        """Everything that lives as long as the host: loop, links, discovery, gossip, control door."""
        self.swarm.attach(host, nursery, self.inbox.put_local, self.labour.load)
        self.labour.describe()
        now = Now(trio.current_time(), time.time_ns() // 1_000_000)
        effects = load_engine(self.engine, self.journal, self.vault, now)
        nursery.start_soon(self._loop, effects)
        self.swarm.renew_advert()
        self.inbox.put_local(PeerUp(self.me))
        cache = PeerCache(self.home)
        discovery = Discovery(
            host,
            self._entrances(),
            cache.addresses(),
            lambda found: cache.see({peer_text(peer): addresses for peer, addresses in found.items()}),
            jitter(),
            self.limits,
            announced=self.swarm.addresses_of,
            linked=self.links.all,
        )
        self.discovery = discovery
        self.swarm.strangers = discovery.want
        if self.bitswap is not None:
            self.bitswap.attach(host, nursery, lambda peer: self.links.get(peer) is not None)
            self.links.meet, self.links.stays = self.bitswap.meet, self.bitswap.stays
        self.links.attach(host, nursery)
        self.content.attach(host, nursery, discovery.reach)
        self.indexes.attach(host, nursery)
        nursery.start_soon(self.own_index.run, host)
        nursery.start_soon(self.kubo.run)
        self.models.attach(host, nursery)
        self.guests.attach(host, self.links)
        if self.gatekeeper is not None:
            nursery.start_soon(self.gatekeeper.run, host)
        nursery.start_soon(discovery.run)
        nursery.start_soon(self.swarm.run)
        nursery.start_soon(self.reach.run, host)
        self._look_nearby(nursery, host, discovery)
        nursery.start_soon(self._watch_lateness)
        nursery.start_soon(self.space.watch)
        nursery.start_soon(self.upkeep.watch)
        nursery.start_soon(self.labour.run)
        backstage = Backstage(self)
        await nursery.start(backstage.control_door(socket_path(self.home)).serve)
        await backstage.http.open(nursery)
        self.http = backstage.http
        # Python's cycle collector stalls the loop by up to 50 ms in a process with libp2p imported; what exists now
        # stays, and is not looked at again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)

    def _look_nearby(self, nursery: trio.Nursery, host: Host, discovery: Discovery) -> None:
        """Multicast DNS, unless the operator said no or this node is for its own machine alone."""
        addresses = host.addresses()
        wanted = self.config.mdns
        if wanted is False or (wanted == "auto" and not any(local_ip(address) for address in addresses)):
            return

        from dimnode.p2p.mdns import LocalNetwork  # zeroconf takes a while to import, and most nodes never need it

        def found(hints: list[str]) -> None:
            for peer in host.hint(hints):
                discovery.want(PeerId(peer))

        nursery.start_soon(LocalNetwork(self.me, self.net, found, self.limits.reach).run, addresses)

    def _entrances(self) -> tuple[str, ...]:
        """Where to knock first: what the operator says, and what the invitation to the swarm said."""
        invited = self.gatekeeper.swarm.state.addresses if self.gatekeeper else []
        mine = f"/p2p/{peer_text(self.me)}"
        return (*self.config.bootstrap, *(address for address in invited if not address.endswith(mine)))

    async def _loop(self, effects: list[Any]) -> None:
        try:
            await self.loop.start(effects)
            await self.loop.run()
        finally:
            self.loop.diary.write()

    async def _wait_for_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self.stop.set()

    async def _watch_lateness(self) -> None:
        """How late a short sleep ends is how long the loop keeps every stream waiting."""
        passes = 0
        while True:
            # An idle node wakes up once a second for all that it looks at; a loop that works is looked at more often.
            nap_seconds = 1.0 if self.loop.passes == passes else 0.25
            passes, due = self.loop.passes, tick_after(nap_seconds)
            await trio.sleep_until(due)
            self.watchers.late((trio.current_time() - due) * 1000)

    def background(self) -> trio.Nursery:
        """Where what lives as long as the host may be started."""
        assert self._nursery is not None
        return self._nursery

    def _ready(self) -> Ready:
        assert self.host is not None
        url = self.http.url if self.http is not None else ""
        addresses = tuple(self.host.addresses())
        fault = self.pool.stats().failure if self.pool is not None else ""
        return Ready(self.me, addresses, socket_path(self.home), self.swarm.sandbox, self.swarm_name, url, fault)

    @property
    def swarm_name(self) -> str:
        """What the founder called the swarm that this node is in."""
        return self.gatekeeper.swarm.book.name if self.gatekeeper else OPEN_SWARM_NAME

    # ---- peers

    async def hear_notices(self, records: Iterable[Record], teller: PeerId) -> None:
        """Grants and withdrawals that somebody told: those that concern this node go into the journal."""
        news = [record for record in records if self.registry.hear_notice(record, teller)]
        if news:
            await self.journal.commit({"records": [(r.kind, r.id, b"", 0, 0, r.envelope) for r in news]})
            self.swarm.renew_advert()  # what was withdrawn is offered no longer

    def _link(self, peer: PeerId, up: bool) -> None:
        self.swarm.link(peer, up)
        if up:
            self.own_index.met()
        if self.discovery is not None and up:
            self.discovery.met(peer)
        elif self.discovery is not None and self.links.was_lost(peer):
            self.discovery.lost(peer)
        # Not through the peers' lane: it may be full just then, and ups and downs must keep their order.
        self.inbox.put_local(PeerUp(peer) if up else PeerDown(peer))

    def _granted_blob(self, cid: Cid) -> bytes | None:
        return self.vault.get(cid) or self.journal.blob(cid)

    # ---- small hooks of the loop

    def _spec_of(self, job: RecordId) -> Mapping[str, Any] | None:
        found = self.engine.owner.book.find(job)
        return None if found is None else found.spec

    def _manifests_of(self, append: Append) -> Rows:
        """Manifests of the models that a spec names, so that the journal can always make its receipt."""
        job = self.engine.owner.book.find(append.id)
        models = [task["model"] for task in job.spec["tasks"] if "model" in task] if job else []
        return {"records": [("manifest", r.id, b"", 0, 0, r.envelope) for r in self.registry.unkept(models)]}

    def _note(self, note: Note) -> None:
        self.watchers.note(note)
        if note.what == "submitted":
            self.performer.diary.job_began(note.job)
            job = self.engine.owner.book.find(note.job)
            self.swarm.opened(note.job, job is not None and job.spec["visibility"] == "swarm")
        elif note.what in VERDICT_STATUS:
            self.performer.diary.job_ended(note.job, note.what)
            self.swarm.job_state(note.job, note.what)


def _engine_limits(config: Config, limits: Limits) -> Limits:
    """A lease lasts at most as long as a run may take here, and one time to live for the way and the queue."""
    most = config.task_timeout_seconds + limits.jobs.lease_ttl_ms / 1000
    return replace(limits, jobs=replace(limits.jobs, lease_seconds_max=most))
