"""A model of more than 2 GB, from `dim models add` over a fetch to an answer, with nobody who has it in memory whole.

Takes minutes and 8 GB of disk: only with `DIM_TEST_LARGE=1`.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from tests.e2e.harness import LINK_SECONDS, RealNode, real_nodes, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("DIM_TEST_LARGE"), reason="moves gigabytes: set DIM_TEST_LARGE=1"),
]
ROWS, WIDTH = 550_000, 512  # of float32: 1.13 GB, and there are two such tables
TABLE_BYTES = ROWS * WIDTH * 4
LAST = 7.5
NODE_MORE_BYTES = 96 * 1024**2
"""What a node may take more than before."""


def large_model(folder: Path) -> Path:
    """Two tables in a file beside the graph, whose looked-up rows are added; all zeros but the last row of each."""
    folder.mkdir()
    tables = [TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[ROWS, WIDTH]) for name in ("first", "second")]
    for number, table in enumerate(tables):
        table.data_location = TensorProto.EXTERNAL
        said = {"location": "tables.onnx_data", "offset": str(number * TABLE_BYTES), "length": str(TABLE_BYTES)}
        for key, value in said.items():
            table.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["first", "x"], ["a"]),
            helper.make_node("Gather", ["second", "x"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        tables,
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with (folder / "tables.onnx_data").open("wb") as file:
        for number in (1, 2):
            file.truncate(number * TABLE_BYTES)
            file.seek(number * TABLE_BYTES - WIDTH * 4)
            file.write(np.full(WIDTH, LAST, np.float32).tobytes())
    return folder


def peak_bytes(node: RealNode) -> int:
    """The most memory that the node's own process ever had: Linux counts it."""
    lines = Path(f"/proc/{node.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_two_gigabytes_are_added_fetched_and_run_without_being_held(tmp_path: Path) -> None:
    source = large_model(tmp_path / "lookup")
    card = {
        "name": "lookup",
        "licence": "none",
        "inputs": [["x", "int64", [-1]]],
        "outputs": [["y", "float32", [-1, WIDTH]]],
    }
    index = np.array([0, ROWS - 1], np.int64)
    rows = encode_tensors([Tensor("x", "int64", index.shape, index.tobytes())])
    (tmp_path / "brio").mkdir(mode=0o700)
    (tmp_path / "brio" / "config.toml").write_text("fetch_model_gb_max = 4\n")
    with real_nodes(tmp_path, {"alba": True, "brio": True}) as nodes:
        before = {name: peak_bytes(nodes[name]) for name in ("alba", "brio")}
        model = nodes["alba"].client.ask("models.add", card=card, path=str(source))["model"]
        until(lambda: [row for row in nodes["brio"].client.models() if row["model"] == model], LINK_SECONDS, "heard")
        nodes["brio"].client.ask("models.pull", model=model)
        for name in ("alba", "brio"):
            job = {"tasks": [{"model": model, "peer": nodes[name].peer}], "deadline_seconds": 300}
            ended = nodes["brio"].client.run(job, [rows], timeout_seconds=300)
            assert ended.status == "ok", (ended.code, ended.reason)
            [found] = decode_tensors(ended.outputs[0])
            looked_up = np.frombuffer(found.raw, "<f4").reshape(2, WIDTH)
            assert not looked_up[0].any() and (looked_up[1] == 2 * LAST).all()
            assert peak_bytes(nodes[name]) < before[name] + NODE_MORE_BYTES
