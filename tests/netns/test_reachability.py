"""Real nodes behind real NAT boxes: who reaches whom, which way, and jobs that run across."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.netns.lab import Lan, lab_missing, open_lab
from tests.netns.machines import Machine, Machines, triage_rows, until

WHY_NOT = lab_missing(nat=True)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]


@dataclass(slots=True)
class Street:
    """`relay` and `public` can be dialled; `alba` and `brio` are behind boxes that keep ports, `cara` is not."""

    relay: Machine
    public: Machine
    alba: Machine
    brio: Machine
    cara: Machine
    alba_lan: Lan
    brio_lan: Lan
    rows: Path


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    with open_lab(500) as lab:
        machines = Machines(lab, folder)
        outside = lab.lan("44.1.1.0/24")
        lans = [lab.nat(outside, f"192.168.{21 + n}.0/24", random_ports=n == 2) for n in range(3)]
        for one, other in ((lans[0], lans[1]), (lans[1], lans[0])):
            one.block(other.outside)  # no hole can be punched until a test allows it
        relay = machines.start("relay", outside, "--no-execute")
        machines.wait_ready(relay)
        public = machines.start("public", outside, "--bootstrap", relay.address, "--no-execute")
        hidden = [
            machines.start(name, lan, "--bootstrap", relay.address, *(() if name == "alba" else ("--no-execute",)))
            for name, lan in zip(("alba", "brio", "cara"), lans, strict=True)
        ]
        machines.wait_ready(public, *hidden)
        hidden[0].offer_triage()
        yield Street(relay, public, *hidden, lans[0], lans[1], triage_rows(folder))


def ran(asker: Machine, executor: Machine, rows: Path) -> bool:
    """The asker knows what the executor offers, and a job of it was run there."""
    until(lambda: bool((asker.seen(executor) or {}).get("models")), f"{asker.name} knows what {executor.name} has")
    done = asker.run_triage(executor, rows)
    assert done.code == 0, done.err
    return bool(done.json)


def test_behind_two_boxes_jobs_run_over_the_relay_and_go_on_when_a_hole_is_punched(street: Street) -> None:
    until(
        lambda: street.brio.path_to(street.alba) == "relayed",
        "brio reaches alba over the relay",
        street.brio,
        street.alba,
    )
    assert ran(street.brio, street.alba, street.rows)
    assert street.brio.path_to(street.alba) == "relayed"
    street.alba_lan.unblock(street.brio_lan.outside)
    street.brio_lan.unblock(street.alba_lan.outside)
    until(lambda: street.brio.path_to(street.alba) == "direct", "brio reaches alba directly", street.brio, street.alba)
    until(lambda: street.alba.path_to(street.brio) == "direct", "alba reaches brio directly", street.brio, street.alba)
    assert ran(street.brio, street.alba, street.rows)


def test_who_only_dials_out_executes_for_others_over_the_connections_that_it_dialled(street: Street) -> None:
    for asker in (street.relay, street.public):
        until(lambda asker=asker: asker.linked(street.alba), f"{asker.name} is linked with alba")
        assert ran(asker, street.alba, street.rows)
        assert asker.path_to(street.alba) in ("reverse", "relayed") if asker is street.public else "reverse"
    assert street.relay.path_to(street.alba) == "reverse"
    assert street.alba.path_to(street.relay) == "direct"


def test_behind_a_box_that_picks_any_port_the_relay_stays_and_jobs_run(street: Street) -> None:
    until(lambda: street.cara.linked(street.alba), "cara reaches alba")
    assert ran(street.cara, street.alba, street.rows)
    until(lambda: "stays relayed" in street.alba.log + street.cara.log, "hole punching has ended")
    assert street.cara.path_to(street.alba) == "relayed"


def test_nodes_of_one_lan_find_each_other_without_any_configuration(tmp_path: Path) -> None:
    with open_lab(250) as lab:
        machines = Machines(lab, tmp_path)
        home = lab.lan("192.168.9.0/24")
        one, other = (machines.start(name, home, "--no-execute", DIM_MDNS="true") for name in ("one", "other"))
        machines.wait_ready(one, other)
        until(lambda: one.linked(other) and other.linked(one), "the two are linked")
        assert {one.path_to(other), other.path_to(one)} <= {"direct", "reverse"}  # both may have dialled
