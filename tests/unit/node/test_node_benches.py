"""Made-up inputs: from a manifest that may be anybody's."""

import pytest

from dimnode.errors import Refused
from dimnode.exec.orders import Facts
from dimnode.node.benches import made_up
from dimnode.records.tensors import decode_tensors


def test_free_sizes_are_filled_in_and_the_same_numbers_come_each_time():
    facts = Facts(inputs=(("x", "float32", (-1, -1, 3)), ("ids", "int64", (-1, 4))))
    blob = made_up(facts, 2, 16)
    assert {tensor.name: tensor.shape for tensor in decode_tensors(blob)} == {"x": (2, 16, 3), "ids": (2, 4)}
    assert blob == made_up(facts, 2, 16)


@pytest.mark.parametrize(
    "inputs",
    [
        (("x", "float32", (-1, 2**31 - 1, 2**31 - 1)),),
        tuple((f"x{number}", "float64", (-1, 2**20)) for number in range(64)),
        (("x", "float8", (-1, 3)),),
    ],
)
def test_a_manifest_makes_the_node_allocate_nothing_that_no_order_could_hold(inputs):
    with pytest.raises(Refused, match="E-exec-85"):
        made_up(Facts(inputs=inputs), 1, 16)
