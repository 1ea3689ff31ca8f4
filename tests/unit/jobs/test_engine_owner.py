"""The owner's side: taking jobs, accepting answers once, letting go of everything."""

from dataclasses import replace

import pytest
from engine_stage import ME, MODEL, A, B, C, D, Stage, appended, body, idle, of, peer, sent

from dimnode.consensus.standing import context_of
from dimnode.jobs.effects import Note, Refuse, Release, Remember, Reply
from dimnode.jobs.events import BadRecord, CancelAsked, PeerDown, TimePassed
from dimnode.limits import JobLimits, Limits

CONTEXT = context_of("infer", "mlp")


def test_a_plain_job_is_appended_leased_answered_and_concluded() -> None:
    stage = Stage([A])
    effects = stage.submit()
    lease = sent("lease", effects)[0]
    assert [row.kind for row in appended("spec", effects) + appended("lease", effects)] == ["spec", "lease"]
    assert lease.peer == A and lease.key[1:] == (0, 1)
    effects = stage.do(stage.answer(lease))
    verdict = body(appended("verdict", effects)[0])
    assert verdict["status"] == "ok" and verdict["steps"][0]["accepted"] == appended("answer", effects)[0].id
    assert verdict["parents"] == [lease.key[0], appended("answer", effects)[0].id]
    assert [reply.status for reply in of(Reply, effects)] == ["ok"]
    assert [send.peer for send in sent("ack", effects)] == [A]
    assert idle(stage)


# ---- bytes by CID need owners


def test_equal_bytes_of_two_jobs_are_let_go_once_for_each_job() -> None:
    stage = Stage([A])
    first, second = (sent("lease", stage.submit())[0] for _ in range(2))
    stage.do(stage.answer(first, b"the same output"))
    assert stage.held > 0  # the second job still holds the same input bytes
    stage.do(stage.answer(second, b"the same output"))
    assert idle(stage)


@pytest.mark.parametrize("how", ["refused", "joined", "asked again", "cancelled", "expired", "failed"])
def test_whatever_becomes_of_a_submission_its_bytes_are_let_go(how: str) -> None:
    stage = Stage([A])
    match how:
        case "refused":
            assert of(Refuse, stage.submit(tasks=[{"op": "infer", "model": b"\x01\x81\x04\x12\x20" + bytes(32)}]))
        case "joined" | "asked again":
            nonce = b"n" * 16
            lease = sent("lease", stage.submit(nonce=nonce))[0]
            if how == "joined":
                stage.submit(nonce=nonce)
            stage.do(stage.answer(lease))
            stage.submit(nonce=nonce)
        case "cancelled":
            stage.do(CancelAsked("client", sent("lease", stage.submit())[0].key[0]))
        case "expired":
            stage.submit(deadline_ms=1000)
            stage.later(2)
            assert of(Reply, stage.do(TimePassed()))[0].status == "expired"
        case "failed":
            lease = sent("lease", stage.submit())[0]
            assert of(Reply, stage.do(stage.answer(lease, status="failed")))[0].status == "failed"
    assert idle(stage)


def test_an_answer_that_comes_twice_or_too_late_is_let_go_with_all_that_came_with_it() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    answer = stage.answer(lease)
    stage.do(answer)
    stage.holds.update([answer.answer, answer.output.cid if answer.output else b""])  # type: ignore[list-item]
    stage.do(answer)
    stage.do(stage.answer(lease, rulings=1))
    assert idle(stage)


# ---- exactly once


def test_an_answer_of_an_older_epoch_is_kept_once_acknowledged_and_never_accepted() -> None:
    stage = Stage([A, B])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.do(PeerDown(first.peer)))[0]
    assert second.peer != first.peer and second.key[2] == 2
    late = stage.do(stage.answer(first))
    kept = appended("answer", late)
    assert [(row.lazy, row.accepted) for row in kept] == [(True, ())]
    assert sent("ack", late) and not of(Reply, late)
    assert not appended("answer", stage.do(stage.answer(first)))  # one is evidence, more would fill the disk
    accepted = appended("answer", stage.do(stage.answer(second)))[0].accepted
    assert [(task, epoch) for task, epoch, _ in accepted] == [(0, 2)]
    assert idle(stage)


def test_an_answer_that_nobody_asked_for_leaves_nothing() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    stranger = replace(lease, peer=B, key=(lease.key[0], 5, 9))
    effects = stage.do(stage.answer(stranger))
    assert not appended("answer", effects) and not of(Reply, effects)


def test_an_answer_of_another_peer_does_not_count_even_under_the_right_key() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    assert not of(Reply, stage.do(stage.answer(replace(lease, peer=B))))
    assert of(Reply, stage.do(stage.answer(lease)))
    assert idle(stage)


# ---- poison does not flap the link


def test_a_bad_record_is_refused_by_name_and_the_task_goes_elsewhere_under_the_next_epoch() -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    before = stage.engine.roster.standing.mean(lease.peer, CONTEXT, stage.now.wall_ms)
    effects = stage.do(BadRecord(lease.peer, lease.key, "envelope: signature"))
    refused = sent("refused", effects)[0]
    assert (refused.peer, refused.key, refused.code) == (lease.peer, lease.key, "E-records-01")
    again = sent("lease", effects)[0]
    assert again.peer != lease.peer and again.key[2] == 2
    assert stage.engine.roster.standing.mean(lease.peer, CONTEXT, stage.now.wall_ms) < before
    assert of(Reply, stage.do(stage.answer(again)))[0].status == "ok"
    assert idle(stage)


@pytest.mark.parametrize(
    "change", [{"lease": MODEL}, {"output": None}, {"inputs": ()}, {"inputs": None, "lease": bytes(37)}]
)
def test_an_answer_that_does_not_fit_its_lease_counts_as_a_bad_record(change: dict[str, object]) -> None:
    stage = Stage([A, B])
    lease = sent("lease", stage.submit())[0]
    answer = stage.answer(lease)
    effects = stage.do(replace(answer, **change))  # type: ignore[arg-type]
    assert sent("refused", effects) and sent("lease", effects) and not sent("ack", effects)
    if "output" in change and answer.output:
        stage.holds.subtract([answer.output.cid])  # the event named no output, so none was held for it
    stage.do(stage.answer(sent("lease", effects)[0]))
    assert idle(stage)


def test_two_peers_with_bad_records_end_the_task() -> None:
    stage = Stage([A, B, C])
    first = sent("lease", stage.submit())[0]
    second = sent("lease", stage.do(BadRecord(first.peer, first.key, "x")))[0]
    effects = stage.do(BadRecord(second.peer, second.key, "x"))
    assert [(reply.status, reply.code) for reply in of(Reply, effects)] == [("failed", "E-records-01")]
    assert idle(stage)


def test_a_bad_record_about_no_lease_of_ours_is_answered_and_changes_nothing() -> None:
    stage = Stage([A])
    effects = stage.do(BadRecord(A, (MODEL, 0, 1), "x"))
    assert [(send.what, send.peer) for send in sent("refused", effects)] == [("refused", A)]
    assert len(effects) == 1


# ---- idempotence


def test_the_same_nonce_names_the_same_job_before_and_after_its_end() -> None:
    stage = Stage([A])
    nonce = b"once" * 4
    lease = sent("lease", stage.submit(nonce=nonce, token="first"))[0]
    stage.later(1)  # another time makes another spec, with another id
    assert not appended("spec", stage.submit(nonce=nonce, token="second"))
    replies = of(Reply, stage.do(stage.answer(lease)))
    assert [reply.token for reply in replies] == ["first", "second"]
    later = of(Reply, stage.submit(nonce=nonce, token="third"))
    assert [(reply.token, reply.verdict) for reply in later] == [("third", replies[0].verdict)]
    assert idle(stage)


def test_nonces_of_two_submitters_are_not_the_same() -> None:
    stage = Stage([A])
    stage.submit(nonce=b"n" * 16)
    assert appended("spec", stage.submit(nonce=b"n" * 16, by=B))


# ---- F4 and F6: what a commit holds, and what can wait


def test_an_append_carries_all_that_a_restart_needs() -> None:
    stage = Stage([A])
    effects = stage.submit(nonce=b"n" * 16)
    spec = appended("spec", effects)[0]
    assert spec.nonce == (ME, b"n" * 16) and len(spec.openings) == len(spec.blobs) == 1
    answer = appended("answer", stage.do(stage.answer(sent("lease", effects)[0])))[0]
    assert len(answer.openings) == len(answer.blobs) == len(answer.accepted) == 1
    assert not (spec.lazy or answer.lazy)


def test_evidence_and_late_answers_are_lazy_and_everything_that_decides_is_not() -> None:
    stage = Stage([A, B])
    first = sent("lease", stage.submit())[0]
    effects = stage.do(PeerDown(first.peer))
    effects += stage.do(stage.answer(first))
    effects += stage.do(stage.answer(sent("lease", effects)[0]))
    lazy = {row.kind: row.lazy for kind in ("lease", "verdict") for row in appended(kind, effects)}
    assert not any(lazy.values())
    assert of(Remember, effects)


# ---- quotas and turns


def test_a_full_node_refuses_with_the_time_to_come_again() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(open_jobs_max=2)))
    leases = [sent("lease", stage.submit())[0] for _ in range(2)]
    refused = of(Refuse, stage.submit())[0]
    assert refused.code == "E-jobs-01" and refused.retry_after_ms > 0
    for lease in leases:
        stage.do(stage.answer(lease))
    assert sent("lease", stage.submit())


def test_a_peer_holds_at_most_a_window_of_leases_and_the_rest_waits_by_priority() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(lease_window_per_peer=2)))
    first = sent("lease", stage.submit())[0]
    stage.submit()
    low, normal, high = (stage.submit(priority=name) for name in ("low", "normal", "high"))
    assert not sent("lease", low + normal + high)
    jobs = [appended("spec", effects)[0].id for effects in (high, normal, low)]
    served = []
    lease = first
    for _ in jobs:
        lease = sent("lease", stage.do(stage.answer(lease)))[0]
        served.append(lease.key[0])
    assert served == jobs


def test_too_many_clients_of_one_job_are_refused() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(clients_per_job_max=2)))
    nonce = b"n" * 16
    stage.submit(nonce=nonce)
    assert not of(Refuse, stage.submit(nonce=nonce))
    assert of(Refuse, stage.submit(nonce=nonce))[0].retry_after_ms > 0


# ---- nothing grows


def test_many_jobs_leave_no_deadline_and_a_bounded_memory() -> None:
    stage = Stage([A], limits=Limits(jobs=JobLimits(done_jobs_remembered_max=10)))
    assert len(stage.run_jobs(200)) == 200
    assert idle(stage)
    assert stage.engine.owner.book.remembered == 10


def test_the_place_of_a_late_answer_is_its_executors_alone_and_under_its_own_key() -> None:
    stage = Stage([A, B])
    first = sent("lease", stage.submit())[0]
    stage.do(PeerDown(first.peer))
    open_lease = sent("lease", stage.submit(nonce=b"n" * 16))[0]
    late = stage.answer(first)
    for liar, key in [(C, late.key), (late.peer, open_lease.key), (late.peer, (*late.key[:2], 7))]:
        assert not appended("answer", stage.do(replace(stage.answer(first), peer=liar, key=key)))
    assert [row.key for row in appended("answer", stage.do(late))] == [first.key]


def test_late_leases_are_remembered_up_to_a_limit() -> None:
    stage = Stage([A, B], limits=Limits(jobs=JobLimits(late_leases_remembered_max=3)))
    leases = [sent("lease", stage.submit())[0] for _ in range(10)]
    for lease in leases:
        stage.do(CancelAsked(None, lease.key[0]))
    kept = [bool(appended("answer", stage.do(stage.answer(lease)))) for lease in leases]
    assert kept == [False] * 7 + [True] * 3
    assert idle(stage)


def test_peers_that_are_gone_are_forgotten_when_too_many_have_been_heard_of() -> None:
    stage = Stage([A])
    for number in range(2 * stage.limits.peers.adverts_max):
        stage.offer(peer(f"stranger {number}"))
    assert len(stage.engine.roster) == stage.limits.peers.adverts_max
    assert sent("lease", stage.submit())[0].peer == A


# ---- F5 and F10: one resend path, no retry queue


def test_a_frame_lost_with_its_link_is_repaired_by_the_next_link() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]  # suppose that the link dropped it
    assert not sent("lease", stage.do(PeerDown(A)))
    resumed = sent("resume", stage.link(A))
    assert [send.key for send in resumed] == [lease.key]
    again = sent("lease", stage.told(A, "unknown", lease.key))[0]
    assert (again.peer, again.key[2]) == (A, 2)
    assert of(Reply, stage.do(stage.answer(again)))
    assert idle(stage)


def test_each_open_lease_of_a_peer_is_resumed_once_and_no_other() -> None:
    stage = Stage([A])
    leases = [sent("lease", stage.submit())[0] for _ in range(5)]
    stage.do(stage.answer(leases[0]))
    stage.do(PeerDown(A))
    assert [send.key for send in sent("resume", stage.link(A))] == [lease.key for lease in leases[1:]]


# ---- clients


def test_a_cancel_ends_the_job_calls_back_its_lease_and_tells_every_client() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit(token="owner"))[0]
    effects = stage.do(CancelAsked("canceller", lease.key[0]))
    assert [(send.peer, send.key) for send in sent("cancel", effects)] == [(A, lease.key)]
    assert [(reply.token, reply.status) for reply in of(Reply, effects)] == [
        ("owner", "cancelled"),
        ("canceller", "cancelled"),
    ]
    assert body(appended("verdict", effects)[0])["abandoned"] == [lease.records[0]]
    assert idle(stage)


def test_a_second_cancel_hears_how_the_job_ended_and_an_unknown_job_is_refused() -> None:
    stage = Stage([A])
    lease = sent("lease", stage.submit())[0]
    stage.do(stage.answer(lease))
    assert of(Reply, stage.do(CancelAsked("client", lease.key[0])))[0].status == "ok"
    assert of(Refuse, stage.do(CancelAsked("client", MODEL)))[0].code == "E-jobs-11"


def test_a_job_that_nobody_is_there_for_waits_and_expires_at_its_deadline() -> None:
    stage = Stage([A])
    stage.do(PeerDown(A))
    assert not sent("lease", stage.submit(deadline_ms=5000))
    due = stage.engine.due()
    assert due is not None and stage.now.mono + 5 <= due <= stage.now.mono + 5.3
    stage.later(5.3)
    effects = stage.do(TimePassed())
    assert [(reply.status, reply.code) for reply in of(Reply, effects)] == [("expired", "E-jobs-05")]
    assert idle(stage)


def test_a_job_for_a_peer_that_is_down_starts_when_it_comes_back() -> None:
    stage = Stage([A])
    stage.do(PeerDown(A))
    stage.submit()
    assert sent("lease", stage.link(A))[0].peer == A


def test_this_node_takes_its_own_tasks_by_the_same_frames() -> None:
    stage = Stage([ME])
    lease = sent("lease", stage.submit())[0]
    assert lease.peer == ME
    assert of(Reply, stage.do(stage.answer(lease)))
    assert idle(stage)


def test_every_step_of_a_job_is_told_to_those_who_watch() -> None:
    stage = Stage([A])
    effects = stage.submit()
    lease = sent("lease", effects)[0]
    effects += stage.told(A, "accepted", lease.key) + stage.do(stage.answer(lease))
    assert [note.what for note in of(Note, effects)] == ["submitted", "leased", "accepted", "answered", "ok"]


def test_a_lease_goes_to_the_peer_with_the_better_standing() -> None:
    stage = Stage([A, B, C, D])
    lease = sent("lease", stage.submit())[0]
    stage.do(BadRecord(lease.peer, lease.key, "x"))
    chosen = {sent("lease", stage.submit())[0].peer for _ in range(3)}
    assert lease.peer not in chosen


def test_nothing_is_released_before_it_has_been_appended_and_sent() -> None:
    stage = Stage([A])
    effects = stage.do(stage.answer(sent("lease", stage.submit())[0]))
    assert isinstance(effects[-1], Release) and not any(isinstance(effect, Release) for effect in effects[:-1])
