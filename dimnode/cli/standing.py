"""Standing: what this node thinks of its peers, and why.

Rule: every opinion is shown with the records that it rests on.
"""

import argparse
import time
from typing import Any

from dimnode.cli.node import open_client
from dimnode.cli.output import bold, clock, say, say_json, shown, table
from dimnode.cli.trust import named_peer
from dimnode.records.ids import PEER_LETTERS_MIN


def ls(chosen: argparse.Namespace) -> int:
    """Every peer's standing, by context."""
    with open_client(chosen) as client:
        rows = client.standing()
    if chosen.json:
        say_json({"standing": rows})
        return 0
    cells = [
        [
            row["name"],
            f"…{row['peer'][-PEER_LETTERS_MIN:]}",
            row["context"],
            f"{row['mean']:.2f}",
            row["events"],
            _bar(row),
        ]
        for row in rows
    ]
    empty = "no opinion yet: nobody has answered a job of this node"
    table(("name", "peer", "context", "expected", "events", "barred"), cells, empty)
    return 0


def explain(chosen: argparse.Namespace) -> int:
    """One peer: each context with its newest events, each event with its record."""
    with open_client(chosen) as client:
        found = client.explain(named_peer(chosen, chosen.peer))
    if chosen.json:
        say_json(found)
        return 0
    say(bold(found["peer"]))
    if not found["contexts"]:
        say("  no opinion: it has not answered a job of this node")
    for line in found["contexts"]:
        numbers = f"expected {line['mean']:.2f}  (alpha {line['alpha']:.2f}, beta {line['beta']:.2f})"
        say(f"  {bold(shown(line['context']))}  {numbers}  {_bar(line)}".rstrip(" -"))
        for event in line["events"]:
            mark, weight = "+" if event["good"] else "-", f"weight {event['weight']:g}"
            say(f"    {mark} {clock(event['at_ms'], date=True)}  {shown(event['kind'])}  {weight}  {event['record']}")
    return 0


def _bar(row: dict[str, Any]) -> str:
    until_ms = row["barred_until_ms"]
    if not until_ms or until_ms < time.time() * 1000:
        return "-"
    return f"until {clock(until_ms, date=True)[:16]}"
