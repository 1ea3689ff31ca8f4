"""What this node has had to put up with, in words for people: `dim status --json` and `dim doctor`.

Rule: it counts and names; what is done about a peer is decided at the gate.
"""

from typing import Any

from dimnode.p2p.conduct import BANNED_CODE, CODES, Offence
from dimnode.p2p.host.gate import ConductReport
from dimnode.records.ids import peer_text, short


def conduct_map(report: ConductReport) -> dict[str, Any]:
    """For `--json`: counters since the start by code and name, and who is refused for how many seconds more."""
    return {
        "offences": {f"{CODES[Offence(name)]} {name}": count for name, count in sorted(report.offences.items())},
        "refusals": dict(sorted(report.refusals.items())),
        "gossip": report.gossip,
        "bans": report.bans,
        "refused": [
            {"peer": peer_text(ban.peer), "code": BANNED_CODE, "seconds_left": round(ban.seconds_left, 1)}
            for ban in report.banned
        ],
        "half_open_sockets": report.half_open,
    }


def conduct_line(report: ConductReport) -> str:
    """For the doctor: one line."""
    if not report.offences:
        return "no peer has misbehaved"
    worst = sorted(report.offences.items(), key=lambda entry: -entry[1])[:4]
    said = ", ".join(f"{name} {count}" for name, count in worst)
    refused = ", ".join(f"…{short(ban.peer)} for {ban.seconds_left:.0f} s" for ban in report.banned[:3])
    more = f" and {len(report.banned) - 3} more" if len(report.banned) > 3 else ""
    return f"offences: {said}; refused now: {refused or 'nobody'}{more}"
