"""Answers as people read them: classes by their names, counts as a table.

Rule: names come from the signed manifest in the receipt, and the numbers are shown as they were received.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeGuard

from dimnode.cli.output import counted, facts, plain, say, shown, table, talk
from dimnode.client import read_output
from dimnode.errors import RunFailed
from dimnode.records.ids import peer_text
from dimnode.records.item_rows import as_text
from dimnode.records.items import SIZES
from dimnode.records.plan import step_of
from dimnode.records.receipt import Receipt
from dimnode.records.tensors import decode_tensors
from dimnode.records.transforms import text_names

_COLUMNS_MAX = 24


def labels_of(receipt: Receipt) -> list[str]:
    """What the classes are called, by the model of the last step that has names for them."""
    root = receipt.records[receipt.root]
    parents = root.payload.get("parents", []) if root.kind == "verdict" else []
    spec = receipt.records.get(parents[0]) if parents else None
    if spec is None or spec.kind != "spec":
        return []
    for task in reversed(spec.payload["tasks"]):
        manifest = receipt.records.get(task.get("model", b""))
        if manifest is not None and manifest.kind == "manifest" and manifest.payload["labels"]:
            return list(manifest.payload["labels"])
    return []


def columns_of(receipt: Receipt, heard: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """What the means of a `statistics` job are of: the columns that all sites say their cabinets have.

    heard: by peer and cabinet, as adverts have them; no record of the job states it. Empty where sites differ.
    """
    specs = [record.payload for record in receipt.records.values() if record.kind == "spec"]
    if len(specs) != 1 or any(task["op"] != "statistics" for task in specs[0]["tasks"]):
        return []
    answers = [(record.by, record.payload) for record in receipt.records.values() if record.kind == "answer"]
    found = set()
    for peer, said in answers:
        cabinet = specs[0]["tasks"][step_of(specs[0], said["task"])].get("cabinet", "")
        if said["status"] == "ok":
            found.add(tuple(heard.get(peer_text(peer), {}).get(cabinet, ())))
    return list(found.pop()) if len(found) == 1 else []


def fitting(blob: bytes, columns: Sequence[str]) -> list[str]:
    """These columns when the output is a mean of each: a column of words has none, and is told of all the same."""
    shapes = {tensor.name: tensor.shape for tensor in decode_tensors(blob)}
    return list(columns) if columns and shapes == {"mean": (len(columns),)} else []


def texts_of(receipt: Receipt) -> list[str]:
    """Which tensors of the answer are text, by the manifests of its steps."""
    found = [record for record in receipt.records.values() if record.kind == "manifest"]
    return [name for record in found for name in text_names(record.payload.get("post", ()))]


def listed(blob: bytes, texts: Sequence[str] = ()) -> dict[str, Any] | None:
    """The output as nested lists, None when it is too large for that. Things of unequal size are one list each."""
    try:
        found = read_output(blob)
    except RunFailed:
        return None
    folded: dict[str, Any] = {}
    for name, value in found.items():
        sizes = found.get(name + SIZES)
        if isinstance(value, list) and _add_up(sizes, len(value)):
            starts = accumulate([0, *sizes[:-1]])
            parts = [value[start : start + size] for start, size in zip(starts, sizes, strict=True)]
            folded[name] = [as_text(part) for part in parts] if name in texts else parts
        elif not (name.endswith(SIZES) and name.removesuffix(SIZES) in folded):
            folded[name] = value
    return folded


def _add_up(sizes: Any, whole: int) -> TypeGuard[list[int]]:
    """Any executor may call any tensors by these names."""
    plain_sizes = isinstance(sizes, list) and bool(sizes) and all(type(size) is int and size >= 0 for size in sizes)
    return plain_sizes and sum(sizes) == whole


def weighs_votes(receipt: Receipt) -> bool:
    """Whether the job's rule weighs votes: its tally counts in thousandths, because records hold no fractions."""
    return any(
        record.kind == "spec" and record.payload["rule"]["method"] == "weighted_vote"
        for record in receipt.records.values()
    )


def is_tally(tensors: Mapping[str, Any]) -> bool:
    """A tally's tensors, of a tally's shape; any executor may call any tensors by these names."""
    votes, margin = tensors.get("votes"), tensors.get("margin")
    return set(tensors) == {"label", "margin", "votes"} and (
        isinstance(votes, list) and all(map(_are_whole, votes)) and _are_whole(margin)
    )


def _are_whole(numbers: Any) -> TypeGuard[list[int]]:
    return isinstance(numbers, list) and all(type(number) is int for number in numbers)


def in_votes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A tally in thousandths as the weights were written; anything else as it is."""
    if not is_tally(tensors):
        return dict(tensors)
    votes = [[count / 1000 for count in row] for row in tensors["votes"]]
    return {**tensors, "votes": votes, "margin": [count / 1000 for count in tensors["margin"]]}


def forms(blob: bytes) -> list[str]:
    """What an output holds, one line per tensor, whatever its size."""
    return [f"{shown(tensor.name)}  {tensor.dtype}{list(tensor.shape)}" for tensor in decode_tensors(blob)]


def show_output(
    blob: bytes,
    labels: Sequence[str],
    rows: Sequence[int] = (),
    texts: Sequence[str] = (),
    names: Sequence[str] = (),
    *,
    columns: Sequence[str] = (),
    weighted: bool = False,
) -> None:
    """One output. `rows` are the numbers that the rows had in the input file, or `names` the items' files; `columns`:
    what means are of; `weighted`: a tally is one of weights."""
    tensors = listed(blob, texts)
    if tensors is None:
        for line in forms(blob):
            say(line)
        talk("too large to be shown; the receipt holds it, and Client.result in Python")
        return
    if weighted:
        tensors = in_votes(tensors)
    if are_counts(tensors):
        _show_counts(tensors["counts"], tensors["rows"][0], labels)
        return
    count = _common_rows(tensors)
    cells = [column for name, value in tensors.items() for column in _columns(name, value, labels)] if count else []
    if not 0 < len(cells) <= _COLUMNS_MAX:
        for name, value in tensors.items():
            say(f"{shown(name)}  {json.dumps(plain(value))}")
        return
    numbers: Sequence[Any] = rows if len(rows) == count else range(1, count + 1)
    first = "row"
    for word, called in (("file", names), ("column", fitting(blob, columns))):
        if len(called) == count:
            first, numbers = word, [shown(name) for name in called]
    lines = [[str(number), *(column[1][place] for column in cells)] for place, number in enumerate(numbers)]
    table([first, *(column[0] for column in cells)], lines)


def named_labels(blob: bytes, labels: Sequence[str]) -> list[str] | None:
    """The tensor `label` in words, when there is one and every class has a name."""
    found = (listed(blob) or {}).get("label")
    if isinstance(found, list) and all(isinstance(row, list) and len(row) == 1 for row in found):
        found = [row[0] for row in found]
    if not _are_classes(found, labels):
        return None
    return [labels[number] for number in found or ()]


def are_counts(tensors: Mapping[str, Any]) -> bool:
    """A confusion matrix and its number of rows; any executor may call any tensors by these names."""
    if set(tensors) != {"counts", "rows"}:
        return False
    counts, rows = tensors["counts"], tensors["rows"]
    square = isinstance(counts, list) and all(isinstance(line, list) and len(line) == len(counts) for line in counts)
    plain_cells = square and all(type(cell) is int for line in counts for cell in line)
    return plain_cells and isinstance(rows, list) and len(rows) == 1


def counts_summary(counts: Sequence[Sequence[int]]) -> list[tuple[str, str]]:
    """Rates of a confusion matrix [actual, predicted]; sensitivity is of class 1, as usual with two classes."""
    total = sum(map(sum, counts))
    right = sum(counts[place][place] for place in range(len(counts)))
    pairs = [("correct", _rate(right, total))]
    if len(counts) == 2:
        pairs.append(("sensitivity", _rate(counts[1][1], sum(counts[1]))))
        pairs.append(("specificity", _rate(counts[0][0], sum(counts[0]))))
    return pairs


def _show_counts(counts: Sequence[Sequence[int]], rows: int, labels: Sequence[str]) -> None:
    names = [labels[place] if place < len(labels) else str(place) for place in range(len(counts))]
    lines = [[f"is {name}", *map(str, line)] for name, line in zip(names, counts, strict=True)]
    table([f"of {counted(rows, 'row')}", *(f"called {name}" for name in names)], lines)
    facts(counts_summary(counts))


def _rate(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %  ({part} of {whole})" if whole else "no such rows"


def _common_rows(tensors: Mapping[str, Any]) -> int:
    """How many rows all tensors have; 0 when they do not have the same."""
    counts = {len(value) if isinstance(value, list) else 0 for value in tensors.values()}
    return counts.pop() if len(counts) == 1 else 0


def _columns(name: str, value: Sequence[Any], labels: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The columns that one tensor becomes: header and cells."""
    if isinstance(value[0], list) and len({len(row) for row in value}) > 1:
        return [(name, [json.dumps(plain(row)) for row in value])]
    if not isinstance(value[0], list):
        if name == "label" and _are_classes(value, labels):
            return [(name, [labels[number] for number in value])]
        return [(name, [shown(number) for number in value])]
    width = len(value[0])
    if name == "label" and width == 1 and _are_classes([row[0] for row in value], labels):
        return [(name, [labels[row[0]] for row in value])]
    if width and isinstance(value[0][0], list):
        return [(name, [json.dumps(plain(row)) for row in value])]
    by_class = width == len(labels)
    headers = [(_class_header(name, labels[place]) if by_class else f"{name}[{place}]") for place in range(width)]
    return [(headers[place], [shown(row[place]) for row in value]) for place in range(width)]


def _class_header(name: str, label: str) -> str:
    return f"p({label})" if name == "probabilities" else f"{name} {label}"


def _are_classes(value: Any, labels: Sequence[str]) -> bool:
    return bool(labels) and isinstance(value, list) and all(type(n) is int and 0 <= n < len(labels) for n in value)
