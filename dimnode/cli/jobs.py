"""Jobs that are given here: a model on rows, a job file, a dry run.

Rule: before a job runs, it is said where it will and what its tier does not catch.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimnode.cli.carrying import GRACE_SECONDS, Order, carry_out, plan_lines, replicas_of
from dimnode.cli.inputs import Choice, choice_of, file_of_job, read_input, read_job_file
from dimnode.cli.node import open_client
from dimnode.cli.output import say, say_json, talk
from dimnode.cli.trust import pinned
from dimnode.client import Client
from dimnode.errors import ConfigError
from dimnode.records.ids import cid_text, short

_TAKE = re.compile(r"(?P<name>[^=\[\]]+)=(?P<tensor>[^=\[\]]+)(\[(?P<start>\d+):(?P<stop>\d+)\])?")


def run(chosen: argparse.Namespace) -> int:
    """One model on rows."""
    with open_client(chosen) as client:
        row = _find_model(client, chosen.model)
        choice = Choice(tuple(chosen.columns or ()), tuple(chosen.drop or ()), tuple(chosen.row or ()))
        if chosen.take:
            choice = Choice(choice.columns, choice.drop, choice.rows, "x")
        blob = read_input(chosen.input, choice, row["inputs"] if row else [])
        job = pinned(chosen, _job_of(chosen))
        wait_seconds = job["deadline_seconds"] + GRACE_SECONDS if "deadline_seconds" in job else None
        return carry_out(client, chosen, Order(job, [blob], choice.rows, wait_seconds, chosen.receipt))


def run_file(chosen: argparse.Namespace) -> int:
    """A job file."""
    with open_client(chosen) as client:
        job, blobs, rows = _load(client, chosen.file)
        job = pinned(chosen, job)
        if not chosen.detach:
            return carry_out(client, chosen, Order(job, blobs, rows, chosen.timeout, chosen.receipt))
        identity = client.detach(job, blobs)
    if chosen.json:
        say_json({"job": identity})
    else:
        say(cid_text(identity))
        talk(f"under way: dim job events {short(identity)} --follow")
    return 0


def validate(chosen: argparse.Namespace) -> int:
    """The plan, its cost and its risk; exit code 4 when nobody could run it now."""
    with open_client(chosen) as client:
        job, blobs, _ = _load(client, chosen.file)
        plan = client.validate(pinned(chosen, job), blobs)
    replicas = replicas_of(job)
    runnable = plan["runnable"] and all(len(step["peers"]) >= replicas for step in plan["steps"])
    if chosen.json:
        say_json(plan | {"runnable": runnable})
    else:
        for line in plan_lines(plan, replicas):
            say(line)
        say("it can run now" if runnable else "it cannot run now: not enough peers offer what a step needs")
    return 0 if runnable else 4


def _job_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """The job that `dim run`'s flags mean."""
    task: dict[str, Any] = {"model": chosen.model}
    if chosen.peer:
        task["peer"] = chosen.peer
    if chosen.take:
        task["take"] = [_take(text) for text in chosen.take]
    job: dict[str, Any] = {"pattern": "chained", "tasks": [task]}
    tier = chosen.tier or ("quorum" if chosen.n or chosen.k else "signed")
    job["tier"] = tier
    if tier == "quorum":
        job["quorum"] = {"n": chosen.n or 3, "k": chosen.k or 2}
    elif chosen.n or chosen.k:
        raise ConfigError("E-cli-44", "--n and --k belong to tier quorum", "", "--tier quorum --n 3 --k 2")
    if chosen.timeout is not None:
        job["deadline_seconds"] = chosen.timeout
    return job


def _take(text: str) -> dict[str, Any]:
    found = _TAKE.fullmatch(text)
    if found is None:
        raise ConfigError(
            "E-cli-44", f"--take {text} is not understood", "", "--take x=probabilities or --take x=x[0:10]"
        )
    entry: dict[str, Any] = {"name": found["name"], "from": "input", "tensor": found["tensor"]}
    if found["start"] is not None:
        entry["columns"] = [int(found["start"]), int(found["stop"])]
    return entry


def _load(client: Client, path: Path) -> tuple[dict[str, Any], list[bytes], Sequence[int]]:
    """A job file with the rows that it names: job, blobs, row numbers."""
    job = read_job_file(path)
    wanted = file_of_job(job)
    if wanted is None:
        return job, [], ()
    choice, source = choice_of(wanted), Path(wanted["file"]).expanduser()
    row = None
    tasks = job.get("tasks")
    if (
        not choice.name
        and isinstance(tasks, list)
        and tasks
        and isinstance(tasks[0], dict)
        and not tasks[0].get("take")
    ):
        row = _find_model(client, str(tasks[0].get("model", "")))
    blob = read_input(str(path.expanduser().parent / source), choice, row["inputs"] if row else [])
    return {key: value for key, value in job.items() if key != "input"}, [blob], choice.rows


def _find_model(client: Client, name: str) -> dict[str, Any] | None:
    """What is known of a model, for its input's name and type; the node decides whether the name is good."""
    found = []
    for row in client.models():
        bare, _, version = row["name"].rpartition(":")
        full = f"{row['publisher']}/"
        if name in (row["model"], row["name"], bare, full + row["name"], full + bare):
            parts = tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
            found.append((parts, row))
    return max(found, key=lambda pair: pair[0])[1] if found else None
