"""The vocabulary: what a manifest may declare, and which declarations make sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimnode.errors import PeerFault
from dimnode.records.codec import check_value, in_order
from dimnode.records.items import SIZES, byte_items, item_tensors, sizes_of
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors
from dimnode.records.transforms import (
    WORDS,
    Source,
    call_of,
    fault_of,
    files_of,
    kept_of,
    sources_of,
    transform,
    transforms,
    unknown_words,
)

TEXT = {"op": "input", "name": "text", "kind": "text"}
CUT = {"op": "tokenise", "name": "text", "into": "ids", "mask": "mask", "file": "tokenizer.json", "max_tokens": 256}
ROWS = {"op": "input", "name": "x", "kind": "rows", "columns": ["a", "b"]}
PICTURE = {"op": "input", "name": "picture", "kind": "image"}


def fits(*words):
    return transforms(in_order(list(words)))


def test_words_with_their_fields_are_a_list_of_transforms():
    assert fits(TEXT, CUT)
    assert fits(ROWS, {"op": "normalise", "name": "x", "mean_nano": [1, -2], "std_nano": [3, 4]})
    assert not transforms(in_order([TEXT] * 33))


@pytest.mark.parametrize(
    "word",
    [
        {"op": "softmax"},
        {"op": "softmax", "name": "x", "temperature": 1},
        {"op": "softmax", "name": 3},
        {"op": "scale", "name": "x", "multiply": 0.5, "divide": 1},
        {"op": "scale", "name": "x", "multiply": 1, "divide": 0},
        {"op": "tokenise", "name": "t", "into": "i", "file": "f", "max_tokens": 0},
        {"name": "x"},
        {"op": 7},
        "softmax",
    ],
)
def test_a_known_word_with_other_fields_is_refused(word):
    assert not transform(in_order(word) if isinstance(word, dict) else word)


def test_a_word_of_a_later_vocabulary_is_kept_and_named_but_makes_no_sense_here():
    later = in_order({"op": "upscale", "name": "x", "by": 2, "how": [["a", 1], 2]})
    assert transform(later)
    assert unknown_words([TEXT, later], []) == ("upscale",)
    assert "no word of transforms/1" in fault_of([TEXT, later], [], ["x"], [], [])
    assert kept_of([{"op": "softmax", "name": "y"}, {"op": "later"}], ["y"]) == ()
    assert kept_of([{"op": "later"}, {"op": "keep", "names": ["y"]}], []) == ("y",)
    assert files_of([CUT, {"op": "later", "file": [1]}], [{"op": "later", "file": 2}]) == ("tokenizer.json",)
    assert not transform({"op": "upscale", "a": {"b": 1}})
    assert not transform({"op": "upscale", "a": [[[1]]]})
    assert not transform({"op": "upscale", "A": 1})
    assert not transform({"op": "upscale", "a": 1.5})


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=4) | st.binary() | st.floats(),
            st.lists,
            max_leaves=12,
        ),
        max_size=4,
    ),
    st.sampled_from([*sorted(WORDS), "later"]),
)
def test_what_passes_is_within_the_record_format(fields, word):
    value = in_order({**fields, "op": word})
    if transform(value):
        check_value({"pre": [value]})


def test_a_good_pair_of_lists_has_no_fault():
    assert not fault_of([TEXT, CUT], [], ["ids", "mask"], ["embedding"], ["tokenizer.json", "model.onnx"])
    post = [{"op": "softmax", "name": "logits", "into": "probabilities"}, {"op": "keep", "names": ["probabilities"]}]
    assert not fault_of([ROWS], post, ["x"], ["logits"], [])
    assert not fault_of([ROWS], [], [], [], [])
    assert not fault_of([], [], ["x"], ["y"], [])


@pytest.mark.parametrize(
    ("pre", "post", "said"),
    [
        ([TEXT, CUT], [], "no file 'tokenizer.json'"),
        ([{"op": "cast", "name": "x", "dtype": "int64"}], [], "nothing is called 'x'"),
        ([{"op": "constant", "name": "x", "dtype": "int64", "shape": [], "values": [1]}], [], "declares no input"),
        ([ROWS, ROWS], [], "two inputs have one name"),
        ([PICTURE], [], "nothing is made for the model's input 'x'"),
        ([PICTURE, {"op": "cast", "name": "picture", "dtype": "float32", "into": "x"}], [], "is image, not array"),
        ([ROWS, {"op": "softmax", "name": "x"}], [], "wrong side"),
        ([ROWS], [{"op": "decode_image", "name": "x", "colour": "rgb"}], "wrong side"),
        ([ROWS], [{"op": "softmax", "name": "z"}], "nothing is called 'z'"),
        ([ROWS], [{"op": "keep", "names": ["z"]}], "nothing is called 'z'"),
        ([ROWS, {"op": "resize", "name": "x", "filter": "bilinear", "height": 3}], [], "height and width"),
        ([ROWS, {"op": "normalise", "name": "x", "mean_nano": [1], "std_nano": [1, 2]}], [], "differ in length"),
        ([ROWS, {"op": "constant", "name": "c", "dtype": "int64", "shape": [2], "values": [1, 2, 3]}], [], "3 numbers"),
        ([ROWS, {"op": "constant", "name": "c", "dtype": "int64", "shape": [2**30], "values": [1]}], [], "too large"),
        ([ROWS, {"op": "constant", "name": "c", "dtype": "int64", "shape": []}], [], "`values`"),
        ([{"op": "call", "mode": "each"}, ROWS], [], "last word"),
        ([ROWS, {"op": "call", "mode": "scan"}], [], "`over`"),
        ([ROWS, {"op": "call", "mode": "each", "carry": [["x", "y"]]}], [], "`carry`"),
        ([ROWS, {"op": "call", "mode": "scan", "over": ["q"]}], [], "nothing is called 'q'"),
        ([ROWS, {"op": "slice", "name": "x", "axis": 0, "start": 2, "stop": 2}], [], "start"),
        ([ROWS, {"op": "clip", "name": "x", "low_nano": 2, "high_nano": 1}], [], "low is above"),
        ([ROWS, {"op": "transpose", "name": "x", "axes": [0, 0]}], [], "each axis once"),
        ([{**TEXT, "columns": ["a", "b"]}], [], "one column"),
        ([{**PICTURE, "columns": ["a"]}], [], "columns"),
    ],
)
def test_what_makes_no_sense_is_named(pre, post, said):
    assert fits(*pre), "the schema takes it"
    assert fits(*post)
    assert said in fault_of(pre, post, ["x"], ["y"], [])


def test_what_is_declared_can_be_read_off():
    pre = [TEXT, CUT, {"op": "call", "mode": "each"}]
    assert sources_of([ROWS]) == (Source("x", "rows", ("a", "b")),)
    assert files_of(pre, [{"op": "label_text", "name": "l", "into": "t", "file": "l.txt"}]) == (
        "l.txt",
        "tokenizer.json",
    )
    assert call_of(pre)["mode"] == "each"
    assert call_of([TEXT])["mode"] == "stack"
    assert kept_of([{"op": "top_k", "name": "y", "into": "best", "k": 2, "places": "where"}], ["y"]) == (
        "y",
        "best",
        "where",
    )


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_items_come_back_as_they_were(items):
    tensors = {tensor.name: tensor for tensor in decode_tensors(encode_tensors(item_tensors("file", items)))}
    assert byte_items(tensors, "file") == tuple(items)


def test_one_file_needs_no_sizes():
    assert byte_items({"f": Tensor("f", "uint8", (3,), b"abc")}, "f") == (b"abc",)


@pytest.mark.parametrize("sizes", [[1], [4], [-1, 4], [2, 2]])
def test_sizes_add_up_or_the_items_are_refused(sizes):
    whole = Tensor("f", "uint8", (3,), b"abc")
    raw = b"".join(size.to_bytes(8, "little", signed=True) for size in sizes)
    with pytest.raises(PeerFault, match="add up"):
        byte_items({"f": whole, "f" + SIZES: Tensor("f" + SIZES, "int64", (len(sizes),), raw)}, "f")
    with pytest.raises(PeerFault):
        sizes_of(whole, Tensor("f" + SIZES, "int32", (1,), b"\3\0\0\0"))
