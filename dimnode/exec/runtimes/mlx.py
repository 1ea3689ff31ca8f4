"""The MLX runtime: declared architectures over safetensors, also in 4 or 8 bits.

Rule: the same arithmetic as under torch, from the same files. mlx computes in a thread of its own and, unless told not
to, writes C++ at run time and loads what a compiler makes of it: the thread is started in `settle`, and
`MLX_DISABLE_COMPILE` is set for every worker. Runs only inside a worker.
Source: ml-explore.github.io/mlx; on Linux the CPU (tested), on macOS the GPU by Metal (written, not tested).
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.ops import T
from dimnode.exec.runtimes.base import Files, Model
from dimnode.exec.runtimes.declared import LibraryOps, load_declared
from dimnode.exec.runtimes.devices import Device
from dimnode.exec.runtimes.weights import Groups, Weights
from dimnode.exec.runtimes.weights_file import Stored
from dimnode.limits import LIMITS
from dimnode.posix.system import MACOS

FORMAT: Final = "mlx"
PACKAGE: Final = "mlx"
EXTRA: Final = "mlx"
FORKS: Final = not MACOS
DEVICE: Final = Device()
COMPUTES_IN: Final = ("float32", "float16", "bfloat16")
_NUMPY: Final = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "U32": np.uint32}


def version() -> str:
    """See `Runtime.version`."""
    os.environ["MLX_DISABLE_COMPILE"] = "1"
    try:
        import mlx.core
    except ImportError:
        return ""
    return str(mlx.core.__version__)


def warm_up() -> None:
    """Imports alone: the first evaluation starts a thread, and a zygote has none but its own."""
    import mlx.nn  # noqa: F401


def settle() -> None:
    """Start the thread that computes, with every kind of operation it will have to find."""
    import mlx.core as mx

    if sys.platform == "linux":
        mx.set_default_device(mx.cpu)
    mx.eval(mx.softmax(mx.ones((2, 2)) @ mx.ones((2, 2)), axis=-1))


def traits() -> dict[str, str]:
    """The GPU where Metal is."""
    return {
        "engine": "mlx",
        "accelerator": "cpu" if sys.platform == "linux" else "metal",
        "dtype": "float32",
        "quantisation": "none",
        "determinism": "single-thread, not compiled",
    }


def load(files: Files, facts: Facts) -> Model:
    """See `Runtime.load`."""
    if not version():
        raise RunFailed(orders.NO_RUNTIME, "mlx is not installed", hint="pip install dimnode[mlx]")
    return load_declared(files, facts, _make)


def _make(weights: Weights) -> tuple[LibraryOps, Mapping[str, str]]:
    if weights.dtype not in COMPUTES_IN:
        raise RunFailed(orders.NO_DTYPE, f"dtype {weights.dtype!r}: mlx computes in {', '.join(COMPUTES_IN)}")
    groups = weights.groups
    few_bits = f"{groups.bits}-bit-groups-{groups.size}" if groups is not None else "none"
    return MlxOps(weights, groups), {"dtype": weights.dtype, "quantisation": few_bits}


class MlxOps(LibraryOps):
    """Arithmetic in one dtype, with matrices in groups of few bits where the file has them so."""

    def __init__(self, weights: Weights, groups: Groups | None) -> None:
        import mlx.core as mx
        import mlx.nn as nn

        self._mx, self._nn, self._groups = mx, nn, groups
        self._dtype = getattr(mx, weights.dtype)
        self._weights: dict[str, Any] = {}
        for name, stored in weights.tensors.items():
            values = self._open(stored)
            self._weights[name] = values if stored.dtype == "U32" else values.astype(self._dtype)
        mx.eval(list(self._weights.values()))

    def _open(self, stored: Stored) -> Any:
        values = self._mx.array(np.frombuffer(stored.raw, _NUMPY[stored.dtype]).reshape(stored.shape))
        return values.view(self._mx.bfloat16) if stored.dtype == "BF16" else values

    # ---- in and out

    def constant(self, values: NDArray[Any]) -> T:
        """See `Ops.constant`."""
        return self._mx.array(np.ascontiguousarray(values))

    def evaluated(self, values: T) -> Array:
        """See `LibraryOps.evaluated`."""
        self._mx.eval(values)
        return np.array(values)

    # ---- weights

    def weight(self, name: str) -> T:
        """See `Ops.weight`."""
        return self._weights[name]

    def has(self, name: str) -> bool:
        """See `Ops.has`."""
        return name in self._weights

    def _triple(self, name: str) -> dict[str, Any]:
        assert self._groups is not None
        parts = {part: self._weights[f"{name}.{part}"] for part in ("scales", "biases")}
        return {**parts, "group_size": self._groups.size, "bits": self._groups.bits}

    def embedding(self, ids: T, name: str) -> T:
        """See `Ops.embedding`."""
        rows = self._weights[f"{name}.weight"][ids]
        if not self.has(f"{name}.scales"):
            return rows
        parts = self._triple(name)
        return self._mx.dequantize(rows, parts.pop("scales")[ids], parts.pop("biases")[ids], **parts)

    def linear(self, x: T, name: str) -> T:
        """See `Ops.linear`."""
        weight = self._weights[f"{name}.weight"]
        if self.has(f"{name}.scales"):
            found = self._mx.quantized_matmul(x, weight, transpose=True, **self._triple(name))
        else:
            found = x @ weight.T
        _bounded(found)
        return found + self._weights[f"{name}.bias"] if self.has(f"{name}.bias") else found

    def conv(self, x: T, name: str, stride: int, padding: int) -> T:
        """See `Ops.conv`. mlx wants channels last."""
        weight = self._weights[f"{name}.weight"]
        last = (0, *range(2, weight.ndim), 1)
        call = self._mx.conv1d if weight.ndim == 3 else self._mx.conv2d
        found = _bounded(call(x.transpose(last), weight.transpose(last), stride, padding))
        if self.has(f"{name}.bias"):
            found = found + self._weights[f"{name}.bias"]
        return found.transpose((0, weight.ndim - 1, *range(1, weight.ndim - 1)))

    # ---- arithmetic

    def max_pool2d(self, x: T, window: int, stride: int) -> T:
        """See `Ops.max_pool2d`."""
        return self._nn.MaxPool2d(window, stride)(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def layer_norm(self, x: T, name: str, epsilon: float) -> T:
        """See `Ops.layer_norm`."""
        return self._mx.fast.layer_norm(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"), epsilon)

    def rms_norm(self, x: T, name: str, epsilon: float) -> T:
        """See `Ops.rms_norm`."""
        return self._mx.fast.rms_norm(x, self._weights[f"{name}.weight"], epsilon)

    def activation(self, x: T, kind: str) -> T:
        """See `Ops.activation`."""
        if kind in ("tanh", "sigmoid"):
            return getattr(self._mx, kind)(x)
        return getattr(self._nn, kind)(x)

    def softmax(self, x: T) -> T:
        """See `Ops.softmax`."""
        return self._mx.softmax(x, axis=-1, precise=True)

    def matmul(self, a: T, b: T) -> T:
        """See `Ops.matmul`."""
        return _bounded(self._mx.matmul(a, b))

    def permute(self, x: T, order: Sequence[int]) -> T:
        """See `Ops.permute`."""
        return x.transpose(tuple(order))

    def reshape(self, x: T, shape: Sequence[int]) -> T:
        """See `Ops.reshape`."""
        return x.reshape(tuple(shape))

    def concat(self, parts: Sequence[T], axis: int) -> T:
        """See `Ops.concat`."""
        return self._mx.concatenate(list(parts), axis=axis)

    def take(self, x: T, places: Sequence[int], axis: int) -> T:
        """See `Ops.take`."""
        return self._mx.take(x, self._mx.array(list(places)), axis=axis)

    def mean(self, x: T, axes: Sequence[int]) -> T:
        """See `Ops.mean`."""
        return self._mx.mean(x, axis=tuple(axes))

    def sum(self, x: T, axes: Sequence[int], keep: bool) -> T:
        """See `Ops.sum`."""
        return self._mx.sum(x, axis=tuple(axes), keepdims=keep)

    def sqrt(self, x: T) -> T:
        """See `Ops.sqrt`."""
        return self._mx.sqrt(x)

    def at_least(self, x: T, least: float) -> T:
        """See `Ops.at_least`."""
        return self._mx.maximum(x, least)

    def argmax(self, x: T) -> T:
        """See `Ops.argmax`."""
        return self._mx.argmax(x, axis=-1).astype(self._mx.int64)

    def to_float(self, x: T) -> T:
        """See `Ops.to_float`."""
        return x.astype(self._mx.float32)

    def to_own(self, x: T) -> T:
        """See `Ops.to_own`."""
        return x.astype(self._dtype)

    def shape(self, x: T) -> tuple[int, ...]:
        """See `Ops.shape`."""
        return tuple(int(size) for size in x.shape)


def _bounded(found: T) -> T:
    """Refuse what no worker has room for while it is only a promise: mlx dies of an allocation that fails (0.32)."""
    if found.nbytes > LIMITS.exec.worker_memory_bytes_max:
        raise MemoryError(f"{found.nbytes} bytes for one result")
    return found
