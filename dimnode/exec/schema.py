"""What a model declares as its inputs and outputs, found out by a process that can do nothing else.

Rule: a model file may be hostile, so its bytes are parsed only behind the walls of a worker: no file, no network, no
process, bounded memory. Where those walls cannot be raised nothing is parsed, and the operator writes a card instead.

`schema_of` starts this module as a program: the model's files as open descriptors, one JSON document on stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dimnode.errors import DimError, Refused, RunFailed
from dimnode.exec.launch import KEPT_ENVIRONMENT, WORKER_ENVIRONMENT
from dimnode.exec.orders import NO_RUNTIME
from dimnode.limits import LIMITS
from dimnode.posix.sockets import poll

if TYPE_CHECKING:
    from dimnode.exec.runtimes.base import Model

_CARD_HINT = "write a card beside it with inputs and outputs (docs/operator.md, Models)"
_PROGRAM: Final = ("-P", "-m", "dimnode.exec.schema")
_MENDED_BY_A_CARD = ("E-cli-31", "E-models-06", NO_RUNTIME, "E-exec-60")

Rows = list[list[Any]]
File = tuple[str, str, Path]
"""A model's file: its path in the manifest, its role, where it lies."""


def schema_of(runtime: str, files: Sequence[File], facts: Mapping[str, Any] | None = None) -> tuple[Rows, Rows]:
    """Inputs and outputs as rows [name, dtype, shape] with -1 for a free size, from loading the model in this runtime.

    `facts` are what a card says already, as fields of `Facts`. Raises `RunFailed` or `Refused`.
    """
    place = next((place for _, role, place in files if role in ("model", "weights")), files[0][2])
    name = place.name
    kept = {word: os.environ[word] for word in KEPT_ENVIRONMENT if word in os.environ}
    try:
        with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            opened = []
            for path, role, place in files:
                opened.append((path, role, stack.enter_context(place.open("rb")).fileno()))
            order = json.dumps({"runtime": runtime, "files": opened, "facts": facts or {}, "folder": folder})
            process = subprocess.Popen(
                [sys.executable, *_PROGRAM, order],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[descriptor for _, _, descriptor in opened],
                env={**kept, **WORKER_ENVIRONMENT},
            )
            raw = _heard(process, name)
    except OSError as error:
        raise Refused("E-models-05", f"cannot read {place}", error.strerror or "", "check the path") from None
    if process.returncode:
        cause = f"the process that looked into it died ({process.returncode})"
        raise RunFailed("E-cli-32", f"{name} could not be read", cause, _CARD_HINT)
    try:
        said = msgspec.json.decode(raw, type=_Said)
    except (ValueError, RecursionError):  # whoever broke through the first wall may say anything
        cause = "the process that looked into it said no inputs and outputs"
        raise RunFailed("E-cli-32", f"{name} could not be read", cause, _CARD_HINT) from None
    if said.error is not None:
        code, what = said.error
        mends = code in _MENDED_BY_A_CARD or (code == "E-exec-26" and runtime != "onnx")
        install = f"pip install 'dimnode[{runtime}]', or " if code == NO_RUNTIME else ""
        raise RunFailed(code, f"{name}: {what}", "", install + _CARD_HINT if mends else "check the file")
    return [list(row) for row in said.inputs], [list(row) for row in said.outputs]


def _heard(process: subprocess.Popen[bytes], name: str) -> bytes:
    """Everything that it says until it ends; killed when that is too much or takes too long. Raises `RunFailed`."""
    heard, limits = bytearray(), LIMITS.exec
    end = time.monotonic() + limits.schema_seconds_max
    assert process.stdout is not None
    waiting = poll()
    waiting.register(process.stdout)
    try:
        while waiting.poll(max(0.0, end - time.monotonic()) * 1000):
            if not (piece := os.read(process.stdout.fileno(), 65_536)):
                return bytes(heard)
            heard += piece
            if len(heard) > limits.schema_bytes_max:
                cause = f"it says more than {limits.schema_bytes_max} bytes of itself"
                raise RunFailed("E-cli-32", f"{name} could not be read", cause, _CARD_HINT)
        raise RunFailed("E-cli-32", f"{name} could not be read in time", "", _CARD_HINT)
    finally:
        process.kill()  # whoever closed its stdout has nothing more to say
        process.wait()
        process.stdout.close()


class _Said(msgspec.Struct):
    inputs: list[tuple[str, str, list[int]]] = []
    outputs: list[tuple[str, str, list[int]]] = []
    error: tuple[str, str] | None = None


def _look(order: Mapping[str, Any]) -> dict[str, Any]:
    """Runs in the process of its own."""
    from dimnode.exec import orders, sandbox
    from dimnode.exec.runtimes.base import Content
    from dimnode.exec.runtimes.choice import runtime_of
    from dimnode.posix import processes
    from dimnode.posix.walls import leave_network

    runtime, limits, files = runtime_of(order["runtime"]), LIMITS.exec, {}
    if not runtime.version():
        raise RunFailed(orders.NO_RUNTIME, f"{runtime.PACKAGE} is not installed")
    runtime.warm_up()
    left = limits.parsed_bytes_max
    for path, role, descriptor in order["files"]:
        with open(descriptor, "rb", closefd=False) as stream:
            raw = stream.read(left + 1)
        left -= len(raw)
        if left < 0:
            raise RunFailed("E-models-06", f"more than {limits.parsed_bytes_max} bytes, which are not read for this")
        files[path] = Content(role, memoryview(raw))
    memory_bytes = processes.address_space_bytes() + limits.worker_memory_bytes_max
    file_bytes, open_files = limits.worker_file_bytes_max, limits.worker_open_files_max
    walls = sandbox.Walls(memory_bytes, file_bytes, open_files, order["folder"], leave_network())
    layers = sandbox.install(walls, sandbox.build_filter(), runtime.settle)
    if not sandbox.complete(layers):
        raise RunFailed("E-cli-31", f"not parsed: no complete sandbox here ({sandbox.describe(layers)})")
    loaded = runtime.load(files, msgspec.convert(order["facts"], orders.Facts))
    inputs = [_row(entry.name, entry.dtype, entry.shape, entry.original) for entry in loaded.inputs]
    # onnxruntime says the same of a scalar.
    unknown = order["runtime"] != "onnx" and any(entry.shape is None for entry in loaded.outputs)
    found = _found_shapes(loaded) if unknown else {}
    outputs = [_row(e.name, e.dtype, found.get(e.name, e.shape), e.original) for e in loaded.outputs]
    return {"inputs": inputs, "outputs": outputs}


def _found_shapes(model: "Model") -> dict[str, tuple[int | None, ...]]:
    """Shapes of outputs that a model does not declare: from two runs that differ in every free size of its inputs."""
    import numpy as np

    if not all(entry.shape and entry.dtype for entry in model.inputs):
        return {}
    answers = []
    for free in (2, 3):
        shapes = {entry.name: [size or free for size in entry.shape or ()] for entry in model.inputs}
        try:
            answers.append(model.run({entry.name: np.ones(shapes[entry.name], entry.dtype) for entry in model.inputs}))
        except RunFailed:  # not every size fits every model: then its author has to say
            return {}
    found = {}
    for name, one in answers[0].items():
        pairs = zip(one.shape, answers[1][name].shape, strict=True)
        found[name] = tuple(size if size == other else None for size, other in pairs)
    return found


def _row(name: str, dtype: str, shape: tuple[int | None, ...] | None, original: str) -> list[Any]:
    if not dtype:
        raise RunFailed("E-exec-26", f"{name!r} is {original}; only tensors of numbers can travel (zipmap=False?)")
    return [name, dtype, [-1 if size is None else size for size in shape or ()]]


def main() -> None:
    """The program: one JSON document, whatever happens."""
    try:
        said = _look(json.loads(sys.argv[1]))
    except (DimError, MemoryError) as error:
        found = error.complaint if isinstance(error, DimError) else None
        said = {
            "error": [found.code, found.what] if found else ["E-exec-51", "needs more memory than a worker may use"]
        }
    os.write(sys.stdout.fileno(), json.dumps(said).encode())
    os._exit(0)  # an interpreter that ends in order opens files, which is no longer allowed


if __name__ == "__main__":
    main()
