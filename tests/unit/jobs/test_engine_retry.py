"""What becomes of a task whose lease does not end well."""

import pytest
from engine_stage import ABSENT_PEER, ME, MODEL, A, B, C, Stage, appended, body, idle, of, sent

from dimnode.jobs.effects import Effect, Remember, Reply, Send
from dimnode.jobs.events import PeerDown, TimePassed
from dimnode.limits import JobLimits, Limits

TTL_SECONDS = JobLimits().lease_ttl_ms / 1000


def test_a_failed_run_is_tried_at_another_peer_and_a_second_failure_ends_the_task() -> None:
    stage = Stage([A, B, C])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.do(stage.answer(first, status="failed")))[0]
    assert second.peer != first.peer
    effects = stage.do(stage.answer(second, status="crashed"))
    assert [(reply.status, reply.code) for reply in of(Reply, effects)] == [("failed", "E-exec-40")]
    verdict = body(appended("verdict", effects)[0])
    assert len(verdict["parents"]) == 3 and verdict["steps"] == []  # both failures are evidence
    assert idle(stage)


def test_with_nobody_else_to_ask_one_failure_is_enough() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    assert of(Reply, stage.do(stage.answer(lease, status="failed")))[0].status == "failed"


@pytest.mark.parametrize(("status", "blamed"), [("failed", False), ("timeout", True), ("memory", True)])
def test_a_peer_is_blamed_for_a_run_that_ended_badly_but_not_for_a_model_that_failed(status: str, blamed: bool) -> None:
    stage = Stage([A, B])
    effects = stage.do(stage.answer(sent("lease", stage.submit())[0], status=status))
    assert [remembered.evidence.good for remembered in of(Remember, effects)] == ([False] if blamed else [])


def test_a_final_refusal_goes_elsewhere_and_when_all_refuse_the_job_fails_with_their_reason() -> None:
    stage = Stage([A, B, C])
    lease = sent("lease", stage.submit())[0]
    asked = {lease.peer}
    for _ in range(2):
        lease = sent("lease", stage.told(lease.peer, "refused", lease.key, code="E-exec-20", text="no model"))[0]
        asked.add(lease.peer)
    assert asked == {A, B, C}
    effects = stage.told(lease.peer, "refused", lease.key, code="E-exec-20", text="no model")
    assert [(reply.code, reply.reason) for reply in of(Reply, effects)] == [("E-exec-20", "no model")]
    assert idle(stage)


# ---- busy


def test_a_busy_peer_is_left_alone_until_its_time_and_others_are_asked_meanwhile() -> None:
    stage = Stage([A, B])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.told(first.peer, "refused", first.key, code="E-exec-01", retry_after_ms=1000))[0]
    assert second.peer != first.peer
    assert {sent("lease", stage.submit())[0].peer for _ in range(3)} == {second.peer}
    stage.later(1.1)
    assert sent("lease", stage.submit())[0].peer == first.peer  # it has fewer leases now


def test_when_all_are_busy_the_task_waits_and_is_leased_when_the_time_has_come() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    assert not sent("lease", stage.told(A, "refused", lease.key, retry_after_ms=500))
    due = stage.engine.due()
    assert due is not None and stage.now.mono + 0.5 <= due <= stage.now.mono + 0.8
    stage.later(0.8)
    again = sent("lease", stage.do(TimePassed()))[0]
    assert (again.peer, again.key[2]) == (A, 2)
    assert of(Reply, stage.do(stage.answer(again)))


def test_being_busy_is_no_attempt_but_each_refusal_doubles_the_wait() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(task_attempts_max=2)))
    lease = sent("lease", stage.submit())[0]
    waits = []
    for _ in range(8):
        stage.told(A, "refused", lease.key, retry_after_ms=300)
        due = stage.engine.due()
        assert due is not None
        waits.append(due - stage.now.mono)
        stage.later(due - stage.now.mono)
        lease = sent("lease", stage.do(TimePassed()))[0]
    assert waits == sorted(waits) and waits[0] < 0.6 and waits[-1] == pytest.approx(5.0, abs=0.3)
    assert of(Reply, stage.do(stage.answer(lease)))[0].status == "ok"


def test_a_peer_that_was_busy_gets_no_more_leases_at_once_than_it_held_then() -> None:
    stage = Stage([A])
    leases = [sent("lease", stage.submit())[0] for _ in range(5)]
    stage.told(A, "refused", leases[4].key, retry_after_ms=300)  # it holds four
    stage.later(1)
    assert not sent("lease", stage.do(TimePassed()))
    effects = stage.do(stage.answer(leases[0]))
    assert len(sent("lease", effects)) == 1  # one answered, one given


# ---- lost


def test_the_leases_of_a_peer_that_goes_down_move_at_once_when_somebody_else_can_take_them() -> None:
    stage = Stage([A, B])
    leases = [sent("lease", stage.submit())[0] for _ in range(4)]
    moved = sent("lease", stage.do(PeerDown(A)))
    assert len(moved) == sum(lease.peer == A for lease in leases) > 0
    assert all(lease.peer == B and lease.key[2] == 2 for lease in moved)


def test_with_nobody_else_the_leases_wait_for_the_peer_and_move_when_somebody_comes() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    assert not sent("lease", stage.do(PeerDown(A)))
    stage.later(TTL_SECONDS + 1)
    assert not sent("lease", stage.do(TimePassed()))
    moved = sent("lease", stage.link(B))[0]
    assert (moved.peer, moved.key[2]) == (B, 2)
    late = stage.told(A, "progress", lease.key)
    assert [(send.peer, send.key) for send in sent("cancel", late)] == [(A, lease.key)]


def test_a_task_pinned_to_a_peer_waits_for_it_until_the_deadline() -> None:
    stage = Stage([A, B])
    stage.do(PeerDown(A))
    stage.submit(tasks=[{"op": "infer", "model": MODEL, "peer": A}], deadline_ms=100_000)
    for _ in range(3):
        stage.later(20)
        assert not sent("lease", stage.do(TimePassed()))
    lease = sent("lease", stage.link(A))[0]
    stage.do(PeerDown(A))
    stage.later(35)
    assert not of(Reply, stage.do(TimePassed()))
    assert sent("resume", stage.link(A))[0].key == lease.key
    stage.later(10)
    effects = stage.do(TimePassed())
    assert of(Reply, effects)[0].status == "expired" and sent("cancel", effects)[0].peer == A
    assert idle(stage)


def test_silence_for_a_whole_time_to_live_is_a_fault_and_the_task_moves() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    stage.later(TTL_SECONDS - 1)
    assert not stage.do(TimePassed())
    stage.later(2)
    effects = stage.do(TimePassed())
    assert [remembered.evidence.kind for remembered in of(Remember, effects)] == ["lost"]
    assert [(send.peer, send.key) for send in sent("cancel", effects)] == [(lease.peer, lease.key)]
    assert sent("lease", effects)[0].peer != lease.peer


def test_a_word_about_a_run_renews_its_lease() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    for word in ("accepted", "progress", "progress"):
        stage.later(TTL_SECONDS - 1)
        stage.told(lease.peer, word, lease.key)
        assert not sent("lease", stage.do(TimePassed()))
    stage.later(TTL_SECONDS + 1)
    assert sent("lease", stage.do(TimePassed()))


def keep_saying(stage: Stage, lease: Send, word: str, seconds: int) -> list[Effect]:
    """The executor says a word every ten seconds; whatever follows."""
    effects: list[Effect] = []
    for _ in range(seconds // 10):
        stage.later(10)
        effects += stage.told(lease.peer, word, lease.key)
        effects += stage.do(TimePassed())
    return effects


@pytest.mark.parametrize("word", ["accepted", "progress"])
def test_whoever_only_says_that_it_is_at_it_loses_the_task_after_the_time_of_a_run(word: str) -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    assert not sent("lease", keep_saying(stage, lease, word, 140))
    effects = keep_saying(stage, lease, word, 20)
    assert [remembered.evidence.kind for remembered in of(Remember, effects)] == ["late"]
    cancel = sent("cancel", effects)[0]
    assert (cancel.peer, cancel.key) == (lease.peer, lease.key)
    moved = sent("lease", effects)[0]
    assert moved.peer != lease.peer
    assert moved.key == (*lease.key[:2], 2)


def test_of_a_short_job_nobody_holds_a_task_for_more_than_half() -> None:
    stage = Stage([A, B, C])
    lease = sent("lease", stage.submit(deadline_ms=120_000))[0]
    second = sent("lease", keep_saying(stage, lease, "progress", 70))[0]
    third = sent("lease", keep_saying(stage, second, "progress", 40))[0]
    assert len({lease.peer, second.peer, third.peer}) == 3
    assert of(Reply, stage.do(stage.answer(third)))[0].status == "ok"


def test_a_slow_peer_that_alone_can_do_a_task_is_left_at_it() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    effects = keep_saying(stage, lease, "accepted", 500)
    assert not sent("lease", effects) and not of(Remember, effects)
    assert of(Reply, stage.do(stage.answer(lease)))[0].status == "ok"
    assert idle(stage)


def test_whoever_has_forgotten_a_lease_may_get_it_again_under_the_next_epoch() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    again = sent("lease", stage.told(A, "unknown", lease.key))[0]
    assert (again.peer, again.key) == (A, (*lease.key[:2], 2))
    assert not stage.told(A, "unknown", lease.key)  # said twice, heard once


def test_a_task_that_makes_its_executors_vanish_is_given_up_after_some_attempts() -> None:
    stage = Stage([A, B], limits=Limits(jobs=JobLimits(task_attempts_max=3)))
    lease = sent("lease", stage.submit())[0]
    for _ in range(2):
        lease = sent("lease", stage.told(lease.peer, "unknown", lease.key))[0]
    effects = stage.told(lease.peer, "unknown", lease.key)
    assert [(reply.status, reply.code) for reply in of(Reply, effects)] == [("failed", "E-jobs-07")]
    assert len(body(appended("verdict", effects)[0])["abandoned"]) == 3
    assert idle(stage)


def test_a_verdict_lists_a_bounded_number_of_abandoned_leases() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(abandoned_leases_listed_max=2)))
    lease = sent("lease", stage.submit())[0]
    for _ in range(4):
        lease = sent("lease", stage.told(A, "unknown", lease.key))[0]
    effects = stage.do(stage.answer(lease))
    assert len(body(appended("verdict", effects)[0])["abandoned"]) == 2


@pytest.mark.parametrize("word", ["ack", "cancelled", "resume", "nonsense", "unknown", "refused"])
def test_stale_words_about_leases_that_are_over_change_nothing(word: str) -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    stage.do(stage.answer(lease))
    assert [send.what for send in stage.told(lease.peer, word, lease.key)] in ([], ["unknown"])  # type: ignore[union-attr]
    assert idle(stage)


def test_only_the_executor_of_a_lease_is_heard_about_it() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    other = B if lease.peer == A else A
    for word in ("refused", "unknown"):
        assert not stage.told(other, word, lease.key)
    assert of(Reply, stage.do(stage.answer(lease)))


def test_a_draining_peer_gets_nothing_new() -> None:
    stage = Stage([A, B])
    stage.offer(A, slots=0)
    assert {sent("lease", stage.submit())[0].peer for _ in range(4)} == {B}


def test_a_peer_that_is_only_known_by_its_advert_gets_nothing_before_it_is_linked() -> None:
    stage = Stage([])
    stage.offer(ABSENT_PEER)
    assert not sent("lease", stage.submit())
    assert sent("lease", stage.link(ABSENT_PEER))[0].peer == ABSENT_PEER


def test_this_node_is_never_lost_to_itself() -> None:
    stage = Stage([ME])
    lease = sent("lease", stage.submit())[0]
    stage.later(TTL_SECONDS + 1)
    again = sent("lease", stage.do(TimePassed()))[0]
    assert (again.peer, again.key[2]) == (ME, lease.key[2] + 1)
