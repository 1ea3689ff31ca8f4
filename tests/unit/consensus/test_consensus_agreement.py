"""Support under each comparator: the verdict of a quorum."""

import math
import struct

import pytest

from dimnode.consensus.recompute import Agreement, Replica, check_comparator, support
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, encode_tensors

EXACT = {"kind": "exact"}
ARGMAX = {"kind": "argmax_atol", "tensor": "probabilities", "atol_micro": 1000}
RTOL = {"kind": "rtol", "rtol_micro": 1000}
COSINE = {"kind": "cosine", "min_ppm": 999_000}


def output(*rows: tuple[float, ...], name: str = "probabilities", letter: str = "d", label: int | None = None) -> bytes:
    numbers = [number for row in rows for number in row]
    dtype = {"e": "float16", "f": "float32", "d": "float64"}[letter]
    raw = struct.pack(f"<{len(numbers)}{letter}", *numbers)
    tensors = [Tensor(name, dtype, (len(rows), len(rows[0])), raw)]
    if label is not None:
        tensors.append(Tensor("label", "int64", (1,), struct.pack("<q", label)))
    return encode_tensors(tensors)


def replicas(*outputs: bytes) -> list[Replica]:
    return [Replica(f"answer{i}".encode(), f"peer{i}".encode(), blob) for i, blob in enumerate(outputs)]


def agree(one: bytes, other: bytes, comparator: dict) -> bool:
    found = support(replicas(one, other), comparator, 2)
    assert (found.accepted is not None) == (found.largest == 2)
    return found.accepted is not None


def test_two_of_three_equal_outputs_are_accepted_and_the_third_is_contradicted():
    found = support(replicas(b"benign", b"malignant", b"malignant"), EXACT, 2)
    assert found == Agreement(b"answer1", (b"answer1", b"answer2"), (b"answer0",), 2)


def test_a_split_accepts_nothing_and_contradicts_nobody():
    assert support(replicas(b"a", b"b", b"c"), EXACT, 2) == Agreement(None, (), (), 1)


def test_plain_tuples_are_replicas_too():
    assert support([(b"x", b"p", b"o"), (b"y", b"q", b"o")], EXACT, 2).accepted == b"x"


def test_of_equal_supports_the_smallest_id_is_accepted():
    answers = [(b"z", b"p1", b"one"), (b"y", b"p2", b"one"), (b"b", b"p3", b"two"), (b"c", b"p4", b"two")]
    assert support(answers, EXACT, 2) == Agreement(b"b", (b"b", b"c"), (b"y", b"z"), 2)


def test_support_is_counted_around_an_answer_because_tolerance_is_not_transitive():
    near, middle, far = output((0.6, 0.4)), output((0.6009, 0.3991)), output((0.6018, 0.3982))
    assert agree(near, middle, ARGMAX)
    assert agree(middle, far, ARGMAX)
    assert not agree(near, far, ARGMAX)
    found = support(replicas(near, middle, far), ARGMAX, 3)
    assert (found.accepted, found.largest) == (b"answer1", 3)


def test_argmax_atol_wants_the_same_place_of_the_largest_item_in_each_row():
    assert agree(output((0.2, 0.8), (0.9, 0.1)), output((0.2005, 0.7995), (0.9, 0.1)), ARGMAX)
    assert not agree(output((0.50001, 0.49999)), output((0.49999, 0.50001)), ARGMAX)


def test_the_first_of_equal_items_is_the_largest():
    assert agree(output((0.5, 0.5)), output((0.5001, 0.4999)), ARGMAX)
    assert not agree(output((0.5, 0.5)), output((0.4999, 0.5001)), ARGMAX)


def test_argmax_atol_includes_its_bound():
    comparator = ARGMAX | {"atol_micro": 250_000}
    assert agree(output((1.0, 0.0)), output((0.75, 0.25)), comparator)
    assert not agree(output((1.0, 0.0)), output((0.749, 0.25)), comparator)


def test_one_row_without_a_class_axis_and_a_scalar_are_compared():
    for shape in ((2,), ()):
        raw = struct.pack(f"<{2 if shape else 1}d", *([0.1, 0.9] if shape else [0.5]))
        blob = encode_tensors([Tensor("probabilities", "float64", shape, raw)])
        other = encode_tensors([Tensor("probabilities", "float64", shape, raw), Tensor("z", "int8", (0,), b"")])
        assert agree(blob, blob, ARGMAX)
        assert not agree(blob, other, ARGMAX)


def test_an_empty_tensor_agrees_with_an_empty_tensor():
    for shape in ((0, 2), (2, 0)):
        blob = encode_tensors([Tensor("probabilities", "float32", shape, b"")])
        other = encode_tensors([Tensor("probabilities", "float32", shape, b""), Tensor("a", "float64", (1,), bytes(8))])
        third = encode_tensors(
            [Tensor("probabilities", "float32", shape, b""), Tensor("a", "float64", (1,), struct.pack("<d", 1e-9))]
        )
        assert agree(blob, blob, ARGMAX)
        assert agree(other, third, ARGMAX)


def test_a_wrong_label_beside_right_probabilities_does_not_agree():
    honest, liar = output((0.1, 0.9), label=1), output((0.1001, 0.8999), label=0)
    assert agree(honest, output((0.1001, 0.8999), label=1), ARGMAX)
    for comparator in (ARGMAX, RTOL, COSINE):
        assert not agree(honest, liar, comparator)


@pytest.mark.parametrize("letter", ["e", "f", "d"])
def test_every_float_type_is_read(letter):
    assert agree(output((0.25, 0.75), letter=letter), output((0.25, 0.7495), letter=letter), ARGMAX)
    assert not agree(output((0.25, 0.75), letter=letter), output((0.25, 0.74), letter=letter), ARGMAX)


def test_different_names_types_or_shapes_do_not_agree():
    one = output((0.5, 0.25))
    for other in (output((0.5, 0.25), name="p"), output((0.5, 0.25), letter="f"), output((0.5,), (0.25,))):
        assert not agree(one, other, RTOL)


def test_rtol_is_relative_to_the_larger_and_includes_its_bound():
    assert agree(output((1000.0, -1.0)), output((999.0, -1.0)), RTOL)
    assert not agree(output((1000.0, 1.0)), output((998.9, 1.0)), RTOL)
    assert not agree(output((0.0,)), output((1e-300,)), RTOL)
    assert agree(output((0.0,)), output((-0.0,)), RTOL)


def test_cosine_compares_direction():
    assert agree(output((1.0, 2.0, 3.0)), output((1.001, 2.0, 3.0)), COSINE)
    assert not agree(output((1.0, 0.0)), output((0.0, 1.0)), COSINE)
    assert not agree(output((1.0, 0.0)), output((-1.0, 0.0)), COSINE)
    assert agree(output((0.0, 0.0)), output((-0.0, 0.0)), COSINE)
    assert not agree(output((0.0, 0.0)), output((1.0, 0.0)), COSINE | {"min_ppm": 1})


def test_cosine_neither_overflows_nor_vanishes():
    assert agree(output((1e300, 2e300)), output((1e-300, 2e-300)), COSINE)


@pytest.mark.parametrize("comparator", [EXACT, ARGMAX, RTOL, COSINE], ids=lambda c: c["kind"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_never_agree_even_with_themselves(comparator, number):
    blob = output((number, 0.5))
    assert support(replicas(blob, blob, blob), comparator, 1) == Agreement(None, (), (), 0)


@pytest.mark.parametrize("comparator", [ARGMAX, RTOL, COSINE], ids=lambda c: c["kind"])
def test_an_unreadable_output_does_not_stop_the_others(comparator):
    good = output((0.25, 0.75))
    found = support(replicas(b"\xc1", good, good), comparator, 2)
    assert found == Agreement(b"answer1", (b"answer1", b"answer2"), (b"answer0",), 2)


def test_an_output_without_the_named_tensor_agrees_with_nothing_under_argmax():
    blob = output((0.25, 0.75), name="other")
    assert support(replicas(blob, blob), ARGMAX, 2).largest == 0
    assert agree(blob, blob, RTOL)


def test_outputs_too_long_to_compare_in_python_agree_only_under_exact():
    items = LIMITS.consensus.compared_items_max + 1
    blob = encode_tensors([Tensor("probabilities", "float16", (items,), bytes(2 * items))])
    assert not agree(blob, blob, RTOL)
    assert agree(blob, blob, EXACT)


def test_a_peer_and_an_answer_count_once():
    with pytest.raises(PeerFault, match="twice"):
        support([(b"x", b"p", b"o"), (b"y", b"p", b"o")], EXACT, 2)
    with pytest.raises(PeerFault, match="twice"):
        support([(b"x", b"p", b"o"), (b"x", b"q", b"o")], EXACT, 2)


def test_a_quorum_has_at_least_one_answer_at_most_two_rounds_and_a_positive_k():
    for answers, k in (([], 1), (replicas(b"o"), 0), (replicas(*[b"o"] * 15), 2)):
        with pytest.raises(PeerFault, match="count"):
            support(answers, EXACT, k)
    assert support(replicas(*[b"o"] * 14), EXACT, 14).largest == 14


@pytest.mark.parametrize(
    "comparator",
    [
        {},
        {"kind": "sameish"},
        {"kind": ["exact"]},
        {"kind": "exact", "atol_micro": 1},
        {"kind": "argmax_atol", "tensor": "probabilities"},
        ARGMAX | {"tensor": b"probabilities"},
        ARGMAX | {"atol_micro": -1},
        ARGMAX | {"atol_micro": True},
        ARGMAX | {"atol_micro": 0.001},
        RTOL | {"rtol_micro": 2**40},
        COSINE | {"min_ppm": 1_000_001},
    ],
)
def test_a_comparator_with_missing_unknown_or_impossible_parts_is_refused(comparator):
    with pytest.raises(PeerFault, match="comparator"):
        support(replicas(b"o", b"o"), comparator, 2)


def test_keys_for_experiments_are_ignored():
    check_comparator(EXACT | {"x_note": "hello"})
