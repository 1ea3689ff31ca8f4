"""Data cabinets: put a CSV file under a policy, list what is offered.

Rule: default deny. Without a policy, or an explicit list of operations, nothing is offered.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

from dimnode.cabinets.policy import OUTPUT_CLASS_OF, parse_policy
from dimnode.cli.node import open_client
from dimnode.cli.output import say, say_json, table, talk
from dimnode.errors import ConfigError


def add(chosen: argparse.Namespace) -> int:
    """Offer a CSV file; only its name, columns and operations become known to others."""
    policy = _policy(chosen)
    with open_client(chosen) as client:
        added = client.add_data(chosen.name, chosen.file.expanduser(), chosen.label, chosen.exclude, policy)
    if chosen.json:
        say_json(added)
        return 0
    say(f"{added['name']}  {added['policy']}")
    operations = ", ".join(policy["operations"]) or "nothing"
    talk(
        f"peers may ask for: {operations}, about {policy['min_cohort']} rows or more; the rows never leave this machine"
    )
    talk(f"models see {len(added['columns'])} columns: {', '.join(added['columns'][:6])} …")
    return 0


def ls(chosen: argparse.Namespace) -> int:
    """The cabinets of this node."""
    with open_client(chosen) as client:
        rows = client.cabinets()
    if chosen.json:
        say_json({"cabinets": rows})
        return 0
    cells = [
        [row["name"], row["operations"], row["min_cohort"], row["label"], len(row["columns"]), row["path"]]
        for row in rows
    ]
    table(("name", "operations", "min cohort", "label", "columns", "file"), cells, "no cabinets; hint: dim data add")
    return 0


def _policy(chosen: argparse.Namespace) -> dict[str, Any]:
    """The policy from its file or from --allow, checked here, so that a mistake is told before the node is asked."""
    if (chosen.policy is None) == (chosen.allow is None):
        what = "a cabinet needs a policy: without one nothing is allowed"
        hint = "--policy policy.toml, or --allow evaluate,statistics for any peer"
        raise ConfigError(
            "E-cli-33", what, "" if chosen.policy is None else "--policy and --allow exclude each other", hint
        )
    if chosen.policy is not None:
        if chosen.min_cohort is not None:
            raise ConfigError("E-cli-33", "--min-cohort goes with --allow", "", "write min_cohort into the policy")
        settings = _read(chosen.policy)
    else:
        settings = {"operations": chosen.allow, "submitters": "any", "models": "any"}
        settings["output_classes"] = sorted({OUTPUT_CLASS_OF[op] for op in chosen.allow if op in OUTPUT_CLASS_OF})
        settings |= {"min_cohort": chosen.min_cohort} if chosen.min_cohort is not None else {}
    policy = parse_policy(settings)
    settings.pop("expires", None)  # a TOML date does not travel; its milliseconds do
    return (
        settings | {"min_cohort": policy.min_cohort} | ({"expires_ms": policy.expires_ms} if policy.expires_ms else {})
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("E-cli-34", f"cannot read the policy {path}", str(error), "docs/operator.md, Data") from None
