"""Whom the operator keeps out: peers and networks, by command and by settings, blocked before allowed, bounded."""

from dataclasses import replace

import pytest

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.p2p.blocklist import Blocklist, Entry, parse_target, target_text
from dimnode.records.ids import PEER_PREFIX, PeerId, peer_text

A, B, C = (PeerId(PEER_PREFIX + bytes([number]) * 32) for number in (1, 2, 3))
NET = parse_target("192.0.2.0/24")
IP = "192.0.2.7"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (peer_text(A), peer_text(A)),
        (f"/ip4/192.0.2.7/tcp/4710/p2p/{peer_text(A)}", peer_text(A)),
        (f"/ip4/192.0.2.7/tcp/4710/p2p/{peer_text(B)}/p2p-circuit/p2p/{peer_text(A)}", peer_text(A)),
        ("/ip4/192.0.2.7/tcp/4710", "192.0.2.7"),
        ("/ip6/2001:db8::7/tcp/4710", "2001:db8::7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_a_target_is_a_peer_an_address_or_a_network(said: str, meant: str) -> None:
    target = parse_target(said)
    assert target is not None
    assert target_text(target) == meant
    assert parse_target(meant) == target


@pytest.mark.parametrize("said", ["", "brio", "/dns4/example.org/tcp/1", "300.0.0.1", "/ip4/", "/", "12D3KooW", "10"])
def test_what_names_nobody_is_no_target(said: str) -> None:
    assert parse_target(said) is None


def test_everybody_is_welcome_who_is_not_blocked() -> None:
    guests = Blocklist()
    assert guests.refusal(A, IP) == ""
    guests.block(A, "too loud", 5)
    assert guests.refusal(A, "") == "this peer is blocked (too loud)"
    assert guests.ignores(A)
    assert not guests.refusal(B, IP)
    assert not guests.ignores(B)


def test_a_blocked_network_refuses_whoever_comes_from_there_also_over_an_ipv6_socket() -> None:
    assert NET is not None
    guests = Blocklist([NET])
    assert guests.refusal(A, IP) == guests.refusal(A, f"::ffff:{IP}") == "192.0.2.0/24 is blocked"
    for elsewhere in ("192.0.3.7", "2001:db8::1", "", "no address"):
        assert guests.refusal(A, elsewhere) == ""
    assert not guests.ignores(A), "what others pass on of it may have come from anywhere"


def test_with_an_allow_list_nobody_else_is_let_in_and_blocked_beats_allowed() -> None:
    assert NET is not None
    guests = Blocklist(block=[B], allow=[A, B, NET])
    assert guests.refusal(A, "") == ""
    assert guests.refusal(C, IP) == "", "its address is allowed"
    assert guests.refusal(C, "") == "this peer is not on the allow list"
    assert guests.refusal(B, IP).startswith("this peer is blocked")
    only_peers = Blocklist(allow=[A])
    assert only_peers.ignores(C)
    assert not only_peers.ignores(A)


def test_a_command_takes_back_what_a_command_said_but_never_what_the_settings_say() -> None:
    guests = Blocklist(block=[B])
    guests.block(A, "", 1)
    assert guests.allow(A, 2)
    assert guests.refusal(A, "") == ""
    assert not guests.allow(A, 3), "nothing changed"
    with pytest.raises(Refused) as no:
        guests.allow(B, 4)
    assert no.value.complaint.code == "E-peers-04"
    assert guests.block(B, "again", 5).source == "settings"


def test_to_allow_somebody_never_begins_an_allow_list_but_adds_to_one() -> None:
    guests = Blocklist()
    assert not guests.allow(A, 1)
    assert guests.refusal(C, "") == ""
    closed = Blocklist(allow=[A])
    assert closed.allow(C, 1)
    assert closed.refusal(C, "") == ""
    assert [entry.target for entry in closed.said()[1]] == [C]


def test_only_what_commands_said_is_remembered_and_it_can_be_put_back() -> None:
    guests = Blocklist(block=[A])
    guests.block(B, "why", 7)
    before = guests.said()
    assert before == ([Entry(B, "why", 7)], [])
    guests.block(C, "", 8)
    guests.replace(*before)
    assert guests.said() == before
    again = Blocklist(block=[A, B])
    again.restore(*before)
    assert [entry.source for entry in again.blocked] == ["settings", "settings"]


def test_the_list_and_its_reasons_are_bounded() -> None:
    guests = Blocklist(limits=replace(LIMITS.peers, blocked_entries_max=2, block_reason_characters_max=5))
    assert guests.block(A, "a long reason", 1).reason == "a lon"
    guests.block(B, "", 1)
    guests.block(A, "other", 2)
    with pytest.raises(Refused) as no:
        guests.block(C, "", 1)
    assert no.value.complaint.code == "E-peers-05"
