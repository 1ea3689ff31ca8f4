"""The CoreML runtime: `.mlpackage` folders, natively on macOS, elsewhere by the reference interpreter.

Rule: the package's own list says which file is the model, and both have to be files of the manifest; what points
outside is refused. The protobuf is parsed behind the walls of a worker. On Linux only the protobuf classes of
coremltools are imported: the whole of it takes 3 s and 380 MB, and is no part of running a model.
Runs only inside a worker. Native prediction is written and not tested: no Mac was at hand.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.base import Files, Model
from dimnode.exec.runtimes.declared import FAULTS, fault_of
from dimnode.exec.runtimes.devices import Device
from dimnode.exec.runtimes.mil import Program
from dimnode.posix.system import MACOS

FORMAT: Final = "coreml"
PACKAGE: Final = "coremltools"
EXTRA: Final = "coreml"
FORKS: Final = not MACOS
DEVICE: Final = Device()
NATIVE: Final = sys.platform == "darwin"
_WEIGHTS: Final = "weights/weight.bin"


@functools.cache
def version() -> str:
    """See `Runtime.version`. Kept, because behind the walls no file says it again."""
    found = importlib.util.find_spec(PACKAGE)
    return "" if found is None else metadata.version(PACKAGE)


def warm_up() -> None:
    """The classes of the format, and on macOS the bridge to the system's framework."""
    if NATIVE:
        importlib.import_module("coremltools")
    spec_class()


def settle() -> None:
    """The interpreter needs no thread."""


def traits() -> dict[str, str]:
    """Which of the two it is."""
    engine = "coreml" if NATIVE else "coreml-reference"
    how = "as the system compiles it" if NATIVE else "single-thread, operator by operator"
    return {"engine": engine, "accelerator": "cpu", "dtype": "float32", "quantisation": "none", "determinism": how}


def load(files: Files, facts: Facts) -> Model:
    """See `Runtime.load`."""
    if not version():
        raise RunFailed(orders.NO_RUNTIME, "coremltools is not installed", hint="pip install dimnode[coreml]")
    root, model = _root_model(files)
    spec = spec_class()()
    try:
        spec.ParseFromString(files[model].raw)
    except importlib.import_module("google.protobuf.message").DecodeError as error:
        raise RunFailed(orders.BAD_PACKAGE, f"{model} is no CoreML model ({type(error).__name__})") from None
    function = _main_of(spec)
    weights = files.get(str(PurePosixPath(model).parent / _WEIGHTS))
    try:
        program = Program(function, weights.raw if weights is not None else b"")
    except FAULTS as error:
        raise fault_of(error, orders.BAD_PACKAGE, "no .mlpackage that can be read") from None
    return _Native(files, root, program) if NATIVE else _Reference(program)


def spec_class() -> Any:
    """The class `Model` of the format, without the package around it."""
    if not NATIVE and PACKAGE not in sys.modules:
        found = importlib.util.find_spec(PACKAGE)
        assert found is not None
        sys.modules[PACKAGE] = importlib.util.module_from_spec(found)  # its own code is not run
    return importlib.import_module("coremltools.proto.Model_pb2").Model


def _root_model(files: Files) -> tuple[str, str]:
    """The package's folder within the manifest ("" or ending in /), and the path of its model."""
    lists = [path for path in files if path == "Manifest.json" or path.endswith(".mlpackage/Manifest.json")]
    if len(lists) != 1:
        raise _bad("the manifest lists no Manifest.json of a package")
    root = lists[0].removesuffix("Manifest.json")
    try:
        said = json.loads(bytes(files[lists[0]].raw))
        inside = said["itemInfoEntries"][said["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _bad("Manifest.json does not say which file is the model") from None
    parts = PurePosixPath(inside).parts if type(inside) is str else ()
    if not parts or inside.startswith("/") or ".." in parts or "\\" in inside:
        raise _bad("Manifest.json points out of the package")
    model = f"{root}Data/{PurePosixPath(inside)}"
    if model not in files:
        raise _bad(f"Manifest.json names {inside[:80]!r}, which the manifest does not list")
    return root, model


def _main_of(spec: Any) -> Any:
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        hint = "save it as an mlprogram (coremltools convert_to='mlprogram')"
        raise RunFailed(orders.NO_OPERATOR, f"a CoreML model of kind {kind!r} is not run here: {hint}")
    if "main" not in spec.mlProgram.functions:
        raise _bad("the program has no function main")
    for entry in spec.description.input:
        if entry.type.WhichOneof("Type") != "multiArrayType":
            raise RunFailed(orders.UNFIT_MODEL, f"model input {entry.name!r} is no multi-array; tensors travel here")
    return spec.mlProgram.functions["main"]


class _Reference(Model):
    """The interpreter over one program."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.inputs: tuple[Declared, ...] = program.inputs
        self.outputs: tuple[Declared, ...] = program.outputs

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `Model.run`."""
        try:
            return {name: _travelling(values) for name, values in self._program.run(arrays).items()}
        except FAULTS as error:
            raise fault_of(error, orders.RUN_FAILED, "the model failed") from None

    def traits(self) -> dict[str, str]:
        """The dtype that the program computes in."""
        return {"dtype": _widest(self.outputs)}


class _Native(Model):
    """The system's own framework. Written, not tested."""

    def __init__(self, files: Files, root: str, program: Program) -> None:
        folder = Path(os.getcwd()) / "model.mlpackage"  # the worker's own folder, the only one it may write to
        for path, file in files.items():
            if path.startswith(root):
                place = folder / path.removeprefix(root)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.raw)
        tools = importlib.import_module("coremltools")
        self._model = tools.models.MLModel(str(folder), compute_units=tools.ComputeUnit.CPU_ONLY)
        self.inputs: tuple[Declared, ...] = program.inputs
        self.outputs: tuple[Declared, ...] = program.outputs

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `Model.run`."""
        try:
            found = self._model.predict(dict(arrays))
        except FAULTS as error:
            raise fault_of(error, orders.RUN_FAILED, "the model failed") from None
        return {entry.name: _travelling(np.asarray(found[entry.name])) for entry in self.outputs}


def _travelling(values: Array) -> Array:
    """Truth values and 16-bit floats as the rest of the swarm compares them."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _widest(outputs: tuple[Declared, ...]) -> str:
    return "float16" if any(entry.dtype == "float16" for entry in outputs) else "float32"


def _bad(why: str) -> RunFailed:
    return RunFailed(orders.BAD_PACKAGE, f"no .mlpackage that can be read: {why}")
