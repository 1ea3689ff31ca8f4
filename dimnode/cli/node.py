"""The node itself: init, up, status, doctor, connect, stop.

Rule: `up` is the only command that imports the node, and only when it runs; every other one asks over the socket.
"""

import argparse
import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dimnode.cli.hints import with_home
from dimnode.cli.logs import configure_logging
from dimnode.cli.mechanic import look_around
from dimnode.cli.output import bold, facts, say, say_json, shown, talk
from dimnode.client import Client
from dimnode.config import Config, default_home, load_config, unknown_variables
from dimnode.errors import DimError, NoNode, RunFailed
from dimnode.exec.sandbox import REQUIRED
from dimnode.posix import files
from dimnode.records.ids import peer_text
from dimnode.records.membership_kinds import OPEN_SWARM_NAME

_STOP_SECONDS_MAX = 10.0


def home_of(chosen: argparse.Namespace) -> Path:
    """--home, else DIM_HOME, else the user's data directory."""
    return Path(chosen.home).expanduser() if chosen.home else default_home()


def open_client(chosen: argparse.Namespace) -> Client:
    """The node of this home. Raises `NoNode`."""
    return Client(home_of(chosen))


# ---- up


def up(chosen: argparse.Namespace) -> int:
    """Run the node until SIGINT or SIGTERM."""
    from dimnode.api.http.settings import check_listen

    home = home_of(chosen)
    check_listen(chosen.http or "")
    flags: dict[str, Any] = {"profile": chosen.profile, "name": chosen.name}
    flags |= {"listen": chosen.listen, "bootstrap": chosen.bootstrap, "execute": False if chosen.no_execute else None}
    flags |= {"http_listen": chosen.http}
    config = load_config(home, flags)
    configure_logging(config.log_level, config.log_format)
    for line in unknown_variables(os.environ):
        talk(f"warning: {line}")
    starting = threading.Timer(1.0, talk, ["starting …"])
    starting.daemon = True
    starting.start()

    def on_ready(ready: Any) -> None:
        starting.cancel()
        _announce(chosen, config, ready)

    try:
        from dimnode.node.starting import run_node

        run_node(home, flags, on_ready)
    except BaseExceptionGroup as group:
        raise (_expected(group) or group) from None
    except OSError as error:
        raise (_disk_full(error, home) or error) from None
    finally:
        starting.cancel()
    if not chosen.json:
        talk("stopped")
    return 0


def _announce(chosen: argparse.Namespace, config: Config, ready: Any) -> None:
    """What the operator, and the operator of the next machine, want to know."""
    peer = peer_text(ready.peer)
    if chosen.json:
        document = {"peer": peer, "name": config.name, "swarm": ready.swarm, "execute": config.execute}
        document["addresses"] = list(ready.addresses)
        say_json(
            document
            | {"socket": str(ready.socket), "sandbox": ready.sandbox, "http": ready.http, "fault": ready.fault},
            indent=None,
        )
        return
    pairs: list[tuple[str, Any]] = [("peer id", peer + (f"  ({config.name})" if config.name else ""))]
    pairs += [("address" if not place else "", address) for place, address in enumerate(ready.addresses)]
    if ready.swarm != OPEN_SWARM_NAME:
        pairs += [("swarm", f"{ready.swarm}: private; an admin lets others in with dim swarm invite")]
    elif ready.addresses:
        pairs += [("join with", f"dim up --bootstrap {ready.addresses[0]}")]
    pairs += [("executes", _executes(config, ready.sandbox, ready.fault)), ("control", ready.socket)]
    if ready.http:
        pairs += [("http", ready.http)]
    facts(pairs)
    if ready.addresses and all("/ip4/127." in address or "/ip6/::1/" in address for address in ready.addresses):
        talk("only this machine can reach it: --listen /ip4/0.0.0.0/tcp/4710 opens it to the network")
    if config.bootstrap:
        talk(f"joins through {shown(config.bootstrap)}: dim doctor says whether that answers")
    talk("ready. dim status · dim models add FILE · Ctrl-C stops it")


def _executes(config: Config, sandbox: str, fault: str) -> str:
    """What foreign jobs find here, without flattery."""
    if not config.execute:
        return "nothing: it submits and relays only"
    if fault:
        return f"nothing: {shown(fault)} (dim doctor)"
    missing = sorted(REQUIRED - set(sandbox.split(" ")[0].split("+")))
    if not missing and "leaks" not in sandbox:
        return f"models, in a sandbox of {sandbox}"
    lacking = f"no {', '.join(missing)}" if missing else sandbox
    if config.require_sandbox:
        return f"no foreign models: the sandbox is not complete here ({lacking}; dim doctor)"
    return f"models WITHOUT a complete sandbox ({lacking}), because require_sandbox = false"


def _expected(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one thing that went wrong, when it is an expected failure or the keyboard."""
    for error in _leaves(group):
        if isinstance(error, DimError | KeyboardInterrupt):
            return error
        if isinstance(error, OSError) and (full := _disk_full(error, None)) is not None:
            return full
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _disk_full(error: OSError, home: Path | None) -> DimError | None:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = error.filename or home or "the node's directory"
    hint = "free some space, then dim up: nothing that was confirmed is lost"
    return RunFailed("E-cli-22", f"cannot write {where}", "the disk is full", hint)


# ---- questions


def doctor(chosen: argparse.Namespace) -> int:
    """What was checked, what is fine, what is not and its mend. Exit code 1 when something stops work."""
    home = home_of(chosen)
    try:
        with Client(home) as client:
            findings, missing = client.doctor(), None
    except NoNode as error:
        findings, missing = look_around(home), error
    if chosen.json:
        say_json({"findings": findings, "node": missing is None})
    else:
        _diagnose(findings)
    if missing is not None:
        for line in missing.complaint.lines():
            talk(line)
        return 5
    return 1 if any(_stops(row) for row in findings) else 0


def _diagnose(findings: Sequence[Mapping[str, Any]]) -> None:
    width = max(len(row["check"]) for row in findings)
    for row in findings:
        mark = "✓" if row["ok"] else "✗" if _stops(row) else "!"
        check = row["check"].ljust(width)
        say(f"  {mark} {bold(check)}  {with_home(shown(row['detail']))}")
        if not row["ok"] and row["mend"]:
            say(f"    {'':<{width}}  mend: {with_home(row['mend'])}")


def _stops(row: Mapping[str, Any]) -> bool:
    """Without a node every finding keeps one from starting."""
    return not row["ok"] and row.get("stops", True)


def connect(chosen: argparse.Namespace) -> int:
    """Dial now; the peer id that answered. A peer that is connected already is not dialled, and that is said; one that
    turns this node away is an error, with its reason."""
    with open_client(chosen) as client:
        found = client.ask("connect", address=chosen.address)
    if chosen.json:
        say_json(found)
    else:
        say(found["peer"])
        words = "connected" if found["dialled"] else "was connected already"
        words += "" if found["tried"] else "; this address was not tried"
        talk(words if found["linked"] else f"{words}, but there is no link yet: dim peers says why")
    return 0


def stop(chosen: argparse.Namespace) -> int:
    """Ask the node to end, and wait until it has let go of its directory."""
    home = home_of(chosen)
    with Client(home) as client:
        client.stop()
    deadline = time.monotonic() + _STOP_SECONDS_MAX
    while _locked(home):
        if time.monotonic() > deadline:
            what = f"the node is still busy stopping after {_STOP_SECONDS_MAX:.0f} s"
            raise RunFailed("E-cli-23", what, "it writes down what it has taken in", "dim stop again, or wait")
        time.sleep(0.02)
    if chosen.json:
        say_json({"stopped": True})
    else:
        talk("stopped")
    return 0


def _locked(home: Path) -> bool:
    """True while a node holds the directory."""
    try:
        descriptor = os.open(home / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        files.lock_for_this_process(descriptor)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
