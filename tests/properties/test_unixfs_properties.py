"""Trees of hashes: whatever the size, what is built is read back; whatever is altered is refused."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.records.ids import TREE_PREFIX, Cid
from dimnode.records.unixfs import LEAF_BYTES, LINKS_MAX, Layout, Tree, TreeBuilder, TreeReader, read_node, read_tree

LEAVES = st.one_of(st.integers(2, 40), st.sampled_from([LINKS_MAX, LINKS_MAX + 1, 2 * LINKS_MAX, 2 * LINKS_MAX + 3]))


def tree_with(leaves: int, last_bytes: int) -> Tree:
    builder = TreeBuilder()
    for leaf in range(leaves - 1):
        builder.add_digest(hashlib.sha256(leaf.to_bytes(4, "big")).digest(), LEAF_BYTES)
    builder.add_digest(hashlib.sha256(b"last").digest(), last_bytes)
    return builder.finish()


@pytest.mark.slow
@given(leaves=LEAVES, last=st.integers(1, LEAF_BYTES), seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_nodes_that_come_in_any_order_give_the_tree_that_was_built(leaves: int, last: int, seed: int) -> None:
    tree = tree_with(leaves, last)
    assert read_tree(tree.root, tree.nodes) == tree
    by_hash = {TREE_PREFIX + hashlib.sha256(raw).digest(): raw for raw in tree.nodes}
    reader = TreeReader(tree.root)
    assert reader.take_root(by_hash[tree.root]) == Layout((leaves - 1) * LEAF_BYTES + last)
    shuffled = random.Random(seed)
    while reader.wanted:
        place = shuffled.choice(sorted(reader.wanted))
        reader.take(*place, by_hash[reader.wanted[place].cid])
    assert reader.tree == tree


@given(leaves=st.integers(2, 9), last=st.integers(1, LEAF_BYTES), at=st.integers(0, 10_000), to=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_node_with_one_other_byte_is_refused_or_the_same(leaves: int, last: int, at: int, to: int) -> None:
    tree = tree_with(leaves, last)
    raw = bytearray(tree.nodes[0])
    raw[at % len(raw)] = to
    if bytes(raw) == tree.nodes[0]:
        return
    with pytest.raises(PeerFault):
        read_tree(tree.root, [bytes(raw)])
    # Under its own root, too: either it is one of the trees that we would write ourselves, or it is refused.
    forged = Cid(TREE_PREFIX + hashlib.sha256(raw).digest())
    try:
        found = read_tree(forged, [bytes(raw)])
    except PeerFault:
        return
    assert found.nodes == (bytes(raw),)
    assert found.layout.leaves == leaves
    builder = TreeBuilder()
    for leaf in range(leaves):
        builder.add_digest(found.digest(leaf), found.layout.size(0, leaf))
    assert builder.finish() == found


@given(raw=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_node_or_a_fault(raw: bytes) -> None:
    try:
        links = read_node(raw)
    except PeerFault:
        return
    assert links


@given(cut=st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_a_node_that_was_cut_off_or_goes_on_is_refused(cut: int) -> None:
    [raw] = tree_with(3, 5).nodes
    with pytest.raises(PeerFault):
        read_node(raw[:-cut])
    with pytest.raises(PeerFault):
        read_node(raw + bytes(cut))
