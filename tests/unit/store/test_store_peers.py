"""What outlives a node about its peers: hints that are bounded and age, and blocks that are never forgotten."""

import json
import logging
from pathlib import Path

import pytest

from dimnode.errors import ConfigError, Refused
from dimnode.limits import LIMITS
from dimnode.store.blocklist import BLOCKLIST_FILE, Line, Lists, load_lists, save_lists
from dimnode.store.peers import PEERS_FILE, PeerCache

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


def test_a_peer_is_remembered_with_its_addresses_the_best_of_every_peer_first(tmp_path: Path) -> None:
    cache = PeerCache(tmp_path)
    cache.see({"old": ["/old/1", "/old/2"]}, NOW_MS)
    cache.see({"new": ["/new/1"]}, NOW_MS + 1)
    assert PeerCache(tmp_path).addresses() == ["/new/1", "/old/1", "/old/2"]


def test_who_is_not_connected_now_stays_remembered_and_addresses_add_up_within_their_bound(tmp_path: Path) -> None:
    cache = PeerCache(tmp_path)
    cache.see({"a": ["/1"], "b": ["/b"]}, NOW_MS)
    cache.see({"a": ["/2", "/3", "/4"]}, NOW_MS + 1)
    cache.see({"a": ["/5"]}, NOW_MS + 2)
    found = {entry.peer: entry.addresses for entry in PeerCache(tmp_path).peers}
    assert found == {"a": ("/5", "/2", "/3", "/4"), "b": ("/b",)}


def test_who_was_not_seen_for_a_month_while_others_were_is_let_go(tmp_path: Path) -> None:
    cache, month_ms = PeerCache(tmp_path), LIMITS.peers.peer_cache_days_max * DAY_MS
    cache.see({"old": ["/1"]}, NOW_MS)
    cache.see({"new": ["/2"]}, NOW_MS + month_ms - 1)
    assert PeerCache(tmp_path).addresses() == ["/2", "/1"]
    cache.see({"new": ["/2", "/3"]}, NOW_MS + month_ms)
    assert PeerCache(tmp_path).addresses() == ["/2", "/3"]


def test_a_clock_that_is_far_behind_costs_no_hints(tmp_path: Path) -> None:
    PeerCache(tmp_path).see({"a": ["/1"]}, NOW_MS)
    cache = PeerCache(tmp_path)
    cache.see({"b": ["/2"]}, 1000)
    assert sorted(PeerCache(tmp_path).addresses()) == ["/1", "/2"]
    assert {entry.seen_ms for entry in cache.peers} == {1000}


def test_the_cache_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    cache, most = PeerCache(tmp_path), LIMITS.peers.peer_cache_entries_max
    cache.see({f"p{number}": [f"/{number}"] for number in range(most)}, NOW_MS)
    cache.see({"last": ["/last"]}, NOW_MS + 1)
    found = PeerCache(tmp_path).addresses()
    assert len(found) == most
    assert found[0] == "/last"


def test_addresses_of_any_length_that_peers_say_they_have_cost_nobody_elses_hints(tmp_path: Path) -> None:
    cache, most = PeerCache(tmp_path), LIMITS.peers.peer_cache_entries_max
    long = ["/ip4/192.0.2.7/tcp/1/http-path/" + "a" * 600, "/ip4/192.0.2.7/tcp/1/unix/" + "\1" * 200]
    longest = [f"/ip4/192.0.2.7/tcp/{port}/http-path/".ljust(250, "a") for port in range(4)]
    cache.see({f"{number:064}": [*long, *longest] for number in range(most)}, NOW_MS)
    cache.see({"only": long, "good": [*long, "/good"]}, NOW_MS + 1)
    found = PeerCache(tmp_path)
    assert found.addresses()[0] == "/good"
    assert len(found.peers) == most
    assert all(entry.addresses == tuple(longest) for entry in found.peers[1:])


def test_a_folder_in_the_place_of_the_new_file_costs_the_hints_and_not_the_node(tmp_path: Path) -> None:
    (tmp_path / "peers.new").mkdir()
    cache = PeerCache(tmp_path)
    cache.see({"a": ["/1"]}, NOW_MS)
    assert cache.addresses() == ["/1"]
    assert PeerCache(tmp_path).addresses() == []


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"v": 2, "peers": []}', '{"peers": [{"peer": 5}]}', "\udcff"])
def test_a_damaged_cache_costs_a_warning_and_the_hints(tmp_path: Path, text: str, caplog) -> None:
    (tmp_path / PEERS_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
    with caplog.at_level(logging.WARNING):
        cache = PeerCache(tmp_path)
    assert cache.addresses() == []
    assert "the peers of earlier runs are forgotten" in caplog.text
    cache.see({"a": ["/1"]}, NOW_MS)
    assert PeerCache(tmp_path).addresses() == ["/1"]


def test_a_cache_that_is_too_large_or_cannot_be_written_hurts_nobody(tmp_path: Path, caplog) -> None:
    (tmp_path / PEERS_FILE).write_bytes(b" " * (LIMITS.peers.peer_cache_file_bytes_max + 1))
    assert PeerCache(tmp_path).addresses() == []
    assert "too large" in caplog.text
    nowhere = PeerCache(tmp_path / "absent")
    nowhere.see({"a": ["/1"]}, NOW_MS)
    assert nowhere.addresses() == ["/1"]


def test_blocks_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    assert load_lists(tmp_path) == Lists()
    lists = Lists(blocked=(Line("192.0.2.7", "spam", 5),), allowed=(Line("12D3KooW"),))
    save_lists(tmp_path, lists)
    assert load_lists(tmp_path) == lists


@pytest.mark.parametrize("damage", ["", "{", '{"v": 9}', '{"blocked": [{"target": ""}]}', '{"blocked": [5]}', "[]"])
def test_a_damaged_blocklist_stops_the_start_instead_of_letting_everybody_in(tmp_path: Path, damage: str) -> None:
    (tmp_path / BLOCKLIST_FILE).write_text(damage)
    with pytest.raises(ConfigError) as no:
        load_lists(tmp_path)
    assert no.value.complaint.code == "E-peers-02"
    (tmp_path / BLOCKLIST_FILE).write_bytes(b" " * (LIMITS.peers.blocklist_file_bytes_max + 1))
    with pytest.raises(ConfigError):
        load_lists(tmp_path)


def test_a_blocklist_that_cannot_be_written_is_refused_and_leaves_the_old_one(tmp_path: Path) -> None:
    save_lists(tmp_path, Lists(blocked=(Line("192.0.2.7"),)))
    (tmp_path / f"{BLOCKLIST_FILE}.new").mkdir()
    with pytest.raises(Refused) as no:
        save_lists(tmp_path, Lists())
    assert no.value.complaint.code == "E-peers-06"
    assert json.loads((tmp_path / BLOCKLIST_FILE).read_text())["blocked"][0]["target"] == "192.0.2.7"
