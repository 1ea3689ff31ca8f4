"""Data cabinets: put a CSV file under a policy, list what is offered.

Rule: default deny. Without a policy, or an explicit list of operations, nothing is offered; no model is allowed that
was not named, unless any is asked for in so many words.
"""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimnode.cabinets.policy import OUTPUT_CLASS_OF, parse_policy
from dimnode.cli.node import open_client
from dimnode.cli.output import counted, say, say_json, shown, table, talk
from dimnode.client import Client
from dimnode.errors import ConfigError, PeerFault, Refused, why_of
from dimnode.records.ids import cid_bytes

_SHORT_FORM = ("min_cohort", "where", "models", "any_model")
_ANY_MODEL = (
    "any model that this node holds may be run on these rows. What a model answers is its maker's choice: one built "
    "for it tells by its counts what single rows hold. Add only models whose maker you trust, or name them: --models"
)


def add(chosen: argparse.Namespace) -> int:
    """Offer a CSV file; only its name, columns and operations become known to others."""
    policy = _policy(chosen)
    with open_client(chosen) as client:
        if chosen.models:
            policy["models"] = _model_ids(client, chosen.models)
        added = client.add_data(chosen.name, chosen.file.expanduser(), chosen.label, chosen.exclude, policy)
    if chosen.json:
        say_json(added)
        return 0
    say(f"{added['name']}  {added['policy']}")
    if added.get("replaced"):
        talk(f"replaces the file and the policy that {shown(added['name'])} had")
    operations = ", ".join(policy["operations"]) or "nothing"
    talk(
        f"peers may ask for: {operations}, about {policy['min_cohort']} rows or more; the rows never leave this machine"
    )
    conditions = ", ".join(policy.get("where", [])) or "no column: every question is about all rows"
    talk(f"conditions may use {conditions}")
    columns = added["columns"]
    talk(f"models see {counted(len(columns), 'column')}: {', '.join(columns[:6])}{' …' if len(columns) > 6 else ''}")
    if policy["models"] == "any" and _runs_models(policy["operations"]):
        talk(_ANY_MODEL)
    return 0


def ls(chosen: argparse.Namespace) -> int:
    """The cabinets of this node."""
    with open_client(chosen) as client:
        rows = client.cabinets()
    if chosen.json:
        say_json({"cabinets": rows})
        return 0
    names = ("name", "operations", "min cohort", "where", "label", "columns", "file")
    kept = ("name", "operations", "min_cohort", "where", "label")
    cells = [[*(row[key] for key in kept), len(row["columns"]), row["path"]] for row in rows]
    hint = "dim data add NAME FILE.csv --policy policy.toml"
    table(names, cells, f"no cabinets of this node; dim peers shows those of others. hint: {hint}")
    return 0


def remove(chosen: argparse.Namespace) -> int:
    """Offer a cabinet no longer. The file stays."""
    with open_client(chosen) as client:
        removed = client.remove_data(chosen.name)
    if chosen.json:
        say_json(removed)
        return 0
    say(removed["name"])
    talk("withdrawn: nothing new is answered from it; the file stays where it is, and answers that were given stand")
    return 0


def _policy(chosen: argparse.Namespace) -> dict[str, Any]:
    """The policy from its file or from --allow, checked here, so that a mistake is told before the node is asked."""
    if (chosen.policy is None) == (chosen.allow is None):
        what = "a cabinet needs a policy: without one nothing is allowed"
        hint = "--policy policy.toml, or --allow statistics for any peer"
        raise ConfigError(
            "E-cli-33", what, "" if chosen.policy is None else "--policy and --allow exclude each other", hint
        )
    if chosen.policy is None:
        settings = _short_form(chosen)
    else:
        for key in _SHORT_FORM:
            if getattr(chosen, key) not in (None, False):
                flag = f"--{key.replace('_', '-')}"
                raise ConfigError("E-cli-33", f"{flag} goes with --allow", "", "write it into the policy")
        settings = _read(chosen.policy)
    policy = parse_policy(settings)
    settings.pop("expires", None)  # a TOML date does not travel; its milliseconds do
    return (
        settings | {"min_cohort": policy.min_cohort} | ({"expires_ms": policy.expires_ms} if policy.expires_ms else {})
    )


def _short_form(chosen: argparse.Namespace) -> dict[str, Any]:
    """What --allow means; models that are named become ids when the node has been asked."""
    if _runs_models(chosen.allow) and not chosen.models and not chosen.any_model:
        what = f"--allow {','.join(chosen.allow)} runs models on your rows, and no model is named"
        cause = "a model's maker decides what it answers: one built for it tells what single rows hold"
        raise ConfigError(
            "E-cli-35", what, cause, "--models NAME,… (dim models ls), or --any-model for whatever you will add"
        )
    settings: dict[str, Any] = {"operations": chosen.allow, "submitters": "any"}
    settings["models"] = "any" if chosen.any_model else []
    settings["output_classes"] = sorted({OUTPUT_CLASS_OF[op] for op in chosen.allow if op in OUTPUT_CLASS_OF})
    settings |= {"min_cohort": chosen.min_cohort} if chosen.min_cohort is not None else {}
    return settings | ({"where": chosen.where} if chosen.where else {})


def _runs_models(operations: Sequence[str]) -> bool:
    return not {"evaluate", "infer"}.isdisjoint(operations)


def _model_ids(client: Client, names: Sequence[str]) -> list[str]:
    """Names of models that this node holds become their ids: a name alone may be anybody's tomorrow."""
    rows: list[dict[str, Any]] = []
    found: list[str] = []
    for name in names:
        if _is_id(name):
            found.append(name)
            continue
        rows = rows or client.models()
        held = [row["model"] for row in rows if row["here"] and name in (row["name"], row["name"].rpartition(":")[0])]
        if not held:
            hint = "dim models add FILE, or its id from dim models ls --json"
            raise Refused("E-models-01", f"this node holds no model {shown(name)!r}", "", hint)
        found += held
    return found


def _is_id(name: str) -> bool:
    try:
        return bool(cid_bytes(name))
    except PeerFault:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "E-cli-34", f"cannot read the policy {path}", why_of(error), "docs/operator.md, Data"
        ) from None
