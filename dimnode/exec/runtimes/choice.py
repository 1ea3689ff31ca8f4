"""Which runtimes there are, which of them this installation has, and one by its name.

Rule: asking what is installed imports nothing: the node that asks must not become as large as its workers, and the
command line that asks must not wait for NumPy.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from dimnode.exec.runtimes.base import Runtime

PACKAGES: Final = {
    "onnx": ("onnxruntime",),
    "torch": ("torch",),
    "mlx": ("mlx",),
    "coreml": ("coremltools",),
    "hf": ("torch", "transformers"),
}
"""The packages that each runtime needs, by the extra that brings them: one for each format, and `hf` for torch models
of an architecture of transformers: its imports take 160 MB and three seconds that other torch models need not pay."""
EXTRAS: Final = {"text": "tokenizers", "image": "PIL", "audio": "soundfile"}
"""The package of each extra that some words of `transforms/1` need."""
_EXTRA_OF: Final = {"tokenise": "text", "decode_image": "image", "resize": "image", "decode_audio": "audio"}
ALWAYS: Final = "onnx"
"""The runtime whose zygote is always there: operations over rows need no model, and are done by it."""


def installed() -> tuple[str, ...]:
    """The runtimes whose packages can be found here."""
    return tuple(name for name, needed in PACKAGES.items() if all(map(importlib.util.find_spec, needed)))


def extras_installed() -> tuple[str, ...]:
    """The extras whose package can be found here."""
    return tuple(name for name, package in EXTRAS.items() if importlib.util.find_spec(package) is not None)


def extras_of(pre: Sequence[Mapping[str, Any]], post: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The extras that a model's words before and after it need."""
    return frozenset(_EXTRA_OF[op["op"]] for op in (*pre, *post) if op["op"] in _EXTRA_OF)


def runtime_of(name: str) -> "Runtime":
    """The module of a runtime. Raises KeyError for a word that is none."""
    _ = PACKAGES[name]
    return cast("Runtime", importlib.import_module(f"dimnode.exec.runtimes.{name}"))
