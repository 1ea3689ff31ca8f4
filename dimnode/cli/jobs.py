"""Jobs that are given here: a model on rows, a job file, a dry run.

Rule: before a job runs, it is said where it will and what its tier does not catch.
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dimnode.batches import Item, check_rows_per_job, model_row
from dimnode.cli import batch
from dimnode.cli.carrying import GRACE_SECONDS, Order, carry_out, plan_lines, replicas_of
from dimnode.cli.gather import FILE_KINDS, OTHER_TABLES, Gathered, gather, one_blob, place_of, plain_source
from dimnode.cli.inputs import Choice, read_input
from dimnode.cli.job_file import choice_of, file_of_job, hints_for_files, read_job_file
from dimnode.cli.node import open_client
from dimnode.cli.output import say, say_json, talk
from dimnode.cli.trust import pinned
from dimnode.client import Client
from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import cid_text, short
from dimnode.records.transforms import Source, source_from

_WORDS_UNASKED = 32
"""So short that no model is asked how much it reads."""
_TAKE = re.compile(r"(?P<name>[^=\[\]]+)=(?P<tensor>[^=\[\]]+)(\[(?P<start>\d+):(?P<stop>\d+)\])?")


def run(chosen: argparse.Namespace) -> int:
    """One model on what it takes; many items become a batch."""
    if chosen.resume is not None:
        if chosen.model or chosen.input:
            raise ConfigError("E-cli-10", "--resume knows its model and input", "", f"dim run --resume {chosen.resume}")
        with open_client(chosen) as client:
            return batch.resume(client, chosen)
    if not chosen.model or not chosen.input:
        raise ConfigError("E-cli-10", "dim run: a model and its input are needed", "", "dim run --help")
    with open_client(chosen) as client:
        row = _find_model(client, chosen.model)
        usual = tuple(row.get("columns", ())) if row and not chosen.take else ()
        rows = tuple(chosen.row or ())
        name = "x" if chosen.take else ""
        choice = Choice(tuple(chosen.columns or ()), tuple(chosen.drop or ()), rows, name, usual)
        job = pinned(chosen, _job_of(chosen))
        takes = () if chosen.take or not row else tuple(source_from(said) for said in row.get("takes", ()))
        if chosen.batch or chosen.out is not None or _are_many(takes, chosen.input):
            return batch.begin(client, chosen, _batch_of(chosen, row, takes, choice, job))
        blob, names = _one_input(chosen, row, takes, choice)
        if row and "-" not in chosen.input and any(source.kind == "text" for source in takes):
            _tell_of_cut_texts(client, row["model"], gather(chosen.input, takes, choice))
        wait_seconds = job["deadline_seconds"] + GRACE_SECONDS if "deadline_seconds" in job else None
        return carry_out(client, chosen, Order(job, [blob], choice.rows, wait_seconds, chosen.receipt, names))


def _one_input(
    chosen: argparse.Namespace, row: Mapping[str, Any] | None, takes: Sequence[Source], choice: Choice
) -> tuple[bytes, Sequence[str]]:
    """The blob of a single job, and what its items are called."""
    if takes:
        return one_blob(gather(chosen.input, takes, choice))
    if len(chosen.input) != 1:
        raise ConfigError("E-cli-43", f"{len(chosen.input)} inputs were given", "the model takes one table", "")
    if Path(chosen.input[0]).suffix.lower() in OTHER_TABLES:
        return one_blob(gather(chosen.input, [plain_source(row["inputs"] if row else [], choice)], choice))
    return read_input(chosen.input[0], choice, row["inputs"] if row else []), ()


def _tell_of_cut_texts(client: Client, model: str, gathered: Gathered) -> None:
    """A text is cut where the model's limit is, and its answer is of the beginning alone. A word is a token or more."""
    names = {source.name for source in gathered.sources if source.kind == "text"}
    texts = (item.values[name] for item in gathered.items() if isinstance(item, Item) for name in names)
    words = max((len(text.split()) for text in texts if isinstance(text, str | bytes)), default=0)
    if words <= _WORDS_UNASKED:
        return
    pre = client.ask("models.show", model=model)["pre"]
    most = min((step["max_tokens"] for step in pre if step["op"] == "tokenise"), default=words)
    if words > most:
        talk(f"a text has {words} words, and the model reads {most} tokens, one or more a word: the rest is cut off")


def _are_many(takes: Sequence[Source], inputs: Sequence[str]) -> bool:
    """More files than go into one job for sure."""
    if not any(source.kind in FILE_KINDS for source in takes):
        return False
    return len(inputs) > LIMITS.batch.alone_files or any(os.path.isdir(place_of(text)) for text in inputs)


def _batch_of(
    chosen: argparse.Namespace,
    row: Mapping[str, Any] | None,
    takes: Sequence[Source],
    choice: Choice,
    job: dict[str, Any],
) -> batch.Batch:
    if row is None:
        raise Refused(
            "E-models-01", f"unknown model {chosen.model!r}", "no peer heard so far offers it", "dim models ls"
        )
    if chosen.take or chosen.receipt:
        raise ConfigError("E-cli-44", "--take and --receipt are of one job, not of a batch", "", "a job file")
    if "-" in chosen.input:
        raise ConfigError("E-cli-44", "a batch reads its input more than once, and stdin cannot be", "", "a file")
    rows = LIMITS.batch.rows_per_job if chosen.rows_per_job is None else chosen.rows_per_job
    check_rows_per_job(rows)
    # A name may mean another model tomorrow; a batch goes on with the one that it began with.
    job["tasks"][0]["model"] = row["model"]
    inputs = tuple(str(Path(text).absolute()) if os.path.exists(text) else text for text in chosen.input)
    sources = tuple(takes) or (plain_source(row["inputs"], choice),)
    gathered = gather(inputs, sources, choice, lines=True)
    return batch.Batch(
        row["model"],
        row["name"],
        job,
        inputs,
        gathered.sources,
        choice,
        tuple(row["labels"]),
        tuple(row.get("texts", ())),
        rows,
        batch.new_identity(),
        batch.seen_of(inputs),
    )


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
    counted = chosen.n is not None or chosen.k is not None
    tier = chosen.tier or ("quorum" if counted else "signed")
    job["tier"] = tier
    if tier == "quorum":
        job["quorum"] = {"n": 3 if chosen.n is None else chosen.n, "k": 2 if chosen.k is None else chosen.k}
    elif counted:
        raise ConfigError("E-cli-44", "--n and --k belong to tier quorum", "", "--tier quorum --n 3 --k 2")
    if chosen.priority is not None:
        job["priority"] = chosen.priority
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
    choice, source = choice_of(wanted), Path(wanted["file"])
    row: Mapping[str, Any] | None = None
    tasks = job.get("tasks")
    if (
        not choice.name
        and isinstance(tasks, list)
        and tasks
        and isinstance(tasks[0], dict)
        and not tasks[0].get("take")
    ):
        row = _find_model(client, str(tasks[0].get("model", "")))
        choice = replace(choice, usual=tuple(row.get("columns", ())) if row else ())
    beside, rest = _beside(path.expanduser(), source), {key: value for key, value in job.items() if key != "input"}
    with hints_for_files():
        if row and row.get("takes"):
            blob, _ = one_blob(gather([beside], [source_from(said) for said in row["takes"]], choice))
        elif source.suffix.lower() in OTHER_TABLES:
            blob, _ = one_blob(gather([beside], [plain_source(row["inputs"] if row else [], choice)], choice))
        else:
            blob = read_input(beside, choice, row["inputs"] if row else [])
    return rest, [blob], choice.rows


def _beside(path: Path, source: Path) -> str:
    """The file that a job file names, in its own folder or below. Raises `ConfigError` E-cli-48.

    What it names is sent to peers, and a job file may come from somebody else: it must not choose among all that its
    reader may read. So a link that leads out of the folder is refused, too.
    """
    folder = path.resolve().parent
    found = (folder / source).resolve()
    if not found.is_relative_to(folder):
        what = f"{path} names a file outside its own folder: {source}"
        hint = f"look at what the job would send; then put a copy beside it, or: dim run MODEL {source}"
        raise ConfigError("E-cli-48", what, f"only files in {folder} and below are sent for it", hint)
    return str(found)


def _find_model(client: Client, name: str) -> Mapping[str, Any] | None:
    """What is known of a model, for its input's name and type; the node decides whether the name is good.

    Raises `Refused` when nobody offers such a model: else its input would be read as something that it may not be.
    """
    rows = client.models()
    row = model_row(rows, name)
    if row is not None or not name:
        return row
    try:
        said = client.ask("models.show", model=name)  # nobody has it now: it may have been heard of, all the same
    except Refused as no:
        near = get_close_matches(name, {other["name"].rpartition(":")[0] for other in rows}, 1)
        if no.complaint.code != "E-models-01" or not near:
            raise
        raise Refused("E-models-01", no.complaint.what, f"did you mean {near[0]}?", "dim models ls") from None
    if said["withdrawn"] is not None:
        why = said["withdrawn"] or "its publisher gave no reason"
        newer = said.get("replacement")
        hint = f"its publisher says to take {newer}: dim models show {newer}" if newer else "dim models ls"
        raise Refused("E-models-24", f"{said['name']} was withdrawn by its publisher", why, hint)
    return said
