"""Jobs that were given before: list, records, events, answer, end.

Rule: what is shown comes from the node's journal; an answer is verified again before it is shown.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from dimnode.cli.carrying import Order, conclude, conclude_without_answer, event_line, names_of_peers
from dimnode.cli.node import open_client
from dimnode.cli.output import clock, facts, say, say_json, size_text, table, talk
from dimnode.client import Client, Ended
from dimnode.errors import Refused

_ANSWER_GONE = "E-job-15"


def ls(chosen: argparse.Namespace) -> int:
    """The newest jobs of this node."""
    with open_client(chosen) as client:
        rows = client.jobs(chosen.most)
    if chosen.json:
        say_json({"jobs": rows})
        return 0
    cells = [
        [row["job"][-8:], row["status"], row["pattern"], row["tier"], clock(row["at_ms"], date=True), row["label"]]
        for row in rows
    ]
    table(
        ("job", "status", "pattern", "tier", "submitted", "label"), cells, "no jobs yet; hint: dim run MODEL rows.csv"
    )
    return 0


def show(chosen: argparse.Namespace) -> int:
    """Records, end and bytes of a job."""
    with open_client(chosen) as client:
        found = client.job(chosen.job)
    if chosen.json:
        say_json(found)
        return 0
    end = found["end"]
    state = "open" if end is None else end["status"] + (f" ({end['code']}: {end['reason']})" if "code" in end else "")
    facts([("job", found["job"]), ("status", state)])
    cells = [
        [
            row["kind"],
            row["by"],
            *("-" if row[key] is None else row[key] for key in ("task", "epoch")),
            f"to {row['executor']}" if row["executor"] else row["status"],
            clock(row["at_ms"]),
            row["record"][-8:],
        ]
        for row in found["records"]
    ]
    say()
    table(("record", "by", "task", "epoch", "what", "stamped", "id"), cells)
    frames = [(way, row) for way in ("out", "in") for row in found[f"frames_{way}"]]
    if frames:
        say()
        table(
            ("bytes", "peer", "frame", "size"),
            [
                ["sent to" if way == "out" else "from", row["peer"], row["what"], size_text(row["bytes"])]
                for way, row in frames
            ],
        )
    return 0


def events(chosen: argparse.Namespace) -> int:
    """What has happened; with --follow until the job has ended."""
    with open_client(chosen) as client:
        found = client.job(chosen.job)
        if chosen.follow:
            _follow(client, found["job"], chosen.json)
            return 0
        past = client.events(found["job"])
    if chosen.json:
        say_json({"events": past})
        return 0
    for event in past:
        say(event_line(event, {}))
    return 0


def _follow(client: Client, job: str, as_json: bool) -> None:
    """What was, then what comes, each event once."""
    live = client.follow(job)  # asked for first, so that nothing is missed between the two
    past, names = client.events(job), names_of_peers(client)
    told = {_key(event) for event in past}
    for event in past:
        _tell_event(event, names, as_json)
    for news in live:
        if news is not None and _key(news) not in told:
            _tell_event(news, names, as_json)


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(event[field] for field in ("at_ms", "what", "task", "epoch", "text"))


def _tell_event(event: Mapping[str, Any], names: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        say_json(event, indent=None)
    else:
        say(event_line(event, names))


def result(chosen: argparse.Namespace) -> int:
    """The answer of a job that has ended, after its receipt was verified again."""
    with open_client(chosen) as client:
        try:
            ended = client.result(chosen.job)
        except Refused as no:
            if no.complaint.code != _ANSWER_GONE:
                raise
            return conclude_without_answer(chosen, no, client.receipt(chosen.job))
        raw = client.receipt(ended.job)
    whole = Ended(ended.job, ended.status, ended.verdict, ended.outputs, raw, ended.code, ended.reason)
    return conclude(chosen, whole, Order({}, [], receipt=chosen.receipt), None)


def cancel(chosen: argparse.Namespace) -> int:
    """End a job; exit code 4 when it is over already."""
    with open_client(chosen) as client:
        found = client.cancel(chosen.job)
    if not found["cancelling"]:
        raise Refused(
            "E-jobs-11", "there is no open job with this id", "it has ended, or is not known here", "dim job ls"
        )
    if chosen.json:
        say_json(found)
    else:
        talk(f"cancelling {found['job'][-8:]}")
    return 0
