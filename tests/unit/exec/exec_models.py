"""Tiny ONNX models for the tests of this room, made on the spot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from dimnode.exec.orders import Facts, ModelFile, ModelOrder
from dimnode.exec.runtimes import onnx
from dimnode.exec.runtimes.base import Model, one_file
from dimnode.records.ids import BLOB_PREFIX

FLOAT, INT64, BOOL, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
Value = tuple[str, int, list[Any]]


def loaded(model: bytes) -> Model:
    """In this process, without walls."""
    return onnx.load(one_file(model), Facts())


def model_order(name: str) -> ModelOrder:
    """A model that no test of the queue ever opens."""
    return ModelOrder(name, "onnx", (ModelFile("m.onnx", "model", "/m", BLOB_PREFIX + bytes(32)),))


def onnx_bytes(
    nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], weights: Sequence[Any] = ()
) -> bytes:
    """A model of opset 17 as bytes."""
    infos = [[helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "tiny", infos[0], infos[1], list(weights))
    domains = {node.domain for node in nodes if node.domain}
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def doubling(width: int = 3) -> bytes:
    """y = x + x, float32 [n, width]."""
    shape = ["n", width]
    return onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])], [("x", FLOAT, shape)], [("y", FLOAT, shape)])


def mixing(width: int) -> bytes:
    """y = x less the mean of its column, float32 [n, width]: a row's answer depends on the others."""
    axes = helper.make_tensor("axes", INT64, [1], [0])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    shape = ["n", width]
    return onnx_bytes(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], [axes])


def threshold(width: int, limit: float) -> bytes:
    """label = 1 where the sum of a row is above the limit, int64 [n]."""
    axes = helper.make_tensor("axes", INT64, [1], [1])
    bound = helper.make_tensor("bound", FLOAT, [], [limit])
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["label"], to=INT64),
    ]
    return onnx_bytes(nodes, [("x", FLOAT, ["n", width])], [("label", INT64, ["n"])], [axes, bound])


def lookup() -> bytes:
    """label = table[x]: fails, and says with which index, when x is no index of the table of four."""
    table = helper.make_tensor("table", INT64, [4], [0, 1, 0, 1])
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=INT64),
        helper.make_node("Gather", ["table", "index"], ["label"]),
    ]
    return onnx_bytes(nodes, [("x", FLOAT, ["n", 1])], [("label", INT64, ["n", 1])], [table])


def allocating(elements: int) -> bytes:
    """y = zeros(elements): a hundred bytes that ask for 4 * elements."""
    size = helper.make_tensor("size", INT64, [1], [elements])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["top"]),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    return onnx_bytes(nodes, [("x", FLOAT, ["n"])], [("y", FLOAT, [])], [size])


def flooding(elements: int) -> bytes:
    """y = zeros(elements), as an output."""
    size = helper.make_tensor("size", INT64, [1], [elements])
    node = helper.make_node("ConstantOfShape", ["size"], ["y"])
    return onnx_bytes([node], [("x", FLOAT, ["n"])], [("y", FLOAT, ["m"])], [size])


def spinning() -> bytes:
    """A loop of 2^60 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(*value) for value in (("i", INT64, []), ("go", BOOL, []), ("v", FLOAT, ["n"]))],
        [helper.make_tensor_value_info(*value) for value in (("on", BOOL, []), ("w", FLOAT, ["n"]))],
    )
    weights = [helper.make_tensor("rounds", INT64, [], [2**60]), helper.make_tensor("yes", BOOL, [], [True])]
    node = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)
    return onnx_bytes([node], [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])], weights)


def external(location: str) -> bytes:
    """y = x + w, where w lies in another file."""
    weight = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return onnx_bytes([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])], [weight])


def custom_operator() -> bytes:
    """A node of a domain nobody registered."""
    node = helper.make_node("Evil", ["x"], ["y"], domain="evil.ops")
    return onnx_bytes([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])])


def text_echo() -> bytes:
    """Text in, text out."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return onnx_bytes([node], [("x", TEXT, ["n"])], [("y", TEXT, ["n"])])


def text_output() -> bytes:
    """Numbers in, text out."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TEXT)
    return onnx_bytes([node], [("x", FLOAT, ["n"])], [("y", TEXT, ["n"])])


def floats(*values: float) -> bytes:
    """Little-endian float32."""
    return np.array(values, dtype="<f4").tobytes()
