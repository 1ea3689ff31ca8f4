"""A manifest's `pre` and `post` carried out: items in, the model called, an answer out.

Rule: the same code stands before and after each runtime, so a model gives the same answer in all of them. Nothing here
is evaluated: a word is looked up in a table that this program brings along. Runs only inside a worker.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from dimnode.exec.mapping import Array, Declared, fit
from dimnode.exec.transforms import after, arrays, images, sounds, texts
from dimnode.exec.transforms.sources import Inputs
from dimnode.exec.transforms.values import (
    BAD_PROGRAM,
    UNEQUAL_ITEMS,
    UNFIT_VALUE,
    VALUE_TOO_LARGE,
    Each,
    Shared,
    Stacked,
    Value,
    each_array,
    fail,
    items_of,
    named,
    stacked,
)
from dimnode.limits import LIMITS
from dimnode.records.transforms import Transform, call_of, fault_of, kept_of

Run = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""Call the model."""

_PICTURES: Final = {"resize": images.resize, "centre_crop": images.centre_crop, "pad_image": images.pad_image}
_SOUNDS: Final = {"frame": sounds.frame, "log_mel": sounds.log_mel}


@dataclass(frozen=True, slots=True)
class Program:
    """Both lists, checked, with what they need of the model's files."""

    pre: tuple[Transform, ...]
    post: tuple[Transform, ...]
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()
    tokenizers: Mapping[str, Any] = field(default_factory=dict)
    label_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    batch_max: int = 0


def compile_program(
    pre: Sequence[Transform],
    post: Sequence[Transform],
    inputs: Sequence[Declared],
    outputs: Sequence[Declared],
    files: Mapping[str, bytes],
    labels: Sequence[str] = (),
    batch_max: int = 0,
) -> Program | None:
    """The program of a loaded model, None when it has neither list. Raises `RunFailed`: the manifest's fault."""
    if not pre and not post:
        return None
    names = tuple(entry.name for entry in outputs)
    if fault := fault_of(pre, post, [entry.name for entry in inputs], names, list(files)):
        fail(BAD_PROGRAM, f"the model's transforms make no sense: {fault}", "another version of dimnode, or model")
    tokenizers = {op["file"]: texts.load_tokenizer(files[op["file"]]) for op in pre if op["op"] == "tokenise"}
    label_files = {op["file"]: after.labels_from(files[op["file"]]) for op in post if "file" in op}
    if not batch_max and {entry.shape[0] for entry in inputs if entry.shape} == {1}:
        batch_max = 1
    return Program(tuple(pre), tuple(post), tuple(inputs), names, tuple(labels), tokenizers, label_files, batch_max)


def run_program(program: Program, inputs: Inputs, run: Run) -> tuple[dict[str, Any], int]:
    """The answer's arrays by name (text as its UTF-8 items), and for how many items. Raises `RunFailed`, MemoryError.

    What `Each` holds is of unequal sizes: tensors/1 has a form for that (records/items.py).
    """
    values = dict(inputs.values)
    for op in program.pre:
        with _by(op):
            _before(program, op, values)
    results = _called(program, values, inputs.count, run)
    return finish(program, {**values, **results}, bare=call_of(program.pre)["mode"] in ("bare", "scan")), inputs.count


def finish(program: Program, values: dict[str, Value], *, bare: bool) -> dict[str, Any]:
    """`post`, and the names that it keeps."""
    for op in program.post:
        if op["op"] != "keep":
            with _by(op):
                _after(program, op, values)
    kept: dict[str, Any] = {}
    for name in kept_of(program.post, program.outputs):
        value = values.get(name)
        if value is None:
            fail(UNFIT_VALUE, f"the model gives no {name!r}")
        is_text = isinstance(value, Each) and bool(value.items) and isinstance(value.items[0], bytes)
        kept[name] = value if is_text or bare else stacked(value, name)
        if bare and not is_text:
            kept[name] = value.array if isinstance(value, Shared) else Each(items_of(value))
    return kept


@contextmanager
def _by(op: Transform) -> Iterator[None]:
    """What NumPy makes nothing of is a fault of the value, and ends no worker."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        fail(UNFIT_VALUE, f"{op['op']}: {str(error)[:160]}")


def _before(program: Program, op: Transform, values: dict[str, Value]) -> None:
    word, into = op["op"], op.get("into", op.get("name", ""))
    match word:
        case "input" | "call":
            return
        case "constant":
            values[into] = Shared(constant(op))
        case "tokenise":
            pairs = _texts(values[op["pair"]]) if "pair" in op else None
            values.update(texts.tokenise(op, program.tokenizers[op["file"]], _texts(values[op["name"]]), pairs))
        case "one_hot":
            values[into] = texts.one_hot(op, _texts(values[op["name"]]))
        case "ordinal":
            values[into] = texts.ordinal(op, _texts(values[op["name"]]))
        case "bytes_window" | "decode_image" | "decode_audio":
            values[into] = _from_bytes(op, values[op["name"]])
        case "resize" | "centre_crop" | "pad_image":
            values[into] = each_array(values[op["name"]], lambda array, lead: _PICTURES[word](op, array, lead))
        case "frame" | "log_mel":
            values[into] = each_array(values[op["name"]], lambda array, lead: _SOUNDS[word](op, array, lead))
        case _:
            _either(op, values)


def _after(program: Program, op: Transform, values: dict[str, Value]) -> None:
    word, into = op["op"], op.get("into", op.get("name", ""))
    if after.knows(word):
        values[into] = each_array(values[op["name"]], after.change_of(op))
        return
    match word:
        case "top_k":
            pairs = _both(values[op["name"]], lambda array, lead: after.top_k(op, array, lead))
            values[into], values[op["places"]] = pairs
        case "mean_pool":
            values[into] = _pooled(values[op["name"]], values[op["mask"]])
        case "label_text":
            names = program.label_files[op["file"]] if "file" in op else program.labels
            values[into] = Each(tuple(after.label_text(item, names) for item in items_of(values[op["name"]])))
        case _:
            _either(op, values)


def _either(op: Transform, values: dict[str, Value]) -> None:
    if op["op"] == "concat":
        parts = [values[name] for name in op["names"]]
        if all(isinstance(part, Stacked) for part in parts):
            whole = [part.array for part in parts if isinstance(part, Stacked)]
            values[op["into"]] = Stacked(arrays.concat(op, whole, 1))
        else:
            rows = zip(*(items_of(part) for part in parts), strict=True)
            values[op["into"]] = Each(tuple(arrays.concat(op, row, 0) for row in rows))
        return
    values[op.get("into", op["name"])] = each_array(values[op["name"]], arrays.change_of(op))


def _from_bytes(op: Transform, value: Value) -> Value:
    decode = {
        "bytes_window": texts.bytes_window,
        "decode_image": images.decode_image,
        "decode_audio": sounds.decode_audio,
    }[op["op"]]
    found, held = [], 0
    for number, raw in enumerate(items_of(value), 1):
        with named(number):
            found.append(decode(op, raw))
            held += found[-1].nbytes
            if held > LIMITS.transforms.value_bytes_max:
                fail(VALUE_TOO_LARGE, f"{held} bytes when decoded", "give fewer files at a time")
    return Each(tuple(found))


def _texts(value: Value) -> tuple[str, ...]:
    return texts.texts_of(items_of(value))


def _both(value: Value, change: Callable[[Array, int], tuple[Array, Array]]) -> tuple[Value, Value]:
    if isinstance(value, Stacked):
        first, second = change(value.array, 1)
        return Stacked(first), Stacked(second)
    pairs = [change(item, 0) for item in items_of(value)]
    return Each(tuple(pair[0] for pair in pairs)), Each(tuple(pair[1] for pair in pairs))


def _pooled(value: Value, mask: Value) -> Value:
    if isinstance(value, Stacked) and isinstance(mask, Stacked):
        return Stacked(after.mean_pool(value.array, mask.array, 1))
    rows = zip(items_of(value), items_of(mask), strict=True)
    return Each(tuple(after.mean_pool(item, weight, 0) for item, weight in rows))


def constant(op: Transform) -> Array:
    """One number everywhere, or as many as there are places, in C order."""
    whole = "values" in op
    numbers: Array = np.array(op["values"]) if whole else np.array(op["values_nano"], dtype=np.float64) / arrays.NANO
    typed = arrays.change_of({"op": "cast", "dtype": op["dtype"]})(numbers, 0)
    if len(numbers) == 1:
        return np.full(op["shape"], typed[0])
    return typed.reshape(op["shape"])


# ---- the call


def _called(program: Program, values: Mapping[str, Value], count: int, run: Run) -> dict[str, Value]:
    call = call_of(program.pre)
    fed: dict[str, Value] = {}
    for entry in program.inputs:
        value = values.get(entry.name)
        if value is None:
            fail(BAD_PROGRAM, f"nothing is made for the model's input {entry.name!r}")
        fed[entry.name] = value
    match call["mode"]:
        case "bare":
            return _each_item(program, fed, count, run)
        case "scan":
            return _scanned(program, call, fed, count, run)
        case "each":
            return _in_parts(program, fed, count, 1, run)
    return _in_parts(program, fed, count, program.batch_max or count, run)


def _in_parts(program: Program, fed: Mapping[str, Value], count: int, step: int, run: Run) -> dict[str, Value]:
    """Stacked items, at most `step` of them per call; each output has one row per item."""
    whole = {} if step == 1 else {name: stacked(value, name) for name, value in fed.items()}
    parts: dict[str, list[Array]] = {}
    for start in range(0, count, step):
        stop = min(count, start + step)
        given = {}
        for entry in program.inputs:
            value = fed[entry.name]
            if isinstance(value, Shared):
                part = value.array
            elif step == 1:
                part = items_of(value)[start][None]
            else:
                part = whole[entry.name][start:stop]
            given[entry.name] = fit(entry, np.ascontiguousarray(part))
        for name, result in _arrays(run(given)).items():
            if not result.ndim or len(result) != stop - start:
                what = f"the model's output {name!r} has the shape {list(result.shape)} for {stop - start} items"
                fail(UNEQUAL_ITEMS, what, "its manifest may need another call mode")
            parts.setdefault(name, []).append(result)
    return {name: _joined(found) for name, found in parts.items()}


def _joined(found: Sequence[Array]) -> Value:
    if len(found) == 1:
        return Stacked(found[0])
    if len({part.shape[1:] for part in found}) == 1:
        return Stacked(np.concatenate(found))
    return Each(tuple(item for part in found for item in part))


def _each_item(program: Program, fed: Mapping[str, Value], count: int, run: Run) -> dict[str, Value]:
    """One call per item, without an axis for items."""
    parts: dict[str, list[Array]] = {}
    for place in range(count):
        with named(place + 1):
            given = {entry.name: fit(entry, _of_item(fed[entry.name], place)) for entry in program.inputs}
            for name, result in _arrays(run(given)).items():
                parts.setdefault(name, []).append(result)
    return {name: Each(tuple(found)) for name, found in parts.items()}


def _scanned(program: Program, call: Transform, fed: Mapping[str, Value], count: int, run: Run) -> dict[str, Value]:
    """One call per step of an item's first axis, as a batch of one; what is carried goes from each step to the next."""
    over, carry = set(call["over"]), dict(call.get("carry", ()))
    parts: dict[str, list[Array]] = {}
    for place in range(count):
        with named(place + 1):
            mine = {name: _of_item(value, place) for name, value in fed.items()}
            for name, result in _steps(program, mine, over, carry, run).items():
                parts.setdefault(name, []).append(result)
    return {name: Each(tuple(found)) for name, found in parts.items()}


def _steps(
    program: Program, mine: dict[str, Array], over: set[str], carry: Mapping[str, str], run: Run
) -> dict[str, Array]:
    lengths = {len(mine[name]) if mine[name].ndim else 0 for name in over if name in mine}
    steps = lengths.pop() if len(lengths) == 1 else 0
    if not 0 < steps <= LIMITS.transforms.scan_steps_max:
        fail(UNFIT_VALUE, f"a scan of {steps} steps", f"from 1 to {LIMITS.transforms.scan_steps_max}, the same for all")
    found: dict[str, list[Array]] = {}
    last: dict[str, Array] = {}
    for step in range(steps):
        given = {}
        for entry in program.inputs:
            array = mine[entry.name]
            given[entry.name] = fit(entry, array[step : step + 1] if entry.name in over else array)
        last = _arrays(run(given))
        for target, source in carry.items():
            if source not in last:
                fail(UNFIT_VALUE, f"the model gives no {source!r} to carry")
            mine[target] = last[source]
        for name, result in last.items():
            if name not in carry.values():
                found.setdefault(name, []).append(result[0] if result.ndim and len(result) == 1 else result)
    stacks = {name: stacked(Each(tuple(results)), name) for name, results in found.items()}
    return stacks | {name: last[name] for name in carry.values()}


def _of_item(value: Value, place: int) -> Array:
    return value.array if isinstance(value, Shared) else np.asarray(items_of(value)[place])


def _arrays(results: Mapping[str, Any]) -> dict[str, Array]:
    """Without what is no array: text and maps cannot be worked on, and whoever keeps them is told so."""
    return {name: value for name, value in results.items() if isinstance(value, np.ndarray)}
