"""Votes and exact sums."""

import struct

import pytest

from dimnode.consensus.recompute import Tally, Vote, encode_tally_blob, labels_of, sum_counts, tally
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

ALBA, BRIO, CARA = b"\x01alba", b"\x02brio", b"\x03cara"


def integers(name: str, numbers: list[int], shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(name, "int64", shape or (len(numbers),), struct.pack(f"<{len(numbers)}q", *numbers))


def labels(*numbers: int) -> bytes:
    return encode_tensors([integers("label", list(numbers))])


def counts(**numbers: int) -> bytes:
    return encode_tensors([integers(name, [number], (1,)) for name, number in numbers.items()])


def votes(*rows: tuple[int, ...]) -> list[Vote]:
    return [Vote(bytes([i]), row, b"answer" + bytes([i])) for i, row in enumerate(rows)]


def test_the_label_with_most_votes_wins_each_row_and_dissent_is_kept():
    result = tally(votes((1, 0), (1, 0), (0, 0)))
    assert result.labels == (1, 0)
    assert result.votes == ((1, 2), (3, 0))
    assert result.margin == (1, 3)
    assert result.dissent == ((b"answer\x02",), ())


def test_dissent_is_named_in_ascending_order_of_answers_whoever_came_first():
    first_come = [Vote(CARA, (1,), b"z"), Vote(BRIO, (2,), b"a"), Vote(ALBA, (0,), b"m")]
    assert tally(first_come) == tally(first_come[::-1])
    assert tally(first_come).dissent == ((b"a", b"z"),)


def test_a_tie_goes_to_the_smallest_label_with_margin_zero():
    result = tally(votes((4,), (2,)))
    assert (result.labels, result.margin, result.dissent) == ((2,), (0,), ((b"answer\x00",),))


def test_weights_are_summed_and_a_heavy_voter_outweighs_two_light_ones():
    result = tally(votes((1,), (0,), (0,)), {b"answer\x00": 700, b"answer\x01": 200, b"answer\x02": 100})
    assert (result.labels, result.votes, result.margin) == ((1,), ((300, 700),), (400,))


def test_a_voter_of_weight_zero_changes_nothing_but_is_named_among_the_dissent():
    result = tally(votes((0,), (5,)), {b"answer\x00": 1, b"answer\x01": 0})
    assert (result.labels, result.margin, result.dissent) == ((0,), (1,), ((b"answer\x01",),))


@pytest.mark.parametrize(
    "weights", [{b"answer\x00": 1}, {b"answer\x00": 1, b"answer\x01": -1}, {b"answer\x00": 0, b"answer\x01": 0}]
)
def test_a_missing_negative_or_all_zero_weight_is_refused(weights):
    with pytest.raises(PeerFault, match="weight"):
        tally(votes((0,), (1,)), weights)


def test_a_weight_above_the_limit_is_refused():
    with pytest.raises(PeerFault, match="weight"):
        tally(votes((0,)), {b"answer\x00": LIMITS.consensus.weight_permille_max + 1})


def test_two_models_may_vote_from_one_peer():
    assert tally([Vote(ALBA, (0,), b"a"), Vote(ALBA, (0,), b"b"), Vote(BRIO, (1,), b"c")]).labels == (0,)


def test_an_answer_counts_once():
    with pytest.raises(PeerFault, match="twice"):
        tally([Vote(ALBA, (0,), b"a"), Vote(BRIO, (0,), b"a")])


@pytest.mark.parametrize(
    "bad",
    [
        [],
        votes((0, 1), (0,)),
        votes(()),
        votes((-1,)),
        votes((LIMITS.consensus.vote_classes_max,)),
        votes(*[(0,)] * (LIMITS.consensus.parts_max + 1)),
        votes((0,) * (LIMITS.consensus.vote_rows_max + 1)),
    ],
    ids=["none", "unequal rows", "no rows", "negative", "label too large", "too many", "too many rows"],
)
def test_votes_outside_the_bounds_are_refused(bad):
    with pytest.raises(PeerFault, match="votes"):
        tally(bad)


def test_the_tally_blob_holds_label_votes_and_margin():
    blob = encode_tally_blob(tally(votes((1, 0), (1, 2), (0, 2))))
    by_name = {tensor.name: tensor for tensor in decode_tensors(blob)}
    assert sorted(by_name) == ["label", "margin", "votes"]
    assert by_name["votes"].shape == (2, 3)
    assert struct.unpack("<6q", by_name["votes"].raw) == (1, 2, 0, 1, 0, 2)
    assert labels_of(blob) == (1, 2)
    assert struct.unpack("<2q", by_name["margin"].raw) == (1, 1)


def test_the_largest_possible_tally_fits_a_blob():
    limits = LIMITS.consensus
    cells = limits.vote_rows_max * (limits.vote_classes_max + 2) * 8
    assert cells + 1024 <= LIMITS.records.tensor_blob_bytes_max


def test_one_class_has_the_whole_vote_as_margin():
    assert tally(votes((0,), (0,))) == Tally((0,), ((2,),), (2,), ((),))


def test_labels_are_read_beside_other_tensors():
    output = encode_tensors([Tensor("probabilities", "float32", (2, 1), bytes(8)), integers("label", [3, 1])])
    assert labels_of(output) == (3, 1)
    assert labels_of(output, rows=2) == (3, 1)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        encode_tensors([integers("labels", [1])]),
        encode_tensors([Tensor("label", "int32", (1,), bytes(4))]),
        encode_tensors([integers("label", [1, 2], (2, 1))]),
        labels(-1),
        labels(2**40),
        labels(),
    ],
    ids=["no blob", "other name", "int32", "two dimensions", "negative", "too large", "no rows"],
)
def test_labels_of_any_other_form_are_the_senders_fault(output):
    with pytest.raises(PeerFault):
        labels_of(output)


def test_labels_for_another_number_of_rows_are_the_senders_fault():
    with pytest.raises(PeerFault, match="rows"):
        labels_of(labels(1, 0), rows=3)


def test_counts_of_all_sites_are_added_by_name():
    total = sum_counts([(ALBA, counts(tp=60, fp=2)), (BRIO, counts(tp=61, fp=0)), (CARA, counts(tp=59, fp=1))])
    assert total == counts(tp=180, fp=3)


def test_a_sum_may_be_as_large_as_int64_and_no_larger():
    most = 2**63 - 1
    assert sum_counts([(ALBA, counts(n=most - 1)), (BRIO, counts(n=1))]) == counts(n=most)
    with pytest.raises(PeerFault, match="fit"):
        sum_counts([(ALBA, counts(n=most)), (BRIO, counts(n=1))])
    with pytest.raises(PeerFault, match="fit"):
        sum_counts([(ALBA, counts(n=-(2**63))), (BRIO, counts(n=-1))])


def test_sums_in_between_may_pass_int64_when_the_total_fits():
    most = 2**63 - 1
    parts = [(ALBA, counts(n=most)), (BRIO, counts(n=most)), (CARA, counts(n=-most))]
    assert sum_counts(parts) == counts(n=most)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (counts(tp=1, fn=2), "names"),
        (encode_tensors([integers("fp", [1, 1], (2,)), integers("tp", [1], (1,))]), "shapes"),
        (encode_tensors([Tensor("fp", "float64", (1,), bytes(8)), integers("tp", [1], (1,))]), "int64"),
        (b"junk", "tensors"),
    ],
)
def test_parts_of_another_form_do_not_add_up(second, why):
    with pytest.raises(PeerFault, match=why):
        sum_counts([(ALBA, counts(tp=1, fp=2)), (BRIO, second)])


def test_a_site_is_counted_once_and_nobody_is_no_sum():
    with pytest.raises(PeerFault, match="twice"):
        sum_counts([(ALBA, counts(n=1)), (ALBA, counts(n=1))])
    with pytest.raises(PeerFault, match="parts"):
        sum_counts([])
    with pytest.raises(PeerFault, match="parts"):
        sum_counts([(bytes([i]), counts(n=1)) for i in range(LIMITS.consensus.parts_max + 1)])
