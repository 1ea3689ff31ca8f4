"""The verifier as a program of its own: `python -m dimnode.audit FILE`, and the entry of the `.pyz`.

Rule: the exit status is the report's; 2 means wrong usage.
`dim verify` does the same with more comfort.
"""

import argparse
import json
import sys
from pathlib import Path

from dimnode.audit.files import read_blobs, read_receipt, read_trust
from dimnode.audit.report import report_lines, report_map
from dimnode.audit.verifier import verify
from dimnode.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """Verify one file; returns the exit status."""
    parser = argparse.ArgumentParser("dim-verify", description="Verify a dimnode receipt, offline.", allow_abbrev=False)
    parser.add_argument("file", type=Path)
    parser.add_argument("--trust", type=Path, metavar="peers.toml", help="names of the keys that you trust")
    parser.add_argument("--blobs", type=Path, metavar="DIR", help="blobs that were left out of the file, named by CID")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    chosen = parser.parse_args(arguments)
    try:
        raw = read_receipt(chosen.file)
        trust = read_trust(chosen.trust) if chosen.trust else {}
        blobs = read_blobs(chosen.blobs, raw) if chosen.blobs else {}
    except ConfigError as error:
        sys.stderr.write("\n".join(error.complaint.lines()) + "\n")
        return 2
    report = verify(raw, trust=trust, blobs=blobs)
    text = json.dumps(report_map(report), ensure_ascii=False) if chosen.json else "\n".join(report_lines(report))
    sys.stdout.write(text + "\n")
    return report.status


if __name__ == "__main__":
    sys.exit(main())
