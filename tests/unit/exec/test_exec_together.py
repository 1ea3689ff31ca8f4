"""Several orders in one run: what each gets is what it would have got alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.operations import Outcome, infer
from dimnode.exec.orders import Take
from dimnode.exec.runtimes.base import Model
from dimnode.exec.together import PROOFS, Part, Trust, infer_together, may_batch
from dimnode.limits import ExecLimits
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

LIMITS = ExecLimits()


@dataclass
class Doubling(Model):
    """y = 2 x, or what a test says; counts the rows of each run."""

    function: Any = staticmethod(lambda x: x * 2)
    rows: int | None = None
    runs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = (Declared("x", "float32", (self.rows, None)),)
        self.outputs = (Declared("y", "float32", None),)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        self.runs.append(len(arrays["x"]))
        return {"y": self.function(arrays["x"])}


def blob(values: Any) -> bytes:
    array = np.asarray(values, dtype=np.float32)
    return encode_tensors([Tensor("x", "float32", array.shape, array.tobytes())])


def together(model: Model, trust: Trust, *blobs: bytes) -> list[Part]:
    return infer_together(model, None, (), [(entry,) for entry in blobs], trust, LIMITS)


def values(part: Part) -> Any:
    assert isinstance(part, Outcome), part
    (tensor,) = decode_tensors(part.output)
    return np.frombuffer(tensor.raw, tensor.dtype).reshape(tensor.shape).tolist()


def test_orders_of_one_shape_share_a_run_and_each_gets_its_rows() -> None:
    model = Doubling()
    parts = together(model, Trust(PROOFS), blob([[1, 2]]), blob([[3, 4], [5, 6]]), blob([[7, 8]]))
    assert [values(part) for part in parts] == [[[2, 4]], [[6, 8], [10, 12]], [[14, 16]]]
    assert model.runs == [4]
    assert [(part.rows, part.batch) for part in parts if isinstance(part, Outcome)] == [(1, 4), (2, 4), (1, 4)]


def test_a_bad_input_costs_its_mates_nothing() -> None:
    model = Doubling()
    parts = together(model, Trust(PROOFS), blob([[1, 2]]), blob([[np.nan, 2]]), b"junk", blob([[3, 4]]))
    assert [part.complaint.code for part in parts if isinstance(part, RunFailed)] == [
        orders.NOT_FINITE,
        orders.BAD_INPUT,
    ]
    assert (values(parts[0]), values(parts[3])) == ([[2, 4]], [[6, 8]])
    assert model.runs == [2]


def test_a_run_that_fails_together_is_repeated_alone_and_only_the_poison_fails() -> None:
    def choke(x: Array) -> Array:
        if (x == 13).any():
            raise RunFailed(orders.RUN_FAILED, "poison")
        return x * 2

    model = Doubling(choke)
    parts = together(model, Trust(PROOFS), blob([[1, 1]]), blob([[13, 1]]), blob([[2, 2]]))
    assert isinstance(parts[1], RunFailed)
    assert (values(parts[0]), values(parts[2])) == ([[2, 2]], [[4, 4]])
    assert model.runs == [3, 1, 1, 1]


def test_other_shapes_run_alone() -> None:
    model = Doubling()
    parts = together(model, Trust(PROOFS), blob([[1, 2]]), blob([[1, 2, 3]]), blob([[4, 5]]))
    assert [values(part) for part in parts] == [[[2, 4]], [[2, 4, 6]], [[8, 10]]]
    assert sorted(model.runs) == [1, 2]


def test_the_first_batches_are_compared_with_single_runs() -> None:
    model, trust = Doubling(), Trust()
    for _ in range(PROOFS):
        parts = together(model, trust, blob([[1, 2]]), blob([[3, 4]]))
        assert [part.batch for part in parts if isinstance(part, Outcome)] == [1, 1], "the single runs are the answers"
    assert model.runs == [2, 1, 1] * PROOFS
    assert trust == Trust(PROOFS)
    together(model, trust, blob([[1, 2]]), blob([[3, 4]]))
    assert model.runs[-1] == 2


def mixing(x: Array) -> Array:
    return x - x.mean(axis=0)


def summing(x: Array) -> Array:
    return x.sum(axis=0, keepdims=True)


@pytest.mark.parametrize("function", [mixing, summing])
def test_a_model_whose_rows_are_not_independent_is_found_out_and_never_batched(function: Any) -> None:
    model, trust = Doubling(function), Trust()
    for _ in range(3):
        parts = together(model, trust, blob([[1, 2]]), blob([[3, 5]]))
        assert [values(part) for part in parts] == [function(np.float32([row])).tolist() for row in ([1, 2], [3, 5])]
    assert trust.off
    assert model.runs[-4:] == [1, 1, 1, 1]


def test_a_fixed_first_dimension_is_never_batched() -> None:
    model = Doubling(rows=1)
    together(model, Trust(PROOFS), blob([[1, 2]]), blob([[3, 4]]))
    assert model.runs == [1, 1]
    assert may_batch((Declared("x", "float32", (None, 3)), Declared("y", "float32", None)))
    assert not may_batch((Declared("x", "float32", (1, 3)),))
    assert not may_batch((Declared("x", "float32", ()),))


def test_out_of_memory_together_is_no_reason_to_fail_alone() -> None:
    def hungry(x: Array) -> Array:
        if len(x) > 1:
            raise MemoryError
        return x * 2

    parts = together(Doubling(hungry), Trust(PROOFS), blob([[1, 2]]), blob([[3, 4]]))
    assert [values(part) for part in parts] == [[[2, 4]], [[6, 8]]]


@pytest.mark.slow
@given(
    shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=8),
    bad=st.sets(st.integers(0, 7)),
    proofs=st.integers(0, PROOFS),
)
def test_whatever_is_put_together_each_part_is_what_it_would_be_alone(
    shapes: list[tuple[int, int]], bad: set[int], proofs: int
) -> None:
    model = Doubling(lambda x: np.tanh(x) * 3)
    blobs = [
        b"junk" if place in bad else blob(np.arange(shape[0] * shape[1]).reshape(shape) + place)
        for place, shape in enumerate(shapes)
    ]
    parts = together(model, Trust(proofs), *blobs)
    for entry, part in zip(blobs, parts, strict=True):
        if isinstance(part, RunFailed):
            with pytest.raises(RunFailed) as caught:
                infer(model, (), (entry,), LIMITS)
            assert part.complaint.code == caught.value.complaint.code
        else:
            alone = infer(model, (), (entry,), LIMITS)
            assert isinstance(part, Outcome)
            assert np.allclose(values(part), values(alone), rtol=1e-6)
            assert part.rows == alone.rows


def test_columns_are_taken_from_each_order_before_they_are_joined() -> None:
    model = Doubling()
    take = (Take("x", 0, "x", 1, 3),)
    parts = infer_together(model, None, take, [(blob([[1, 2, 3]]),), (blob([[4, 5, 6]]),)], Trust(PROOFS), LIMITS)
    assert [values(part) for part in parts] == [[[4, 6]], [[10, 12]]]
