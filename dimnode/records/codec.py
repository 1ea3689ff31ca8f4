"""cmp/1: the one canonical msgpack encoding of a record's payload.

Rule: every accepted byte string has exactly one encoding. Decoding checks limits, types, key order and depth in one
walk, then encodes again and compares, so two spellings of one value cannot both pass.
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


def encode(value: dict[str, Any]) -> bytes:
    """The one encoding of a payload. Keys are sorted here; tuples count as lists. Raises `PeerFault` outside cmp/1."""
    ordered = _sorted(value)
    _walk(ordered)
    return _packed(ordered)


def encode_checked(value: dict[str, Any]) -> bytes:
    """`encode` for a payload whose schema was checked: types, keys and lengths are known to be within cmp/1."""
    return _packed(_sorted(value))


def _packed(ordered: dict[str, Any]) -> bytes:
    try:
        packed: bytes = msgpack.packb(ordered)
    except (OverflowError, ValueError) as error:  # an int outside 64 bits, a lone surrogate
        raise PeerFault(f"cmp/1: {type(error).__name__}") from None
    if len(packed) > _BYTES_MAX:
        raise PeerFault("cmp/1: too long")
    return packed


def decode(payload: bytes) -> dict[str, Any]:
    """The payload's map. Raises `PeerFault` for anything but its one encoding; the rule names what is wrong."""
    if len(payload) > _BYTES_MAX:
        raise PeerFault("cmp/1: too long")
    try:
        value = msgpack.unpackb(
            payload,
            max_str_len=_BYTES_MAX,
            max_bin_len=_BYTES_MAX,
            max_array_len=_LIST_MAX,
            max_map_len=_LIST_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PeerFault(f"cmp/1: {type(error).__name__}") from None
    if type(value) is not dict:
        raise PeerFault("cmp/1: not a map")
    _walk(value)
    if msgpack.packb(value) != payload:
        raise PeerFault("cmp/1: not canonical")
    return value


def _sorted(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _sorted(value[key]) for key in sorted(value)}
    if kind is list or kind is tuple:
        return [_sorted(item) for item in value]
    return value


def _walk(root: dict[str, Any]) -> None:
    """Types, key order, depth and number of items, without recursion: a stranger chose the depth."""
    items = 0
    stack: list[tuple[Any, int]] = [(root, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > _DEPTH_MAX:
            raise PeerFault("cmp/1: too deep")
        if type(value) is dict:
            children: Any = value.values()
            _check_keys(value)
        else:
            children = value
        items += len(value)
        if items > _ITEMS_MAX or len(value) > _LIST_MAX:
            raise PeerFault("cmp/1: too many items")
        for child in children:
            kind = type(child)
            if kind is dict or kind is list:
                stack.append((child, depth + 1))
            elif kind not in _SCALARS:
                raise PeerFault(f"cmp/1: type {kind.__name__}")


def _check_keys(value: dict[str, Any]) -> None:
    previous = ""
    for key in value:
        # Keys match [a-z0-9_], so comparing text equals comparing bytes; an equal key would not be greater either.
        if type(key) is not str or key <= previous:
            raise PeerFault("cmp/1: order of keys")
        if key not in _known_keys:
            if not _KEY.fullmatch(key):
                raise PeerFault("cmp/1: key")
            if len(_known_keys) < _ITEMS_MAX:  # a bounded memory of spellings already matched
                _known_keys.add(key)
        previous = key
