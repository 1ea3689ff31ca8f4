"""`dim demo`: a whole swarm on one laptop, real models, real patients' data, three patterns, one liar, an auditor.

Rule: nothing here is acted. The nodes are ordinary processes, the kill is a kill -9, the liar is a node that runs
another model than it signs for, and every figure comes from a stream counter, a journal or a receipt.
"""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dimnode.demo.acts import auditor, chained, collaborative, comparative, liar
from dimnode.demo.assets_index import WDBC_CSV
from dimnode.demo.narrator import Narrator
from dimnode.demo.setting import Setting
from dimnode.demo.swarm import Swarm, complain, kept_before, running_swarm, settle
from dimnode.errors import ConfigError, DimError

NAMES: Final = {
    "alba": "hospital A",
    "brio": "hospital B",
    "cara": "hospital C",
    "dano": "a research lab",
    "ezra": "a volunteer",
}
BANNER: Final = "demonstration, not medical advice"
ACTS: Final[tuple[Callable[[Setting], None], ...]] = (collaborative, comparative, chained, liar, auditor)


def main(*, as_json: bool = False, keep: bool = False, folder: Path = Path("demo"), patients: Path = WDBC_CSV) -> int:
    """Run the story; 0 when everything held, 1 when something did not. Ctrl-C leaves no process behind."""
    narrator = Narrator(as_json)
    try:
        with running_swarm(folder, NAMES) as swarm:
            return _tell(Setting(narrator, swarm, folder, patients), keep)
    except KeyboardInterrupt:
        narrator.plain("\nstopped; no node is left running")
        return 130
    except ConfigError:
        raise
    except DimError as error:
        print(complain(error), file=sys.stderr)
        return 1
    finally:
        if (before := kept_before(folder)) is not None:
            print(f"the receipts of the last demo that held are in {before}", file=sys.stderr)


def _tell(setting: Setting, keep: bool) -> int:
    narrator = setting.narrator
    narrator.title(f"dimnode · five nodes on this machine, real libp2p, real patients' data, public · {BANNER}")
    narrator.facts["banner"] = BANNER
    _curtain(setting)
    for act in ACTS:
        act(setting)
    _summary(setting, keep)
    narrator.finish()
    if narrator.facts["ok"]:
        settle(setting.folder)
    if keep:
        _stay(setting.swarm)
    return 0 if narrator.facts["ok"] else 1


def _curtain(setting: Setting) -> None:
    """Start the swarm and furnish it."""
    narrator, swarm = setting.narrator, setting.swarm
    narrator.plain()
    narrator.plain("   starting five processes …")
    seconds = swarm.start()
    links = sum(1 for member in swarm.members.values() for row in member.client.peers() if row["linked"])
    size = len(swarm.members)
    joined = f"{size} of {size} nodes joined through one address in {seconds:.1f} s ({links // 2} links)"
    narrator.say("swarm", f"{'●' * size}  {joined}")
    setting.furnish()
    for name, role in NAMES.items():
        count = setting.rows_at.get(name)
        narrator.say(name, f"{role}, {count} patients" if count else role)
    narrator.facts["swarm"] = {
        "nodes": {name: member.peer for name, member in swarm.members.items()},
        "joined_seconds": round(seconds, 2),
        "links": links // 2,
        "patients": dict(setting.rows_at),
    }


def _summary(setting: Setting, keep: bool) -> None:
    narrator = setting.narrator
    seconds = narrator.seconds()
    narrator.facts["seconds"] = round(seconds, 1)
    narrator.plain()
    receipts = narrator.facts["receipts"]
    width = max(len(row["path"]) for row in receipts)
    narrator.plain(f"  {'job':<14} {'ended':<8} {'receipt':<{width}} {'bytes':>7} {'records':>8}  verified")
    for row in receipts:
        held = "✓" if row["verified"] else "✗"
        text = (
            f"{row['job']:<14} {row['status']:<8} {row['path']:<{width}} {row['bytes']:>7,} {row['records']:>8}  {held}"
        )
        narrator.plain(f"  {text}")
    shown = _short(Path(sys.executable).parent / "dim")
    paths = {row["job"]: row["path"] for row in receipts}
    narrator.plain()
    narrator.plain(f"done in {seconds:.0f} s. {BANNER.capitalize()}. Try it yourself:")
    narrator.plain(f"  {shown} verify {paths['chained']}")
    narrator.plain(f"  {shown} receipt show {paths['comparative']}")
    if not keep:
        narrator.plain(f"  {shown} demo --keep        # leave the swarm running and look around")


def _short(path: Path) -> str:
    """The path as it can be typed in this shell."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _stay(swarm: Swarm) -> None:
    """Leave the swarm running until Ctrl-C."""
    dim = _short(Path(sys.executable).parent / "dim")
    home = swarm[swarm.first].home
    print(f"\nthe swarm is running. In another shell:\n  {dim} peers --home {home}\n  {dim} rep ls --home {home}")
    print(f"  {dim} job ls --home {home}\nCtrl-C ends it.", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    while all(member.process is not None for member in swarm.members.values()):
        time.sleep(1.0)
