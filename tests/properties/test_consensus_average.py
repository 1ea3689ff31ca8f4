"""The weighted average has the same bytes for any order of arrival, and they are those of a plain loop over floats."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.consensus.tensors import weighted_average
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

pytestmark = pytest.mark.slow
thorough = settings(max_examples=200, deadline=None)

LETTERS = {"float16": "e", "float32": "f", "float64": "d"}
WIDTHS = {"float16": 16, "float32": 32, "float64": 64}


@st.composite
def rounds(draw):
    dtype = draw(st.sampled_from(sorted(LETTERS)))
    size = draw(st.integers(0, 5))
    largest = {"float16": 65504.0, "float32": 3.0e38, "float64": 1e290}[dtype]
    number = (
        st.floats(-largest, largest, width=WIDTHS[dtype])
        if dtype != "float32"
        else st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
    peers = draw(st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=6, unique=True))
    weights = draw(st.lists(st.integers(0, 10**6), min_size=len(peers), max_size=len(peers)).filter(any))
    rows = [draw(st.lists(number, min_size=size, max_size=size)) for _ in peers]
    return dtype, list(zip(peers, weights, rows, strict=True))


def blob(dtype: str, numbers: list[float]) -> bytes:
    return encode_tensors(
        [Tensor("w", dtype, (len(numbers),), struct.pack(f"<{len(numbers)}{LETTERS[dtype]}", *numbers))]
    )


def plain_loop(dtype: str, parts: list[tuple[bytes, int, list[float]]]) -> bytes:
    """The definition, in Python floats, which are IEEE 754 doubles; `struct` rounds once, half to even."""
    total = sum(weight for _, weight, _ in parts)
    means = []
    for column in range(len(parts[0][2])):
        accumulated = 0.0
        for _, weight, numbers in sorted(parts):
            product = numbers[column] * float(weight)
            accumulated = accumulated + product
        means.append(accumulated / float(total))
    return struct.pack(f"<{len(means)}{LETTERS[dtype]}", *means)


@thorough
@given(rounds(), st.randoms(use_true_random=False))
def test_the_average_has_the_same_bytes_in_any_order(drawn, order):
    dtype, parts = drawn
    blobs = [(peer, weight, blob(dtype, numbers)) for peer, weight, numbers in parts]
    average = weighted_average(blobs)
    order.shuffle(blobs)
    assert weighted_average(blobs) == average


@thorough
@given(rounds())
def test_the_average_equals_a_plain_loop_over_floats(drawn):
    dtype, parts = drawn
    average = weighted_average([(peer, weight, blob(dtype, numbers)) for peer, weight, numbers in parts])
    assert decode_tensors(average)[0].raw == plain_loop(dtype, parts)


@thorough
@given(rounds())
def test_an_average_lies_between_the_smallest_and_the_largest(drawn):
    dtype, parts = drawn
    average = weighted_average([(peer, weight, blob(dtype, numbers)) for peer, weight, numbers in parts])
    (tensor,) = decode_tensors(average)
    means = struct.unpack(f"<{tensor.items}{LETTERS[dtype]}", tensor.raw)
    for column, mean in enumerate(means):
        column_numbers = [numbers[column] for _, weight, numbers in parts if weight]
        slack = 1e-12 * max(map(abs, column_numbers)) + 1e-300
        assert min(column_numbers) - slack <= mean <= max(column_numbers) + slack
        assert math.isfinite(mean)
