"""What an advert says of the extras of a node, and what the words of a model need."""

import pytest

from dimnode.exec.runtimes.choice import EXTRAS, extras_installed, extras_of
from dimnode.node.swarm import devices_said, extras_said


@pytest.mark.parametrize("said", [None, 3, "text", ["text", 1], ["x"] * 17, {"text": 1}])
def test_a_peer_that_wrote_no_list_of_words_did_not_say_what_it_has(said: object) -> None:
    assert extras_said({} if said is None else {"x_extras": said}) is None


def test_a_list_of_words_is_what_a_peer_has_also_an_empty_one() -> None:
    assert extras_said({"x_extras": ["text"]}) == ("text",)
    assert extras_said({"x_extras": []}) == ()


def test_words_need_the_extra_that_carries_them_out_and_numbers_need_none() -> None:
    words = {"tokenise": {"text"}, "decode_image": {"image"}, "resize": {"image"}, "decode_audio": {"audio"}}
    for word, extras in words.items():
        assert extras_of([{"op": "input"}, {"op": word}], [{"op": "softmax"}]) == extras
    assert extras_of([{"op": "normalise"}], [{"op": "top_k"}, {"op": "a word of later"}]) == frozenset()


def test_this_installation_has_every_extra() -> None:
    assert extras_installed() == tuple(EXTRAS)


@pytest.mark.parametrize("said", [None, 3, ["onnx", "cpu"], {"onnx": 1}, {1: "cpu"}, {"onnx": "x" * 33}])
def test_a_peer_that_wrote_no_map_of_words_did_not_say_on_what_it_computes(said: object) -> None:
    assert devices_said({} if said is None else {"x_devices": said}) == {}


def test_a_map_of_words_is_on_what_a_peers_runtimes_compute() -> None:
    assert devices_said({"x_devices": {"onnx": "cpu", "torch": "cuda"}}) == {"onnx": "cpu", "torch": "cuda"}
