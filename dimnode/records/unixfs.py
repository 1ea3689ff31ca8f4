"""Large blobs as a tree of hashes: UnixFS files in dag-pb, profile `unixfs-v1-2025`, as others make them.

A blob of at most 1 MiB is one raw leaf, and its CID is its root. A larger one is cut into leaves of 1 MiB; each node
above names up to 1,024 children, and every level is as full as it can be. So the size alone fixes the tree's whole
shape, and the leaves' hashes fix every byte of every node.
Rule: a node is accepted only when encoding what was read from it gives the same bytes, in the one shape of its size.
Pure: no I/O, no clock.

Sources: UnixFS and the profile (specs.ipfs.tech/unixfs, IPIP-499), dag-pb (ipld.io/specs/codecs/dag-pb/spec).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.ids import BLOB_PREFIX, CID_BYTES, TREE_PREFIX, Cid, blob_cid
from dimnode.records.varint import varint

PROFILE: Final = "unixfs-v1-2025"
LEAF_BYTES: Final = 1024 * 1024
LINKS_MAX: Final = 1024
DIGEST_BYTES: Final = 32
NODE_BYTES_MAX: Final = 80 * 1024
"""A full node of the largest blob has less: 1,024 links of up to 61 bytes, and up to 11 for each child's size."""
_FILE: Final = b"\x08\x02\x18"  # UnixFS Type = File, then field 3: filesize


class WrongHash(PeerFault):
    """Not the bytes that were asked for: whoever gave them lied. Other faults are those of the tree itself."""


@dataclass(frozen=True, slots=True)
class Link:
    """A child: its CID, the file's bytes below it, and the bytes of all blocks below it (dag-pb's Tsize)."""

    cid: Cid
    file_bytes: int
    tree_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a blob of `file_bytes`. Level 0 are the leaves, the root is alone on the top level."""

    file_bytes: int

    @property
    def leaves(self) -> int:
        """How many leaves; an empty blob has one empty leaf."""
        return max(1, -(-self.file_bytes // LEAF_BYTES))

    @property
    def height(self) -> int:
        """The level of the root: 0 when the blob is a single leaf."""
        level, count = 0, self.leaves
        while count > 1:
            level, count = level + 1, -(-count // LINKS_MAX)
        return level

    @property
    def is_tree(self) -> bool:
        """Whether there are nodes above the leaves."""
        return self.file_bytes > LEAF_BYTES

    def count(self, level: int) -> int:
        """How many blocks the level has."""
        span: int = LINKS_MAX**level
        return -(-self.leaves // span)

    def size(self, level: int, index: int) -> int:
        """Bytes of the file below one block of the level."""
        span: int = LEAF_BYTES * LINKS_MAX**level
        return max(0, min(span, self.file_bytes - index * span))

    def places(self) -> list[tuple[int, int]]:
        """(level, index) of all nodes, the root first, then level by level."""
        return [(level, index) for level in range(self.height, 0, -1) for index in range(self.count(level))]

    def children(self, level: int, index: int) -> range:
        """Which blocks of the level below it names."""
        return range(index * LINKS_MAX, min((index + 1) * LINKS_MAX, self.count(level - 1)))


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole blob's hashes. `digests`: 32 bytes for each leaf, in order. `nodes`: root first, then level by level."""

    root: Cid
    file_bytes: int
    digests: bytes
    nodes: tuple[bytes, ...]

    @property
    def layout(self) -> Layout:
        """Its shape."""
        return Layout(self.file_bytes)

    def digest(self, leaf: int) -> bytes:
        """SHA-256 of a leaf."""
        return self.digests[leaf * DIGEST_BYTES : (leaf + 1) * DIGEST_BYTES]


class TreeBuilder:
    """Leaves in, in order; the tree out. Holds 32 bytes a leaf and the nodes, never the blob."""

    def __init__(self) -> None:
        self._open: list[list[Link]] = [[]]
        self._nodes: list[list[bytes]] = [[]]
        self._digests = bytearray()
        self._file_bytes = 0

    def add(self, leaf: bytes | bytearray | memoryview) -> None:
        """The next leaf: 1 MiB but for the last one."""
        self.add_digest(hashlib.sha256(leaf).digest(), len(leaf))

    def add_digest(self, digest: bytes, size: int) -> None:
        """The same for a leaf that was hashed elsewhere. A leaf after a short one is our own bug."""
        assert self._file_bytes % LEAF_BYTES == 0 and 0 < size <= LEAF_BYTES, "only the last leaf is short"
        self._digests += digest
        self._file_bytes += size
        self._put(0, Link(Cid(BLOB_PREFIX + digest), size, size))

    def _put(self, level: int, link: Link) -> None:
        if level == len(self._open):
            self._open.append([])
            self._nodes.append([])
        self._open[level].append(link)
        if len(self._open[level]) == LINKS_MAX:
            self._close(level)

    def _close(self, level: int) -> None:
        links, self._open[level] = self._open[level], []
        raw = encode_node(links)
        self._nodes[level].append(raw)
        self._put(level + 1, link_of(raw, links))

    def finish(self) -> Tree:
        """The tree of what was added; nothing may be added afterwards."""
        if not self._digests:
            empty = blob_cid(b"")
            return Tree(empty, 0, empty[len(BLOB_PREFIX) :], ())
        level = 0
        while level + 1 < len(self._open) or len(self._open[level]) > 1:
            if self._open[level]:
                self._close(level)
            level += 1
        [root] = self._open[level]
        nodes = tuple(raw for level in reversed(self._nodes) for raw in level)
        return Tree(root.cid, self._file_bytes, bytes(self._digests), nodes)


class TreeReader:
    """A tree from its nodes, which come from anywhere: the root first, then each one that is `wanted` by then.

    When `tree` is there, all hashes, sizes and the shape hold together up to the root.
    """

    def __init__(self, root: Cid, bytes_max: int = LIMITS.store.blob_bytes_max) -> None:
        self._root, self._bytes_max = root, bytes_max
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._digests: dict[int, bytes] = {}
        self.wanted: dict[tuple[int, int], Link] = {}
        self.layout: Layout | None = None
        self.tree: Tree | None = None

    def take_root(self, raw: bytes) -> Layout:
        """The first node; says how large the blob is. Raises `PeerFault`: a wrong one, or a blob beyond the bound."""
        _check_hash(raw, self._root)
        links = read_node(raw)
        whole = link_of(raw, links)
        layout = Layout(whole.file_bytes)
        if not layout.is_tree or layout.file_bytes > self._bytes_max:
            raise PeerFault("blob: size")
        self.layout = layout
        self.wanted[layout.height, 0] = whole
        self.take(layout.height, 0, raw)
        return layout

    def take(self, level: int, index: int, raw: bytes) -> None:
        """A wanted node. Raises `PeerFault` when it is not the one, or not of the one shape."""
        assert self.layout is not None
        layout, said = self.layout, self.wanted[level, index]
        _check_hash(raw, said.cid)
        links = read_node(raw)
        below = layout.children(level, index)
        prefix = BLOB_PREFIX if level == 1 else TREE_PREFIX
        shape = [layout.size(level - 1, each) for each in below]
        if [link.file_bytes for link in links] != shape or link_of(raw, links) != said:
            raise PeerFault("blob: shape")
        if not all(link.cid.startswith(prefix) for link in links):
            raise PeerFault("blob: link")
        if level == 1 and [link.tree_bytes for link in links] != shape:
            raise PeerFault("blob: link")
        del self.wanted[level, index]
        self._nodes[level, index] = raw
        if level == 1:
            self._digests[index] = b"".join(link.cid[len(prefix) :] for link in links)
        else:
            self.wanted.update(zip(((level - 1, each) for each in below), links, strict=True))
        if not self.wanted:
            self._finish(layout)

    def _finish(self, layout: Layout) -> None:
        nodes = tuple(self._nodes[place] for place in layout.places())
        digests = b"".join(self._digests[index] for index in range(layout.count(1)))
        self.tree = Tree(self._root, layout.file_bytes, digests, nodes)


def single_leaf(root: Cid, file_bytes: int) -> Tree:
    """The tree of a blob that is one leaf: its root is the leaf's CID."""
    return Tree(root, file_bytes, root[len(BLOB_PREFIX) :], ())


def read_tree(root: Cid, nodes: Sequence[bytes]) -> Tree:
    """A tree of its nodes, root first, then level by level, as `Tree.nodes` has them. Raises `PeerFault`."""
    reader = TreeReader(root)
    if not nodes:
        raise PeerFault("blob: no nodes")
    layout = reader.take_root(nodes[0])
    places = layout.places()
    if len(places) != len(nodes):
        raise PeerFault("blob: number of nodes")
    for (level, index), raw in zip(places[1:], nodes[1:], strict=True):
        reader.take(level, index, raw)
    assert reader.tree is not None
    return reader.tree


def tree_of(read: Callable[[int], bytes]) -> Tree:
    """The tree of everything that `read(count)` returns until it returns nothing; short reads are put together."""
    builder = TreeBuilder()
    leaf = bytearray()
    while chunk := read(LEAF_BYTES - len(leaf)):
        leaf += chunk
        if len(leaf) == LEAF_BYTES:
            builder.add(leaf)
            leaf = bytearray()
    if leaf:
        builder.add(leaf)
    return builder.finish()


def root_of(content: bytes | memoryview) -> Cid:
    """The root of these bytes."""
    view = memoryview(content)
    builder = TreeBuilder()
    for start in range(0, len(view), LEAF_BYTES):
        builder.add(view[start : start + LEAF_BYTES])
    return builder.finish().root


def _check_hash(raw: bytes, cid: Cid) -> None:
    if len(raw) > NODE_BYTES_MAX or TREE_PREFIX + hashlib.sha256(raw).digest() != cid:
        raise WrongHash("blob: wrong node")


def link_of(raw: bytes, links: Sequence[Link]) -> Link:
    """How the node above names the node `raw` with these links."""
    size = sum(link.file_bytes for link in links)
    return Link(
        Cid(TREE_PREFIX + hashlib.sha256(raw).digest()), size, len(raw) + sum(link.tree_bytes for link in links)
    )


def encode_node(links: Sequence[Link]) -> bytes:
    """A dag-pb node: the links (Hash, empty Name, Tsize), then UnixFS data (type, file size, each child's size)."""
    out = bytearray()
    for link in links:
        body = b"\x0a\x24" + link.cid + b"\x12\x00\x18" + varint(link.tree_bytes)
        out += b"\x12" + varint(len(body)) + body
    size = sum(link.file_bytes for link in links)
    inner = _FILE + varint(size) + b"".join(b"\x20" + varint(link.file_bytes) for link in links)
    return bytes(out + b"\x0a" + varint(len(inner)) + inner)


def read_node(raw: bytes) -> list[Link]:
    """The links of a node of at most `NODE_BYTES_MAX` bytes. Raises `PeerFault` for all that we would not write."""
    cursor = _Cursor(raw)
    named: list[tuple[Cid, int]] = []
    while cursor.next_is(0x12):
        end = cursor.length()
        cursor.literal(b"\x0a\x24")
        cid = cursor.take(CID_BYTES)
        cursor.literal(b"\x12\x00\x18")
        named.append((Cid(cid), cursor.varint()))
        cursor.at_end(end)
        if len(named) > LINKS_MAX:
            raise PeerFault("unixfs: too many links")
    cursor.literal(b"\x0a")
    if cursor.length() != len(raw):
        raise PeerFault("unixfs: length")
    cursor.literal(_FILE)
    size = cursor.varint()
    sizes: list[int] = []
    while cursor.next_is(0x20):
        sizes.append(cursor.varint())
    cursor.at_end(len(raw))
    if not named or len(sizes) != len(named) or sum(sizes) != size or size > LIMITS.store.blob_bytes_max:
        raise PeerFault("unixfs: sizes")
    links = [Link(cid, part, tree) for (cid, tree), part in zip(named, sizes, strict=True)]
    if encode_node(links) != raw:
        raise PeerFault("unixfs: not canonical")
    return links


class _Cursor:
    """Reads one node from left to right."""

    __slots__ = ("_at", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def next_is(self, tag: int) -> bool:
        """Whether this byte is next; if so it is passed."""
        if self._at < len(self._raw) and self._raw[self._at] == tag:
            self._at += 1
            return True
        return False

    def take(self, count: int) -> bytes:
        found = self._raw[self._at : self._at + count]
        if len(found) != count:
            raise PeerFault("unixfs: cut off")
        self._at += count
        return found

    def literal(self, expected: bytes) -> None:
        if self.take(len(expected)) != expected:
            raise PeerFault("unixfs: form")

    def varint(self) -> int:
        number = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise PeerFault("unixfs: number")

    def length(self) -> int:
        """Reads a length; returns where what it measures ends."""
        return self.varint() + self._at

    def at_end(self, end: int) -> None:
        if self._at != end:
            raise PeerFault("unixfs: length")
