"""What the verifier says about a receipt: one coded check per line, and what the checks do and do not show.

Rule: a report never claims more than its checks found; whatever could not be checked stands there by name.
Pure: no I/O, no clock. Codes: docs/receipt.md and docs/errors-verify.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from dimnode.audit import words
from dimnode.audit.case import Case
from dimnode.audit.findings import Check

CODES: Mapping[str, str] = {
    "R-LIMITS": "the file and each of its parts are within their bounds",
    "R-CHECKSUM": "the SHA-256 at the end is that of all bytes before it",
    "R-CANONICAL": "file, envelopes and payloads are in their one encoding",
    "R-SIGNATURE": "each record is signed by the key that its payload names",
    "R-SCHEMA": "each record has exactly the fields of its kind",
    "R-ROOT": "the root is a verdict, or a ruling that refuses",
    "R-NET": "all records belong to one swarm",
    "R-SPEC": "the job's spec is there and sound",
    "R-LEASE": "each lease is the owner's, each answer its executor's, for the same job, task, epoch and inputs",
    "R-EPOCH": "no answer counts that was given under an older lease",
    "R-RULING": "each ruling is the executor's own, under the executor's own policy",
    "R-MODEL": "each answer names the model of its step, whose manifest is there",
    "R-PARENTS": "every record that is named as a parent is there; no cycle",
    "R-COMMIT": "votes were committed before they were revealed",
    "R-RULE": "the verdict used the rule of the spec",
    "R-STEPS": "each step of the verdict counts answers that are there, each once",
    "R-SITES": "enough sites contributed",
    "R-TALLY": "votes or replicas counted again give the verdict",
    "R-AGGREGATE": "the sum or average computed again gives the verdict's output",
    "R-OUTPUT": "the verdict's output is what its answers conclude",
    "R-METER": "what an answer could be billed for, by its model's price, is what it was given",
    "R-OPENING": "each blinded reference opens to a CID",
    "R-BLOB": "each blob is there and hashes to its CID",
    "R-PROOF": "records are in the logs of their signers",
    "R-REQUIRE": "what --require asks for is there",
}


@dataclass(frozen=True)
class Report:
    """All checks in their order; `status` is 0 (all passed), 1 (a check failed) or 3 (authentic but incomplete).

    `case` is None for a file that is damaged. The sentences are made when somebody reads them: a program that verifies
    many receipts looks at `status` and `checks`.
    """

    checks: tuple[Check, ...]
    status: Literal[0, 1, 3]
    case: Case | None

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Who signed what, and what was computed again; nothing when a check failed."""
        return () if self.case is None or self.status == 1 else tuple(words.shown_lines(self.case, self.checks))

    @cached_property
    def not_shown(self) -> tuple[str, ...]:
        """What no check can show."""
        return tuple(words.not_shown_lines(self.case))

    @cached_property
    def not_checked(self) -> tuple[str, ...]:
        """What was not checked, by the verifier or in the owner's own words."""
        return tuple(words.not_checked_lines(self.case, self.checks))


def report_lines(report: Report) -> list[str]:
    """The report as text for people: checks, then Shown, Not shown, Not checked, then the verdict on the file."""
    rows: list[tuple[str, str, str, str]] = []
    for (code, outcome), group in groupby(report.checks, key=lambda check: (check.code, check.outcome)):
        checks = list(group)
        if outcome == "pass":  # one line for all records that passed the same check
            subject = checks[0].subject if len(checks) == 1 else f"{len(checks)} of {len(checks)}"
            rows.append((outcome, code, subject, CODES[code]))
        else:
            word = "FAIL" if outcome == "fail" else outcome
            rows += [(word, code, check.subject, check.why) for check in checks]
    width = max(len(subject) for _, _, subject, _ in rows)
    lines = [f"{word:<11}  {code:<11}  {subject:<{width}}  {why}" for word, code, subject, why in rows]
    for title, entries in (
        ("Shown", report.shown),
        ("Not shown", report.not_shown),
        ("Not checked", report.not_checked),
    ):
        lines += ["", title] + [f"  {entry}" for entry in entries or ("nothing",)]
    words = {0: "verified", 1: "REFUSED: a check failed", 3: "authentic but incomplete"}
    return [*lines, "", words[report.status]]


def report_map(report: Report) -> dict[str, Any]:
    """The report as a map for JSON."""
    return {
        "status": report.status,
        "checks": [
            {"code": check.code, "subject": check.subject, "outcome": check.outcome, "why": check.why}
            for check in report.checks
        ],
        "shown": list(report.shown),
        "not_shown": list(report.not_shown),
        "not_checked": list(report.not_checked),
    }
