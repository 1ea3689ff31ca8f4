"""cmp/1: the one canonical msgpack encoding of a record's payload.

Rule: every accepted byte string has exactly one encoding. Decoding checks limits, types, key order and depth, then
encodes again and compares, so two spellings of one value cannot both pass.
Types: nil, bool, int (-2^63 … 2^64-1), str, bin, array, map. No float, extension or timestamp: decimals are integers
with their unit in the key. Pure: no I/O, no clock. Specification: docs/receipt.md.
"""

import re
from typing import Any

import msgpack

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS

_BYTES_MAX = LIMITS.records.record_bytes_max
_DEPTH_MAX = LIMITS.records.record_depth_max
_ITEMS_MAX = LIMITS.records.record_items_max
_LIST_MAX = LIMITS.records.list_entries_max
_KEY = re.compile(r"[a-z0-9_]{1,24}")
_SCALARS = frozenset({type(None), bool, int, str, bytes})
_known_keys: set[str] = set()
# One for all threads: packing what `check_value` or a schema has seen runs no Python code and so keeps the GIL.
_pack = msgpack.Packer().pack


def encode(value: dict[str, Any]) -> bytes:
    """The one encoding of a payload. Keys are sorted here; tuples count as lists. Raises `PeerFault` outside cmp/1."""
    ordered: dict[str, Any] = in_order(value)
    check_value(ordered)
    return pack_ordered(ordered)


def pack_ordered(ordered: dict[str, Any]) -> bytes:
    """`encode` for what came from `in_order` and fits a schema: types, keys and depth are known to be within cmp/1."""
    try:
        packed: bytes = _pack(ordered)
    except (OverflowError, ValueError) as error:  # an int outside 64 bits, a lone surrogate
        raise PeerFault(f"cmp/1: {type(error).__name__}") from None
    if len(packed) > _BYTES_MAX:
        raise PeerFault("cmp/1: too long")
    return packed


def in_order(value: Any) -> Any:
    """The same value with the keys of every map in their order, and lists for tuples.

    Raises `PeerFault` for keys that have no order, and for more maps and lists in each other than can be gone through.
    """
    try:
        return _in_order(value)
    except TypeError:
        raise PeerFault("cmp/1: key") from None
    except RecursionError:
        raise PeerFault("cmp/1: too deep") from None


def _in_order(value: Any) -> Any:
    kind = type(value)
    if kind is dict:  # most of what is in it is plain: a call for each would cost more than the rest
        return {key: it if type(it := value[key]) in _SCALARS else _in_order(it) for key in sorted(value)}
    if kind is list or kind is tuple:
        return [it if type(it) in _SCALARS else _in_order(it) for it in value]
    return value


def decode(payload: bytes, *, shaped: bool = False) -> dict[str, Any]:
    """The payload's map. Raises `PeerFault` for anything but its one encoding; the rule names what is wrong.

    `shaped`: the caller checks a schema next. A schema knows the keys, their order and the type of every field, and it
    ends above the deepest level; so what it accepts is within cmp/1, but for `x_` fields, which may hold anything, and
    for the number of items, of which each takes at least a byte.
    """
    if len(payload) > _BYTES_MAX:
        raise PeerFault("cmp/1: too long")
    try:
        value = msgpack.unpackb(payload, max_array_len=_LIST_MAX, max_map_len=_LIST_MAX, max_ext_len=0)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PeerFault(f"cmp/1: {type(error).__name__}") from None
    if type(value) is not dict:
        raise PeerFault("cmp/1: not a map")
    if not shaped or len(payload) > _ITEMS_MAX or b"x_" in payload:
        check_value(value)
    if _pack(value) != payload:
        raise PeerFault("cmp/1: not canonical")
    return value


def check_value(root: dict[str, Any]) -> None:
    """Types, keys, depth and number of items, level by level and without recursion: a stranger chose the depth."""
    items = 0
    level: list[Any] = [root]
    for _ in range(_DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            items += len(value)
            if items > _ITEMS_MAX or len(value) > _LIST_MAX:
                raise PeerFault("cmp/1: too many items")
            if type(value) is dict:
                _check_keys(value)
            for child in value.values() if type(value) is dict else value:
                kind = type(child)
                if kind not in _SCALARS:
                    if kind is not list and kind is not dict:
                        raise PeerFault(f"cmp/1: type {kind.__name__}")
                    below.append(child)
        if not below:
            return
        level = below
    raise PeerFault("cmp/1: too deep")


def _check_keys(value: dict[str, Any]) -> None:
    if not _known_keys.issuperset(value):
        for key in value:
            if type(key) is not str or not _KEY.fullmatch(key):
                raise PeerFault("cmp/1: key")
        if len(_known_keys) < _ITEMS_MAX:  # a bounded memory of spellings already matched
            _known_keys.update(value)
    # Keys match [a-z0-9_], so comparing text equals comparing bytes. A key that comes twice does not encode again.
    keys = list(value)
    if keys != sorted(keys):
        raise PeerFault("cmp/1: order of keys")
