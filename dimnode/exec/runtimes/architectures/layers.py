"""A declared chain of layers: the config lists them, the file has their weights.

Rule: a layer is a word of the vocabulary below with sizes; there is nothing else that a config can ask for.

    {"layers": [{"op": "linear", "name": "fc1", "in": 30, "out": 16}, {"op": "relu"},
                {"op": "linear", "name": "fc2", "in": 16, "out": 2, "as": "scores"},
                {"op": "softmax", "as": "probabilities"}, {"op": "argmax", "as": "label"}]}

`as` makes what a layer gives an output of the model; `argmax` leaves the chain as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.ops import Architecture, Need, Ops, T
from dimnode.exec.runtimes.config_file import Config, number, whole
from dimnode.limits import LIMITS

ACTIVATIONS: Final = ("relu", "gelu", "silu", "tanh", "sigmoid")
WITH_WEIGHTS: Final = ("linear", "conv1d", "conv2d", "layer_norm", "rms_norm")
WITHOUT: Final = (*ACTIVATIONS, "softmax", "flatten", "mean", "max_pool2d", "argmax")


@dataclass(frozen=True, slots=True)
class Layers(Architecture):
    """One input as the manifest declares it; the outputs that the chain names."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    chain: tuple[Mapping[str, Any], ...]

    @staticmethod
    def of(config: Config, facts: Facts) -> "Layers":
        """Raises `RunFailed` naming the layer that is not known."""
        chain = config.get("layers")
        if type(chain) is not list or not 0 < len(chain) <= LIMITS.exec.model_layers_max:
            raise RunFailed(orders.BAD_CONFIG, f"layers has to be a list of 1 to {LIMITS.exec.model_layers_max}")
        for place, layer in enumerate(chain):
            if type(layer) is not dict or layer.get("op") not in (*WITH_WEIGHTS, *WITHOUT):
                said = layer.get("op") if isinstance(layer, dict) else layer
                raise RunFailed(orders.NO_OPERATOR, f"layer {place}: {str(said)[:40]!r} is no layer that is known")
        names = [layer["as"] for layer in chain if "as" in layer]
        if not names or not all(type(name) is str for name in names) or len(set(names)) != len(names):
            raise RunFailed(orders.BAD_CONFIG, "the layers name no output, or two of one name")
        if len(facts.inputs) != 1 or facts.inputs[0][1] != "float32":
            raise RunFailed(orders.UNFIT_MODEL, "a chain of layers has one input, float32, that the manifest declares")
        kinds = {layer["as"]: "int64" if layer["op"] == "argmax" else "float32" for layer in chain if "as" in layer}
        given = (Declared(name, kind, None) for name, kind in kinds.items())
        name, dtype, shape = facts.inputs[0]
        sizes = tuple(None if size < 0 else size for size in shape)
        return Layers((Declared(name, dtype, sizes or None),), tuple(given), tuple(chain))

    def needs(self) -> Mapping[str, Need]:
        """See `Architecture.needs`."""
        found: dict[str, Need] = {}
        for layer in self.chain:
            if layer["op"] not in WITH_WEIGHTS:
                continue
            name = layer.get("name")
            if type(name) is not str or not 0 < len(name) <= 128:
                raise RunFailed(orders.BAD_CONFIG, f"a layer {layer['op']} has no name, so no weights")
            out = whole(layer, "out", 1_000_000)
            if layer["op"] in ("layer_norm", "rms_norm"):
                found[f"{name}.weight"] = Need((out,))
            else:
                axes = {"linear": 0, "conv1d": 1, "conv2d": 2}[layer["op"]]
                window = [whole(layer, "window", 1024)] * axes if axes else []
                shape = (out, whole(layer, "in", 1_000_000), *window)
                found[f"{name}.weight"] = Need(shape, "plain" if axes else "matrix")
            if layer["op"] != "rms_norm" and layer.get("bias", True) is True:
                found[f"{name}.bias"] = Need((out,))
        return found

    def check(self, arrays: Mapping[str, Array]) -> None:
        """See `Architecture.check`."""
        if not all(values.size for values in arrays.values()):
            raise RunFailed(orders.BAD_SHAPE, "the input is empty")

    def forward(self, ops: Ops, inputs: Mapping[str, T]) -> dict[str, T]:
        """See `Architecture.forward`."""
        x, outputs = ops.to_own(inputs[self.inputs[0].name]), {}
        for layer in self.chain:
            found = _apply(ops, layer, x)
            if "as" in layer:
                outputs[layer["as"]] = found if layer["op"] == "argmax" else ops.to_float(found)
            if layer["op"] != "argmax":
                x = found
        return outputs


def _apply(ops: Ops, layer: Mapping[str, Any], x: T) -> T:
    match layer["op"]:
        case "linear":
            return ops.linear(x, layer["name"])
        case "conv1d" | "conv2d":
            return ops.conv(x, layer["name"], whole(layer, "stride", 1024, 1), _padding(layer))
        case "layer_norm":
            return ops.layer_norm(x, layer["name"], number(layer, "epsilon", 0.0, 1.0))
        case "rms_norm":
            return ops.rms_norm(x, layer["name"], number(layer, "epsilon", 0.0, 1.0))
        case "softmax":
            return ops.softmax(x)
        case "flatten":
            return ops.reshape(x, (ops.shape(x)[0], -1))
        case "mean":
            return ops.mean(x, tuple(range(2, len(ops.shape(x)))))
        case "max_pool2d":
            window = whole(layer, "window", 1024)
            return ops.max_pool2d(x, window, whole(layer, "stride", 1024, window))
        case "argmax":
            return ops.argmax(x)
        case kind:
            return ops.activation(x, kind)


def _padding(layer: Mapping[str, Any]) -> int:
    found = layer.get("padding", 0)
    if type(found) is not int or not 0 <= found <= 1024:
        raise RunFailed(orders.BAD_CONFIG, "padding has to be a whole number from 0 to 1024")
    return found
