"""The four operations: infer, evaluate, statistics, cohort. Runs inside a worker.

Rule: from a cabinet's rows only counts and means leave. When rows are in play not even the words of the runtime's
errors pass, because a model can be built so that an error quotes a cell. (A cohort also says which rows it matched:
the node asks for that itself, to compare queries, and no spec can.)
"""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders, rows
from dimnode.exec.mapping import Array, Declared, cast, feeds, open_blobs, pack
from dimnode.exec.orders import Rows, Take
from dimnode.exec.runtimes.base import Model
from dimnode.exec.transforms.answers import answer_bytes, pack_answer
from dimnode.exec.transforms.program import Program, finish, run_program
from dimnode.exec.transforms.sources import Inputs, read_inputs
from dimnode.exec.transforms.values import Stacked
from dimnode.limits import ExecLimits
from dimnode.records.transforms import Source, goes_past, sources_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tensors/1 blob, how many rows it stands for and in batches of how many."""

    output: bytes
    rows: int
    batch: int


def infer(
    model: Model,
    take: tuple[Take, ...],
    blobs: tuple[bytes | memoryview, ...],
    limits: ExecLimits,
    program: Program | None = None,
) -> Outcome:
    """Run the model on the mapped inputs, with what its manifest declares before and after; all its outputs.

    Raises `RunFailed`, MemoryError.
    """
    whole = tuple(map(bytes, blobs)) if program is not None and program.pre else ()
    if program is not None and program.pre and not (not take and _go_past(program, model, whole)):
        answer, batch = run_program(program, read_inputs(sources_of(program.pre), take, whole), model.run)
    else:
        arrays = feeds(model.inputs, take, blobs)
        answer = model.run(arrays)
        first = next(iter(arrays.values()), None)
        batch = first.shape[0] if first is not None and first.ndim else 1
        if program is None or not program.pre:
            return ended(answer, batch, batch, program, limits)
        # Past `pre`: what it would have made was given, so `post` may read it.
        named = {name: found for name, found in {**arrays, **answer}.items() if isinstance(found, np.ndarray)}
        answer = finish(program, {name: Stacked(found) for name, found in named.items() if found.ndim}, bare=False)
    return _packed(answer, batch, batch, limits)


def _go_past(program: Program, model: Model, blobs: tuple[bytes, ...]) -> bool:
    """The input is the model's own tensors."""
    given = {name for tensors in open_blobs(blobs) for name in tensors}
    return goes_past(program.pre, [entry.name for entry in model.inputs], given)


def ended(results: Mapping[str, Any], rows: int, batch: int, program: Program | None, limits: ExecLimits) -> Outcome:
    """What becomes of a run of `batch` rows, as far as these `rows` of it go. Raises `RunFailed`."""
    if program is not None:
        given = {name: Stacked(found) for name, found in results.items() if isinstance(found, np.ndarray)}
        results = finish(program, {**given}, bare=False)
    return _packed(results, rows, batch, limits)


def _packed(answer: Mapping[str, Any], rows: int, batch: int, limits: ExecLimits) -> Outcome:
    size = answer_bytes(answer)
    if size > limits.output_bytes_max:
        raise RunFailed(
            orders.OUTPUT_TOO_LARGE, f"the outputs take {size} bytes, the limit is {limits.output_bytes_max}"
        )
    return Outcome(pack_answer(answer), rows, batch)


def measure(model: Model, blobs: tuple[bytes | memoryview, ...], limits: ExecLimits) -> Outcome:
    """`seconds` float64 [runs]: how long each bare run of the runtime took, the first one not counted."""
    arrays = feeds(model.inputs, (), blobs)
    model.run(arrays)
    took: list[float] = []
    end = time.perf_counter() + limits.measured_seconds_max
    while len(took) < limits.measured_runs_max and (time.perf_counter() < end or len(took) < 3):
        before = time.perf_counter()
        model.run(arrays)
        took.append(time.perf_counter() - before)
    return Outcome(pack({"seconds": np.array(took)}), len(took), 1)


def evaluate(
    model: Model, wanted: Rows, stream: io.TextIOBase, limits: ExecLimits, program: Program | None = None
) -> Outcome:
    """Predict every matching row and count predictions against labels: `counts` [classes, classes], `rows` [1].

    Raises `RunFailed`, MemoryError.
    """
    table = rows.read_table(stream, limits)
    keep = rows.matching(table, wanted.where)
    matrix = rows.features(table, wanted, keep)
    actual = rows.labels(table, wanted, keep, limits.evaluate_classes_max)
    if program is not None and program.pre:
        source = _single_table(program)
        values, step = matrix[:, _places(source, rows.feature_names(table, wanted))], limits.evaluate_batch_rows
        named = source.name
    else:
        entry, step = _single_input(model, matrix.shape[1], limits)
        values, named = cast(entry.name, matrix, entry.dtype), entry.name
    parts = [_predict(model, named, values[start : start + step], program) for start in range(0, len(values), step)]
    predicted = rows.whole_labels(
        np.concatenate(parts) if parts else np.zeros(0), limits.evaluate_classes_max, "the model's output 'label'"
    )
    known = rows.known_classes(table, wanted, limits.evaluate_classes_max)
    if predicted.max(initial=0) >= known:  # further classes would be room to write a row's cells into
        raise RunFailed(orders.UNFIT_MODEL, "the model calls classes that the label column does not have")
    classes = max(known, _declared_classes(model, limits))
    counts = rows.confusion(actual, predicted, classes)
    return Outcome(_counted({"counts": counts}, len(values)), len(values), min(step, max(len(values), 1)))


def statistics(wanted: Rows, stream: io.TextIOBase, limits: ExecLimits) -> Outcome:
    """`mean` float64 [features] over the matching rows. Raises `RunFailed`, also for no matching row."""
    table = rows.read_table(stream, limits)
    matrix = rows.features(table, wanted, rows.matching(table, wanted.where))
    if not len(matrix):
        raise RunFailed(orders.NO_ROWS, "no row meets the conditions")
    # The number of rows is the answer's weight; as a tensor it would be averaged with the means.
    return Outcome(pack({"mean": rows.means(matrix)}), len(matrix), len(matrix))


def cohort(wanted: Rows, stream: io.TextIOBase, limits: ExecLimits) -> Outcome:
    """Which rows meet the conditions, for the owner's policy alone: `mask` uint8 [all rows], `rows` [1].

    Raises `RunFailed`.
    """
    table = rows.read_table(stream, limits)
    mask = rows.matching(table, wanted.where)
    count = int(mask.sum())
    return Outcome(_counted({"mask": mask.astype(np.uint8)}, count), count, max(count, 1))


def _counted(named: dict[str, Array], count: int) -> bytes:
    return pack({**named, "rows": np.array([count], dtype=np.int64)})


def _single_input(model: Model, width: int, limits: ExecLimits) -> tuple[Declared, int]:
    """The model's one input and how many rows it takes at a time."""
    if len(model.inputs) != 1:
        raise RunFailed(orders.UNFIT_MODEL, f"evaluate needs a model with one input, this one has {len(model.inputs)}")
    entry = model.inputs[0]
    if not entry.dtype:
        raise RunFailed(orders.UNFIT_MODEL, f"model input {entry.name!r} is {entry.original}, not numbers")
    if entry.shape is None:
        return entry, limits.evaluate_batch_rows
    if len(entry.shape) != 2 or entry.shape[1] not in (None, width):
        declared = ", ".join("any" if size is None else str(size) for size in entry.shape)
        raise RunFailed(
            orders.BAD_SHAPE, f"model input {entry.name!r}: expected shape [{declared}], the rows have {width} features"
        )
    if entry.shape[0] not in (None, 1):
        raise RunFailed(orders.UNFIT_MODEL, f"evaluate needs a free batch size, the model fixes {entry.shape[0]}")
    return entry, entry.shape[0] or limits.evaluate_batch_rows


def _single_table(program: Program) -> Source:
    """The one input of a model that declares how rows become its tensors."""
    sources = sources_of(program.pre)
    if len(sources) != 1 or sources[0].kind != "rows":
        raise RunFailed(orders.UNFIT_MODEL, "evaluate needs a model that takes rows and nothing else")
    return sources[0]


def _places(source: Source, names: Sequence[str]) -> list[int]:
    """Which of the cabinet's features the model takes, in its order: those it names, or all."""
    if missing := [name for name in source.columns if name not in names]:
        raise RunFailed(orders.BAD_COLUMN, f"the model takes a column {missing[0]!r}, which is no feature here")
    return [names.index(name) for name in source.columns] if source.columns else list(range(len(names)))


def _predict(model: Model, name: str, batch: Array, program: Program | None) -> Array:
    """The `label` output for one batch, [rows]."""
    try:
        if program is not None and program.pre:
            answer, _ = run_program(program, Inputs({name: Stacked(batch)}, len(batch)), model.run)
        elif program is not None:
            results = model.run({name: batch})
            answer = finish(program, {key: Stacked(found) for key, found in results.items()}, bare=False)
        else:
            answer = model.run({name: batch})
    except RunFailed:
        raise RunFailed(orders.RUN_FAILED, "the model failed on the rows (its own words are withheld)") from None
    labels = answer.get("label")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iufb" or labels.size != len(batch):
        raise RunFailed(orders.UNFIT_MODEL, "evaluate needs a model with a numeric output 'label', one per row")
    return labels.reshape(-1)


def _declared_classes(model: Model, limits: ExecLimits) -> int:
    """How many classes the output `probabilities` declares: sites that miss a class still give equal shapes."""
    for entry in model.outputs:
        if entry.name == "probabilities" and entry.shape is not None and len(entry.shape) == 2:
            return min(entry.shape[1] or 0, limits.evaluate_classes_max)
    return 0
