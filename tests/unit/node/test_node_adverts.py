"""What an advert says of a node: its addresses, its extras, and what the words of a model need."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from dimnode.exec.runtimes.choice import EXTRAS, extras_installed, extras_of
from dimnode.limits import LIMITS
from dimnode.node import swarm as node_swarm
from dimnode.node.library import Library
from dimnode.node.swarm import Swarm, devices_said, extras_said
from dimnode.p2p.conduct import Judgement
from dimnode.p2p.gossip import Freshness, judge_gossip
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import RECORD_PREFIX, RecordId
from dimnode.records.kinds import OPEN_SWARM_ID, open_record
from dimnode.store.blobs import BlobStore
from dimnode.store.home import prepare_home
from dimnode.store.journal import Journal


@pytest.mark.parametrize("said", [None, 3, "text", ["text", 1], ["x"] * 17, {"text": 1}])
def test_a_peer_that_wrote_no_list_of_words_did_not_say_what_it_has(said: object) -> None:
    assert extras_said({} if said is None else {"x_extras": said}) is None


def test_a_list_of_words_is_what_a_peer_has_also_an_empty_one() -> None:
    assert extras_said({"x_extras": ["text"]}) == ("text",)
    assert extras_said({"x_extras": []}) == ()


def test_words_need_the_extra_that_carries_them_out_and_numbers_need_none() -> None:
    words = {"tokenise": {"text"}, "decode_image": {"image"}, "resize": {"image"}, "decode_audio": {"audio"}}
    for word, extras in words.items():
        assert extras_of([{"op": "input"}, {"op": word}], [{"op": "softmax"}]) == extras
    assert extras_of([{"op": "normalise"}], [{"op": "top_k"}, {"op": "a word of later"}]) == frozenset()


def test_this_installation_has_every_extra() -> None:
    assert extras_installed() == tuple(EXTRAS)


@pytest.mark.parametrize("said", [None, 3, ["onnx", "cpu"], {"onnx": 1}, {1: "cpu"}, {"onnx": "x" * 33}])
def test_a_peer_that_wrote_no_map_of_words_did_not_say_on_what_it_computes(said: object) -> None:
    assert devices_said({} if said is None else {"x_devices": said}) == {}


def test_a_map_of_words_is_on_what_a_peers_runtimes_compute() -> None:
    assert devices_said({"x_devices": {"onnx": "cpu", "torch": "cuda"}}) == {"onnx": "cpu", "torch": "cuda"}


class ManyAddresses:
    """A host that can be dialled at so many, and what it has published."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.published: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, message: bytes) -> None:
        self.published.append((topic, message))

    def addresses(self) -> list[str]:
        return list(self._addresses)


@contextmanager
def swarm_at(home: Path, *addresses: str, on: Any = None) -> Iterator[tuple[Swarm, Library]]:
    key = SigningKey.from_seed(bytes(32))
    prepare_home(home)
    with Journal(home / "j.db") as journal, BlobStore(home, 1 << 30) as blobs:
        library = Library(home, key, OPEN_SWARM_ID, journal, blobs)
        swarm = Swarm(key, OPEN_SWARM_ID, library, LIMITS)
        host: Any = on or ManyAddresses(*addresses)
        nobody: Any = None
        swarm.attach(host, nobody, lambda _: None, lambda: (0, 0))
        yield swarm, library


def test_an_advert_names_the_first_addresses_that_fit_a_record_and_leaves_out_long_ones(tmp_path: Path) -> None:
    fitting = [f"/ip4/44.1.1.1/tcp/{port}" for port in range(1, 20)]
    longest = "/dns4/" + "a" * 250
    with swarm_at(tmp_path / "home", longest + "a", longest, *fitting) as (swarm, _):
        swarm.renew_advert()
        said = open_record(swarm.introduction()[0], kind="advert").payload["addresses"]
    assert said == [longest, *fitting[:15]]


def test_an_introduction_shows_the_manifests_that_its_advert_names_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = LIMITS.peers.manifests_per_advert_max
    ids = [RecordId(RECORD_PREFIX + hashlib.sha256(b"%d" % number).digest()) for number in range(most + 44)]
    models = [SimpleNamespace(manifest=SimpleNamespace(id=each, envelope=bytes(each))) for each in ids]
    with swarm_at(tmp_path / "home") as (swarm, library):
        monkeypatch.setattr(library, "offered", lambda: models)
        swarm.slots = 1
        swarm.renew_advert()
        later = RecordId(RECORD_PREFIX + bytes(32))
        models.insert(0, SimpleNamespace(manifest=SimpleNamespace(id=later, envelope=bytes(later))))
        advert, *shown = swarm.introduction()
    named = open_record(advert, kind="advert").payload["models"]
    assert len(named) == most
    assert set(shown) == set(named)


@pytest.mark.parametrize("back_ms", [1, 60_000, LIMITS.peers.heartbeat_age_ms_max, 86_400_000])
def test_a_node_whose_clock_was_set_back_is_heard_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back_ms: int
) -> None:
    """Also when it was so far ahead that nobody listened to it before."""
    right_ms, mine, theirs = 1_700_000_000_000, SigningKey.from_seed(bytes(32)).peer, Freshness()
    host = ManyAddresses()
    with swarm_at(tmp_path / "home", on=host) as (swarm, _):
        swarm.renew_advert()
        for now_ms in (right_ms + back_ms, right_ms, right_ms + 1000, right_ms + 2000):
            monkeypatch.setattr(node_swarm, "wall_ms", lambda now_ms=now_ms: now_ms)
            trio.run(swarm._beat)
    heard = [
        judge_gossip(topic, mine, message, OPEN_SWARM_ID, theirs, right_ms + 2000 * place)[0]
        for place, (topic, message) in enumerate(host.published)
    ]
    assert heard[1:] == [Judgement.ACCEPT] * 3
