"""What this node thinks of its peers, and why."""

from dataclasses import replace

import pytest

from dimnode.consensus.standing import BARRING_KINDS, UNVERIFIED, WEIGHTS_PERMILLE, Evidence, Standing, context_of
from dimnode.limits import LIMITS

ALBA, EZRA = b"alba", b"ezra"
HERE = context_of("infer", "tabular")
ELSEWHERE = context_of("infer", "llm")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW = 1_000 * DAY_MS
PRIOR = 1 / 3


def event(number: int = 0, *, peer: bytes = ALBA, good: bool = True, kind: str = "quorum", **changes) -> Evidence:
    weight = changes.pop("weight_permille", 1000)
    plain = Evidence(peer, HERE, NOW, good, weight, kind, b"record%d" % number)
    return replace(plain, **changes)


def standing_of(*events: Evidence, **changes) -> Standing:
    standing = Standing(replace(LIMITS.standing, **changes))
    for one in events:
        assert standing.record(one)
    return standing


def test_of_a_stranger_a_third_good_work_is_expected():
    assert Standing().mean(ALBA, HERE, NOW) == pytest.approx(PRIOR)


def test_good_evidence_raises_the_mean_and_bad_lowers_it():
    assert standing_of(event()).mean(ALBA, HERE, NOW) == pytest.approx(2 / 4)
    assert standing_of(event(good=False, kind="late")).mean(ALBA, HERE, NOW) == pytest.approx(1 / 4)


def test_weight_counts_in_thousandths():
    assert standing_of(event(weight_permille=500)).mean(ALBA, HERE, NOW) == pytest.approx(1.5 / 3.5)


def test_good_evidence_halves_in_seven_days_and_bad_in_thirty():
    good, bad = standing_of(event()), standing_of(event(good=False, kind="late"))
    assert good.mean(ALBA, HERE, NOW + 7 * DAY_MS) == pytest.approx(1.5 / 3.5)
    assert bad.mean(ALBA, HERE, NOW + 30 * DAY_MS) == pytest.approx(1 / 3.5)
    assert good.mean(ALBA, HERE, NOW + 1000 * DAY_MS) == pytest.approx(PRIOR)


def test_a_clock_set_back_gives_evidence_no_more_weight_than_it_had():
    assert standing_of(event()).mean(ALBA, HERE, NOW - 70 * DAY_MS) == pytest.approx(2 / 4)


def test_evidence_may_come_out_of_order():
    old, new = event(1, at_ms=NOW - 7 * DAY_MS), event(2)
    for standing in (standing_of(old, new), standing_of(new, old)):
        assert standing.mean(ALBA, HERE, NOW) == pytest.approx(2.5 / 4.5)


def test_the_mean_is_read_once_a_minute():
    standing = standing_of(event())
    assert standing.mean(ALBA, HERE, NOW + 59_999) == standing.mean(ALBA, HERE, NOW)
    assert standing.mean(ALBA, HERE, NOW + 60_000) < standing.mean(ALBA, HERE, NOW)


def test_new_evidence_within_the_minute_is_seen_at_once():
    standing = standing_of(event())
    assert standing.mean(ALBA, HERE, NOW) == pytest.approx(0.5)
    standing.record(event(1, good=False, kind="late"))
    assert standing.mean(ALBA, HERE, NOW) == pytest.approx(2 / 5)


def test_the_last_twenty_events_undercut_a_long_good_record():
    past = [event(i, at_ms=NOW - HOUR_MS) for i in range(500)]
    lately = [event(1000 + i, good=False, kind="late") for i in range(15)]
    standing = standing_of(*past, *lately)
    (line,) = standing.explain(ALBA, NOW)
    assert line.view == "recent"
    assert line.mean < 0.3
    assert standing.mean(ALBA, HERE, NOW) == line.mean


def test_a_long_bad_record_is_not_washed_by_twenty_good_events():
    past = [event(i, good=False, kind="late") for i in range(100)]
    standing = standing_of(*past, *[event(1000 + i) for i in range(20)])
    (line,) = standing.explain(ALBA, NOW)
    assert line.view == "long"
    assert line.mean == pytest.approx(21 / 123)


def test_contexts_and_peers_are_judged_apart():
    standing = standing_of(event(good=False))
    assert standing.mean(ALBA, ELSEWHERE, NOW) == pytest.approx(PRIOR)
    assert standing.mean(EZRA, HERE, NOW) == pytest.approx(PRIOR)
    assert standing.barred_until(ALBA, ELSEWHERE, NOW) == standing.barred_until(EZRA, HERE, NOW) == 0


@pytest.mark.parametrize("kind", sorted(BARRING_KINDS))
def test_proof_of_a_wrong_answer_bars_for_seven_days(kind):
    standing = standing_of(event(good=False, kind=kind, peer=EZRA))
    until_ms = NOW + 7 * DAY_MS
    assert standing.barred_until(EZRA, HERE, NOW) == until_ms
    assert standing.barred_until(EZRA, HERE, until_ms - 1) == until_ms
    assert standing.barred_until(EZRA, HERE, until_ms) == 0


def test_neither_agreement_with_a_quorum_nor_lateness_bars():
    standing = standing_of(event(1), event(2, good=False, kind="late"), event(3, good=False, kind="lost"))
    assert standing.barred_until(ALBA, HERE, NOW) == 0


def test_a_later_proof_prolongs_the_bar_and_an_earlier_one_does_not_shorten_it():
    late, early = event(1, good=False), event(2, good=False, at_ms=NOW - DAY_MS)
    assert standing_of(late, early).barred_until(ALBA, HERE, NOW) == NOW + 7 * DAY_MS


def test_a_peer_is_a_newcomer_until_ten_verified_good_events():
    standing = standing_of(*[event(i) for i in range(9)])
    for number in range(100, 150):
        standing.record(event(number, kind=UNVERIFIED, weight_permille=100))
    assert standing.newcomer(ALBA, HERE)
    standing.record(event(9))
    assert not standing.newcomer(ALBA, HERE)
    assert standing.newcomer(ALBA, ELSEWHERE)


def test_a_peer_that_was_caught_is_a_newcomer_again():
    standing = standing_of(*[event(i) for i in range(30)], event(99, good=False))
    assert standing.newcomer(ALBA, HERE)


def test_the_same_record_tells_the_same_only_once():
    standing = standing_of(event())
    assert not standing.record(event())
    assert not standing.record(event(at_ms=NOW + 1, weight_permille=5))
    assert standing.mean(ALBA, HERE, NOW) == pytest.approx(0.5)
    assert standing.record(event(peer=EZRA))
    assert len(standing) == 2


def test_explain_lists_each_context_with_its_numbers_and_records():
    good, bad = event(1), event(2, good=False, context=ELSEWHERE)
    first, second = standing_of(good, bad, event(3, peer=EZRA)).explain(ALBA, NOW)
    assert (first.context, first.events, first.barred_until_ms) == (ELSEWHERE, (bad,), NOW + 7 * DAY_MS)
    assert (second.context, second.events, second.barred_until_ms) == (HERE, (good,), 0)
    assert (second.alpha, second.beta, second.mean, second.forgotten) == (2.0, 2.0, 0.5, 0)


def test_explain_says_the_mean_that_selection_used():
    standing = standing_of(*[event(i, good=i % 3 > 0, kind="late", at_ms=NOW + i * HOUR_MS) for i in range(40)])
    now_ms = NOW + 55 * HOUR_MS + 12_345
    assert standing.explain(ALBA, now_ms)[0].mean == standing.mean(ALBA, HERE, now_ms)


def test_nothing_is_explained_about_a_stranger():
    assert Standing().explain(ALBA, NOW) == []


def test_rows_rebuild_the_same_standing_to_the_last_bit():
    events = [
        event(i, good=i % 4 > 0, kind=("late", "quorum", "canary")[i % 3], at_ms=NOW + 977 * i) for i in range(50)
    ]
    before = standing_of(*events)
    after = Standing.from_rows([one.row for one in events])
    assert len(after) == len(events)
    assert after.explain(ALBA, NOW + DAY_MS) == before.explain(ALBA, NOW + DAY_MS)
    assert after.barred_until(ALBA, HERE, NOW) == before.barred_until(ALBA, HERE, NOW) > 0


def test_rows_of_lists_from_the_journal_are_read_and_others_are_our_bug():
    assert len(Standing.from_rows([list(event().row)])) == 1
    with pytest.raises(AssertionError):
        Standing.from_rows([("peer", HERE, NOW, 1, 1000, "quorum", b"r")])


def test_events_are_bounded_and_good_ones_are_forgotten_first():
    proof = event(0, good=False, peer=EZRA, at_ms=NOW - DAY_MS)
    standing = standing_of(proof, events_kept_max=10)
    for number in range(1, 100):
        standing.record(event(number))
    assert len(standing) == 10
    assert standing.barred_until(EZRA, HERE, NOW) > 0
    assert standing.explain(EZRA, NOW)[0].events == (proof,)
    (line,) = standing.explain(ALBA, NOW)
    assert (len(line.events), line.forgotten) == (9, 90)
    assert line.events[-1] == event(99)


def test_when_all_events_are_bad_the_first_is_forgotten():
    standing = standing_of(*[event(i, good=False, peer=bytes([i])) for i in range(4)], events_kept_max=3)
    assert [len(standing.explain(bytes([peer]), NOW)) for peer in range(4)] == [0, 1, 1, 1]


def test_every_usual_weight_is_within_its_bound_and_proof_weighs_most():
    most = LIMITS.standing.event_weight_permille_max
    assert all(0 < weight <= most for weight in WEIGHTS_PERMILLE.values())
    proofs = [weight for (kind, good), weight in WEIGHTS_PERMILLE.items() if kind in BARRING_KINDS and not good]
    assert min(proofs) == max(WEIGHTS_PERMILLE.values())


@pytest.mark.parametrize("weight", [0, -1, LIMITS.standing.event_weight_permille_max + 1])
def test_an_event_without_a_sensible_weight_is_our_bug(weight):
    with pytest.raises(AssertionError):
        Standing().record(event(weight_permille=weight))
