"""A reference interpreter of CoreML's model language: a program in protobuf and a blob of weights, to arrays.

Rule: the whole program is looked at before anything runs. An operator that is not known, a weight outside the blob, a
program with more than one block, a state or a custom layer end the load; nothing is skipped or guessed.
Source: coremltools 9.0, `mlmodel/format/MIL.proto` and `MILBlob/Blob/StorageFormat.hpp`.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.runtimes.mil_ops import OPERATORS, split
from dimnode.limits import LIMITS

DTYPES: Final[Mapping[int, Any]] = {
    1: np.bool_,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    21: np.int8,
    22: np.int16,
    23: np.int32,
    24: np.int64,
    31: np.uint8,
    32: np.uint16,
}
TEXT: Final = 2
WEIGHTS_NAME: Final = "@model_path/weights/weight.bin"
_ENTRY: Final = struct.Struct("<IIQQ")
_MAGIC: Final = 0xDEADBEEF
_OWN: Final = ("const", "split")


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator: its arguments as names or constants, its results as (name, dtype)."""

    operator: str
    arguments: Mapping[str, Any]
    results: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """An argument that is the result of another step."""

    name: str


class Program:
    """What `main` computes. Raises `RunFailed` at once when a part of it is not known here."""

    def __init__(self, function: Any, weights: bytes | memoryview) -> None:
        blocks = function.block_specializations
        if len(blocks) != 1:
            raise _bad("the program has more than one version of its block")
        block = blocks[next(iter(blocks))]
        self._weights = weights
        self._constants: dict[str, Any] = {}
        self._steps: list[_Step] = []
        unknown = {op.type for op in block.operations} - OPERATORS.keys() - {*_OWN}
        if unknown:
            what = f"operator {sorted(unknown)[0]!r} is not one that the reference interpreter knows"
            raise RunFailed(orders.NO_OPERATOR, what)
        for operation in block.operations:
            self._read(operation)
        self.inputs = tuple(_declared(entry.name, entry.type) for entry in function.inputs)
        kinds = {name: kind for step in self._steps for name, kind in step.results}
        self.outputs = tuple(Declared(name, _word(kinds.get(name)), None) for name in block.outputs)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs. Raises what NumPy raises."""
        known: dict[str, Any] = {**self._constants, **arrays}
        with np.errstate(all="ignore"):
            for step in self._steps:
                arguments = {name: _resolve(value, known) for name, value in step.arguments.items()}
                wide = {name: _widened(value) for name, value in arguments.items()}
                found = split(wide) if step.operator == "split" else [OPERATORS[step.operator](wide)]
                for (name, dtype), values in zip(step.results, found, strict=True):
                    known[name] = np.asarray(values).astype(dtype, copy=False)
        return {entry.name: known[entry.name] for entry in self.outputs}

    def _read(self, operation: Any) -> None:
        if operation.blocks:
            raise RunFailed(orders.NO_OPERATOR, f"operator {operation.type!r} with a block of its own is not known")
        if operation.type == "const":
            self._constants[operation.outputs[0].name] = self._value(operation.attributes["val"])
            return
        arguments = {name: self._argument(name, argument.arguments) for name, argument in operation.inputs.items()}
        results = tuple((entry.name, _dtype(entry.type)) for entry in operation.outputs)
        if operation.type.startswith("constexpr_"):  # its arguments are constants, some of them attributes
            arguments |= {name: self._value(value) for name, value in operation.attributes.items() if name != "name"}
        self._steps.append(_Step(operation.type, arguments, results))

    def _argument(self, name: str, bindings: Any) -> Any:
        found = [
            _Name(binding.name) if binding.WhichOneof("binding") == "name" else self._value(binding.value)
            for binding in bindings
        ]
        return found if name == "values" or len(found) != 1 else found[0]

    def _value(self, value: Any) -> Any:
        """A constant: text, or an array of the stated shape."""
        kind = value.type.tensorType
        where = value.WhichOneof("value")
        if where == "immediateValue" and value.immediateValue.WhichOneof("value") != "tensor":
            raise _bad("a constant that is no tensor")
        if where == "immediateValue" and kind.dataType == TEXT:
            return str(value.immediateValue.tensor.strings.values[0])
        shape, dtype = _constant_shape(kind), _dtype(value.type)
        if where == "blobFileValue":
            return self._from_blob(value.blobFileValue, shape, dtype)
        tensor = value.immediateValue.tensor
        stored = getattr(tensor, tensor.WhichOneof("value")).values
        items = np.frombuffer(stored, dtype) if isinstance(stored, bytes) else np.array(list(stored)).astype(dtype)
        return _shaped(items, shape)

    def _from_blob(self, said: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        if said.fileName != WEIGHTS_NAME:
            raise _bad(f"weights in {said.fileName[:60]!r}; only {WEIGHTS_NAME} is read")
        at, blob = said.offset, self._weights
        if at + _ENTRY.size > len(blob):
            raise _bad("a weight lies outside the file of weights")
        magic, _, size, start = _ENTRY.unpack_from(blob, at)
        if magic != _MAGIC or start + size > len(blob) or size != math.prod(shape) * np.dtype(dtype).itemsize:
            raise _bad("a weight lies outside the file of weights, or does not fit its shape")
        return np.frombuffer(blob, dtype, math.prod(shape), start).reshape(shape)


def _resolve(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_resolve(entry, known) for entry in value]
    if isinstance(value, _Name):
        if value.name not in known:
            raise ValueError(f"a step uses {value.name[:60]!r} before it is there")
        return known[value.name]
    return value


def _widened(value: Any) -> Any:
    """float16 is computed in float32, as no processor multiplies matrices of it in NumPy."""
    if isinstance(value, list):
        return [_widened(entry) for entry in value]
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _dtype(kind: Any) -> Any:
    found = DTYPES.get(kind.tensorType.dataType) if kind.WhichOneof("type") == "tensorType" else None
    if found is None:
        raise _bad("a value of a type that is not known here")
    return found


def _constant_shape(kind: Any) -> tuple[int, ...]:
    shape = tuple(int(entry.constant.size) for entry in kind.dimensions if entry.WhichOneof("dimension") == "constant")
    if len(shape) != len(kind.dimensions) or math.prod(shape) > LIMITS.exec.parsed_bytes_max:
        raise _bad("a constant without a fixed shape")
    return shape


def _shaped(items: Array, shape: tuple[int, ...]) -> Array:
    if items.size != math.prod(shape):
        raise _bad("a constant that does not fit its shape")
    return items.reshape(shape)


def _declared(name: str, kind: Any) -> Declared:
    sizes = kind.tensorType.dimensions
    shape = tuple(int(size.constant.size) if size.WhichOneof("dimension") == "constant" else None for size in sizes)
    return Declared(name, _word(_dtype(kind)), shape or None)


def _word(dtype: Any) -> str:
    return np.dtype(dtype).name if dtype is not None else ""


def _bad(why: str) -> RunFailed:
    return RunFailed(orders.BAD_PACKAGE, f"no .mlpackage that can be read: {why}")
