"""What a hostile peer must not get out of, or do to, a real node over real links."""

import csv
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from dimnode.audit.verifier import verify
from dimnode.cli.carrying import names_of_peers
from dimnode.config import socket_path
from dimnode.errors import PeerFault, Refused
from dimnode.p2p.blobs import fetch_blob
from dimnode.p2p.frames import TaskFrame
from dimnode.records.ids import PeerId, blob_cid, cid_bytes, peer_bytes, peer_letters, peer_text
from dimnode.records.kinds import open_record
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from tests.attack.attacker import Attacker, answer_frame, lease_frame, opening, record, run, spec
from tests.e2e.books import Books
from tests.e2e.harness import JOB_SECONDS, MODEL_FEATURES, Nodes, RealNode, patient, real_nodes, triage, until

pytestmark = pytest.mark.slow

SUBMITTER = Attacker(b"s" * 32)
QUERIES = 3


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("attack")
    with real_nodes(folder, {"alba": True}) as started:
        started.offer("alba")
        _offer_cabinet(started["alba"], folder / "patients.csv")
        yield started


def _offer_cabinet(node: RealNode, path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([f"c{column}" for column in range(MODEL_FEATURES)] + ["label"])
        for row in range(40):
            rows.writerow([*(row + column / 8 for column in range(MODEL_FEATURES)), row % 2])
    policy = {
        "operations": ["evaluate", "statistics"],
        "submitters": [peer_text(SUBMITTER.peer)],
        "models": "any",
        "min_cohort": 10,
        "queries_per_day": QUERIES,
    }
    node.client.add_data("ward", path, "label", (), policy)


@pytest.fixture
def alba(nodes: Nodes) -> RealNode:
    return nodes["alba"]


def me(node: RealNode) -> PeerId:
    return peer_bytes(node.peer)


def model_of(node: RealNode) -> bytes:
    return next(cid_bytes(row["model"]) for row in node.client.models() if row["name"].startswith("triage"))


def statistics() -> dict:
    return {"op": "statistics", "cabinet": "ward"}


def test_a_cabinet_does_not_answer_whoever_holds_a_spec_of_its_submitter(alba: RealNode) -> None:
    """A spec is seen by every executor and stands in every receipt; its signature is no key to a cabinet."""
    job = spec(SUBMITTER.key, [statistics()])

    async def main() -> None:
        async with Attacker().attached(alba) as thief:
            thief.send(me(alba), lease_frame(thief.key, job, me(alba)))
            refusal = await thief.word("ruling")
            said = open_record(refusal.envelopes[0]).payload
            assert (said["allowed"], said["code"]) == (False, "E-cabinet-03")
        async with SUBMITTER.attached(alba) as submitter:
            submitter.send(me(alba), lease_frame(submitter.key, job, me(alba), epoch=2))
            assert open_record((await submitter.word("answer")).envelopes[0]).payload["status"] == "ok"

    run(main)


def test_a_stranger_uses_up_nobodys_queries(alba: RealNode) -> None:
    async def main() -> None:
        async with Attacker().attached(alba) as stranger:
            for _ in range(2 * QUERIES):
                job = spec(stranger.key, [statistics()])
                stranger.send(me(alba), lease_frame(stranger.key, job, me(alba)))
                await stranger.word("ruling", (job.id, 0, 1))
        async with SUBMITTER.attached(alba) as submitter:
            job = spec(SUBMITTER.key, [statistics()])
            submitter.send(me(alba), lease_frame(submitter.key, job, me(alba)))
            assert open_record((await submitter.word("answer", (job.id, 0, 1))).envelopes[0]).payload["status"] == "ok"

    run(main)


def test_a_blob_is_not_given_to_whoever_knows_its_name(alba: RealNode) -> None:
    blob = patient(77)
    output = alba.client.run(triage("self"), [blob]).outputs[0]

    async def main() -> None:
        async with Attacker().attached(alba) as thief:
            for wanted in (blob, output, (alba.home / "journal.db").read_bytes()):
                with pytest.raises(PeerFault, match="refused"):
                    await fetch_blob(thief.host, me(alba), blob_cid(wanted))

    run(main)


def test_an_owner_that_never_acknowledges_does_not_make_the_executor_keep_bytes_in_memory(alba: RealNode) -> None:
    jobs, rows = 10, 5_000
    before = alba.client.status()

    async def main() -> None:
        async with Attacker().attached(alba) as owner:
            for number in range(jobs):
                blob = patient(number, rows)
                given = opening(blob)
                job = spec(owner.key, [{"op": "infer", "model": model_of(alba)}], [given])
                owner.send(me(alba), lease_frame(owner.key, job, me(alba), blob, openings=(given,)))
            for _ in range(jobs):
                await owner.word("answer")
            held = await trio.to_thread.run_sync(alba.client.status)
            assert held["tasks_held"] == before["tasks_held"] + jobs, "the answers are kept"
            assert held["held_bytes"] <= before["held_bytes"], "on the disk alone, inputs and outputs"
            owner.send(me(alba), TaskFrame("resume", (job.id, 0, 1)))
            again = await owner.word("answer", (job.id, 0, 1))
            assert blob_cid(again.blobs[0]) == again.openings[0].cid, "and are sent again from there"

    run(main)


def test_nobody_answers_in_the_place_of_a_tasks_executor(alba: RealNode) -> None:
    """One peer has the lease; another one answers it, answers in its name, and answers twice."""
    model = record(Attacker(b"p" * 32).key, "manifest", **_manifest("decoy"))
    right, wrong = (encode_tensors([Tensor("label", "int64", (1,), bytes([n] + [0] * 7))]) for n in (1, 2))

    async def main() -> None:
        executor, intruder = Attacker(), Attacker()
        executor.offers([model.id], manifests=[model.envelope])
        async with executor.attached(alba), intruder.attached(alba):
            await trio.to_thread.run_sync(_wait_model, alba, "decoy")
            pending = alba.client.submit({"tasks": [{"model": "decoy"}]}, [patient(1)])
            lease = await executor.word("lease")
            intruder.send(me(alba), answer_frame(intruder.key, lease, wrong))
            await intruder.word("ack", lease.key)  # as to any answer that nobody waits for: it may be let go of
            intruder.send(me(alba), answer_frame(executor.key, lease, wrong))
            assert (await intruder.word("refused", lease.key)).code == "E-records-01"
            for blob in (right, wrong):
                executor.send(me(alba), answer_frame(executor.key, lease, blob))
            ended = await trio.to_thread.run_sync(pending.wait, JOB_SECONDS)
            assert (ended.status, ended.outputs) == ("ok", (right,))

    run(main)
    Books(alba.home).check_once()


def test_a_peer_cannot_have_an_honest_executor_blamed_by_taking_over_its_lease(alba: RealNode) -> None:
    """The submitter of a job leases its task itself: the first owner is told so, instead of waiting for silence."""

    async def main() -> None:
        owner, submitter = Attacker(), Attacker()
        given = opening(patient(3))
        job = spec(submitter.key, [{"op": "infer", "model": model_of(alba)}], [given])
        async with owner.attached(alba), submitter.attached(alba):
            first = lease_frame(owner.key, job, me(alba), patient(3), openings=(given,))
            owner.send(me(alba), first)
            await owner.until(lambda: any(frame.what in ("accepted", "answer") for _, frame in owner.heard))
            submitter.send(me(alba), lease_frame(submitter.key, job, me(alba), patient(3), openings=(given,), epoch=9))
            assert (await owner.word("refused", first.key)).code == "E-jobs-23"

    run(main)


def test_a_frame_of_a_million_lists_ends_its_own_link_and_nothing_else(alba: RealNode) -> None:
    inner = b"\xdc\x0f\xff" + b"\x90" * 4095
    bomb = b"\xdc\x01\xff" + inner * 511

    async def main() -> None:
        async with Attacker().attached(alba) as bomber:
            bomber.send(me(alba), len(bomb).to_bytes(4, "big") + bomb)
            await bomber.until(lambda: bomber.ups[-1] is False)

    run(main)
    assert alba.client.run(triage("self"), [patient(8)]).status == "ok"


def test_what_a_peer_calls_itself_does_not_reach_a_terminal_as_commands(alba: RealNode) -> None:
    evil = "\x1b[2J\x9b31m\u202eadmin\n\rself"

    async def main() -> None:
        peer = Attacker()
        model = record(peer.key, "manifest", **_manifest(evil, labels=[evil], summary=evil, licence=evil))
        peer.offers([model.id], name=evil, manifests=[model.envelope])
        async with peer.attached(alba):
            await trio.to_thread.run_sync(_wait_model, alba, evil)
            for command in (["peers"], ["models", "ls"], ["peers", "--json"], ["models", "ls", "--json"], ["status"]):
                shown = await trio.to_thread.run_sync(_dim, alba, *command)
                assert all(sign.isprintable() or sign == "\n" for sign in shown), command
                assert "admin" in shown or command == ["status"]

    run(main)


def test_a_peer_that_calls_itself_self_is_not_taken_for_this_node(alba: RealNode) -> None:
    async def main() -> None:
        peer = Attacker()
        model = record(peer.key, "manifest", **_manifest("mirror"))
        peer.offers([model.id], name="self", manifests=[model.envelope])
        async with peer.attached(alba):
            await trio.to_thread.run_sync(_wait_model, alba, "mirror")
            plan = await trio.to_thread.run_sync(alba.client.validate, {"tasks": [{"model": "mirror"}]}, [patient(1)])
            assert plan["steps"][0]["peers"] == [f"self …{peer_letters(peer.peer)}"]
            names = await trio.to_thread.run_sync(names_of_peers, alba.client)
            assert [name for name in names.values() if name == "self"] == ["self"]

    run(main)


def test_a_name_that_two_peers_claim_means_neither_and_a_model_that_both_publish_is_named_by_its_publisher(
    alba: RealNode,
) -> None:
    async def main() -> None:
        twins = [Attacker(), Attacker()]
        for twin in twins:
            model = record(twin.key, "manifest", **_manifest("lookalike"))
            twin.offers([model.id], name="twin", manifests=[model.envelope])
        async with twins[0].attached(alba), twins[1].attached(alba):
            await trio.to_thread.run_sync(_look_at_twins, alba, [twin.peer for twin in twins])

    run(main)


def _look_at_twins(alba: RealNode, peers: list[PeerId]) -> None:
    def rows() -> list[dict]:
        return [row for row in alba.client.models() if row["name"].startswith("lookalike")]

    until(lambda: len(rows()) == 2, JOB_SECONDS, "both manifests are heard")
    tails = [peer_letters(peer) for peer in peers]
    assert {row["publisher_name"] for row in rows()} == {f"twin …{tail}" for tail in tails}
    assert all(tail in _dim(alba, "models", "ls") for tail in tails)
    with pytest.raises(Refused) as caught:
        alba.client.explain("twin")
    assert caught.value.complaint.code == "E-peers-01"
    assert all(peer_text(peer) in caught.value.complaint.cause for peer in peers)
    with pytest.raises(Refused) as caught:
        alba.client.validate({"tasks": [{"model": "lookalike"}]}, [patient(1)])
    assert caught.value.complaint.code == "E-models-02"
    assert all(f"{tail}/lookalike" in caught.value.complaint.cause for tail in tails)
    named = f"{peer_letters(peers[0])}/lookalike"
    [step] = alba.client.validate({"tasks": [{"model": named}]}, [patient(1)])["steps"]
    assert step["publisher"].startswith("twin …")
    assert step["publisher"].endswith(tails[0])
    assert step["peers"][0] == f"twin …{peer_letters(peers[0])}"


def _dim(node: RealNode, *command: str) -> str:
    typed = [sys.executable, "-m", "dimnode.cli.main", *command, "--home", str(node.home)]
    done = subprocess.run(typed, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _wait_model(node: RealNode, name: str) -> None:
    until(lambda: any(name in row["name"] for row in node.client.models()), JOB_SECONDS, "the manifest is heard")


def _manifest(name: str, **more: object) -> dict:
    return {
        "name": name,
        "version": "1",
        "format": "onnx",
        "files": [["m.onnx", blob_cid(b"m"), 1]],
        "inputs": [["x", "float32", [-1, MODEL_FEATURES]]],
        "outputs": [["label", "int64", [-1]]],
        "labels": [],
        "licence": "none",
        "origin": "imported",
        "access": "public",
    } | more


def test_a_voter_whose_output_nobody_can_read_does_not_end_the_vote(alba: RealNode) -> None:
    model = record(Attacker(b"v" * 32).key, "manifest", **_manifest("spoiler"))
    garbage = encode_tensors([Tensor("label", "float32", (1, 0), b"")])

    async def main() -> None:
        spoiler = Attacker()
        spoiler.offers([model.id], manifests=[model.envelope])
        async with spoiler.attached(alba):
            await trio.to_thread.run_sync(_wait_model, alba, "spoiler")
            tasks = [{"model": "triage", "peer": "self"}, {"model": "spoiler"}]
            job = {"pattern": "comparative", "tasks": tasks, "min_sites": 1}
            pending = alba.client.submit(job, [patient(1)])
            lease = await spoiler.word("lease")
            spoiler.send(me(alba), answer_frame(spoiler.key, lease, garbage))
            assert (await spoiler.word("refused", lease.key)).text == "votes: label is not int64 [rows]"
            assert (await trio.to_thread.run_sync(pending.wait, JOB_SECONDS)).status == "ok"

    run(main)


@pytest.mark.parametrize(
    "odd",
    [
        Tensor("label", "int64", (3,), bytes(24)),
        Tensor("label", "float64", (1,), struct.pack("<d", math.nan)),
        Tensor("other", "int64", (1,), bytes(8)),
    ],
    ids=["other rows", "not a number", "another name"],
)
def test_one_voter_of_three_whose_output_has_another_shape_does_not_end_the_vote(alba: RealNode, odd: Tensor) -> None:
    name = f"misfit {odd.name} {odd.dtype}"
    model = record(Attacker(b"m" * 32).key, "manifest", **_manifest(name))

    async def main() -> None:
        misfit = Attacker()
        misfit.offers([model.id], manifests=[model.envelope])
        async with misfit.attached(alba):
            await trio.to_thread.run_sync(_wait_model, alba, name)
            tasks = [{"model": name}, {"model": "triage", "peer": "self"}, {"model": "triage", "peer": "self"}]
            job = {"pattern": "comparative", "tasks": tasks, "min_sites": 2}
            pending = alba.client.submit(job, [patient(1)])
            lease = await misfit.word("lease")
            misfit.send(me(alba), answer_frame(misfit.key, lease, encode_tensors([odd])))
            ended = await trio.to_thread.run_sync(pending.wait, JOB_SECONDS)
            assert ended.status == "ok"
            label, votes = (tensor for tensor in decode_tensors(ended.outputs[0]) if tensor.name in ("label", "votes"))
            assert max(votes.raw) == 2, "both honest models count"
            assert label.raw == decode_tensors(alba.client.run(triage("self"), [patient(1)]).outputs[0])[0].raw
            report = verify(await trio.to_thread.run_sync(alba.client.receipt, ended.job))
            assert (report.status, [str(check) for check in report.checks if check.outcome == "fail"]) == (0, [])

    run(main)
    Books(alba.home).check_once()


def test_nothing_in_a_nodes_directory_is_readable_by_others(alba: RealNode) -> None:
    async def main() -> None:
        async with Attacker().attached(alba):  # whom it remembers, at its next round
            noted = (alba.home / "peers.json").exists
            await trio.to_thread.run_sync(until, noted, JOB_SECONDS, "a peer is noted down")

    run(main)
    found = {alba.home, socket_path(alba.home)}
    found |= {Path(place, name) for place, *names in os.walk(alba.home) for name in (*names[0], *names[1])}
    modes = {}
    for path in found:
        with suppress(FileNotFoundError):  # the node runs: it writes beside a file and renames
            modes[path.name] = path.lstat().st_mode
    assert {"journal.db", socket_path(alba.home).name, "identity.key", "lock", "peers.json"} <= modes.keys()
    assert [name for name, mode in modes.items() if mode & 0o077] == []


def test_the_log_of_a_node_holds_nothing_of_what_its_jobs_compute(alba: RealNode) -> None:
    blob = patient(31)
    ended = alba.client.run(triage("self"), [blob])
    log = alba.log.read_bytes()
    assert b"31.1" not in log
    assert all(part not in log for part in (blob[-16:], ended.outputs[0][-16:]))
