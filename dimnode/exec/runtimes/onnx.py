"""The ONNX runtime: bytes to a session, arrays to arrays, its errors to ours.

Rule: one thread, the operator's choice of provider, no path. A model is loaded from bytes that were hashed first;
external data comes from the files that the manifest lists or from nowhere, and custom operators are never registered.
Runs only inside a worker.
Source: onnxruntime.ai/docs/api/python; telemetry: Privacy.md of the package (on by default since 1.29, see `silence`).
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.base import Files, Model, one_file
from dimnode.exec.runtimes.devices import Device, best, there_of

FORMAT: Final = "onnx"
PACKAGE: Final = "onnxruntime"
EXTRA: Final = "onnx"
FORKS: Final = True

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# y = x, float32 [n]: the smallest whole model (ONNX protobuf, IR 9, opset 17).
IDENTITY = bytes.fromhex(
    "08093a390a100a017812017922084964656e746974791201675a100a0178120b0a09080112050a0312016e62"
    "100a0179120b0a09080112050a0312016e42040a001011"
)
PROVIDERS: Final = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
ALLOCATION_FAILED = re.compile(r"allocate memory|bad_alloc|bad allocation|out of memory", re.IGNORECASE)


class Provider(Device):
    """One of onnxruntime's execution providers. CoreML only when asked for: it cuts graphs and computes in 16 bits."""

    def choose(self, asked: str) -> None:
        """See `Device.choose`."""
        import onnxruntime

        self.choose_from(asked, onnxruntime)

    def choose_from(self, asked: str, library: "HasProviders") -> None:
        """Of what this build of the library says it has."""
        self.word = best(asked, there_of(PROVIDERS, library.get_available_providers()), ("cuda", "cpu"))

    def open(self) -> None:
        """See `Device.open`."""
        if self.accelerated:
            self.try_out()

    def try_out(self) -> None:
        """The library takes the processor without a word when a provider does not start: that is a failure here."""
        model = load(one_file(IDENTITY), Facts())
        model.run({"x": np.zeros(1, dtype=np.float32)})
        if model.traits()["accelerator"] != self.word:
            raise RuntimeError(f"onnxruntime could not start its provider for {self.word}")


class HasProviders(Protocol):
    """As much of onnxruntime as a choice needs."""

    def get_available_providers(self) -> list[str]:
        """The best first."""


DEVICE: Final = Provider()


@dataclass(frozen=True, slots=True)
class OnnxModel(Model):
    """A session."""

    session: Any
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]

    def traits(self) -> dict[str, str]:
        """What the session really runs on."""
        return {"accelerator": there_of(PROVIDERS, self.session.get_providers()[:1])[0]}

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `Model.run`."""
        try:
            values = self.session.run(None, arrays)
        except _faults() as error:
            text = first_line(error)
            if isinstance(error, MemoryError) or ALLOCATION_FAILED.search(text):
                raise MemoryError(text) from None
            raise RunFailed(orders.RUN_FAILED, f"the model failed: {text}") from None
        return {entry.name: value for entry, value in zip(self.outputs, values, strict=True)}


def silence() -> None:
    """Before the first import: no telemetry to its maker and no thread of its own (a zygote must have one thread)."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def version() -> str:
    """The version of the installed runtime, or "" when it is not installed. Imports it."""
    silence()
    try:
        import onnxruntime
    except ImportError:
        return ""
    return str(onnxruntime.__version__)


def warm_up() -> None:
    """Load and run something, so that what the runtime sets up once is set up before the fork (6 ms per worker)."""
    load(one_file(IDENTITY), Facts()).run({"x": np.zeros(1, dtype=np.float32)})


def settle() -> None:
    """It needs no thread."""


def traits() -> dict[str, str]:
    """The chosen provider, in float32 unless the model says otherwise."""
    return {
        "engine": "onnxruntime",
        "accelerator": DEVICE.word,
        "dtype": "float32",
        "quantisation": "none",
        "determinism": "single-thread, optimised fully",
    }


def load(files: Files, facts: Facts) -> OnnxModel:
    """A session over the one `.onnx` file, with the files beside it as its external data."""
    try:
        import onnxruntime
    except ImportError:
        raise RunFailed(orders.NO_RUNTIME, "onnxruntime is not installed", hint="pip install dimnode[onnx]") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # It changes bits, so that it is always the same one.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    name, model = _graph_of(files)
    beside = {_beside(name, path): file.raw for path, file in files.items() if file.role == "weights" and path != name}
    try:
        if beside:
            sizes = [len(raw) for raw in beside.values()]
            options.add_external_initializers_from_files_in_memory(list(beside), list(beside.values()), sizes)
        # What a provider cannot do, the processor does.
        providers = list(dict.fromkeys((PROVIDERS[DEVICE.word], PROVIDERS["cpu"])))
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except _faults() as error:
        raise _load_fault(error) from None
    return OnnxModel(session, _declared(session.get_inputs()), _declared(session.get_outputs()))


def _graph_of(files: Files) -> tuple[str, bytes]:
    """The file with the graph: the one of role model. The runtime takes nothing but `bytes`, of less than 2 GiB."""
    found = [(path, file.raw) for path, file in files.items() if file.role == "model"]
    if len(found) != 1:
        raise RunFailed(orders.NOT_ONNX, f"an ONNX model has one file of role model, not {len(found)}")
    path, raw = found[0]
    return path, bytes(raw)


def _beside(graph: str, path: str) -> str:
    """A file's name as the graph would say it, which is relative to the graph's own folder."""
    folder = graph.rpartition("/")[0]
    return path.removeprefix(folder + "/") if folder else path


@functools.cache
def _faults() -> tuple[type[Exception], ...]:
    """What the runtime raises: a dozen classes of its own without a common base, and Python's from its glue."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    own = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
    python = (ValueError, TypeError, RuntimeError, MemoryError, OSError, LookupError)
    return (*(kind for kind in own if issubclass(kind, Exception)), *python)


def first_line(error: BaseException) -> str:
    """The runtime's own words, without its source paths."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text)
    return re.sub(r"/onnxruntime_src/\S+:\d+ ", "", text)


def _load_fault(error: Exception) -> Exception:
    text = first_line(error)
    if isinstance(error, MemoryError) or ALLOCATION_FAILED.search(text):
        return MemoryError(text)
    if re.search(r"external data|external initializer", text, re.IGNORECASE):
        return RunFailed(orders.EXTERNAL_DATA, "the model keeps weights in files that are not listed with it")
    if "not a registered function/op" in text:
        return RunFailed(orders.CUSTOM_OPERATOR, f"the model needs an operator that is not ONNX's own: {text}")
    return RunFailed(orders.NOT_ONNX, f"not a model onnxruntime can load: {text}")


def _declared(entries: Any) -> tuple[Declared, ...]:
    return tuple(
        Declared(
            entry.name,
            DTYPES.get(entry.type, ""),
            # The runtime reports [] for a scalar and for a shape that is not declared: then it checks itself.
            tuple(size if isinstance(size, int) else None for size in entry.shape) or None,
            entry.type,
        )
        for entry in entries
    )
