"""One small model in every format, and models of every format that misbehave, made on the spot."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from exec_models import FLOAT, onnx_bytes
from onnx import helper, numpy_helper
from safetensors.numpy import save

from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.coreml import spec_class

FORMATS = ("onnx", "torch", "mlx", "coreml")
RNG = np.random.default_rng(5)
FC1, B1 = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
FC2, B2 = RNG.normal(size=(2, 4)).astype(np.float32), RNG.normal(size=2).astype(np.float32)
CHAIN = [
    {"op": "linear", "name": "fc1", "in": 3, "out": 4},
    {"op": "tanh"},
    {"op": "linear", "name": "fc2", "in": 4, "out": 2},
    {"op": "softmax", "as": "y"},
]
X_OF_3 = (("x", "float32", (-1, 3)),)
Weights = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SMALL: Weights = FC1, B1, FC2, B2


def of_width(width: int) -> Weights:
    """Weights of the same model with as many numbers in between: sums whose order would be seen in their bits."""
    rng = np.random.default_rng(width)
    shapes = ((width, 3), (width,), (2, width), (2,))
    one, two, three, four = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return one, two, three, four


def direct(x: np.ndarray, weights: Weights = SMALL) -> np.ndarray:
    """What the small model computes: softmax(tanh(x W1^T + b1) W2^T + b2), in float64."""
    fc1, b1, fc2, b2 = weights
    hidden = np.tanh(x.astype(np.float64) @ fc1.T + b1) @ fc2.T + b2
    raised = np.exp(hidden - hidden.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def onnx_mlp(weights: Weights = SMALL) -> bytes:
    """The small model as a graph."""
    fc1, b1, fc2, b2 = weights
    named = {"w1": fc1.T, "b1": b1, "w2": fc2.T, "b2": b2}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["d"]),
        helper.make_node("Add", ["d", "b2"], ["e"]),
        helper.make_node("Softmax", ["e"], ["y"], axis=-1),
    ]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in named.items()]
    return onnx_bytes(nodes, [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 2])], tensors)


def mlp_weights(dtype: str = "float32", weights: Weights = SMALL) -> bytes:
    """Its weights as a file."""
    named = dict(zip(("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"), weights, strict=True))
    return save({name: np.ascontiguousarray(values.astype(dtype)) for name, values in named.items()})


def layers(
    chain: Sequence[Mapping[str, Any]] = CHAIN, weights: bytes | None = None, extra: Mapping[str, Any] | None = None
) -> Files:
    """A declared chain with its weights."""
    config = json.dumps({"layers": list(chain), **(extra or {})}).encode()
    stored = mlp_weights() if weights is None else weights
    return {"config.json": Content("config", config), "m.safetensors": Content("weights", stored)}


def mlp(form: str, weights: Weights = SMALL) -> tuple[Files, Facts]:
    """The small model in this format, or one as wide as these weights."""
    if form == "onnx":
        return {"m.onnx": Content("model", onnx_mlp(weights))}, Facts()
    width = len(weights[0])
    if form == "coreml":
        return mil_package(mlp_steps(width), weights), Facts()
    chain = [{**CHAIN[0], "out": width}, CHAIN[1], {**CHAIN[2], "in": width}, CHAIN[3]]
    return layers(chain, mlp_weights(weights=weights)), Facts("layers", inputs=X_OF_3)


# ---- CoreML packages, written field by field: a converter takes 3 s to import

FLOAT32, INT32 = 11, 23
WEIGHT_AT = "m.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
MODEL_AT = "m.mlpackage/Data/com.apple.CoreML/model.mlmodel"
LIST_AT = "m.mlpackage/Manifest.json"


def mlp_steps(width: int = 4) -> list[tuple[str, dict[str, Any], str, list[int]]]:
    """(operator, arguments, result, shape): an int is the number of a weight, a text a result before."""
    return [
        ("linear", {"x": "x", "weight": 0, "bias": 1}, "a", [-1, width]),
        ("tanh", {"x": "a"}, "b", [-1, width]),
        ("linear", {"x": "b", "weight": 2, "bias": 3}, "c", [-1, 2]),
        ("softmax", {"x": "c", "axis": np.array(-1, np.int32)}, "y", [-1, 2]),
    ]


def blob_of(weights: Sequence[np.ndarray]) -> tuple[bytes, list[int]]:
    """A file of weights as coremltools lays it out, and where each begins."""
    content, places = bytearray(64), []
    for values in weights:
        places.append(len(content))
        start = len(content) + 64
        content += struct.pack("<IIQQ", 0xDEADBEEF, 2, values.nbytes, start).ljust(64, b"\0")
        content += values.tobytes() + bytes(-values.nbytes % 64)
    return bytes(content), places


def mil_package(
    steps: Sequence[tuple[str, dict[str, Any], str, list[int]]],
    weights: Sequence[np.ndarray],
    model_path: str = "com.apple.CoreML/model.mlmodel",
    blob_name: str = "@model_path/weights/weight.bin",
    offset: int = 0,
) -> Files:
    """A package of one function `main`: x float32 [n, 3] to the last result."""
    blob, places = blob_of(weights)
    spec = spec_class()()
    spec.specificationVersion = 7
    feature = spec.description.input.add()
    feature.name, feature.type.multiArrayType.dataType = "x", 65568
    function = spec.mlProgram.functions["main"]
    function.opset = "CoreML6"
    entry = function.inputs.add()
    entry.name = "x"
    tensor_type(entry.type, FLOAT32, [-1, 3])
    block = function.block_specializations["CoreML6"]
    for operator, arguments, result, shape in steps:
        step = block.operations.add()
        step.type = operator
        for name, value in arguments.items():
            binding = step.inputs[name].arguments.add()
            if isinstance(value, str):
                binding.name = value
            elif isinstance(value, int):
                tensor_type(binding.value.type, FLOAT32, list(weights[value].shape))
                binding.value.blobFileValue.fileName = blob_name
                binding.value.blobFileValue.offset = places[value] + offset
            else:
                tensor_type(binding.value.type, INT32 if value.dtype == np.int32 else FLOAT32, list(value.shape))
                stored = binding.value.immediateValue.tensor
                numbers = stored.ints if value.dtype == np.int32 else stored.floats
                numbers.values.extend(value.reshape(-1).tolist())
        output = step.outputs.add()
        output.name = result
        tensor_type(output.type, FLOAT32, shape)
    block.outputs.append(steps[-1][2])
    listed = {"itemInfoEntries": {"A": {"path": model_path, "name": "m"}}, "rootModelIdentifier": "A"}
    return {
        LIST_AT: Content("config", json.dumps(listed).encode()),
        MODEL_AT: Content("model", spec.SerializeToString()),
        WEIGHT_AT: Content("weights", blob),
    }


def tensor_type(place: Any, dtype: int, shape: Sequence[int]) -> None:
    """A `ValueType` of a tensor; -1 is a free size."""
    place.tensorType.dataType, place.tensorType.rank = dtype, len(shape)
    for size in shape:
        dimension = place.tensorType.dimensions.add()
        if size < 0:
            dimension.unknown.variadic = False
        else:
            dimension.constant.size = size


# ---- misbehaviour


def safetensors_with(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(shape: Sequence[int], start: int = 0, dtype: str = "F32") -> dict[str, Any]:
    """A tensor in a header."""
    size = math.prod(shape) * 4
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
