"""Things of unequal size in tensors/1: texts, files, and arrays that differ in length from item to item.

Rule: n items are two tensors. `NAME` holds them one behind the other along its first axis, `NAME.sizes` int64[n] how
much of it each takes; sizes add up to the whole. So the same items have exactly one encoding, and a file travels as its
bytes, uint8. Pure: no I/O, no clock, no NumPy.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor

SIZES: Final = ".sizes"
"""What is added to a name."""


def item_tensors(name: str, items: Sequence[bytes]) -> list[Tensor]:
    """Byte strings (a text is its UTF-8) as two tensors."""
    sizes = struct.pack(f"<{len(items)}q", *map(len, items))
    whole = b"".join(items)
    return [
        Tensor(name, "uint8", (len(whole),), whole),
        Tensor(name + SIZES, "int64", (len(items),), sizes),
    ]


def sizes_of(tensor: Tensor, sizes: Tensor) -> tuple[int, ...]:
    """How much of `tensor` each item takes. Raises `PeerFault` unless they add up to it."""
    if sizes.dtype != "int64" or len(sizes.shape) != 1 or not tensor.shape:
        raise PeerFault("items: sizes are int64 in one row")
    if sizes.items > LIMITS.transforms.items_max:
        raise PeerFault(f"items: more than {LIMITS.transforms.items_max}")
    found = struct.unpack(f"<{sizes.items}q", sizes.raw)
    if any(size < 0 for size in found) or sum(found) != tensor.shape[0]:
        raise PeerFault("items: sizes do not add up")
    return found


def byte_items(tensors: Mapping[str, Tensor], name: str) -> tuple[bytes, ...]:
    """The byte strings called `name`. Raises `PeerFault` when they are not there or are no byte strings.

    A uint8 tensor of one axis without sizes is one item: what somebody sends who has one file and no tools.
    """
    whole = tensors.get(name)
    if whole is None or whole.dtype != "uint8" or len(whole.shape) != 1:
        raise PeerFault(f"items: {name[:64]!r} is no uint8 tensor of one axis")
    sizes = tensors.get(name + SIZES)
    if sizes is None:
        return (whole.raw,)
    found, start = [], 0
    for size in sizes_of(whole, sizes):
        found.append(whole.raw[start : start + size])
        start += size
    return tuple(found)
