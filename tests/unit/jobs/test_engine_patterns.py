"""Chains, votes, sites and quorums, from submission to verdict."""

from typing import Any

import pytest
from engine_stage import (
    CABINET,
    ME,
    MODEL,
    OTHER_MODEL,
    THIRD_MODEL,
    A,
    B,
    C,
    D,
    E,
    F,
    Stage,
    appended,
    body,
    idle,
    of,
    opening,
    sent,
)

from dimnode.consensus.standing import context_of
from dimnode.jobs.effects import Combine, Compare, Effect, Note, Refuse, Remember, Reply, Send
from dimnode.jobs.events import Combined, Compared, PeerDown, TimePassed
from dimnode.limits import JobLimits

TTL_SECONDS = JobLimits().lease_ttl_ms / 1000
VOTES: dict[str, Any] = {
    "pattern": "comparative",
    "tasks": [{"op": "infer", "model": model} for model in (MODEL, OTHER_MODEL, THIRD_MODEL)],
    "rule": {"method": "majority_vote"},
}


def sites(*peers: Any, **more: Any) -> dict[str, Any]:
    """A collaborative job over sites; None is any site."""
    task: dict[str, Any] = {"op": "statistics", "cabinet": CABINET}
    tasks = [task if site is None else {**task, "peer": site} for site in peers]
    return {"pattern": "collaborative", "tasks": tasks, "rule": {"method": "sum_counts"}, "blobs": (), **more}


def quorum(n: int = 3, k: int = 2, steps: int = 1) -> dict[str, Any]:
    """A chain whose steps are replicated."""
    tasks = [{"op": "infer", "model": MODEL}] * steps
    return {"tier": "quorum", "quorum": {"n": n, "k": k}, "rule": {"method": "quorum"}, "tasks": tasks}


def all_answered(stage: Stage, leases: list[Send], **more: Any) -> list[Effect]:
    """What follows when every lease is answered."""
    return [effect for lease in leases for effect in stage.do(stage.answer(lease, **more))]


def decided(stage: Stage, compare: Compare, agree: int) -> list[Effect]:
    """The first `agree` parts agree, all others differ; 0 is a split."""
    answers = tuple(part.answer for part in compare.parts)
    if agree == 0:
        return stage.do(Compared(compare.job, compare.step, None, (), answers))
    return stage.do(Compared(compare.job, compare.step, answers[0], answers[:agree], answers[agree:]))


def combined(stage: Stage, combine: Combine) -> list[Effect]:
    """All parts become one output."""
    output = opening(b"aggregate", "aggregate")
    stage.holds[output.cid] += 1
    return stage.do(Combined(combine.job, output, tuple(part.answer for part in combine.parts), ()))


# ---- chains


def test_each_step_of_a_chain_reads_the_output_of_the_one_before() -> None:
    stage = Stage([A])
    effects = stage.submit(tasks=[{"op": "infer", "model": MODEL}] * 3)
    for number, output in enumerate((b"first", b"second", b"third")):
        lease = sent("lease", effects)[0]
        assert lease.key[1:] == (number, 1)
        answer = stage.answer(lease, output)
        effects = stage.do(answer)
        for following in sent("lease", effects):
            assert following.openings == (answer.output,)
    verdict = body(appended("verdict", effects)[0])
    assert [step["task"] for step in verdict["steps"]] == [0, 1, 2]
    assert idle(stage)


def test_a_declared_mapping_decides_what_a_step_reads() -> None:
    stage = Stage([A])
    take = [["x", 1, "second input", -1, -1], ["y", 2, "output of step 0", -1, -1]]
    effects = stage.submit(
        blobs=(b"1", b"2"), tasks=[{"op": "infer", "model": MODEL}, {"op": "infer", "model": MODEL, "take": take}]
    )
    first = sent("lease", effects)[0]
    assert len(first.openings) == 2
    answer = stage.answer(first)
    second = sent("lease", stage.do(answer))[0]
    assert second.openings == (first.openings[1], answer.output)


def test_a_chain_ends_at_the_first_step_that_fails() -> None:
    stage = Stage([A])
    first = sent("lease", stage.submit(tasks=[{"op": "infer", "model": MODEL}] * 2))[0]
    second = sent("lease", stage.do(stage.answer(first)))[0]
    effects = stage.do(stage.answer(second, status="failed"))
    assert of(Reply, effects)[0].status == "failed"
    assert len(body(appended("verdict", effects)[0])["steps"]) == 1
    assert idle(stage)


# ---- votes


def test_models_vote_at_different_peers_where_possible_and_all_votes_are_combined() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**VOTES))
    assert {lease.peer for lease in leases} == {A, B, C}
    effects = all_answered(stage, leases)
    combine = of(Combine, effects)[0]
    assert (combine.method, len(combine.parts), combine.weights_permille) == ("majority_vote", 3, ())
    effects = combined(stage, combine)
    assert of(Reply, effects)[0].status == "ok"
    assert appended("verdict", effects)[0].openings  # the tally is this node's own: its opening and bytes go with it
    assert appended("verdict", effects)[0].blobs
    assert idle(stage)


def test_two_models_may_vote_from_one_peer_when_nobody_else_has_them() -> None:
    stage = Stage([A])
    assert [lease.peer for lease in sent("lease", stage.submit(**VOTES))] == [A, A, A]


def test_a_model_that_only_one_peer_has_is_placed_first() -> None:
    stage = Stage([])
    stage.link(A)
    stage.link(B, models=[MODEL])
    votes = {**VOTES, "tasks": [{"op": "infer", "model": MODEL}, {"op": "infer", "model": OTHER_MODEL}]}
    for _ in range(5):
        leases = sent("lease", stage.submit(**votes))
        assert {lease.key[1]: lease.peer for lease in leases} == {0: B, 1: A}


def test_weights_go_with_the_votes_they_belong_to() -> None:
    stage = Stage([A, B, C])
    rule = {"method": "weighted_vote", "weights_permille": [500, 300, 200]}
    leases = {lease.key[1]: lease for lease in sent("lease", stage.submit(**{**VOTES, "rule": rule}, min_sites=2))}
    all_answered(stage, [leases[2], leases[0]])
    stage.told(leases[1].peer, "refused", leases[1].key, code="E-x")
    effects = []
    for other in (A, B, C):  # whoever gets the vote next refuses it too
        key = (*leases[1].key[:2], 2 + [A, B, C].index(other))
        for peer in (A, B, C):
            effects += stage.told(peer, "refused", key, code="E-x")
    combine = of(Combine, effects)[0]
    assert combine.weights_permille == (500, 200)
    assert [part.peer for part in combine.parts] == [leases[0].peer, leases[2].peer]


def test_votes_that_cannot_be_combined_fail_the_job_with_the_reason() -> None:
    stage = Stage([A])
    combine = of(Combine, all_answered(stage, sent("lease", stage.submit(**VOTES))))[0]
    effects = stage.do(Combined(combine.job, None, (), (), "E-consensus-01", "rows differ"))
    assert [(r.status, r.code, r.reason) for r in of(Reply, effects)] == [("failed", "E-consensus-01", "rows differ")]
    assert idle(stage)


def test_a_vote_that_does_not_fit_the_others_is_left_out_and_the_verdict_says_so() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**VOTES, min_sites=2))
    combine = of(Combine, all_answered(stage, leases))[0]
    assert combine.needed == 2
    [odd] = [part for part in combine.parts if part.peer == C]
    first, second = (part.answer for part in combine.parts if part is not odd)
    evidence, tally = len(stage.evidence), opening(b"tally", "tally")
    stage.holds[tally.cid] += 1
    effects = stage.do(Combined(combine.job, tally, (first,), (second,)))
    assert of(Reply, effects)[0].status == "ok"
    [left_out] = [note for note in of(Note, effects) if note.what == "left out"]
    assert left_out.peer == C
    verdict = body(appended("verdict", effects)[0])
    assert (verdict["steps"][0]["supporters"], verdict["steps"][0]["dissent"]) == ([first], [second])
    assert odd.answer not in verdict["parents"], "the verdict counts every good answer of its receipt"
    assert [stage.payloads[lease]["executor"] for lease in verdict["abandoned"]] == [C]
    assert verdict["unchecked"][-1].endswith(f"to tasks {left_out.task}")
    assert len(stage.evidence) == evidence, "models may honestly differ"
    assert idle(stage)


# ---- sites


def test_a_sum_over_sites_names_each_of_them() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**sites(A, B)))
    assert [lease.peer for lease in leases] == [A, B]
    effects = combined(stage, of(Combine, all_answered(stage, leases, rulings=1))[0])
    verdict = body(appended("verdict", effects)[0])
    assert len(verdict["steps"][0]["supporters"]) == 2 and verdict["status"] == "ok"
    assert idle(stage)


def test_a_site_contributes_once_and_is_not_taken_from_a_task_that_names_it() -> None:
    stage = Stage([A, B, C])
    for _ in range(5):
        leases = {lease.key[1]: lease.peer for lease in sent("lease", stage.submit(**sites(None, A, None)))}
        assert leases[1] == A and {leases[0], leases[2]} == {B, C}


def test_a_site_that_a_task_names_is_kept_for_it_while_the_other_task_waits() -> None:
    stage = Stage([A, B])
    stage.do(PeerDown(A))
    stage.do(PeerDown(B))
    stage.submit(**sites(None, A))
    assert [lease.key[1] for lease in sent("lease", stage.link(A))] == [1]
    assert [lease.key[1] for lease in sent("lease", stage.link(B))] == [0]


def test_at_the_deadline_enough_contributions_make_a_result() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**sites(A, B, C, min_sites=2), deadline_ms=20_000))
    assert not of(Combine, all_answered(stage, leases[:2], rulings=1))
    stage.later(20.3)
    effects = stage.do(TimePassed())
    assert [(send.peer, send.key) for send in sent("cancel", effects)] == [(C, leases[2].key)]
    combine = of(Combine, effects)[0]
    assert len(combine.parts) == 2
    verdict = body(appended("verdict", combined(stage, combine))[0])
    assert verdict["status"] == "ok" and verdict["abandoned"] == [leases[2].records[0]]
    stage.do(stage.answer(leases[2], rulings=1))
    assert idle(stage)


def test_at_the_deadline_too_few_contributions_expire() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**sites(A, B, C, min_sites=2), deadline_ms=20_000))
    all_answered(stage, leases[:1], rulings=1)
    stage.later(20.3)
    assert of(Reply, stage.do(TimePassed()))[0].status == "expired"
    assert idle(stage)


def test_a_refusal_by_policy_is_final_for_the_site_and_a_job_that_needs_it_is_refused_at_once() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**sites(A, B)))
    effects = stage.do(stage.ruling(leases[0], False))
    assert sent("ack", effects) and [send.peer for send in sent("cancel", effects)] == [B]
    verdict = body(appended("verdict", effects)[0])
    ruling = appended("ruling", effects)[0].id
    assert (verdict["status"], verdict["code"]) == ("refused", "E-cabinets-03")
    assert verdict["parents"] == [leases[0].key[0], ruling]
    assert not sent("lease", effects)
    assert idle(stage)


def test_a_refusal_costs_no_standing_and_leaves_a_job_that_can_do_without_the_site() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**sites(A, B, min_sites=1)))
    effects = stage.do(stage.ruling(leases[0], False))
    assert not of(Remember, effects) and not of(Reply, effects)
    effects = stage.do(stage.answer(leases[1], rulings=1))
    effects = combined(stage, of(Combine, effects)[0])
    parents = body(appended("verdict", effects)[0])["parents"]
    assert len(parents) == 3 and of(Reply, effects)[0].status == "ok"  # spec, answer, refusal
    assert idle(stage)


def test_when_any_site_will_do_another_one_is_asked_after_a_refusal() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit(**sites(None)))[0]
    again = sent("lease", stage.do(stage.ruling(lease, False)))[0]
    assert {lease.peer, again.peer} == {A, B}


def test_a_site_that_is_freed_by_a_refusal_gets_the_task_that_waited_beside_it() -> None:
    stage = Stage([A, B])
    leases = {lease.peer: lease for lease in sent("lease", stage.submit(**sites(None, None)))}
    assert not sent("lease", stage.told(A, "refused", leases[A].key, retry_after_ms=500))
    moved = sent("lease", stage.told(B, "refused", leases[B].key, code="E-x", text="no"))
    assert [(lease.peer, lease.key[1]) for lease in moved] == [(B, leases[A].key[1])]


def test_an_answer_from_a_cabinet_without_a_permission_is_a_bad_record() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit(**sites(None)))[0]
    effects = stage.do(stage.answer(lease))
    assert sent("refused", effects)[0].text == "answer: no permission for the cabinet"
    assert sent("lease", effects)


# ---- quorum


def test_replicas_run_at_different_peers_and_the_accepted_one_is_the_output() -> None:
    stage = Stage([ME, A, B, C])
    leases = sent("lease", stage.submit(**quorum()))
    assert len({lease.peer for lease in leases}) == 3
    compare = of(Compare, all_answered(stage, leases))[0]
    effects = decided(stage, compare, 3)
    assert of(Reply, effects)[0].outputs == (compare.parts[0].output,)
    assert idle(stage)


def test_a_contradicted_peer_is_barred_and_gets_no_further_task_of_that_kind() -> None:
    stage = Stage([A, B, C, D])
    leases = sent("lease", stage.submit(**quorum()))
    compare = of(Compare, all_answered(stage, leases))[0]
    effects = decided(stage, compare, 2)
    liar = compare.parts[2].peer
    assert [note.peer for note in of(Note, effects) if note.what == "contradicted"] == [liar]
    assert {remembered.evidence.good for remembered in of(Remember, effects)} == {True, False}
    assert stage.engine.roster.standing.barred_until(liar, context_of("infer", "mlp"), stage.now.wall_ms)
    for _ in range(20):
        assert liar not in {lease.peer for lease in sent("lease", stage.submit(**quorum()))}
    pinned = stage.submit(tasks=[{"op": "infer", "model": MODEL, "peer": liar}])
    assert of(Refuse, pinned)[0].code == "E-jobs-10"


def test_a_split_runs_one_more_round_at_other_peers_and_decides_over_both() -> None:
    stage = Stage([A, B, C, D, E, F])
    first = sent("lease", stage.submit(**quorum()))
    effects = decided(stage, of(Compare, all_answered(stage, first))[0], 0)
    second = sent("lease", effects)
    assert not {lease.peer for lease in first} & {lease.peer for lease in second} and len(second) == 3
    assert [lease.key[1] for lease in second] == [3, 4, 5]
    compare = of(Compare, all_answered(stage, second))[0]
    assert len(compare.parts) == 6
    effects = decided(stage, compare, 4)
    assert len(body(appended("verdict", effects)[0])["steps"][0]["dissent"]) == 2
    assert idle(stage)


def test_a_second_split_ends_the_job_and_contradicts_nobody() -> None:
    stage = Stage([A, B, C, D, E, F])
    effects = decided(stage, of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum()))))[0], 0)
    effects = decided(stage, of(Compare, all_answered(stage, sent("lease", effects)))[0], 0)
    assert [(reply.status, reply.code) for reply in of(Reply, effects)] == [("split", "E-jobs-08")]
    verdict = body(appended("verdict", effects)[0])
    assert verdict["reason"] == "no 2 of 6 answers agree" and len(verdict["parents"]) == 7
    assert not of(Remember, effects)
    assert idle(stage)


def test_a_second_round_does_with_the_peers_that_are_there() -> None:
    stage = Stage([A, B, C, D])
    effects = decided(stage, of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum()))))[0], 0)
    second = sent("lease", effects)
    assert len(second) == 1
    compare = of(Compare, stage.do(stage.answer(second[0])))[0]
    assert len(compare.parts) == 4
    decided(stage, compare, 2)
    assert idle(stage)


def test_with_no_further_peer_a_split_is_final() -> None:
    stage = Stage([A, B, C])
    effects = decided(stage, of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum()))))[0], 0)
    compare = of(Compare, effects)[0]  # nobody joined: the same three, and the last word
    assert of(Reply, decided(stage, compare, 0))[0].status == "split"
    assert idle(stage)


def test_the_next_step_of_a_quorum_chain_reads_the_accepted_answer_and_may_split_anew() -> None:
    stage = Stage([A, B, C, D])
    compare = of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum(steps=2)))))[0]
    second = sent("lease", decided(stage, compare, 3))
    assert [lease.key[1] for lease in second] == [6, 7, 8]
    assert {lease.openings[0].cid for lease in second} == {compare.parts[0].output}
    effects = decided(stage, of(Compare, all_answered(stage, second))[0], 0)
    assert [lease.key[1] for lease in sent("lease", effects)] == [9]


def test_a_quorum_closes_with_k_of_n_when_a_replica_is_silent_and_nobody_can_replace_it() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**quorum()))
    assert not of(Compare, all_answered(stage, leases[:2]))
    assert not of(Compare, stage.do(PeerDown(leases[2].peer)))  # it may yet come back
    stage.later(TTL_SECONDS + 1)
    compare = of(Compare, stage.do(TimePassed()))[0]
    assert len(compare.parts) == 2
    assert of(Reply, decided(stage, compare, 2))[0].status == "ok"


def test_a_later_step_does_without_the_peer_that_an_earlier_one_has_barred() -> None:
    stage = Stage([A, B, C])
    compare = of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum(steps=2)))))[0]
    second = sent("lease", decided(stage, compare, 2))
    assert len(second) == 2
    compare = of(Compare, all_answered(stage, second))[0]
    assert of(Reply, decided(stage, compare, 2))[0].status == "ok"
    assert idle(stage)


def test_a_quorum_that_needs_every_replica_waits_for_a_peer_to_come() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**quorum(n=2)))
    stage.do(stage.answer(leases[0]))
    stage.do(PeerDown(leases[1].peer))
    stage.later(TTL_SECONDS + 1)
    assert not of(Reply, stage.do(TimePassed()))
    lease = sent("lease", stage.link(C))[0]
    assert of(Compare, stage.do(stage.answer(lease)))


def test_a_quorum_that_cannot_be_had_any_more_fails_at_once() -> None:
    stage = Stage([A, B, C])
    leases = sent("lease", stage.submit(**quorum()))
    effects = stage.told(leases[0].peer, "refused", leases[0].key, code="E-x", text="no")
    assert not sent("lease", effects)  # both others have a replica already: two are left
    effects = stage.told(leases[1].peer, "refused", leases[1].key, code="E-x", text="no")
    again = sent("lease", effects)[0]
    assert again.peer == leases[0].peer  # it failed another replica, not this one
    effects = stage.told(again.peer, "refused", again.key, code="E-x", text="no")
    assert of(Reply, effects)[0].status == "failed"
    assert [send.peer for send in sent("cancel", effects)] == [leases[2].peer]
    assert idle(stage)


def test_a_replica_may_use_the_peer_that_another_replica_has_failed_at() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**quorum(n=2)))
    on_a, on_b = sorted(leases, key=lambda lease: lease.peer != A)
    effects = stage.told(A, "refused", on_a.key, retry_after_ms=500)
    assert not sent("lease", effects)  # B has the other replica
    effects = stage.told(B, "refused", on_b.key, code="E-x", text="no")
    stage.later(1)
    effects += stage.do(TimePassed())
    assert {lease.peer for lease in sent("lease", effects)} <= {A, B} and sent("lease", effects)


def test_a_decision_is_waited_for_when_the_deadline_falls_into_it() -> None:
    stage = Stage([A, B, C])
    compare = of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum(), deadline_ms=1000))))[0]
    stage.later(1.3)
    assert not of(Reply, stage.do(TimePassed()))
    assert of(Reply, decided(stage, compare, 3))[0].status == "ok"
    assert idle(stage)


def test_after_a_late_decision_the_deadline_still_ends_a_job_that_would_go_on() -> None:
    stage = Stage([A, B, C])
    compare = of(Compare, all_answered(stage, sent("lease", stage.submit(**quorum(steps=2), deadline_ms=1000))))[0]
    stage.later(1.3)
    stage.do(TimePassed())
    assert sent("lease", decided(stage, compare, 3))
    stage.later(1.3)
    assert of(Reply, stage.do(TimePassed()))[0].status == "expired"
    assert idle(stage)


@pytest.mark.parametrize("event", ["compared", "combined"])
def test_a_decision_for_a_job_that_is_over_is_let_go(event: str) -> None:
    stage = Stage([A])
    if event == "compared":
        assert not stage.do(Compared(MODEL, 0, None, (), ()))
    else:
        assert len(combined(stage, Combine(MODEL, "sum_counts", (), (), 1))) == 1
    assert idle(stage)


def test_a_verdict_over_as_many_votes_as_there_can_be_fits_a_record() -> None:
    stage = Stage([A, B, C, D, E, F])
    effects = stage.submit(**{**VOTES, "tasks": [{"op": "infer", "model": MODEL}] * 64}, min_sites=1)
    leases = {lease.key[1]: lease for lease in sent("lease", effects)}
    for _ in range(7):  # every attempt but the last is lost
        for number, lease in leases.items():
            leases[number] = sent("lease", stage.told(lease.peer, "unknown", lease.key))[0]
    combine = of(Combine, all_answered(stage, list(leases.values())))[0]
    verdict = appended("verdict", combined(stage, combine))[0]
    assert len(body(verdict)["parents"]) == 65
    assert len(verdict.payload) < stage.limits.records.record_bytes_max
    assert idle(stage)
