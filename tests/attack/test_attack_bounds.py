"""What a peer must not fill up: the table of models, the memory for blobs, the space of names."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_stage import ABSENT_PEER, ME, MODEL, A, B, Stage, key_of, of, sent

from dimnode.consensus.combining import check_part
from dimnode.errors import PeerFault
from dimnode.jobs.effects import Compare, Forget, Reply, Run
from dimnode.jobs.events import BadRecord, Compared
from dimnode.limits import LIMITS, JobLimits, Limits
from dimnode.node.fetching import Fetching
from dimnode.node.registry import Registry
from dimnode.p2p.blobs import BLOB, Grants, serve_blobs
from dimnode.p2p.frames import TaskFrame
from dimnode.p2p.host.host import open_host
from dimnode.records.envelope import Record, SigningKey
from dimnode.records.ids import PeerId, RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.store.journal import Journal
from tests.attack.attacker import opening, record

KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 9)]
LISTEN = ["/ip4/127.0.0.1/tcp/0"]
KEY = (RecordId(OPEN_SWARM_ID), 0, 1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as opened:
        yield opened


def manifest(key: SigningKey, name: str, summary: str = "") -> Record:
    return record(
        key,
        "manifest",
        name=name,
        version="1",
        format="onnx",
        files=[["m.onnx", blob_cid(b"m"), 1]],
        inputs=[],
        outputs=[],
        labels=[summary[:64]] * 64 if summary else [],
        licence="",
        origin="imported",
        access="public",
    )


def test_a_stranger_who_tells_of_thousands_of_models_displaces_only_its_own(
    journal: Journal,
) -> None:
    registry = registry_with_room_for(32, journal)
    honest, flood = [manifest(KEYS[1], f"early {n}") for n in range(3)], KEYS[2]
    for told in honest:
        registry.hear(told, KEYS[1].peer)
    for number in range(100):
        registry.hear(manifest(flood, f"flood {number}"), flood.peer)
    late = manifest(KEYS[3], "late")
    registry.hear(late, KEYS[3].peer)
    assert {told.id for told in (*honest, late)} <= registry.manifests.keys()
    assert len(registry.manifests) == 32


def test_a_models_manifest_stays_while_anybody_honest_tells_of_it(
    journal: Journal,
) -> None:
    """A flooder that repeats what others offer does not take it along when its share is cut."""
    registry = registry_with_room_for(8, journal)
    shared = manifest(KEYS[1], "shared")
    for teller in (KEYS[2], KEYS[1]):
        registry.hear(shared, teller.peer)
    for number in range(50):
        registry.hear(manifest(KEYS[2], f"flood {number}"), KEYS[2].peer)
    assert registry.find("shared") == shared


def registry_with_room_for(count: int, journal: Journal) -> Registry:
    peers = LIMITS.peers
    peers = replace(peers, manifests_heard_bytes_max=count * peers.manifest_share_bytes_min)
    return Registry(KEYS[0].peer, OPEN_SWARM_ID, journal, replace(LIMITS, peers=peers))


def frame(what: str, blobs: list[bytes]) -> TaskFrame:
    return TaskFrame(what, KEY, openings=tuple(opening(blob) for blob in blobs))


def test_all_blobs_of_a_frame_have_one_bound_together() -> None:
    """Sixty-four references may stand in a frame: each within its limit, all together gigabytes."""
    blobs = [os.urandom(100_000) for _ in range(8)]
    limits = replace(LIMITS, exec=replace(LIMITS.exec, input_bytes_max=250_000))
    grants, served = Grants(), []

    def read(cid: bytes) -> bytes:
        served.append(cid)
        return next(blob for blob in blobs if blob_cid(blob) == cid)

    async def main() -> None:
        handlers = {BLOB: serve_blobs(grants, read)}
        async with (
            open_host(b"a" * 32, LISTEN, {}, dht=False) as victim,
            open_host(b"b" * 32, LISTEN, handlers, dht=False) as attacker,
        ):
            for blob in blobs:
                grants.allow(PeerId(victim.peer), blob_cid(blob))
            await victim.connect(attacker.addresses()[0])
            fetching, lease = Fetching(limits), frame("lease", blobs)
            assert fetching.begin(PeerId(attacker.peer), lease)
            with pytest.raises(PeerFault, match="too large"):
                await fetching.fetch(victim, PeerId(attacker.peer), lease)
            assert len(served) == 3, "the rest was not even asked for"
            assert fetching.begin(PeerId(attacker.peer), lease), "and the place is free again"

    trio.run(main)


def test_leases_of_strangers_do_not_keep_an_awaited_answer_waiting() -> None:
    fetching, blobs = Fetching(LIMITS), [b"large"]
    taken = [fetching.begin(key.peer, frame("lease", blobs)) for key in KEYS for _ in range(3)]
    assert sum(taken) == LIMITS.peers.blob_fetches_max
    assert max(taken[place : place + 3].count(True) for place in range(0, len(taken), 3)) == 2
    assert fetching.begin(KEYS[0].peer, frame("answer", blobs))
    assert not fetching.begin(KEYS[0].peer, frame("answer", blobs)), "the same answer is not fetched twice at once"


def answered(stage: Stage, owner: PeerId, number: int) -> None:
    """A lease of this owner that was carried out and is never acknowledged."""
    lease = stage.lease(owner, nonce=number.to_bytes(16, "big"))
    stage.do(lease)
    stage.do(stage.finished(key_of(lease)))


def test_owners_that_never_acknowledge_do_not_keep_the_others_out_for_a_day() -> None:
    stage = Stage([A, B], limits=Limits(jobs=JobLimits(works_max=3)))
    for number in range(3):
        answered(stage, A, number)
    effects = stage.do(stage.lease(B))
    assert len(of(Run, effects)) == len(of(Forget, effects)) == 1
    assert stage.engine.executor.sizes()["works"] == 3


def test_an_answer_kept_for_its_owner_keeps_no_bytes_in_memory() -> None:
    stage = Stage([A])
    before = stage.held
    answered(stage, A, 1)
    assert stage.held == before, "the journal has the answer's record and its output"


def test_a_strangers_job_neither_bars_an_honest_peer_nor_makes_anybody_established() -> None:
    """Its submitter chooses model, comparator and who is asked: two of its friends outvote the honest third."""
    for submitter, remembered in ((ABSENT_PEER, 0), (ME, 3)):
        stage = Stage()
        asked = {"tier": "quorum", "rule": {"method": "quorum"}, "quorum": {"n": 3, "k": 2}, "by": submitter}
        leases = sent("lease", stage.submit(**asked))
        answers = [stage.answer(lease, blob) for lease, blob in zip(leases, (b"a", b"a", b"b"), strict=True)]
        [compare] = [found for answer in answers for found in of(Compare, stage.do(answer))]
        agreeing, dissent = tuple(part.answer for part in compare.parts[:2]), (compare.parts[2].answer,)
        stage.do(Compared(compare.job, 0, agreeing[0], agreeing, dissent))
        assert len(stage.evidence) == remembered


def vote(labels: list[int]) -> bytes:
    return encode_tensors([Tensor("label", "int64", (len(labels),), struct.pack(f"<{len(labels)}q", *labels))])


def test_one_large_label_does_not_make_a_tally_of_many_megabytes() -> None:
    rows, classes = LIMITS.consensus.vote_rows_max, LIMITS.consensus.vote_classes_max
    most = LIMITS.consensus.tally_cells_max
    with pytest.raises(PeerFault, match=f"a tally of {rows * classes} counts, at most {most}"):
        check_part("majority_vote", ME, vote([0] * (rows - 1) + [classes - 1]), 1)
    check_part("majority_vote", ME, vote([0] * (rows - 1) + [most // rows - 1]), 1)  # a model of 256 classes may vote
    check_part("weighted_vote", ME, vote([classes - 1] * (most // classes)), 1)


def test_an_answer_that_the_rule_cannot_read_is_named_by_its_own_code_and_is_nobodys_fault() -> None:
    stage = Stage([A, B])
    tasks = [{"op": "infer", "model": MODEL}]
    lease = sent("lease", stage.submit(pattern="comparative", tasks=tasks, rule={"method": "majority_vote"}))[0]
    effects = stage.do(BadRecord(lease.peer, lease.key, "votes: a tally of 9 counts, at most 8", blame=False))
    assert [send.code for send in sent("refused", effects)] == ["E-consensus-02"]
    assert not stage.evidence
    second = sent("lease", effects)[0]
    ended = of(Reply, stage.do(BadRecord(second.peer, second.key, "votes: rows", blame=False)))
    assert [(reply.status, reply.code) for reply in ended] == [("failed", "E-consensus-02")]
