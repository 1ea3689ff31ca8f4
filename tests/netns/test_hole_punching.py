"""Attempts to punch a hole: one that failed because a box was in the way of one side spoils none of the later ones."""

from pathlib import Path

import pytest

from tests.netns.ends import address_of, documents, start_end
from tests.netns.lab import lab_missing, open_lab
from tests.netns.machines import until

WHY_NOT = lab_missing(nat=True)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]
VISITED, VISITOR = 0, 1


def test_a_box_that_stood_in_the_way_of_one_side_spoils_no_later_attempt(tmp_path: Path) -> None:
    """The box of the other side remembers what was in vain, and would mangle the same ports for two minutes."""
    with open_lab(150) as lab:
        street = lab.lan("44.1.1.0/24")
        start_end(lab.place(street), tmp_path / "relay", "relay", "r")
        relay = address_of(tmp_path / "relay")
        pairs = {side: [lab.nat(street, f"192.168.{20 + 2 * side + n}.0/24") for n in range(2)] for side in range(2)}
        for side, homes in pairs.items():
            homes[side].block(homes[1 - side].outside)
            start_end(lab.place(homes[VISITED]), tmp_path / f"stay{side}", "stay", f"a{side}", relay)
        for side, homes in pairs.items():
            way = address_of(tmp_path / f"stay{side}")
            start_end(lab.place(homes[VISITOR]), tmp_path / f"visit{side}", "visit", f"b{side}", relay, way, "60")
        for side in pairs:
            until(lambda side=side: "stays relayed" in (tmp_path / f"stay{side}").read_text(), "attempts were in vain")
            until(lambda side=side: bool(documents(tmp_path / f"visit{side}")), "what is sent meanwhile has come")
            assert [said["path"] for said in documents(tmp_path / f"visit{side}")] == ["relayed"]
        for side, homes in pairs.items():
            homes[side].unblock(homes[1 - side].outside)
        for side in pairs:
            until(
                lambda side=side: len(documents(tmp_path / f"visit{side}")) == 2, "a direct way, or none for a minute"
            )
            assert documents(tmp_path / f"visit{side}")[1]["path"] == "direct"
