"""Who else is there: peers, peers block, peers allow, peers blocked.

Rule: what a peer says of itself (name, agent, offers) is shown as it came, but harmless to a terminal; path, round trip
and clock were measured by the node.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dimnode.cli.node import open_client
from dimnode.cli.output import clock, counted, say, say_json, shown, table, talk
from dimnode.exec.sandbox import WALLS
from dimnode.records.ids import PEER_LETTERS_MIN

_WATCH_SECONDS = 1.0
_CLOCK_MS_SHOWN_MIN = 1000.0
_COLUMNS = ("name", "peer", "path", "rtt ms", "agent", "free", "jobs/s", "sandbox", "linked", "heard", "offers")


def peers(chosen: argparse.Namespace) -> int:
    """Who was heard lately: linked ones first."""
    with open_client(chosen) as client:
        rows = client.peers()
        if not chosen.watch:
            _show(rows, chosen.json)
            return 0
        if not chosen.json:
            _show(rows, False)
        return _watch(client.peers, rows, chosen.json)


def block(chosen: argparse.Namespace) -> int:
    """Keep a peer or an address out, at once and for good."""
    with open_client(chosen) as client:
        said = client.ask("peers.block", target=chosen.target, reason=chosen.reason)
    if chosen.json:
        say_json(said)
        return 0
    say(said["target"])
    closed = len(said["closed"])
    talk("blocked" + (f", {counted(closed, 'connection')} closed" if closed else ""))
    return 0


def allow(chosen: argparse.Namespace) -> int:
    """Take a block back; where the settings have an allow list, also add to it."""
    with open_client(chosen) as client:
        said = client.ask("peers.allow", target=chosen.target)
    if chosen.json:
        say_json(said)
        return 0
    say(said["target"])
    talk("allowed")
    return 0


def blocked(chosen: argparse.Namespace) -> int:
    """Who is kept out, since when, why, and by whom."""
    with open_client(chosen) as client:
        lists = client.ask("peers.blocked")
    if chosen.json:
        say_json(lists)
        return 0
    rows = [("blocked", entry) for entry in lists["blocked"]] + [("allowed", entry) for entry in lists["allowed"]]
    cells = [[entry["target"], what, *_said_by(entry)] for what, entry in rows]
    table(("target", "is", "by", "since", "reason"), cells, "nobody is blocked")
    if lists["allowed"]:
        talk("there is an allow list: everybody who is not on it is refused")
    return 0


def _said_by(entry: Mapping[str, Any]) -> list[str]:
    since = "" if entry["at_ms"] is None else clock(entry["at_ms"], date=True)[:19]
    return [entry["source"], since, entry["reason"]]


# ---- showing peers


def _show(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        say_json({"peers": rows})
        return
    cells = [_cells(row) for row in rows]
    columns = list(_COLUMNS)
    if any(not row["linked"] for row in rows):
        columns.append("why no link")
        for cell, row in zip(cells, rows, strict=True):
            cell.append(row["why_not"])
    table(columns, cells, "no other peer is heard now; hint: dim doctor")
    for row in rows:
        ahead = row["clock_ahead_ms"]
        if ahead is not None and abs(ahead) >= _CLOCK_MS_SHOWN_MIN:
            side = "ahead of" if ahead > 0 else "behind"
            talk(f"the clock of {_called(row)} is {abs(ahead) / 1000:.1f} s {side} ours; hint: dim doctor")


def _cells(row: Mapping[str, Any]) -> list[Any]:
    heard = None if row["heard_seconds_ago"] is None else f"{row['heard_seconds_ago']:.0f} s ago"
    linked = None if row["linked_seconds"] is None else _age(row["linked_seconds"])
    rtt = None if row["rtt_ms"] is None else f"{row['rtt_ms']:.1f}"
    stand = set(row["sandbox"].split("+"))
    walls = "complete" if any(stand >= needed for needed in WALLS.values()) else row["sandbox"]
    path = row["path"] if row["linked"] else "no link"
    offers = row["models"] + [f"data {name}" for name in row["cabinets"]]
    free = f"{row['free_slots']}/{row['slots']}"
    said, seen = row.get("jobs_per_second"), row.get("jobs_per_second_seen")
    pace = f"{said or '-'} ({seen} seen)" if seen else said
    return [
        row["name"],
        f"…{row['peer'][-PEER_LETTERS_MIN:]}",
        path,
        rtt,
        row["agent"],
        free,
        pace,
        walls,
        linked,
        heard,
        offers,
    ]


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _called(row: Mapping[str, Any]) -> str:
    return shown(row["name"] or f"…{row['peer'][-PEER_LETTERS_MIN:]}")


# ---- watching


def _watch(ask: Any, rows: Sequence[Mapping[str, Any]], as_json: bool) -> int:
    """A line for each change, until Ctrl-C."""
    before = {row["peer"]: row for row in rows} if not as_json else {}
    while True:
        for what, row in changes(before, rows):
            if as_json:
                say_json({"at_ms": time.time_ns() // 1_000_000, "what": what, **row}, indent=None)
            else:
                say(f"{time.strftime('%H:%M:%S')}  {what:<8}  {_called(row)}  {_detail(what, row)}".rstrip())
        before = {row["peer"]: row for row in rows}
        time.sleep(_WATCH_SECONDS)
        rows = ask()


def changes(
    before: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is new: `linked`, `lost` (no link any more), `heard` (a new one without a link), `path`, `gone`."""
    for row in rows:
        old = before.get(row["peer"])
        if row["linked"] and (old is None or not old["linked"]):
            yield "linked", row
        elif old is None:
            yield "heard", row
        elif old["linked"] and not row["linked"]:
            yield "lost", row
        elif old["path"] != row["path"]:
            yield "path", row
    present = {row["peer"] for row in rows}
    for peer, old in before.items():
        if peer not in present:
            yield "gone", old


def _detail(what: str, row: Mapping[str, Any]) -> str:
    match what:
        case "linked" | "path":
            rtt = "" if row["rtt_ms"] is None else f"{row['rtt_ms']:.1f} ms"
            return f"{row['path']}  {rtt}".rstrip()
        case "lost" | "heard":
            return shown(row["why_not"])
        case _:
            return ""
