"""A declared architecture as a CoreML package: for Macs to run, and for others to check.

Rule: what is converted is the arithmetic of `exec.runtimes.architectures` over the checked weights, traced once;
nothing of the model's own directory is executed. The length is fixed, as CoreML's own engines want it.
Source: apple.github.io/coremltools 9.0, `convert` to an mlprogram (iOS 16).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from dimnode.errors import Refused
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.choice import architecture_of
from dimnode.exec.runtimes.architectures.ops import Architecture, T
from dimnode.exec.runtimes.base import Files
from dimnode.exec.runtimes.torch import TorchOps
from dimnode.exec.runtimes.weights import Weights, weights_of

PRECISIONS: Final = ("float32", "float16")
_INT32: Final = "int64"  # what CoreML has not, it takes as int32


def to_mlpackage(files: Files, facts: Facts, shapes: Mapping[str, Sequence[int]], out: Path, precision: str) -> None:
    """Write `out` (a folder *.mlpackage). `shapes` fixes each input. Raises `RunFailed`, `Refused`."""
    try:
        import coremltools
        import torch
    except ImportError as error:
        what, hint = "converting to CoreML needs torch and coremltools", "pip install 'dimnode[torch,coreml]'"
        raise Refused("E-models-50", what, str(error), hint) from None
    if precision not in PRECISIONS:
        raise Refused("E-models-51", f"precision {precision!r}", "", f"one of {', '.join(PRECISIONS)}")
    architecture, config = architecture_of(files, facts)
    module = _module(architecture, weights_of(files, architecture, config, "float32"))
    kinds = {entry.name: np.int32 if entry.dtype == _INT32 else np.float32 for entry in architecture.inputs}
    examples = tuple(torch.from_numpy(np.ones(shapes[name], kind)) for name, kind in kinds.items())
    with torch.no_grad():
        traced = torch.jit.trace(module, examples)
    converted = coremltools.convert(
        traced,
        convert_to="mlprogram",
        compute_precision=getattr(coremltools.precision, precision.upper()),
        minimum_deployment_target=coremltools.target.iOS16,
        inputs=[coremltools.TensorType(name=n, shape=tuple(shapes[n]), dtype=kind) for n, kind in kinds.items()],
        outputs=[coremltools.TensorType(name=entry.name) for entry in architecture.outputs],
    )
    converted.save(str(out))


class _FixedOps(TorchOps):
    """Sizes as plain numbers: a tracer would write every look at a shape into the graph."""

    def shape(self, x: T) -> tuple[int, ...]:
        """See `Ops.shape`."""
        return tuple(x.detach().numpy().shape)

    def layer_norm(self, x: T, name: str, epsilon: float) -> T:
        """See `Ops.layer_norm`."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self._f.layer_norm(x, self.shape(weight), weight, bias, epsilon)


def _module(architecture: Architecture, weights: Weights) -> Any:
    import torch

    ops = _FixedOps(weights)
    names = [entry.name for entry in architecture.inputs]

    class Whole(torch.nn.Module):  # type: ignore[misc]
        """Positional inputs to positional outputs, as a tracer wants them."""

        def forward(self, *values: T) -> Any:
            found = architecture.forward(ops, dict(zip(names, values, strict=True)))
            given = tuple(found[entry.name] for entry in architecture.outputs)
            return given if len(given) > 1 else given[0]

    return Whole().eval()
