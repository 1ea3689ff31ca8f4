"""A blob as a CAR stream: every block of its tree with its CID, root first, so that whoever imports it has our root.

Rule: a block leaves only when its bytes have the hash that the tree names; a file that changed is sent to nobody.

Source: CARv1 (ipld.io/specs/transport/car/carv1).
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from dimnode.errors import Refused
from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, Cid, cid_text
from dimnode.records.unixfs import LEAF_BYTES, Tree

_ROOTS: Final = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_VERSION: Final = b"\x67version\x01"
"""With the root between them, DAG-CBOR of {roots: [CID], version: 1}: a CID is bytes under tag 42, after a zero."""


def leaves_of(tree: Tree, file: BinaryIO) -> Iterator[bytes]:
    """The file's leaves in order. Raises `Refused` E-kubo-12 at the first that is not the tree's."""
    for number in range(tree.layout.leaves):
        leaf = file.read(LEAF_BYTES)
        if hashlib.sha256(leaf).digest() != tree.digest(number):
            cause = f"leaf {number} does not have the hash that its root names"
            raise Refused("E-kubo-12", "the content here is damaged", cause, f"dim blobs verify {cid_text(tree.root)}")
        yield leaf


def car_stream(tree: Tree, file: BinaryIO) -> Iterator[bytes]:
    """Header, nodes, leaves; each block as one piece of at most 1 MiB and a few bytes. Raises like `leaves_of`."""
    yield _framed(_ROOTS, tree.root, _VERSION)
    for raw in tree.nodes:
        yield _framed(Cid(TREE_PREFIX + hashlib.sha256(raw).digest()), raw)
    for number, leaf in enumerate(leaves_of(tree, file)):
        yield _framed(Cid(BLOB_PREFIX + tree.digest(number)), leaf)


def _framed(*parts: bytes) -> bytes:
    length, prefix = sum(map(len, parts)), bytearray()
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return b"".join((bytes(prefix), bytes([length]), *parts))
