"""A small file of a model, which a request waits for: silent peers cost a bounded time, and not the file."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.backstage import Backstage
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import PeerId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.wire import END, pack_frame

ME = SigningKey.from_seed(b"m" * 32)
PEERS = [SigningKey.from_seed(bytes([n]) * 32).peer for n in range(1, 41)]
TOKENIZER = b'{"a": "tokenizer"}'


def model() -> Any:
    body: dict[str, Any] = {"name": "words", "version": "1", "profile": "unixfs-v1-2025", "format": "onnx"}
    body |= {"inputs": [["x", "int64", [-1, 4]]], "outputs": [["y", "float32", [-1, 3]]], "labels": [], "licence": ""}
    files = [["m.onnx", "model", blob_cid(b"m"), 1], ["t.json", "tokenizer", blob_cid(TOKENIZER), len(TOKENIZER)]]
    common = {"net": OPEN_SWARM_ID, "by": ME.peer, "at_ms": 1}
    said = {**body, "origin": "trained", "access": "public", "files": files}
    return open_record(seal(ME, "manifest", compose("manifest", common, said, version=2)[1], 2), kind="manifest")


class Network:
    """A host of which every peer takes the question, and only some answer it."""

    def __init__(self, honest: set[PeerId]) -> None:
        self.honest, self.asked = honest, list[PeerId]()

    async def open_stream(self, peer: PeerId, _protocol: str) -> Any:
        self.asked.append(peer)
        answer = pack_frame(TOKENIZER) + END

        async def read(_most: int) -> bytes:
            if peer not in self.honest:
                await trio.sleep_forever()
            return answer

        return SimpleNamespace(read=read, write=nothing, reset=nothing)


async def nothing(*_: object) -> None:
    await trio.lowlevel.checkpoint()


def asked_for(network: Network) -> tuple[bytes | Refused, float]:
    """What came of it, and after how many seconds."""
    words = model()
    members = [SimpleNamespace(peer=peer, models={words.id}, linked=True) for peer in PEERS]
    kept: list[bytes] = []
    node: Any = SimpleNamespace(
        limits=LIMITS,
        host=network,
        library=SimpleNamespace(kept_file=lambda _cid: None, keep_file=kept.append),
        swarm=SimpleNamespace(members=SimpleNamespace(alive=lambda _at: members)),
    )
    backstage = Backstage.__new__(Backstage)
    backstage._node = node

    async def ask() -> tuple[bytes | Refused, float]:
        began = trio.current_time()
        try:
            found: bytes | Refused = await backstage.model_file(words, "t.json")
            assert kept == [found]
        except Refused as no:
            found = no
        return found, trio.current_time() - began

    return trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_silent_peer_leaves_time_for_another_that_gives_the_file() -> None:
    found, seconds = asked_for(Network({PEERS[2]}))
    assert found == TOKENIZER
    assert seconds == pytest.approx(2 * LIMITS.peers.model_file_peer_seconds_max)


def test_however_many_peers_are_silent_the_wait_has_one_bound_and_says_how_many_they_are() -> None:
    network = Network(set())
    found, seconds = asked_for(network)
    assert isinstance(found, Refused) and found.complaint.code == "E-models-01"
    assert found.complaint.cause == "40 linked peers offer it" and found.retry_after_ms
    assert seconds == pytest.approx(LIMITS.peers.model_file_seconds_max)
    assert network.asked == PEERS[:3]
