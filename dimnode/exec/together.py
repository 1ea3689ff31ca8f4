"""Several orders in one run of their model, and each one's part of what comes out. Runs inside a worker.

Rule: a batch changes no answer beyond float rounding. The first batches of a model are run one by one as well and
compared: a model whose rows are not independent is found out before anybody gets an answer of it, and is never batched
again in this worker. What cannot share a run (another shape, a bad input, a fault) is run alone, so that one bad input
costs nobody else anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec.mapping import Array, Declared, feeds
from dimnode.exec.operations import Outcome, ended, infer
from dimnode.exec.orders import Take
from dimnode.exec.runtimes.base import Model
from dimnode.exec.transforms.program import Program
from dimnode.limits import ExecLimits

PROOFS: Final = 2
"""So many batches are compared with single runs before a model is believed."""
RTOL: Final = 1e-3
ATOL_OF_LARGEST: Final = 1e-4
"""Relative to the largest value of an output, as float32 results differ by at most 1e-6 of it between batch sizes."""

Part = Outcome | RunFailed | MemoryError


@dataclass(slots=True)
class Trust:
    """Whether this worker's model may be batched: `proofs` batches agreed with single runs; `off`: never again."""

    proofs: int = 0
    off: bool = False


def may_batch(declared: Sequence[Declared]) -> bool:
    """The first dimension of everything is free (or nothing is said of it)."""
    return all(entry.shape is None or (entry.shape and entry.shape[0] is None) for entry in declared)


def infer_together(
    model: Model,
    program: Program | None,
    take: tuple[Take, ...],
    inputs: Sequence[tuple[bytes, ...]],
    trust: Trust,
    limits: ExecLimits,
) -> list[Part]:
    """One part per order, in their order: what it would have got alone. Its `batch` says how many rows ran with it.

    A model that declares transforms before it makes its own batches, of the rows in one order, and is not batched here.
    """
    if program is not None and program.pre:
        return [_whole(model, program, take, blobs, limits) for blobs in inputs]
    parts: dict[int, Part] = {}
    fed: dict[int, Mapping[str, Array]] = {}
    groups: dict[Any, list[int]] = {}
    for place, blobs in enumerate(inputs):
        try:
            fed[place] = feeds(model.inputs, take, blobs)
        except (RunFailed, MemoryError) as fault:
            parts[place] = fault
        else:
            groups.setdefault(_kind(fed[place]), []).append(place)
    groups.pop(None, None)
    free = not trust.off and may_batch((*model.inputs, *model.outputs))
    for places in groups.values() if free else ():
        if len(places) > 1:
            found = _run(model, program, [fed[place] for place in places], trust, limits)
            parts.update(zip(places, found, strict=False))
    alone = fed.keys() - parts.keys()
    parts.update({place: _alone(model, program, fed[place], limits) for place in sorted(alone)})
    return [parts[place] for place in range(len(inputs))]


def _kind(arrays: Mapping[str, Array]) -> Any:
    """Equal for what can be put one behind the other; None for what has no common first dimension."""
    rows = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(rows) != 1 or min(rows) < 1:
        return None
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items())


def _whole(
    model: Model, program: Program, take: tuple[Take, ...], blobs: tuple[bytes, ...], limits: ExecLimits
) -> Part:
    try:
        return infer(model, take, blobs, limits, program)
    except (RunFailed, MemoryError) as fault:
        return fault


def _run(
    model: Model, program: Program | None, fed: Sequence[Mapping[str, Array]], trust: Trust, limits: ExecLimits
) -> list[Part]:
    """Run them as one; an empty list when they have to be run alone."""
    counts = [len(next(iter(arrays.values()))) for arrays in fed]
    rows = sum(counts)
    try:
        joined = {name: np.concatenate([arrays[name] for arrays in fed]) for name in fed[0]}
        results = model.run(joined)
    except (RunFailed, MemoryError):
        return []  # one of them is at fault; alone, each gets what it deserves
    if not all(isinstance(found, np.ndarray) and found.ndim and len(found) == rows for found in results.values()):
        trust.off = True
        return []
    ends = np.cumsum(counts)
    split = [
        {name: found[end - count : end] for name, found in results.items()}
        for count, end in zip(counts, ends, strict=True)
    ]
    if trust.proofs < PROOFS:
        return _proven(model, program, fed, split, trust, limits)
    return [_packed(part, count, rows, program, limits) for part, count in zip(split, counts, strict=True)]


def _proven(
    model: Model,
    program: Program | None,
    fed: Sequence[Mapping[str, Array]],
    split: Sequence[Mapping[str, Array]],
    trust: Trust,
    limits: ExecLimits,
) -> list[Part]:
    """Single runs of the same orders: they are the answers, and the batch is judged by them."""
    parts: list[Part] = []
    agreed = True
    for arrays, shared in zip(fed, split, strict=True):
        try:
            single = model.run(arrays)
        except (RunFailed, MemoryError) as fault:
            parts.append(fault)
            continue
        agreed = agreed and all(_equal(single[name], shared[name]) for name in shared)
        count = len(next(iter(arrays.values())))
        parts.append(_packed(single, count, count, program, limits))
    trust.proofs += agreed
    trust.off = trust.off or not agreed
    return parts


def _equal(single: Any, shared: Array) -> bool:
    if not isinstance(single, np.ndarray) or single.shape != shared.shape or single.dtype != shared.dtype:
        return False
    if single.dtype.kind != "f":
        return bool(np.array_equal(single, shared))
    one, other = single.astype(np.float64), shared.astype(np.float64)
    largest = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=RTOL, atol=ATOL_OF_LARGEST * largest, equal_nan=True))


def _alone(model: Model, program: Program | None, arrays: Mapping[str, Array], limits: ExecLimits) -> Part:
    first = next(iter(arrays.values()), None)
    count = first.shape[0] if first is not None and first.ndim else 1
    try:
        return _packed(model.run(arrays), count, count, program, limits)
    except (RunFailed, MemoryError) as fault:
        return fault


def _packed(results: Mapping[str, Any], count: int, rows: int, program: Program | None, limits: ExecLimits) -> Part:
    try:
        return ended(results, count, rows, program, limits)
    except (RunFailed, MemoryError) as fault:
        return fault
