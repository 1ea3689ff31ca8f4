"""The executor's side: run a lease once, keep the answer until it is acknowledged."""

from dataclasses import replace

import pytest
from engine_stage import CABINET, MODEL, A, B, Stage, appended, body, idle, key_of, of, peer, sent

from dimnode.jobs.effects import Consult, Forget, Release, Run, Stop
from dimnode.jobs.events import PeerDown, PeerUp, TimePassed
from dimnode.limits import JobLimits, Limits

SITE = [{"op": "statistics", "cabinet": CABINET, "where": [["age", "ge", 40_000_000]], "purpose": "audit"}]


def answered(stage: Stage) -> tuple[int, bytes, int]:
    """A lease from A that has been run; returns its key."""
    lease = stage.lease()
    stage.do(lease)
    stage.do(stage.finished(key_of(lease)))
    return key_of(lease)  # type: ignore[return-value]


# ---- a run


def test_a_lease_is_run_answered_acknowledged_and_forgotten() -> None:
    stage = Stage([A])
    lease = stage.lease()
    run = of(Run, stage.do(lease))[0]
    assert (run.key, run.op, run.model) == (key_of(lease), "infer", MODEL)
    assert run.inputs == tuple(found.cid for found in lease.openings)
    effects = stage.do(stage.finished(key_of(lease)))
    answer = appended("answer", effects)[0]
    assert body(answer)["parents"] == [lease.lease] and body(answer)["weight"] == 10
    assert len(answer.openings) == len(answer.blobs) == 1 and not answer.lazy
    assert [row.lazy for row in appended("lease", effects)] == [True]  # it rides on the answer's commit
    send = sent("answer", effects)[0]
    assert (send.peer, send.records, send.openings) == (A, (answer.id,), answer.openings)
    assert stage.held == 0
    assert of(Forget, stage.told(A, "ack", key_of(lease)))
    assert idle(stage)


@pytest.mark.parametrize("status", ["failed", "timeout", "crashed", "memory"])
def test_a_run_that_ended_badly_is_answered_too(status: str) -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    said = body(appended("answer", stage.do(stage.finished(key_of(lease), status=status)))[0])
    assert (said["status"], said["code"], said["outputs"]) == (status, "E-exec-40", [])


def test_several_tasks_of_one_job_run_side_by_side() -> None:
    stage = Stage([A])
    tasks = [{"op": "infer", "model": MODEL}] * 3
    votes = {"pattern": "comparative", "tasks": tasks, "rule": {"method": "majority_vote"}}
    leases = [stage.lease(task=number, **votes) for number in range(3)]
    assert len({lease.job for lease in leases}) == 1
    assert len({run.key for lease in leases for run in of(Run, stage.do(lease))}) == 3
    for lease in reversed(leases):
        stage.do(stage.finished(key_of(lease)))
        stage.told(A, "ack", key_of(lease))
    assert idle(stage)


# ---- the same again


def test_a_lease_that_comes_twice_is_run_once() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    again = stage.do(stage.lease())
    assert not of(Run, again) and [send.what for send in sent("accepted", again)] == ["accepted"]
    stage.do(stage.finished(key_of(lease)))
    assert sent("answer", stage.do(stage.lease()))
    stage.told(A, "ack", key_of(lease))
    assert idle(stage)


def test_a_newer_epoch_replaces_the_older_and_stops_its_run() -> None:
    stage = Stage([A])
    first, second = stage.lease(epoch=1), stage.lease(epoch=2)
    stage.do(first)
    effects = stage.do(second)
    assert [stop.key for stop in of(Stop, effects)] == [key_of(first)]
    assert [run.key for run in of(Run, effects)] == [key_of(second)]
    stage.do(stage.finished(key_of(first)))  # it ended before it could be stopped
    assert sent("answer", stage.do(stage.finished(key_of(second))))
    effects = stage.do(stage.lease(epoch=3))
    assert [forget.key for forget in of(Forget, effects)] == [key_of(second)]


def test_a_lease_of_an_older_epoch_is_refused() -> None:
    stage = Stage([A])
    stage.do(stage.lease(epoch=2))
    effects = stage.do(stage.lease(epoch=1))
    assert [(send.what, send.code) for send in sent("refused", effects)] == [("refused", "E-jobs-20")]


def test_a_result_that_nobody_waits_for_is_let_go() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    stage.told(A, "cancel", key_of(lease))
    stage.do(stage.finished(key_of(lease)))
    assert idle(stage)


# ---- words while it runs


@pytest.mark.parametrize(("ttl_ms", "again_seconds"), [(30_000, 10), (3_000, 1), (1, 0.1)])
def test_a_longer_run_says_accepted_after_5_to_25_ms_and_three_times_in_its_leases_own_time_to_live(
    ttl_ms: int, again_seconds: float
) -> None:
    stage = Stage([A])
    lease = stage.lease(ttl_ms=ttl_ms)
    stage.do(lease)
    due = stage.engine.due()
    assert due is not None and 0.005 <= due - stage.now.mono <= 0.026
    stage.later(due - stage.now.mono)
    assert [send.peer for send in sent("accepted", stage.do(TimePassed()))] == [A]
    due = stage.engine.due()
    assert due is not None and due - stage.now.mono == pytest.approx(again_seconds, abs=0.03)
    stage.later(due - stage.now.mono)
    assert sent("accepted", stage.do(TimePassed()))


def test_an_owner_of_many_leases_that_live_for_a_moment_hears_so_many_words_a_second_and_no_more() -> None:
    stage, words = Stage([A]), 0
    for number in range(50):
        stage.do(stage.lease(label=str(number), ttl_ms=1))
    stage.later(0.1)
    assert len(sent("accepted", stage.do(TimePassed()))) == 50
    for _ in range(500):
        stage.later(0.01)
        words += len(sent("accepted", stage.do(TimePassed())))
    assert 450 <= words <= 500  # in five seconds


def test_a_run_that_ends_first_leaves_nothing_to_wake_up_for_but_the_day_of_keeping() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    stage.do(stage.finished(key_of(lease)))
    due = stage.engine.due()
    assert due is not None and due - stage.now.mono > 86_000
    stage.told(A, "ack", key_of(lease))
    assert stage.engine.due() is None


def test_resume_is_answered_by_what_there_is() -> None:
    stage = Stage([A])
    lease = stage.lease()
    key = key_of(lease)
    assert [send.key for send in sent("unknown", stage.told(A, "resume", key))] == [key]
    stage.do(lease)
    assert sent("accepted", stage.told(A, "resume", key))
    stage.do(stage.finished(key))
    assert sent("answer", stage.told(A, "resume", key)) and sent("answer", stage.told(A, "resume", key))
    stage.told(A, "ack", key)
    assert sent("unknown", stage.told(A, "resume", key))


def test_on_a_new_link_the_executor_says_what_it_has_and_sends_no_answer_unasked() -> None:
    stage = Stage([A])
    key = answered(stage)
    stage.do(PeerDown(A))
    effects = stage.do(PeerUp(A))
    assert [(send.what, send.key) for send in sent("progress", effects)] == [("progress", key)]
    assert not sent("answer", effects)
    stage.told(A, "cancel", key)  # the owner has no use for it
    assert idle(stage)


@pytest.mark.parametrize("state", ["consulting", "running", "answered", "unknown"])
def test_a_cancel_is_acknowledged_and_leaves_nothing_whatever_the_state(state: str) -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=SITE, blobs=()) if state == "consulting" else stage.lease()
    key = key_of(lease)
    if state == "unknown":
        stage.holds.clear()
    else:
        stage.do(lease)
    if state == "answered":
        stage.do(stage.finished(key))
    effects = stage.told(A, "cancel", key)
    assert [send.key for send in sent("cancelled", effects)] == [key]
    assert bool(of(Stop, effects)) == (state == "running") and bool(of(Forget, effects)) == (state == "answered")
    assert sent("cancelled", stage.told(A, "cancel", key))
    assert idle(stage)


def test_an_answer_that_the_owner_calls_bad_is_forgotten_and_not_sent_again() -> None:
    stage = Stage([A])
    key = answered(stage)
    assert of(Forget, stage.told(A, "refused", key, code="E-records-01"))
    assert idle(stage)


@pytest.mark.parametrize("word", ["ack", "cancel", "resume", "refused"])
def test_only_the_owner_of_a_lease_is_listened_to(word: str) -> None:
    stage = Stage([A, B])
    key = answered(stage)
    assert not stage.told(B, word, key)
    assert sent("answer", stage.told(A, "resume", key))


def test_an_acknowledgement_of_a_run_that_still_goes_on_is_a_stale_one() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    assert not stage.told(A, "ack", key_of(lease))
    assert sent("answer", stage.do(stage.finished(key_of(lease))))


def test_answers_and_refusals_that_nobody_acknowledges_hold_no_bytes() -> None:
    stage = Stage([A])
    stage.do(lease := stage.lease())
    stage.do(stage.finished(key_of(lease), b"a large output"))
    stage.do(site := stage.lease(task=0, tasks=SITE, blobs=()))
    refused = stage.do(stage.ruled(key_of(site), False))
    assert sent("ruling", refused)
    assert refused.index(sent("ruling", refused)[0]) < refused.index(of(Release, refused)[0])
    assert stage.engine.sizes()["works"] == 2
    assert stage.held == 0
    assert sent("answer", stage.told(A, "resume", key_of(lease)))
    assert sent("ruling", stage.told(A, "resume", key_of(site)))


def test_an_answer_that_nobody_fetches_is_let_go_after_a_day() -> None:
    stage = Stage([A])
    key = answered(stage)
    stage.later(24 * 3600 + 1)
    assert [forget.key for forget in of(Forget, stage.do(TimePassed()))] == [key]
    assert idle(stage)


# ---- refusals


def test_a_full_pool_is_told_with_the_time_to_come_again_and_nothing_is_kept() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    effects = stage.do(stage.busy(key_of(lease)))
    assert [(send.peer, send.retry_after_ms) for send in sent("refused", effects)] == [(A, 100)]
    assert not of(Stop, effects)
    assert idle(stage)


def test_a_run_that_this_node_called_off_may_be_tried_again() -> None:
    stage = Stage([A])
    lease = stage.lease()
    stage.do(lease)
    refused = sent("refused", stage.do(replace(stage.finished(key_of(lease), status="failed"), status="cancelled")))
    assert refused[0].retry_after_ms > 0
    assert idle(stage)


@pytest.mark.parametrize(
    "change",
    [
        {"task": 7},
        {"blobs": (b"one", b"two"), "tasks": [{"op": "infer", "take": [["x", 1, "t", -1, -1]]}]},
        {"tier": "quorum"},
        {"quorum": {"n": 3, "k": 2}},
        {"rule": {"method": "majority_vote"}},
        {"comparator": {"kind": "rtol"}},
        {"tasks": [{"op": "infer", "take": [["x", 9, "t", -1, -1]]}]},
    ],
)
def test_a_lease_that_does_not_fit_its_spec_or_a_spec_at_odds_with_itself_is_refused(change: dict[str, object]) -> None:
    stage = Stage([A])
    effects = stage.do(stage.lease(**change))  # type: ignore[arg-type]
    assert [send.code for send in sent("refused", effects)] == ["E-jobs-21"]
    assert idle(stage)


def test_one_owner_cannot_fill_a_node() -> None:
    stage = Stage([A, B], limits=Limits(jobs=JobLimits(works_per_owner_max=2)))
    leases = [stage.lease(label=str(number)) for number in range(3)]
    effects = [stage.do(lease) for lease in leases]
    refused = sent("refused", effects[2])[0]
    assert refused.code == "E-jobs-22" and refused.retry_after_ms > 0
    assert of(Run, stage.do(stage.lease(owner=B)))
    stage.do(stage.finished(key_of(leases[0])))
    stage.told(A, "ack", key_of(leases[0]))
    assert of(Run, stage.do(stage.lease(label="one more")))


def test_all_owners_together_cannot_fill_a_node() -> None:
    stage = Stage([], limits=Limits(jobs=JobLimits(works_max=3)))
    effects = [stage.do(stage.lease(owner=peer(f"owner {number}"))) for number in range(4)]
    assert [bool(of(Run, done)) for done in effects] == [True, True, True, False]


def test_a_task_that_another_owner_has_leased_is_refused_unless_the_submitter_asks() -> None:
    stage = Stage([A, B])
    stranger = replace(stage.lease(owner=B), peer=A)  # A has seen the spec that B signed, and leases its task
    assert of(Run, stage.do(stranger))
    other = replace(stage.lease(owner=B), peer=peer("c"))
    assert [send.code for send in sent("refused", stage.do(other))] == ["E-jobs-23"]
    effects = stage.do(stage.lease(owner=B))
    assert of(Stop, effects) and of(Run, effects)
    stage.do(stage.finished(key_of(stranger)))
    assert not stage.told(A, "ack", key_of(stranger))
    stage.told(B, "ack", key_of(stranger))
    assert idle(stage)


# ---- cabinets


def test_a_permission_is_signed_before_the_run_and_goes_with_the_answer() -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=SITE, blobs=())
    consult = of(Consult, stage.do(lease))[0]
    assert (consult.submitter, consult.cabinet, consult.purpose) == (A, CABINET, "audit")
    assert consult.where == (("age", "ge", 40_000_000),)
    effects = stage.do(stage.ruled(key_of(lease), True))
    ruling = appended("ruling", effects)[0]
    assert body(ruling)["allowed"] and body(ruling)["parents"][0] == lease.lease
    assert of(Run, effects)[0].cabinet == CABINET
    effects = stage.do(stage.finished(key_of(lease)))
    answer = appended("answer", effects)[0]
    assert body(answer)["parents"] == [lease.lease, ruling.id]
    assert sent("answer", effects)[0].records[:2] == (answer.id, ruling.id)
    stage.told(A, "ack", key_of(lease))
    assert idle(stage)


def test_a_refusal_is_signed_sent_and_kept_like_an_answer() -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=SITE, blobs=())
    stage.do(lease)
    effects = stage.do(stage.ruled(key_of(lease), False))
    assert not of(Run, effects) and not body(appended("ruling", effects)[0])["allowed"]
    assert sent("ruling", effects) and sent("ruling", stage.told(A, "resume", key_of(lease)))
    assert of(Forget, stage.told(A, "ack", key_of(lease)))
    assert idle(stage)


def test_a_ruling_that_comes_twice_or_too_late_changes_nothing() -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=SITE, blobs=())
    stage.do(lease)
    stage.do(stage.ruled(key_of(lease), True))
    assert not stage.do(stage.ruled(key_of(lease), False))
    stage.told(A, "cancel", key_of(lease))
    assert not stage.do(stage.ruled(key_of(lease), True))
    assert idle(stage)


def test_a_pool_without_room_to_count_the_cohort_is_busy_and_no_policy_has_spoken() -> None:
    stage = Stage([A])
    lease = stage.lease(tasks=SITE, blobs=())
    stage.do(lease)
    effects = stage.do(stage.busy(key_of(lease)))
    assert sent("refused", effects)[0].retry_after_ms == 100 and not appended("ruling", effects)
    assert idle(stage)


# ---- owner and executor in one node


def test_the_word_refused_is_heard_by_the_side_that_it_is_meant_for() -> None:
    stage = Stage([A])
    ours = sent("lease", stage.submit())[0]
    theirs = answered(stage)
    assert of(Forget, stage.told(A, "refused", theirs, code="E-records-01"))  # said by an owner
    effects = stage.told(A, "refused", ours.key, code="E-exec-20")  # said by an executor
    assert appended("verdict", effects)
    assert idle(stage)
