"""Which jobs an owner takes, and how it says no."""

from typing import Any

import pytest
from engine_stage import CABINET, MODEL, OTHER_MODEL, A, B, C, Stage, of, sent

from dimnode.jobs.effects import Refuse
from dimnode.jobs.events import PeerDown

INFER = {"op": "infer", "model": MODEL}
SITE = {"op": "statistics", "cabinet": CABINET}
VOTES = {"pattern": "comparative", "rule": {"method": "majority_vote"}, "tasks": [INFER, INFER]}
SITES = {"pattern": "collaborative", "rule": {"method": "sum_counts"}, "blobs": ()}
QUORUM = {"tier": "quorum", "rule": {"method": "quorum"}, "quorum": {"n": 3, "k": 2}}


def refused(stage: Stage, **changes: Any) -> str:
    """The code of the refusal, "" when the job is taken."""
    found = of(Refuse, stage.submit(**changes))
    assert all(refusal.what and (refusal.cause or refusal.hint) for refusal in found)
    return found[0].code if found else ""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tier": "quorum"}, "E-jobs-02"),
        ({"quorum": {"n": 3, "k": 2}}, "E-jobs-02"),
        ({**QUORUM, "quorum": {"n": 2, "k": 3}}, "E-jobs-02"),
        ({**QUORUM, "quorum": {"n": 4, "k": 2}}, "E-tier-02"),
        ({**VOTES, **QUORUM}, "E-jobs-02"),
        ({"rule": {"method": "sum_counts"}}, "E-jobs-02"),
        ({**VOTES, "rule": {"method": "weighted_vote"}}, "E-jobs-02"),
        ({**VOTES, "rule": {"method": "weighted_vote", "weights_permille": [1]}}, "E-jobs-02"),
        ({**VOTES, "rule": {"method": "majority_vote", "weights_permille": [1, 2]}}, "E-jobs-02"),
        ({**VOTES, "min_sites": 3}, "E-jobs-02"),
        ({**SITES, "tasks": [{**SITE, "peer": A}, {**SITE, "peer": A}]}, "E-jobs-02"),
        ({**QUORUM, "quorum": {"n": 7, "k": 4}, "tasks": [INFER] * 5}, "E-jobs-02"),
        ({"tasks": [{**INFER, "take": [["x", 1, "t", -1, -1]]}]}, "E-jobs-02"),
        ({**VOTES, "tasks": [{**INFER, "take": [["x", 2, "t", -1, -1]]}, INFER]}, "E-jobs-02"),
        ({"comparator": {"kind": "cosine"}}, "E-jobs-02"),
        ({"tasks": [{"op": "infer"}]}, "E-jobs-02"),
        ({"tasks": [{"op": "statistics"}]}, "E-jobs-02"),
        ({"tasks": [{**INFER, "op": "evaluate"}]}, "E-jobs-02"),
        ({"tasks": [{"op": "evaluate", "cabinet": CABINET}]}, "E-jobs-02"),
        ({**SITES, "tasks": [SITE, INFER]}, "E-jobs-02"),
        ({"blobs": ()}, "E-jobs-02"),
        ({**VOTES, "blobs": ()}, "E-jobs-02"),
        ({"tasks": [{**INFER, "take": [["x", 0, "t", -1, -1]] * 2}]}, "E-jobs-02"),
        ({"deadline_ms": 2 * 24 * 3600 * 1000}, "E-jobs-09"),
    ],
)
def test_a_job_that_contradicts_itself_is_refused_before_it_exists(changes: dict[str, Any], code: str) -> None:
    stage = Stage([A, B, C])
    assert refused(stage, **changes) == code
    assert stage.held == 0 and stage.engine.sizes()["jobs"] == 0


def test_a_model_that_no_peer_has_offered_is_refused_and_one_that_is_only_away_is_waited_for() -> None:
    stage = Stage([])
    stage.link(A, models=[MODEL])
    assert refused(stage, tasks=[{"op": "infer", "model": OTHER_MODEL}]) == "E-jobs-04"
    stage.do(PeerDown(A))
    assert refused(stage, tasks=[INFER]) == ""


def test_a_pinned_peer_that_does_not_offer_it_is_refused() -> None:
    stage = Stage([A])
    stage.link(B, models=[OTHER_MODEL])
    assert refused(stage, tasks=[{**INFER, "peer": B}]) == "E-jobs-04"
    assert refused(stage, tasks=[{**INFER, "peer": C}]) == "E-jobs-04"
    assert refused(stage, tasks=[{**INFER, "peer": A}]) == ""


def test_who_finds_no_cabinet_is_sent_where_cabinets_are_listed() -> None:
    for changes, hint in (({**SITES, "tasks": [SITE]}, "dim peers"), ({"tasks": [INFER]}, "dim models ls")):
        stage = Stage([])
        stage.link(A, models=[], cabinets=[])
        [no] = of(Refuse, stage.submit(**changes))
        assert (no.code, no.hint) == ("E-jobs-04", hint)


def test_a_quorum_needs_as_many_linked_peers_as_replicas() -> None:
    stage = Stage([A, B])
    assert refused(stage, **QUORUM) == "E-jobs-03"
    stage.link(C)
    assert refused(stage, **QUORUM) == ""
    stage.do(PeerDown(C))
    assert refused(stage, **QUORUM) == "E-jobs-03"


def test_a_job_that_can_do_without_a_site_is_taken_without_it() -> None:
    stage = Stage([A])
    tasks = [{**SITE, "peer": A}, {**SITE, "peer": B}]
    assert refused(stage, **SITES, tasks=tasks) == "E-jobs-04"
    assert refused(stage, **SITES, tasks=tasks, min_sites=1) == ""


def test_more_sites_than_there_are_are_refused() -> None:
    stage = Stage([A, B])
    assert refused(stage, **SITES, tasks=[SITE] * 3) == "E-jobs-04"
    assert refused(stage, **SITES, tasks=[SITE, {**SITE, "peer": A}]) == ""
    assert refused(stage, **SITES, tasks=[SITE, SITE, {**SITE, "peer": A}]) == "E-jobs-04"


def test_a_spec_that_a_peer_signed_is_held_until_its_job_ends() -> None:
    stage = Stage([A])
    event = stage.submission()
    stage.holds[event.job] += 1
    stage.payloads[event.job] = dict(event.spec)
    peers_own = type(event)(event.token, event.job, event.spec, b"", event.openings)
    lease = sent("lease", stage.do(peers_own))[0]
    stage.do(stage.answer(lease))
    assert stage.held == 0
