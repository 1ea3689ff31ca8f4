"""The operator's blocklist in a node: written down before it counts, and back after a restart."""

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from dimnode.config import Config
from dimnode.errors import ConfigError, DimError, Refused
from dimnode.limits import LIMITS
from dimnode.node.guests import Guests
from dimnode.records.ids import PEER_PREFIX, PeerId, peer_text

ME, A, B = (PeerId(PEER_PREFIX + bytes([number]) * 32) for number in (9, 1, 2))


class Lobby:
    """Host and links of a node that has connections and nothing else."""

    def __init__(self, **ips: str) -> None:
        self.ips = {{"a": A, "b": B}[name]: ip for name, ip in ips.items()}
        self.ended: list[PeerId] = []

    def connected(self) -> list[bytes]:
        return list(self.ips)

    def remote_ip(self, peer: bytes) -> str:
        return self.ips[PeerId(peer)]

    async def disconnect(self, peer: bytes) -> None:
        del self.ips[PeerId(peer)]

    def end_with(self, peer: PeerId, why: str) -> None:
        self.ended.append(peer)


def nobody(name: str) -> PeerId:
    raise Refused("E-peers-01", f"no peer has the name {name!r}")


def guests_of(home: Path, lobby: Any, **settings: Any) -> Guests:
    made = Guests(home, Config(**settings), ME, LIMITS)
    made.attach(lobby, lobby)
    return made


def code_of(guests: Guests, verb: str, *arguments: Any) -> str:
    with pytest.raises(DimError) as no:
        trio.run(getattr(guests, verb), *arguments, nobody)
    return no.value.complaint.code


def test_a_block_closes_connections_and_outlives_the_node(tmp_path: Path) -> None:
    lobby = Lobby(a="192.0.2.7", b="192.0.2.8")
    guests = guests_of(tmp_path, lobby)
    said = trio.run(guests.block, peer_text(A), "too loud", nobody)
    assert said["closed"] == [peer_text(A)]
    assert lobby.ended == [A]
    assert lobby.connected() == [B]
    again = guests_of(tmp_path, lobby)
    assert again.refusal(A, "") == "this peer is blocked (too loud)"
    assert again.listed()["blocked"][0]["reason"] == "too loud"
    trio.run(again.allow, peer_text(A), nobody)
    assert guests_of(tmp_path, lobby).refusal(A, "") == ""


def test_a_blocked_address_closes_the_connections_from_there_alone(tmp_path: Path) -> None:
    lobby = Lobby(a="192.0.2.7", b="192.0.2.8")
    said = trio.run(guests_of(tmp_path, lobby).block, "/ip4/192.0.2.8/tcp/4710", "", nobody)
    assert (said["target"], said["closed"]) == ("192.0.2.8", [peer_text(B)])
    assert lobby.connected() == [A]


def test_a_peer_may_be_blocked_by_its_name(tmp_path: Path) -> None:
    guests = guests_of(tmp_path, Lobby())
    assert trio.run(guests.block, "brio", "", lambda name: {"brio": B}[name])["target"] == peer_text(B)


def test_who_is_named_wrongly_is_not_blocked(tmp_path: Path) -> None:
    guests = guests_of(tmp_path, Lobby(), block=(peer_text(B),))
    for no_address in ("300.0.0.0/8", "300.1.1.1", "192.0.2"):
        assert code_of(guests, "block", no_address, "") == "E-peers-03"
    assert code_of(guests, "block", "brio", "") == "E-peers-01"
    assert code_of(guests, "block", peer_text(ME), "") == "E-peers-07"
    assert code_of(guests, "allow", peer_text(B)) == "E-peers-04"
    assert code_of(guests, "allow", peer_text(A)) == "E-peers-04"


def test_a_full_list_says_so(tmp_path: Path) -> None:
    limits = replace(LIMITS, peers=replace(LIMITS.peers, blocked_entries_max=1))
    guests = Guests(tmp_path, Config(), ME, limits)
    guests.attach(Lobby(), Lobby())  # type: ignore[arg-type]
    trio.run(guests.block, peer_text(A), "", nobody)
    assert code_of(guests, "block", peer_text(B), "") == "E-peers-05"


def test_what_cannot_be_written_down_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "blocked.json.new").mkdir()
    guests = guests_of(tmp_path, Lobby(a="192.0.2.7"))
    assert code_of(guests, "block", peer_text(A), "") == "E-peers-06"
    assert guests.refusal(A, "") == ""
    assert guests.listed() == {"blocked": [], "allowed": []}


def test_a_change_that_a_loss_of_power_may_undo_is_said_to_be_one_and_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    lobby = Lobby(a="192.0.2.7")
    guests = guests_of(tmp_path, lobby)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Refused, match="E-peers-06") as said:
        trio.run(guests.block, peer_text(A), "", nobody)
    assert "nothing was changed" not in said.value.complaint.hint
    assert guests.refusal(A, "")
    assert not lobby.ips
    assert guests_of(tmp_path, Lobby()).listed() == guests.listed()


def test_settings_that_name_nobody_and_a_damaged_file_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as wrong:
        guests_of(tmp_path, Lobby(), allow=("brio",))
    assert wrong.value.complaint.code == "E-peers-03"
    (tmp_path / "blocked.json").write_text('{"blocked": [{"target": "brio"}]}')
    with pytest.raises(ConfigError) as damaged:
        guests_of(tmp_path, Lobby())
    assert damaged.value.complaint.code == "E-peers-02"


def test_an_allow_list_of_the_settings_refuses_everybody_else(tmp_path: Path) -> None:
    guests = guests_of(tmp_path, Lobby(), allow=(peer_text(A),))
    assert guests.refusal(A, "192.0.2.7") == ""
    assert guests.refusal(B, "192.0.2.7") == "this peer is not on the allow list"
    trio.run(guests.allow, peer_text(B), nobody)
    assert guests.refusal(B, "") == ""
    assert [entry["source"] for entry in guests.listed()["allowed"]] == ["settings", "command"]
