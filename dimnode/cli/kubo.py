"""The operator's Kubo daemon: how it stands with it, and adding what is not there yet.

Rule: the daemon is asked by the node, never from here.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from dimnode.cli.node import open_client
from dimnode.cli.output import counted, facts, say, say_json, shown, talk


def status(chosen: argparse.Namespace) -> int:
    """Who answers there, and what of this node it has. Exit code 1 when it cannot be used."""
    with open_client(chosen) as client:
        found = client.ask("kubo.status")
    if chosen.json:
        say_json(found)
    elif not found["api"]:
        say('no Kubo daemon is configured; hint: api = "/ip4/127.0.0.1/tcp/5001" under [kubo] (docs/kubo.md)')
    else:
        _show(found)
    return 1 if found["problem"] else 0


def _show(found: Mapping[str, Any]) -> None:
    problem = found["problem"]
    rows = [
        ("daemon", f"{shown(found['daemon']) or 'none'} at {found['api']}"),
        ("pinned", f"{found['pinned']} files and manifests of models, {counted(found['receipts'], 'receipt')} added"),
        ("name", found["name"] or "none yet: nothing of this node is published"),
        ("blobs", f"taken from there: {found['fetch']}"),
    ]
    if found["index"]:
        rows.insert(3, ("index", found["index"]))
    facts(rows)
    if found["silent"]:
        talk("nothing is added: this node is in a private swarm (private_swarm in [kubo])")
    for what, words in found["refused"].items():
        talk(f"not added: {what}: error {words['code']}: {words['what']} ({words['cause']})")
    if problem:
        talk(f"error {problem['code']}: {problem['what']}")
        talk(f"cause: {problem['cause']}")
        talk(f"hint: {problem['hint']}")


def push(chosen: argparse.Namespace) -> int:
    """Add now what is not there, and renew the name; or the receipt of one job."""
    with open_client(chosen) as client:
        found = client.ask("kubo.push", job=chosen.job)
    refused = {} if chosen.job else found["refused"]
    if chosen.json:
        say_json(found)
        return 1 if refused else 0
    for what in found["added"]:
        say(f"added {shown(what)}")
    if found.get("root"):
        say(found["root"])
    elif found["name"]:
        say(found["name"])
    if not found["added"]:
        talk("everything was there already")
    for what, words in refused.items():
        talk(f"not added: {what}: error {words['code']}: {words['what']} ({words['cause']})")
    return 1 if refused else 0
