"""Three processes, and what is promised at their doors: floods, nonsense, strangers' jobs, and rows that stay home."""

import csv
import math
import os
import resource
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from dimnode.audit.verifier import verify
from dimnode.client import tensor_rows
from dimnode.config import socket_path
from dimnode.errors import DimError, NoNode
from dimnode.limits import LIMITS
from dimnode.p2p.host.streams import StreamLost
from dimnode.records.ids import blob_cid, peer_bytes
from dimnode.records.receipt import parse_receipt
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.wire import pack_frame, unpack_body
from tests.e2e.books import Books, check_receipts
from tests.e2e.harness import JOB_SECONDS, MODEL_FEATURES, Nodes, bounded_client, patient, real_nodes, triage, until
from tests.e2e.stranger import Stranger

pytestmark = pytest.mark.slow
FLOOD_JOBS = int(os.environ.get("DIM_TEST_FLOOD_JOBS", "2000"))
"""10,000 is the promise; a test run on a small machine takes fewer."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("doors")
    with real_nodes(folder, {"alba": False, "brio": True, "cara": True}) as started:
        started.offer("brio", "cara")
        yield started


# ---- floods


class Prober:
    """A second client with one job at a time, beside the flood."""

    def __init__(self, nodes: Nodes) -> None:
        self.seconds: list[float] = []
        self.rss_max = 0
        self._nodes = nodes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe)
        self._thread.start()

    def _probe(self) -> None:
        alba = self._nodes["alba"]
        with bounded_client(alba.home) as client:
            while not self._stop.is_set():
                ended = client.run(triage(), [patient(1)], receipt=False, timeout_seconds=JOB_SECONDS)
                assert ended.status == "ok"
                self.seconds.append(ended.seconds)
                self.rss_max = max(self.rss_max, alba.rss_bytes())

    def stop(self) -> None:
        """After the job that is under way."""
        self._stop.set()
        self._thread.join()


def test_thousands_of_jobs_at_once_all_end_and_nobody_else_waits_for_them(nodes: Nodes) -> None:
    alba = nodes["alba"]
    flood = [(triage(label="flood"), [patient(number)]) for number in range(FLOOD_JOBS)]
    with bounded_client(alba.home) as client:
        for ended in client.run_many(flood[:100]):  # what is allocated once is no growth
            assert ended.status == "ok"
        before = alba.rss_bytes()
        prober = Prober(nodes)
        jobs, last = [], 0.0
        for ended in client.run_many(flood, concurrency=FLOOD_JOBS):  # all are sent before one answer is read
            assert ended.status == "ok"
            jobs.append(ended.job)
            last = max(last, ended.seconds)
        prober.stop()
    assert len(set(jobs)) == FLOOD_JOBS
    growth, per_job = prober.rss_max - before, last / FLOOD_JOBS
    middle = statistics.median(prober.seconds)
    print(
        f"{FLOOD_JOBS} jobs in {last:.1f} s ({1 / per_job:.0f}/s); {len(prober.seconds)} probes, "
        f"median {middle:.3f} s = {middle / per_job:.0f} jobs of the flood; owner {growth / 1e6:+.1f} MB"
    )
    assert growth < 50 * 1024 * 1024
    # Ahead of a single job there are at most those that the door let in for the other client, each way once.
    assert middle < 3 * LIMITS.jobs.open_jobs_per_client * per_job
    nodes.wait_idle()
    Books(alba.home).check_once()


def test_jobs_of_clients_that_hang_up_end_and_let_go_of_what_they_held(nodes: Nodes) -> None:
    alba = nodes["alba"]
    before = Books(alba.home).count("verdict")
    for _ in range(6):  # more than the doors' lane holds, all of them gone before it was empty
        with bounded_client(alba.home) as client:
            for number in range(LIMITS.jobs.open_jobs_per_client):
                client.submit(triage(), [patient(number)], receipt=False)
    until(lambda: Books(alba.home).count("verdict") > before, JOB_SECONDS, "some were read and have ended")
    nodes.wait_idle()
    Books(alba.home).check_once()


def test_a_detached_job_is_named_when_it_is_on_disk_and_refused_when_it_is_not_taken(nodes: Nodes) -> None:
    alba = nodes["alba"]
    nonce = os.urandom(16)
    job = alba.client.detach(triage(), [patient(4)], nonce=nonce)
    assert Books(alba.home).rows("SELECT count(*) FROM nonces WHERE nonce=? AND job=?", nonce, job) == [(1,)]
    assert alba.client.detach(triage(), [patient(4)], nonce=nonce) == job
    assert alba.client.run(triage(), [patient(4)], nonce=nonce).job == job
    with pytest.raises(DimError) as refused:
        alba.client.detach({"tasks": [{"model": "triage"}], "tier": "quorum", "quorum": {"n": 4, "k": 3}}, [patient(4)])
    assert refused.value.complaint.code == "E-jobs-03"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux alone")
@pytest.mark.parametrize("door", ["for clients", "for peers"])
def test_a_node_whose_files_are_all_taken_by_visitors_lives_and_serves_again_when_they_left(
    nodes: Nodes, door: str
) -> None:
    brio = nodes["brio"]
    assert brio.client.run(triage("brio"), [patient(5)], timeout_seconds=JOB_SECONDS).status == "ok"
    before, visitors = brio.open_files(), []
    limits = resource.prlimit(brio.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(brio.pid, resource.RLIMIT_NOFILE, (before + 20, limits[1]))
    try:
        for _ in range(60):
            if door == "for clients":
                visitors.append(socket.socket(socket.AF_UNIX))
                visitors[-1].connect(str(socket_path(brio.home)))
            else:
                port = int(brio.addresses[0].split("/")[4])
                visitors.append(socket.create_connection(("127.0.0.1", port), timeout=JOB_SECONDS))
        until(lambda: brio.open_files() >= before + 20, JOB_SECONDS, "no file is left")
        full = time.monotonic()  # a heartbeat each second wants to read the machine's load from a file
        until(lambda: time.monotonic() > full + 2.5 or not brio.running, 2 * JOB_SECONDS, "some heartbeats")
        assert brio.running, brio.log_end()
    finally:
        for visitor in visitors:
            visitor.close()
        if brio.running:
            resource.prlimit(brio.pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: brio.open_files() < before + 20, JOB_SECONDS, "visitors are let go")
    with bounded_client(brio.home) as client:
        assert client.run(triage("brio"), [patient(6)], timeout_seconds=JOB_SECONDS).status == "ok"
    nodes.wait_linked()


# ---- nonsense from clients


BAD_JOBS: list[tuple[str, dict[str, Any], list[bytes], str]] = [
    ("an unknown model", {"tasks": [{"model": "none"}]}, [patient(1)], "E-models-01"),
    ("an unknown pattern", triage(pattern="star"), [patient(1)], "E-job-01"),
    ("an unknown key", triage(colour="red"), [patient(1)], "E-job-01"),
    ("no task", {"tasks": []}, [patient(1)], "E-job-02"),
    ("no input", triage(), [], "E-input-04"),
    ("NaN", triage(input={"x": [[float("nan")] * MODEL_FEATURES]}), [], "E-input-02"),
    ("a wrong number of columns", triage(), [tensor_rows([[1.0, 2.0]])], "E-input-06"),
    ("bytes that are no tensors", triage(), [b"no tensors"], "E-input-03"),
    ("ragged rows", triage(input={"x": [[1.0], [1.0, 2.0]]}), [], "E-input-01"),
    ("an endless deadline", triage(deadline_seconds=float("inf")), [patient(1)], "E-job-09"),
    ("a deadline that is no number", triage(deadline_seconds=float("nan")), [patient(1)], "E-job-09"),
    ("too few peers", triage(tier="quorum", quorum={"n": 5, "k": 3}), [patient(1)], "E-jobs-03"),
    ("an unknown peer", triage("nobody"), [patient(1)], "E-peers-01"),
    ("inputs that are no list", triage(), 5, "E-api-03"),  # type: ignore[list-item]
    ("inputs that are no bytes", triage(), ["text"], "E-api-03"),  # type: ignore[list-item]
    ("no inputs at all", triage(), None, "E-api-03"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("what", "job", "blobs", "code"), BAD_JOBS, ids=[row[0] for row in BAD_JOBS])
def test_a_job_that_makes_no_sense_is_refused_by_name(
    nodes: Nodes, what: str, job: dict[str, Any], blobs: list[bytes], code: str
) -> None:
    with pytest.raises(DimError) as refused:
        nodes["alba"].client.ask("job.submit", job=job, blobs=blobs)
    assert refused.value.complaint.code == code


def test_an_input_that_the_model_cannot_read_fails_the_job_with_a_code_and_a_receipt(nodes: Nodes) -> None:
    two_columns = {"name": "x", "from": "step.0", "tensor": "probabilities"}  # of ten; no door knows an answer's shape
    job = {"tasks": [{"model": "triage"}, {"model": "triage", "take": [two_columns]}]}
    ended = nodes["alba"].client.run(job, [patient(1)], timeout_seconds=JOB_SECONDS)
    assert (ended.status, ended.code) == ("failed", "E-exec-13")
    assert verify(ended.receipt or b"").status == 0


BAD_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("job.watch", {}),
    ("job.watch", {"job": [1]}),
    ("job.watch", {"job": {}}),
    ("job.ls", {"most": "many"}),
    ("job.ls", {"most": float("inf")}),
    ("job.show", {"job": 5}),
    ("job.show", {"job": {}}),
    ("job.result", {"job": b"no job"}),
    ("job.cancel", {"job": []}),
    ("job.validate", {"job": 1}),
    ("job.validate", {"job": triage(), "blobs": 5}),
    ("connect", {"address": 5}),
    ("connect", {"address": "/ip4/1.2.3.4/tcp/99999999/p2p/x"}),
    ("models.add", {"card": [], "path": "x"}),
    ("models.add", {"card": {"name": "x"}, "path": "a\0b"}),
    ("data.add", {"name": "x", "path": "/dev/zero", "policy": {}}),
    ("data.add", {"name": 5, "path": "x", "policy": {}}),
    ("data.add", {"name": "x", "path": "x", "policy": {}, "exclude": 5}),
    ("rep.explain", {"peer": 5}),
    ("rep.explain", {"peer": "1" * 10_000}),
]


@pytest.mark.parametrize(("op", "arguments"), BAD_QUESTIONS, ids=str)
def test_a_question_that_makes_no_sense_gets_an_error_with_a_code(
    nodes: Nodes, op: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(DimError) as refused:
        nodes["alba"].client.ask(op, **arguments)
    assert refused.value.complaint.code.startswith("E-")
    assert not isinstance(refused.value, NoNode)


BAD_FRAMES = {
    "random bytes": os.urandom(5000),
    "a length beyond the limit": b"\xff\xff\xff\xff" + bytes(1000),
    "a frame that is no msgpack": (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
    "a frame that is no map": pack_frame([1, 2, 3]),
    "an op that is no word": pack_frame({"id": 1, "op": 5}),
    "nested without end": (100_000).to_bytes(4, "big") + b"\x91" * 100_000,
    "a frame cut off": (1000).to_bytes(4, "big") + b"x",
    "an extension type": pack_frame({"id": 1, "op": "status", "x": msgpack.ExtType(5, b"")}),
    "bytes after the end": bytes(4) + pack_frame({"id": 1, "op": "status"}),
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_frame_that_is_none_ends_its_connection_and_nothing_else(nodes: Nodes, what: str) -> None:
    alba = nodes["alba"]
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(JOB_SECONDS)
        door.connect(str(socket_path(alba.home)))
        door.sendall(BAD_FRAMES[what])
        door.shutdown(socket.SHUT_WR)
        assert door.recv(1000) == b""
    assert alba.client.status()["peer"] == alba.peer


def test_an_input_over_the_limit_is_refused(nodes: Nodes) -> None:
    with pytest.raises(DimError) as refused:
        nodes["alba"].client.run(triage(), [bytes(LIMITS.exec.input_bytes_max + 1)])
    assert refused.value.complaint.code == "E-input-05"


def test_a_job_whose_answer_is_too_large_for_one_frame_ends_and_is_fetched_in_parts(nodes: Nodes) -> None:
    alba, columns = nodes["alba"], 30
    nodes.offer("brio", model="classifier-logistic")
    rows = (LIMITS.exec.input_bytes_max - 1000) // (4 * columns)
    blob = encode_tensors([Tensor("x", "float32", (rows, columns), bytes(4 * rows * columns))])
    ended = alba.client.run({"tasks": [{"model": "classifier-logistic"}]}, [blob])
    assert ended.status == "ok"
    assert len(ended.outputs[0]) > 8 * rows
    receipt = ended.receipt
    assert receipt is not None
    assert verify(receipt).status == 3, "sound, but without the input, for which no receipt has room"
    assert verify(receipt, blobs={blob_cid(blob): blob}).status == 0


# ---- rows that stay at home


def test_no_cell_of_a_cabinet_is_found_anywhere_but_at_home(nodes: Nodes, tmp_path: Path) -> None:
    canary = 7341.8173828125  # the same in float32 and float64, and like no other number here
    path = tmp_path / "patients.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([f"c{column}" for column in range(MODEL_FEATURES)] + ["label"])
        for row in range(40):
            cells = [canary if (row, column) == (7, 3) else row + column / 8 for column in range(MODEL_FEATURES)]
            rows.writerow([*cells, row % 2])
    policy = {"operations": ["evaluate", "statistics"], "submitters": "any", "models": "any", "min_cohort": 10}
    policy["where"] = ["c3"]
    nodes["brio"].client.add_data("canary", path, "label", (), policy)
    alba = nodes["alba"]
    until(
        lambda: any("canary" in row["cabinets"] for row in alba.client.peers()), JOB_SECONDS, "the cabinet is heard of"
    )
    site = {"cabinet": "canary", "peer": "brio"}
    few = [{"column": "c3", "op": "ge", "value": 7000}]
    evaluate = {"op": "evaluate", "model": "triage", **site}
    hidden = {**evaluate, "where": [{"column": "c4", "op": "ge", "value": 0}]}
    asked = [
        ({"pattern": "collaborative", "tasks": [evaluate]}, "ok"),
        ({"pattern": "collaborative", "tasks": [hidden]}, "refused"),
        ({"pattern": "collaborative", "tasks": [{"op": "statistics", **site}], **_average()}, "ok"),
        ({"pattern": "collaborative", "tasks": [{**evaluate, "where": few}]}, "refused"),
        ({"pattern": "collaborative", "tasks": [{"op": "statistics", **site, "where": few}], **_average()}, "refused"),
    ]
    receipts = []
    for job, status in asked:
        ended = alba.client.run(job, timeout_seconds=JOB_SECONDS)
        assert ended.status == status, ended
        assert (ended.code == "E-cabinet-11") == (job["tasks"] == [hidden])
        assert verify(ended.receipt or b"").status == 0
        receipts.append(ended.receipt or b"")
    nodes.wait_idle()
    shapes = (str(canary).encode(), struct.pack("<f", canary), struct.pack("<d", canary), struct.pack(">d", canary))
    assert any(shape in path.read_bytes() for shape in shapes)
    elsewhere = {}
    for file in (Path(place, name) for place, _, names in os.walk(nodes.folder) for name in names):
        with suppress(FileNotFoundError):  # the nodes run: they write beside a file and rename
            if file.is_file():
                elsewhere[file] = file.read_bytes()
    assert {"journal.db", "journal.db-wal", "alba.log", "brio.log"} <= {file.name for file in elsewhere}
    for content in (*receipts, *elsewhere.values()):
        assert not any(shape in content for shape in shapes)


def _average() -> dict[str, Any]:
    return {"rule": {"method": "federated_average"}}


# ---- jobs of strangers


def test_a_stranger_hands_in_a_signed_job_and_gets_a_receipt_that_verifies(nodes: Nodes) -> None:
    stranger = Stranger(nodes["alba"])
    request = stranger.request(patient(9))

    async def main(ask: Callable[[bytes], Any]) -> None:
        word, status, receipt = await ask(request)
        assert (word, status) == ("ended", "ok")
        found = parse_receipt(receipt)
        assert found.records[found.root].by == peer_bytes(nodes["alba"].peer), "the owner signs the verdict"
        assert verify(receipt).status == 0
        assert await ask(request) == ["ended", "ok", receipt], "the same job has the same receipt"

    stranger.run(main)
    nodes.wait_idle()
    Books(nodes["alba"].home).check_once()


def test_a_stranger_who_asks_again_while_the_job_runs_waits_for_its_one_end(nodes: Nodes) -> None:
    stranger = Stranger(nodes["alba"])
    request = stranger.request(patient(10))
    found: list[Any] = []

    async def main(ask: Callable[[bytes], Any]) -> None:
        async def one() -> None:
            found.append(await ask(request))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)

    stranger.run(main)
    assert found[0][:2] == ["ended", "ok"]
    assert found == [found[0]] * 4


def test_the_receipt_of_a_large_job_reaches_a_stranger_too(nodes: Nodes) -> None:
    stranger = Stranger(nodes["alba"])
    blob = patient(11, rows=45_000)  # 1.8 MB in, and with the answer more than one frame carries

    async def main(ask: Callable[[bytes], Any]) -> None:
        word, status, receipt = await ask(stranger.request(blob))
        assert (word, status) == ("ended", "ok")
        assert len(receipt) > LIMITS.wire.frame_bytes_max
        assert verify(receipt).status == 0

    stranger.run(main)


def test_a_job_that_a_stranger_did_not_sign_is_not_taken(nodes: Nodes) -> None:
    stranger = Stranger(nodes["alba"])
    other = Stranger(nodes["alba"])
    before = Books(nodes["alba"].home).count("spec")
    request = stranger.request(patient(12))
    place = request.index(b"nonce")
    forged = [
        request[:place] + b"Nonce" + request[place + 5 :],
        other.request(patient(12)),
        stranger.request(patient(12), net=b"\x01\x81\x04\x12\x20" + bytes(32)),
        pack_frame([unpack_body(request[4:])[0], [], []]),
    ]

    async def main(ask: Callable[[bytes], Any]) -> None:
        for bad in forged:
            with pytest.raises(StreamLost):
                await ask(bad)
        assert (await ask(stranger.request(patient(12), tier="quorum")))[:2] == ["refused", "E-jobs-02"]

    stranger.run(main)
    assert Books(nodes["alba"].home).count("spec") == before
    nodes.wait_idle()


def test_a_strangers_job_is_checked_as_one_of_the_nodes_own(nodes: Nodes) -> None:
    """What this node's own clients may not submit costs no executor a run and nobody standing."""
    stranger = Stranger(nodes["alba"])
    before = Books(nodes["alba"].home).count("spec")
    model = stranger.model

    def blob(*shape: int) -> bytes:
        return encode_tensors([Tensor("x", "float32", shape, bytes(4 * math.prod(shape)))])

    wrong: list[tuple[bytes, dict[str, Any], str]] = [
        (patient(13), {"tasks": [{"op": "infer"}]}, "E-jobs-02"),
        (patient(13), {"tasks": [{"op": "evaluate", "model": model}]}, "E-jobs-02"),
        (patient(13), {"tasks": [{"op": "statistics"}]}, "E-jobs-02"),
        (patient(13), {"inputs": []}, "E-jobs-02"),
        (b"no tensors", {}, "E-input-03"),
        (blob(1, 7), {}, "E-input-06"),
        (blob(70_000, 7), {}, "E-input-06"),
        (patient(13), {"tasks": [{"op": "infer", "model": model, "take": [["x", 0, "y", -1, -1]]}]}, "E-input-07"),
    ]

    async def main(ask: Callable[[bytes], Any]) -> None:
        for given, changes, code in wrong:
            assert (await ask(stranger.request(given, **changes)))[:2] == ["refused", code]
        whole = {"tasks": [{"op": "infer", "model": model, "take": []}]}
        assert (await ask(stranger.request(patient(13), **whole)))[:2] == ["ended", "ok"]

    stranger.run(main)
    assert Books(nodes["alba"].home).count("spec") == before + 1
    nodes.wait_idle()


def test_every_receipt_of_this_owner_verifies(nodes: Nodes) -> None:
    alba = nodes["alba"]
    query = "SELECT e.job FROM ends e JOIN records r ON r.id=e.job WHERE e.status='ok' ORDER BY r.seq DESC LIMIT 200"
    assert check_receipts(alba.client, [job for (job,) in Books(alba.home).rows(query)])
