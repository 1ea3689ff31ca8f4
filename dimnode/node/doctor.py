"""What could be wrong with this node, each finding with its mend: reads like a good mechanic.

Rule: look, do not guess: every finding comes from a measurement made now, and says so where nothing can be known.
A finding `stops` when work stops with it: nobody can be reached, nothing can be run or stored. Others are worth a look.
"""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio

from dimnode.errors import Refused
from dimnode.exec.runtimes.choice import PACKAGES
from dimnode.limits import LIMITS
from dimnode.node.clock import wall_ms
from dimnode.node.conduct_answers import conduct_line
from dimnode.node.peer_answers import clock_ahead_ms
from dimnode.node.swarm import AGENT
from dimnode.p2p.gossip import HEARTBEAT_TOPIC
from dimnode.p2p.host.gate import ConductReport
from dimnode.posix import processes
from dimnode.records.ids import cid_text, short

if TYPE_CHECKING:
    from dimnode.node.node import Node

Finding = dict[str, Any]

_LATE_MS_MAX: Final = 50.0
_FILES_SHARE_MAX: Final = 0.9
_MEMORY_FREE_BYTES_MIN: Final = 256 * 1024**2
_SYNC: Final = "set it by the network: timedatectl set-ntp true (Linux), Settings > Date & Time (macOS)"


def findings(node: Node) -> list[Finding]:
    """One map per check: check, ok, stops, detail, mend ("" when ok)."""
    return [
        _listening(node),
        _port(node),
        _bootstrap(node),
        _peers(node),
        _swarm(node),
        *_membership(node),
        clocks(_clock_offsets(node)),
        _versions(node),
        _blocked(node),
        _conduct(node),
        _sandbox(node),
        _runtimes(node),
        _offers(node),
        *_kubo(node),
        _disk(node),
        *_blobs(node),
        _files(),
        _memory(node),
        _loop(node),
    ]


def finding(check: str, ok: bool, detail: str, mend: str = "", *, stops: bool = False) -> Finding:
    """One finding. A mend is a command or a setting, in words that can be followed."""
    return {"check": check, "ok": ok, "stops": stops and not ok, "detail": detail, "mend": "" if ok else mend}


# ---- ports, NAT, relay


def _listening(node: Node) -> Finding:
    assert node.host is not None
    found = node.host.addresses()
    only_local = all("/127." in address or "/ip6/::1/" in address for address in found)
    detail = ", ".join(found) or "none"
    if found and only_local and node.config.profile == "dev":
        return finding("listening", True, f"{detail} (this machine only: profile dev)")
    mend = "dim up --listen /ip4/0.0.0.0/tcp/4710"
    return finding("listening", bool(found) and not only_local, detail, mend, stops=not found)


def _port(node: Node) -> Finding:
    """Whether others can dial us, as far as that can be known: only a connection that came from outside proves it."""
    found = node.reach.reachability()
    through = f"; reached through {len(found.relays)} relays" if found.relays else ""
    carried = f"{found.relayed_circuits} circuits for others, {found.relayed_bytes / 1e6:.0f} MB so far"
    lends = f"; relays {carried}" if found.relaying else ""
    detail = f"{found.because}{through}{lends}"
    if found.state != "hidden":
        return finding("port", True, detail)
    mend = "forward the port, or open it in the firewall; until then others reach this node through relays"
    if not found.relays:
        mend += ", and no neighbour offers to relay now: connect to a public node (dim connect ADDRESS)"
    return finding("port", bool(found.relays), detail, mend)


# ---- the swarm


def _bootstrap(node: Node) -> Finding:
    if not node.config.bootstrap:
        return finding("bootstrap", True, "none configured: others join through this node, or it remembers peers")
    ok = node.discovery is not None and node.discovery.found.bootstrap_ok and bool(node.links.all())
    detail = "reached" if ok else node.discovery.bootstrap_failure() if node.discovery else "not tried yet"
    mend = "is that node up, and its port open? compare with its `dim up` line"
    if "another peer answers" in detail:
        mend = "a node is there, with another key: copy the whole address that its `dim up` prints, /p2p/ and all"
    if node.links.all() and not ok:
        mend = "the node found peers without it; " + mend
    return finding("bootstrap", ok, detail, mend, stops=not node.links.all())


def _peers(node: Node) -> Finding:
    linked = len(node.links.all())
    members = node.swarm.members.alive(trio.current_time())
    paths = Counter(node.host.path_of(link.peer) or "-" for link in node.links.all()) if node.host else Counter[str]()
    ways = ", ".join(f"{count} {path}" for path, count in sorted(paths.items()))
    mend = "dim up --bootstrap ADDRESS, or let others join through this node"
    detail = f"{linked} linked" + (f" ({ways})" if ways else "") + f", {len(members)} heard"
    if not linked and not members and not node.config.bootstrap and node.gatekeeper is None:
        return finding("peers", True, f"{detail}: the first node of a swarm is alone until others join through it")
    return finding("peers", linked > 0, detail, mend, stops=True)


def _membership(node: Node) -> list[Finding]:
    """Whether this node's private swarm still takes it: whoever was removed finds no peer, and should know why."""
    if node.gatekeeper is None:
        return []
    try:
        node.gatekeeper.swarm.judge_me(wall_ms())
    except Refused as refused:
        said = refused.complaint
        return [finding("membership", False, f"{said.code}: {said.what}", said.hint or "dim swarm show", stops=True)]
    return [finding("membership", True, f"of swarm {node.gatekeeper.swarm.book.name}")]


def _swarm(node: Node) -> Finding:
    """The DHT finds peers, gossip spreads what they say: without them a node knows only those that it is linked to."""
    assert node.host is not None
    table, neighbours = len(node.host.dht_peers()), len(node.host.gossip_neighbours(HEARTBEAT_TOPIC))
    linked_since = {link.peer: link.since for link in node.links.all()}
    unheard = node.swarm.members.unheard(linked_since, trio.current_time())
    ok = not linked_since or (table > 0 and neighbours > 0 and not unheard)
    detail = f"{table} peers in the DHT table, {neighbours} gossip neighbours"
    if unheard:
        names = ", ".join(member.name or f"…{short(member.peer)}" for member in unheard[:3])
        detail += f"; linked, but their heartbeats do not come: {len(unheard)} ({names})"
    return finding("swarm", ok, detail, "wait half a minute; if it stays so: dim stop, dim up, and report it")


def _versions(node: Node) -> Finding:
    agents = Counter(member.agent for member in node.swarm.members.alive(trio.current_time()) if member.agent)
    others = {agent: count for agent, count in agents.items() if agent != AGENT}
    if not others:
        return finding("versions", True, f"{AGENT} here and on {agents.total()} peers")
    detail = f"{AGENT} here; " + ", ".join(f"{count} with {agent}" for agent, count in sorted(others.items()))
    mend = "neighbouring versions work together; update whoever is behind (CHANGELOG.md)"
    return finding("versions", False, detail, mend)


def _blocked(node: Node) -> Finding:
    blocked, allowed = len(node.guests.list.blocked), len(node.guests.list.allowed)
    if allowed:
        return finding("blocklist", True, f"an allow list of {allowed}: nobody else is let in; {blocked} blocked")
    return finding("blocklist", True, f"{blocked} blocked (dim peers blocked)" if blocked else "nobody is blocked")


def _conduct(node: Node) -> Finding:
    assert node.host is not None
    heard = [member.peer for member in node.swarm.members.alive(trio.current_time())]
    return conduct(node.host.conduct(), [*(link.peer for link in node.links.all()), *heard])


def conduct(report: ConductReport, known: Collection[bytes]) -> Finding:
    """Peers that misbehave are dealt with by the node itself; the operator should know when nobody else is left."""
    refused = {ban.peer for ban in report.banned}
    ok = not refused or not refused.issuperset(known)
    mend = (
        "dim status --json says for what; they are taken in again after that time. Same version everywhere? Report it"
    )
    return finding("conduct", ok, conduct_line(report) + ("" if ok else ": every peer that this node knows"), mend)


# ---- the clock


def _clock_offsets(node: Node) -> list[tuple[str, float]]:
    alive = node.swarm.members.alive(trio.current_time())
    measured = [(member.name or f"…{short(member.peer)}", clock_ahead_ms(node, member)) for member in alive]
    return [(name, ahead) for name, ahead in measured if ahead is not None]


def clocks(offsets: Sequence[tuple[str, float]], skew_ms_max: float = LIMITS.peers.clock_skew_ms_max) -> Finding:
    """Our clock against those of the peers; `offsets` says how many ms each is ahead of ours.

    The median of three or more tells who is wrong: when most of the others agree that we are off, we are. A heartbeat
    whose clock is ten minutes behind is taken for a replay, so that far off stops work.
    """
    if not offsets:
        return finding("clock", True, "no peer to compare it with")
    middle = statistics.median(ahead for _, ahead in offsets)
    outliers = [(name, ahead - middle) for name, ahead in offsets if abs(ahead - middle) > skew_ms_max]
    among = f"the median of {len(offsets)} peers" if len(offsets) > 1 else f"{offsets[0][0]}'s"
    if abs(middle) > skew_ms_max:
        detail = f"{_apart(-middle)} {among}"
        stops = abs(middle) > LIMITS.peers.heartbeat_age_ms_max
        if len(offsets) < 3:
            detail += "; with fewer than three peers nobody can tell which clock is wrong"
            return finding("clock", False, detail, f"compare both with a watch, then {_SYNC}", stops=stops)
        return finding("clock", False, f"{detail}: it is most likely this one that is wrong", _SYNC, stops=stops)
    if outliers:
        said = ", ".join(f"{name}'s is {_apart(ahead)} the others" for name, ahead in outliers[:3])
        return finding("clock", False, f"this one agrees with {among}, but {said}", f"tell its operator: {_SYNC}")
    return finding("clock", True, f"{_apart(-middle)} {among}" if abs(middle) >= 100 else f"agrees with {among}")


def _apart(ms: float) -> str:
    return f"{abs(ms) / 1000:.1f} s {'ahead of' if ms > 0 else 'behind'}"


# ---- this machine


def _sandbox(node: Node) -> Finding:
    if node.pool is None:
        return finding("sandbox", True, "this node executes nothing")
    stats = node.pool.stats()
    if stats.failure:
        return finding("sandbox", False, f"not tried: {stats.failure}", "the line `runtimes` says how", stops=True)
    mend = "without all layers foreign tasks are refused; see docs/platforms.md, or set require_sandbox = false"
    return finding("sandbox", stats.sandbox_complete, stats.sandbox, mend, stops=node.config.require_sandbox)


def _runtimes(node: Node) -> Finding:
    """Every format: what runs it here, in which walls; or what is missing. The doctor has had each try its walls."""
    if node.pool is None:
        return finding("runtimes", True, "this node executes nothing")
    stats = node.pool.stats()
    states = stats.runtimes
    said, ok = [], True
    for name, needed in PACKAGES.items():
        state = states.get(name)
        if state is None:
            said.append(f"{name}: {needed[-1]} is not installed (dimnode[{name}])")
        elif state.known and not state.works(node.config.require_sandbox):
            said.append(f"{name}: {state.failure or f'its sandbox is {state.sandbox}'}")
            ok = False
        elif state.known:
            said.append(f"{name}: {state.traits['engine']} {state.traits['version']} on {state.traits['accelerator']}")
            if state.note:
                said[-1] += f" ({state.note})"
        else:
            said.append(f"{name}: installed, did not answer in time")
            ok = False
    mend = "reinstall that package, or look at docs/platforms.md; models of that format are refused meanwhile"
    if any("asks for the device" in words for words in said):
        mend = "set onnx_device and torch_device to auto, or to a device that is there, then restart the node"
    return finding("runtimes", ok, "; ".join(said), mend, stops=bool(stats.failure))


def _offers(node: Node) -> Finding:
    models, cabinets = len(node.library.models), len(node.library.cabinets.by_name)
    detail = f"{models} model{'s' * (models != 1)}, {cabinets} cabinet{'s' * (cabinets != 1)}"
    return finding("offers", models + cabinets > 0 or node.pool is None, detail, "dim models add FILE, dim data add …")


def _kubo(node: Node) -> list[Finding]:
    """Only for who wants one: no node needs it."""
    if not node.kubo.on:
        return []
    found = node.kubo.status()
    if problem := found["problem"]:
        return [finding("kubo", False, f"{problem['what']} ({problem['cause']})", problem["hint"])]
    if refused := found["refused"]:
        what, words = next(iter(refused.items()))
        detail = f"{len(refused)} not added: {what}: {words['what']}"
        return [finding("kubo", False, detail, f"{words['hint']}; then dim kubo push")]
    detail = f"{found['daemon']} at {found['api']}" if found["daemon"] else "not asked yet"
    return [
        finding("kubo", True, f"{detail}, {found['pinned']} pinned" + (f", {found['name']}" if found["name"] else ""))
    ]


def _disk(node: Node) -> Finding:
    free, least = shutil.disk_usage(node.home).free, node.limits.store.free_bytes_min
    detail = f"{free / 1024**3:.1f} GiB free at {node.home}"
    return finding("disk", free >= least, detail, "free some space, or move the home: DIM_HOME", stops=True)


def _blobs(node: Node) -> list[Finding]:
    damaged = list(node.content.store.damaged)
    if not damaged:
        return []
    some = ", ".join(map(cid_text, damaged[:3]))
    mend = "add them again, or dim blobs get CID; something else writes there, or the disk fails"
    return [finding("blobs", False, f"{len(damaged)} had altered files and were taken out: {some}", mend)]


def _files() -> Finding:
    """Every connection takes one; a node without any left refuses whoever comes."""
    most = processes.open_files_max()
    try:
        used = psutil.Process().num_fds()
    except (OSError, psutil.Error):  # it is read from a file, and there is none left
        used = most or 0
    if most is None:
        return finding("open files", True, f"{used} open, no limit")
    wanted = min(LIMITS.host.open_files_wanted, LIMITS.host.connections_max * 2)
    ok = used < most * _FILES_SHARE_MAX and most >= wanted
    mend = f"ulimit -n {LIMITS.host.open_files_wanted} before dim up, or LimitNOFILE= in the service unit"
    return finding("open files", ok, f"{used} of {most}", mend, stops=used >= most * _FILES_SHARE_MAX)


def _memory(node: Node) -> Finding:
    free = psutil.virtual_memory().available
    mine = psutil.Process().memory_info().rss
    detail = f"{mine / 1024**2:.0f} MiB used by the node, {free / 1024**3:.1f} GiB available"
    mend = "fewer workers (workers = 1 in config.toml), or close other programs"
    return finding("memory", free >= _MEMORY_FREE_BYTES_MIN, detail, mend, stops=node.pool is not None)


def _loop(node: Node) -> Finding:
    late = node.watchers.lateness_p99_ms()
    mend = "the machine is overloaded: fewer workers (workers = 1 in config.toml)"
    return finding("loop", late <= _LATE_MS_MAX, f"late by {late:.1f} ms (p99)", mend)
