"""Roots of large blobs are those of other implementations: a list that js made, and aleph-cid as an oracle."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

import aleph_cid
import pytest

from dimnode.records.ids import BLOB_PREFIX, Cid, cid_bytes, cid_text
from dimnode.records.unixfs import (
    LEAF_BYTES,
    PROFILE,
    Link,
    TreeBuilder,
    encode_node,
    link_of,
    read_tree,
    root_of,
    tree_of,
)

GOLDEN: Final = json.loads((Path(__file__).parent / "unixfs.json").read_text(encoding="utf-8"))
LEGACY_LEAF_BYTES: Final = 256 * 1024
LEGACY_LINKS: Final = 174


@cache
def digest_of(byte: int, size: int) -> bytes:
    return hashlib.sha256(bytes([byte]) * size).digest()


def golden_tree(size: int):
    """The tree of a golden file (see make_unixfs.mjs): leaf k is filled with the byte k mod 251."""
    builder = TreeBuilder()
    for leaf, start in enumerate(range(0, size, LEAF_BYTES)):
        count = min(LEAF_BYTES, size - start)
        builder.add_digest(digest_of(leaf % 251, count), count)
    return builder.finish()


@pytest.mark.parametrize(("size", "root"), [(int(size), root) for size, root in GOLDEN["roots"].items()])
def test_a_golden_file_has_the_root_that_js_gives_it(size: int, root: str) -> None:
    assert GOLDEN["profile"] == PROFILE
    tree = golden_tree(size)
    assert cid_text(tree.root) == root
    assert cid_bytes(root) == tree.root
    assert tree.file_bytes == size
    if tree.nodes:
        assert read_tree(tree.root, tree.nodes) == tree


def test_the_list_reaches_from_nothing_to_a_tree_of_two_levels() -> None:
    sizes = sorted(map(int, GOLDEN["roots"]))
    leaf = LEAF_BYTES
    assert set(sizes) >= {0, 1, leaf - 1, leaf, leaf + 1, 10 * leaf, 1024 * leaf, 1024 * leaf + 1}
    assert golden_tree(sizes[-1]).layout.height == 2


def test_real_bytes_have_the_same_root_however_they_are_read() -> None:
    content = b"".join(bytes([leaf]) * LEAF_BYTES for leaf in range(10))
    wanted = cid_bytes(GOLDEN["roots"]["10485760"])
    assert root_of(content) == wanted
    at = 0

    def read(most: int) -> bytes:
        nonlocal at
        piece = content[at : at + min(most, 300_001)]
        at += len(piece)
        return piece

    assert tree_of(read).root == wanted


def legacy_root(content: bytes) -> str:
    """Our node encoder under the older profile (256 KiB, 174 links), which is the one that aleph-cid speaks."""
    level = []
    for start in range(0, len(content), LEGACY_LEAF_BYTES):
        leaf = content[start : start + LEGACY_LEAF_BYTES]
        level.append(Link(Cid(BLOB_PREFIX + hashlib.sha256(leaf).digest()), len(leaf), len(leaf)))
    return legacy_top(level)


def legacy_top(level: list[Link]) -> str:
    while len(level) > 1:
        groups = [level[at : at + LEGACY_LINKS] for at in range(0, len(level), LEGACY_LINKS)]
        level = [link_of(encode_node(group), group) for group in groups]
    return cid_text(level[0].cid)


@pytest.mark.parametrize("size", [1, 1000, LEGACY_LEAF_BYTES, LEGACY_LEAF_BYTES + 1, 600_000, 5 * 1024 * 1024 + 3])
def test_our_nodes_are_those_of_aleph_cid(size: int) -> None:
    content = hashlib.shake_256(size.to_bytes(8, "big")).digest(size)
    oracle = aleph_cid.CidHasher.for_ipfs_v1_raw_leaves()
    oracle.update(content)
    assert legacy_root(content) == oracle.finalize()


@pytest.mark.slow
def test_a_tree_of_three_levels_beyond_two_gigabytes_is_that_of_aleph_cid() -> None:
    mebibytes = 2051
    oracle = aleph_cid.CidHasher.for_ipfs_v1_raw_leaves()
    for _ in range(mebibytes):
        oracle.update(bytes(1024 * 1024))
    oracle.update(b"end")
    zeros = Link(Cid(BLOB_PREFIX + digest_of(0, LEGACY_LEAF_BYTES)), LEGACY_LEAF_BYTES, LEGACY_LEAF_BYTES)
    end = Link(Cid(BLOB_PREFIX + hashlib.sha256(b"end").digest()), 3, 3)
    assert legacy_top([zeros] * (4 * mebibytes) + [end]) == oracle.finalize()


@pytest.mark.parametrize("size", [1, 1000, LEGACY_LEAF_BYTES])
def test_a_single_leaf_has_the_cid_that_aleph_cid_gives(size: int) -> None:
    content = hashlib.shake_256(b"leaf").digest(size)
    oracle = aleph_cid.CidHasher.for_ipfs_v1_raw_leaves()
    oracle.update(content)
    assert cid_text(root_of(content)) == oracle.finalize()
