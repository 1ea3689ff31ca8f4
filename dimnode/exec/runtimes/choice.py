"""Which runtimes there are, which of them this installation has, and one by its name.

Rule: asking what is installed imports nothing: the node that asks must not become as large as its workers, and the
command line that asks must not wait for NumPy.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from dimnode.exec.runtimes.base import Runtime

PACKAGES: Final = {"onnx": "onnxruntime", "torch": "torch", "mlx": "mlx", "coreml": "coremltools"}
"""The package that each format needs."""
ALWAYS: Final = "onnx"
"""The runtime whose zygote is always there: operations over rows need no model, and are done by it."""


def installed() -> tuple[str, ...]:
    """The formats whose package can be found here."""
    return tuple(name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None)


def runtime_of(name: str) -> "Runtime":
    """The module of a format. Raises KeyError for a word that is none."""
    _ = PACKAGES[name]
    return cast("Runtime", importlib.import_module(f"dimnode.exec.runtimes.{name}"))
