"""Answers over HTTP: classes by the names that the model's publisher signed, beside their numbers."""

import struct
from typing import Any

import pytest

from dimnode.api.http.values import add_names, output_map
from dimnode.records.tensors import Tensor, encode_tensors

CLASSES = ["benign", "malignant"]


def labels(*numbers: int, shape: tuple[int, ...] = (), name: str = "label") -> bytes:
    raw = struct.pack(f"<{len(numbers)}q", *numbers)
    return encode_tensors([Tensor(name, "int64", shape or (len(numbers),), raw)])


def named(blob: bytes, classes: list[str]) -> dict[str, Any]:
    found = output_map(blob)
    add_names([found], lambda: classes)
    return found


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_classes_are_named_beside_their_numbers(shape: tuple[int, ...]) -> None:
    found = named(labels(0, 1, 1, shape=shape), CLASSES)
    assert found["predicted"] == ["benign", "malignant", "malignant"]
    assert found["tensors"][0]["values"] == ([0, 1, 1] if len(shape) == 1 else [[0], [1], [1]])


@pytest.mark.parametrize(
    ("blob", "classes"),
    [
        (labels(0, 1), []),
        (labels(0, 2), CLASSES),
        (labels(0, -1), CLASSES),
        (labels(0, 1, 1, 0, shape=(2, 2)), CLASSES),
        (labels(0, 1, name="y"), CLASSES),
        (encode_tensors([Tensor("label", "float32", (1,), bytes(4))]), CLASSES),
        (encode_tensors([Tensor("label", "int64", (), bytes(8))]), CLASSES),
    ],
    ids=["no names", "beyond them", "below 0", "two in a row", "no label", "no whole numbers", "no rows"],
)
def test_what_has_no_name_for_each_number_gets_none(blob: bytes, classes: list[str]) -> None:
    assert "predicted" not in named(blob, classes)


def test_a_tensor_of_nothing_takes_no_more_room_than_its_lists_and_is_left_out_beyond() -> None:
    """Seventeen bytes of a stranger's answer could ask for two thousand million empty lists."""
    shapes = {(0,): [], (2, 0): [[], []], (0, 2**31 - 1, 2**31 - 1, 2**31 - 1): [], (1, 0, 2**31 - 1): [[]]}
    shapes |= {(2**31 - 1, 0): None, (2**31 - 1, 2**31 - 1, 0): None}
    for shape, values in shapes.items():
        (found,) = output_map(encode_tensors([Tensor("y", "float32", shape, b"")]))["tensors"]
        assert (found["shape"], found["values"]) == (list(shape), values)
