"""What is announced to a server of the DHT: bounded, and nobody fills it for everybody else."""

import random
from dataclasses import replace

from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from dimnode.limits import LIMITS
from dimnode.p2p.host.provider_shelf import ProviderShelf

FEW = replace(
    LIMITS.host,
    dht_announcements_kept_max=40,
    dht_announcements_per_peer_max=10,
    dht_providers_per_key_max=4,
    dht_provider_kept_seconds=100.0,
)
HONEST = ID(b"honest")


def peer(number: int) -> ID:
    return ID(b"peer %d" % number)


def put(shelf: ProviderShelf, key: bytes, who: ID, group: str, now: float = 0.0) -> None:
    shelf.put(key, PeerInfo(who, []), group, now)


def has(shelf: ProviderShelf, key: bytes, now: float = 0.0) -> list[ID]:
    return [found.peer_id for found in shelf.get(key, now)]


def test_a_few_strangers_of_one_network_leave_room_for_other_networks() -> None:
    shelf = ProviderShelf(FEW)
    put(shelf, b"early", HONEST, "here")
    for number in range(400):
        put(shelf, b"junk %d" % number, peer(number % 50), "there")
    put(shelf, b"late", HONEST, "here")
    assert len(shelf) == FEW.dht_announcements_kept_max
    assert has(shelf, b"early") == has(shelf, b"late") == [HONEST]


def test_in_one_network_the_peer_with_the_most_gives_way() -> None:
    shelf = ProviderShelf(FEW)
    for number in range(200):
        put(shelf, b"junk %d" % number, peer(number % 4), "one")
    for number in range(8):
        put(shelf, b"key %d" % number, HONEST, "one")
    assert all(has(shelf, b"key %d" % number) == [HONEST] for number in range(8))
    assert len(shelf) == FEW.dht_announcements_kept_max


def test_a_peer_with_too_many_keys_displaces_its_own_oldest() -> None:
    shelf = ProviderShelf(FEW)
    for number in range(11):
        put(shelf, b"key %d" % number, HONEST, "here")
    assert len(shelf) == 10
    assert not has(shelf, b"key 0")
    put(shelf, b"key 1", HONEST, "here")  # announced again: not the oldest any more
    put(shelf, b"key 11", HONEST, "here")
    assert has(shelf, b"key 1")
    assert not has(shelf, b"key 2")


def test_a_key_that_one_network_has_filled_takes_providers_of_others_and_none_gives_way_to_an_equal() -> None:
    shelf = ProviderShelf(FEW)
    for number in range(9):
        put(shelf, b"key", peer(number), "there")
    assert has(shelf, b"key") == [peer(number) for number in range(4)]
    put(shelf, b"key", HONEST, "here")
    assert has(shelf, b"key") == [peer(1), peer(2), peer(3), HONEST]
    for number in range(10, 30):
        put(shelf, b"key", peer(number), f"network {number}")
    assert HONEST in has(shelf, b"key")


def test_what_is_over_is_not_told_and_takes_nobodys_room() -> None:
    shelf = ProviderShelf(FEW)
    for number in range(40):
        put(shelf, b"key %d" % number, peer(number), f"network {number}")
    put(shelf, b"late", HONEST, "here", 99.0)
    assert not has(shelf, b"late", 99.0), "all have as much as it would have"
    assert has(shelf, b"key 0", 99.0)
    assert not has(shelf, b"key 0", 100.0)
    put(shelf, b"late", HONEST, "here", 100.0)
    assert has(shelf, b"late", 100.0)
    assert len(shelf) == 1


def test_its_books_agree_whatever_is_announced() -> None:
    dice, shelf = random.Random(1), ProviderShelf(FEW)
    for step in range(3000):
        put(shelf, b"%d" % dice.randrange(30), peer(dice.randrange(12)), f"{dice.randrange(5)}", step * dice.random())
        assert len(shelf) <= FEW.dht_announcements_kept_max
        assert sum(map(len, shelf._of_key.values())) == sum(map(len, shelf._of_peer.values())) == len(shelf)
        assert {group: peers.total() for group, peers in shelf._of_group.items()} == shelf._in_group
        assert shelf._in_group.total() == len(shelf)
        assert all((*shelf._of_key.values(), *shelf._of_peer.values(), *shelf._of_group.values()))
        assert max(map(len, shelf._of_peer.values())) <= FEW.dht_announcements_per_peer_max
        assert max(map(len, shelf._of_key.values())) <= FEW.dht_providers_per_key_max
