"""Receipts: draw one as a tree, or make a copy that shows nothing of inputs and outputs. Offline.

Rule: what is drawn is what the records say; whether they fit together is `dim verify`'s to judge.
"""

import argparse
from collections.abc import Iterator, Mapping
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import Any

from dimnode.audit.case import Case
from dimnode.audit.files import read_receipt, read_trust
from dimnode.audit.metering import Metered, metered
from dimnode.cli.output import bold, clock, counted, say, say_json, shown, size_text, talk
from dimnode.cli.results import (
    are_counts,
    counts_summary,
    forms,
    in_votes,
    is_tally,
    labels_of,
    listed,
    weighs_votes,
)
from dimnode.errors import ConfigError, PeerFault, RunFailed
from dimnode.records.envelope import Record
from dimnode.records.ids import RecordId, cid_text
from dimnode.records.links import blob_refs, record_links
from dimnode.records.receipt import Receipt, parse_receipt

_ROWS_TOLD = 5


def show(chosen: argparse.Namespace) -> int:
    """The record tree, then what was concluded. Nothing is verified beyond each record's signature."""
    trust = read_trust(chosen.trust) if chosen.trust else {}
    case = Case(_parsed(chosen.file), {}, trust)
    if chosen.json:
        records = [_record_map(case, record) for record in _records(case)]
        say_json({"root": case.receipt.root, "records": records, "metered": list(_billed(case))})
        return 0
    for line in _tree(case, case.root.id):
        say(line)
    say()
    for line in (*_conclusion(case), *_bill(case)):
        say(line)
    receipt = case.receipt
    sizes = (("record", len(receipt.records)), ("opening", len(receipt.openings)), ("blob", len(receipt.blobs)))
    parts = ", ".join(counted(size, noun) for noun, size in sizes)
    redacted = not receipt.openings and any(blob_refs(record) for record in receipt.records.values())
    say(f"{parts}{' (redacted: inputs and outputs were taken out)' if redacted else ''}")
    if absent := len({opening.cid for opening in receipt.openings.values()} - receipt.blobs.keys()):
        has = "is 1 blob" if absent == 1 else f"are {absent} blobs"
        say(f"there {has} that the file does not hold: too large for it, or its node had let go of what is old")
    talk(f"every signature holds; whether the records fit together says: dim verify {chosen.file}")
    return 0


def redact(chosen: argparse.Namespace) -> int:
    """A copy without openings and blobs."""
    from dimnode.audit.redact import redact as without_blobs

    raw = read_receipt(chosen.file)
    try:
        shorter = without_blobs(raw)
    except PeerFault as fault:
        raise _no_receipt(chosen.file, fault) from None
    try:
        with chosen.out.open("xb") as file:
            file.write(shorter)
    except OSError as error:
        cause = error.strerror or ""
        raise ConfigError("E-cli-53", f"cannot write {chosen.out}", cause, "name a file that does not exist") from None
    if chosen.json:
        say_json({"file": str(chosen.out), "bytes": len(shorter), "bytes_before": len(raw)})
    else:
        talk(f"{chosen.out}: {len(shorter)} of {len(raw)} bytes; inputs and outputs are out, every signature is kept")
    return 0


def _parsed(path: Path) -> Receipt:
    try:
        return parse_receipt(read_receipt(path))
    except PeerFault as fault:
        raise _no_receipt(path, fault) from None


def _no_receipt(path: Path, fault: PeerFault) -> RunFailed:
    return RunFailed("E-cli-54", f"{path} is not a whole receipt", fault.rule, f"dim verify {path}")


def _records(case: Case) -> list[Record]:
    return list(case.receipt.records.values())


def _record_map(case: Case, record: Record) -> dict[str, Any]:
    links = [case.numbers[link] for link in record_links(record) if link in case.numbers]
    fields: dict[str, Any] = {"number": case.numbers[record.id], "id": record.id, "kind": record.kind, "by": record.by}
    fields |= {"at_ms": record.payload["at_ms"], "links": links, "says": _words(case, record)}
    if record.kind == "answer":
        fields |= {key: _plain(record.payload[key]) for key in ("runtime", "timing", "usage")}
        fields["sandbox"] = record.payload["sandbox"]
    return fields


def _plain(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a stranger's key of an experiment would hold."""
    return {key: value for key, value in claims.items() if type(value) in (str, int)}


def _tree(case: Case, root: RecordId) -> Iterator[str]:
    """Depth first, as in the file; a record that was drawn already is only named. A stranger's may be as deep as it is
    long."""
    drawn: set[RecordId] = set()
    waiting = [(root, "", "")]
    while waiting:
        identity, stem, mark = waiting.pop()
        record = case.find(identity)
        if record is None:
            yield f"{stem}{mark}…{cid_text(identity)[-8:]} is not in this file"
            continue
        number = case.numbers[identity]
        if identity in drawn:
            yield f"{stem}{mark}{record.kind}  see {number}"
            continue
        drawn.add(identity)
        signed = f"signed by {shown(case.name(record.by))} {clock(record.payload['at_ms'])}"
        yield f"{stem}{mark}{number} {bold(record.kind)}  {shown(_words(case, record))}  · {signed}"
        below = stem + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
        marks = chain(["└─ "], repeat("├─ "))
        waiting += [(link, below, branch) for link, branch in zip(reversed(record_links(record)), marks, strict=False)]


def _words(case: Case, record: Record) -> str:
    """What a record says, briefly."""
    said = record.payload
    match record.kind:
        case "verdict":
            reason = f" ({said['code']}: {said.get('reason', '')})" if "code" in said else ""
            return f"{said['status']} by rule {said['rule']}{reason}"
        case "spec":
            tier = said["tier"] + (f" {said['quorum']['k']} of {said['quorum']['n']}" if "quorum" in said else "")
            label = f", {said['label']!r}" if "label" in said else ""
            steps = counted(len(said["tasks"]), "step")
            return f"{said['pattern']}, {steps}, tier {tier}{label}"
        case "manifest":
            return f"{said['name']} {said['version']}, {said['licence'] or 'no licence stated'}"
        case "lease":
            return f"task {said['task']} epoch {said['epoch']} to {case.name(said['executor'])}"
        case "answer":
            code = f" ({said['code']}: {said.get('error', '')})" if "code" in said else ""
            runtime = said["runtime"]
            engine = f", {runtime['engine']} {runtime['version']}" if runtime else ""
            took = f", {said['timing']['run_us'] / 1000:.1f} ms{_used(said['usage'])}"
            return f"task {said['task']} epoch {said['epoch']}: {said['status']}{code}{took}{engine}, {said['sandbox']}"
        case "ruling":
            decision = "allowed" if said["allowed"] else f"refused ({said['code']}: {said['reason']})"
            return f"task {said['task']} on cabinet {said['cabinet']}: {decision}"
        case "policy":
            operations = ", ".join(said["operations"]) or "nothing"
            columns = said.get("x_where")  # no schema holds it: a stranger may have written anything
            named = isinstance(columns, list) and all(isinstance(column, str) for column in columns)
            where = f", conditions on {', '.join(columns)}" if named and columns else ""
            return f"cabinet {said['cabinet']}: {operations}, minimum cohort {said['min_cohort']}{where}"
        case _:
            return ""


def _used(usage: Mapping[str, Any]) -> str:
    """Processor time, and the worker's peak of memory."""
    graphics = usage.get("x_gpu_bytes")  # no schema holds it: a stranger may have written anything
    memory = f", {size_text(graphics)} on the GPU" if type(graphics) is int else ""
    return f" (CPU {usage['cpu_us'] / 1000:.1f} ms, {size_text(usage['rss_bytes'])}{memory})"


def _conclusion(case: Case) -> Iterator[str]:
    """Tally, sum or agreement in words."""
    if case.root.kind != "verdict" or case.spec is None:
        return
    for step in case.root.payload["steps"]:
        votes, dissent = len(step["supporters"]) + len(step["dissent"]), [_signer(case, a) for a in step["dissent"]]
        against = f"; dissenting: {', '.join(dissent)}" if dissent else ""
        if case.spec.payload["tier"] == "quorum":
            yield f"step {step['task']}: {len(step['supporters'])} of {votes} agree{against}"
        elif case.spec.payload["pattern"] == "comparative":
            side = "are" if len(step["supporters"]) != 1 else "is"
            others = f"; not on every row: {', '.join(dissent)}" if dissent else ""
            yield f"votes: {len(step['supporters'])} of {votes} {side} with the majority on every row{others}"
    blob = case.output_of(case.root)
    if blob is None:
        return
    tensors, labels = listed(blob), labels_of(case.receipt)
    if tensors is None:
        yield f"output: {', '.join(forms(blob))}, too large to be shown"
    elif is_tally(tensors):
        yield from _tally_lines(in_votes(tensors) if weighs_votes(case.receipt) else tensors, labels)
    elif are_counts(tensors):
        rates = ", ".join(f"{name} {rate}" for name, rate in counts_summary(tensors["counts"]))
        yield f"sum over all sites: {counted(tensors['rows'][0], 'row')}; {rates}"
    else:
        shapes = ", ".join(f"{name} ({counted(_length(value), 'row')})" for name, value in tensors.items())
        yield f"output: {shapes}"


def _bill(case: Case) -> Iterator[str]:
    """The same in words."""
    for row in _billed(case):
        each, total = (f"{row[key] / 1e6:g} {shown(row['currency'])}" for key in ("micro", "total_micro"))
        what = f"{counted(row['units'], row['unit'])} of {shown(row['name'])}"
        yield f"metered: {what}, {each} each: {total}; no money moves"


def _billed(case: Case) -> Iterator[dict[str, Any]]:
    """What the answers could be billed for, by model."""
    for model, entries in groupby(sorted(metered(case), key=_model_of), key=_model_of):
        found = list(entries)
        units, first = sum(entry.units for entry in found), found[0]
        row = {"model": model, "name": first.manifest.payload["name"], "unit": first.unit, "units": units}
        yield row | {"micro": first.micro, "currency": first.currency, "total_micro": units * first.micro}


def _model_of(entry: Metered) -> RecordId:
    return entry.manifest.id


def _tally_lines(tensors: Mapping[str, Any], labels: list[str]) -> Iterator[str]:
    """How many rows all voters agree on, and the first rows on which they do not."""
    votes = tensors["votes"]
    split = [row for row, counts in enumerate(votes) if sum(1 for count in counts if count) > 1]
    yield f"tally: {counted(len(votes), 'row')}, {len(votes) - len(split)} unanimous"
    for row in split[:_ROWS_TOLD]:
        counts = ", ".join(f"{_label(labels, place)} {count:g}" for place, count in enumerate(votes[row]) if count)
        yield f"  row {row + 1}: {counts}"
    if len(split) > _ROWS_TOLD:
        yield f"  and {len(split) - _ROWS_TOLD} more"


def _label(labels: list[str], place: int) -> str:
    return shown(labels[place]) if place < len(labels) else str(place)


def _signer(case: Case, identity: bytes) -> str:
    """Who answered, and with which model: in a comparison that is what dissents."""
    record = case.find(identity)
    if record is None:
        return "?"
    manifest = case.find(record.payload.get("model", b""))
    model = f" ({shown(manifest.payload['name'])})" if manifest is not None and manifest.kind == "manifest" else ""
    return shown(case.name(record.by)) + model


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1
