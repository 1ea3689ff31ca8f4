"""What answers of a model that is for sale could be billed for: units, and the price that was agreed.

Rule: nothing new is agreed or claimed for it. A lease names its job, the job's spec a manifest by its hash, and that
manifest, which its publisher signed, the price; the answer, which its executor signed, says of how many rows it is.
What the price counts is counted again where the inputs are here. Pure: no I/O, no clock.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dimnode.audit.case import Case
from dimnode.audit.findings import Findings
from dimnode.errors import PeerFault
from dimnode.records.envelope import Record
from dimnode.records.items import SIZES
from dimnode.records.plan import local_take
from dimnode.records.tensors import Tensor, decode_tensors
from dimnode.records.transforms import goes_past, sources_of

Given = Mapping[str, Tensor]
"""The tensors of one blob by name."""
Take = tuple[str, int, str, int, int]


@dataclass(frozen=True, slots=True)
class Metered:
    """One answer that counts: so many `unit`s, answer or row, at `micro` millionths of `currency` each."""

    answer: Record
    manifest: Record
    unit: str
    units: int
    micro: int
    currency: str


def metered(case: Case) -> list[Metered]:
    """Of each answer that the verdict counts to a step whose model has a price, by task."""
    found = []
    for answer in case.good_answers() if case.spec is not None else ():
        manifest = case.find(answer.payload.get("model", b""))
        if answer.id not in case.counted or manifest is None or manifest.kind != "manifest":
            continue
        if (price := manifest.payload.get("price")) is not None:
            units = 1 if price["unit"] == "answer" else answer.payload.get("weight", 0)
            found.append(Metered(answer, manifest, price["unit"], units, price["micro"], price["currency"]))
    return found


def check_metering(case: Case, findings: Findings) -> None:
    """One check for each answer that could be billed; none for a job of models without a price."""
    for entry in metered(case):
        place = case.place(entry.answer)
        rows = _rows(case, entry) if entry.unit == "row" else frozenset({1})
        if not entry.units:
            findings.judge("R-METER", place, ["the price is for a row, and the answer does not say how many it has"])
        elif rows is None:
            findings.skip("R-METER", place, f"it bills {entry.units} rows, and what they were counted from is not here")
        else:
            findings.judge("R-METER", place, _problems(entry.units, rows))


def _problems(units: int, rows: frozenset[int]) -> Iterator[str]:
    if units not in rows:
        yield f"it bills {units} rows, and what it was given has {' or '.join(map(str, sorted(rows)))}"


def _rows(case: Case, entry: Metered) -> frozenset[int] | None:
    """How many rows an answer may be of: as many items as an input of the model has, or as were evaluated."""
    step = case.step(entry.answer)
    try:
        if case.terms["tasks"][step]["op"] == "evaluate":
            blob = case.output_of(entry.answer)
            return None if blob is None else frozenset(_told(decode_tensors(blob)))
        opened = []
        for ref in entry.answer.payload["inputs"]:
            blob = case.blob_of(ref)
            if blob is None:
                return None
            opened.append({tensor.name: tensor for tensor in decode_tensors(blob)})
        return _items_of_inputs(entry.manifest.payload, local_take(case.terms, step), opened)
    except PeerFault:  # no tensors: then nobody can say
        return None


def _told(tensors: Sequence[Tensor]) -> Iterator[int]:
    """The sites' own count, which R-AGGREGATE adds up."""
    for tensor in tensors:
        if tensor.name == "rows" and tensor.dtype == "int64" and tensor.items == 1:
            yield struct.unpack("<q", tensor.raw)[0]


def _items_of_inputs(said: Mapping[str, Any], take: Sequence[Take], opened: Sequence[Given]) -> frozenset[int] | None:
    """The items of each input of the model, found as an executor finds them; None where one of them is not there.

    What else the blobs hold is not counted: it was not run on.
    """
    pre, own = said.get("pre", ()), [port[0] for port in said["inputs"]]
    past = not take and goes_past(pre, own, {name for tensors in opened for name in tensors})
    kinds = (
        {source.name: source.kind for source in sources_of(pre)} if pre and not past else dict.fromkeys(own, "tensor")
    )
    taken = {name: (opened[source], tensor) for name, source, tensor, _, _ in take if source < len(opened)}
    found = set()
    for name, kind in kinds.items():
        tensors, key = taken.get(name) or (({}, "") if take else _by_name(name, len(kinds) == 1, opened))
        if key not in tensors:
            return None
        found.add(_items(tensors, key, files=kind not in ("rows", "tensor")))
    return frozenset(found)


def _by_name(name: str, only: bool, opened: Sequence[Given]) -> tuple[Given, str]:
    """Without a mapping: the tensor of this name, or the only thing for the only input."""
    things = [(tensors, key) for tensors in opened for key in tensors if not key.endswith(SIZES)]
    named = [thing for thing in things if thing[1] == name] or (things if only and len(things) == 1 else [])
    return named[0] if named else ({}, "")


def _items(tensors: Given, name: str, *, files: bool) -> int:
    """Of byte strings there are as many as sizes, without sizes it is one, however long; else the first axis counts."""
    shape = tensors[name].shape
    if not files:
        return shape[0] if shape else 1
    sizes = tensors.get(name + SIZES)
    return 1 if sizes is None else sizes.items
