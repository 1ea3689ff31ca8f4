"""A BERT sentence encoder from a HuggingFace directory as one ONNX file: tokens in, normalised embeddings out.

Rule: the graph is written from the architecture and the tensors of the safetensors file; nothing of the directory is
ever executed, and a directory that is anything else than described here is refused.

Source: Devlin et al. 2018 (BERT), Reimers and Gurevych 2019 (mean pooling); tensor names as transformers' BertModel.
Inputs `input_ids`, `attention_mask` int64[batch, tokens]; output `embedding` float32[batch, hidden], L2 norm 1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dimnode.errors import Refused

OPSET: Final = 20
"""The first one with Gelu; LayerNormalization came with 17."""
_LEAST_NORM: Final = 1e-12
_NOT_A_TOKEN: Final = -10_000.0
_SIZE_MAX: Final = 2**24


@dataclass(frozen=True, slots=True)
class BertShape:
    """What of config.json matters."""

    hidden: int
    heads: int
    layers: int
    positions: int
    epsilon: float

    @staticmethod
    def of(config: Mapping[str, Any]) -> "BertShape":
        """Raises `Refused` E-models-03 for another architecture; TypeError, ValueError, OverflowError for what are no
        sizes of it."""
        said = (config.get("model_type"), config.get("hidden_act"), config.get("position_embedding_type", "absolute"))
        if said != ("bert", "gelu", "absolute"):
            keys = ("model_type", "hidden_act", "position_embedding_type")
            found = ", ".join(f"{key} {value}" for key, value in zip(keys, said, strict=True))
            what = f"this is no BERT encoder that can be converted: {found}"
            raise Refused(
                "E-models-03", what, "it would be bert, gelu, absolute", "export it to ONNX where it was made"
            )
        shape = BertShape(
            hidden=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            layers=int(config["num_hidden_layers"]),
            positions=int(config["max_position_embeddings"]),
            epsilon=float(config["layer_norm_eps"]),
        )
        sizes = (shape.hidden, shape.heads, shape.layers, shape.positions)
        if not 1 <= min(sizes) <= max(sizes) <= _SIZE_MAX or shape.hidden % shape.heads:
            raise ValueError("the config's sizes do not fit each other")
        if not 0 <= shape.epsilon <= 1:
            raise ValueError("the config's layer_norm_eps is no small number")
        return shape


def bert_to_onnx(folder: Path, out: Path) -> BertShape:
    """Write `out` from `config.json` and `model.safetensors` of `folder`. Raises `Refused` naming what does not fit."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("config.json is no map")
        shape = BertShape.of(config)
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError, SafetensorError) as error:
        raise Refused(
            "E-models-05", f"{folder} is no BERT directory", str(error), "config.json and model.safetensors"
        ) from None
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    graph = _Graph({name.removeprefix(prefix): tensor.astype(np.float32) for name, tensor in tensors.items()}, shape)
    onnx.save(graph.model(), str(out))
    return shape


class _Graph:
    """Nodes and weights as they are added; every method returns the name of its result."""

    def __init__(self, weights: Mapping[str, np.ndarray], shape: BertShape) -> None:
        self._weights, self._shape = weights, shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        """The whole encoder, checked."""
        hidden = self._embeddings()
        mask = self._attention_mask()
        for layer in range(self._shape.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, mask)
        self._nodes.append(helper.make_node("Identity", [self._pooled(hidden)], ["embedding"]))
        ids = [
            helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"])
            for n in ("input_ids", "attention_mask")
        ]
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self._shape.hidden])
        graph = helper.make_graph(self._nodes, "bert", ids, [out], list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="dimnode")
        model.ir_version = 10
        onnx.checker.check_model(model)
        return model

    # ---- the parts

    def _embeddings(self) -> str:
        words = self._add("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        places = self._weight("embeddings.position_embeddings.weight")
        count = self._add("Shape", ["input_ids"], start=1, end=2)
        places = self._add("Slice", [places, self._ints([0]), count, self._ints([0])])
        kinds = self._tensor("embeddings.token_type_embeddings.weight")
        if kinds.ndim != 2 or not len(kinds):
            raise Refused("E-models-03", "the file's token_type_embeddings are no rows", "this is no BertModel")
        kind = self._constant("token_type", kinds[0])
        total = self._add("Add", [self._add("Add", [words, places]), kind])
        return self._norm("embeddings.LayerNorm", total)

    def _attention_mask(self) -> str:
        """0 for a token, a very small number for padding, as [batch, 1, 1, tokens]."""
        real = self._add("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        self._real = real
        padding = self._add("Mul", [self._add("Sub", [self._number(1.0), real]), self._number(_NOT_A_TOKEN)])
        return self._add("Unsqueeze", [padding, self._ints([1, 2])])

    def _layer(self, name: str, hidden: str, mask: str) -> str:
        attended = self._linear(
            f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", hidden, mask)
        )
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._add("Add", [attended, hidden]))
        inner = self._add("Gelu", [self._linear(f"{name}.intermediate.dense", hidden)])
        return self._norm(
            f"{name}.output.LayerNorm", self._add("Add", [self._linear(f"{name}.output.dense", inner), hidden])
        )

    def _attention(self, name: str, hidden: str, mask: str) -> str:
        query, key, value = (
            self._by_head(self._linear(f"{name}.{part}", hidden)) for part in ("query", "key", "value")
        )
        scale = self._number((self._shape.hidden // self._shape.heads) ** -0.5)
        scores = self._add("MatMul", [query, self._add("Transpose", [key], perm=[0, 1, 3, 2])])
        weights = self._add("Softmax", [self._add("Add", [self._add("Mul", [scores, scale]), mask])], axis=-1)
        mixed = self._add("Transpose", [self._add("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        return self._add("Reshape", [mixed, self._ints([0, 0, self._shape.hidden])])

    def _by_head(self, found: str) -> str:
        heads = self._ints([0, 0, self._shape.heads, self._shape.hidden // self._shape.heads])
        return self._add("Transpose", [self._add("Reshape", [found, heads])], perm=[0, 2, 1, 3])

    def _pooled(self, hidden: str) -> str:
        """The mean over tokens that are no padding, brought to length 1."""
        weight = self._add("Unsqueeze", [self._real, self._ints([2])])
        total = self._add("ReduceSum", [self._add("Mul", [hidden, weight]), self._ints([1])], keepdims=0)
        count = self._add("Max", [self._add("ReduceSum", [weight, self._ints([1])], keepdims=0), self._number(1e-9)])
        mean = self._add("Div", [total, count])
        length = self._add("ReduceL2", [mean, self._ints([1])], keepdims=1)
        return self._add("Div", [mean, self._add("Max", [length, self._number(_LEAST_NORM)])])

    def _linear(self, name: str, found: str) -> str:
        """x W^T + b."""
        weight = self._constant(f"{name}.weight.T", np.ascontiguousarray(self._tensor(f"{name}.weight").T))
        return self._add("Add", [self._add("MatMul", [found, weight]), self._weight(f"{name}.bias")])

    def _norm(self, name: str, found: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._add("LayerNormalization", [found, scale, shift], axis=-1, epsilon=self._shape.epsilon)

    # ---- nodes and constants

    def _add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._tensor(name))

    def _tensor(self, name: str) -> np.ndarray:
        if name not in self._weights:
            raise Refused("E-models-03", f"the file has no tensor {name}", "this is no BertModel")
        return self._weights[name]

    def _constant(self, name: str, value: np.ndarray) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def _number(self, value: float) -> str:
        return self._constant(f"number {value!r}", np.array(value, dtype=np.float32))

    def _ints(self, values: list[int]) -> str:
        return self._constant(f"ints {values}", np.array(values, dtype=np.int64))
