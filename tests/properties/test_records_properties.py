"""Properties of cmp/1 and tensors/1 that must hold for every value and every byte string."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.records.codec import decode, encode
from dimnode.records.receipt import parse_receipt
from dimnode.records.tensors import ITEM_BYTES, Tensor, decode_tensors, encode_tensors, tensor_places

QUICK = settings(max_examples=40, deadline=None, print_blob=True)
KEYS = st.text("abcxyz019_", min_size=1, max_size=24)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.binary(max_size=40)
)


def nested(depth: int) -> st.SearchStrategy[Any]:
    """Values of at most this depth."""
    if depth == 0:
        return SCALARS
    inner = nested(depth - 1)
    return SCALARS | st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)


VALUES = st.dictionaries(KEYS, nested(3), max_size=6)


@st.composite
def tensor_sets(draw: st.DrawFn) -> list[Tensor]:
    """Between one and four tensors with different names."""
    names = draw(st.lists(st.text("abcé", min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
    found = []
    for name in names:
        dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        size = ITEM_BYTES[dtype]
        for length in shape:
            size *= length
        found.append(Tensor(name, dtype, shape, draw(st.binary(min_size=size, max_size=size))))
    return found


def spoil(draw: st.DrawFn, good: bytes) -> bytes:
    """Other bytes than these: one byte changed, put in or taken out."""
    place = draw(st.integers(0, len(good) - 1))
    match draw(st.integers(0, 2)):
        case 0:
            return good[:place] + bytes([good[place] ^ draw(st.integers(1, 255))]) + good[place + 1 :]
        case 1:
            return good[:place] + draw(st.binary(min_size=1, max_size=1)) + good[place:]
        case _:
            return good[:place] + good[place + 1 :]


@st.composite
def spoiled_payloads(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A good payload and other bytes close to it."""
    good = encode(draw(VALUES))
    return good, spoil(draw, good)


@st.composite
def spoiled_blobs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Good tensors and other bytes close to them."""
    good = encode_tensors(draw(tensor_sets()))
    return good, spoil(draw, good)


@QUICK
@given(value=VALUES)
def test_what_is_encoded_is_read_back_the_same(value: dict[str, Any]) -> None:
    assert decode(encode(value)) == value


@QUICK
@given(value=VALUES, order=st.randoms(use_true_random=False))
def test_the_order_of_keys_in_memory_does_not_matter(value: dict[str, Any], order: Any) -> None:
    keys = list(value)
    order.shuffle(keys)
    assert encode({key: value[key] for key in keys}) == encode(value)


@QUICK
@given(pair=spoiled_payloads())
def test_other_bytes_are_refused_or_mean_something_else(pair: tuple[bytes, bytes]) -> None:
    """So every accepted byte string has exactly one encoding."""
    good, other = pair
    try:
        value = decode(other)
    except PeerFault:
        return
    assert encode(value) == other
    # 1 == True in Python, so values are compared by their encoding.
    assert other == good or encode(value) != encode(decode(good))


@QUICK
@given(payload=st.binary(max_size=64) | st.binary(max_size=30).map(lambda tail: b"\x81\xa1a" + tail))
def test_arbitrary_bytes_are_refused_or_are_their_own_encoding(payload: bytes) -> None:
    try:
        value = decode(payload)
    except PeerFault:
        return
    assert encode(value) == payload


@QUICK
@given(tensors=tensor_sets(), order=st.randoms(use_true_random=False))
def test_tensors_are_read_back_the_same_in_any_order(tensors: list[Tensor], order: Any) -> None:
    blob = encode_tensors(tensors)
    order.shuffle(tensors)
    assert encode_tensors(tensors) == blob
    assert sorted(decode_tensors(blob), key=lambda t: t.name) == sorted(tensors, key=lambda t: t.name)


@QUICK
@given(pair=spoiled_blobs())
def test_other_tensor_bytes_are_refused_or_mean_other_tensors(pair: tuple[bytes, bytes]) -> None:
    good, other = pair
    try:
        tensors = decode_tensors(other)
    except PeerFault:
        return
    assert encode_tensors(tensors) == other
    assert other == good or tensors != decode_tensors(good)


@QUICK
@given(tail=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_receipt(tail: bytes) -> None:
    for raw in (tail, b"DIMR1\n" + tail):
        try:
            parse_receipt(raw)
        except PeerFault:
            continue
        raise AssertionError("accepted")


@pytest.mark.slow
@settings(QUICK, max_examples=150)
@given(pair=spoiled_blobs(), junk=st.binary(max_size=40))
def test_the_places_of_tensors_are_found_exactly_where_decoding_succeeds(
    pair: tuple[bytes, bytes], junk: bytes
) -> None:
    for blob in (*pair, junk, b"\x91\x94" + junk):
        try:
            decoded = decode_tensors(blob)
        except PeerFault:
            decoded = ()
        try:
            places = tensor_places(memoryview(blob))
        except PeerFault:
            places = []
        assert [Tensor(name, dtype, shape, blob[a:b]) for name, dtype, shape, a, b in places] == list(decoded)


def test_a_name_of_the_longest_headers_is_found() -> None:
    for name in ("a" * 31, "a" * 32, "a" * 128, "\u00e9" * 127, "\u00e9" * 128):
        blob = encode_tensors([Tensor(name, "int8", (70_000,), bytes(70_000)), Tensor("b", "bool", (), b"\x01")])
        found = [(place[0], place[2]) for place in tensor_places(blob)]
        assert found == [(tensor.name, tensor.shape) for tensor in decode_tensors(blob)]
