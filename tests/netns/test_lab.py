"""The laboratory itself: it separates, it cuts, and it leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import READY_SECONDS, until
from tests.netns.lab import LabError, Place, lab_missing, open_lab, sweep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lab_missing()), reason=lab_missing() or "-")]

CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5).close()"
LISTEN = (
    "import socket; s = socket.create_server(('', 4001)); print('up', flush=True)\nwhile True: s.accept()[0].close()"
)


def namespaces() -> set[str]:
    return set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()


def wait_for(log: Path, word: str) -> None:
    until(lambda: word in log.read_text(), READY_SECONDS, f"{word!r} in {log}")


def connects(place: Place, address: str) -> bool:
    """Whether it can connect, now: how soon the kernel sees that a cable was mended is the kernel's."""
    try:
        place.run(sys.executable, "-c", CONNECT, address, "4001")
    except LabError:
        return False
    return True


def test_a_cut_cable_parts_two_places_and_a_mended_one_joins_them(tmp_path: Path) -> None:
    with open_lab(60) as lab:
        street = lab.lan("44.1.1.0/24")
        one, other = lab.place(street), lab.place(street)
        other.start([sys.executable, "-c", LISTEN], log=tmp_path / "log")
        wait_for(tmp_path / "log", "up")
        one.run(sys.executable, "-c", CONNECT, other.address, "4001")
        other.cable.cut()
        with pytest.raises(LabError):
            one.run(sys.executable, "-c", CONNECT, other.address, "4001")
        other.cable.mend()
        until(lambda: connects(one, other.address), 15.0, "the cable carries again")


@pytest.mark.skipif(bool(lab_missing(nat=True)), reason=lab_missing(nat=True) or "-")
def test_who_is_behind_a_nat_box_gets_out_and_nobody_gets_in(tmp_path: Path) -> None:
    with open_lab(60) as lab:
        street = lab.lan("44.1.1.0/24")
        home = lab.nat(street, "192.168.21.0/24")
        public, hidden = lab.place(street), lab.place(home)
        for place in (public, hidden):
            place.start([sys.executable, "-c", LISTEN], log=tmp_path / place.namespace)
            wait_for(tmp_path / place.namespace, "up")
        hidden.run(sys.executable, "-c", CONNECT, public.address, "4001")
        with pytest.raises(LabError):
            public.run(sys.executable, "-c", CONNECT, "44.1.1.1", "4001")  # the box's outside


def test_a_laboratory_leaves_nothing_behind_and_sweeps_what_a_crash_left() -> None:
    before = namespaces()
    with open_lab(60) as lab:
        lab.place(lab.lan("44.1.1.0/24"))
        assert len(namespaces() - before) == 2
    assert namespaces() <= before
    crash = (
        "from tests.netns.lab import open_lab; import os\nwith open_lab() as lab: lab.lan('44.1.1.0/24'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", crash], check=False)
    assert namespaces() - before
    assert sweep() >= 1
    assert namespaces() <= before
