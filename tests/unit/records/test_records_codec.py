"""cmp/1 beyond the golden vectors: limits that would make the vectors large, and our own mistakes."""

from typing import Any

import pytest

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.codec import decode, encode

BYTES_MAX = LIMITS.records.record_bytes_max


def refused(payload: bytes) -> str:
    """The rule that decoding names."""
    with pytest.raises(PeerFault) as caught:
        decode(payload)
    return caught.value.rule


def test_a_payload_of_exactly_64_kib_is_accepted_and_one_byte_more_is_not() -> None:
    value = {"b": bytes(BYTES_MAX - 6)}
    assert len(encode(value)) == BYTES_MAX
    assert decode(encode(value)) == value
    with pytest.raises(PeerFault):
        encode({"b": bytes(BYTES_MAX - 5)})
    assert refused(encode(value) + b"\0") == "cmp/1: too long"


def test_a_deep_bomb_is_refused_without_recursion() -> None:
    assert refused(b"\x81\xa1a" * 20_000 + b"\xc0").startswith("cmp/1")
    assert refused(b"\x91" * 60_000).startswith("cmp/1")


def test_items_are_counted_over_all_lists() -> None:
    lists = {"a": [[0] * 512] * 7 + [[0] * 503]}
    assert decode(encode(lists)) == lists
    with pytest.raises(PeerFault, match="too many items"):
        encode({"a": [[0] * 512] * 8})


def test_eight_levels_are_accepted_and_nine_are_not() -> None:
    value: dict[str, Any] = {}
    for _ in range(7):
        value = {"a": value}
    assert decode(encode(value)) == value
    with pytest.raises(PeerFault, match="too deep"):
        encode({"a": value})


BOTTOMLESS: list[Any] = []
for _ in range(10_000):
    BOTTOMLESS = [BOTTOMLESS]


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.5},
        {"a": 2**64},
        {"a": -(2**63) - 1},
        {"A": 1},
        {"": 1},
        {"a-b": 1},
        {"ä": 1},
        {"a" * 25: 1},
        {"a\n": 1},
        {"a": {1}},
        {"a": "\ud800"},
        {"a": [0] * 513},
        {"a": bytearray(1)},
        {"a": {"b": 1, b"b": 1}},
        {"a": BOTTOMLESS},
    ],
    ids=range(15),
)
def test_a_value_outside_cmp1_is_not_encoded(value: dict[str, Any]) -> None:
    with pytest.raises(PeerFault):
        encode(value)


def test_keys_are_sorted_on_the_way_out_and_tuples_are_lists() -> None:
    assert encode({"b": (1, 2), "a": {"z": 1, "y": 2}}) == encode({"a": {"y": 2, "z": 1}, "b": [1, 2]})
