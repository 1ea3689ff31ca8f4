"""A PyTorch checkpoint as safetensors, made by a process that can do nothing else.

Rule: a checkpoint is a pickle. It is opened only behind the walls of a worker, only by PyTorch's restricted reader, and
only what is a map of tensors comes out, as bytes that this process wrote and the node does not interpret. For the
operator's own files; nothing of a stranger's is ever converted.

For people: `python -m dimnode.exec.state_dict FILE.pt OUT.safetensors`. `convert` starts this module as a program of
one argument: the checkpoint on stdin, safetensors on stdout.
Source: docs.pytorch.org, `torch.load(weights_only=True)`.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dimnode.errors import Refused, RunFailed
from dimnode.limits import LIMITS

_KINDS: Final = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES_BYTES: Final = 1 << 16
_MAPS: Final = ("state_dict", "model", "model_state_dict")


def convert(source: Path, out: Path) -> int:
    """Write `out`; how many bytes it has. Raises `Refused` with what to do instead."""
    from dimnode.exec.launch import KEPT_ENVIRONMENT, WORKER_ENVIRONMENT

    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    partial = out.with_suffix(out.suffix + ".part")
    try:
        with source.open("rb") as checkpoint, partial.open("wb") as file, tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "dimnode.exec.state_dict", folder],
                stdin=checkpoint,
                stdout=file,
                stderr=subprocess.PIPE,
                env={**kept, **WORKER_ENVIRONMENT},
                timeout=LIMITS.exec.task_timeout_seconds,
                check=False,
            )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            cause = said[-1][:200] if said else "the process died"
            raise Refused(
                "E-models-52", f"{source.name} was not converted", cause, "export the model to ONNX where it was made"
            )
        os.replace(partial, out)
    except OSError as error:
        raise Refused(
            "E-models-05", f"cannot read {source} or write {out}", error.strerror or "", "check both"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refused("E-models-52", f"{source.name} was not converted in time", "", "export it to ONNX") from None
    finally:
        partial.unlink(missing_ok=True)
    return out.stat().st_size


def _raise_walls(folder: str) -> None:
    """Everything imported and tried once, then the walls: nothing is opened where they do not all stand."""
    import torch

    from dimnode.exec import sandbox
    from dimnode.posix import processes
    from dimnode.posix.walls import leave_network

    trial = io.BytesIO()
    torch.save({"x": torch.ones(1)}, trial)
    trial.seek(0)
    torch.load(trial, weights_only=True, map_location="cpu")
    torch.set_num_threads(1)
    limits = LIMITS.exec
    memory_bytes = processes.address_space_bytes() + limits.worker_memory_bytes_max
    walls = sandbox.Walls(memory_bytes, 2 * limits.parsed_bytes_max, 64, folder, leave_network())
    layers = sandbox.install(walls, sandbox.build_filter())
    if not sandbox.complete(layers):
        raise RunFailed("E-models-52", f"no complete sandbox here ({sandbox.describe(layers)})")


def _opened(raw: bytes) -> Any:
    """What the checkpoint holds. Raises `RunFailed` in our words: PyTorch's advise to open it carelessly."""
    import torch

    try:
        return torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - boundary: a hostile file may make the reader raise anything
        raise RunFailed("E-models-52", f"{_looks_like(raw)} ({type(error).__name__})") from None


def _looks_like(raw: bytes) -> str:
    """What a file is that the restricted reader does not open; the end of an archive has the names of what is in it."""
    names = raw[-_NAMES_BYTES:] if raw.startswith(b"PK\x03\x04") else b""
    if raw.startswith(b"\x93NUMPY") or b".npy" in names:
        return "it is a NumPy file: write its arrays with safetensors.numpy.save_file"
    if b"/code/" in names:
        return "it is TorchScript, which is a program and no map of tensors"
    return "it is no checkpoint, or holds more than tensors: opening it would run code"


def _tensors(raw: bytes) -> Mapping[str, Any]:
    """The map of tensors in a checkpoint, also when it lies one level down."""
    import torch

    found = _opened(raw)
    for name in _MAPS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise RunFailed("E-models-52", "not a state dict: a map of names to tensors")
    return {str(name): value for name, value in found.items()}


def _pieces(tensors: Mapping[str, Any]) -> Iterator[bytes]:
    """A safetensors file."""
    import torch

    header: dict[str, Any] = {}
    bodies, start = [], 0
    for name, tensor in tensors.items():
        kind = _KINDS.get(str(tensor.dtype).removeprefix("torch."))
        if kind is None:
            raise RunFailed("E-models-52", f"{name} is {tensor.dtype}")
        body = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, start + len(body)]}
        bodies.append(body)
        start += len(body)
    text = json.dumps(header).encode()
    yield len(text).to_bytes(8, "little") + text
    yield from bodies


def main(folder: str) -> None:
    """The program: safetensors on stdout and 0, or one line on stderr and 1."""
    try:
        _raise_walls(folder)
        raw = sys.stdin.buffer.read(LIMITS.exec.parsed_bytes_max + 1)
        if len(raw) > LIMITS.exec.parsed_bytes_max:
            raise RunFailed("E-models-06", f"more than {LIMITS.exec.parsed_bytes_max} bytes")
        for piece in _pieces(_tensors(raw)):
            view = memoryview(piece)
            while view:
                view = view[os.write(1, view) :]
    except Exception as error:  # noqa: BLE001 - boundary: a hostile file may raise anything, and this process ends with it
        text = error.complaint.what if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
        os.write(2, text.strip().splitlines()[0][:300].encode())
        os._exit(1)
    os._exit(0)  # an interpreter that ends in order opens files, which is no longer allowed


def by_hand(source: str, out: str) -> None:
    """For people: what happened in a line."""
    try:
        said, code = f"{convert(Path(source), Path(out))} bytes in {out}", 0
    except Refused as refused:
        said, code = "; ".join(refused.complaint.lines()), 1
    os.write(2 if code else 1, said.encode() + b"\n")
    sys.exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        by_hand(sys.argv[1], sys.argv[2])
    else:
        main(sys.argv[1])
