"""Checks as they are made: a code, what it is about, how it ended.

Rule: a check passes only when the search for problems was made to its end and found none.
Pure: no I/O, no clock. Codes: docs/receipt.md and docs/errors-verify.md.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Outcome = Literal["pass", "fail", "not-checked"]
_PROBLEMS_TOLD_MAX = 16

NOT_IN_THIS_VERSION = frozenset({"R-COMMIT", "R-PROOF"})
"""Checks of mechanisms that receipts do not carry yet: named in every report, no reason to call it incomplete."""


class Check(NamedTuple):
    """One line of a report. `subject` is `file`, `record 5`, `step 0`, …; `why` explains what did not pass."""

    code: str
    subject: str
    outcome: Outcome
    why: str = ""


_new = tuple.__new__  # what a NamedTuple's own constructor calls, at a third of its price


class Findings:
    """Collects checks in the order in which they are made."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.status: Literal[0, 1, 3] = 0
        """The exit status that these checks amount to."""

    def judge(self, code: str, subject: str, problems: Iterable[str]) -> bool:
        """One failed check for each problem (of very many, the first), or one that passed; True when it passed."""
        told = 0
        for why in problems:
            self.checks.append(Check(code, subject, "fail", why))
            self.status = 1
            told += 1
            if told == _PROBLEMS_TOLD_MAX:
                break
        if not told:
            self.checks.append(_new(Check, (code, subject, "pass", "")))
        return not told

    def skip(self, code: str, subject: str, why: str) -> None:
        """A check that could not be made."""
        self.checks.append(_new(Check, (code, subject, "not-checked", why)))
        if code not in NOT_IN_THIS_VERSION and self.status == 0:
            self.status = 3
