"""Tokenizers of models that leave the cutting of text to the door."""

import json

import pytest
import trio
import trio.testing
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from dimnode.api.http.text import Texts, require_modest
from dimnode.errors import Refused
from dimnode.records.envelope import Record
from tests.unit.api.http_stage import MANIFEST, ME, MODEL, FakeNode

CROWD = 32


def tokenizer_file() -> bytes:
    made = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    return made.to_str().encode()


TEXT = {"x_text": {"tokenizer": "tokenizer.json", "max_tokens": 8}}
TEXT_MODEL = Record(MODEL.id, "manifest", ME, MANIFEST | TEXT, b"", 2)


class SlowNode(FakeNode):
    """Its peers hand a file out when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.fetches = 0
        self.may_go = trio.Event()
        self.no: Refused | None = None

    async def model_file(self, model: Record, name: str) -> bytes:
        self.fetches += 1
        await self.may_go.wait()
        if self.no is not None:
            raise self.no
        return tokenizer_file()


async def crowd_at(texts: Texts, node: SlowNode) -> list[object]:
    """What each of a crowd gets that asks at once."""
    found: list[object] = []

    async def ask() -> None:
        try:
            found.append(await texts.cut(TEXT_MODEL, ["a b"]))
        except Refused as no:
            found.append(no.complaint.code)

    async with trio.open_nursery() as nursery:
        for _ in range(CROWD):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        node.may_go.set()
    return found


def test_a_crowd_that_asks_for_a_new_model_makes_one_fetch_of_its_tokenizer() -> None:
    async def main() -> None:
        node = SlowNode()
        texts = Texts(node)
        found = await crowd_at(texts, node)
        assert len(found) == CROWD and len({repr(each) for each in found}) == 1
        assert node.fetches == 1
        await texts.cut(TEXT_MODEL, ["b"])
        assert node.fetches == 1

    trio.run(main)


def test_a_fetch_that_fails_is_told_to_everybody_who_waited_and_tried_again_by_who_comes_then() -> None:
    async def main() -> None:
        node = SlowNode()
        node.no = Refused("E-models-01", "no peer has it")
        texts = Texts(node)
        assert await crowd_at(texts, node) == ["E-models-01"] * CROWD
        assert node.fetches == 1
        node.no = None
        await texts.cut(TEXT_MODEL, ["a"])
        assert node.fetches == 2

    trio.run(main)


def test_who_leaves_in_the_middle_of_a_fetch_hands_it_on_to_one_who_waited() -> None:
    async def main() -> None:
        node = SlowNode()
        texts = Texts(node)
        first = trio.CancelScope()

        async def begin() -> None:
            with first:
                await texts.cut(TEXT_MODEL, ["a"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(texts.cut, TEXT_MODEL, ["a"])
            nursery.start_soon(texts.cut, TEXT_MODEL, ["b"])
            await trio.testing.wait_all_tasks_blocked()
            assert node.fetches == 1
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            node.may_go.set()
        assert first.cancelled_caught
        assert node.fetches == 2

    trio.run(main)


PIECE = {"Sequence": {"id": "A", "type_id": 0}}
DOUBLES = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLES] * 40}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "aa"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}] * 2}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLES]}]}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}},
        {"post_processor": {"type": "TemplateProcessing", "single": [PIECE] * 17, "pair": [], "special_tokens": {}}},
        *({"normalizer": odd} for odd in (1, [], {}, "x", {"type": []}, {"type": "Sequence", "normalizers": [None]})),
    ],
    ids=range(12),
)
def test_a_tokenizer_that_makes_more_of_a_text_than_its_words_is_not_used_in_the_nodes_process(part) -> None:
    """Forty doublings of a letter, 3 kB, are a terabyte: the library ends the process when it cannot have it."""
    whole = json.loads(tokenizer_file())
    require_modest(json.dumps(whole).encode())
    with pytest.raises(Refused, match="E-models-04"):
        require_modest(json.dumps(whole | part).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"1", b"\xff", b"[" * 5000])
def test_what_is_no_tokenizer_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused, match="E-models-04"):
        require_modest(raw)
