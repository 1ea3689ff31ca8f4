"""`dim swarm`: found a private swarm, invite, join, look, remove, leave.

Rule: an invitation goes to stdout alone, so that it can be piped; what it means goes to stderr. `new`, `join` and
`leave` change what a node is, so they want it stopped; the others ask the running node, or work on its directory.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dimnode.cli.durations import FORM, span_ms
from dimnode.cli.node import home_of
from dimnode.cli.output import counted, facts, say, say_json, shown, table, talk
from dimnode.client import Client
from dimnode.errors import ConfigError, NoNode, PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.records.ids import PEER_LETTERS_MIN, PeerId, cid_text, peer_bytes, peer_text

_STDIN_CHARACTERS_MAX: Final = 65_536


# ---- what changes this node: it has to be stopped


def new(chosen: argparse.Namespace) -> int:
    """Found a swarm with this node as its first admin."""
    from dimnode.node.private_swarm import PrivateSwarm
    from dimnode.store.home import load_key
    from dimnode.store.swarm_state import load_state

    home = home_of(chosen)
    admins = [_peer(text) for text in chosen.admin or []]
    with _stopped(home):
        if load_state(home) is not None:
            before = PrivateSwarm.load(home, load_key(home))
            name = before.book.name if before else ""
            what = f"this node is in the swarm {name!r} already"
            raise Refused("E-swarm-08", what, "a node is in one swarm", "dim swarm leave, or give another --home")
        swarm = PrivateSwarm.found(home, load_key(home), chosen.name, _now_ms(), admins, chosen.psk)
        aside = _set_journal_aside(home)  # first: a crash now leaves an open swarm and nothing that contradicts it
        swarm.save()
    net, admins = cid_text(swarm.book.net), sorted(swarm.book.admins)
    if chosen.json:
        document = {"swarm": swarm.book.name, "net": net, "admins": [peer_text(peer) for peer in admins]}
        say_json({**document, "pre_shared_key": chosen.psk, "set_aside": aside})
        return 0
    facts([("swarm", swarm.book.name), ("net", net), *_many("admin", [peer_text(peer) for peer in admins])])
    if chosen.psk:
        talk("its connections are hidden behind a pre-shared key, which travels in invitations")
    _tell_aside(aside)
    talk("next: dim up, then dim swarm invite")
    return 0


def join(chosen: argparse.Namespace) -> int:
    """Use an invitation. Nobody has to be online for it."""
    from dimnode.node.private_swarm import PrivateSwarm
    from dimnode.p2p.invitation import read_invitation
    from dimnode.store.home import load_key
    from dimnode.store.swarm_state import load_state

    home = home_of(chosen)
    text = sys.stdin.read(_STDIN_CHARACTERS_MAX) if chosen.invitation == ["-"] else "".join(chosen.invitation)
    read_invitation(text, _now_ms())  # what is wrong with it is said before anything is made
    with _stopped(home):
        fresh = load_state(home) is None
        swarm = PrivateSwarm.join(home, load_key(home), text, _now_ms())
        aside = _set_journal_aside(home) if fresh else None
        swarm.save()
    found = swarm.describe(_now_ms())
    if chosen.json:
        kept = ("swarm", "net", "me", "standing", "expires_ms", "addresses")
        say_json({**{key: found[key] for key in kept}, "set_aside": aside})
        return 0
    pairs = [("swarm", found["swarm"]), ("net", found["net"]), ("peer id", found["me"])]
    facts([*pairs, ("member", _until(found["expires_ms"])), *_many("through", found["addresses"])])
    _tell_aside(aside)
    talk("next: dim up")
    return 0


def leave(chosen: argparse.Namespace) -> int:
    """Back to the open swarm. What was done here is set aside, not deleted."""
    from dimnode.node.private_swarm import PrivateSwarm
    from dimnode.store.home import load_key
    from dimnode.store.swarm_state import set_aside, state_path

    home = home_of(chosen)
    with _stopped(home):
        if not state_path(home).exists():
            raise Refused("E-swarm-20", "this node is in the open swarm", "there is nothing to leave", "dim swarm show")
        name = ""
        try:
            swarm = PrivateSwarm.load(home, load_key(home))
            name = swarm.book.name if swarm else ""
        except (ConfigError, Refused) as error:  # damaged: leaving is the mend
            talk(error.complaint.lines()[0])
        folder = set_aside(home, _folder_name(name))
    if chosen.json:
        say_json({"left": name, "set_aside": str(folder)})
        return 0
    talk(f"left {name!r}; membership and journal are kept in {folder}")
    talk("the others still list this node until an admin removes it")
    talk("next: dim up (open swarm), or dim swarm join INVITATION")
    return 0


def _set_journal_aside(home: Path) -> str | None:
    """Records name the swarm that they were made in: a home that has some begins anew with an empty journal."""
    from dimnode.store.swarm_state import has_records, set_aside

    return str(set_aside(home, "before", journal_only=True)) if has_records(home) else None


def _tell_aside(aside: str | None) -> None:
    if aside:
        talk(f"this node has worked in another swarm: its journal is kept in {aside}")
        talk("models and data are offered again with dim models add and dim data add")


_STOPPED = "this can only be done while the node is stopped", "dim stop"
_SILENT = "the node is just starting or stopping", "the same again in a moment"


@contextmanager
def _stopped(home: Path, busy: tuple[str, str] = _STOPPED) -> Iterator[None]:
    """Hold the directory, so that no node starts on it meanwhile."""
    from dimnode.store.home import locked, prepare_home

    os.umask(0o077)
    prepare_home(home)
    with _lock(locked(home), *busy):
        yield


@contextmanager
def _lock(lock: Any, what: str, hint: str) -> Iterator[None]:
    try:
        lock.__enter__()
    except ConfigError as error:
        raise Refused("E-swarm-22", what, error.complaint.cause, hint) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


# ---- what works with and without a running node


def invite(chosen: argparse.Namespace) -> int:
    """One string that lets another machine join."""
    addresses = chosen.address or []
    wish = {
        "expires_ms": _duration_ms(chosen.expires),
        "uses": chosen.uses,
        "member_ms": _duration_ms(chosen.member_expires) if chosen.member_expires else 0,
        "label": chosen.label or "",
    }
    try:
        with Client(home_of(chosen)) as client:
            found = client.ask("swarm.invite", **wish, addresses=addresses)
    except NoNode:
        found = _invite_offline(chosen, wish, addresses)
    if chosen.json:
        say_json(found)
        return 0
    machines = counted(found["uses"], "machine")
    talk(f"joins {machines} to {found['swarm']!r} {_until(found['expires_ms'])}; treat it like a password:")
    say(found["invitation"])
    if all("/ip4/127." in address or "/ip6/::1/" in address for address in found["addresses"]):
        talk("its addresses work on this machine only: dim up --listen /ip4/0.0.0.0/tcp/4710, or --address")
    talk("there: dim swarm join dim1:… and then dim up")
    return 0


def _invite_offline(chosen: argparse.Namespace, wish: Mapping[str, Any], addresses: list[str]) -> dict[str, Any]:
    from dimnode.node.private_swarm import InviteWish, invite_answer
    from dimnode.p2p.host.addresses import check_dial

    for address in addresses:
        check_dial(address)
    with _offline(chosen) as swarm:
        record, text = swarm.invite(InviteWish(**wish, addresses=tuple(addresses)), _now_ms())
        swarm.save()
        return invite_answer(record, text, tuple(addresses), swarm.book.name)


def remove(chosen: argparse.Namespace) -> int:
    """Remove a member, or withdraw an invite."""
    try:
        with Client(home_of(chosen)) as client:
            found = client.ask("swarm.remove", target=chosen.target, reason=chosen.reason or "")
        running = True
    except NoNode:
        found, running = _remove_offline(chosen), False
    if chosen.json:
        say_json(found)
        return 0
    for peer in found["peers"]:
        say(f"removed {peer}")
    for record in found["invites"]:
        say(f"withdrawn invite {record}")
    if found["key_rotated"]:
        days = LIMITS.swarm.key_overlap_ms // 86_400_000
        talk(f"the pre-shared key was rotated; the old one is accepted for {days} more days")
    talk("members hear it at once" if running else "members hear it when this node runs: dim up")
    return 0


def _remove_offline(chosen: argparse.Namespace) -> dict[str, Any]:
    from dimnode.node.private_swarm import removed_answer

    with _offline(chosen) as swarm:
        made = swarm.remove(swarm.find(chosen.target, _now_ms()), _now_ms(), chosen.reason or "")
        swarm.save()
        return removed_answer(made, bool(swarm.state.keys))


def members(chosen: argparse.Namespace) -> int:
    """Who may take part now."""
    try:
        with Client(home_of(chosen)) as client:
            found = client.ask("swarm.members")
    except NoNode:
        with _offline(chosen) as swarm:
            rows = [{**row, "name": "", "linked": None} for row in swarm.member_rows(_now_ms())]
            found = {"members": rows, "swarm": swarm.book.name}
    if chosen.json:
        say_json(found)
        return 0
    columns = ("name", "peer", "role", "since", "until", "linked")
    table(columns, [_member_row(row) for row in found["members"]])
    return 0


def _member_row(row: Mapping[str, Any]) -> list[Any]:
    until = _day(row["expires_ms"]) if row["expires_ms"] else "no end"
    linked = "this node" if row["me"] else row["linked"]
    return [row["name"], f"…{row['peer'][-PEER_LETTERS_MIN:]}", row["role"], _day(row["since_ms"]), until, linked]


def show(chosen: argparse.Namespace) -> int:
    """The swarm, this node's place in it, its invites and removals."""
    try:
        with Client(home_of(chosen)) as client:
            found = client.ask("swarm.show")
    except NoNode:
        found = _show_offline(chosen) | {"running": False}
    if chosen.json:
        say_json(found)
        return 0
    pairs = [
        ("swarm", found["swarm"]),
        ("net", found["net"]),
        ("peer id", found["me"] or "none yet: dim init makes one"),
        ("standing", found["standing"]),
    ]
    if "members" in found:
        pairs += [*_many("admin", found["admins"]), ("members", found["members"])]
        pairs += [("pre-shared keys", found["pre_shared_keys"] or "none")]
    facts(pairs)
    if "members" in found:
        columns = ("invite", "state", "used", "until", "label")
        rows = [
            [
                f"…{row['invite'][-8:]}",
                row["state"],
                f"{row['used']}/{row['uses']}",
                _day(row["expires_ms"]),
                row["label"],
            ]
            for row in found["invites"]
        ]
        if rows:
            table(columns, rows)
        for row in found["removed"]:
            what = "withdrawn" if row["what"] == "invite" else "removed"
            reason = f" ({shown(row['reason'])})" if row["reason"] else ""
            say(f"{what} {row['what']} …{row['id'][-PEER_LETTERS_MIN:]} on {_day(row['at_ms'])}{reason}")
    for code, count in found.get("refused", {}).items():
        talk(f"refused {counted(count, 'connection')}: {code}")
    for peer, words in found.get("turned_away_by", {}).items():
        talk(f"…{peer[-PEER_LETTERS_MIN:]} does not take this node in: {shown(words)}")
    return 0


def _show_offline(chosen: argparse.Namespace) -> dict[str, Any]:
    from dimnode.node.private_swarm import PrivateSwarm, open_swarm
    from dimnode.store.home import has_key, load_key

    home = home_of(chosen)
    if not has_key(home):  # to look makes nothing
        return open_swarm(None)
    key = load_key(home)
    swarm = PrivateSwarm.load(home, key)
    return open_swarm(key.peer) if swarm is None else swarm.describe(_now_ms())


@contextmanager
def _offline(chosen: argparse.Namespace) -> Iterator[Any]:
    """The private swarm of a home on which no node runs."""
    from dimnode.node.private_swarm import PrivateSwarm
    from dimnode.store.home import has_key, load_key

    home = home_of(chosen)
    open_to_all = Refused("E-swarm-20", "this node is in the open swarm", "everybody may join it", "dim swarm new NAME")
    if not has_key(home):  # nor is a home made only to find that out
        raise open_to_all
    with _stopped(home, _SILENT):  # one that runs was asked before
        swarm = PrivateSwarm.load(home, load_key(home))
        if swarm is None:
            raise open_to_all
        yield swarm


# ---- words


def _duration_ms(text: str) -> int:
    """Of an invite or a membership. Raises `Refused` E-swarm-27."""
    if (span := span_ms(text)) is None:
        raise Refused("E-swarm-27", f"{text!r} is no duration", FORM, "--expires 7d")
    return span


def _peer(text: str) -> PeerId:
    try:
        return peer_bytes(text)
    except PeerFault:
        raise Refused("E-swarm-27", f"{text!r} is no peer id", "12D3KooW…, as dim up prints it") from None


def _many(name: str, values: list[str]) -> list[tuple[str, Any]]:
    return [(name if not place else "", value) for place, value in enumerate(values)]


def _until(at_ms: int) -> str:
    return f"until {time.strftime('%Y-%m-%d %H:%M', time.localtime(at_ms / 1000))}" if at_ms else "until removed"


def _day(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000))


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:32].lower() or "swarm"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
