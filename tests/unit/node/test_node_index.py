"""A node's own index is on its disk before it is told; another's is believed only as far as its signatures go."""

import io
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.content import Content
from dimnode.node.indexes import Found, Indexes
from dimnode.node.own_index import INDEX_PIN, OwnIndex
from dimnode.node.registry import Registry
from dimnode.p2p.host.names import Heard
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import TREE_PREFIX, Cid, PeerId, blob_cid
from dimnode.records.index import path_of, read_index, write_index
from dimnode.records.ipns import Name, open_name, seal_name
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.store.blobs import BlobStore
from dimnode.store.home import prepare_home
from dimnode.store.journal import Journal

KEY, READER, THIEF = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
QUICK = replace(LIMITS, index=replace(LIMITS.index, change_seconds_min=0.0, again_seconds=0.01, heard_per_checkpoint=2))


class Crash(Exception):
    """The process ended here."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sealed(by: SigningKey, kind: str, of_version: int = 1, **body: Any) -> Record:
    _, payload = compose(kind, {"net": OPEN_SWARM_ID, "by": by.peer, "at_ms": 1}, body, version=of_version)
    return open_record(seal(by, kind, payload, of_version), kind=kind)


def manifest(name: str, by: SigningKey = KEY, access: str = "public") -> Record:
    body: dict[str, Any] = {"name": name, "version": "1", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": []}
    body |= {"outputs": [], "labels": [], "licence": "", "origin": "trained", "access": access}
    return sealed(by, "manifest", 2, **body, files=[["a.onnx", "model", blob_cid(b"a"), 1]])


def withdrawal(of: Record, by: SigningKey = KEY) -> Record:
    return sealed(by, "withdraw", subject=of.id, reason="")


class Disk:
    """One home over several lives of a node."""

    def __init__(self, home: Path) -> None:
        prepare_home(home)
        self.journal, self.store = Journal(home / "j.db"), BlobStore(home, 1 << 30)
        self.content = Content(self.store, QUICK)

    def row(self) -> tuple[int, bytes] | None:
        rows = self.journal.rows("SELECT sequence, record FROM names")
        return (rows[0][0], rows[0][1]) if rows else None

    def pinned(self) -> list[Cid]:
        return [root for root, reasons in self.store.pins().items() if INDEX_PIN in reasons]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "home")
    with found.journal, found.store:
        yield found


class Dht:
    """A host whose DHT takes what it is given, or says what it was told to say."""

    def __init__(self, kept_by: int = 8) -> None:
        self.kept_by, self.newer = kept_by, b""
        self.told: list[bytes] = []
        self.before: Callable[[bytes], None] = lambda raw: None
        self.heard = Heard()
        self.peer: bytes = READER.peer

    async def dht_publish(self, raw: bytes) -> tuple[int, Heard]:
        self.before(raw)
        self.told.append(raw)
        name = open_name(self.newer, KEY.peer, 0) if self.newer else None
        return self.kept_by, Heard(name, self.newer)

    async def dht_resolve(self, publisher: PeerId) -> Heard:
        return self.heard


def lives(
    disk: Disk, dht: Dht, published: Sequence[Record], gone: Sequence[Record] = (), until_told: int = 1
) -> OwnIndex:
    """A node lives until it has told so often."""
    own = OwnIndex(KEY, OPEN_SWARM_ID, disk.journal, disk.content, lambda: (published, gone), QUICK)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own.run, dht)
            with trio.fail_after(60):
                while len(dht.told) < until_told:  # noqa: ASYNC110 - what is waited for is what a peer would see
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()

    trio.run(run)
    return own


def said(raw: bytes) -> Name:
    return open_name(raw, KEY.peer, now_ms())


def test_the_number_and_the_index_are_on_the_disk_before_anybody_hears_of_them(disk: Disk) -> None:
    dht, seen = Dht(), []

    def look(raw: bytes) -> None:
        found = disk.row()
        root = blob_cid(write_index(KEY.peer, OPEN_SWARM_ID, [manifest("m")], []))
        seen.append((found == (said(raw).sequence, raw), disk.store.find(root) is not None))

    dht.before = look
    own = lives(disk, dht, [manifest("m")])
    assert seen == [(True, True)]
    assert own.root is not None
    index = read_index(disk.store.read(own.root, 0, 1 << 20), KEY.peer, OPEN_SWARM_ID)
    assert [record.id for record in index.manifests] == [manifest("m").id]
    left_ms = said(dht.told[0]).valid_until_ms - now_ms()
    assert 10 * 60_000 < left_ms <= 30 * 60_000


def test_a_crash_between_the_disk_and_the_network_gives_no_number_away_twice(disk: Disk) -> None:
    dht = Dht()

    def crash(raw: bytes) -> None:
        raise Crash

    dht.before = crash
    with pytest.raises(BaseExceptionGroup) as caught:
        lives(disk, dht, [manifest("m")])
    assert caught.group_contains(Crash)
    written = disk.row()
    assert written is not None
    after = Dht()
    lives(disk, after, [manifest("m")])
    assert after.told == [written[1]], "the same record, as it was signed"
    changed = Dht()
    lives(disk, changed, [manifest("m"), manifest("n")])
    assert said(changed.told[0]).sequence == written[0] + 1


def test_a_disk_that_takes_nothing_lets_nothing_out(disk: Disk) -> None:
    async def full(rows: Any) -> None:
        raise Crash

    disk.journal.commit = full  # type: ignore[method-assign]
    dht = Dht()
    with pytest.raises(BaseExceptionGroup):
        lives(disk, dht, [manifest("m")])
    assert dht.told == []


def test_a_disk_that_forgot_its_number_hears_it_from_others(disk: Disk) -> None:
    dht = Dht()
    dht.newer = seal_name(KEY, Name(path_of(blob_cid(b"lost")), 41, now_ms() + 60_000, 0))
    lives(disk, dht, [manifest("m")], until_told=2)
    assert [said(raw).sequence for raw in dht.told] == [1, 42]


def test_who_publishes_nothing_tells_nothing_and_who_withdrew_all_says_so(disk: Disk) -> None:
    quiet = Dht()
    with pytest.raises(trio.TooSlowError):
        trio.run(_briefly, disk, quiet)
    assert quiet.told == []
    dht, only = Dht(), manifest("m")
    lives(disk, dht, [only])
    own = lives(disk, dht, [], [withdrawal(only)], until_told=2)
    assert own.root is not None
    index = read_index(disk.store.read(own.root, 0, 1 << 20), KEY.peer, OPEN_SWARM_ID)
    assert (index.manifests, index.withdrawals) == ((), (withdrawal(only),))
    assert disk.pinned() == [own.root], "the one before it was let go"
    assert [blob.root for blob in disk.store.all()] == [own.root], "and is of no use to anybody any more"


async def _briefly(disk: Disk, dht: Dht) -> None:
    own = OwnIndex(KEY, OPEN_SWARM_ID, disk.journal, disk.content, lambda: ([], []), QUICK)
    with trio.fail_after(0.05):
        await own.run(dht)  # type: ignore[arg-type]


def test_the_same_record_is_told_again_while_nobody_keeps_it_and_a_new_one_when_it_ages(disk: Disk) -> None:
    dht = Dht(kept_by=0)
    own = lives(disk, dht, [manifest("m")], until_told=3)
    assert len(set(dht.told)) == 1
    old = Name(path_of(own.root or Cid(b"")), 9, now_ms() + 19 * 60_000, 0)
    trio.run(disk.journal.commit, {"names": [("index", 9, seal_name(KEY, old))]})
    later = Dht()
    lives(disk, later, [manifest("m")])
    assert said(later.told[0]).sequence == 10
    assert said(later.told[0]).valid_until_ms > old.valid_until_ms


def test_while_few_keep_the_record_a_new_peer_is_brought_it_at_once(disk: Disk) -> None:
    dht = Dht(kept_by=1)
    own = OwnIndex(KEY, OPEN_SWARM_ID, disk.journal, disk.content, lambda: ([manifest("m")], []), QUICK)
    dht.before = lambda _: own.met() if len(dht.told) < 2 else None

    async def run() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(own.run, dht)
                while len(dht.told) < 2:  # noqa: ASYNC110 - what is waited for is what a peer would see
                    await trio.sleep(0.005)
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert len(set(dht.told)) == 1


def test_only_what_everybody_may_hear_of_is_in_the_index(disk: Disk) -> None:
    registry = Registry(KEY.peer, OPEN_SWARM_ID, disk.journal)
    mine = {access: manifest(access, access=access) for access in ("public", "restricted", "private")}
    gone, hidden = manifest("gone"), manifest("hidden", access="private")
    for record in (*mine.values(), gone, hidden, manifest("another's", THIEF)):
        registry.keep(record)
    for record in (gone, hidden):
        registry.hear_notice(withdrawal(record), KEY.peer)
    listed, ended = registry.published()
    assert {record.id for record in listed} == {mine["public"].id, mine["restricted"].id}
    assert [record.payload["subject"] for record in ended] == [gone.id]


# ---- another's index


class Reading:
    """A reader whose blobs come from `blobs`, whoever has them."""

    def __init__(self, disk: Disk) -> None:
        self.dht, self.disk, self.blobs, self.fetched = Dht(), disk, {}, 0
        self.registry = Registry(READER.peer, OPEN_SWARM_ID, disk.journal)
        self.indexes = Indexes(OPEN_SWARM_ID, self.registry, disk.content, QUICK)
        self.blobs: dict[Cid, bytes] = {}
        disk.content.fetch = self._fetch  # type: ignore[method-assign, assignment]
        self.indexes.notices = self._notices
        self.nursery: Any = None

    async def _fetch(self, root: Cid, size: int | None, hints: Sequence[PeerId]) -> None:
        self.fetched += 1
        if root not in self.blobs:
            raise Refused("E-p2p-61", "no peer hands it out", "")
        self.disk.store.add(io.BytesIO(self.blobs[root]), name_whole=True)

    async def _notices(self, records: Sequence[Record], teller: PeerId) -> None:
        for record in records:
            self.registry.hear_notice(record, teller)

    def offers(self, raw: bytes, sequence: int = 1, life_ms: int = 60_000, ttl_ms: int = 0) -> None:
        """The DHT names this blob, and it is to be had."""
        self.blobs[blob_cid(raw)] = raw
        self.names(path_of(blob_cid(raw)), sequence, life_ms, ttl_ms)

    def names(self, value: str, sequence: int = 1, life_ms: int = 60_000, ttl_ms: int = 0) -> None:
        name = Name(value, sequence, now_ms() + life_ms, ttl_ms)
        self.dht.heard = Heard(name) if life_ms > 0 else Heard(over=name)

    def resolve(self) -> Found:
        async def ask() -> Found:
            async with trio.open_nursery() as nursery:
                self.indexes.attach(self.dht, nursery)  # type: ignore[arg-type]
                return await self.indexes.resolve(KEY.peer)
            raise AssertionError

        return _run(ask)

    def code(self) -> str:
        with pytest.raises(Refused) as caught:
            self.resolve()
        return caught.value.complaint.code


def _run(ask: Callable[[], Awaitable[Found]]) -> Found:
    try:
        return trio.run(ask)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.fixture
def reading(disk: Disk) -> Reading:
    return Reading(disk)


def index(*manifests: Record, gone: Sequence[Record] = ()) -> bytes:
    return write_index(KEY.peer, OPEN_SWARM_ID, manifests, gone)


def test_an_index_is_read_into_the_registry_and_its_withdrawals_count(reading: Reading) -> None:
    old, new = manifest("old"), manifest("new")
    reading.offers(index(old, new))
    assert reading.resolve().index.manifests == tuple(sorted((old, new), key=lambda record: record.id))
    assert reading.registry.find("old").id == old.id
    reading.offers(index(new, gone=[withdrawal(old)]), sequence=2)
    assert [record.id for record in reading.resolve().index.manifests] == [new.id]
    with pytest.raises(Refused, match="E-models-24"):
        reading.registry.find("old")


def test_each_reason_why_an_index_is_not_to_be_had_has_its_code(reading: Reading) -> None:
    assert reading.code() == "E-models-42"
    reading.names(path_of(blob_cid(b"x")), life_ms=-1)
    assert reading.code() == "E-models-43"
    for value in (path_of(Cid(TREE_PREFIX + bytes(32))), "/ipns/x", "", "/ipfs/QmX"):
        reading.names(value)
        assert reading.code() == "E-models-44"
    reading.offers(bytes((1 << 20) + 1))
    assert reading.code() == "E-models-44", "a plain CID may be another name of a larger file that is here"
    reading.names(path_of(blob_cid(b"nobody has it")))
    assert reading.code() == "E-models-45"
    for lie in (b"no index", index(manifest("m", THIEF)), write_index(THIEF.peer, OPEN_SWARM_ID, [], [])):
        reading.offers(lie)
        assert reading.code() == "E-models-46"
    assert reading.registry.manifests == {}


def test_an_older_record_never_replaces_the_newer_one_that_is_known(reading: Reading) -> None:
    reading.offers(index(manifest("new")), sequence=2)
    newest = reading.resolve()
    reading.offers(index(manifest("old")), sequence=1)
    assert reading.resolve().name == newest.name
    reading.dht.heard = Heard()
    assert reading.resolve().name == newest.name, "valid until it ends, whoever is there"


def test_it_is_asked_again_only_after_the_records_own_time(reading: Reading) -> None:
    reading.offers(index(manifest("m")), ttl_ms=60_000)
    first = reading.resolve()
    reading.offers(index(manifest("n")), sequence=2)
    assert reading.resolve() == first


def test_an_index_is_served_while_its_record_is_valid_and_no_other_blob_by_its_name(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = b"the operator's own"
    reading.disk.store.add(io.BytesIO(secret))
    reading.offers(secret)
    assert reading.code() == "E-models-46"
    assert not reading.disk.content.may_fetch(THIEF.peer, blob_cid(secret))
    raw = index(manifest("m"))
    reading.offers(raw, sequence=2)
    reading.resolve()
    assert reading.disk.content.may_fetch(THIEF.peer, blob_cid(raw))
    later = now_ms() + 61_000
    monkeypatch.setattr("dimnode.node.indexes.wall_ms", lambda: later)
    assert not reading.disk.content.may_fetch(THIEF.peer, blob_cid(raw))


@pytest.mark.parametrize(("linked", "kept"), [(True, 1), (False, 0)])
def test_the_index_of_a_linked_publisher_is_kept_for_others(reading: Reading, linked: bool, kept: int) -> None:
    raw = index(manifest("m"))
    reading.offers(raw)
    reading.indexes.linked = lambda _: linked

    async def told() -> None:
        async with trio.open_nursery() as nursery:
            reading.indexes.attach(reading.dht, nursery)  # type: ignore[arg-type]
            for sequence in (1, 1, 2):  # the same blob each time
                reading.indexes.told(KEY.peer, Name(path_of(blob_cid(raw)), sequence, now_ms() + 60_000, 0))
            with trio.fail_after(60):
                while len(reading.indexes.publishers()) < kept:  # noqa: ASYNC110 - a thread does the work
                    await trio.sleep(0.005)
            longer = Name(path_of(blob_cid(raw)), 3, now_ms() + 90_000, 0)
            reading.indexes.told(KEY.peer, longer)
            assert [known.name for known in reading.indexes._known.values()] == [longer] * kept
            nursery.cancel_scope.cancel()

    trio.run(told)
    assert (reading.indexes.publishers(), reading.fetched) == ([KEY.peer] * kept, kept)


def test_strangers_that_come_and_go_leave_no_more_work_than_there_is_room_for(reading: Reading) -> None:
    """Each key links, puts a record and leaves; whoever hands out an index, stalls."""

    asked = trio.Event()

    async def stall(root: Cid, size: int | None, hints: Sequence[PeerId]) -> None:
        reading.fetched += 1
        asked.set()
        await trio.sleep_forever()

    reading.disk.content.fetch = stall  # type: ignore[method-assign, assignment]
    linked: set[PeerId] = set()
    reading.indexes.linked = linked.__contains__

    async def told(clock: trio.testing.MockClock) -> None:
        async with trio.open_nursery() as nursery:
            reading.indexes.attach(reading.dht, nursery)  # type: ignore[arg-type]
            for number in range(4 * LIMITS.index.kept_max):
                stranger = SigningKey.from_seed(number.to_bytes(32, "big")).peer
                linked.add(stranger)
                reading.indexes.told(stranger, Name(path_of(blob_cid(stranger)), 1, now_ms() + 60_000, 0))
                linked.discard(stranger)
            assert len(nursery.child_tasks) <= LIMITS.index.kept_max
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(LIMITS.index.fetch_gap_seconds + 1)
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.child_tasks, "nobody waits for those who left"
            linked.add(KEY.peer)
            reading.indexes.told(KEY.peer, Name(path_of(blob_cid(b"x")), 1, now_ms() + 60_000, 0))
            await asked.wait()
            assert reading.fetched == 1
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock()
    trio.run(told, clock, clock=clock)


def test_only_few_publishers_are_looked_for_at_once(reading: Reading) -> None:
    walking: list[PeerId] = []
    most = 0

    class Walking(Dht):
        async def dht_resolve(self, publisher: PeerId) -> Heard:
            nonlocal most
            walking.append(publisher)
            most = max(most, len(walking))
            await trio.testing.wait_all_tasks_blocked()
            walking.remove(publisher)
            return Heard()

    async def ask(publisher: PeerId) -> None:
        with pytest.raises(Refused, match="E-models-42"):
            await reading.indexes.resolve(publisher)

    async def crowd() -> None:
        async with trio.open_nursery() as nursery:
            reading.indexes.attach(Walking(), nursery)  # type: ignore[arg-type]
            for number in range(20):
                nursery.start_soon(ask, SigningKey.from_seed(bytes([number]) * 32).peer)

    trio.run(crowd)
    assert most == LIMITS.index.walks_at_once_max


def test_what_a_publisher_put_here_counts_before_its_turn_comes(reading: Reading) -> None:
    old, new = index(manifest("old")), index(manifest("new"))
    reading.indexes.linked = lambda _: True
    reading.offers(old, ttl_ms=60_000)
    assert reading.resolve().root == blob_cid(old)
    reading.blobs[blob_cid(new)] = new
    reading.indexes._told[KEY.peer] = Name(path_of(blob_cid(new)), 2, now_ms() + 60_000, 0)
    assert reading.resolve().root == blob_cid(new)


def test_indexes_of_many_linked_publishers_are_read_at_a_pace(reading: Reading) -> None:
    """Each may name hundreds of manifests, whose signatures are checked."""
    reading.indexes.linked = lambda _: True
    crowd = [SigningKey.from_seed(bytes([number]) * 32) for number in range(10, 18)]

    async def told(clock: trio.testing.MockClock) -> None:
        async with trio.open_nursery() as nursery:
            reading.indexes.attach(reading.dht, nursery)  # type: ignore[arg-type]
            for key in crowd:
                raw = write_index(key.peer, OPEN_SWARM_ID, [manifest(f"m{n}", key) for n in range(5)], [])
                reading.blobs[blob_cid(raw)] = raw
                reading.indexes.told(key.peer, Name(path_of(blob_cid(raw)), 1, now_ms() + 60_000, 0))
            for turns in range(1, 5):
                most = turns * LIMITS.index.fetches_at_once_max
                while len(reading.indexes.publishers()) < most:
                    await trio.testing.wait_all_tasks_blocked(0.005)
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert len(reading.indexes.publishers()) == most
                clock.jump(LIMITS.index.turn_seconds_min)
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock()
    trio.run(told, clock, clock=clock)
    assert len(reading.registry.manifests) == 5 * len(crowd)


def test_of_a_publisher_only_the_newest_index_stays_on_the_disk(reading: Reading) -> None:
    mine = b"a blob of the operator's own, which is no index"
    reading.disk.store.add(io.BytesIO(mine))
    for sequence, raw in enumerate([index(manifest("a")), index(manifest("b")), b"no index", mine], 1):
        reading.offers(raw, sequence)
        with suppress(Refused):
            reading.resolve()
    left = {blob.root for blob in reading.disk.store.all()}
    assert left == {blob_cid(index(manifest("b"))), blob_cid(mine)}
    assert not reading.disk.store._held


def test_a_record_that_is_read_late_does_not_displace_the_newer_one(reading: Reading) -> None:
    old, new = index(manifest("old")), index(manifest("new"))
    reading.offers(old)
    reading.offers(new, sequence=2)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            reading.indexes.attach(reading.dht, nursery)  # type: ignore[arg-type]
            await reading.indexes.resolve(KEY.peer)
            await reading.indexes._read(KEY.peer, Name(path_of(blob_cid(old)), 1, now_ms() + 60_000, 0), [])

    trio.run(both)
    assert [known.root for known in reading.indexes._known.values()] == [blob_cid(new)]
    assert not reading.disk.content.may_fetch(THIEF.peer, blob_cid(old))


def test_a_small_swarm_that_keeps_the_record_is_left_alone_for_minutes(disk: Disk) -> None:
    """Everybody there is keeps it, and those are fewer than in a large swarm; who comes is brought it at once."""
    dht = Dht(kept_by=5)
    own = OwnIndex(KEY, OPEN_SWARM_ID, disk.journal, disk.content, lambda: ([manifest("m")], []), LIMITS)

    async def twice() -> tuple[float, float]:  # the second time for news of something else
        return await own._round(dht), await own._round(dht)  # type: ignore[arg-type]

    first, second = trio.run(twice)
    assert 240 <= first <= LIMITS.index.renew_seconds and 0 < second <= first
    assert len(dht.told) == 1
