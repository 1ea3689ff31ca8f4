"""What the owner concluded, computed again: steps, votes, sums, averages, agreement of replicas, outputs.

Rule: the verdict is never believed; whatever its rule reads is read again, and equal means equal bytes.
Pure: no I/O, no clock. NumPy only for the averages, and only when it is there.
"""

from collections.abc import Iterator
from typing import Any

from dimnode.audit.case import Case
from dimnode.audit.findings import Findings
from dimnode.consensus.agreement import support
from dimnode.consensus.recompute import Vote, encode_tally_blob, labels_of, sum_counts, tally
from dimnode.errors import PeerFault
from dimnode.records.envelope import Record
from dimnode.records.ids import blob_cid

AGGREGATES = ("sum_counts", "federated_average", "weighted_average")


class MissingError(Exception):
    """What a recomputation needs is not here: no fault, but nothing can be said."""


def check_conclusion(case: Case, findings: Findings) -> None:
    """The verdict's rule, steps and outputs."""
    spec, verdict = case.terms, case.root.payload
    method = spec["rule"]["method"]
    findings.judge("R-RULE", "verdict", [] if verdict["rule"] == method else ["the spec asked for another rule"])
    findings.judge("R-OUTPUT", "verdict", output_problems(case))
    chained = spec["pattern"] == "chained"
    problems = chain_problems(case) if chained else parallel_problems(case)
    if not findings.judge("R-STEPS", "verdict", problems) or not verdict["steps"]:
        return
    if spec["tier"] == "quorum":
        for entry in verdict["steps"]:
            _recompute(findings, "R-TALLY", f"step {entry['task']}", quorum_problems(case, entry))
    if chained:
        return
    wanted = spec.get("min_sites", len(spec["tasks"]))
    found = len(verdict["steps"][0]["supporters"]) + len(verdict["steps"][0]["dissent"])
    findings.judge("R-SITES", "verdict", [] if found >= wanted else [f"{found} contributions, {wanted} are needed"])
    if method in AGGREGATES:
        _recompute(findings, "R-AGGREGATE", "verdict", aggregate_problems(case))
    else:
        _recompute(findings, "R-TALLY", "verdict", vote_problems(case))


def chain_problems(case: Case) -> Iterator[str]:
    """One entry for each decided step, in order; ok exactly when every step has an accepted answer."""
    verdict, spec = case.root.payload, case.terms
    entries, steps = verdict["steps"], len(spec["tasks"])
    accepted = 0
    for place, entry in enumerate(entries):
        if entry["task"] != place or place >= steps:
            yield "the steps are not 0, 1, 2, … of the spec"
            return
        yield from entry_problems(case, entry, step=place)
        if accepted < place:
            yield "a step follows one that has no accepted answer"
        if "accepted" not in entry:
            if entry["supporters"]:
                yield f"step {place} accepts nothing, yet has supporters"
            continue
        accepted += 1
        if spec["tier"] == "signed" and (entry["supporters"] != [entry["accepted"]] or entry["dissent"]):
            yield f"step {place} does not accept exactly one answer"
    if (accepted == steps) != (verdict["status"] == "ok"):
        every = "every" if accepted == steps else "not every"
        yield f"status {verdict['status']}, but {every} step has an accepted answer"


def parallel_problems(case: Case) -> Iterator[str]:
    """One entry that holds every good answer, exactly when the status is ok."""
    verdict = case.root.payload
    if not verdict["steps"]:
        if verdict["status"] == "ok":
            yield "status ok, but nothing was decided"
        return
    entry = verdict["steps"][0]
    if verdict["status"] != "ok":  # or a total that nobody computed would count as computed again
        yield f"status {verdict['status']}, but answers were counted"
    if len(verdict["steps"]) != 1 or entry["task"] != 0 or "accepted" in entry:
        yield "a parallel job has one entry, for task 0, that accepts no single answer"
    elif {*entry["supporters"], *entry["dissent"]} != {answer.id for answer in case.good_answers()}:
        yield "the verdict does not count every good answer that is here"
    yield from entry_problems(case, entry, step=None)


def entry_problems(case: Case, entry: dict[str, Any], step: int | None) -> Iterator[str]:
    """Counted answers are here, are good, belong to the step, and are of different tasks and peers.

    Voters are models, not peers: in the comparative pattern one peer may run several.
    """
    named = entry["supporters"] + entry["dissent"]
    good = {answer.id: answer for answer in (case.good_answers() if step is None else case.good_answers_to(step))}
    answers = [good[identity] for identity in named if identity in good]
    if len(answers) != len(named):
        yield f"step {entry['task']} counts what is no good answer of it that is here"
    if "accepted" in entry and entry["accepted"] not in entry["supporters"]:
        yield f"step {entry['task']} accepts an answer that is not among its supporters"
    if case.terms["pattern"] != "comparative" and len({answer.by for answer in answers}) != len(answers):
        yield f"step {entry['task']} counts a peer twice"
    if len({answer.payload["task"] for answer in answers}) != len(answers):
        yield f"step {entry['task']} counts a task twice"


def quorum_problems(case: Case, entry: dict[str, Any]) -> Iterator[str]:
    """Agreement of the replicas, computed again."""
    spec = case.terms
    answers = [(bytes(a.id), bytes(a.by), _output(case, a)) for a in case.good_answers_to(entry["task"])]
    if len({by for _, by, _ in answers}) != len(answers):
        yield "a peer answers twice, and so agrees with itself or hides what others agree on"
        return
    try:
        agreed = support(answers, spec.get("comparator", {"kind": "exact"}), spec["quorum"]["k"])
    except PeerFault:
        if "accepted" in entry:
            raise
        # What cannot be compared agrees on nothing; but nothing was counted here either, and nobody shall think so.
        raise MissingError("the spec's comparator compares nothing, so there is no agreement to count") from None
    if not agreed.accepted and set(entry["dissent"]) not in (set(), {answer for answer, _, _ in answers}):
        yield "on a split nobody, or everybody, dissents"
    if agreed.accepted != entry.get("accepted"):
        yield "the replicas agree on another answer" if agreed.accepted else "the replicas do not agree"
    elif agreed.accepted and set(agreed.supporters) != set(entry["supporters"]):
        yield "the accepted answer has other supporters"
    elif agreed.accepted and set(agreed.dissenters) != set(entry["dissent"]):
        yield "other replicas dissent"


def vote_problems(case: Case) -> Iterator[str]:
    """Votes counted again: the tally blob, and who supports or dissents."""
    answers = case.good_answers()
    votes = [Vote(answer.by, labels_of(_output(case, answer)), answer.id) for answer in answers]
    counted = tally(votes, _weights_by_answer(case, answers))
    dissent = {identity for row in counted.dissent for identity in row}
    entry = case.root.payload["steps"][0]
    if set(entry["dissent"]) != dissent:
        yield "other answers dissent"
    yield from _same_output(case, encode_tally_blob(counted))


def aggregate_problems(case: Case) -> Iterator[str]:
    """The sum or average of all contributions, computed again."""
    answers = case.good_answers()
    method = case.terms["rule"]["method"]
    if case.root.payload["steps"][0]["dissent"]:
        yield "contributions cannot dissent"
    if method == "sum_counts":
        yield from _same_output(case, sum_counts([(answer.by, _output(case, answer)) for answer in answers]))
        return
    try:
        from dimnode.consensus.tensors import weighted_average  # only here: the verifier runs without NumPy
    except ImportError:
        raise MissingError("needs numpy") from None
    weights = _weights_by_answer(case, answers) or {answer.id: answer.payload.get("weight", 0) for answer in answers}
    parts = [(bytes(answer.by), weights[answer.id], _output(case, answer)) for answer in answers]
    yield from _same_output(case, weighted_average(parts))


def output_problems(case: Case) -> Iterator[str]:
    """A verdict that is not ok has no outputs; a chain's are those of its last accepted answer."""
    verdict, spec = case.root.payload, case.terms
    if verdict["status"] != "ok":
        if verdict["outputs"]:
            yield f"status {verdict['status']} has outputs"
    elif spec["pattern"] == "chained":
        last = case.find(verdict["steps"][-1].get("accepted", b"")) if verdict["steps"] else None
        if last is None or last.payload.get("outputs") != verdict["outputs"]:
            yield "the outputs are not those of the last accepted answer"
    elif len(verdict["outputs"]) != 1:
        yield "a parallel job has one output"
    if verdict["status"] == "refused":
        parents = map(case.find, verdict["parents"])
        if not any(found and found.kind == "ruling" and not found.payload["allowed"] for found in parents):
            yield "status refused, but no refusal is among the parents"


def _weights_by_answer(case: Case, answers: list[Record]) -> dict[bytes, int] | None:
    permille = case.terms["rule"].get("weights_permille")
    return None if permille is None else {answer.id: permille[case.step(answer)] for answer in answers}


def _same_output(case: Case, computed: bytes) -> Iterator[str]:
    """Equal CIDs are equal bytes, so the opening is enough: the verdict's own blob need not be here."""
    outputs = case.root.payload["outputs"]
    if case.root.payload["status"] != "ok" or len(outputs) != 1:  # R-OUTPUT has said what there is to say
        return
    cid = case.cid_of(outputs[0])
    if cid is None:
        raise MissingError("the verdict's output does not open (redacted)")
    if cid != blob_cid(computed):
        yield "computed again, the output is another"


def _output(case: Case, answer: Record) -> bytes:
    blob = case.output_of(answer)
    if blob is None:
        raise MissingError(f"the output of {case.place(answer)} is not here (redacted or left out)")
    return blob


def _recompute(findings: Findings, code: str, subject: str, problems: Iterator[str]) -> None:
    """Outputs come from strangers: what cannot be read fails the check; what is missing leaves it open."""
    found: list[str] = []
    missing = ""
    try:
        for problem in problems:
            found.append(problem)  # one by one: what was found before an exception stands
    except PeerFault as fault:
        found.append(fault.rule)
    except MissingError as error:
        missing = str(error)
    if missing and not found:
        findings.skip(code, subject, missing)
    else:
        findings.judge(code, subject, found)
