"""From the journal back to an engine: a crash loses only what nobody has seen."""

from dataclasses import replace

import pytest
from engine_stage import (
    CABINET,
    ME,
    MODEL,
    A,
    B,
    C,
    D,
    Stage,
    appended,
    body,
    idle,
    key_of,
    of,
    sent,
)

from dimnode.jobs.effects import Combine, Compare, Refuse, Reply
from dimnode.jobs.events import BadRecord, Combined, Compared, PeerDown, TimePassed
from dimnode.jobs.replay import JournalRow, held_by
from dimnode.limits import JobLimits

TTL_SECONDS = JobLimits().lease_ttl_ms / 1000
PATIENCE_SECONDS = JobLimits().restart_patience_seconds
CHAIN = [{"op": "infer", "model": MODEL}] * 2
QUORUM = {"tier": "quorum", "quorum": {"n": 3, "k": 2}, "rule": {"method": "quorum"}}
SITE = {"op": "statistics", "cabinet": CABINET}
SITES = {"pattern": "collaborative", "rule": {"method": "sum_counts"}, "blobs": ()}


# ---- the owner's side


def test_an_open_lease_is_resumed_and_its_answer_accepted() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    again = stage.restarted()
    assert [send.key for send in sent("resume", again.link(A))] == [lease.key]
    assert of(Reply, again.do(again.answer(lease))) == []  # its client did not survive: nobody is told,
    assert appended("verdict", again.do(BadRecord(A, lease.key, "x"))) == []  # but the job is over
    assert idle(again)


def test_a_client_that_submits_again_after_the_crash_finds_its_job() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit(nonce=b"n" * 16))[0]
    again = stage.restarted()
    again.link(A)
    assert not appended("spec", again.submit(nonce=b"n" * 16, token="new client"))
    replies = of(Reply, again.do(again.answer(lease)))
    assert [(reply.token, reply.job) for reply in replies] == [("new client", lease.key[0])]
    assert idle(again)


def test_a_lease_that_never_left_is_leased_again_under_the_next_epoch() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    again = stage.restarted()
    again.link(A)
    new = sent("lease", again.told(A, "unknown", lease.key))[0]
    assert new.key == (*lease.key[:2], 2) and new.openings == lease.openings


def test_a_job_that_had_found_no_peer_finds_one_after_the_restart() -> None:
    stage = Stage([A])
    stage.do(PeerDown(A))
    stage.submit()
    assert sent("lease", stage.restarted().link(A))


def test_a_chain_goes_on_where_it_was() -> None:
    stage = Stage([A])
    first = sent("lease", stage.submit(tasks=CHAIN))[0]
    answer = stage.answer(first)
    second = sent("lease", stage.do(answer))[0]
    again = stage.restarted()
    again.link(A)
    effects = again.do(again.answer(second))
    verdict = body(appended("verdict", effects)[0])
    assert [step["accepted"] for step in verdict["steps"]] == [answer.answer, appended("answer", effects)[0].id]
    assert idle(again)


def test_a_job_whose_last_answer_was_committed_without_its_verdict_is_concluded() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    effects = stage.do(stage.answer(lease))
    del stage.rows[appended("verdict", effects)[0].id]
    again = stage.restarted()
    assert body(appended("verdict", again.first)[0])["status"] == "ok"
    assert idle(again)


def test_a_job_that_is_over_is_not_restored() -> None:
    stage = Stage([A])
    stage.do(stage.answer(sent("lease", stage.submit())[0]))
    again = stage.restarted()
    assert idle(again) and not again.first


def test_the_deadline_counts_on_and_a_clock_that_jumped_gives_nobody_more_than_the_whole_time() -> None:
    stage = Stage([A])
    stage.submit(deadline_ms=100_000)
    stage.later(60)
    due = stage.restarted().engine.owner.deciding.ends.due()
    assert due is not None and due - stage.now.mono == pytest.approx(40, abs=0.3)
    stage.now = replace(stage.now, wall_ms=0)
    due = stage.restarted().engine.owner.deciding.ends.due()
    assert due is not None and due - stage.now.mono == pytest.approx(100, abs=0.3)


def test_a_deadline_that_passed_while_the_node_was_down_expires_at_once() -> None:
    stage = Stage([A])
    stage.submit(deadline_ms=1000)
    stage.later(60)
    again = stage.restarted()
    again.later(0.3)
    assert body(appended("verdict", again.do(TimePassed()))[0])["status"] == "expired"
    assert idle(again)


def test_failures_count_on_and_their_peers_are_not_asked_again() -> None:
    stage = Stage([A, B, C])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.do(stage.answer(first, status="failed")))[0]
    again = stage.restarted()
    for other in (A, B, C):
        again.link(other)
    effects = again.do(again.answer(second, status="failed"))
    verdict = body(appended("verdict", effects)[0])
    assert (verdict["status"], verdict["code"], len(verdict["parents"])) == ("failed", "E-exec-40", 3)
    assert idle(again)


def test_a_task_that_waits_after_a_failure_waits_for_another_peer() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    effects = stage.do(stage.answer(lease, status="failed"))
    del stage.rows[appended("verdict", effects)[0].id]
    again = stage.restarted()
    assert not sent("lease", again.link(A))
    assert sent("lease", again.link(B))[0].peer == B


def test_without_another_peer_it_is_given_up_when_patience_ends() -> None:
    stage = Stage([A])
    effects = stage.do(stage.answer(sent("lease", stage.submit())[0], status="failed"))
    del stage.rows[appended("verdict", effects)[0].id]
    again = stage.restarted()
    again.link(A)
    again.later(PATIENCE_SECONDS - 1)
    assert not appended("verdict", again.do(TimePassed()))
    again.later(1.1)
    assert body(appended("verdict", again.do(TimePassed()))[0])["code"] == "E-exec-40"
    assert idle(again)


def test_leases_stay_with_their_peers_while_these_may_yet_return() -> None:
    stage = Stage([A, B])
    leases = [sent("lease", stage.submit())[0] for _ in range(4)]
    again = stage.restarted()
    assert not sent("lease", again.link(B))
    at_a = {lease.key for lease in leases if lease.peer == A}
    assert at_a and {send.key for send in sent("resume", again.link(A))} == at_a
    again.do(PeerDown(A))
    late = stage.restarted()
    late.link(B)
    late.later(PATIENCE_SECONDS + 0.1)
    assert {lease.key[0] for lease in sent("lease", late.do(TimePassed()))} == {key[0] for key in at_a}


def test_a_late_answer_in_the_journal_is_no_failure_of_the_newer_epoch() -> None:
    stage = Stage([A, B])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.do(PeerDown(first.peer)))[0]
    stage.do(stage.answer(first, status="failed"))
    again = stage.restarted()
    again.link(second.peer)
    assert body(appended("verdict", again.do(again.answer(second)))[0])["status"] == "ok"


@pytest.mark.parametrize("task", [0, 7])
def test_a_late_answer_that_says_to_be_for_another_job_changes_nothing_about_that_job(task: int) -> None:
    """Its lease is one that was abandoned; whoever sent it has heard of the other job. A journal may hold such a row:
    some were written so."""
    stage = Stage([A, B])
    late = sent("lease", stage.submit())[0]
    stage.do(PeerDown(late.peer))
    lease = sent("lease", stage.submit())[0]
    lie = replace(late, key=(lease.key[0], task, lease.key[2]))
    lied = stage.answer(lie, status="failed")
    assert not appended("answer", stage.do(lied))
    stage.rows[lied.answer] = JournalRow(
        "answer", lied.answer, lied.key, late.peer, stage.payloads[lied.answer], (), False
    )
    again = stage.restarted()
    again.link(lease.peer)
    verdict = body(appended("verdict", again.do(again.answer(lease)))[0])
    assert (verdict["status"], len(verdict["parents"])) == ("ok", 2)


def test_votes_and_contributions_that_were_complete_are_combined_again() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**SITES, tasks=[{**SITE, "peer": A}, {**SITE, "peer": B}]))
    effects = [effect for lease in leases for effect in stage.do(stage.answer(lease, rulings=1))]
    again = stage.restarted()
    assert of(Combine, again.first) == of(Combine, effects)
    assert appended("verdict", again.do(Combined(leases[0].key[0], None, (), (), "E-x", "x")))
    assert idle(again)


def test_a_refusal_is_remembered_and_its_site_not_asked_again() -> None:
    stage = Stage([A, B])
    leases = sent("lease", stage.submit(**SITES, tasks=[{**SITE, "peer": A}, {**SITE, "peer": B}], min_sites=1))
    stage.do(stage.ruling(leases[0], False))
    again = stage.restarted()
    assert not sent("lease", again.link(A))
    again.link(B)
    combine = of(Combine, again.do(again.answer(leases[1], rulings=1)))[0]
    parts = tuple(part.answer for part in combine.parts)
    effects = again.do(Combined(combine.job, None, parts, (), "E-x", "x"))
    assert len(body(appended("verdict", effects)[0])["parents"]) == 3
    assert idle(again)


# ---- quorums


def test_replicas_that_were_complete_are_compared_again_with_the_same_parts() -> None:
    stage = Stage([A, B, C])
    effects = stage.submit(**QUORUM)
    compares = [compare for lease in sent("lease", effects) for compare in of(Compare, stage.do(stage.answer(lease)))]
    assert of(Compare, stage.restarted().first) == compares


def test_a_second_round_goes_on_as_one() -> None:
    stage = Stage([A, B, C, D])
    effects = stage.submit(**QUORUM)
    compares = [compare for lease in sent("lease", effects) for compare in of(Compare, stage.do(stage.answer(lease)))]
    second = sent("lease", stage.do(Compared(compares[0].job, 0, None, (), ())))
    assert len(second) == 1
    again = stage.restarted()
    assert not of(Compare, again.first)  # the round is not over
    for other in (A, B, C, D):
        again.link(other)
    again.later(PATIENCE_SECONDS + 0.1)
    again.do(TimePassed())
    assert len(of(Compare, again.do(again.answer(second[0])))[0].parts) == 4


def test_a_decided_step_of_a_quorum_chain_gets_no_more_answers() -> None:
    """Its successor was built on the decision; with further replicas it could turn out differently."""
    stage = Stage([A, B, C])
    effects = stage.submit(**QUORUM, tasks=CHAIN)
    leases = sent("lease", effects)
    compares = []
    for lease in leases[:2]:
        compares += of(Compare, stage.do(stage.answer(lease)))
    stage.do(PeerDown(leases[2].peer))
    stage.later(TTL_SECONDS + 1)
    compare = of(Compare, stage.do(TimePassed()))[0]
    answers = tuple(part.answer for part in compare.parts)
    assert len(answers) == 2  # the third replica was given up, which no record says
    stage.do(Compared(compare.job, 0, answers[0], answers, ()))
    again = stage.restarted()
    assert of(Compare, again.first) == [compare]
    assert not sent("lease", again.link(leases[2].peer))
    effects = again.do(Compared(compare.job, 0, answers[0], answers, ()))
    assert not sent("lease", effects) or all(lease.key[1] >= 6 for lease in sent("lease", effects))


# ---- the executor's side


def test_an_answer_that_nobody_acknowledged_is_kept_and_sent_when_asked_for() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    answer = sent("answer", stage.do(stage.finished(key_of(lease))))[0]
    again = stage.restarted()
    assert again.held == 0  # the journal has it all
    assert not sent("answer", again.first) and sent("progress", again.link(A))
    assert sent("answer", again.told(A, "resume", answer.key)) == [answer]
    again.told(A, "ack", answer.key)
    assert idle(again)


def test_an_answer_that_was_acknowledged_is_not_restored() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    stage.do(stage.finished(key_of(lease)))
    stage.told(A, "ack", key_of(lease))
    assert idle(stage.restarted())


def test_an_answer_is_kept_for_a_day_counted_from_when_it_was_made() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    stage.do(stage.finished(key_of(lease)))
    stage.later(20 * 3600)
    again = stage.restarted()
    due = again.engine.executor.due()
    assert due is not None and due - again.now.mono == pytest.approx(4 * 3600, abs=1)
    stage.later(4 * 3600 + 1)
    assert idle(stage.restarted())


def test_a_run_that_was_not_over_is_forgotten_and_said_to_be_unknown() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    again = stage.restarted()
    assert idle(again)
    assert sent("unknown", again.told(A, "resume", key_of(lease)))


@pytest.mark.parametrize("allowed", [True, False])
def test_a_ruling_is_restored_with_what_came_of_it(allowed: bool) -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=[SITE], blobs=())
    stage.do(lease)
    effects = stage.do(stage.ruled(key_of(lease), allowed))
    if allowed:
        assert idle(stage.restarted())  # permitted, but not run: nothing to keep
        effects = stage.do(stage.finished(key_of(lease)))
    result = sent("answer" if allowed else "ruling", effects)[0]
    again = stage.restarted()
    assert sent(result.what, again.told(A, "resume", result.key)) == [result]
    again.told(A, "ack", result.key)
    assert idle(again)


def test_of_two_epochs_only_the_last_is_restored() -> None:
    stage = Stage([A])
    for epoch in (1, 2):
        lease = stage.lease(epoch=epoch)
        stage.do(lease)
        stage.do(stage.finished(key_of(lease)))
    stage.forgotten.clear()  # suppose that the lazy row was lost
    again = stage.restarted()
    assert sent("unknown", again.told(A, "resume", (lease.job, 0, 1)))
    assert sent("answer", again.told(A, "resume", (lease.job, 0, 2)))


# ---- owner and executor in one node


def own_answer(stage: Stage, status: str) -> tuple[Stage, object]:
    """This node leases a task to itself and answers it; the owner's side has not seen the answer."""
    lease = sent("lease", stage.submit())[0]
    event = stage.lease_to_self(lease)
    stage.do(event)
    return stage, sent("answer", stage.do(stage.finished(lease.key, status=status)))[0]


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_an_own_answer_that_the_owners_side_has_not_seen_is_asked_for_again(status: str) -> None:
    stage, answer = own_answer(Stage([ME]), status)
    again = stage.restarted()
    key = answer.key  # type: ignore[attr-defined]
    assert [send.key for send in sent("resume", again.first)] == [key]
    assert sent("answer", again.told(ME, "resume", key)) == [answer]


def test_an_own_answer_that_was_accepted_is_called_off_if_its_acknowledgement_was_lost() -> None:
    stage = Stage([ME])
    lease = sent("lease", stage.submit(tasks=CHAIN))[0]
    stage.do(stage.lease_to_self(lease))
    answer = sent("answer", stage.do(stage.finished(lease.key)))[0]
    stage.do(stage.answer_from_self(answer))
    again = stage.restarted()
    assert [send.key for send in sent("progress", again.first)] == [lease.key]
    assert [send.key for send in sent("cancel", again.told(ME, "progress", lease.key))] == [lease.key]
    again.told(ME, "cancel", lease.key)
    assert again.engine.executor.sizes()["works"] == 0


def test_what_is_held_is_named_once_for_each_hold() -> None:
    stage = Stage([A])
    for _ in range(2):
        stage.submit()
    held = held_by(*_restored(stage))
    assert len(held.blobs) == 2 and len(set(held.blobs)) == 1  # the same input, twice
    assert len(held.records) == 4


def _restored(stage: Stage) -> tuple[list[object], list[object]]:
    from dimnode.jobs.replay import kept_works, open_jobs

    rows = list(stage.rows.values())
    arguments = (rows, stage.me, stage.forgotten, stage.limits, stage.now)
    return list(open_jobs(*arguments)), list(kept_works(*arguments))


def test_a_restored_node_refuses_what_nobody_offers_as_any_other() -> None:
    stage = Stage([A]).restarted()
    assert of(Refuse, stage.submit())[0].code == "E-jobs-04"
