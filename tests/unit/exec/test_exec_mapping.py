"""From tensors/1 blobs to what a model declares."""

import numpy as np
import pytest

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Declared, feeds, pack
from dimnode.exec.orders import Take
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors


def blob(**arrays: np.ndarray) -> bytes:
    return encode_tensors([Tensor(name, str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()])


TWO_BY_FOUR = np.arange(8, dtype=np.float32).reshape(2, 4)
X = Declared("x", "float32", (None, 4))


def refusal(declared: list[Declared], take: tuple[Take, ...], *blobs: bytes) -> tuple[str, str]:
    with pytest.raises(RunFailed) as caught:
        feeds(declared, take, blobs)
    return caught.value.complaint.code, caught.value.complaint.what


def test_without_a_mapping_the_tensor_of_the_inputs_name_is_used() -> None:
    assert np.array_equal(feeds([X], (), (blob(x=TWO_BY_FOUR, y=TWO_BY_FOUR * 2),))["x"], TWO_BY_FOUR)


def test_the_only_tensor_serves_the_only_input_whatever_its_name() -> None:
    assert np.array_equal(feeds([X], (), (blob(other=TWO_BY_FOUR),))["x"], TWO_BY_FOUR)


def test_columns_are_taken_from_the_named_source() -> None:
    take = (Take("x", 1, "p", 1, 3),)
    found = feeds([Declared("x", "float32", (None, 2))], take, (blob(a=TWO_BY_FOUR), blob(p=TWO_BY_FOUR)))
    assert np.array_equal(found["x"], TWO_BY_FOUR[:, 1:3])
    assert found["x"].flags["C_CONTIGUOUS"]


def test_values_are_cast_to_the_declared_dtype() -> None:
    found = feeds([X], (), (blob(x=TWO_BY_FOUR.astype(np.float64)),))["x"]
    assert found.dtype == np.float32
    whole = feeds([Declared("x", "int64", (None, 4))], (), (blob(x=TWO_BY_FOUR),))["x"]
    assert whole.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0.5], np.float32), "int64"),
        (np.array([300], np.int64), "uint8"),
        (np.array([1e300], np.float64), "float32"),
        (np.array([2], np.int64), "bool"),
    ],
)
def test_a_cast_that_would_change_a_value_is_refused(values: np.ndarray, dtype: str) -> None:
    code, text = refusal([Declared("x", dtype, (None,))], (), blob(x=values))
    assert code == orders.BAD_DTYPE
    assert f"expected {dtype}, got {values.dtype}" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    assert refusal([Declared("x", "float32", (None,))], (), blob(x=np.array([1.0, bad], np.float32))) == (
        orders.NOT_FINITE,
        "input has NaN or infinity",
    )


def test_a_wrong_shape_names_both_shapes() -> None:
    code, text = refusal([Declared("x", "float32", (None, 30))], (), blob(x=TWO_BY_FOUR))
    assert code == orders.BAD_SHAPE
    assert text == "model input 'x': expected shape [any, 30], got [2, 4]"
    assert refusal([Declared("x", "float32", (2,))], (), blob(x=TWO_BY_FOUR))[0] == orders.BAD_SHAPE


def test_what_is_missing_is_named() -> None:
    one = blob(a=TWO_BY_FOUR, b=TWO_BY_FOUR)
    assert refusal([X], (), one) == (
        orders.NO_TENSOR,
        "model input 'x' has no tensor of its name; the input has a, b",
    )
    assert "no source 3" in refusal([X], (Take("x", 3, "a"),), one)[1]
    assert "has no 'c', but a, b" in refusal([X], (Take("x", 0, "c"),), one)[1]
    assert "columns [2, 9) of 'a', which has 4" in refusal([X], (Take("x", 0, "a", 2, 9),), one)[1]
    assert "the model has no input 'z'; it has x" in refusal([X], (Take("z", 0, "a"),), one)[1]
    two = [X, Declared("y", "float32", (None, 4))]
    assert refusal(two, (Take("x", 0, "a"),), one)[1] == "model input 'y' is not mapped to any tensor"


def test_an_input_mapped_twice_is_refused() -> None:
    take = (Take("x", 0, "a"), Take("x", 0, "a"))
    assert refusal([X], take, blob(a=TWO_BY_FOUR))[0] == orders.BAD_ORDER


def test_bytes_that_are_no_blob_are_refused() -> None:
    assert refusal([X], (), b"\x91\x01") == (orders.BAD_INPUT, "input 0 is not a tensors/1 blob (tensors: row)")


def test_an_input_of_text_is_no_tensor() -> None:
    code, text = refusal([Declared("x", "", None, "tensor(string)")], (), blob(x=TWO_BY_FOUR))
    assert code == orders.UNFIT_MODEL
    assert "tensor(string)" in text


def test_outputs_come_back_as_the_same_numbers() -> None:
    back = decode_tensors(pack({"y": TWO_BY_FOUR.T, "label": np.array([3], np.int64)}))
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in back] == [
        ("label", "int64", (1,)),
        ("y", "float32", (4, 2)),
    ]
    assert back[1].raw == np.ascontiguousarray(TWO_BY_FOUR.T).tobytes()


@pytest.mark.parametrize("output", [np.array(["a"], dtype=object), [{0: 1.0}], np.array([1], np.uint64)])
def test_outputs_that_are_no_tensor_fail_the_run(output: object) -> None:
    with pytest.raises(RunFailed, match="'y' is"):
        pack({"y": output})


@pytest.mark.parametrize("view", [bytes, memoryview])
def test_a_tensor_of_nothing_in_a_shape_beyond_every_machine_is_a_bad_input(view) -> None:
    """tensors/1 lets it pass, and NumPy holds no such array."""
    blob = encode_tensors([Tensor("x", "float32", (0, 2**31 - 1, 2**31 - 1), b"")])
    with pytest.raises(RunFailed, match="'x'") as caught:
        feeds([Declared("x", "float32", None)], (), [view(blob)])
    assert caught.value.complaint.code == orders.BAD_SHAPE
