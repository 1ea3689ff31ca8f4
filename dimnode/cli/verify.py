"""`dim verify`: check receipts. Offline: no node, no network, no settings, no key.

Rule: the exit code is the verifier's: 0 verified, 1 refused, 3 authentic but incomplete; of several files the worst.
Imports only the verifier, so that it answers at once.
"""

import argparse
import os

from dimnode.audit.files import read_blobs, read_receipt, read_trust
from dimnode.audit.report import report_lines, report_map
from dimnode.audit.verifier import verify as check
from dimnode.cli.output import bold, say, say_json, talk
from dimnode.errors import ConfigError
from dimnode.limits import LIMITS

_WORST = {0: 0, 3: 1, 1: 2}


def verify(chosen: argparse.Namespace) -> int:
    """Check each file; the report of each, or of very many a line for each that does not verify."""
    _refuse_requirements(chosen.require)
    trust = read_trust(chosen.trust) if chosen.trust else {}
    if len(chosen.file) > LIMITS.verify.reported_max or any(map(os.path.isdir, chosen.file)):
        from dimnode.cli.verify_many import verify_many  # only here: its imports take longer than one receipt

        if trust:
            talk("names of keys stand in the reports of single receipts only")
        return verify_many(chosen)
    worst, documents = 0, []
    for path in chosen.file:
        raw = read_receipt(path)
        report = check(raw, trust=trust, blobs=read_blobs(chosen.blobs, raw) if chosen.blobs else {})
        worst = max(worst, report.status, key=lambda status: _WORST[status])
        documents.append({"file": str(path), **report_map(report)})
        if not chosen.json:
            say(bold(str(path)))
            for line in report_lines(report):
                say(f"  {line}".rstrip())
            say()
    if chosen.json:
        say_json({"status": worst, "receipts": documents})
    return worst


def _refuse_requirements(wanted: list[str]) -> None:
    for entry in wanted:
        name, _, number = entry.partition("=")
        if not name or not number.isdecimal():
            raise ConfigError("E-cli-51", f"--require {entry} is not understood", "", "--require cosign=2")
        if int(number):
            cause = "receipts carry no such thing yet"
            raise ConfigError("E-cli-52", f"--require {name} is not in this version", cause, "leave it out")
