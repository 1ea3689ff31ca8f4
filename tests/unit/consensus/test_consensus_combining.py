"""One answer never spoils the others: what fits together is put together, and nothing depends on who came first."""

import struct

import pytest

from dimnode.consensus.combining import Contribution, check_part, combine, fitting
from dimnode.consensus.recompute import labels_of, sum_counts
from dimnode.consensus.tensors import weighted_average
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, encode_tensors

MOST = 2**63 - 1


def integers(name: str, *numbers: int) -> bytes:
    return encode_tensors([Tensor(name, "int64", (len(numbers),), struct.pack(f"<{len(numbers)}q", *numbers))])


def doubles(*numbers: float) -> bytes:
    return encode_tensors([Tensor("w", "float64", (len(numbers),), struct.pack(f"<{len(numbers)}d", *numbers))])


def parts(*blobs: bytes, weights: tuple[int, ...] = ()) -> list[Contribution]:
    given = weights or (1,) * len(blobs)
    rows = enumerate(zip(given, blobs, strict=True))
    return [Contribution(b"peer%d" % place, b"id%d" % place, weight, blob) for place, (weight, blob) in rows]


VOTE, OTHER, LONG = integers("label", 1, 0), integers("label", 1, 1), integers("label", 1, 1, 1)


def test_a_vote_about_other_rows_is_left_out_and_the_rest_is_counted():
    made = combine("majority_vote", parts(LONG, VOTE, OTHER, VOTE), 3)
    assert (labels_of(made.output), made.counted, made.dissent) == ((1, 0), (1, 2, 3), (2,))


@pytest.mark.parametrize(
    "odd",
    [integers("counts", 7, 5), integers("count", 7), integers("count", 1, 2, 3), doubles(1.0, 2.0), b"garbage"],
    ids=["another name", "fewer numbers", "more numbers", "another dtype", "no tensors"],
)
@pytest.mark.parametrize("method", ["sum_counts", "federated_average", "weighted_average"])
def test_a_site_whose_output_has_another_form_is_left_out_of_sums_and_averages(method, odd):
    first, second = integers("count", 10, 5), integers("count", 20, 7)
    made = combine(method, parts(first, odd, second), 2)
    assert (made.counted, made.dissent) == ((0, 2), ())
    sum_or_average = {
        "sum_counts": lambda: sum_counts([(b"a", first), (b"b", second)]),
        "federated_average": lambda: weighted_average([(b"a", 1, first), (b"b", 1, second)]),
    }
    assert made.output == sum_or_average[method if method == "sum_counts" else "federated_average"]()


def test_fewer_of_one_form_than_the_job_needs_make_no_result():
    with pytest.raises(PeerFault, match="2 of 3 have the same rows, names, dtypes and shapes, 3 are needed"):
        combine("majority_vote", parts(LONG, VOTE, VOTE), 3)
    with pytest.raises(PeerFault, match="0 of 1"):
        combine("sum_counts", parts(b"garbage"), 1)


def test_of_two_forms_that_are_equally_common_neither_is_the_right_one():
    for given in (parts(LONG, VOTE), parts(VOTE, LONG), parts(LONG, VOTE, LONG, VOTE)):
        with pytest.raises(PeerFault, match="equally many"):
            combine("majority_vote", given, 1)


def test_the_submitters_weights_say_which_form_is_the_right_one_and_a_sites_own_do_not():
    assert fitting("weighted_vote", parts(VOTE, LONG, LONG, weights=(900, 50, 50)), 1) == (0,)
    assert fitting("weighted_vote", parts(VOTE, LONG, LONG, weights=(100, 50, 50)), 1) == (1, 2)
    assert fitting("weighted_vote", parts(VOTE, LONG, LONG, weights=(900, 50, 50)), 2) == (1, 2)
    count, odd = integers("count", 1), integers("count", 1, 2)
    assert fitting("weighted_average", parts(odd, count, count, weights=(900, 50, 50)), 1) == (0,)
    assert fitting("federated_average", parts(odd, count, count, weights=(10**7, 1, 1)), 1) == (1, 2)


@pytest.mark.parametrize("sites", [1, 2, 3, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_number_that_is_taken_carries_a_sum_of_all_sites_beyond_int64(sites, sign):
    share = sign * (MOST // sites)
    taken = integers("count", share)
    check_part("sum_counts", b"site", taken, sites)
    sum_counts([(bytes([site]), taken) for site in range(sites)])
    with pytest.raises(PeerFault, match="share of int64"):
        check_part("sum_counts", b"site", integers("count", share + sign if sites > 1 else -MOST - 1), sites)


def test_no_number_that_is_taken_carries_an_average_of_all_sites_beyond_float64():
    most = 2.0**970
    check_part("federated_average", b"site", doubles(most, -most), 64)
    weight = LIMITS.consensus.average_weight_sum_max // 64
    weighted_average([(bytes([site]), weight, doubles(most, -most)) for site in range(64)])
    for number in (2.0**971, -(2.0**1000), float("nan"), float("inf")):
        with pytest.raises(PeerFault, match="not finite"):
            check_part("weighted_average", b"site", doubles(number), 64)
    half = encode_tensors([Tensor("w", "float16", (1,), struct.pack("<e", 65504.0))])
    check_part("federated_average", b"site", half, 64)


def test_a_rule_that_reads_no_output_takes_whatever_comes():
    check_part("first", b"peer", b"garbage", 1)
    check_part("quorum", b"peer", b"garbage", 1)
