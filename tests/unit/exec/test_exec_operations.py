"""The operations in this process: models, evaluate, statistics, cohort."""

import io
from dataclasses import replace

import numpy as np
import pytest
from exec_models import (
    allocating,
    custom_operator,
    doubling,
    external,
    floats,
    flooding,
    loaded,
    lookup,
    text_echo,
    text_output,
    threshold,
)

from dimnode.errors import RunFailed
from dimnode.exec import operations, orders
from dimnode.exec.orders import Condition, Rows, Take
from dimnode.exec.runtimes import onnx
from dimnode.limits import ExecLimits
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

LIMITS = ExecLimits()
onnx.silence()


def numbers(blob: bytes) -> dict[str, list[float]]:
    return {
        tensor.name: np.frombuffer(tensor.raw, tensor.dtype).reshape(tensor.shape).tolist()
        for tensor in decode_tensors(blob)
    }


def csv_of(matrix: np.ndarray, labels: np.ndarray) -> str:
    head = ",".join(f"f{index}" for index in range(matrix.shape[1]))
    lines = [
        ",".join(map(repr, row)) + f",{label}" for row, label in zip(matrix.tolist(), labels.tolist(), strict=True)
    ]
    return f"{head},label\n" + "\n".join(lines) + "\n"


def test_infer_gives_all_outputs_and_the_batch() -> None:
    blob = encode_tensors([Tensor("x", "float32", (2, 3), floats(1, 2, 3, 4, 5, 6))])
    outcome = operations.infer(loaded(doubling()), (), (blob,), LIMITS)
    assert numbers(outcome.output) == {"y": [[2, 4, 6], [8, 10, 12]]}
    assert (outcome.rows, outcome.batch) == (2, 2)


def test_infer_takes_declared_columns() -> None:
    blob = encode_tensors([Tensor("all", "float64", (1, 4), np.arange(4.0).tobytes())])
    outcome = operations.infer(loaded(doubling()), (Take("x", 0, "all", 1, 4),), (blob,), LIMITS)
    assert numbers(outcome.output) == {"y": [[2, 4, 6]]}


def test_an_output_over_the_limit_fails_the_run() -> None:
    blob = encode_tensors([Tensor("x", "float32", (1,), floats(0))])
    with pytest.raises(RunFailed, match="the limit is 100") as caught:
        operations.infer(loaded(flooding(1000)), (), (blob,), replace(LIMITS, output_bytes_max=100))
    assert caught.value.complaint.code == orders.OUTPUT_TOO_LARGE


def test_memory_that_cannot_be_had_is_a_memory_error() -> None:
    blob = encode_tensors([Tensor("x", "float32", (1,), floats(0))])
    with pytest.raises(MemoryError):
        operations.infer(loaded(allocating(10**14)), (), (blob,), LIMITS)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (b"", orders.NOT_ONNX),
        (b"hello world", orders.NOT_ONNX),
        (external("../secret.bin"), orders.EXTERNAL_DATA),
        (external("weights.bin"), orders.EXTERNAL_DATA),
        (external("/etc/passwd"), orders.EXTERNAL_DATA),
        (custom_operator(), orders.CUSTOM_OPERATOR),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(model: bytes, code: str) -> None:
    with pytest.raises(RunFailed) as caught:
        loaded(model)
    assert caught.value.complaint.code == code


def test_text_is_refused_on_both_sides() -> None:
    blob = encode_tensors([Tensor("x", "float32", (1,), floats(0))])
    for model, code in ((text_echo(), orders.UNFIT_MODEL), (text_output(), orders.BAD_OUTPUT)):
        with pytest.raises(RunFailed) as caught:
            operations.infer(loaded(model), (), (blob,), LIMITS)
        assert caught.value.complaint.code == code


def test_evaluate_in_batches_equals_the_direct_computation() -> None:
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(600, 3)).round(4)
    labels = (rng.random(600) < 0.5).astype(np.int64)
    keep = matrix[:, 0] > -1
    predicted = (matrix.astype(np.float32).sum(axis=1) > 0.25).astype(np.int64)
    expected = [[int(((labels == a) & (predicted == p) & keep).sum()) for p in (0, 1)] for a in (0, 1)]
    spec = Rows("", "label", (), (Condition("f0", "gt", -1_000_000),))
    model = loaded(threshold(3, 0.25))
    outcome = operations.evaluate(model, spec, io.StringIO(csv_of(matrix, labels)), LIMITS)
    assert numbers(outcome.output) == {"counts": expected, "rows": [int(keep.sum())]}
    assert (outcome.rows, outcome.batch) == (int(keep.sum()), LIMITS.evaluate_batch_rows)


def test_evaluate_without_a_matching_row_counts_zeros() -> None:
    spec = Rows("", "label", (), (Condition("f0", "gt", 10**9),))
    text = csv_of(np.zeros((3, 2)), np.zeros(3, np.int64))
    outcome = operations.evaluate(loaded(threshold(2, 0.0)), spec, io.StringIO(text), LIMITS)
    assert numbers(outcome.output) == {"counts": [[0, 0], [0, 0]], "rows": [0]}


def test_more_classes_give_a_larger_square() -> None:
    text = csv_of(np.zeros((3, 2)), np.array([0, 2, 2]))
    outcome = operations.evaluate(loaded(threshold(2, 1.0)), Rows("", "label"), io.StringIO(text), LIMITS)
    assert numbers(outcome.output)["counts"] == [[1, 0, 0], [0, 0, 0], [2, 0, 0]]


def test_evaluate_withholds_what_the_runtime_says_about_a_row() -> None:
    text = csv_of(np.array([[77.0]]), np.array([0]))
    with pytest.raises(RunFailed) as caught:
        operations.evaluate(loaded(lookup()), Rows("", "label"), io.StringIO(text), LIMITS)
    assert caught.value.complaint.code == orders.RUN_FAILED
    assert "77" not in str(caught.value)


def test_evaluate_names_a_wrong_number_of_features() -> None:
    text = csv_of(np.zeros((2, 2)), np.zeros(2, np.int64))
    with pytest.raises(RunFailed, match=r"expected shape \[any, 5\], the rows have 2 features"):
        operations.evaluate(loaded(threshold(5, 0.0)), Rows("", "label"), io.StringIO(text), LIMITS)


def test_evaluate_needs_a_label_output() -> None:
    text = csv_of(np.zeros((2, 3)), np.zeros(2, np.int64))
    with pytest.raises(RunFailed, match="output 'label'"):
        operations.evaluate(loaded(doubling()), Rows("", "label"), io.StringIO(text), LIMITS)


def test_statistics_are_means_and_nothing_else_and_the_rows_are_counted_beside_them() -> None:
    text = csv_of(np.array([[1.0, 10.0], [2.0, 20.0], [9.0, 90.0]]), np.array([0, 1, 1]))
    spec = Rows("", "label", (), (Condition("f0", "lt", 5_000_000),))
    outcome = operations.statistics(spec, io.StringIO(text), LIMITS)
    assert (numbers(outcome.output), outcome.rows) == ({"mean": [1.5, 15.0]}, 2)
    with pytest.raises(RunFailed, match="no row meets"):
        operations.statistics(replace(spec, where=(Condition("f0", "lt", 0),)), io.StringIO(text), LIMITS)


def test_a_cohort_says_which_rows_and_how_many() -> None:
    text = csv_of(np.array([[1.0], [2.0], [3.0]]), np.array([0, 1, 1]))
    outcome = operations.cohort(Rows("", "", (), (Condition("f0", "ge", 2_000_000),)), io.StringIO(text), LIMITS)
    assert (numbers(outcome.output), outcome.rows) == ({"mask": [0, 1, 1], "rows": [2]}, 2)
