"""The operators of CoreML's model language that the reference interpreter knows, in NumPy.

Rule: clear before quick. Every operator computes floats in float32 and is rounded to the dtype that the program states
for its result; an operator that is not in this file does not run, and says so by its name.
Source: apple.github.io/coremltools, MIL operators of iOS 15 to 18.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dimnode.exec.mapping import Array

Arguments = Mapping[str, Any]
"""Arrays, strings, or a list of arrays for `values`."""


def whole_numbers(arguments: Arguments, name: str, otherwise: list[int]) -> list[int]:
    """A list of integers that the program gives, or what it means to leave it out."""
    found = arguments.get(name)
    return otherwise if found is None else [int(item) for item in np.asarray(found).reshape(-1)]


def flag(arguments: Arguments, name: str, otherwise: bool = False) -> bool:
    """A truth value."""
    found = arguments.get(name)
    return otherwise if found is None else bool(np.asarray(found).reshape(-1)[0])


def _epsilon(arguments: Arguments, otherwise: float) -> np.float32:
    """What keeps a root or a quotient finite, as the program says or as it means to leave it out."""
    return np.float32(arguments.get("epsilon", otherwise))


def _axes(arguments: Arguments) -> tuple[int, ...]:
    return tuple(whole_numbers(arguments, "axes", list(range(arguments["x"].ndim))))


def _reduce(call: Callable[..., Array]) -> Callable[[Arguments], Array]:
    return lambda a: call(a["x"], axis=_axes(a), keepdims=flag(a, "keep_dims"))


def _gelu(a: Arguments) -> Array:
    x, mode = a["x"], a.get("mode", "EXACT")
    if mode == "EXACT":
        turned = (x.astype(np.float64) / math.sqrt(2.0)).reshape(-1).tolist()
        curve = np.fromiter(map(math.erf, turned), np.float64, x.size).reshape(x.shape)
        return np.asarray(x * (1.0 + curve) / 2.0)
    if mode == "SIGMOID_APPROXIMATION":
        return np.asarray(x * _sigmoid(1.702 * x))
    return np.asarray(x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))) / 2.0)


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.where(x >= 0, 1.0, np.exp(np.minimum(x, 0))) / (1.0 + np.exp(-np.abs(x))))


def _softmax(a: Arguments) -> Array:
    axis = whole_numbers(a, "axis", [-1])[0]
    raised = np.exp(a["x"] - a["x"].max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


def _layer_norm(a: Arguments) -> Array:
    x, axes = a["x"], _axes(a)
    centred = x - x.mean(axis=axes, keepdims=True)
    spread = np.mean(centred * centred, axis=axes, keepdims=True)
    found = centred / np.sqrt(spread + _epsilon(a, 1e-5))
    found = found * a["gamma"] if a.get("gamma") is not None else found
    return np.asarray(found + a["beta"] if a.get("beta") is not None else found)


def _batch_norm(a: Arguments) -> Array:
    shape = (1, -1) + (1,) * (a["x"].ndim - 2)
    scale = 1.0 / np.sqrt(a["variance"] + _epsilon(a, 1e-5))
    scale = scale * a["gamma"] if a.get("gamma") is not None else scale
    shift = (a["beta"] if a.get("beta") is not None else 0.0) - a["mean"] * scale
    return np.asarray(a["x"] * scale.reshape(shape) + shift.reshape(shape))


def _linear(a: Arguments) -> Array:
    found = a["x"] @ np.swapaxes(a["weight"], -1, -2)
    return np.asarray(found + a["bias"] if a.get("bias") is not None else found)


def _matmul(a: Arguments) -> Array:
    x = np.swapaxes(a["x"], -1, -2) if flag(a, "transpose_x") else a["x"]
    y = np.swapaxes(a["y"], -1, -2) if flag(a, "transpose_y") else a["y"]
    return np.asarray(x @ y)


def _gather(a: Arguments) -> Array:
    if any(whole_numbers(a, "batch_dims", [0])):
        raise NotImplementedError("gather with batch_dims")
    x, axis = a["x"], whole_numbers(a, "axis", [0])[0]
    size, places = x.shape[axis], np.asarray(a["indices"]).astype(np.int64)
    if places.size and (places.min() < -size or places.max() >= size):
        raise IndexError(f"index outside an axis of {size}")
    return np.take(x, places, axis=axis)


def _slice(a: Arguments) -> Array:
    x = a["x"]
    begin, end = whole_numbers(a, "begin", [0] * x.ndim), whole_numbers(a, "end", list(x.shape))
    steps = whole_numbers(a, "stride", [1] * x.ndim)
    masks = [whole_numbers(a, name, [0] * x.ndim) for name in ("begin_mask", "end_mask", "squeeze_mask")]
    places: list[Any] = []
    for axis in range(x.ndim):
        if masks[2][axis]:
            places.append(begin[axis])
        else:
            start = None if masks[0][axis] else begin[axis]
            places.append(slice(start, None if masks[1][axis] else end[axis], steps[axis]))
    return np.asarray(x[tuple(places)])


def _slice_by_size(a: Arguments) -> Array:
    begin, size = whole_numbers(a, "begin", []), whole_numbers(a, "size", [])
    ends = [None if count == -1 else start + count for start, count in zip(begin, size, strict=True)]
    return np.asarray(a["x"][tuple(slice(start, end) for start, end in zip(begin, ends, strict=True))])


def split(a: Arguments) -> list[Array]:
    """Several results: equal parts, or of the given sizes."""
    axis = whole_numbers(a, "axis", [0])[0]
    sizes = whole_numbers(a, "split_sizes", [])
    if not sizes:
        return list(np.split(a["x"], whole_numbers(a, "num_splits", [1])[0], axis))
    return list(np.split(a["x"], np.cumsum(sizes)[:-1], axis))


def _padding(a: Arguments, windows: list[int], strides: list[int], dilations: list[int]) -> list[tuple[int, int]]:
    """Before and after, for each place. Sources: "valid", "same", "custom"."""
    kind = a.get("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(windows)
    if kind == "custom":
        given = whole_numbers(a, "pad", [0, 0] * len(windows))
        return list(zip(given[::2], given[1::2], strict=True))
    found = []
    for size, window, stride, dilation in zip(a["x"].shape[2:], windows, strides, dilations, strict=True):
        missing = max(0, (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size)
        found.append(
            (missing // 2, missing - missing // 2) if kind == "same" else (missing - missing // 2, missing // 2)
        )
    return found


def _windows(x: Array, windows: list[int], strides: list[int], dilations: list[int]) -> Array:
    """[n, channels, *places, *window] as a view."""
    places = tuple(range(2, x.ndim))
    spans = tuple((window - 1) * dilation + 1 for window, dilation in zip(windows, dilations, strict=True))
    found = sliding_window_view(x, spans, axis=places)
    steps = (slice(None), slice(None), *(slice(None, None, stride) for stride in strides))
    return np.asarray(found[(*steps, *(slice(None, None, dilation) for dilation in dilations))])


def _conv(a: Arguments) -> Array:
    x, weight = a["x"], a["weight"]
    ones = [1] * (x.ndim - 2)
    strides, dilations = whole_numbers(a, "strides", ones), whole_numbers(a, "dilations", ones)
    groups, windows = whole_numbers(a, "groups", [1])[0], list(weight.shape[2:])
    around = _padding(a, windows, strides, dilations)
    x = np.pad(x, [(0, 0), (0, 0), *around])
    each = weight.shape[0] // groups
    parts = []
    for group in range(groups):
        inner = x[:, group * weight.shape[1] : (group + 1) * weight.shape[1]]
        seen = _windows(inner, windows, strides, dilations)
        count = len(windows)
        summed = [1, *range(2 + count, 2 + 2 * count)]
        kernel = weight[group * each : (group + 1) * each]
        found = np.tensordot(seen, kernel, axes=(summed, list(range(1, 2 + count))))
        parts.append(np.moveaxis(found, -1, 1))
    found = np.concatenate(parts, axis=1)
    return np.asarray(found + a["bias"].reshape((1, -1) + (1,) * count) if a.get("bias") is not None else found)


def _pool(a: Arguments, largest: bool) -> Array:
    windows = whole_numbers(a, "kernel_sizes", [])
    strides = whole_numbers(a, "strides", [1] * len(windows))
    if flag(a, "ceil_mode"):
        raise NotImplementedError("pooling with ceil_mode")
    around = _padding(a, windows, strides, [1] * len(windows))
    edge = [(0, 0), (0, 0), *around]
    x = np.pad(a["x"], edge, constant_values=-np.inf if largest else 0.0)
    seen = _windows(x, windows, strides, [1] * len(windows))
    axes = tuple(range(-len(windows), 0))
    if largest:
        return np.asarray(seen.max(axis=axes))
    if flag(a, "exclude_padding_from_average"):
        real = np.pad(np.ones_like(a["x"]), edge)
        return np.asarray(seen.sum(axis=axes) / _windows(real, windows, strides, [1] * len(windows)).sum(axis=axes))
    return np.asarray(seen.mean(axis=axes))


def _pad(a: Arguments) -> Array:
    given = whole_numbers(a, "pad", [])
    around = list(zip(given[::2], given[1::2], strict=True))
    around = [(0, 0)] * (a["x"].ndim - len(around)) + around
    match a.get("mode", "constant"):
        case "constant":
            return np.pad(a["x"], around, constant_values=float(a.get("constant_val", 0.0)))
        case "reflect":
            return np.pad(a["x"], around, mode="reflect")
        case mode:
            raise NotImplementedError(f"pad with mode {mode}")


def _reshape(a: Arguments) -> Array:
    wanted = whole_numbers(a, "shape", [])
    kept = [a["x"].shape[place] if size == 0 and a["x"].size else size for place, size in enumerate(wanted)]
    return np.asarray(a["x"].reshape(kept))


def _expand(a: Arguments) -> Array:
    return np.asarray(np.expand_dims(a["x"], tuple(whole_numbers(a, "axes", []))))


def _squeeze(a: Arguments) -> Array:
    axes = whole_numbers(a, "axes", [])
    return np.asarray(np.squeeze(a["x"], tuple(axes) if axes else None))


def _concat(a: Arguments) -> Array:
    if flag(a, "interleave"):
        raise NotImplementedError("concat with interleave")
    return np.concatenate([np.atleast_1d(part) for part in a["values"]], axis=whole_numbers(a, "axis", [0])[0])


def _dequantize(a: Arguments) -> Array:
    """Affine: (q - zero) * scale along one axis."""
    values, axis = a["quantized_data"], whole_numbers(a, "axis", [0])[0]
    shape = [1] * values.ndim
    shape[axis] = -1
    scale, zero = np.asarray(a["scale"]), np.asarray(a["zero_point"])
    scale = scale.reshape(shape) if scale.ndim else scale
    zero = zero.reshape(shape) if zero.ndim else zero
    return np.asarray((values.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32))


def _cumsum(a: Arguments) -> Array:
    if flag(a, "exclusive") or flag(a, "reverse"):
        raise NotImplementedError("cumsum that is exclusive or reversed")
    return np.asarray(np.cumsum(a["x"], axis=whole_numbers(a, "axis", [0])[0]))


def _arg(call: Callable[..., Any]) -> Callable[[Arguments], Array]:
    def found(a: Arguments) -> Array:
        axis = whole_numbers(a, "axis", [-1])[0]
        return np.asarray(call(a["x"], axis=axis, keepdims=flag(a, "keep_dims")))

    return found


def _unary(call: Callable[[Any], Any]) -> Callable[[Arguments], Array]:
    return lambda a: np.asarray(call(a["x"]))


def _binary(call: Callable[[Any, Any], Any]) -> Callable[[Arguments], Array]:
    return lambda a: np.asarray(call(a["x"], a["y"]))


OPERATORS: Final[Mapping[str, Callable[[Arguments], Array]]] = {
    **{
        name: _binary(getattr(np, call))
        for name, call in {
            "add": "add",
            "sub": "subtract",
            "mul": "multiply",
            "real_div": "divide",
            "floor_div": "floor_divide",
            "mod": "mod",
            "pow": "power",
            "maximum": "maximum",
            "minimum": "minimum",
            "equal": "equal",
            "not_equal": "not_equal",
            "greater": "greater",
            "greater_equal": "greater_equal",
            "less": "less",
            "less_equal": "less_equal",
            "logical_and": "logical_and",
            "logical_or": "logical_or",
        }.items()
    },
    **{
        name: _unary(getattr(np, name))
        for name in ("exp", "sqrt", "square", "abs", "tanh", "floor", "ceil", "sign", "sin", "cos", "logical_not")
    },
    "erf": lambda a: np.fromiter(map(math.erf, a["x"].reshape(-1).tolist()), np.float64, a["x"].size).reshape(
        a["x"].shape
    ),
    "log": lambda a: np.asarray(np.log(a["x"] + _epsilon(a, 1e-45))),
    "rsqrt": lambda a: np.asarray(1.0 / np.sqrt(a["x"] + _epsilon(a, 1e-12))),
    "inverse": lambda a: np.asarray(1.0 / (a["x"] + _epsilon(a, 1e-4))),
    "relu": lambda a: np.maximum(a["x"], 0),
    "relu6": lambda a: np.clip(a["x"], 0, 6),
    "leaky_relu": lambda a: np.where(a["x"] >= 0, a["x"], a["x"] * a["alpha"]),
    "sigmoid": lambda a: _sigmoid(a["x"]),
    "silu": lambda a: np.asarray(a["x"] * _sigmoid(a["x"])),
    "softplus": lambda a: np.logaddexp(a["x"], 0.0),
    "gelu": _gelu,
    "clip": lambda a: np.clip(a["x"], a["alpha"], a["beta"]),
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "linear": _linear,
    "matmul": _matmul,
    "conv": _conv,
    "max_pool": lambda a: _pool(a, True),
    "avg_pool": lambda a: _pool(a, False),
    "pad": _pad,
    "gather": _gather,
    "slice_by_index": _slice,
    "slice_by_size": _slice_by_size,
    "reshape": _reshape,
    "transpose": lambda a: np.transpose(a["x"], whole_numbers(a, "perm", [])),
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "concat": _concat,
    "stack": lambda a: np.stack(a["values"], axis=whole_numbers(a, "axis", [0])[0]),
    "tile": lambda a: np.tile(a["x"], whole_numbers(a, "reps", [])),
    "fill": lambda a: np.full(whole_numbers(a, "shape", []), a.get("value", np.float32(0))),
    "shape": lambda a: np.array(a["x"].shape, np.int32),
    "select": lambda a: np.asarray(np.where(np.asarray(a["cond"], bool), a["a"], a["b"])),
    "cumsum": _cumsum,
    "identity": lambda a: a["x"],
    "cast": lambda a: a["x"],  # the program states the dtype of every result
    "reduce_sum": _reduce(np.sum),
    "reduce_mean": _reduce(np.mean),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "reduce_l2_norm": lambda a: np.sqrt(np.sum(a["x"] ** 2, axis=_axes(a), keepdims=flag(a, "keep_dims"))),
    "reduce_sum_square": lambda a: np.sum(a["x"] ** 2, axis=_axes(a), keepdims=flag(a, "keep_dims")),
    "reduce_argmax": _arg(np.argmax),
    "reduce_argmin": _arg(np.argmin),
    "constexpr_affine_dequantize": _dequantize,
}
"""By name; `const` and `split` are the interpreter's own."""
