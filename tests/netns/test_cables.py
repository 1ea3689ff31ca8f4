"""A swarm on two LANs whose cable is cut: both sides notice, forget each other, and agree again when it is mended."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dimnode.client import Client
from dimnode.errors import NoNode
from dimnode.p2p.membership import MISSED_MAX, heartbeat_seconds
from tests.e2e.harness import NOISE, until
from tests.netns.lab import Cable, lab_missing, open_lab

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lab_missing()), reason=lab_missing() or "-")]
START_SECONDS = 60.0 * NOISE
NOTICE_SECONDS = 6.0
PARTITION_SECONDS = float(os.environ.get("DIM_TEST_PARTITION_SECONDS", "5"))
"""30 is the promise; a test run takes less. Both are far longer than what a link waits for a ping."""


@dataclass
class Site:
    """A node and a connection to its control socket, which no cut cable concerns."""

    name: str
    process: subprocess.Popen[bytes]
    client: Client
    peer: str
    address: str

    def sees(self, linked: bool = False) -> set[str]:
        """Names of the peers that `dim peers` shows, or of those with a link."""
        return {row["name"] for row in self.client.peers() if row["linked"] or not linked}


@dataclass
class Town:
    """Alba lives on one LAN, brio and cara on the other."""

    sites: dict[str, Site]
    cable: Cable

    def all_see_all(self, linked: bool = False) -> bool:
        """Everybody's view holds everybody else."""
        return all(site.sees(linked) == self.sites.keys() - {name} for name, site in self.sites.items())

    def parted(self, linked: bool = False) -> bool:
        """Nobody's view reaches over the cable."""
        views = {name: site.sees(linked) for name, site in self.sites.items()}
        return views == {"alba": set(), "brio": {"cara"}, "cara": {"brio"}}


def seconds_until(holds: Callable[[], bool], seconds_max: float, what: str) -> float:
    began = time.monotonic()
    until(holds, seconds_max, what)
    return time.monotonic() - began


def ready(home: Path, process: subprocess.Popen[bytes], log: Path) -> Client:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        try:
            return Client(home)
        except NoNode:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder, sites = tmp_path_factory.mktemp("town"), dict[str, Site]()
    with open_lab(120 + PARTITION_SECONDS) as lab:
        left, right = lab.lan("44.1.1.0/24"), lab.lan("44.1.1.0/24")
        right.taken = 10
        cable = lab.join(left, right)
        known, started = list[str](), []
        for name, lan in (("alba", left), ("brio", right), ("cara", right)):
            place, home, log = lab.place(lan), folder / name, folder / f"{name}.log"
            home.mkdir(mode=0o700)
            words = [sys.executable, "-m", "dimnode.cli.main", "up", "--home", str(home), "--name", name]
            words += ["--profile", "prod", "--no-execute", "--listen", f"/ip4/{place.address}/tcp/4710"]
            words += [word for address in known for word in ("--bootstrap", address)]
            started.append((name, home, place.start(words, log=log), log))
            if not known:
                client = ready(home, started[0][2], log)
                known = client.status()["addresses"]
                client.close()
        for name, home, process, log in started:
            client = ready(home, process, log)
            status = client.status()
            sites[name] = Site(name, process, client, status["peer"], status["addresses"][0])
        built = Town(sites, cable)
        seconds_until(lambda: built.all_see_all(linked=True), START_SECONDS, "everybody is linked to everybody")
        yield built
        for site in sites.values():
            site.client.close()


def test_a_cut_cable_is_noticed_by_both_sides_and_views_agree_again_soon_after_it_is_mended(town: Town) -> None:
    heartbeats = MISSED_MAX * heartbeat_seconds(len(town.sites))
    town.cable.cut()
    cut = time.monotonic()
    noticed = seconds_until(lambda: town.parted(linked=True), NOTICE_SECONDS, "every link over the cable has ended")
    seconds_until(town.parted, heartbeats + 0.5, "no ghosts on either side")
    seconds_until(lambda: time.monotonic() >= cut + PARTITION_SECONDS, PARTITION_SECONDS + 1, "the partition lasts")
    assert town.parted()
    town.cable.mend()
    agreed = seconds_until(town.all_see_all, heartbeats, "all views agree within three heartbeats")
    linked = seconds_until(lambda: town.all_see_all(linked=True), 15.0, "all links stand again")
    apart = f"{PARTITION_SECONDS:g} s apart"
    print(f"noticed after {noticed:.2f} s, {apart}, agreed {agreed:.2f} s after it, linked {linked:.2f} s later")
