"""What a tree of hashes is not: other shapes of the same bytes, wrong sizes, too much."""

import hashlib

import pytest

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, blob_cid, is_cid
from dimnode.records.unixfs import (
    LEAF_BYTES,
    LINKS_MAX,
    NODE_BYTES_MAX,
    Layout,
    Link,
    TreeBuilder,
    TreeReader,
    encode_node,
    link_of,
    read_node,
    read_tree,
    root_of,
    single_leaf,
)

LEAF = Link(Cid(BLOB_PREFIX + bytes(32)), LEAF_BYTES, LEAF_BYTES)
SHORT = Link(Cid(BLOB_PREFIX + bytes(32)), 7, 7)


def root_and_raw(links: list[Link]) -> tuple[Cid, bytes]:
    raw = encode_node(links)
    return link_of(raw, links).cid, raw


def test_up_to_one_leaf_the_root_is_the_cid_of_the_bytes() -> None:
    for content in (b"", b"x", bytes(LEAF_BYTES)):
        assert root_of(content) == blob_cid(content)
        assert not Layout(len(content)).is_tree
    assert single_leaf(blob_cid(b"x"), 1).digest(0) == hashlib.sha256(b"x").digest()


def test_the_shape_follows_from_the_size() -> None:
    assert Layout(0).leaves == 1 and Layout(0).height == 0
    assert Layout(LEAF_BYTES + 1).places() == [(1, 0)]
    two = Layout(LEAF_BYTES * LINKS_MAX + 1)
    assert two.places() == [(2, 0), (1, 0), (1, 1)]
    assert two.children(1, 1) == range(1024, 1025)
    assert two.size(1, 1) == 1 and two.size(0, 1024) == 1 and two.size(2, 0) == two.file_bytes


@pytest.mark.parametrize(
    "links",
    [
        [LEAF],  # one leaf is its own root
        [SHORT, LEAF],  # only the last leaf is short
        [LEAF, Link(LEAF.cid, LEAF_BYTES, LEAF_BYTES + 1)],  # a leaf's blocks are the leaf
        [LEAF, Link(Cid(TREE_PREFIX + bytes(32)), LEAF_BYTES, LEAF_BYTES)],  # a node where a leaf belongs
        [LEAF, Link(LEAF.cid, 0, 0)],
        [LEAF, Link(LEAF.cid, LEAF_BYTES + 1, LEAF_BYTES + 1)],
    ],
)
def test_another_shape_of_a_tree_is_refused(links: list[Link]) -> None:
    root, raw = root_and_raw(links)
    with pytest.raises(PeerFault):
        read_tree(root, [raw])


def test_a_size_that_lies_about_the_blocks_below_is_noticed() -> None:
    below = [LEAF] * LINKS_MAX
    raw_below = encode_node(below)
    honest = link_of(raw_below, below)
    last = [SHORT]
    raw_last = encode_node(last)
    lying = Link(honest.cid, honest.file_bytes, honest.tree_bytes + 1)
    for first in (honest, lying):
        root, raw = root_and_raw([first, link_of(raw_last, last)])
        if first is honest:
            assert read_tree(root, [raw, raw_below, raw_last]).layout.leaves == LINKS_MAX + 1
        else:
            with pytest.raises(PeerFault, match="shape"):
                read_tree(root, [raw, raw_below, raw_last])


def test_a_blob_beyond_the_bound_is_refused_by_its_root_alone() -> None:
    root, raw = root_and_raw([LEAF, LEAF, SHORT])
    assert TreeReader(root).take_root(raw).leaves == 3
    with pytest.raises(PeerFault, match="size"):
        TreeReader(root, bytes_max=2 * LEAF_BYTES).take_root(raw)


def test_a_node_of_the_largest_blob_fits_the_bound_on_nodes() -> None:
    layout = Layout(LIMITS.store.blob_bytes_max)
    child = layout.size(layout.height - 1, 0)
    assert len(encode_node([Link(LEAF.cid, child, 2 * child)] * LINKS_MAX)) < NODE_BYTES_MAX


def test_missing_surplus_and_foreign_nodes_are_refused() -> None:
    builder = TreeBuilder()
    for _ in range(LINKS_MAX + 1):
        builder.add_digest(bytes(32), LEAF_BYTES)
    tree = builder.finish()
    top, first, last = tree.nodes
    for wrong in ([], [top], [top, first], [top, last, first], [top, first, last, last], [first, top, last]):
        with pytest.raises(PeerFault):
            read_tree(tree.root, wrong)


def test_too_many_links_are_refused() -> None:
    with pytest.raises(PeerFault):
        read_node(encode_node([LEAF] * (LINKS_MAX + 1)))


def test_only_our_forms_are_cids() -> None:
    assert is_cid(blob_cid(b"")) and is_cid(root_of(bytes(LEAF_BYTES + 1)))
    for wrong in (b"", bytes(36), blob_cid(b"")[:-1], bytes.fromhex("01711220") + bytes(32)):
        assert not is_cid(wrong)
