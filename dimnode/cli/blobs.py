"""Blobs: bytes by CID, added, fetched, kept and let go.

Rule: how far it is goes to stderr, the result to stdout; Ctrl-C hangs up, the node stops, and what came stays for the
next time.
"""

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimnode.cli.node import open_client
from dimnode.cli.output import clock, counted, facts, say, say_json, size_text, table, talk
from dimnode.client import Client
from dimnode.errors import ConfigError, DimError, Refused

_LOOK_SECONDS = 0.25
_GB_MAX = 2**33
"""Its bytes are a number that any message can hold."""
ANEW = "nothing half-done is left; the same command again begins anew"
_GOES_ON = "the same command again goes on where this one was"
_NOTHING_YET = "no blobs yet; hint: dim blobs add FILE"


def add(chosen: argparse.Namespace) -> int:
    """Copy a file into the node's store."""
    path = chosen.file.expanduser().absolute()
    with open_client(chosen) as client:
        added = watched(
            client,
            str(path),
            lambda: client.ask("blobs.add", path=str(path), pin=not chosen.no_pin, share=chosen.share),
            quiet=chosen.json,
            stopped=ANEW,
        )
    if chosen.json:
        say_json(added)
        return 0
    say(added["blob"])
    talk(f"{size_text(added['bytes'])}; {_who(added['shared'])}")
    return 0


def get(chosen: argparse.Namespace) -> int:
    """Fetch a blob from whoever has it."""
    with open_client(chosen) as client:
        found = watched(
            client,
            chosen.blob,
            lambda: client.ask(
                "blobs.get", blob=chosen.blob, peers=chosen.source or [], pin=chosen.pin, share=chosen.share
            ),
            quiet=chosen.json,
        )
        if chosen.output is not None:
            found["path"] = str(_copied(Path(found["path"]), chosen.output.expanduser()))
    if chosen.json:
        say_json(found)
        return 0
    say(found["path"])
    talk(f"{size_text(found['bytes'])}; every leaf was checked against {found['blob']}")
    return 0


def ls(chosen: argparse.Namespace) -> int:
    """What is here, the most recently used first."""
    with open_client(chosen) as client:
        found = client.ask("blobs.ls")
    if chosen.json:
        say_json(found)
        return 0
    cells = [
        [row["blob"], size_text(row["bytes"]), row["pins"], clock(row["used_ms"], date=True)] for row in found["blobs"]
    ]
    table(("blob", "size", "kept for", "last used"), cells, _NOTHING_YET)
    for row in found["wanted"]:
        talk(f"pinned but not here: {row['blob']} ({', '.join(row['pins'])}); hint: dim blobs get {row['blob']}")
    return 0


def pin(chosen: argparse.Namespace) -> int:
    """Keep a blob, here already or not."""
    return _pins(chosen, "blobs.pin")


def unpin(chosen: argparse.Namespace) -> int:
    """One reason less to keep it."""
    return _pins(chosen, "blobs.unpin")


def _pins(chosen: argparse.Namespace, op: str) -> int:
    def line(found: dict[str, Any]) -> str:
        return ", ".join(found["pins"]) or "not pinned: it goes when room is needed"

    _of_one(chosen, op, line, reason="shared" if chosen.share else chosen.reason)
    return 0


def rm(chosen: argparse.Namespace) -> int:
    """Take an unpinned blob out now."""
    _of_one(chosen, "blobs.rm", lambda gone: f"{size_text(gone['bytes'])} are free again")
    return 0


def verify(chosen: argparse.Namespace) -> int:
    """Hash it once more; 1 when it does not hold (then it is removed)."""
    with open_client(chosen) as client:
        found = watched(
            client,
            chosen.blob,
            lambda: client.ask("blobs.verify", blob=chosen.blob),
            quiet=chosen.json,
            stopped=ANEW,
        )
    _say_of_one(chosen, found, "holds" if found["holds"] else "DOES NOT HOLD: removed")
    return 0 if found["holds"] else 1


def _of_one(chosen: argparse.Namespace, op: str, line: Callable[[dict[str, Any]], str], **more: Any) -> None:
    """One question about one blob: the answer as JSON, or a line behind the blob's id."""
    with open_client(chosen) as client:
        found = client.ask(op, blob=chosen.blob, **more)
    _say_of_one(chosen, found, line(found))


def _say_of_one(chosen: argparse.Namespace, found: dict[str, Any], line: str) -> None:
    if chosen.json:
        say_json(found)
    else:
        say(f"{found['blob']}  {line}")


def gc(chosen: argparse.Namespace) -> int:
    """Let go of unpinned blobs."""
    most = 0 if chosen.all else None if chosen.to_gb is None else _bytes_of(chosen.to_gb)
    with open_client(chosen) as client:
        gone = client.ask("blobs.gc", bytes=most)
    if chosen.json:
        say_json(gone)
        return 0
    for blob in gone["removed"]:
        say(blob)
    talk(f"{counted(len(gone['removed']), 'blob')} went, {size_text(gone['bytes'])} are free again")
    return 0


def _bytes_of(gb: float) -> int:
    """Raises `ConfigError` for what is no size: less than nothing, without an end, not a number."""
    if not 0 <= gb < _GB_MAX:
        raise ConfigError("E-cli-10", f"--to-gb {gb:g} is no size", "", "as in: --to-gb 20")
    return int(gb * 1024**3)


def stat(chosen: argparse.Namespace) -> int:
    """Figures of the store."""
    with open_client(chosen) as client:
        found = client.ask("blobs.stat")
    if chosen.json:
        say_json(found)
        return 0
    facts(
        [
            ("blobs", f"{found['blobs']}, {size_text(found['bytes'])}"),
            ("pinned", size_text(found["pinned_bytes"])),
            ("unpinned, at most", size_text(found["unpinned_bytes_max"])),
            ("unfinished", f"{found['parts']}, {size_text(found['part_bytes'])}"),
            ("free on the disk", size_text(found["free_bytes"])),
            ("served", f"{size_text(found['served_bytes'])} in {found['served_leaves']} leaves"),
            ("refused", found["refused"]),
            *_of_bitswap(found),
            ("not ours in the folder", found["foreign"]),
        ]
    )
    return 0


def _of_bitswap(found: dict[str, Any]) -> list[tuple[str, object]]:
    """What IPFS peers were given, when they are."""
    if "bitswap_bytes" not in found:
        return []
    blocks = counted(found["bitswap_blocks"], "block")
    peers = counted(found["bitswap_peers"], "peer")
    return [("served by bitswap", f"{size_text(found['bitswap_bytes'])} in {blocks}; {peers} now")]


# ---- how far it is


def watched(
    client: Client, name: str, work: Callable[[], dict[str, Any]], quiet: bool = False, stopped: str = _GOES_ON
) -> dict[str, Any]:
    """Do it in a thread and draw a bar meanwhile. Ctrl-C hangs up, and so ends it in the node, too; `stopped` says what
    comes of it then."""
    done = threading.Event()
    result: dict[str, Any] = {}
    errors: list[DimError] = []

    def run() -> None:
        try:
            result.update(work())
        except DimError as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        if quiet or not sys.stderr.isatty():
            done.wait()
        else:
            _draw(client, name, done)
    except KeyboardInterrupt:
        client.close()
        talk(f"stopped; {stopped}")
        raise
    if errors:
        raise errors[0]
    return result


def _draw(client: Client, name: str, done: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(f"…{name[-12:]}", total=None)
        while not done.wait(_LOOK_SECONDS):
            for row in client.ask("blobs.progress")["progress"]:
                if row["name"] == name:
                    count = len(row.get("providers", ()))
                    whom = f" from {counted(count, 'peer')}" if count else ""
                    bar.update(
                        task, completed=row["bytes"], total=row["of"] or None, description=f"…{name[-12:]}{whom}"
                    )


def _copied(source: Path, target: Path) -> Path:
    """A copy under the name that the person gave: whole or not there."""
    if target.is_dir():
        target = target / source.name
    partial = target.with_name(target.name + ".part")
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        raise Refused("E-store-43", f"cannot write {target}", error.strerror or "", "check the path") from None
    finally:  # also after a Ctrl-C
        partial.unlink(missing_ok=True)
    return target.absolute()


def _who(shared: bool) -> str:
    return "everybody may fetch it" if shared else "kept here; nobody is given it (--share lets everybody fetch it)"
