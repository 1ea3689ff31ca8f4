"""A model of a declared architecture over any library: what torch and mlx have in common.

Rule: numbers are looked at before a library sees them, and leave as float32 or int64 whatever the model computes in.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.choice import architecture_of
from dimnode.exec.runtimes.architectures.ops import Architecture, Ops, T
from dimnode.exec.runtimes.base import Files, Model
from dimnode.exec.runtimes.weights import Weights, weights_of

FAULTS: Final = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What libraries raise for a model that does not fit its own config or its input."""


class LibraryOps(Ops):
    """Ops that can take arrays in and give them out."""

    @abstractmethod
    def evaluated(self, values: T) -> Array:
        """The numbers themselves."""


class DeclaredModel(Model):
    """An architecture with its weights in a library."""

    def __init__(self, architecture: Architecture, ops: LibraryOps, traits: Mapping[str, str]) -> None:
        self._architecture, self._ops, self._traits = architecture, ops, dict(traits)
        self.inputs: tuple[Declared, ...] = architecture.inputs
        self.outputs: tuple[Declared, ...] = architecture.outputs

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `Model.run`."""
        self._architecture.check(arrays)
        try:
            inputs = {name: self._ops.constant(values) for name, values in arrays.items()}
            found = self._architecture.forward(self._ops, inputs)
            return {entry.name: self._ops.evaluated(found[entry.name]) for entry in self.outputs}
        except FAULTS as error:
            raise fault_of(error, orders.RUN_FAILED, "the model failed") from None

    def traits(self) -> dict[str, str]:
        """See `Model.traits`."""
        return self._traits


def load_declared(
    files: Files, facts: Facts, make: Callable[[Weights], tuple[LibraryOps, Mapping[str, str]]]
) -> DeclaredModel:
    """The model that config and weights describe. Raises `RunFailed` or MemoryError."""
    architecture, config = architecture_of(files, facts)
    weights = weights_of(files, architecture, config, facts.dtype)
    try:
        ops, traits = make(weights)
    except FAULTS as error:
        raise fault_of(error, orders.UNFIT_WEIGHTS, "the weights cannot be used") from None
    return DeclaredModel(architecture, ops, traits)


def fault_of(error: Exception, code: str, what: str) -> Exception:
    """`RunFailed` in the library's own words, or MemoryError."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    lowered = text.lower()
    if any(word in lowered for word in ("allocate memory", "unable to allocate", "out of memory", "bad_alloc")):
        return MemoryError(text)
    return RunFailed(code, f"{what}: {text}")
