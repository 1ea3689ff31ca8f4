"""What an ONNX file declares as its inputs and outputs, found out by a process that can do nothing else.

Rule: a model file may be hostile, so its bytes are parsed only behind the walls of a worker: no file, no network, no
process, bounded memory. Where those walls cannot be raised nothing is parsed, and the operator writes a card instead.

`declared_schema` starts this module as a program: model bytes on stdin, one JSON document on stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dimnode.errors import DimError, Refused, RunFailed
from dimnode.limits import LIMITS

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
_CARD_HINT = "write a card beside it with inputs and outputs (docs/operator.md, Models)"
_MENDED_BY_A_CARD = ("E-cli-31", "E-exec-25")

Rows = list[list[Any]]


def declared_schema(path: Path) -> tuple[Rows, Rows]:
    """Inputs and outputs as rows [name, dtype, shape] with -1 for a free size. Raises `RunFailed` or `Refused`."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    command = [sys.executable, "-P", "-m", "dimnode.exec.onnx_schema"]
    try:
        with path.open("rb") as model, tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, folder],
                stdin=model,
                capture_output=True,
                env={**kept, **_ONE_THREAD},
                timeout=LIMITS.exec.worker_start_seconds_max,
                check=False,
            )
    except OSError as error:
        raise Refused("E-models-05", f"cannot read {path}", error.strerror or "", "check the path") from None
    except subprocess.TimeoutExpired:
        raise RunFailed("E-cli-32", f"{path.name} could not be read in time", "", _CARD_HINT) from None
    if done.returncode or not done.stdout:
        cause = f"the process that looked into it died ({done.returncode})"
        raise RunFailed("E-cli-32", f"{path.name} could not be read", cause, _CARD_HINT)
    said = json.loads(done.stdout)
    if "error" in said:
        code, what = said["error"]
        raise RunFailed(code, f"{path.name}: {what}", "", _CARD_HINT if code in _MENDED_BY_A_CARD else "check the file")
    return said["inputs"], said["outputs"]


def _look(folder: str) -> dict[str, Any]:
    """Runs in the process of its own."""
    from dimnode import posix
    from dimnode.exec import orders, sandbox
    from dimnode.exec.runtimes import onnx
    from dimnode.exec.runtimes.base import one_file

    if not onnx.version():
        raise RunFailed(orders.NO_RUNTIME, "onnxruntime is not installed")
    onnx.warm_up()
    limits = LIMITS.exec
    model = sys.stdin.buffer.read(limits.parsed_bytes_max + 1)
    if len(model) > limits.parsed_bytes_max:
        raise RunFailed("E-models-06", f"more than {limits.parsed_bytes_max} bytes")
    memory_bytes, file_bytes = limits.worker_memory_bytes_max, limits.worker_file_bytes_max
    walls = sandbox.Walls(memory_bytes, file_bytes, limits.worker_open_files_max, folder, posix.leave_network())
    layers = sandbox.install(walls, sandbox.build_filter())
    if not sandbox.complete(layers):
        raise RunFailed("E-cli-31", f"not parsed: no complete sandbox here ({sandbox.describe(layers)})")
    loaded = onnx.load(one_file(model), orders.Facts())
    inputs = [_row(entry.name, entry.dtype, entry.shape, entry.original) for entry in loaded.inputs]
    return {"inputs": inputs, "outputs": [_row(e.name, e.dtype, e.shape, e.original) for e in loaded.outputs]}


def _row(name: str, dtype: str, shape: tuple[int | None, ...] | None, original: str) -> list[Any]:
    if not dtype:
        raise RunFailed("E-exec-26", f"{name!r} is {original}; only tensors of numbers can travel (zipmap=False?)")
    return [name, dtype, [-1 if size is None else size for size in shape or ()]]


def main() -> None:
    """The program: one JSON document, whatever happens."""
    try:
        said = _look(sys.argv[1])
    except (DimError, MemoryError) as error:
        found = error.complaint if isinstance(error, DimError) else None
        said = {
            "error": [found.code, found.what] if found else ["E-exec-51", "needs more memory than a worker may use"]
        }
    os.write(sys.stdout.fileno(), json.dumps(said).encode())
    os._exit(0)  # an interpreter that ends in order opens files, which is no longer allowed


if __name__ == "__main__":
    main()
