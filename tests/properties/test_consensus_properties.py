"""Whatever the answers are: order never matters, sums are exact, and support is what its definition says."""

import math
import random
import struct
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.consensus.combining import Contribution, check_part, combine
from dimnode.consensus.recompute import Vote, encode_tally_blob, labels_of, sum_counts, support, tally
from dimnode.consensus.selection import Candidate, Need, NewcomerLane, choose
from dimnode.consensus.standing import BARRING_KINDS, Evidence, Standing
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

pytestmark = pytest.mark.slow
thorough = settings(max_examples=200, deadline=None)

DAY_MS = 86_400_000


@st.composite
def ballots(draw):
    peers = draw(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
    rows = draw(st.integers(1, 6))
    labels = st.tuples(*[st.integers(0, 4)] * rows)
    return [Vote(peer, draw(labels), b"id" + peer) for peer in peers]


@thorough
@given(ballots(), st.data())
def test_the_tally_does_not_depend_on_the_order_of_votes(votes, data):
    weights = {vote.answer: data.draw(st.integers(1, 1000)) for vote in votes}
    shuffled = data.draw(st.permutations(votes))
    assert tally(shuffled) == tally(votes)
    assert tally(shuffled, weights) == tally(votes, weights)
    assert encode_tally_blob(tally(shuffled)) == encode_tally_blob(tally(votes))


@thorough
@given(ballots())
def test_a_tally_says_what_counting_by_hand_says(votes):
    result = tally(votes)
    for row, winner in enumerate(result.labels):
        counted = Counter(vote.labels[row] for vote in votes)
        assert winner == min(counted, key=lambda label: (-counted[label], label))
        assert dict(enumerate(result.votes[row])) | counted == dict(enumerate(result.votes[row]))
        assert sum(result.votes[row]) == len(votes)
        others = [count for label, count in counted.items() if label != winner]
        assert result.margin[row] == counted[winner] - max(others, default=0)
        assert set(result.dissent[row]) == {vote.answer for vote in votes if vote.labels[row] != winner}
        assert list(result.dissent[row]) == sorted(result.dissent[row])
    assert labels_of(encode_tally_blob(result)) == result.labels


ODD = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda name, dtype, numbers: encode_tensors(
            [
                Tensor(
                    name,
                    dtype,
                    (len(numbers),),
                    struct.pack(f"<{len(numbers)}{'q' if dtype == 'int64' else 'd'}", *numbers),
                )
            ]
        ),
        st.sampled_from(["label", "count", "x"]),
        st.sampled_from(["int64", "float64"]),
        st.lists(st.sampled_from([0, 1, 2**53]), max_size=6),
    ),
)


@thorough
@given(st.sampled_from(["majority_vote", "sum_counts", "federated_average"]), st.data())
def test_whatever_fewer_others_say_the_honest_are_put_together_as_if_alone(method, data):
    name, least = (
        ("label", 0) if method == "majority_vote" else ("count", -(2**57) if method == "sum_counts" else -1000)
    )
    most = {"majority_vote": 5, "sum_counts": 2**57, "federated_average": 1000}[method]
    rows = data.draw(st.integers(1, 4))
    honest = data.draw(
        st.lists(st.lists(st.integers(least, most), min_size=rows, max_size=rows), min_size=1, max_size=6)
    )
    blobs = [encode_tensors([Tensor(name, "int64", (rows,), struct.pack(f"<{rows}q", *row))]) for row in honest]
    form = [(tensor.name, tensor.dtype, tensor.shape) for tensor in decode_tensors(blobs[0])]
    odd = data.draw(st.lists(ODD.filter(lambda blob: _form(blob) != form), max_size=len(honest) - 1))
    parts = [Contribution(b"%d" % place, b"id%d" % place, 1, blob) for place, blob in enumerate(blobs + odd)]
    for blob in blobs:
        check_part(method, b"peer", blob, len(parts))
    shuffled = data.draw(st.permutations(parts))
    alone, made = combine(method, parts[: len(honest)], len(honest)), combine(method, shuffled, len(honest))
    assert made.output == alone.output
    assert {shuffled[place] for place in made.counted} == set(parts[: len(honest)])
    assert {shuffled[place] for place in made.dissent} == {parts[place] for place in alone.dissent}


def _form(blob):
    try:
        return [(tensor.name, tensor.dtype, tensor.shape) for tensor in decode_tensors(blob)]
    except PeerFault:
        return None


@thorough
@given(ballots(), st.integers(1, 1000))
def test_equal_weights_elect_the_same_labels_as_no_weights(votes, weight):
    weighted = tally(votes, {vote.answer: weight for vote in votes})
    plain = tally(votes)
    assert (weighted.labels, weighted.dissent) == (plain.labels, plain.dissent)
    assert weighted.margin == tuple(weight * margin for margin in plain.margin)


@thorough
@given(
    st.lists(st.tuples(st.integers(-(2**60), 2**60), st.integers(0, 100)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_sums_are_exact_in_any_order(counts, order):
    blobs = [
        encode_tensors([Tensor("n", "int64", (2,), struct.pack("<2q", a, b)), Tensor("z", "int64", (0,), b"")])
        for a, b in counts
    ]
    parts = [(bytes([i]), blob) for i, blob in enumerate(blobs)]
    expected = struct.pack("<2q", sum(a for a, _ in counts), sum(b for _, b in counts))
    total = sum_counts(parts)
    assert decode_tensors(total)[0].raw == expected
    order.shuffle(parts)
    assert sum_counts(parts) == total


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.5, 0.501, 0.5005, 0.499])
comparators = st.sampled_from(
    [
        {"kind": "exact"},
        {"kind": "argmax_atol", "tensor": "p", "atol_micro": 1000},
        {"kind": "rtol", "rtol_micro": 1500},
        {"kind": "cosine", "min_ppm": 999_000},
    ]
)


@st.composite
def quorums(draw):
    count = draw(st.integers(1, 7))
    rows = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3))
    blobs = [encode_tensors([Tensor("p", "float64", (2,), struct.pack("<2d", *row))]) for row in rows] + [b"junk"]
    ids = draw(st.permutations([bytes([i]) for i in range(count)]))
    return [(ids[i], b"peer%d" % i, draw(st.sampled_from(blobs))) for i in range(count)]


@thorough
@given(quorums(), comparators, st.integers(1, 7), st.randoms(use_true_random=False))
def test_a_quorum_does_not_depend_on_the_order_of_answers(answers, comparator, k, order):
    shuffled = list(answers)
    order.shuffle(shuffled)
    assert support(shuffled, comparator, k) == support(answers, comparator, k)


@thorough
@given(quorums(), comparators, st.integers(1, 7))
def test_the_accepted_answer_has_the_largest_support_and_the_smallest_id(answers, comparator, k):
    def near(one, other):
        if one is other:
            return support([one], comparator, 1).accepted is not None
        return support([one, other], comparator, 2).accepted is not None

    supports = {one[0]: sorted(other[0] for other in answers if near(one, other)) for one in answers}
    for one in answers:
        for other in answers:
            assert (other[0] in supports[one[0]]) == (one[0] in supports[other[0]])
    found = support(answers, comparator, k)
    assert found.largest == max(map(len, supports.values()))
    if found.largest < k:
        assert (found.accepted, found.supporters, found.dissenters) == (None, (), ())
    else:
        assert found.accepted == min(name for name, others in supports.items() if len(others) == found.largest)
        assert list(found.supporters) == supports[found.accepted]
        assert found.accepted in found.supporters
        assert sorted([*found.supporters, *found.dissenters]) == sorted(supports)


@st.composite
def histories(draw):
    kinds = st.sampled_from(["quorum", "late", "unverified", "canary"])
    entry = st.tuples(
        st.sampled_from([b"a", b"b"]), st.integers(0, 60 * DAY_MS), st.booleans(), st.integers(1, 10_000), kinds
    )
    return [
        Evidence(peer, "infer/x", at_ms, good, weight, kind, b"%d" % number)
        for number, (peer, at_ms, good, weight, kind) in enumerate(draw(st.lists(entry, max_size=40)))
    ]


def by_the_formula(events, now_ms):
    """α and β straight from records.md: what the cached sums have to equal."""
    alpha = 1.0 + sum(e.weight_permille / 1000 * 2 ** (-(now_ms - e.at_ms) / (7 * DAY_MS)) for e in events if e.good)
    beta = 2.0 + sum(
        e.weight_permille / 1000 * 2 ** (-(now_ms - e.at_ms) / (30 * DAY_MS)) for e in events if not e.good
    )
    return alpha / (alpha + beta)


@thorough
@given(histories(), st.integers(0, 90))
def test_standing_equals_its_formula(events, days):
    standing = Standing()
    for event in events:
        standing.record(event)
    for peer in (b"a", b"b"):
        mine = [event for event in events if event.peer == peer]
        newest = max((event.at_ms for event in mine), default=0)
        now_ms = newest + days * DAY_MS
        expected = min(by_the_formula(mine, now_ms), by_the_formula(mine[-LIMITS.standing.recent_events :], now_ms))
        assert math.isclose(standing.mean(peer, "infer/x", now_ms), expected, rel_tol=1e-9)
        proofs = [event.at_ms for event in mine if not event.good and event.kind in BARRING_KINDS]
        until_ms = max(proofs, default=-(10**12)) + 7 * DAY_MS
        assert standing.barred_until(peer, "infer/x", now_ms) == (until_ms if now_ms < until_ms else 0)


@thorough
@given(histories())
def test_a_journal_rebuilds_standing_to_the_last_bit(events):
    before = Standing()
    for event in events:
        before.record(event)
    after = Standing.from_rows([event.row for event in events])
    for peer in (b"a", b"b"):
        assert after.explain(peer, 61 * DAY_MS) == before.explain(peer, 61 * DAY_MS)


@thorough
@given(histories(), st.integers(1, 10))
def test_standing_stays_within_its_bound(events, most):
    standing = Standing(replace(LIMITS.standing, events_kept_max=most))
    for event in events:
        standing.record(event)
        assert len(standing) <= most
    kept = sum(len(line.events) for peer in (b"a", b"b") for line in standing.explain(peer, 0))
    assert kept == len(standing)


@st.composite
def markets(draw):
    count = draw(st.integers(0, 12))
    return [
        Candidate(
            bytes([i]),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 66)),
            frozenset(draw(st.sets(st.sampled_from([b"m", "wdbc"])))),
            draw(st.booleans()),
        )
        for i in range(count)
    ]


@thorough
@given(markets(), st.data(), st.integers(0, 2**32))
def test_whoever_is_chosen_may_be_chosen_and_only_nobody_means_nobody(candidates, data, seed):
    peers = [candidate.peer for candidate in candidates]
    some = st.frozensets(st.sampled_from(peers)) if peers else st.just(frozenset())
    barred, new, exclude = data.draw(some), data.draw(some), data.draw(some)
    need = Need(b"m", "infer", data.draw(st.sampled_from(["", "wdbc"])), None, exclude)
    lane = NewcomerLane(credit_permille=data.draw(st.integers(0, 999)))
    chosen = choose(
        candidates,
        need,
        standing_mean=lambda peer: 1 / (1 + peer[0]),
        barred=barred.__contains__,
        newcomer=new.__contains__,
        lane=lane,
        rng=random.Random(seed),
    )
    able = [
        c
        for c in candidates
        if (b"m" in c.offers or c.fetches)
        and (not need.cabinet or need.cabinet in c.offers)
        and c.peer not in exclude | barred
        and c.inflight < LIMITS.jobs.lease_window_per_peer
    ]
    able = [c for c in able if not c.fetches] or able
    assert (chosen is None) == (not able)
    assert chosen is None or chosen in {c.peer for c in able}
    assert 0 <= lane.credit_permille < 1000
