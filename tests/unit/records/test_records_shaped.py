"""A payload of a known kind is not walked again: its schema must refuse all that cmp/1 refuses."""

import random
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from test_records_kinds import COMMON, KEY, SMALLEST

from dimnode.errors import PeerFault
from dimnode.records.codec import decode, encode, in_order
from dimnode.records.envelope import seal
from dimnode.records.kinds import open_record

OUTSIDE: list[Any] = [1.5, float("nan"), None, msgpack.ExtType(5, b""), msgpack.Timestamp(1), [[]], {"a": 1}, {}]


def payload_of_kind(kind: str) -> dict[str, Any]:
    """The smallest payload, in order."""
    common = {key: value for key, value in COMMON.items() if kind != "swarm" or key != "net"}
    ordered: dict[str, Any] = in_order({"v": 1, "kind": kind, **common, **SMALLEST[kind]})
    return ordered


def refused(kind: str, value: Any) -> str:
    """The rule by which a signed record with this payload is refused."""
    with pytest.raises(PeerFault) as caught:
        open_record(seal(KEY, kind, msgpack.packb(value)))
    return caught.value.rule


def variants(value: Any) -> Iterator[Any]:
    """The value with each part in turn, maps and lists included, put outside of cmp/1 or of its place."""
    yield from OUTSIDE
    if type(value) is dict:
        if len(value) > 1:
            yield dict(reversed(value.items()))
        for odd in (b"bytes", "Capital", "", "k" * 25, "x_A"):
            yield {**value, odd: 1}
        for key, entry in value.items():
            for other in variants(entry):
                yield {**value, key: other}
    elif type(value) is list:
        for place, entry in enumerate(value):
            for other in variants(entry):
                yield [*value[:place], other, *value[place + 1 :]]


@pytest.mark.parametrize("kind", SMALLEST)
def test_no_part_of_a_known_record_may_be_outside_of_cmp1(kind: str) -> None:
    whole = payload_of_kind(kind)
    open_record(seal(KEY, kind, msgpack.packb(whole)))
    for other in variants(whole):
        if msgpack.packb(other) in _fine(kind, whole):
            continue
        refused(kind, other)


def _fine(kind: str, whole: dict[str, Any]) -> set[bytes]:
    """Variants that are good records again: only an answer may state an empty runtime."""
    return {msgpack.packb({**whole, "runtime": {}})} if kind == "answer" else set()


def test_a_key_that_comes_twice_is_refused() -> None:
    packed = msgpack.packb(payload_of_kind("lease"))
    twice = bytes([packed[0] + 1]) + packed[1:] + b"\xa1v\x01"
    with pytest.raises(PeerFault, match="not canonical"):
        open_record(seal(KEY, "lease", twice))


@pytest.mark.parametrize("held", [1.5, msgpack.ExtType(5, b""), {"b": 1, "a": 1}, {"A": 1}], ids=repr)
def test_an_experimental_field_holds_nothing_that_is_outside_of_cmp1(held: Any) -> None:
    assert refused("lease", {**payload_of_kind("lease"), "x_new": held}).startswith("cmp/1")


def test_an_experimental_field_is_no_way_around_the_bound_on_depth() -> None:
    deep: Any = 1
    for _ in range(7):
        deep = [deep]
    payload = payload_of_kind("lease")
    assert open_record(seal(KEY, "lease", encode({**payload, "x_new": deep})))
    assert refused("lease", {**payload, "x_new": [deep]}) == "cmp/1: too deep"


def test_a_known_record_may_not_have_too_many_items() -> None:
    row = {"columns": [""] * 256, "label": "", "name": "c", "operations": []}
    payload = {**payload_of_kind("advert"), "cabinets": [row] * 64}
    assert refused("advert", payload) == "cmp/1: too many items"


@pytest.mark.parametrize("kind", SMALLEST)
def test_what_a_schema_accepts_the_codec_accepts(kind: str) -> None:
    """The same bytes with one byte changed, taken out or put in: 120 seeded tries for each kind."""
    rng = random.Random(kind)
    good = msgpack.packb(payload_of_kind(kind))
    for _ in range(120):
        place = rng.randrange(len(good))
        middle = rng.choice([b"", rng.randbytes(1), good[place : place + 1] + rng.randbytes(1)])
        other = good[:place] + middle + good[place + 1 :]
        try:
            open_record(seal(KEY, kind, other))
        except PeerFault:
            continue
        decode(other)
