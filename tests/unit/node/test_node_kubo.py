"""The node and its Kubo daemon: what goes there, what never does, and what is taken from there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from dimnode.audit.redact import redact
from dimnode.config import KuboConfig
from dimnode.errors import ConfigError, Refused
from dimnode.limits import KuboLimits
from dimnode.node.kubo import KuboBridge
from dimnode.node.kubo_index import INDEX_BYTES_MAX, index_of
from dimnode.records.envelope import SigningKey, seal
from dimnode.records.ids import Cid, RecordId, blob_cid, cid_text, peer_text
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.records.manifest import Manifest
from dimnode.records.unixfs import LEAF_BYTES, root_of
from dimnode.store.blobs import BlobStore
from tests.fake_kubo import FakeKubo

LIMITS = KuboLimits(look_seconds_min=0.02)
ME = SigningKey.from_seed(bytes([7]) * 32)
OTHER = SigningKey.from_seed(bytes([8]) * 32)
LARGE = bytes(range(256)) * 4096 * 2 + b"end"
GOLDEN = Path(__file__).parents[2] / "golden" / "quorum.dimr"


def model(root: Cid, size: int, name: str = "iris", key: SigningKey = ME, at_ms: int = 1):
    body = {"name": name, "version": "1", "profile": "unixfs-v1-2025", "format": "onnx", "licence": "MIT"}
    body |= {"inputs": [["x", "float32", [-1, 4]]], "outputs": [["y", "float32", [-1, 3]]], "labels": []}
    body |= {"origin": "trained", "access": "public", "files": [["m.onnx", "model", root, size]]}
    common = {"net": OPEN_SWARM_ID, "by": key.peer, "at_ms": at_ms}
    _, payload = compose("manifest", common, body, version=2)
    return open_record(seal(key, "manifest", payload, 2), kind="manifest")


class Offers:
    """What the node offers, by hand."""

    def __init__(self):
        self.records = []
        self.ended = []
        self.files = {}

    def models(self):
        return self.records

    def receipts(self, after, most):
        return [row for row in self.ended if row[0] > after][:most]

    def last_receipt(self):
        return max((row for row, _, _ in self.ended), default=0)

    def receipt(self, job):
        return self.files[job]


class Scene:
    """A home with a store, a daemon, a bridge between them."""

    def __init__(self, home, daemon):
        self.home, self.daemon, self.offers = home, daemon, Offers()
        self.blobs = BlobStore(home, 2**30)

    def add(self, content: bytes, **more):
        blob = self.blobs.add(_file(self.home, content))
        self.offers.records.append(model(blob.root, len(content), **more))
        return blob.root

    def bridge(self, *, private=False, limits=LIMITS, **settings):
        config = KuboConfig(api=self.daemon.api, **settings)
        return KuboBridge(
            config, self.home, ME.peer, OPEN_SWARM_ID, self.blobs, self.offers, private=private, limits=limits
        )

    def run(self, use, clock=None, **settings):
        async def main():
            async with self.bridge(**settings).opened() as bridge:
                return await use(bridge)

        return trio.run(main, clock=clock)

    def round(self, **settings):
        return self.run(lambda bridge: bridge.round(), **settings)


def _file(home, content):
    path = home / f"source-{len(content)}"
    path.write_bytes(content)
    return path


@pytest.fixture
def scene(tmp_path):
    with FakeKubo() as daemon:
        found = Scene(tmp_path, daemon)
        with found.blobs:
            yield found


def test_public_models_are_added_with_their_manifests_and_pinned_once(scene):
    root = scene.add(LARGE)
    [added] = scene.round()
    assert added.startswith("iris:1")
    envelope = blob_cid(scene.offers.records[0].envelope)
    assert scene.daemon.whole(cid_text(root)) == LARGE
    assert {cid_text(root), cid_text(envelope)} <= scene.daemon.pins
    before = len(scene.daemon.asked)
    assert scene.round() == []
    assert scene.daemon.asked[before:] == ["version"]


def test_the_name_points_to_an_index_that_leads_to_every_file(scene):
    root = scene.add(LARGE)
    scene.add(b"another's", name="borrowed", key=OTHER)
    scene.round()
    [(key, value)] = scene.daemon.names.items()
    assert scene.daemon.keys[f"dim-{peer_text(ME.peer)}"] == key
    index = json.loads(scene.daemon.blocks[value.removeprefix("/ipfs/")])
    assert index["publisher"] == peer_text(ME.peer)
    [entry] = index["models"]  # what others publish, they index
    assert entry["files"] == [{"path": "m.onnx", "root": cid_text(root), "bytes": len(LARGE)}]
    assert open_record(scene.daemon.blocks[entry["envelope"]]).id == scene.offers.records[0].id
    assert scene.run(lambda bridge: bridge.look())["name"] == f"/ipns/{key}"


def test_a_changed_index_gets_the_name_and_the_old_one_is_let_go(scene):
    scene.add(b"first")
    scene.round()
    [before] = scene.daemon.names.values()
    scene.add(b"second", name="second", at_ms=2)
    scene.round()
    [after] = scene.daemon.names.values()
    assert after != before
    assert before.removeprefix("/ipfs/") not in scene.daemon.pins
    assert after.removeprefix("/ipfs/") in scene.daemon.pins


def test_a_model_that_is_no_longer_offered_is_unpinned_with_its_manifest(scene):
    root = scene.add(LARGE)
    scene.add(b"stays", name="stays", at_ms=2)
    scene.round()
    goes, stays = (cid_text(blob_cid(record.envelope)) for record in scene.offers.records)
    del scene.offers.records[0]
    scene.round()
    assert not {cid_text(root), goes} & scene.daemon.pins
    assert {cid_text(blob_cid(b"stays")), stays} <= scene.daemon.pins


def test_a_new_version_of_the_same_files_is_said_to_be_added(scene):
    root = scene.add(LARGE)
    scene.round()
    scene.offers.records.append(model(root, len(LARGE), name="again", at_ms=2))
    [added] = scene.run(lambda bridge: bridge.push_all())
    assert added.startswith("again:1")


def test_in_a_private_swarm_the_public_network_is_not_asked_unless_the_operator_says_so(scene):
    raw = b"found in the daemon"
    scene.daemon.blocks[cid_text(blob_cid(raw))] = raw

    def found(**settings):
        return scene.run(lambda bridge: bridge.take(blob_cid(raw), len(raw), lambda *_: None), **settings)

    assert not found(private=True, fetch="network")
    assert found(private=True, fetch="network", private_swarm=True)


def test_in_a_private_swarm_nothing_goes_there_unless_the_operator_says_so(scene):
    scene.add(LARGE)
    scene.offers.ended = [(5, RecordId(b"job"), True)]
    assert scene.round(private=True) == []
    assert not scene.daemon.blocks
    for push in (lambda bridge: bridge.push_all(), lambda bridge: bridge.push_job(RecordId(b"job"), True)):
        with pytest.raises(Refused, match="E-kubo-11"):
            scene.run(push, private=True)
    assert scene.round(private=True, private_swarm=True)


def test_receipts_go_there_without_what_they_speak_about(scene):
    receipt = GOLDEN.read_bytes()
    jobs = [RecordId(bytes([number])) for number in range(3)]
    scene.offers.files = dict.fromkeys(jobs, receipt)
    scene.offers.ended = [(5, jobs[0], True)]
    assert scene.round() == []  # it ended before the daemon was configured
    scene.offers.ended += [(6, jobs[1], False), (7, jobs[2], True)]
    [added] = scene.round()
    assert added == f"receipt of {cid_text(jobs[2])}"
    assert redact(receipt) in scene.daemon.blocks.values()
    assert receipt not in scene.daemon.blocks.values()
    assert scene.round() == []

    async def by_hand(bridge):
        return await bridge.push_job(jobs[2], True), bridge.status()["receipts"]

    for _ in range(2):  # it is there, and counts once
        assert scene.run(by_hand) == (cid_text(blob_cid(redact(receipt))), 1)
    with pytest.raises(Refused, match="E-kubo-11"):
        scene.run(lambda bridge: bridge.push_job(jobs[1], False))


def test_receipts_go_whole_or_not_at_all_if_the_operator_says_so(scene):
    receipt = GOLDEN.read_bytes()
    job = RecordId(b"job")
    scene.offers.files = {job: receipt}
    with pytest.raises(Refused, match="E-kubo-11"):
        scene.run(lambda bridge: bridge.push_job(job, True), receipts="off")
    text = scene.run(lambda bridge: bridge.push_job(job, True), receipts="whole")
    assert scene.daemon.whole(text) == receipt


def test_what_the_daemon_draws_otherwise_is_said_and_the_rest_goes_on(scene):
    scene.add(LARGE, name="drawn-otherwise")
    scene.add(b"small", name="small", at_ms=2)
    scene.daemon.fault = "tree"

    async def use(bridge):
        return await bridge.round(), await bridge.round(), bridge.status()

    first, second, status = scene.run(use)
    assert [what.partition(":")[0] for what in first] == ["small"] and second == []
    [(what, words)] = status["refused"].items()
    assert what.startswith("drawn-otherwise:1") and words["code"] == "E-kubo-06"
    scene.daemon.fault = ""
    assert scene.run(lambda bridge: bridge.push_all())[0].startswith("drawn-otherwise")


def test_a_daemon_that_forgot_is_told_again(scene):
    root = scene.add(LARGE)
    scene.round()
    scene.daemon.blocks.clear()
    scene.daemon.pins.clear()
    assert scene.round() == []
    assert scene.run(lambda bridge: bridge.push_all())
    assert scene.daemon.whole(cid_text(root)) == LARGE


def test_a_daemon_that_cannot_be_used_stops_nothing_and_is_asked_again(scene):
    scene.add(LARGE)
    limits = replace(LIMITS, look_seconds_max=0.02)
    scene.daemon.fault = "html"

    def mend():
        scene.daemon.asked_for("version", 2)
        scene.daemon.fault = ""
        scene.daemon.asked_for("name/publish", 1)

    async def use(bridge):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run)
            await trio.to_thread.run_sync(mend)
            nursery.cancel_scope.cancel()
        return bridge.status()

    status = scene.run(use, limits=limits)
    assert (status["problem"], status["pinned"]) == (None, 2)


def test_a_damaged_book_of_blobs_stops_nothing_and_ends_no_node(scene, monkeypatch):
    root = scene.add(LARGE)
    find, looks = scene.blobs.find, []

    def damaged(cid):
        looks.append(cid)
        if len(looks) == 1:
            raise ConfigError("E-store-37", "the list of blobs is damaged")
        return find(cid)

    monkeypatch.setattr(scene.blobs, "find", damaged)

    async def use(bridge):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run)
            await trio.to_thread.run_sync(scene.daemon.asked_for, "name/publish", 1)
            nursery.cancel_scope.cancel()

    scene.run(use, limits=replace(LIMITS, look_seconds_max=0.02))
    assert cid_text(root) in scene.daemon.pins


def test_why_the_daemon_cannot_be_used_is_in_the_status(scene):
    scene.daemon.fault = "html"
    assert scene.run(lambda bridge: bridge.look())["problem"]["code"] == "E-kubo-04"


def test_without_an_address_nothing_is_asked_of_anybody(scene):
    async def main():
        bridge = KuboBridge(
            KuboConfig(), scene.home, ME.peer, OPEN_SWARM_ID, scene.blobs, scene.offers, private=False, limits=LIMITS
        )
        async with bridge.opened():
            await bridge.run()
            assert not await bridge.take(blob_cid(b"x"), 1, print)
            with pytest.raises(Refused, match="E-kubo-10"):
                await bridge.push_all()
            return await bridge.look()

    assert trio.run(main)["api"] == ""
    assert not scene.daemon.asked


@pytest.mark.parametrize(
    "junk",
    [
        *(b"", b"{", b'{"pinned": 3}', b'{"receipts_after": "x"}', b'{"pinned": ["x"]}', b'{"index": "no CID"}'),
        *(b'{"index": "\xff"}', b'{"later": ' + b"[" * 10_000),
    ],
    ids=range(8),
)
def test_notes_that_cannot_be_read_cost_a_second_look_and_nothing_else(scene, junk):
    root = scene.add(LARGE)
    (scene.home / "kubo.json").write_bytes(junk)
    scene.round()
    assert cid_text(root) in scene.daemon.pins


# ---- taking blobs from there


def taken(scene, root, size=None, beside=None, **settings):
    """What came of it, and what was told; `beside` goes on meanwhile."""
    seen = []

    async def use(bridge):
        async with trio.open_nursery() as nursery:
            if beside is not None:
                nursery.start_soon(beside)
            return await bridge.take(root, size, lambda done, of: seen.append((done, of)))

    return scene.run(use, **settings), seen


def test_a_blob_is_taken_from_there_leaf_by_leaf(scene):
    root = root_of(LARGE)
    scene.daemon.draw(LARGE, LEAF_BYTES)
    found, seen = taken(scene, root, len(LARGE))
    assert found and seen[-1] == (len(LARGE), len(LARGE))
    assert scene.blobs.path(root).read_bytes() == LARGE


def test_a_small_blob_is_one_block(scene):
    root = blob_cid(b"small")
    scene.daemon.put(b"small")
    assert taken(scene, root, 6)[0] is False  # not of the size that was announced
    assert scene.blobs.path(root) is None
    assert taken(scene, root, 5)[0]
    assert scene.blobs.path(root).read_bytes() == b"small"


def test_what_is_not_there_is_not_waited_for(scene):
    assert taken(scene, root_of(LARGE))[0] is False
    assert scene.daemon.asked == ["block/stat"]


def test_a_lying_daemon_leaves_nothing_in_the_store(scene):
    root = root_of(LARGE)
    scene.daemon.draw(LARGE, LEAF_BYTES)
    scene.daemon.fault = "lie"
    assert taken(scene, root)[0] is False
    assert scene.blobs.path(root) is None


def test_what_came_before_the_daemon_died_is_kept_for_the_next_time(scene):
    root = root_of(LARGE)
    scene.daemon.draw(LARGE, LEAF_BYTES)
    last = cid_text(blob_cid(b"end"))
    kept = scene.daemon.blocks.pop(last)
    assert taken(scene, root)[0] is False
    assert scene.blobs.path(root) is None
    scene.daemon.blocks[last] = kept
    before = scene.daemon.asked.count("block/get")
    assert taken(scene, root)[0]
    assert scene.daemon.asked.count("block/get") - before == 1
    assert scene.blobs.path(root).read_bytes() == LARGE


def test_a_daemon_that_drips_has_a_deadline_for_all_of_it_and_what_came_is_kept(scene):
    """Each call alone may take 20 s: with a call for every MiB, no peer would be asked for hours."""
    root = root_of(LARGE)
    scene.daemon.draw(LARGE, LEAF_BYTES)
    hurried = replace(LIMITS, fetch_bytes_per_second_min=2**60, calls_at_once_max=1)
    scene.daemon.gate_after["block/get"] = 3  # the root and a leaf come at once, the next waits for the gate
    clock = trio.testing.MockClock()

    async def time_passes_when_it_drips():
        await trio.to_thread.run_sync(scene.daemon.asked_for, "block/get", 3)
        clock.jump(hurried.fetch_seconds_min + 1)

    found, seen = taken(scene, root, limits=hurried, beside=time_passes_when_it_drips, clock=clock)
    assert not found and 0 < seen[-1][0] < len(LARGE)
    assert scene.blobs.path(root) is None and scene.blobs.known_tree(root) is not None
    scene.daemon.gate_after.clear()
    before = scene.daemon.asked.count("block/get")
    assert taken(scene, root)[0]
    assert scene.daemon.asked.count("block/get") - before == 2


def test_an_operator_may_keep_the_node_from_asking_the_daemon_for_blobs(scene):
    scene.daemon.put(b"small")
    assert taken(scene, blob_cid(b"small"), fetch="off") == (False, [])
    assert not scene.daemon.asked


# ---- the index


@pytest.mark.slow
def test_an_index_has_room_for_one_leaf_and_leaves_out_the_oldest():
    one = model(blob_cid(b"m"), 1)
    many = [(replace(Manifest.of(one), name=f"model-{at}", at_ms=at), b"") for at in range(4000)]
    raw = index_of(ME.peer, OPEN_SWARM_ID, many)
    found = json.loads(raw)["models"]
    assert len(raw) <= INDEX_BYTES_MAX and len(found) > 1000
    assert [entry["name"] for entry in found] == [f"model-{3999 - at}" for at in range(len(found))]
    assert index_of(ME.peer, OPEN_SWARM_ID, reversed(many)) == raw
