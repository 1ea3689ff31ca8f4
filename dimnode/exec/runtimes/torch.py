"""The PyTorch runtime: declared architectures over safetensors.

Rule: PyTorch is a calculator here. Nothing of it that loads, traces, compiles or pickles is called; weights come from
`weights.py` as bytes, the arithmetic from `architectures`. One thread; the operator's choice of device, the CPU unless
another was chosen. Runs only inside a worker.
Source: docs.pytorch.org/docs/2.13; quantisation of matrices: one scale per row (Jacob et al. 2018, symmetric).
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.ops import T
from dimnode.exec.runtimes.base import Files, Model
from dimnode.exec.runtimes.declared import LibraryOps, load_declared
from dimnode.exec.runtimes.devices import Device, best
from dimnode.exec.runtimes.weights import Weights
from dimnode.exec.runtimes.weights_file import Stored

FORMAT: Final = "torch"
PACKAGE: Final = "torch"
EXTRA: Final = "torch"
FORKS: Final = True
COMPUTES_IN: Final = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16", "int8": "float32"}
_STORED: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class TorchDevice(Device):
    """CUDA, Apple's MPS, or the processor."""

    def choose(self, asked: str) -> None:
        """See `Device.choose`. NVML is asked, not CUDA: a process that opened CUDA may not fork."""
        import torch

        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        self.choose_from(asked, torch.cuda, torch.backends.mps)

    def choose_from(self, asked: str, cuda: "Available", mps: "Available") -> None:
        """Of what the library says of each."""
        there = [word for word, kind in (("cuda", cuda), ("mps", mps)) if kind.is_available()]
        self.word = best(asked, (*there, "cpu"), ("cuda", "mps", "cpu"))

    def open(self) -> None:
        """See `Device.open`."""
        if self.accelerated:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it sums come in any order
            self.try_out()

    def try_out(self) -> None:
        """See `Device.try_out`."""
        import torch

        ones = torch.ones(2, 2, device=self.word)
        (ones @ ones).softmax(-1).sum().item()


class Available(Protocol):
    """As much of torch.cuda and torch.backends.mps as a choice needs."""

    def is_available(self) -> bool:
        """Whether there is such a device and the library was built for it."""


DEVICE: Final = TorchDevice()


def version() -> str:
    """See `Runtime.version`."""
    try:
        import torch
    except ImportError:
        return ""
    return str(torch.__version__)


def warm_up() -> None:
    """One thread, and the code of matrices and convolutions in memory."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    (torch.ones(2, 2) @ torch.ones(2, 2)).softmax(-1).sum().item()
    torch.nn.functional.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    torch.nn.functional.gelu(torch.ones(2).to(torch.bfloat16)).to(torch.float32).numpy()


def settle() -> None:
    """It needs no thread."""


def traits() -> dict[str, str]:
    """The chosen device; dtype and quantisation are the model's."""
    return {
        "engine": "torch",
        "accelerator": DEVICE.word,
        "dtype": "float32",
        "quantisation": "none",
        "determinism": "single-thread, eager, deterministic algorithms",
    }


def load(files: Files, facts: Facts) -> Model:
    """See `Runtime.load`."""
    if not version():
        raise RunFailed(orders.NO_RUNTIME, "torch is not installed", hint="pip install dimnode[torch]")
    return load_declared(files, facts, _make)


def _make(weights: Weights) -> tuple[LibraryOps, Mapping[str, str]]:
    if weights.groups is not None:
        raise RunFailed(orders.NO_DTYPE, "matrices in groups of few bits are mlx's; declare the model as format mlx")
    if weights.dtype not in COMPUTES_IN:
        raise RunFailed(orders.NO_DTYPE, f"dtype {weights.dtype!r}: torch computes in {', '.join(COMPUTES_IN)}")
    few_bits = "int8-rows" if weights.dtype == "int8" else "none"
    return TorchOps(weights), {"dtype": weights.dtype, "quantisation": few_bits}


def opened(torch: Any, stored: Stored) -> Any:
    """A tensor over the bytes where they lie."""
    dtype = getattr(torch, _STORED[stored.dtype])
    if not stored.raw:
        return torch.zeros(stored.shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the bytes are read-only is what we want
        return torch.frombuffer(stored.raw, dtype=dtype).reshape(stored.shape)


class TorchOps(LibraryOps):
    """Arithmetic in one dtype; matrices in int8 where asked for: rows with a scale each, widened for every product.

    Rounding the input to int8 too (`linear_dynamic`) was tried: MiniLM's cosine fell from 0.9993 to 0.947.
    """

    def __init__(self, weights: Weights) -> None:
        import torch

        self._torch, self._f = torch, torch.nn.functional
        self._dtype = getattr(torch, COMPUTES_IN[weights.dtype])
        self._weights: dict[str, Any] = {}
        self._rows: dict[str, tuple[Any, Any]] = {}
        for name, stored in weights.tensors.items():
            values, base = opened(torch, stored).to(DEVICE.word, self._dtype), name.removesuffix(".weight")
            if weights.dtype == "int8" and base != name and base in weights.matrices:
                self._rows[base] = in_int8(torch, values)
            else:
                self._weights[name] = values

    # ---- in and out

    def constant(self, values: NDArray[Any]) -> T:
        """See `Ops.constant`."""
        return self._torch.from_numpy(np.ascontiguousarray(values)).to(DEVICE.word)

    def evaluated(self, values: T) -> Array:
        """See `LibraryOps.evaluated`."""
        found: Array = values.contiguous().cpu().numpy()
        return found

    # ---- weights

    def weight(self, name: str) -> T:
        """See `Ops.weight`."""
        return self._weights[name]

    def has(self, name: str) -> bool:
        """See `Ops.has`."""
        return name in self._weights

    def embedding(self, ids: T, name: str) -> T:
        """See `Ops.embedding`."""
        if name in self._rows:
            whole, scales = self._rows[name]
            return whole[ids].to(self._dtype) * scales[ids]
        return self._f.embedding(ids, self._weights[f"{name}.weight"])

    def linear(self, x: T, name: str) -> T:
        """See `Ops.linear`."""
        if name in self._rows:
            whole, scales = self._rows[name]
            wide = self._f.linear(x, whole.to(self._dtype)) * scales[:, 0]
            return wide + self._weights[f"{name}.bias"] if self.has(f"{name}.bias") else wide
        return self._f.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def conv(self, x: T, name: str, stride: int, padding: int) -> T:
        """See `Ops.conv`."""
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        call = self._f.conv1d if weight.ndim == 3 else self._f.conv2d
        return call(x, weight, bias, stride, padding)

    # ---- arithmetic

    def max_pool2d(self, x: T, window: int, stride: int) -> T:
        """See `Ops.max_pool2d`."""
        return self._f.max_pool2d(x, window, stride)

    def layer_norm(self, x: T, name: str, epsilon: float) -> T:
        """See `Ops.layer_norm`."""
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        return self._f.layer_norm(x, weight.shape, weight, bias, epsilon)

    def rms_norm(self, x: T, name: str, epsilon: float) -> T:
        """See `Ops.rms_norm`."""
        wide = x.to(self._torch.float32)
        normed = wide * self._torch.rsqrt((wide * wide).mean(-1, keepdim=True) + epsilon)
        return self._weights[f"{name}.weight"] * normed.to(self._dtype)

    def activation(self, x: T, kind: str) -> T:
        """See `Ops.activation`."""
        if kind in ("tanh", "sigmoid"):
            return getattr(self._torch, kind)(x)
        return getattr(self._f, kind)(x)

    def softmax(self, x: T) -> T:
        """See `Ops.softmax`."""
        return self._torch.softmax(x, -1, dtype=self._torch.float32).to(x.dtype)

    def matmul(self, a: T, b: T) -> T:
        """See `Ops.matmul`."""
        return self._torch.matmul(a, b)

    def permute(self, x: T, order: Sequence[int]) -> T:
        """See `Ops.permute`."""
        return x.permute(tuple(order))

    def reshape(self, x: T, shape: Sequence[int]) -> T:
        """See `Ops.reshape`."""
        return x.reshape(tuple(shape))

    def concat(self, parts: Sequence[T], axis: int) -> T:
        """See `Ops.concat`."""
        return self._torch.cat(list(parts), axis)

    def take(self, x: T, places: Sequence[int], axis: int) -> T:
        """See `Ops.take`."""
        return self._torch.index_select(x, axis, self._torch.tensor(list(places), device=DEVICE.word))

    def mean(self, x: T, axes: Sequence[int]) -> T:
        """See `Ops.mean`."""
        return x.mean(tuple(axes))

    def sum(self, x: T, axes: Sequence[int], keep: bool) -> T:
        """See `Ops.sum`."""
        return x.sum(tuple(axes), keepdim=keep)

    def sqrt(self, x: T) -> T:
        """See `Ops.sqrt`."""
        return self._torch.sqrt(x)

    def at_least(self, x: T, least: float) -> T:
        """See `Ops.at_least`."""
        return self._torch.clamp(x, min=least)

    def argmax(self, x: T) -> T:
        """See `Ops.argmax`."""
        return x.argmax(-1)

    def to_float(self, x: T) -> T:
        """See `Ops.to_float`."""
        return x.to(self._torch.float32)

    def to_own(self, x: T) -> T:
        """See `Ops.to_own`."""
        return x.to(self._dtype)

    def shape(self, x: T) -> tuple[int, ...]:
        """See `Ops.shape`."""
        return tuple(int(size) for size in x.shape)


def in_int8(torch: Any, matrix: Any) -> tuple[Any, Any]:
    """Whole numbers from -127 to 127, and what each row has to be multiplied with: float [rows, 1]."""
    scales = (matrix.to(torch.float32).abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return torch.round(matrix.to(torch.float32) / scales).to(torch.int8), scales
