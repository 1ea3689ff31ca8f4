"""Who is served a model's files: what a lease opens, and what somebody who saw it cannot open."""

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from dimnode.config import Config
from dimnode.errors import ConfigError, Refused
from dimnode.jobs.effects import Run
from dimnode.limits import LIMITS
from dimnode.node.begun import Begun
from dimnode.node.clock import wall_ms
from dimnode.node.content import Content
from dimnode.node.for_others import ForOthers
from dimnode.node.library import Library
from dimnode.node.model_orders import LocalModel
from dimnode.node.models import Models
from dimnode.p2p.host.streams import StreamLost
from dimnode.p2p.models import serve_models
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.store.blob_book import BOOK_FILE, Blob
from dimnode.store.blobs import BlobStore
from dimnode.store.home import prepare_home
from dimnode.store.journal import Journal
from dimnode.store.vault import Vault

HOLDER, PUBLISHER, FRIEND, EXECUTOR, THIEF = (SigningKey.from_seed(bytes([n]) * 32) for n in range(1, 6))
CONTENT = b"the weights"
ROOT = blob_cid(CONTENT)


def signed(key: SigningKey, kind: str, of_version: int = 1, **body: Any) -> Record:
    common = {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": body.pop("at_ms", wall_ms())}
    _, payload = compose(kind, common, body, version=of_version)
    return open_record(seal(key, kind, payload, of_version), kind=kind)


def manifest(access: str = "restricted", by: SigningKey = PUBLISHER, *contents: bytes) -> Record:
    body: dict[str, Any] = {"name": "m", "version": "1", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": []}
    body |= {"outputs": [], "labels": [], "licence": "", "origin": "trained", "access": access}
    files = [
        [f"{n}.onnx", "model", blob_cid(content), len(content)] for n, content in enumerate(contents or (CONTENT,))
    ]
    return signed(by, "manifest", 2, **body, files=files)


MODEL = manifest()


@pytest.fixture
def models(tmp_path):
    home = tmp_path / "home"
    prepare_home(home)
    with Journal(home / "j.db") as journal, BlobStore(home, 1 << 30) as blobs:
        library = Library(home, HOLDER, OPEN_SWARM_ID, journal, blobs)
        (tmp_path / "w").write_bytes(CONTENT)
        blobs.add(tmp_path / "w")
        assert trio.run(library.keep, MODEL)
        yield Models(library, Content(blobs, LIMITS), Vault(), Config(), LIMITS)


def spec(by: SigningKey = FRIEND, model: RecordId = MODEL.id) -> Record:
    body: dict[str, Any] = {"pattern": "chained", "tasks": [{"op": "infer", "model": model}], "inputs": []}
    body |= {"tier": "signed", "rule": {"method": "first"}, "deadline_ms": 1000, "priority": "normal"}
    return signed(by, "spec", **body, visibility="swarm", nonce=bytes(16))


def lease(job: Record, by: SigningKey = FRIEND, executor: PeerId = EXECUTOR.peer, **more: Any) -> Record:
    body: dict[str, Any] = {"job": job.id, "task": 0, "epoch": 1, "executor": executor, "ttl_ms": 1000, "inputs": []}
    return signed(by, "lease", **body | more)


def grant(peer: SigningKey = FRIEND, by: SigningKey = PUBLISHER, **more: Any) -> Record:
    return signed(by, "grant", **{"peer": peer.peer, "models": [MODEL.id], "operations": ["fetch", "infer"]} | more)


def opens(models: Models, peer: SigningKey, *shown: Record) -> bool:
    """Whether what a peer shows lets it have the file."""

    async def asked() -> bool:
        code = ""
        try:
            await models.answer(peer.peer, "permit", MODEL.id, [record.envelope for record in shown])
        except Refused as no:
            code = no.complaint.code
        served = models.leave.may_fetch(peer.peer, ROOT)
        assert served == (not code)
        assert served or code.startswith("E-models-2")
        return served

    return trio.run(asked)


def test_a_lease_and_a_grant_count_for_more_than_everybodys_leave(models) -> None:
    async def owed() -> list[bool]:
        before = models.leave.owed(EXECUTOR.peer, ROOT)
        models.leave.leased(EXECUTOR.peer, PUBLISHER.peer, [MODEL.id])
        return [before, *(models.leave.owed(peer.peer, ROOT) for peer in (EXECUTOR, FRIEND, PUBLISHER))]

    assert opens(models, FRIEND, grant())
    assert trio.run(owed) == [False, True, True, False]


def test_a_file_is_served_to_the_publisher_to_a_grant_and_to_the_executor_of_a_lease(models) -> None:
    assert opens(models, PUBLISHER)
    assert not opens(models, FRIEND)
    job = spec()
    assert opens(models, EXECUTOR, lease(job), job, grant())
    assert opens(models, FRIEND, grant())
    assert not opens(models, THIEF)


def test_a_lease_of_somebody_without_a_grant_opens_nothing(models) -> None:
    job = spec()
    assert not opens(models, EXECUTOR, lease(job), job)
    assert not opens(models, EXECUTOR, lease(job), job, grant(operations=["infer"]))
    assert not opens(models, EXECUTOR, lease(job), job, grant(expires_ms=1))
    assert not opens(models, EXECUTOR, lease(job), job, grant(by=THIEF))


def test_who_has_seen_a_spec_leases_the_files_to_nobody(models) -> None:
    job, own = spec(), spec(THIEF)
    assert not opens(models, EXECUTOR, lease(job, THIEF), job, grant())  # leased by a stranger
    assert not opens(models, THIEF, lease(job), job, grant())  # another executor's lease
    assert not opens(models, EXECUTOR, lease(job), own, grant())  # another job's lease
    assert not opens(models, EXECUTOR, lease(own, THIEF), own, grant())
    other = spec(model=RecordId(OPEN_SWARM_ID))
    assert not opens(models, EXECUTOR, lease(other), other, grant())  # another model
    assert not opens(models, EXECUTOR, lease(job, at_ms=wall_ms() - 3_600_000), job, grant())  # an old lease
    assert not opens(models, EXECUTOR, lease(job, task=5), job, grant())


def test_a_withdrawn_model_is_served_to_nobody_that_a_lease_or_grant_lets(models) -> None:
    job = spec()
    assert opens(models, EXECUTOR, lease(job), job, grant())
    models._registry.hear_notice(signed(PUBLISHER, "withdraw", subject=MODEL.id, reason=""), PUBLISHER.peer)
    for peer in (EXECUTOR, FRIEND, PUBLISHER):
        assert not opens(models, peer, lease(job), job, grant())


@pytest.mark.parametrize("whose", ["submitter", "lessor"])
def test_what_a_lease_opened_ends_with_the_grant_on_which_it_stands(models, whose) -> None:
    job, first, second = spec(), grant(), grant(THIEF)  # THIEF: here a coordinator, who may have the files itself
    back = signed(PUBLISHER, "withdraw", subject=(first if whose == "submitter" else second).id, reason="")

    async def served() -> list[bool]:
        shown = [record.envelope for record in (lease(job, THIEF), job, first, second)]
        await models.answer(EXECUTOR.peer, "permit", MODEL.id, shown)
        before = models.leave.may_fetch(EXECUTOR.peer, ROOT), models.leave.owed(EXECUTOR.peer, ROOT)
        models._registry.hear_notice(back, PUBLISHER.peer)
        return [*before, models.leave.may_fetch(EXECUTOR.peer, ROOT), models.leave.owed(EXECUTOR.peer, ROOT)]

    assert trio.run(served) == [True, True, False, False]
    assert not opens(models, EXECUTOR, lease(job, THIEF), job)


def test_a_lease_of_another_submitter_still_opens_what_the_first_may_have_no_more(models) -> None:
    first, second = spec(FRIEND), spec(THIEF)
    given = grant(FRIEND), grant(THIEF)
    back = signed(PUBLISHER, "withdraw", subject=given[1].id, reason="")

    async def served() -> bool:
        for key, job in ((FRIEND, first), (THIEF, second)):
            shown = [record.envelope for record in (lease(job, key), job, *given)]
            await models.answer(EXECUTOR.peer, "permit", MODEL.id, shown)
        models._registry.hear_notice(back, PUBLISHER.peer)
        return models.leave.may_fetch(EXECUTOR.peer, ROOT)

    assert trio.run(served)


@pytest.mark.parametrize(
    ("setting", "private", "own", "others"),
    [
        ("never", True, False, False),
        ("own", True, True, False),
        ("members", False, True, False),
        ("members", True, True, True),
        ("anyone", False, True, True),
    ],
)
def test_the_operator_says_for_whom_models_are_fetched(models, setting, private, own, others) -> None:
    models._config, models.private = Config(fetch_models=setting), private
    assert (models.fetch_problem(MODEL.id, HOLDER.peer) is None) == own == bool(models.fetches_bytes(own=True))
    assert (models.fetch_problem(MODEL.id, THIEF.peer) is None) == others == bool(models.fetches_bytes(own=False))


def test_a_model_beyond_the_operators_bound_is_not_fetched(models) -> None:
    models._config = Config(fetch_models="anyone", fetch_model_gb_max=0)
    assert models.fetch_problem(MODEL.id, THIEF.peer).complaint.code == "E-models-32"


def pulled(
    models: Models,
    record: Record,
    contents: Sequence[bytes],
    first: Callable[[], None] = lambda: None,
    for_others: bool = False,
) -> str:
    """Pull a model when a place beside the peers has some of its files: the code of the refusal, if there is one."""
    store = models._content.store

    async def source(root: Cid, _size: int | None, _tell: Callable[[int, int], None]) -> bool:
        first()
        models._holders_of(root)  # as the exchange asks again and again
        for content in contents:
            if blob_cid(content) == root:
                await trio.to_thread.run_sync(store.add, io.BytesIO(content))
                return True
        raise Refused("E-p2p-61", "nobody has it", "")

    async def pull() -> str:
        async with trio.open_nursery() as nursery:
            models._content._nursery = nursery
            models._content.sources[:] = [source]
            try:
                await models.pull(record.id, for_others=for_others)
            except Refused as no:
                return no.complaint.code
        return ""

    models._registry.hear(record, THIEF.peer)
    return trio.run(pull)


def test_a_model_comes_though_its_manifest_is_displaced_by_others_meanwhile(models) -> None:
    record = manifest("public", PUBLISHER, b"other weights")
    code = pulled(models, record, [b"other weights"], lambda: models._registry.manifests.pop(record.id))
    assert not code and record.id in models._library.models


def test_files_of_a_model_that_never_came_whole_are_kept_by_nothing(models) -> None:
    record = manifest("public", THIEF, b"the first file", b"the second file")
    assert pulled(models, record, [b"the first file"]) == "E-p2p-61"
    store = models._content.store
    assert store.find(blob_cid(b"the first file")) is not None
    store.gc(0)
    assert store.find(blob_cid(b"the first file")) is None
    assert not pulled(models, record, [b"the first file", b"the second file"])
    store.gc(0)
    assert store.find(blob_cid(b"the first file")) is not None
    assert not store._held


def served(models: Models, peer: SigningKey) -> bool:
    async def asked() -> bool:
        return models.leave.may_fetch(peer.peer, ROOT)

    return trio.run(asked)


def test_nobody_opens_a_restricted_file_by_a_public_manifest_of_its_own(models) -> None:
    """A restricted manifest tells everybody the roots of its files; the bytes are here already."""
    copy = manifest("public", THIEF)
    assert pulled(models, copy, []) == "E-models-38"
    assert not served(models, THIEF)
    late = manifest("public", THIEF, CONTENT, b"a second file")  # where they come while the copy is on its way
    assert pulled(models, late, [b"a second file"]) == "E-models-38"
    assert not served(models, THIEF)
    taken_back = signed(PUBLISHER, "withdraw", subject=MODEL.id, reason="")
    models._registry.hear_notice(taken_back, PUBLISHER.peer)
    assert pulled(models, copy, []) == "E-models-38"
    assert not pulled(models, manifest("public"), [])  # its own publisher may, also after taking the first one back
    assert served(models, THIEF)


def test_nor_while_it_comes_or_after_it_came_in_part(models, monkeypatch) -> None:
    closed = manifest("restricted", PUBLISHER, b"the first", b"the second")
    claim = manifest("public", THIEF, b"the first")
    while_it_comes: list[str] = []

    async def shown(*_: object) -> None:
        models._content.store.add(io.BytesIO(b"the first"))
        with pytest.raises(Refused) as no:
            await models.pull(claim.id, for_others=True)
        while_it_comes.append(no.value.complaint.code)

    monkeypatch.setattr(models, "_show", shown)
    models._registry.hear(claim, THIEF.peer)
    assert pulled(models, closed, []) == "E-p2p-61"
    assert while_it_comes == ["E-models-38"]
    assert pulled(models, claim, [], for_others=True) == "E-models-38"
    assert not models.leave.may_fetch(THIEF.peer, blob_cid(b"the first"))
    assert not pulled(models, manifest("public", THIEF, b"another"), [b"another"], for_others=True)


def started_again(models: Models) -> Models:
    """The node after a restart: what its disk says, and nothing else."""
    old, store = models._library, models._content.store
    library = Library(old._home, HOLDER, OPEN_SWARM_ID, old._journal, store)
    return Models(library, Content(store, LIMITS), Vault(), Config(), LIMITS)


def test_nor_after_a_restart_what_came_in_part_or_was_let_go(models, monkeypatch) -> None:
    async def shown(*_: object) -> None: ...

    closed, let_go = manifest("restricted", PUBLISHER, b"the first", b"the second"), MODEL
    monkeypatch.setattr(models, "_show", shown)
    assert pulled(models, closed, [b"the first"]) == "E-p2p-61"
    trio.run(models._library.drop, let_go.id)
    again = started_again(models)
    for part in (b"the first", CONTENT):
        assert again._content.store.find(blob_cid(part)) is not None
        assert pulled(again, manifest("public", THIEF, part), [], for_others=True) == "E-models-38"
    monkeypatch.setattr(again, "_show", shown)
    assert not pulled(again, closed, [b"the first", b"the second"])
    assert [begun.id for begun in again._library.begun] == [let_go.id]  # what came whole is the library's to say
    trio.run(again._library.keep, let_go)
    trio.run(again._library._journal.commit, {})  # it may ride on any later commit
    assert not [*started_again(again)._library.begun]


def test_what_is_remembered_of_begun_pulls_has_a_bound_also_on_the_disk(models) -> None:
    journal = models._library._journal
    closed = [manifest("restricted", PUBLISHER, bytes([number])) for number in range(7)]

    async def note_all(begun: Begun) -> None:
        for record in (manifest("public"), *closed, closed[-1]):
            await begun.note(record)

    trio.run(note_all, Begun(journal, 3))
    for _ in range(2):
        assert [begun.id for begun in Begun(journal, 3)] == [record.id for record in closed[-3:]]
        assert len(journal.rows("SELECT name FROM names")) == 3


def test_what_others_make_a_node_begin_pushes_nothing_of_its_operator_out(models) -> None:
    journal = models._library._journal
    ours, taken_up, *theirs = [manifest("restricted", PUBLISHER, bytes([number])) for number in range(9)]

    async def note_all(begun: Begun) -> None:
        await begun.note(ours)
        await begun.note(taken_up, for_others=True)
        await begun.note(taken_up)  # the operator wants it, too
        for record in (ours, taken_up, *theirs):
            await begun.note(record, for_others=True)

    trio.run(note_all, Begun(journal, 3))
    for _ in range(2):
        assert [begun.id for begun in Begun(journal, 3)] == [each.id for each in (ours, taken_up, *theirs[-3:])]


def test_nor_by_the_other_name_of_a_large_one(models, tmp_path) -> None:
    """A file that came up over HTTP goes by its tree and by the hash of its bytes, which somebody may know."""
    large = b"weights" * 200_000
    (tmp_path / "home" / "w").write_bytes(large)
    store, library = models._content.store, models._library
    kept = store.take_over(tmp_path / "home" / "w")
    body = {"name": "m", "version": "2", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": [], "outputs": []}
    body |= {"labels": [], "licence": "", "origin": "trained", "access": "restricted"}
    theirs = signed(PUBLISHER, "manifest", 2, **body, files=[["0.onnx", "model", kept.root, kept.bytes]])
    assert trio.run(library.keep, theirs) and kept.root != blob_cid(large)
    assert pulled(models, manifest("public", THIEF, large), []) == "E-models-38"
    assert library.models_with(kept.root) == {theirs.id} and not library.models_with(blob_cid(large))
    trio.run(library.drop, theirs.id)
    assert not library.models_with(kept.root)


def asked_to_keep(models: Models, record: Record, told: Callable[[], None], content: bytes = b"") -> int:
    """A stranger wishes that a model be kept, before its manifest was heard: how many files were asked for."""
    fetched: list[Cid] = []

    async def source(root: Cid, _size: int | None, _tell: Callable[[int, int], None]) -> bool:
        fetched.append(root)
        if content:
            await trio.to_thread.run_sync(models._content.store.add, io.BytesIO(content))
            return True
        raise Refused("E-p2p-61", "nobody has it", "")

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            models._nursery = models._content._nursery = nursery
            models._content.sources[:] = [source]
            assert await models.answer(THIEF.peer, "warm", record.id, []) == b"coming"
            told()

    trio.run(ask)
    return len(fetched)


def test_a_wish_before_the_manifest_is_heard_goes_round_no_bound_and_no_policy(models) -> None:
    for size_max, access, fetched in ((2.0, "public", 1), (0.0, "public", 0), (2.0, "restricted", 0)):
        models._config = Config(fetch_models="anyone", fetch_model_gb_max=size_max)
        record = manifest(access, PUBLISHER, f"{size_max} {access}".encode())
        assert asked_to_keep(models, record, lambda told=record: models._registry.hear(told, THIEF.peer)) == fetched
        assert not models._for_others


def test_what_is_offered_changes_in_the_loop_alone_which_reads_it(models) -> None:
    threads: list[int] = []

    class Noting(dict[RecordId, LocalModel]):
        def __setitem__(self, model: RecordId, files: LocalModel) -> None:
            threads.append(threading.get_ident())
            super().__setitem__(model, files)

    models._library.models = Noting()
    assert trio.run(models._library.keep, MODEL)
    assert threads == [threading.get_ident()]


def test_who_comes_while_a_fetch_is_being_stopped_gets_one_of_its_own(models) -> None:
    content, stopping, calls = models._content, trio.Event(), list[Cid]()

    async def source(root: Cid, _size: int | None, _tell: Callable[[int, int], None]) -> bool:
        calls.append(root)
        if len(calls) == 1:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    stopping.set()
                    await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(content.store.add, io.BytesIO(b"wanted"))
        return True

    async def fetched() -> bytes:
        async with trio.open_nursery() as nursery:
            content._nursery, content.sources[:] = nursery, [source]
            with trio.CancelScope() as impatient:
                async with trio.open_nursery() as first:
                    first.start_soon(content.fetch, blob_cid(b"wanted"))
                    await trio.testing.wait_all_tasks_blocked()
                    while not calls:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    impatient.cancel()
            await stopping.wait()
            return (await content.fetch(blob_cid(b"wanted"))).read_bytes()

    assert trio.run(fetched) == b"wanted"


def test_a_damaged_book_of_blobs_refuses_a_fetch_and_ends_no_node(models) -> None:
    content = models._content

    async def source(_root: Cid, _size: int | None, _tell: Callable[[int, int], None]) -> bool:
        raise ConfigError("E-store-37", "the list of blobs is damaged")

    async def fetched() -> None:
        async with trio.open_nursery() as nursery:
            content._nursery, content.sources[:] = nursery, [source]
            await content.fetch(blob_cid(b"wanted"))

    with pytest.RaisesGroup(pytest.RaisesExc(Refused, match="E-store-37")):
        trio.run(fetched)


def damage(store: BlobStore) -> None:
    """Overwrite the open book of blobs from outside, as a failing disk does."""
    database = store._book._database
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (store.folder.parent / BOOK_FILE).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    database.execute("PRAGMA shrink_memory")


def test_a_damaged_book_of_blobs_refuses_a_lease_and_ends_no_node(models) -> None:
    record, told = manifest("public", PUBLISHER, b"wanted"), list[Refused | None]()
    models._config = Config(fetch_models="anyone")
    models._registry.hear(record, FRIEND.peer)
    models.fetched = lambda _, problem: told.append(problem)
    job = spec(model=record.id)
    key, task = (job.id, 0, 1), ((), (), "", (), "normal", FRIEND.peer, False, 1000)
    run = Run(key, RecordId(lease(job).id), FRIEND.peer, FRIEND.peer, "infer", record.id, *task)
    damage(models._content.store)
    with pytest.raises(ConfigError, match="E-store-37"):
        models._content.store.find(blob_cid(b"wanted"))

    async def taken() -> None:
        async with trio.open_nursery() as nursery:
            models._nursery = models._content._nursery = nursery
            models.begin(run)

    trio.run(taken)
    assert [problem.complaint.code for problem in told if problem] == ["E-store-37"]


def test_a_connection_that_breaks_in_a_question_is_no_fault_of_the_peer() -> None:
    class Broken:
        peer = THIEF.peer

        async def read(self, _bytes_max: int) -> bytes:
            raise StreamLost("gone")

    async def nobody(*_: object) -> bytes:
        raise AssertionError("nothing was asked")

    with pytest.raises(StreamLost):
        trio.run(serve_models(nobody), Broken())


def test_models_for_others_stay_within_the_bound_also_after_a_restart(models, tmp_path) -> None:
    models._config, store = Config(fetch_models="anyone"), models._content.store
    first, second = (manifest("public", PUBLISHER, content) for content in (b"twelve bytes", b"another twel"))
    store.bytes_max = 20
    assert asked_to_keep(models, first, lambda: models._registry.hear(first, THIEF.peer), b"twelve bytes") == 1
    assert first.id in models._library.models

    def code(of: Models) -> str:
        of._registry.hear(second, THIEF.peer)
        no = of.fetch_problem(second.id, THIEF.peer)
        assert of.fetch_problem(second.id, HOLDER.peer) is None  # its own wishes have another bound: the disk
        return no.complaint.code if no is not None else ""

    assert code(models) == "E-models-40"
    again = Library(tmp_path / "home", HOLDER, OPEN_SWARM_ID, models._library._journal, store)
    assert code(Models(again, Content(store, LIMITS), Vault(), models._config, LIMITS)) == "E-models-40"
    trio.run(models._library.drop, first.id)
    assert not code(models)


def test_a_model_for_others_that_no_task_ran_for_long_makes_room_for_the_next(models) -> None:
    models._config, library = Config(fetch_models="anyone"), models._library
    now = 0.0
    library.for_others = ForOthers(library._manifest_of, library._stands, lambda: now)
    models._content.store.bytes_max = 30
    contents = [b"twelve bytes", b"another twel", b"a third twel", b"a last one t"]
    kept = [manifest("public", PUBLISHER, content) for content in contents]

    def wanted(number: int) -> bool:
        record = kept[number]
        asked_to_keep(models, record, lambda: models._registry.hear(record, THIEF.peer), contents[number])
        return record.id in library.models

    assert wanted(0) and wanted(1)
    assert not wanted(2)  # both were needed a moment ago
    now = LIMITS.peers.model_for_others_seconds + 1
    library.for_others.used(kept[0].id)
    assert wanted(2) and kept[0].id in library.models and kept[1].id not in library.models
    assert not wanted(3)
    models._registry.hear_notice(signed(PUBLISHER, "withdraw", subject=kept[0].id, reason=""), PUBLISHER.peer)
    assert wanted(3) and kept[0].id not in library.models


@pytest.mark.parametrize("again", [False, True])
def test_a_model_for_others_that_lost_a_file_keeps_no_room_by_the_rest(models, tmp_path, again) -> None:
    library, store = models._library, models._content.store
    two = manifest("public", PUBLISHER, b"the first", b"the second")
    for content in (b"the first", b"the second"):
        store.add(io.BytesIO(content))
    assert trio.run(partial(library.keep, two, for_others=True))
    lost = store.path(blob_cid(b"the second"))
    lost.unlink()
    if again:
        Library(tmp_path / "home", HOLDER, OPEN_SWARM_ID, library._journal, store)
    else:
        assert not trio.run(library.look_again, two)
    assert store.pins(blob_cid(b"the first")) == {}


@pytest.mark.parametrize("said", [1, 1 << 20])
def test_a_manifest_that_lies_about_the_size_of_what_is_here_is_not_kept(models, said) -> None:
    """Models for others have a bound in bytes: gigabytes that are said to be one would stay beside it for good."""
    lie = dict(manifest("public", THIEF, b"twelve bytes").payload)
    lie["files"] = [["0.onnx", "model", blob_cid(b"twelve bytes"), said]]
    common = ("v", "kind", "net", "by", "at_ms")
    record = signed(THIEF, "manifest", 2, **{key: value for key, value in lie.items() if key not in common})
    models._content.store.add(io.BytesIO(b"twelve bytes"))
    assert pulled(models, record, []) == "E-p2p-62"
    assert record.id not in models._library.models and models._content.store.pins(blob_cid(b"twelve bytes")) == {}


def kept_for_others(models: Models, record: Record, content: bytes) -> bool:
    models._config = Config(fetch_models="anyone")
    asked_to_keep(models, record, lambda: models._registry.hear(record, THIEF.peer), content)
    return record.id in models._library.models


def test_a_model_that_a_stranger_had_fetched_decides_no_name(models) -> None:
    library, honest = models._library, manifest("public", PUBLISHER, b"honest")
    models._registry.hear(honest, PUBLISHER.peer)
    assert kept_for_others(models, manifest("public", THIEF, b"theirs"), b"theirs")
    trio.run(library.drop, MODEL.id)
    with pytest.raises(Refused, match="E-models-02"):  # as if it were not here
        models._registry.find("m", library.chosen())
    mine = manifest("public", HOLDER, CONTENT)
    assert trio.run(library.keep, mine)
    assert models._registry.find("m", library.chosen()) == mine


def test_what_the_operator_wants_too_is_not_let_go_for_others(models) -> None:
    library, wanted = models._library, manifest("public", PUBLISHER, b"wanted")
    assert kept_for_others(models, wanted, b"wanted") and wanted.id not in library.chosen()
    assert not pulled(models, wanted, [])
    assert wanted.id in library.chosen()
    assert trio.run(partial(library.keep, wanted, for_others=True))  # a stranger's fetch that ends a moment later
    assert wanted.id in library.chosen() and not library.for_others.bytes


def test_small_models_for_others_have_a_bound_in_number_and_stand_behind_own_ones_in_the_advert(models) -> None:
    models._limits = replace(LIMITS.peers, models_for_others_max=2)
    assert all(kept_for_others(models, manifest("public", THIEF, bytes([n])), bytes([n])) for n in range(2))
    assert models.fetch_problem(MODEL.id, THIEF.peer).complaint.code == "E-models-40"
    late = manifest("public", HOLDER, CONTENT)
    assert trio.run(models._library.keep, late)
    own = {MODEL.id, late.id}
    assert set(models._library.advert_body()["models"][:2]) == own
    assert {model.manifest.id for model in models._library.offered()[:2]} == own  # as an introduction brings them


def test_a_model_for_others_that_could_not_be_kept_keeps_no_room(models, tmp_path) -> None:
    lost = manifest("public", PUBLISHER, b"went missing")
    assert not trio.run(partial(models._library.keep, lost, for_others=True))
    assert models._library.for_others.bytes == 0
    assert models._content.store.pins(blob_cid(b"went missing")) == {}
    again = Library(tmp_path / "home", HOLDER, OPEN_SWARM_ID, models._library._journal, models._content.store)
    assert lost.id not in again.models and models._content.store.pins(blob_cid(b"went missing")) == {}


@pytest.mark.parametrize(("reason", "opened"), [("user", False), ("shared", True), ("", True)])
def test_a_blob_that_the_operator_keeps_for_itself_is_opened_by_no_strangers_manifest(models, reason, opened) -> None:
    models._config = Config(fetch_models="anyone")
    models._content.store.add(io.BytesIO(b"a diary"), pin=reason)
    claim = manifest("public", THIEF, b"a diary")
    assert not asked_to_keep(models, claim, lambda: models._registry.hear(claim, THIEF.peer))
    assert (claim.id in models._library.models) == opened


def test_a_grant_that_a_stranger_showed_first_is_still_written_down_when_it_is_told(models) -> None:
    mine = grant(HOLDER)
    assert not opens(models, THIEF, mine)
    assert models._registry.hear_notice(mine, PUBLISHER.peer)


def test_a_full_disk_ends_no_node_when_room_is_to_be_made(tmp_path) -> None:
    again = trio.Event()

    class FullDisk(BlobStore):
        looks = 0

        def gc(self, bytes_max: int | None = None) -> list[Blob]:
            self.looks += 1
            if self.looks == 1:
                raise Refused("E-store-31", "the disk is full", "")
            trio.from_thread.run_sync(again.set)
            return super().gc(bytes_max)

    with FullDisk(tmp_path, 1 << 30) as store:

        async def looked() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Content(store, LIMITS)._keep_bound)
                await again.wait()
                nursery.cancel_scope.cancel()

        trio.run(looked, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_mistake_while_a_model_is_fetched_ends_no_node_and_the_run_hears_that_it_does_not_come(models) -> None:
    told = list[Refused | None]()
    models.fetched = lambda _, problem: told.append(problem)
    job = spec(model=MODEL.id)
    key, task = (job.id, 0, 1), ((), (), "", (), "normal", FRIEND.peer, False, 1000)
    run = Run(key, RecordId(lease(job).id), FRIEND.peer, FRIEND.peer, "infer", MODEL.id, *task)

    async def mistaken(*_: object) -> None:
        raise TypeError("unhashable type: 'list'")

    async def main() -> None:
        models.for_job = mistaken
        async with trio.open_nursery() as nursery:
            models._nursery = nursery
            models.begin(run)

    trio.run(main)
    assert told == [None], "without a model it is refused then: E-exec-20"
