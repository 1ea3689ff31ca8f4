"""What somebody with a key, or with none, tries at the HTTP door, and what comes of it."""

import json
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from dimnode.api.http.caller import model_names
from dimnode.api.http.loads import Loads
from dimnode.api.http.text import Texts, _tamed
from dimnode.api.jobfile import input_blob
from dimnode.errors import Refused
from dimnode.jobs.events import Submitted
from dimnode.limits import LIMITS
from dimnode.node.httpdoor import Shelf
from dimnode.records.envelope import Record
from dimnode.records.ids import PEER_PREFIX, RECORD_PREFIX, PeerId, RecordId, cid_text, peer_text
from dimnode.store.keys import Asked, KeyBook
from dimnode.store.uploads import Uploads
from tests.unit.api.http_stage import JOB, ME, MODEL, FakeNode, Stage, code, on_stage

pytestmark = pytest.mark.slow
JSON = {"Content-Type": "application/json"}


# ---- other keys' things


def test_of_another_keys_receipt_not_even_the_job_is_told(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as owner, stage.client() as other:
            said = (await owner.post("/dim/v1/jobs", json=JOB)).json()
            theirs = await other.get(f"/dim/v1/receipts/{said['verdict']}")
            nobodys = await other.get(f"/dim/v1/receipts/{cid_text(MODEL.id)}")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(said["verdict"], "") == nobodys.text.replace(cid_text(MODEL.id), "")

    on_stage(tmp_path, act)


def test_the_last_letters_of_an_id_find_nothing_over_http(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key("admin")) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            for name in (job[-8:], job.upper(), cid_text(MODEL.id), "%00", "..%2f..%2fjobs", "x" * 5000):
                assert (await client.get(f"/dim/v1/jobs/{name}")).status_code == 404

    on_stage(tmp_path, act)


def test_a_key_that_is_bound_to_models_learns_nothing_of_others_and_runs_nothing_else(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        statistics = {"pattern": "collaborative", "tasks": [{"op": "statistics", "cabinet": "patients"}]}
        chain = {**JOB, "tasks": [{"model": "triage"}, {"model": cid_text(MODEL.id)}]}
        classic = {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": [[1, 2]]}
        vectors = {"model": "triage", "input": "x"}
        async with stage.client(stage.key(models=("other",))) as client:
            for path, body in (
                ("/dim/v1/jobs", JOB),
                ("/dim/v1/jobs", statistics),
                ("/dim/v1/jobs", chain),
                ("/dim/v1/jobs/validate", JOB),
                ("/dim/v1/jobs/validate", statistics),
                ("/api/inference/submit", classic),
                ("/v1/embeddings", vectors),
            ):
                found = await client.post(path, json=body)
                assert (found.status_code, code(found)) == (403, "E-http-02"), (path, found.text)
            unknown = await client.post("/dim/v1/jobs", json={**JOB, "tasks": [{"model": "nobodys"}]})
            assert (unknown.status_code, code(unknown)) == (403, "E-http-02")  # told like one that exists
            there, nowhere = [await client.get(f"/dim/v1/models/{name}") for name in ("triage", "nobody")]
            assert there.status_code == nowhere.status_code == 404
            assert there.text.replace("triage", "nobody") == nowhere.text
        assert not stage.node.jobs

    on_stage(tmp_path, act)


def test_a_name_that_means_another_model_by_the_time_the_job_is_made_runs_nothing(tmp_path: Path) -> None:
    """Large inputs take seconds to read; meanwhile a stranger may have published the name."""

    async def act(stage: Stage) -> None:
        stranger = PeerId(PEER_PREFIX + bytes(32))
        theirs = Record(RecordId(RECORD_PREFIX + b"x" * 32), "manifest", stranger, MODEL.payload, b"", 2)
        asked: list[str] = []

        def find(name: str) -> Record:
            asked.append(name)
            if name == cid_text(theirs.id):
                return theirs
            return MODEL if asked.count(name) == 1 else theirs

        stage.node.find_model = find  # type: ignore[method-assign]
        async with stage.client(stage.key(models=(f"{peer_text(ME)}/triage",))) as client:
            found = await client.post("/dim/v1/jobs", json=JOB)
            assert (found.status_code, code(found)) == (403, "E-http-02")
        assert not stage.node.jobs and len(asked) > 1

    on_stage(tmp_path, act)


@pytest.mark.parametrize("name", [cid_text(MODEL.id), f"{peer_text(ME)}/triage"])
def test_a_key_that_is_bound_to_an_id_or_a_publisher_runs_no_model_that_is_called_so(name: str) -> None:
    said = {**MODEL.payload, "name": name, "version": "1.0.0"}
    spoof = SimpleNamespace(payload=said, id=RecordId(RECORD_PREFIX + bytes(32)), by=PeerId(PEER_PREFIX + bytes(32)))
    assert {name, f"{peer_text(ME)}/triage:1.0.0"}.isdisjoint(model_names(spoof))
    assert name in model_names(MODEL)


def test_a_key_that_is_bound_to_models_hears_of_no_update_nor_publisher_beside_them(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        for bound, newer in (("triage:1.0.0", []), ("triage", ["triage:1.1.0"])):
            async with stage.client(stage.key(models=(bound,))) as client:
                assert (await client.get("/dim/v1/models/triage")).json()["newer"] == newer
        stage.node.broken = Refused("E-models-41", "unknown publisher 'x'", "of somebody who is none of its business")
        async with stage.client(stage.key(models=("triage",))) as bound_one, stage.client() as free:
            assert (await bound_one.get("/dim/v1/models?publisher=x")).json() == {"models": []}
            assert code(await free.get("/dim/v1/models?publisher=x")) == "E-models-41"

    on_stage(tmp_path, act)


@pytest.mark.parametrize(
    "name",
    ["triage", "triage:1.0.0", cid_text(MODEL.id), f"{peer_text(ME)}/triage", f"{peer_text(ME)}/triage:1.0.0"],
)
def test_a_key_may_be_bound_to_a_model_by_any_of_its_whole_names(tmp_path: Path, name: str) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client(stage.key(models=(name,))) as client:
            assert (await client.post("/dim/v1/jobs", json=JOB)).status_code in (200, 202)

    on_stage(tmp_path, act)


def test_pages_of_jobs_lose_none_of_the_same_millisecond_and_go_on_past_those_that_were_not_taken(
    tmp_path: Path,
) -> None:
    book = KeyBook(tmp_path)
    for number, at_ms in enumerate((1, 2, 2, 2, 3)):
        book.note_job(Asked(bytes([number]), "k", "", b"", at_ms))
    first = book.jobs_of("k", 2)
    rest = book.jobs_of("k", 2, before_ms=first[-1].at_ms)
    assert sorted(row.job for row in first + rest) == [bytes([number]) for number in range(5)]
    book.close()

    async def act(stage: Stage) -> None:
        async with stage.client(stage.key()) as client:
            taken = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            await trio.sleep(0.002)  # the next are of a later millisecond
            stage.node.jobs, kept = {}, stage.node.jobs
            for _ in range(2):
                await client.post("/dim/v1/jobs", json=JOB)
            stage.node.jobs = kept  # as if the engine had refused these
            seen, before = [], ""
            while before is not None:
                page = await client.get("/dim/v1/jobs", params={"most": 1} | ({"before_ms": before} if before else {}))
                seen += [row["job"] for row in page.json()["jobs"]]
                before = page.json()["before_ms"]
        assert seen == [taken]

    (tmp_path / "stage").mkdir()
    on_stage(tmp_path / "stage", act)


# ---- one submission


def test_the_same_submission_twice_at_once_is_one_job(tmp_path: Path) -> None:
    class Slow(FakeNode):
        async def submit(self, client: object, event: Submitted) -> None:
            await trio.sleep(0.02)  # a commit
            await super().submit(client, event)

    async def act(stage: Stage) -> None:
        stage.node.__class__ = Slow
        seen = []
        async with stage.client(headers={"Idempotency-Key": "once"}) as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                found = await client.post("/dim/v1/jobs", params={"wait": 5}, json=JOB)
                seen.append(found.json()["job"])

            for _ in range(4):
                nursery.start_soon(ask)
        assert len(seen) == 4
        assert len(set(seen)) == len(stage.node.jobs) == 1

    on_stage(tmp_path, act)


def test_a_submission_that_was_not_taken_is_its_keys_own_when_it_is_repeated(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    book.note_job(Asked(b"never", "k", "again", b"d", 1))
    book.note_job(Asked(b"taken", "k", "again", b"d", 2))
    assert book.job(b"taken") == book.repeated("k", "again") == Asked(b"taken", "k", "again", b"d", 2)
    assert book.job(b"never") is None
    book.note_job(Asked(b"taken", "thief", "", b"", 3))
    assert book.job(b"taken").key == "k"  # type: ignore[union-attr]
    book.close()


# ---- memory, time, disk


def test_a_body_for_an_upload_is_taken_where_uploads_are_and_nowhere_else(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            binary = {"Content-Type": "application/octet-stream"}
            for path in (
                "/dim/v1/jobs",
                "/dim/v1/models",
                "/v1/embeddings",
                "/api/inference/submit",
                "/dim/v1/blobs/x",
            ):
                found = await client.post(path, content=b"{}", headers=binary)
                assert (found.status_code, code(found)) == (415, "E-http-05")
            found = await client.post("/dim/v1/blobs", content=b"{}", headers=JSON)
            assert (found.status_code, code(found)) == (415, "E-http-05")

    on_stage(tmp_path, act)


def test_a_small_body_of_very_many_values_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for value in (b"[],", b"{},", b"1,"):
                body = b'{"tasks":[{"model":"triage"}],"input":{"x":[' + value * 600_000 + b"1]}}"
                found = await client.post("/dim/v1/jobs", content=body, headers=JSON)
                assert (found.status_code, code(found)) == (413, "E-http-06")

    on_stage(tmp_path, act)


def test_what_the_requests_of_a_key_hold_is_bounded_and_given_back(tmp_path: Path) -> None:
    few = replace(LIMITS.http, bodies_bytes_per_key_max=100_000)
    large = {**JOB, "label": "x" * 40_000}

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as client, trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: client.post("/dim/v1/jobs", params={"wait": 30}, json=JOB | {"label": "x" * 100})
            )
            small = await client.post("/dim/v1/jobs", json=large)
            assert small.status_code == 400  # too long a label, and all of it was read
            assert (await client.post("/dim/v1/jobs", json=large)).status_code == 400  # it was given back
            both = await client.post("/dim/v1/jobs", json={**JOB, "label": "x" * 60_000})
            assert (both.status_code, code(both)) == (429, "E-http-08")
            assert both.headers["retry-after"] == "1"
            nursery.cancel_scope.cancel()

    on_stage(tmp_path, act, few)


def test_loads_count_each_key_and_all_together() -> None:
    loads = Loads(bytes_max=100, bytes_per_key_max=60)
    first, second = loads.of("a"), loads.of("b")
    first.add(60)
    with pytest.raises(Refused, match="E-http-08"):
        loads.of("a").add(1)
    with pytest.raises(Refused, match="E-http-12"):
        second.add(41)
    first.release()
    first.release()
    second.add(60)
    second.release()
    assert (loads.total, dict(loads.held)) == (0, {})


def test_one_long_text_among_many_short_ones_costs_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in (["x" * 100_000] + ["1"] * 20_000, [[["1"]]], {"a": 1}, "1", [{"a": 1}], ["\ud800"]):
        with pytest.raises(Refused, match="E-input-01"):
            input_blob({"x": value}, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; it would be eight million


def test_half_a_surrogate_pair_anywhere_is_a_400(tmp_path: Path) -> None:
    half = "\ud800"
    quorum = {"tier": "quorum", "quorum": {"n": 3, "k": 2}}
    bodies: list[tuple[str, Any]] = [
        ("/dim/v1/jobs", {**JOB, **quorum, "comparator": {half: 1}}),
        ("/dim/v1/jobs", {**JOB, "input": {half: [[1, 2]]}}),
        ("/dim/v1/jobs", {**JOB, "label": half}),
        ("/dim/v1/jobs", {**JOB, half: 1}),
        ("/api/inference/submit", {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": {half: [[1]]}}),
        ("/v1/embeddings", {"model": "triage", "input": half}),
    ]

    async def act(stage: Stage) -> None:
        async with stage.client() as client:
            for path, body in bodies:
                found = await client.post(path, content=json.dumps(body), headers=JSON)
                assert found.status_code == 400, (path, found.text)

    on_stage(tmp_path, act)


def test_an_event_id_beyond_all_numbers_is_one_that_has_not_come_yet(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        key = stage.key()
        async with stage.client(key) as client:
            job = (await client.post("/dim/v1/jobs", json=JOB)).json()["job"]
            found = await client.get(f"/dim/v1/jobs/{job}/events", headers={"Last-Event-ID": "9" * 32})
            assert found.json() == {"events": [], "last": 2**62}

        def follow() -> None:
            for path in (f"/dim/v1/jobs/{job}/ws", f"/ws/jobs/{job}"):
                url = f"ws{stage.door.url[4:]}{path}?after={2**70}"
                with pytest.raises(InvalidStatus) as refused:
                    websockets.sync.client.connect(url, additional_headers={"Authorization": f"Bearer {key}"})
                assert refused.value.response.status_code == 400

        await trio.to_thread.run_sync(follow)

    on_stage(tmp_path, act)


def test_streams_and_long_waits_of_one_key_leave_room_for_others(tmp_path: Path) -> None:
    few = replace(LIMITS.http, requests_per_key_max=3)

    async def act(stage: Stage) -> None:
        stage.node.at_once = False
        key = stage.key()
        async with stage.client(key) as greedy, stage.client() as other, trio.open_nursery() as nursery:
            job = (await greedy.post("/dim/v1/jobs", json=JOB)).json()["job"]
            identity = next(iter(stage.node.jobs))
            for _ in range(3):
                nursery.start_soon(lambda: greedy.get(f"/dim/v1/jobs/{job}", params={"wait": 30}))
            while len(stage.node.watching.get(identity, ())) < 3:  # noqa: ASYNC110 a fake's dictionary says nothing
                await trio.sleep(0.005)
            found = await greedy.get("/dim/v1/jobs")
            assert (found.status_code, code(found)) == (429, "E-http-08")
            assert (await other.get("/dim/v1/jobs")).status_code == 200
            stage.node.end(identity)
        async with stage.client(key) as greedy:
            assert (await greedy.get("/dim/v1/jobs")).status_code == 200

    on_stage(tmp_path, act, few)


def test_one_address_does_not_take_every_connection(tmp_path: Path) -> None:
    few = replace(LIMITS.http, connections_per_address_max=2)

    async def act(stage: Stage) -> None:
        held = [await trio.open_tcp_stream(*stage.address) for _ in range(2)]
        refused = await trio.open_tcp_stream(*stage.address)
        assert await refused.receive_some(1) == b""
        await held.pop().aclose()
        while True:
            async with stage.client() as client:
                try:
                    assert (await client.get("/health")).status_code == 200
                    break
                except httpx.TransportError:  # the place is not free yet
                    await trio.sleep(0.01)

    on_stage(tmp_path, act, few)


def test_uploads_at_once_are_counted_and_tiny_ones_cost_a_whole_block(tmp_path: Path) -> None:
    limits = replace(LIMITS.http, uploads_bytes_per_key_max=100_000, upload_least_bytes=60_000)
    book = KeyBook(tmp_path)
    shelf = Shelf(book, Uploads(tmp_path, limits), limits)
    drafts = [shelf.begin("k") for _ in range(limits.uploads_per_key_at_once_max)]
    with pytest.raises(Refused, match="E-http-08"):
        shelf.begin("k")
    shelf.begin("other").drop()
    for draft in drafts:
        draft.drop()
        draft.drop()
    for letter in (b"a", b"b"):
        draft = shelf.begin("k")
        draft.write(letter)
        shelf.keep(draft, "k")
        draft.drop()
    with pytest.raises(Refused, match="E-http-08"):
        shelf.begin("k")  # two letters, and two blocks
    book.forget_uploads(2**60)
    shelf.begin("k").drop()
    book.close()


def test_an_upload_never_takes_the_last_of_the_disk(tmp_path: Path) -> None:
    draft = Uploads(tmp_path, LIMITS.http, free_bytes_min=2**60).begin()
    with pytest.raises(Refused, match="E-jobs-24"):
        draft.write(b"x")
    draft.drop()
    assert not list((tmp_path / "uploads").iterdir())


def test_jobs_never_take_the_last_of_the_disk_either(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        said = {"ready": False, "swarm_joined": True, "workers_ready": True, "disk_ok": False}
        stage.node.readiness = lambda: said  # type: ignore[method-assign]
        async with stage.client() as client:
            found = await client.post("/dim/v1/jobs", json=JOB)
        assert (found.status_code, code(found)) == (503, "E-jobs-24")
        assert found.headers["retry-after"] == "5"
        assert not stage.node.jobs

    on_stage(tmp_path, act)


def test_a_tokenizer_that_panics_is_refused_and_does_not_end_the_node() -> None:
    class Panic(BaseException):
        pass

    def panics(_: object) -> None:
        raise Panic("index out of bounds")

    with pytest.raises(Refused, match="E-models-04"):
        _tamed(panics, b"")


def test_a_strangers_manifest_may_say_anything_about_its_text(tmp_path: Path) -> None:
    async def main() -> None:
        for most in ("many", None, -1, 2**80, True):
            said = {**MODEL.payload, "x_text": {"max_tokens": most}}
            model = Record(MODEL.id, MODEL.kind, MODEL.by, said, b"", MODEL.version)
            cut = await Texts(FakeNode()).cut(model, [[1, 2], [3]])
            assert cut.padded in (2, 4)

    trio.run(main)
