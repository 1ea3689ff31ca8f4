"""A private swarm behind NAT boxes: members meet through a member that relays, and nobody else gets a place there."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.cli_nodes import dim
from tests.netns.ends import address_of, documents, start_end
from tests.netns.lab import Lab, Lan, Place, lab_missing, open_lab
from tests.netns.machines import Machine, Machines, triage_rows, until

WHY_NOT = lab_missing(nat=True)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]


def clinic(machines: Machines, street: Lan, homes: list[Lan], *how: str) -> tuple[Machine, Machine, Machine]:
    """Anna, who founded the swarm and can be dialled; alba and brio, who joined behind their boxes."""
    said = dim("swarm", "new", "clinic", *how, "--home", machines.folder / "anna")
    assert said.code == 0, said.err
    anna = machines.start("anna", street, "--no-execute")
    machines.wait_ready(anna)
    text = anna.dim("swarm", "invite", "--uses", 2, "--json").json["invitation"]
    hidden = []
    for name, lan in zip(("alba", "brio"), homes, strict=True):
        joined = dim("swarm", "join", "-", "--home", machines.folder / name, stdin=text)
        assert joined.code == 0, joined.err
        hidden.append(machines.start(name, lan, *(() if name == "alba" else ("--no-execute",))))
    machines.wait_ready(*hidden)
    return anna, hidden[0], hidden[1]


def knock(place: Place, log: Path, relay: str, peer: str) -> subprocess.Popen[bytes]:
    """A stranger with a libp2p host of its own tries to reserve at the relay, and to reach the peer through it."""
    return start_end(place, log, "knock", "zeno", relay, f"{relay}/p2p-circuit/p2p/{peer}")


def came_of(stranger: subprocess.Popen[bytes], log: Path) -> dict[str, bool]:
    """Whether each of the two was granted."""
    assert stranger.wait(60) == 0, log.read_text()
    return {said["tried"]: said["got_in"] for said in documents(log)}


def open_relay_and_its_guest(lab: Lab, street: Lan, home: Lan, folder: Path) -> tuple[str, str]:
    """A relay that is in no swarm, and who has a place there."""
    start_end(lab.place(street), folder / "open", "relay", "r")
    relay = address_of(folder / "open")
    start_end(lab.place(home), folder / "guest", "stay", "a", relay)
    return relay, address_of(folder / "guest").rpartition("/")[2]


def test_members_meet_through_a_member_that_relays_for_nobody_else(tmp_path: Path) -> None:
    with open_lab(250) as lab:
        street = lab.lan("44.1.1.0/24")
        homes = [lab.nat(street, f"192.168.{n}.0/24", random_ports=True) for n in (21, 22)]
        guest = open_relay_and_its_guest(lab, street, homes[0], tmp_path)
        anna, alba, brio = clinic(Machines(lab, tmp_path), street, homes)
        alba.offer_triage()
        until(lambda: brio.path_to(alba) == "relayed", "brio reaches alba over anna", anna, alba, brio)
        until(lambda: bool((brio.seen(alba) or {}).get("models")), "brio knows what alba has", alba, brio)
        done = brio.run_triage(alba, triage_rows(tmp_path))
        assert done.code == 0, done.err
        assert brio.path_to(alba) == "relayed"

        closed, opened = tmp_path / "closed", tmp_path / "opened"
        strangers = [
            knock(lab.place(street), closed, anna.address, alba.peer),
            knock(lab.place(street), opened, *guest),
        ]
        assert came_of(strangers[0], closed) == {"reserve": False, "reach": False}
        assert came_of(strangers[1], opened) == {"reserve": True, "reach": True}
        assert "E-swarm-10" in anna.dim("swarm", "show", "--json").out

        assert anna.dim("swarm", "remove", "brio").code == 0
        until(lambda: not alba.linked(brio), "who is removed loses the way over the relay too", anna, alba, brio)
        assert alba.linked(anna)


def test_with_a_pre_shared_key_members_meet_through_a_member_and_punch_a_hole(tmp_path: Path) -> None:
    with open_lab(250) as lab:
        street = lab.lan("44.1.1.0/24")
        homes = [lab.nat(street, f"192.168.{n}.0/24") for n in (21, 22)]
        anna, alba, brio = clinic(Machines(lab, tmp_path), street, homes, "--psk")
        until(lambda: brio.path_to(alba) == alba.path_to(brio) == "direct", "a hole is punched", anna, alba, brio)
        until(lambda: "is reached directly now" in alba.log + brio.log, "and noted down", alba, brio)
        stranger = knock(lab.place(street), tmp_path / "stranger", anna.address, alba.peer)
        assert came_of(stranger, tmp_path / "stranger") == {"reserve": False, "reach": False}
