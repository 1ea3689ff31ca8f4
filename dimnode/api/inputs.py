"""Does a job's input fit its models? Asked at the door, against the signed manifests, before anything is sent.

Rule: what is refused here would fail at every executor (`exec.mapping` has the same rules), and the refusal names what
exists. What a manifest does not declare is not judged: a model without declared inputs takes what it takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimnode.api.given import not_finite
from dimnode.errors import PeerFault, Refused
from dimnode.records.envelope import Record
from dimnode.records.items import SIZES, byte_items
from dimnode.records.tensors import ITEM_BYTES, Tensor, decode_tensors
from dimnode.records.transforms import Source, goes_past, kept_of, sources_of

Tensors = Mapping[str, Tensor]
_HINT = "dim models ls shows what each model takes"
_NUMBERS_AT_ONCE = 1 << 18


def check_inputs(
    tasks: Sequence[Mapping[str, Any]], models: Sequence[Record | None], blobs: Sequence[bytes], chained: bool
) -> None:
    """Names, dtypes, ranks and fixed sizes of every step that reads the job's inputs; of a step that reads another one,
    the names. Raises `Refused`.

    tasks: as in a spec; models: the manifest of each task, None where it has none; blobs: tensors/1, one per input.
    """
    sources = [_opened(number, blob) for number, blob in enumerate(blobs)]
    used: set[int] = set()
    for step, (task, model) in enumerate(zip(tasks, models, strict=True)):
        if chained and step and model is not None and not task.keys() & {"take", "cabinet"}:
            _check_handed_on(model, step - 1, tasks[step - 1], models[step - 1])
        elif model is not None and "cabinet" not in task and (given := _taken_through(task, model, sources)):
            _check_sources(task.get("take"), model, given, models, sources, used)
        elif model is None or "cabinet" in task or not model.payload["inputs"]:
            used.update(id(tensor) for source in sources for tensor in source.values())
        elif "take" in task:
            _check_taken(task["take"], model, models, sources, used)
        else:
            for entry in model.payload["inputs"]:
                tensor = _by_name(model, entry[0], sources)
                used.add(id(tensor))
                _check_form(model, entry, tensor, tensor.shape)
    declared = [name for model in models if model is not None for name in _takes(model)]
    unused = [name for source in sources for name, tensor in source.items() if id(tensor) not in used]
    if strange := [name for name in unused if name not in declared]:
        what = f"{strange[0]!r} is no input of any model of this job"
        raise Refused("E-input-07", what, f"the inputs are {_names(declared)}", _HINT)


def _taken_through(task: Mapping[str, Any], model: Record, sources: Sequence[Tensors]) -> Sequence[Source]:
    """What `pre` takes; nothing when the input is the model's own tensors, which go past it."""
    pre = model.payload.get("pre", ())
    own = [entry[0] for entry in model.payload["inputs"]]
    past = "take" not in task and goes_past(pre, own, {name for tensors in sources for name in tensors})
    return () if past else sources_of(pre)


def _takes(model: Record) -> list[str]:
    """What may be given to a model, by name: what its `pre` declares, else its own inputs."""
    given = sources_of(model.payload.get("pre", ()))
    return [source.name for source in given] or [entry[0] for entry in model.payload["inputs"]]


def _check_sources(
    take: Sequence[Sequence[Any]] | None,
    model: Record,
    given: Sequence[Source],
    models: Sequence[Record | None],
    sources: Sequence[Tensors],
    used: set[int],
) -> None:
    """A model that says how texts, files and rows become its tensors."""
    name = model.payload["name"]
    mapped = {row[0]: row for row in take or ()}
    names = [source.name for source in given]
    if take is not None and (wrong := sorted(mapped.keys() - set(names)) or sorted(set(names) - mapped.keys())):
        what = f"model {name} takes no {wrong[0]!r}" if wrong[0] in mapped else f"nothing is taken for {wrong[0]!r}"
        raise Refused("E-input-07", what, f"model {name} takes {_kinds(given)}", "take: [{name: …, from: …}]")
    counts = {}
    for source in given:
        columns = (-1, -1)
        if take is None:
            tensors, tensor_name = _thing(model, source, given, sources)
        else:
            _, place, tensor_name, *columns_taken = mapped[source.name]
            columns = (columns_taken[0], columns_taken[1])
            if place >= len(sources):
                _check_step_output(models, place - len(sources), tensor_name)
                continue
            tensors = sources[place]
            if tensor_name not in tensors:
                cause = f"input {place} has {_names(tensors)}"
                what = f"{source.name!r} is to be taken from {tensor_name!r}, which is not there"
                raise Refused("E-input-07", what, cause)
        used.update(id(tensors[key]) for key in (tensor_name, tensor_name + SIZES) if key in tensors)
        counts[source.name] = _check_given(model, source, tensors, tensor_name, columns)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of {key!r}" for key, count in counts.items())
        raise Refused("E-input-06", "the inputs differ in their number of items", f"there are {said}")


def _thing(model: Record, source: Source, given: Sequence[Source], sources: Sequence[Tensors]) -> tuple[Tensors, str]:
    """What is called so, or the only thing for the only input."""
    for tensors in sources:
        if source.name in tensors:
            return tensors, source.name
    things = [(tensors, name) for tensors in sources for name in tensors if not name.endswith(SIZES)]
    if len(given) == 1 and len(things) == 1:
        return things[0]
    what = f"model {model.payload['name']} takes {source.kind} {source.name!r}, which is not in the input"
    cause = f"it takes {_kinds(given)}; the input has {_names(name for _, name in things)}"
    raise Refused("E-input-07", what, cause, _HINT)


def _check_given(model: Record, source: Source, tensors: Tensors, name: str, columns: tuple[int, int]) -> int:
    """One thing for one declared input; how many items it has."""
    tensor = tensors[name]
    if source.kind not in ("rows", "tensor"):
        try:
            count = len(byte_items(tensors, name))
        except PeerFault as fault:
            what = f"model {model.payload['name']} takes {source.kind} {source.name!r}"
            raise Refused("E-input-01", what, fault.rule, "dim run takes files; docs/submitter.md") from None
        if not count:
            raise Refused("E-input-04", f"there is no {source.kind} in the input")
        return count
    shape: Sequence[int] = source.shape or (-1,) * len(tensor.shape)
    if source.kind == "rows":
        shape = (-1, len(source.columns) or -1)
    actual = tensor.shape
    if columns != (-1, -1):
        if not actual or not 0 <= columns[0] < columns[1] <= actual[-1]:
            what = f"columns {columns[0]} to {columns[1]} of {name!r} are to be taken"
            raise Refused("E-input-06", what, f"it has the shape {list(actual)}")
        actual = (*actual[:-1], columns[1] - columns[0])
    dtype = "float64" if source.kind == "rows" else source.dtype or tensor.dtype
    _check_form(model, (source.name, dtype, shape), tensor, actual)
    if not actual:
        raise Refused("E-input-06", f"{source.name!r} has no axis for items", "rows are the outer list", _HINT)
    if not actual[0]:
        raise Refused("E-input-04", f"{source.name!r} has no rows")
    return actual[0]


def _kinds(given: Sequence[Source]) -> str:
    return ", ".join(f"{source.kind} {source.name!r}" for source in given)


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
    if model is not None and (answered := _answered(model)) and tensor_name not in answered:
        cause = f"model {model.payload['name']} gives {_names(answered)}"
        raise Refused("E-input-07", f"step {step} gives no {tensor_name!r}", cause, _HINT)


def _check_handed_on(model: Record, before: int, task: Mapping[str, Any], giver: Record | None) -> None:
    """A step of a chain without `take` is given the answer of the one before it: each input by its name, or the only
    one the only answer."""
    answered = _answered(giver) if giver is not None and task["op"] == "infer" else ()
    wanted, own = _takes(model), [entry[0] for entry in model.payload["inputs"]]
    only = len(wanted) == len(answered) == 1
    if not answered or only or goes_past(model.payload.get("pre", ()), own, answered):
        return
    if missing := [name for name in wanted if name not in answered]:
        what = f"model {model.payload['name']} takes {missing[0]!r}, which step {before} does not give"
        cause = f"it takes {_names(wanted)}; step {before} gives {_names(answered)}"
        raise Refused("E-input-07", what, cause, f"take: [{{name: …, from: step.{before}, tensor: …}}]")


def _answered(model: Record) -> Sequence[str]:
    """What an answer of the model holds, by name; nothing where its manifest does not say."""
    return kept_of(model.payload.get("post", ()), [entry[0] for entry in model.payload["outputs"]])


def _check_form(model: Record, entry: Sequence[Any], tensor: Tensor, shape: Sequence[int]) -> None:
    """One tensor, or some of its columns, for one declared input."""
    name, dtype, wanted = entry
    fits = len(shape) == len(wanted) and all(w in (-1, size) for w, size in zip(wanted, shape, strict=True))
    if wanted and not fits:
        expected = "[" + ", ".join("any" if size < 0 else str(size) for size in wanted) + "]"
        what = f"model {model.payload['name']} takes {name!r} of shape {expected}, the input has {list(shape)}"
        raise Refused("E-input-06", what, "rows are the outer list", _HINT)
    numbers = np.frombuffer(tensor.raw, dtype=np.dtype(tensor.dtype).newbyteorder("<"))
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        values = numbers.reshape(tensor.shape)  # not before: a shape of no number may have sizes that no array has
        raise not_finite(tensor.name, values, values)
    if tensor.dtype != dtype and dtype in ITEM_BYTES and not _castable(tensor, dtype):
        what = f"model {model.payload['name']} takes {name!r} as {dtype}, the input is {tensor.dtype}"
        raise Refused("E-input-01", what, f"not every number of it is one of the type {dtype}", _HINT)


def _castable(tensor: Tensor, dtype: str) -> bool:
    """No number changes by becoming one of the other type, but for the precision of floats."""
    everything = np.frombuffer(tensor.raw, dtype=np.dtype(tensor.dtype).newbyteorder("<"))
    target = np.dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, everything.size, _NUMBERS_AT_ONCE):  # widened, 64 MiB of small integers are 512
            values = everything[start : start + _NUMBERS_AT_ONCE]
            result = values.astype(target)
            if target.kind == "f" and not np.isfinite(result).all():
                return False
            if target.kind != "f" and not (result.astype(np.float64) == values.astype(np.float64)).all():
                return False
    return True


def _names(names: Any) -> str:
    """Names for a sentence, in their order, each once."""
    found = list(dict.fromkeys(names))
    return (", ".join(found[:8]) + (" …" if len(found) > 8 else "")) or "nothing"
