"""Where a number is wrong, said so that a person finds it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.records.places import fault_in, place_of

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "code", "what"),
    [
        ([[1, 2], [3, NAN]], "E-input-02", "row 2, column 2 is nan"),
        ([1.0, -math.inf], "E-input-02", "row 2 is -inf"),
        ([[[1, NAN]]], "E-input-02", "row 1, column 1, place 2 is nan"),
        ([[1, 2], [3, "x"]], "E-input-01", "row 2, column 2 is no number"),
        ([[1, None]], "E-input-01", "row 1, column 2 is no number"),
        ([[True]], "E-input-01", "row 1, column 1 is no number"),
        ([[1, 2], [3]], "E-input-01", "row 2 has 1 entry, the first has 2"),
        ([[1], 2], "E-input-01", "row 2 is 2"),
        (NAN, "E-input-02", "it is nan"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named_with_its_place(value, code, what):
    found = fault_in(value)
    assert found is not None
    assert (found.code, found.what) == (code, what)


@pytest.mark.parametrize("value", [1, [], [[]], [1, 2.5], [[1, 2], [3, 4]], [[[1]], [[2]]]])
def test_a_table_of_finite_numbers_has_no_fault(value):
    assert fault_in(value) is None


def test_lists_in_lists_without_end_are_a_fault_and_no_crash():
    deep: list = []
    for _ in range(500):
        deep = [deep]
    assert fault_in(deep)
    assert fault_in([[True]], booleans=True) is None


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_place_in_the_flat_order_is_the_path_that_leads_there(shape, data):
    path = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    flat = 0
    for step, size in zip(path, shape, strict=True):
        flat = flat * size + step
    assert place_of(flat, shape) == path
