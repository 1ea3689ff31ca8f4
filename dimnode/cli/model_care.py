"""Models one at a time: show, pull, update, verify, withdraw, rm, warm, and who may use one.

Rule: how far it is goes to stderr, the result to stdout; what a stranger wrote is printed so that it cannot act.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dimnode.cli.blobs import ANEW, watched
from dimnode.cli.durations import FORM, span_ms
from dimnode.cli.node import open_client
from dimnode.cli.output import clock, facts, say, say_json, shown, size_text, table, talk
from dimnode.errors import ConfigError

_FORM = ("format", "architecture", "dtype", "quantisation")


def show(chosen: argparse.Namespace) -> int:
    """Everything about a model."""
    with open_client(chosen) as client:
        found = client.ask("models.show", model=chosen.model)
    if chosen.json:
        say_json(found)
        return 0
    price = found["price"]
    facts(
        [
            ("model", shown(found["name"])),
            ("id", found["model"]),
            ("publisher", f"{shown(found['publisher_name'])} {found['publisher']}"),
            ("published", clock(found["at_ms"], date=True)),
            ("summary", shown(found["summary"])),
            ("withdrawn", _withdrawn(found["withdrawn"])),
            ("to take instead", shown(found["replacement"])),
            ("policy", found["access"]),
            ("price", f"{price['micro'] / 1e6:g} {price['currency']} for each {price['unit']}" if price else ""),
            ("licence", shown(found["licence"]) or "not stated"),
            ("origin", found["origin"]),
            ("format", [word for key in _FORM if (word := found[key])]),
            ("memory", size_text(found["memory_bytes"]) if found["memory_bytes"] else ""),
            ("largest batch", found["max_batch"] or ""),
            ("takes", takes_text(found)),
            ("as tensors", _ports(found["inputs"]) if found["takes"] else ""),
            ("gives", _ports(found["outputs"])),
            ("labels", found["labels"]),
            ("updates", found["previous"]),
            ("updated by", found["newer"]),
            ("made of", [f"{shown(relation)} {identity}" for relation, identity in found["lineage"]]),
            ("parity", found["parity"]),
            ("here", "yes" if found["here"] else "no"),
            ("peers that have it", found["peers"]),
        ]
    )
    for operation, may in found["may"].items():
        yes = "yes" if may["allowed"] else f"no ({may['code']})"
        say(f"may this node {operation}: {yes}, {shown(may['why'])}")
    cells = [[file["path"], file["role"], size_text(file["bytes"]), file["root"]] for file in found["files"]]
    table(("file", "role", "size", "root"), cells)
    grants = [[row["peer"], row["operations"], _until(row), row["terms"]] for row in found["grants"]]
    if grants:
        table(("granted to", "for", "until", "terms"), grants)
    return 0


def takes_text(row: Mapping[str, Any]) -> str:
    """What a person gives to a model: what it declares, else its tensors."""
    given = [
        source["kind"] if source["kind"] == source["name"] else f"{source['kind']} {source['name']}"
        for source in row.get("takes", ())
    ]
    return ", ".join(map(shown, given)) or _ports(row["inputs"])


def _ports(rows: Sequence[Any]) -> str:
    return ", ".join(f"{shown(name)} {shown(dtype)}{_shape_text(shape)}" for name, dtype, shape in rows)


def _shape_text(shape: Sequence[int]) -> str:
    """`[any, 3]`."""
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"


def _withdrawn(reason: str | None) -> str:
    return "" if reason is None else reason or "yes, without a reason"


def _until(grant: dict[str, Any]) -> str:
    if grant["revoked"]:
        return "taken back"
    return clock(grant["expires_ms"], date=True) if grant["expires_ms"] else "no end"


def pull(chosen: argparse.Namespace) -> int:
    """Fetch a model's files and offer it."""
    with open_client(chosen) as client:
        wanted = client.ask("models.show", model=chosen.model)
        peers = chosen.source or []
        done = watched(
            client,
            wanted["model"],
            lambda: client.ask("models.pull", model=wanted["model"], peers=peers),
            quiet=chosen.json,
        )
    line = f"{shown(done['name'])}  {size_text(done['bytes'])}, every leaf checked; offered from here"
    return _said(chosen, done, line)


def warm(chosen: argparse.Namespace) -> int:
    """Have a model ready before a job needs it."""
    with open_client(chosen) as client:
        wanted = client.ask("models.show", model=chosen.model)
        done = watched(
            client,
            wanted["model"],
            lambda: client.ask("models.warm", model=wanted["model"], peer=chosen.peer),
            quiet=chosen.json,
        )
    where = shown(done["peer"]) if "peer" in done else "this node"
    words = {"here": f"{where} has it", "coming": f"{where} is fetching it"}
    return _said(chosen, done, f"{shown(done['name'])}  {words.get(done['state'], shown(done['state']))}")


def verify(chosen: argparse.Namespace) -> int:
    """Hash all files again; 1 when one does not hold."""
    with open_client(chosen) as client:
        found = watched(
            client,
            chosen.model,
            lambda: client.ask("models.verify", model=chosen.model),
            quiet=chosen.json,
            stopped=ANEW,
        )
    if chosen.json:
        say_json(found)
    else:
        table(("file", "root", "state"), [[row["path"], row["root"], row["state"]] for row in found["files"]])
        if not found["holds"]:
            gone = all(row["state"] == "missing" for row in found["files"])
            what = "none of its files is here" if gone else "a file is damaged or missing; it is offered no longer"
            talk(f"{what}. hint: dim models pull {found['name']}")
    return 0 if found["holds"] else 1


def withdraw(chosen: argparse.Namespace) -> int:
    """Take a model of yours back, for everybody."""
    with open_client(chosen) as client:
        done = client.ask("models.withdraw", model=chosen.model, reason=chosen.reason, replacement=chosen.replacement)
    return _said(chosen, done, f"{shown(done['name'])}  withdrawn; old receipts still verify")


def rm(chosen: argparse.Namespace) -> int:
    """Hold a model no longer."""
    with open_client(chosen) as client:
        done = client.ask("models.rm", model=chosen.model)
    talk("its files go when room is needed, or with dim blobs gc --all")
    return _said(chosen, done, f"{shown(done['name'])}  no longer here")


def grant(chosen: argparse.Namespace) -> int:
    """Let a peer use a restricted model of yours."""
    until = None if chosen.expires == "never" else time.time_ns() // 1_000_000 + _term_ms(chosen.expires)
    with open_client(chosen) as client:
        done = client.ask(
            "models.grant",
            model=chosen.model,
            peer=chosen.peer,
            operations=chosen.operations,
            expires_ms=until,
            terms=chosen.terms,
        )
    when = f"until {clock(until, date=True)}" if until else "without an end"
    return _said(chosen, done, f"{shown(done['name'])}  to {done['peer']} for {', '.join(done['operations'])}, {when}")


def _term_ms(text: str) -> int:
    if (span := span_ms(text)) is None:
        raise ConfigError("E-models-07", f"{text!r} is no duration", FORM, "--expires 90d, or --expires never")
    return span


def revoke(chosen: argparse.Namespace) -> int:
    """Take a peer's grants of a model back."""
    with open_client(chosen) as client:
        done = client.ask("models.revoke", model=chosen.model, peer=chosen.peer, reason=chosen.reason)
    return _said(chosen, done, f"{shown(done['name'])}  no longer granted to {done['peer']}")


def _said(chosen: argparse.Namespace, found: dict[str, Any], line: str) -> int:
    if chosen.json:
        say_json(found)
    else:
        say(line)
    return 0


def price_of(text: str | None) -> dict[str, Any] | None:
    """`0.002 EUR/row` as a manifest says it. Raises `ConfigError`."""
    if text is None:
        return None
    amount, _, rest = text.strip().partition(" ")
    currency, _, unit = rest.strip().partition("/")
    try:
        micro = round(float(amount) * 1e6)
        if micro < 0 or not currency:
            raise ValueError
    except (ValueError, OverflowError):
        hint = 'as in: --price "0.002 EUR/row", or /answer'
        raise ConfigError("E-cli-38", f"{text!r} is no price", "", hint) from None
    return {"micro": micro, "currency": currency, "unit": unit or "answer"}
