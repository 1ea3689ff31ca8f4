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
from dimnode.records.tensors import Tensor, decode_tensors
from dimnode.records.transforms import goes_past, of_numbers


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
    """How many rows an answer may be of: as many items as one of its inputs has, or as were evaluated."""
    answer = entry.answer
    try:
        task = case.terms["tasks"][case.step(answer)]
        if task["op"] == "evaluate":
            blob = case.output_of(answer)
            return None if blob is None else frozenset(_told(decode_tensors(blob)))
        found: set[int] = set()
        for ref in answer.payload["inputs"]:
            cid = case.cid_of(ref)
            blob = None if cid is None else case.receipt.blobs.get(cid, case.handed_in.get(cid))
            if blob is None:
                return None
            tensors = decode_tensors(blob)
            found.update(_items(tensors, _takes_files(task, entry.manifest.payload, tensors)))
        return frozenset(found)
    except PeerFault:  # no tensors: then nobody can say
        return None


def _told(tensors: Sequence[Tensor]) -> Iterator[int]:
    """The sites' own count, which R-AGGREGATE adds up."""
    for tensor in tensors:
        if tensor.name == "rows" and tensor.dtype == "int64" and tensor.items == 1:
            yield struct.unpack("<q", tensor.raw)[0]


def _takes_files(task: Mapping[str, Any], said: Mapping[str, Any], tensors: Sequence[Tensor]) -> bool:
    """Whether the model is given files or texts: then a picture of a million bytes is not a million rows."""
    pre, own = said.get("pre", ()), [port[0] for port in said["inputs"]]
    past = "take" not in task and goes_past(pre, own, {tensor.name for tensor in tensors})
    return not of_numbers(pre) and not past


def _items(tensors: Sequence[Tensor], files: bool) -> Iterator[int]:
    """Of items of unequal size there are as many as sizes; a row of bytes without sizes may be one file, and is one
    where the model takes files."""
    sized = {tensor.name.removesuffix(SIZES) for tensor in tensors if tensor.name.endswith(SIZES)}
    for tensor in tensors:
        if tensor.name in sized:
            continue
        may_be_file = tensor.dtype == "uint8" and len(tensor.shape) == 1
        if may_be_file:
            yield 1
        if not (may_be_file and files):
            yield tensor.shape[0] if tensor.shape else 1
