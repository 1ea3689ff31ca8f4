"""What could be wrong with this node, each finding with its mend: reads like a good mechanic.

Rule: look, do not guess: every finding comes from a measurement made now.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from dimnode.node.node import Node

_DISK_BYTES_MIN = 1024**3
_LATE_MS_MAX = 50.0


def findings(node: Node) -> list[dict[str, Any]]:
    """One map per check: check, ok, detail, mend."""
    return [_addresses(node), _bootstrap(node), _peers(node), _sandbox(node), _offers(node), _disk(node), _loop(node)]


def _finding(check: str, ok: bool, detail: str, mend: str = "") -> dict[str, Any]:
    return {"check": check, "ok": ok, "detail": detail, "mend": "" if ok else mend}


def _addresses(node: Node) -> dict[str, Any]:
    assert node.host is not None
    found = node.host.addresses()
    only_local = all("/127." in address for address in found)
    detail = ", ".join(found) or "none"
    if only_local and node.config.profile == "dev":
        return _finding("listening", True, f"{detail} (this machine only: profile dev)")
    return _finding("listening", bool(found) and not only_local, detail, "dim up --listen /ip4/0.0.0.0/tcp/4710")


def _bootstrap(node: Node) -> dict[str, Any]:
    if not node.config.bootstrap:
        return _finding("bootstrap", True, "none configured: others join through this node, or it remembers peers")
    found = node.discovery.found if node.discovery else None
    ok = found is not None and found.bootstrap_ok
    detail = "reached" if ok else (found.last_error if found else "not tried yet")
    return _finding("bootstrap", ok, detail, "is that node up, and its port open? compare with its `dim up` line")


def _peers(node: Node) -> dict[str, Any]:
    linked = len(node.links.all())
    alive = len(node.swarm.members.alive(trio.current_time()))
    mend = "dim up --bootstrap ADDRESS, or let others join through this node"
    return _finding("peers", linked > 0, f"{linked} linked, {alive} heard", mend)


def _sandbox(node: Node) -> dict[str, Any]:
    if node.pool is None:
        return _finding("sandbox", True, "this node executes nothing")
    stats = node.pool.stats()
    mend = "without all layers foreign tasks are refused; see docs/platforms.md, or set require_sandbox = false"
    return _finding("sandbox", stats.sandbox_complete, stats.sandbox, mend)


def _offers(node: Node) -> dict[str, Any]:
    models, cabinets = len(node.library.models), len(node.library.cabinets)
    detail = f"{models} models, {cabinets} cabinets"
    return _finding("offers", models + cabinets > 0 or node.pool is None, detail, "dim models add FILE, dim data add …")


def _disk(node: Node) -> dict[str, Any]:
    free = shutil.disk_usage(node.home).free
    return _finding("disk", free >= _DISK_BYTES_MIN, f"{free / 1024**3:.1f} GiB free at {node.home}", "free some space")


def _loop(node: Node) -> dict[str, Any]:
    late = node.watchers.lateness_p99_ms()
    return _finding(
        "loop", late <= _LATE_MS_MAX, f"late by {late:.1f} ms (p99)", "the machine is overloaded: fewer workers"
    )
