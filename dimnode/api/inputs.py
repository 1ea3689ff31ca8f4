"""Does a job's input fit its models? Asked at the door, against the signed manifests, before anything is sent.

Rule: what is refused here would fail at every executor (`exec.mapping` has the same rules), and the refusal names what
exists. What a manifest does not declare is not judged: a model without declared inputs takes what it takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimnode.errors import PeerFault, Refused
from dimnode.records.envelope import Record
from dimnode.records.tensors import ITEM_BYTES, Tensor, decode_tensors

Tensors = Mapping[str, Tensor]
_HINT = "dim models ls shows what each model takes"


def check_inputs(
    tasks: Sequence[Mapping[str, Any]], models: Sequence[Record | None], blobs: Sequence[bytes], chained: bool
) -> None:
    """Names, dtypes, ranks and fixed sizes of every step that reads the job's inputs. Raises `Refused`.

    tasks: as in a spec; models: the manifest of each task, None where it has none; blobs: tensors/1, one per input.
    """
    sources = [_opened(number, blob) for number, blob in enumerate(blobs)]
    used: set[int] = set()
    for step, (task, model) in enumerate(zip(tasks, models, strict=True)):
        if model is None or "cabinet" in task or not model.payload["inputs"]:
            used.update(id(tensor) for source in sources for tensor in source.values())
        elif "take" in task:
            _check_taken(task["take"], model, models, sources, used)
        elif step == 0 or not chained:
            for entry in model.payload["inputs"]:
                tensor = _by_name(model, entry[0], sources)
                used.add(id(tensor))
                _check_form(model, entry, tensor, tensor.shape)
    declared = [entry[0] for model in models if model is not None for entry in model.payload["inputs"]]
    unused = [name for source in sources for name, tensor in source.items() if id(tensor) not in used]
    if strange := [name for name in unused if name not in declared]:
        what = f"{strange[0]!r} is no input of any model of this job"
        raise Refused("E-input-07", what, f"the inputs are {_names(declared)}", _HINT)


def _opened(number: int, blob: bytes) -> Tensors:
    try:
        return {tensor.name: tensor for tensor in decode_tensors(blob)}
    except PeerFault as fault:
        raise Refused(
            "E-input-03", f"input {number} cannot be used: {fault.rule}", "", "tensor_rows makes one"
        ) from None


def _by_name(model: Record, name: str, sources: Sequence[Tensors]) -> Tensor:
    """The tensor of this name, or the only tensor for the only input."""
    for source in sources:
        if name in source:
            return source[name]
    everything = [tensor for source in sources for tensor in source.values()]
    declared = model.payload["inputs"]
    if len(declared) == 1 and len(everything) == 1:
        return everything[0]
    what = f"model {model.payload['name']} takes {name!r}, which is not in the input"
    cause = f"it takes {_names(entry[0] for entry in declared)}; the input has {_names(t.name for t in everything)}"
    raise Refused("E-input-07", what, cause, _HINT)


def _check_taken(
    take: Sequence[Sequence[Any]],
    model: Record,
    models: Sequence[Record | None],
    sources: Sequence[Tensors],
    used: set[int],
) -> None:
    """Each row of `take` is [model input, source, tensor, first column, one past the last]; -1, -1 means all."""
    entries = {entry[0]: entry for entry in model.payload["inputs"]}
    name = model.payload["name"]
    mapped = {row[0] for row in take}
    if wrong := sorted(mapped - entries.keys()) or sorted(entries.keys() - mapped):
        what = f"model {name} has no input {wrong[0]!r}" if wrong[0] in mapped else f"nothing is taken for {wrong[0]!r}"
        raise Refused("E-input-07", what, f"model {name} takes {_names(entries)}", "take: [{name: …, from: …}]")
    for target, source, tensor_name, start, stop in take:
        if source >= len(sources):
            _check_step_output(models, source - len(sources), tensor_name)
            continue
        tensor = sources[source].get(tensor_name)
        if tensor is None:
            cause = f"input {source} has {_names(sources[source])}"
            raise Refused("E-input-07", f"{target!r} is to be taken from {tensor_name!r}, which is not there", cause)
        used.add(id(tensor))
        shape = tensor.shape
        if (start, stop) != (-1, -1):
            if not shape or not 0 <= start < stop <= shape[-1]:
                what = f"columns {start} to {stop} of {tensor_name!r} are to be taken"
                raise Refused("E-input-06", what, f"it has the shape {list(shape)}")
            shape = (*shape[:-1], stop - start)
        _check_form(model, entries[target], tensor, shape)


def _check_step_output(models: Sequence[Record | None], step: int, tensor_name: str) -> None:
    model = models[step] if 0 <= step < len(models) else None  # one that does not exist is the spec's own mistake
    declared = [entry[0] for entry in model.payload["outputs"]] if model is not None else []
    if declared and model is not None and tensor_name not in declared:
        cause = f"model {model.payload['name']} gives {_names(declared)}"
        raise Refused("E-input-07", f"step {step} gives no {tensor_name!r}", cause, _HINT)


def _check_form(model: Record, entry: Sequence[Any], tensor: Tensor, shape: Sequence[int]) -> None:
    """One tensor, or some of its columns, for one declared input."""
    name, dtype, wanted = entry
    fits = len(shape) == len(wanted) and all(w in (-1, size) for w, size in zip(wanted, shape, strict=True))
    if wanted and not fits:
        expected = "[" + ", ".join("any" if size < 0 else str(size) for size in wanted) + "]"
        what = f"model {model.payload['name']} takes {name!r} of shape {expected}, the input has {list(shape)}"
        raise Refused("E-input-06", what, "rows are the outer list", _HINT)
    if tensor.dtype != dtype and dtype in ITEM_BYTES and not _castable(tensor, dtype):
        what = f"model {model.payload['name']} takes {name!r} as {dtype}, the input is {tensor.dtype}"
        raise Refused("E-input-01", what, f"not every number of it is one of the type {dtype}", _HINT)


def _castable(tensor: Tensor, dtype: str) -> bool:
    """No number changes by becoming one of the other type, but for the precision of floats."""
    values = np.frombuffer(tensor.raw, dtype=np.dtype(tensor.dtype).newbyteorder("<"))
    target = np.dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(target)
        if target.kind == "f":
            return bool(np.isfinite(result).all())
        return bool((result.astype(np.float64) == values.astype(np.float64)).all())


def _names(names: Any) -> str:
    """Names for a sentence, in their order, each once."""
    found = list(dict.fromkeys(names))
    return (", ".join(found[:8]) + (" …" if len(found) > 8 else "")) or "nothing"
