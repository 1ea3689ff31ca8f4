"""Names that the operator gave to peers: a list of trusted peers goes before what peers say of themselves.

Rule: a name in an advert is a claim, and anybody may claim it while its owner is away. A name in `--trust peers.toml`
is an id, and nothing else is ever meant by it.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from dimnode.audit.files import read_trust
from dimnode.records.ids import peer_text


def named_peer(chosen: argparse.Namespace, name: str) -> str:
    """The id behind a name of the list, else the name as it was typed. Raises `ConfigError`."""
    return _ids(chosen).get(name, name)


def pinned(chosen: argparse.Namespace, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job with the names of peers in its tasks made ids, as far as the list knows them."""
    ids, tasks = _ids(chosen), job.get("tasks")
    if not ids or not isinstance(tasks, list):
        return dict(job)
    return {**job, "tasks": [_task(task, ids) for task in tasks]}


def _task(task: Any, ids: Mapping[str, str]) -> Any:
    if not isinstance(task, Mapping) or not isinstance(task.get("peer"), str):
        return task
    return {**task, "peer": ids.get(task["peer"], task["peer"])}


def _ids(chosen: argparse.Namespace) -> dict[str, str]:
    if not getattr(chosen, "trust", None):
        return {}
    return {name: peer_text(peer) for peer, name in read_trust(chosen.trust).items()}
