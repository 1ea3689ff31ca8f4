"""The offline verifier: everything that a receipt says, checked from its bytes alone.

Rule: the checks stand in one fixed order, and a check is made only when those that it leans on passed.
Pure: no I/O, no clock. Needs pynacl and msgpack; NumPy only to repeat averages. Specification: docs/receipt.md.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from dimnode.audit.case import Case
from dimnode.audit.conclusion import check_conclusion
from dimnode.audit.custody import check_custody, net_problems, ruling_problems, spec_problems
from dimnode.audit.damage import damage
from dimnode.audit.findings import Check, Findings
from dimnode.audit.metering import check_metering
from dimnode.audit.report import Report
from dimnode.errors import PeerFault
from dimnode.records.ids import cid_text
from dimnode.records.receipt import parse_receipt

_SOUND: Final = [
    Check(code, "file", "pass") for code in ("R-LIMITS", "R-CHECKSUM", "R-CANONICAL", "R-SIGNATURE", "R-SCHEMA")
]
"""What a file has passed when it parses."""


def verify(
    raw: bytes,
    *,
    trust: Mapping[bytes, str] | None = None,
    blobs: Mapping[bytes, bytes] | None = None,
    require: Mapping[str, int] | None = None,
) -> Report:
    """Check a receipt. Never raises for what is in the file.

    `trust` puts names beside peer ids; `blobs` holds, by CID, blobs that were left out of the file; `require` asks for
    at least so many of something (`cosign`: none exist in this version, so a positive number fails).
    """
    findings = Findings()
    try:
        receipt = parse_receipt(raw)
    except PeerFault as fault:
        findings.checks += damage(raw, fault)
        findings.skip("R-SPEC", "file", "the file is damaged: what its records say to each other was not looked at")
        return Report(tuple(findings.checks), 1, None)
    findings.checks += _SOUND
    case = Case(receipt, blobs or {}, trust or {})
    if findings.judge("R-ROOT", case.place(case.root), _root_problems(case)):
        findings.judge("R-NET", "file", net_problems(case))
        _check_records(case, findings)
        _check_blobs(case, findings)
    findings.skip("R-PROOF", "file", "logs are not in this version")
    for name, least in (require or {}).items():
        findings.judge("R-REQUIRE", name, [f"{least} asked for, none here"] if least > 0 else [])
    return Report(tuple(findings.checks), findings.status, case)


def _root_problems(case: Case) -> Iterator[str]:
    root = case.root
    if root.kind not in ("verdict", "ruling"):
        yield f"the root is a {root.kind}"
    elif root.kind == "ruling" and root.payload["allowed"]:
        yield "the root is a permission; only a refusal stands alone"


def _check_records(case: Case, findings: Findings) -> None:
    if case.root.kind == "ruling":
        findings.judge("R-RULING", case.place(case.root), ruling_problems(case, case.root))
        return
    if not findings.judge("R-SPEC", "spec", spec_problems(case)):
        return
    check_custody(case, findings)
    findings.skip("R-COMMIT", "verdict", "votes are not committed before they are revealed in this version")
    check_conclusion(case, findings)
    check_metering(case, findings)


def _check_blobs(case: Case, findings: Findings) -> None:
    """What is missing, or wrong beside the file; inside it, the parser refused openings and blobs that do not fit."""
    receipt, refs = case.receipt, len(case.receipt.refs)
    closed = missing = refs - len(receipt.openings)  # which are of refs that stand in a record, or it would not parse
    wrong = []
    for opening in receipt.openings.values():
        if opening.cid not in receipt.blobs and opening.cid not in case.handed_in:
            missing += 1
        if opening.cid in case.outside and opening.cid not in case.handed_in:
            wrong.append(f"the bytes given for {cid_text(opening.cid)} hash to another CID")
    if closed:
        findings.skip("R-OPENING", "file", f"{closed} of {refs} references do not open (redacted)")
    else:
        findings.judge("R-OPENING", "file", ())
    if missing and not wrong:
        findings.skip("R-BLOB", "file", f"{missing} of {refs} blobs are not here (redacted or left out)")
    else:
        findings.judge("R-BLOB", "file", sorted(set(wrong)))
