"""From the files of a model to the tensors that its architecture needs, each of the shape it has to have.

Rule: only safetensors files are read. What can hold code (pickles in any wrapping, TorchScript, `.pt2`) is refused by
name and by its first bytes, with the conversion to use.
Source: docs/formats.md, which says what was tried on each format.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.architectures.ops import Architecture
from dimnode.exec.runtimes.base import Files
from dimnode.exec.runtimes.config_file import Config, whole
from dimnode.exec.runtimes.refusals import HEAD_BYTES, refusal_of
from dimnode.exec.runtimes.weights_file import FLOATS, Stored, read_weights

DTYPES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PREFIXES: Final = ("", "bert.", "model.")
"""Some files name the same tensors inside a larger model."""


@dataclass(frozen=True, slots=True)
class Groups:
    """How mlx stores a matrix in fewer bits: so many items share a scale and a bias."""

    size: int
    bits: int


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors by name; where `groups` is set, a matrix may be a triple of weight, scales and biases."""

    tensors: Mapping[str, Stored]
    matrices: frozenset[str]
    """Names, without `.weight`, of what may be used in fewer bits."""
    dtype: str
    groups: Groups | None


def weights_of(files: Files, architecture: Architecture, config: Config, wanted_dtype: str) -> Weights:
    """Read and check. Raises `RunFailed`."""
    groups = _groups(config)
    chosen = _chosen(read_all(files), architecture, groups)
    matrices = frozenset(
        name.removesuffix(".weight") for name, need in architecture.needs().items() if need.kind == "matrix"
    )
    return Weights(chosen, matrices, wanted_dtype or dtype_of(chosen.values()), groups)


def read_all(files: Files) -> dict[str, Stored]:
    """The tensors of all files of weights, by name. Raises `RunFailed`: a format that is refused, a damaged file."""
    found: dict[str, Stored] = {}
    for path, file in files.items():
        if file.role not in ("weights", "model"):
            continue
        refused = refusal_of(path, bytes(file.raw[:HEAD_BYTES]))
        if refused:
            raise RunFailed(orders.REFUSED_FORMAT, f"{path}: {refused}")
        part = read_weights(file.raw)
        if found.keys() & part.keys():
            raise RunFailed(orders.BAD_WEIGHTS, f"{path} has a tensor that another file has")
        found |= part
    if not found:
        raise RunFailed(orders.BAD_WEIGHTS, "the model has no file of role weights")
    return found


def _chosen(found: Mapping[str, Stored], architecture: Architecture, groups: Groups | None) -> dict[str, Stored]:
    needs = architecture.needs()
    first = next(iter(needs))
    prefix = next((prefix for prefix in PREFIXES if prefix + first in found), "")
    chosen: dict[str, Stored] = {}
    for name, need in needs.items():
        stored = found.get(prefix + name)
        if stored is None:
            raise RunFailed(orders.UNFIT_WEIGHTS, f"the file has no tensor {name}")
        if need.kind == "matrix" and groups is not None and f"{prefix}{name.removesuffix('.weight')}.scales" in found:
            chosen |= _triple(found, prefix, name, need.shape, groups)
            continue
        if stored.shape != need.shape or stored.dtype not in FLOATS:
            what = f"tensor {name} is {stored.dtype} {list(stored.shape)}, the config says floats {list(need.shape)}"
            raise RunFailed(orders.UNFIT_WEIGHTS, what)
        chosen[name] = stored
    return chosen


def _triple(
    found: Mapping[str, Stored], prefix: str, name: str, shape: tuple[int, ...], groups: Groups
) -> dict[str, Stored]:
    base, (rows, columns) = name.removesuffix(".weight"), shape
    shapes = {"weight": (rows, columns * groups.bits // 32)}
    shapes |= dict.fromkeys(("scales", "biases"), (rows, columns // groups.size))
    for part, wanted in shapes.items():
        stored = found.get(f"{prefix}{base}.{part}")
        kinds = {"U32"} if part == "weight" else FLOATS
        if stored is None or stored.shape != wanted or stored.dtype not in kinds:
            raise RunFailed(orders.UNFIT_WEIGHTS, f"tensor {base}.{part} does not fit {groups.bits} bits in groups")
    return {f"{base}.{part}": found[f"{prefix}{base}.{part}"] for part in shapes}


def _groups(config: Config) -> Groups | None:
    said = config.get("quantization")
    if said is None:
        return None
    plain = type(said) is dict and not any(isinstance(value, dict) for value in said.values())
    if not plain or said.get("mode", "affine") != "affine":
        raise RunFailed(orders.BAD_CONFIG, "quantization is one group size and one number of bits for all matrices")
    found = Groups(whole(said, "group_size", 128), whole(said, "bits", 8))
    if found.size not in (32, 64, 128) or found.bits not in (4, 8):
        raise RunFailed(orders.BAD_CONFIG, "quantization is in 4 or 8 bits, in groups of 32, 64 or 128")
    return found


def dtype_of(tensors: Iterable[Stored]) -> str:
    """What a file's numbers are computed in where nobody says: the widest of its floats."""
    kinds = {stored.dtype for stored in tensors if stored.dtype in FLOATS}
    widest = next(kind for kind in ("F64", "F32", "BF16", "F16") if kind in kinds)
    return "float32" if widest == "F64" else DTYPES[widest]
