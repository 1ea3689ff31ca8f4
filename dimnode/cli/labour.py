"""What a node does for others: status with its queue and workers, drain, loading a model, benchmarks of a model.

Rule: the screen shows what the node said, and nothing that was computed here but sums. On a terminal `--watch` redraws
one screen; into a pipe it writes a line every two seconds.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dimnode.cli.durations import span_text
from dimnode.cli.node import open_client
from dimnode.cli.output import coloured, counted, facts, say, say_json, shown, size_text, table, talk
from dimnode.client import Client

_WATCH_SECONDS = 2.0
_LIVE_SECONDS = 0.5
_DRAIN_LOOK_SECONDS = 0.2
_QUEUE_COLUMNS = ("identity", "share", "high", "normal", "low", "running")
_WORKER_COLUMNS = ("pid", "model", "runtime", "state", "orders", "memory", "idle")


def status(chosen: argparse.Namespace) -> int:
    """One look, or one that is kept up to date."""
    with open_client(chosen) as client:
        if chosen.watch:
            return _watch(client, chosen.json)
        found = client.status()
    if chosen.json:
        say_json(found)
        return 0
    facts(_facts(found))
    if found["members"]:
        say()
        table(_WORKER_COLUMNS, _workers(found))
    if found["queue"]:
        say()
        table(_QUEUE_COLUMNS, _queue(found))
    return 0


def drain(chosen: argparse.Namespace) -> int:
    """Take no more leases (or take them again), and on request wait until what runs has ended."""
    with open_client(chosen) as client:
        said = client.ask("drain", on=not chosen.off)
        left = _left(client)
        while chosen.wait and not chosen.off and left:
            time.sleep(_DRAIN_LOOK_SECONDS)
            left = _left(client)
    if chosen.json:
        say_json({**said, "tasks_left": left})
    elif chosen.off:
        talk("takes leases again")
    elif left:
        talk(f"takes no more leases, also after a restart; {counted(left, 'task')} left. next: dim drain --wait")
    else:
        talk("takes no more leases, also after a restart; nothing runs. back: dim drain --off")
    return 0


def load(chosen: argparse.Namespace) -> int:
    """Load a model into a worker now."""
    with open_client(chosen) as client:
        said = client.ask("models.load", model=chosen.model)
    if chosen.json:
        say_json(said)
    else:
        talk(f"{shown(said['model'])} is loaded, {size_text(said['memory_bytes'])}")
    return 0


def bench(chosen: argparse.Namespace) -> int:
    """Latency and throughput of a model by batch size, beside the bare runtime."""
    with open_client(chosen) as client:
        said = client.ask(
            "models.bench", model=chosen.model, batches=chosen.batches, free_size=chosen.size, seconds=chosen.seconds
        )
    if chosen.json:
        say_json(said)
        return 0
    opened = sorted({key for row in said["rows"] for key in row.get("throughput", {})}, key=int)
    columns = ["batch", "direct p50 ms", "p95", "rows/s", "pool p50 ms", "p95"]
    columns += [f"rows/s, {key} open" for key in opened]
    table(columns, [_bench_cells(row, opened) for row in said["rows"]])
    if not any(row.get("pool") for row in said["rows"]):
        talk("what stands before this model takes files or texts, which cannot be made up: the pool was not timed")
    say()
    runtime = said["runtime"]
    facts(
        [
            ("recommended", f"batches of {said['recommended_batch']}"),
            ("cold start", f"{said['cold_ms']:.0f} ms from nothing to a loaded model"),
            ("memory", size_text(said["memory_bytes"])),
            ("runtime", f"{runtime.get('engine')} {runtime.get('version')}, {runtime.get('isa')}, one thread a worker"),
        ]
    )
    return 0


def _bench_cells(row: Mapping[str, Any], opened: Sequence[str]) -> list[Any]:
    direct, pool, rates = row["direct"], row.get("pool"), row.get("throughput", {})
    cells = [row["batch"], f"{direct['p50_ms']:.3f}", f"{direct['p95_ms']:.3f}", f"{direct['rows_per_second']:.0f}"]
    cells += [f"{pool['p50_ms']:.3f}", f"{pool['p95_ms']:.3f}"] if pool else ["-", "-"]
    return cells + [f"{rates[key]:.0f}" if key in rates else "-" for key in opened]


def _left(client: Client) -> int:
    found = client.status()
    return int(found["tasks_running"] + found["tasks_queued"])


# ---- the screen


def _facts(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    finished = ", ".join(f"{count} {what}" for what, count in sorted(found["tasks_finished"].items())) or "none yet"
    refused = ", ".join(f"{count} {code}" for code, count in sorted(found["tasks_refused"].items()))
    peers = f"{found['peers_linked']} linked, {found['peers_known']} heard, {found['dht_peers']} in the DHT"
    drained = "DRAINING: takes no leases (dim drain --off)  " if found["draining"] else ""
    return [
        ("peer id", found["peer"] + (f"  ({found['name']})" if found["name"] else "")),
        ("swarm", found["swarm"]),
        ("http", found.get("http") or "shut"),
        ("version", f"{found['version']}, up for {span_text(found['up_seconds'])}"),
        *[("address" if not place else "", address) for place, address in enumerate(found["addresses"])],
        ("peers", peers),
        ("jobs", f"{found['jobs_open']} open"),
        ("tasks", f"{drained}{found['tasks_running']} running, {found['tasks_queued']} queued; finished: {finished}"),
        *([("refused", refused)] if refused else []),
        ("offers", f"{counted(found['models'], 'model')}, {counted(found['cabinets'], 'cabinet')}"),
        ("sandbox", found["sandbox"]),
        *([("kubo", _kubo_line(found["kubo"]))] if found.get("kubo") else []),
        ("memory", f"{size_text(found['rss_bytes'])}, {size_text(found['held_bytes'])} held for jobs"),
        ("loaded", _loaded(found)),
        ("cache", f"{size_text(found['cache_bytes'])} of models"),
        ("devices", ", ".join(f"{name} on {word}" for name, word in found.get("devices", {}).items()) or "-"),
        ("gpu", _gpu(found["gpu"])),
        ("journal", f"{size_text(found['journal_bytes'])} of at most {size_text(found['journal_bytes_max'])}"),
        ("loop", f"late by {found['loop_late_p99_ms']:.1f} ms (p99), {found['commits']} commits"),
    ]


def _loaded(found: Mapping[str, Any]) -> str:
    models = f"{size_text(found['loaded_bytes'])} of at most {size_text(found['loaded_bytes_max'])} in models"
    return f"{models}; this machine has {size_text(found['machine_free_bytes'])} left"


def _kubo_line(found: Mapping[str, Any]) -> str:
    if found["problem"]:
        return f"{found['problem']['what']} (dim kubo status)"
    return f"{found['daemon'] or 'not asked yet'}, {found['pinned']} pinned there"


def _gpu(found: Mapping[str, Any]) -> str:
    if found["kind"] == "none":
        return "none"
    used = found.get("used_bytes")
    in_use = f", {size_text(used)} in use" if used is not None else ""
    return f"{found['kind']} {found['name']}, {size_text(found['memory_bytes'])}{in_use}"


def _workers(found: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [
            row["pid"],
            row["model"] + (" (pinned)" if row["pinned"] else ""),
            row["runtime"],
            row["state"],
            row["orders"],
            size_text(row["memory_bytes"]),
            f"{row['idle_seconds']:.0f} s" if row["state"] == "idle" else None,
        ]
        for row in found["members"]
    ]


def _queue(found: Mapping[str, Any]) -> list[list[Any]]:
    rows = sorted(found["queue"], key=lambda row: -(row["high"] + row["normal"] + row["low"]))
    return [
        [
            row["name"] or (f"…{row['identity'][-8:]}" if row["identity"] else "-"),
            f"{row['share']:g}",
            *(row["high"], row["normal"], row["low"], row["running"]),
        ]
        for row in rows
    ]


def _watch(client: Client, as_json: bool) -> int:
    if not as_json and sys.stdout.isatty():
        return _watch_live(client)
    while True:
        found = client.status()
        if as_json:
            say_json(found, indent=None)
        else:
            tasks = f"{found['tasks_running']} running  {found['tasks_queued']} queued"
            jobs = f"{counted(found['jobs_open'], 'job')}  {tasks}"
            load = f"{size_text(found['rss_bytes'])}  loop late {found['loop_late_p99_ms']:.1f} ms"
            drained = "  DRAINING" if found["draining"] else ""
            say(f"{time.strftime('%H:%M:%S')}  {counted(found['peers_linked'], 'peer')}  {jobs}  {load}{drained}")
        time.sleep(_WATCH_SECONDS)


def _watch_live(client: Client) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not coloured(), highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(client.status()), refresh=True)
            time.sleep(_LIVE_SECONDS)


def screen(found: Mapping[str, Any]) -> Any:
    """The whole screen of `--watch`: a rich group of three tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    top = Table.grid(padding=(0, 2))
    for name, value in _facts(found):
        top.add_row(Text(name, style="bold"), Text(shown(value)))
    return Group(
        top,
        _rich_table("workers", _WORKER_COLUMNS, _workers(found), "nothing is loaded"),
        _rich_table("waiting, by identity and priority", _QUEUE_COLUMNS, _queue(found), "nothing waits"),
        Text("Ctrl-C ends this; the node goes on", style="dim"),
    )


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    found = Table(title=title, title_justify="left", box=None, padding=(0, 2), caption=None if rows else empty)
    for column in columns:
        found.add_column(column)
    for row in rows:
        found.add_row(*(Text("" if cell is None else shown(cell)) for cell in row))
    return found
