"""A publisher's index: one spelling, within a leaf, and nothing in it but what its publisher signed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.records.codec import encode
from dimnode.records.envelope import Record, SigningKey, seal
from dimnode.records.ids import TREE_PREFIX, Cid, RecordId, blob_cid, cid_text
from dimnode.records.index import INDEX_BYTES_MAX, path_of, read_index, root_of, write_index
from dimnode.records.kinds import OPEN_SWARM_ID, compose, open_record
from dimnode.wire import END, pack_frame

KEY, OTHER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2))


def manifest(name: str = "m", at_ms: int = 1, by: SigningKey = KEY, net: RecordId = OPEN_SWARM_ID) -> Record:
    body: dict[str, Any] = {"name": name, "version": "1", "profile": "unixfs-v1-2025", "format": "onnx", "inputs": []}
    body |= {"outputs": [], "labels": [], "licence": "", "origin": "trained", "access": "public"}
    body["files"] = [["a.onnx", "model", blob_cid(b"a"), 1]]
    return sealed(by, "manifest", {**body, "summary": "s" * 150}, at_ms, net, 2)


def withdrawal(of: Record, by: SigningKey = KEY, at_ms: int = 2) -> Record:
    return sealed(by, "withdraw", {"subject": of.id, "reason": ""}, at_ms)


def sealed(
    by: SigningKey, kind: str, body: dict[str, Any], at_ms: int, net: RecordId = OPEN_SWARM_ID, version: int = 1
) -> Record:
    _, payload = compose(kind, {"net": net, "by": by.peer, "at_ms": at_ms}, body, version=version)
    return open_record(seal(by, kind, payload, version), kind=kind)


def written(*manifests: Record, gone: tuple[Record, ...] = ()) -> bytes:
    return write_index(KEY.peer, OPEN_SWARM_ID, manifests, gone)


def test_what_is_written_is_read_the_newest_first_in_one_spelling() -> None:
    old, new, gone = manifest("old", 1), manifest("new", 2), withdrawal(manifest("gone"))
    raw = written(old, new, gone=(gone,))
    found = read_index(raw, KEY.peer, OPEN_SWARM_ID)
    assert (found.manifests, found.withdrawals, found.left_out) == ((new, old), (gone,), 0)
    assert written(new, old, gone=(gone,)) == raw
    assert read_index(written(), KEY.peer, OPEN_SWARM_ID).manifests == ()


@pytest.mark.slow
def test_the_oldest_are_left_out_and_counted() -> None:
    many = [manifest(f"m{number}", number) for number in range(400)]
    raw = written(*many)
    found = read_index(raw, KEY.peer, OPEN_SWARM_ID)
    assert len(raw) <= INDEX_BYTES_MAX
    assert len(found.manifests) + found.left_out == 400
    assert found.manifests == tuple(reversed(many))[: len(found.manifests)]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (written(manifest())[:-4], "frames"),
        (written(manifest()) + b"x", "end frame"),
        (b"", "frames"),
        (END, "frames"),
        (b"\0" * (INDEX_BYTES_MAX + 1), "too long"),
        (write_index(OTHER.peer, OPEN_SWARM_ID, (), ()), "head"),
        (written(manifest(by=OTHER)), "another's record"),
        (written(manifest(net=manifest().id)), "another kind or swarm"),
        (written(manifest()).replace(b"trained", b"trained"[::-1]), "signature"),
        (pack_frame(["index/1", KEY.peer, OPEN_SWARM_ID, -1]) + END, "head"),
        (pack_frame(["index/2", KEY.peer, OPEN_SWARM_ID, 0]) + END, "head"),
        (pack_frame(["index/1", KEY.peer, OPEN_SWARM_ID, 0]) + pack_frame(7) + END, "frames"),
        (pack_frame(["index/1", KEY.peer, OPEN_SWARM_ID, 0]) + pack_frame(b"") * 600 + END, "frames"),
    ],
)
def test_what_is_not_the_publishers_index_is_refused(raw: bytes, rule: str) -> None:
    with pytest.raises(PeerFault, match=rule):
        read_index(raw, KEY.peer, OPEN_SWARM_ID)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_no_record(at: int, change: int) -> None:
    record = manifest()
    raw = bytearray(written(record))
    raw[at % len(raw)] ^= change
    try:
        found = read_index(bytes(raw), KEY.peer, OPEN_SWARM_ID)
    except PeerFault:
        return
    assert {each.envelope for each in found.manifests} <= {record.envelope}


def test_a_record_of_a_later_version_is_passed_over() -> None:
    """As in an introduction: a publisher may be of the next version."""
    later = seal(KEY, "manifest", encode({"v": 3, "kind": "manifest", "by": KEY.peer}), 3)
    raw = pack_frame(["index/1", KEY.peer, OPEN_SWARM_ID, 0, "more"]) + pack_frame(later) + END
    assert read_index(raw, KEY.peer, OPEN_SWARM_ID).manifests == ()


def test_a_path_names_one_leaf() -> None:
    root = blob_cid(b"an index")
    assert root_of(path_of(root)) == root
    tree = Cid(TREE_PREFIX + bytes(32))
    for path in (path_of(tree), cid_text(root), f"/ipns/{cid_text(root)}", f"{path_of(root)}/x", "/ipfs/", ""):
        with pytest.raises(PeerFault):
            root_of(path)
