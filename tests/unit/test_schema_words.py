"""What msgspec says, as a person would."""

import msgspec
import pytest

from dimnode.api.jobfile import JobFile
from dimnode.config import Config
from dimnode.node.model_card import ModelCard
from dimnode.schema_words import in_words


@pytest.mark.parametrize(
    ("struct", "raw", "words"),
    [
        (JobFile, {"pattern": "chainedd"}, "`pattern` cannot be 'chainedd': chained, collaborative, comparative"),
        (JobFile, {"taks": []}, "there is no key `taks`; did you mean `tasks`?"),
        (JobFile, {"tasks": [{"modl": "x"}]}, "`tasks[0]` has no key `modl`; did you mean `model`?"),
        (JobFile, {"tasks": [{"op": "fly"}]}, "`tasks[0].op` cannot be 'fly': evaluate, infer, statistics"),
        (JobFile, {"tasks": "iris"}, "`tasks` is to be a list, not text"),
        (JobFile, {"quorum": {"n": 3}}, "`quorum` lacks the key `k`"),
        (JobFile, {"quorum": 3}, "`quorum` is to be a map of keys or nothing, not a whole number"),
        (Config, {"workers": "many"}, "`workers` is to be a whole number, not text"),
        (ModelCard, {}, "the key `name` is missing"),
        (ModelCard, {"name": "x", "inputs": [["x"]]}, "`inputs[0]` is wrong: "),
    ],
)
def test_a_mistake_is_told_in_plain_words_with_its_place_and_what_is_allowed(struct, raw, words):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(raw, struct)
    assert in_words(caught.value, struct).startswith(words)
