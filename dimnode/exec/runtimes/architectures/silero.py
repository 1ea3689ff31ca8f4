"""Silero VAD, 16 kHz: is somebody speaking in these 32 ms?

Rule: one window at a time with the state of the window before, as in the original.
Source: github.com/snakers4/silero-vad (MIT), `tinygrad_model.py`: a short-time Fourier transform as a convolution, four
convolutions, one LSTM cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.runtimes.architectures.ops import Architecture, Need, Ops, T

SAMPLES: Final = 576  # 64 of the window before, and 512
STATE: Final = 128
_BINS: Final = 129
_STEP: Final = 128
_MIRRORED: Final = 64
_CONVOLUTIONS: Final = {"conv1": (128, _BINS, 1), "conv2": (64, 128, 2), "conv3": (64, 64, 2), "conv4": (128, 64, 1)}


@dataclass(frozen=True, slots=True)
class Silero(Architecture):
    """Inputs `input` float32 [n, 576], `state` [2, n, 128]; outputs `output` [n, 1] from 0 to 1, `stateN`."""

    @property
    def inputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """As the original's ONNX file names them."""
        return (Declared("input", "float32", (None, SAMPLES)), Declared("state", "float32", (2, None, STATE)))

    @property
    def outputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """As the original's ONNX file names them."""
        return (Declared("output", "float32", (None, 1)), Declared("stateN", "float32", (2, None, STATE)))

    def needs(self) -> Mapping[str, Need]:
        """See `Architecture.needs`."""
        found = {"stft_conv.weight": Need((2 * _BINS, 1, 256))}
        for name, (out, into, _) in _CONVOLUTIONS.items():
            found[f"{name}.weight"], found[f"{name}.bias"] = Need((out, into, 3)), Need((out,))
        for part in ("ih", "hh"):
            found[f"lstm_cell.weight_{part}"] = Need((4 * STATE, STATE))
            found[f"lstm_cell.bias_{part}"] = Need((4 * STATE,))
        return found | {"final_conv.weight": Need((1, STATE, 1)), "final_conv.bias": Need((1,))}

    def check(self, arrays: Mapping[str, Array]) -> None:
        """See `Architecture.check`."""
        if not arrays["input"].size or arrays["state"].shape[1] != arrays["input"].shape[0]:
            raise RunFailed(orders.BAD_SHAPE, "state [2, n, 128] has to go with input [n, 576], n above 0")

    def forward(self, ops: Ops, inputs: Mapping[str, T]) -> dict[str, T]:
        """See `Architecture.forward`."""
        mirrored = [*range(SAMPLES), *range(SAMPLES - 2, SAMPLES - 2 - _MIRRORED, -1)]
        x = ops.take(ops.to_own(inputs["input"]), mirrored, 1)[:, None]
        x = ops.conv(x, "stft_conv", _STEP, 0)
        real, imaginary = x[:, :_BINS], x[:, _BINS:]
        x = ops.sqrt(real * real + imaginary * imaginary)
        for name, (_, _, stride) in _CONVOLUTIONS.items():
            x = ops.activation(ops.conv(x, name, stride, 1), "relu")
        state = ops.to_own(inputs["state"])
        hidden, cell = self._cell(ops, x[..., 0], state[0], state[1])
        said = ops.activation(ops.conv(ops.activation(hidden, "relu")[..., None], "final_conv", 1, 0), "sigmoid")
        after = ops.concat([hidden[None], cell[None]], 0)
        return {"output": ops.to_float(said[:, 0]), "stateN": ops.to_float(after)}

    def _cell(self, ops: Ops, x: T, hidden: T, cell: T) -> tuple[T, T]:
        """Gates in the order in, forget, new, out (Hochreiter and Schmidhuber 1997; PyTorch's LSTMCell)."""
        gates = ops.weight("lstm_cell.bias_ih") + ops.weight("lstm_cell.bias_hh")
        for part, values in (("ih", x), ("hh", hidden)):
            gates = gates + ops.matmul(values, ops.permute(ops.weight(f"lstm_cell.weight_{part}"), (1, 0)))
        into, forget, new, out = (gates[:, start : start + STATE] for start in range(0, 4 * STATE, STATE))
        kept = ops.activation(forget, "sigmoid") * cell
        cell = kept + ops.activation(into, "sigmoid") * ops.activation(new, "tanh")
        return ops.activation(out, "sigmoid") * ops.activation(cell, "tanh"), cell
