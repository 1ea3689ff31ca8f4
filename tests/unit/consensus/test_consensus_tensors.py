"""The weighted average, to the last bit."""

import math
import struct

import numpy as np
import pytest

from dimnode.consensus.tensors import Part, weighted_average
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

ALBA, BRIO, CARA = b"\x01", b"\x02", b"\x03"
LETTERS = {"float16": "e", "float32": "f", "float64": "d", "int64": "q", "int32": "i", "int8": "b", "uint8": "B"}


def blob(*numbers: float, dtype: str = "float32", name: str = "w", shape: tuple[int, ...] | None = None) -> bytes:
    raw = struct.pack(f"<{len(numbers)}{LETTERS[dtype]}", *numbers)
    return encode_tensors([Tensor(name, dtype, (len(numbers),) if shape is None else shape, raw)])


def numbers_of(output: bytes) -> tuple[float, ...]:
    (tensor,) = decode_tensors(output)
    return struct.unpack(f"<{tensor.items}{LETTERS[tensor.dtype]}", tensor.raw)


def test_the_weight_of_a_site_is_its_number_of_rows():
    output = weighted_average([(ALBA, 300, blob(1.0, 0.0)), (BRIO, 100, blob(5.0, 4.0))])
    assert output == blob(2.0, 1.0)


def test_parts_are_named_tuples_or_plain_ones():
    plain = [(ALBA, 2, blob(1.0)), (BRIO, 1, blob(2.5))]
    assert weighted_average([Part(*part) for part in plain]) == weighted_average(plain) == blob(1.5)


def test_the_order_is_that_of_the_peer_ids_so_rounding_is_the_same_everywhere():
    # In float64, (1e16 + 1) + 1 and (1 + 1) + 1e16 differ: only a fixed order gives everybody the same bytes.
    parts = [(CARA, 1, blob(1e16, dtype="float64")), (ALBA, 1, blob(1.0, dtype="float64"))]
    parts.append((BRIO, 1, blob(1.0, dtype="float64")))
    expected = struct.pack("<d", (1.0 + 1.0 + 1e16) / 3)
    assert decode_tensors(weighted_average(parts))[0].raw == expected
    assert weighted_average(parts[::-1]) == weighted_average(parts)
    assert (1e16 + 1.0 + 1.0) != (1.0 + 1.0 + 1e16)


def test_there_is_no_fused_multiply_add():
    # The product 3 + 3 * 2^-52 rounds to 3 + 2^-50 before -3 is added; a fused operation would leave 3 * 2^-52.
    x, y = 1.0 + 2.0**-52, -3.0
    output = weighted_average([(ALBA, 1, blob(y, dtype="float64")), (BRIO, 3, blob(x, dtype="float64"))])
    assert numbers_of(output) == (2.0**-50 / 4,)


def test_one_rounding_to_the_dtype_not_two():
    # Through float32 the mean 1 + 2^-11 + 2^-40 would first become 1 + 2^-11, a tie in float16, and then round to 1.
    mean = 1.0 + 2.0**-11 + 2.0**-40
    half = struct.unpack("<e", struct.pack("<e", mean))[0]
    assert half == 1.0 + 2.0**-10
    parts = [(ALBA, 2**29 - 1, blob(1.0, dtype="float16")), (BRIO, 2**29 + 1, blob(1.0 + 2.0**-10, dtype="float16"))]
    assert numbers_of(weighted_average(parts)) == (half,)


def test_integers_round_half_to_even():
    output = weighted_average(
        [(ALBA, 1, blob(0, 1, -1, 7, dtype="int64")), (BRIO, 1, blob(1, 2, -2, 7, dtype="int64"))]
    )
    assert numbers_of(output) == (0, 2, -2, 7)


def test_small_integers_stay_in_their_range():
    for dtype, most in (("uint8", 255), ("int8", 127), ("int8", -128), ("int32", 2**31 - 1)):
        parts = [(ALBA, 2**52 - 1, blob(most, dtype=dtype)), (BRIO, 2**51 + 7, blob(most, dtype=dtype))]
        assert numbers_of(weighted_average(parts)) == (most,)


def test_a_sum_of_negative_zeros_is_positive_zero():
    (number,) = numbers_of(weighted_average([(ALBA, 1, blob(-0.0))]))
    assert math.copysign(1.0, number) == 1.0


def test_the_largest_float32_averages_to_itself():
    most = float(np.finfo(np.float32).max)
    assert numbers_of(weighted_average([(ALBA, 3, blob(most)), (BRIO, 7, blob(most))])) == (most,)


def test_scalars_and_empty_tensors_have_an_average():
    assert weighted_average([(ALBA, 1, blob(2.0, shape=()))]) == blob(2.0, shape=())
    assert weighted_average([(ALBA, 1, blob(shape=(0, 3)))]) == blob(shape=(0, 3))


def test_a_part_of_weight_zero_counts_for_nothing():
    assert weighted_average([(ALBA, 0, blob(9.0)), (BRIO, 4, blob(2.0))]) == blob(2.0)


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2), (2**53, 1)])
def test_weights_that_have_no_exact_positive_sum_are_refused(weights):
    with pytest.raises(PeerFault, match="weights"):
        weighted_average([(ALBA, weights[0], blob(1.0)), (BRIO, weights[1], blob(1.0))])


@pytest.mark.parametrize(
    "other", [blob(1.0, 2.0), blob(1.0, name="b"), blob(1.0, dtype="float64"), blob(1.0, shape=(1, 1))]
)
def test_parts_of_another_form_are_refused(other):
    with pytest.raises(PeerFault, match="differ"):
        weighted_average([(ALBA, 1, blob(1.0)), (BRIO, 1, other)])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", [0, 1])
def test_values_that_are_not_finite_are_refused_whatever_their_weight(number, weight):
    with pytest.raises(PeerFault, match="finite"):
        weighted_average([(ALBA, 1, blob(1.0)), (BRIO, weight, blob(number))])


def test_a_sum_that_overflows_is_refused():
    with pytest.raises(PeerFault, match="finite"):
        weighted_average([(ALBA, 10, blob(1.7e308, dtype="float64"))])


def test_bools_and_integers_beyond_exact_floats_are_refused():
    with pytest.raises(PeerFault, match="bool"):
        weighted_average([(ALBA, 1, encode_tensors([Tensor("w", "bool", (1,), b"\1")]))])
    with pytest.raises(PeerFault, match="2\\^53"):
        weighted_average([(ALBA, 1, blob(2**53 + 2, dtype="int64"))])


def test_a_site_contributes_once_and_nobody_has_no_average():
    with pytest.raises(PeerFault, match="twice"):
        weighted_average([(ALBA, 1, blob(1.0)), (ALBA, 1, blob(1.0))])
    for parts in ([], [(bytes([i]), 1, blob(1.0)) for i in range(LIMITS.consensus.parts_max + 1)]):
        with pytest.raises(PeerFault, match="parts"):
            weighted_average(parts)
