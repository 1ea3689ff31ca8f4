"""What a receipt shows and does not show, in plain words.

Rule: nothing is said to be shown unless a check of this report passed for it.
Pure: no I/O, no clock.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dimnode.audit.case import Case
from dimnode.audit.findings import Check
from dimnode.records.envelope import Record
from dimnode.records.ids import short
from dimnode.records.kinds import KINDS

_WORDS_OF_RULE = {
    "R-TALLY": "the count was repeated from the answers in the file and is the same",
    "R-AGGREGATE": "the total was computed again from the contributions in the file and is the same",
    "R-METER": "what could be billed was counted again, at the price that the models' publishers signed",
}


def printable(text: str) -> str:
    """What a stranger wrote, made harmless: a terminal must not obey it."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(text: str) -> str:
    """Free text of a stranger, so that nobody takes it for words of this report."""
    return '"' + printable(text).replace('"', "'") + '"'


def shown_lines(case: Case, checks: Sequence[Check]) -> list[str]:
    """Who signed what, in file order, then what was computed again."""
    lines = [line for record in case.receipt.records.values() if (line := _signed_line(case, record))]
    for code, words in _WORDS_OF_RULE.items():
        if {check.outcome for check in checks if check.code == code} == {"pass"}:
            lines.append(words)
    return lines


def not_checked_lines(case: Case | None, checks: Sequence[Check]) -> list[str]:
    """What was not checked here, then what the owner says that it did not check."""
    lines = [f"{check.code} {check.subject}: {check.why}" for check in checks if check.outcome == "not-checked"]
    if case is not None and case.root.kind == "verdict":
        lines += [f"the owner itself names as unchecked: {printable(it)}" for it in case.root.payload["unchecked"]]
    return lines


def not_shown_lines(case: Case | None) -> list[str]:
    """What no signature can show. Always at least: that a model ran, whose keys these are, when it was."""
    lines = ["that a model really ran: a signature says who answers for a result, not how it was made"]
    if case is None:
        return [*lines, "whose keys these are", "when it happened"]
    signers = {record.by for record in case.receipt.records.values()}
    unknown = len(signers - case.names.keys())
    if unknown:
        count = f"{unknown} of {len(signers)} keys are not in your list"
        lines.append(f"that the keys belong to the people you think: {count}")
    lines.append("when it happened: times are what each signer's clock said" + _clock_note(case))
    if case.root.kind == "verdict":
        lines.append("that the owner kept every answer that it received")
        voters = Counter(record.by for record in case.answers if record.id in case.counted)
        if case.spec is not None and case.spec.payload["pattern"] == "comparative" and len(voters) < voters.total():
            peer, votes = voters.most_common(1)[0]
            lines.append(f"that the votes are independent: {case.name(peer)} gave {votes} of {voters.total()}")
        if case.spec is not None and case.spec.by != case.root.by:
            lines.append("that the submitter chose this owner: the spec names none")
    else:
        lines.append("what the job asked for: a refusal alone does not carry the spec")
    return lines


def _signed_line(case: Case, record: Record) -> str:
    payload, signer, place = record.payload, case.name(record.by), case.place(record)
    match record.kind:
        case "verdict":
            kept = len(case.counted)
            dissent = sum(len(step["dissent"]) for step in payload["steps"])
            dissenting = f", {dissent} of them dissenting" if dissent else ""
            reason = f": {quoted(payload['reason'])}" if payload.get("reason") else ""
            counted = f"{_plural(kept, 'answer')} counted{dissenting}"
            words = f"the verdict: {payload['status']} by {payload['rule']}, {counted}{reason}"
        case "spec":
            words = f"the spec: {payload['pattern']}, {_plural(len(payload['tasks']), 'step')}, tier {_tier(payload)}"
        case "manifest":
            words = f"the manifest of model {quoted(payload['name'])} {quoted(payload['version'])}"
        case "lease":
            executor = case.name(payload["executor"])
            words = f"the lease of task {payload['task']}, epoch {payload['epoch']}, to {executor}"
            words += ", which led to nothing" if record.id in case.root.payload.get("abandoned", []) else ""
        case "answer":
            words = f"the answer to task {payload['task']}, epoch {payload['epoch']}: {payload['status']}"
            words += f", model {_model_name(case, payload['model'])}" if "model" in payload else ""
        case "ruling":
            why = f"refusal ({payload['code']}: {quoted(payload['reason'])})"
            decision = "permission" if payload["allowed"] else why
            words = f"a {decision} for task {payload['task']} on cabinet {quoted(payload['cabinet'])}"
        case "policy":
            words = f"the policy of cabinet {quoted(payload['cabinet'])}, minimum cohort {payload['min_cohort']}"
        case _:
            return ""
    return f"{signer} signed {printable(words)} ({place})"  # a stranger wrote names and reasons


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _model_name(case: Case, model: bytes) -> str:
    manifest = case.find(model)
    if manifest is None or manifest.kind != "manifest":
        return f"…{short(model)}"
    return f"{quoted(manifest.payload['name'])} {quoted(manifest.payload['version'])}"


def _tier(spec: Mapping[str, Any]) -> str:
    """How many had to agree, and how closely: a comparator may be so wide that anything agrees."""
    if "quorum" not in spec:
        return str(spec["tier"])
    rule = spec.get("comparator", {"kind": "exact"})
    numbers = [f"{key} {number}" for key, number in rule.items() if type(number) is int]
    return f"{spec['tier']} {spec['quorum']['k']} of {spec['quorum']['n']}, {' '.join([rule['kind'], *numbers])}"


def _clock_note(case: Case) -> str:
    """A note, never a failure: clocks differ."""
    for record in case.receipt.records.values():
        for parent in record.payload.get("parents", []) if record.kind in ("verdict", "answer", "ruling") else []:
            found = case.find(parent)
            if found is not None and found.kind in KINDS and found.payload["at_ms"] > record.payload["at_ms"]:
                return f" ({case.place(record)} is stamped before {case.place(found)}, on which it stands)"
    return ""
