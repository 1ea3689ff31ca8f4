"""A config.json as transformers writes it: which class it names, what goes in and out, and which of its keys count.

Rule: a class of the list below or none; a key that is neither one of its class nor known to change no number is
refused. Nothing here needs transformers: whoever adds a model to a node finds out what it takes by the same code.
Pure: no I/O, no clock. Source: huggingface.co/docs/transformers, 5.23.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.architectures.llama import rope_base
from dimnode.exec.runtimes.config_file import Config, whole
from dimnode.limits import LIMITS

Port = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Family:
    """What the classes of one `model_type` have in common.

    `behind_padding`: a token's place is counted from behind `pad_token_id`, so that the places before have no token.
    `types`: whether `token_type_ids` may be given. `fixed`: keys that have to have this value where they stand.
    """

    takes: Literal["tokens", "picture"] = "tokens"
    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    behind_padding: bool = False
    types: bool = False
    decodes: bool = False
    fixed: tuple[tuple[str, Any], ...] = ()


_ENCODER: Final = (("position_embedding_type", "absolute"), ("is_decoder", False), ("add_cross_attention", False))
FAMILIES: Final[Mapping[str, Family]] = {
    "bert": Family(types=True, fixed=_ENCODER),
    "roberta": Family(behind_padding=True, fixed=_ENCODER),
    "xlm-roberta": Family(behind_padding=True, fixed=_ENCODER),
    "distilbert": Family(hidden="dim", layers="n_layers"),
    "vit": Family(takes="picture"),
    "llama": Family(decodes=True, fixed=(("rope_interleaved", False),)),
    "mistral": Family(decodes=True),
    "qwen2": Family(decodes=True),
}
_PREFIXES: Final = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "vit": "ViT",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
}
_TASKS: Final = {
    "tokens": ("Model", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM"),
    "picture": ("Model", "ForImageClassification"),
    "decoder": ("ForCausalLM",),
}


def _tasks_of(family: Family) -> tuple[str, ...]:
    return _TASKS["decoder" if family.decodes else family.takes]


CLASSES: Final[Mapping[str, str]] = {
    _PREFIXES[kind] + task: kind for kind, family in FAMILIES.items() for task in _tasks_of(family)
}
"""Every class that runs, with its `model_type`."""
# What other versions and other tools write, and what changes no number of a forward pass.
_NOTES: Final = frozenset(
    {
        *("architectures", "model_type", "transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache"),
        *("gradient_checkpointing", "finetuning_task", "problem_type", "output_past", "tie_weights_", "label2id"),
        *("transformers.js_config", "is_llama_config", "pretraining_tp", "initializer_range", "initializer_factor"),
        *("return_dict", "output_hidden_states", "output_attentions", "unk_token_id", "sep_token_id", "cls_token_id"),
        *("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_type"),
        *("pooler_size_per_head", "task_specific_params", "position_embedding_type", "rope_interleaved"),
    }
)
_ROPE: Final = ("rope_theta", "rope_parameters", "rope_scaling")
_CLASSES_MAX: Final = 2**16
_NUMBER_MAX: Final = 2**24
"""Of a size; what a config describes is compared with the file's tensors besides."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A config that was looked at: the class, and what its arithmetic depends on."""

    name: str
    family: Family
    config: Config

    def size(self, key: str) -> int:
        """One of its sizes. Raises `RunFailed`."""
        return whole(self.config, key, _NUMBER_MAX)

    @property
    def positions(self) -> int:
        """How many tokens it takes at most."""
        first = whole(self.config, "pad_token_id", _NUMBER_MAX, 1) + 1 if self.family.behind_padding else 0
        return max(0, self.size("max_position_embeddings") - first)

    def inputs(self, wanted: Collection[str] = ()) -> tuple[Port, ...]:
        """What it takes; `token_type_ids` only where a manifest declares it (`wanted`)."""
        if self.family.takes == "picture":
            side = self.size("image_size")
            return (("pixel_values", "float32", (-1, whole(self.config, "num_channels", 1024, 3), side, side)),)
        names = ["input_ids"] if self.family.decodes else ["input_ids", "attention_mask"]
        if self.family.types and "token_type_ids" in wanted:
            names.append("token_type_ids")
        return tuple((name, "int64", (-1, -1)) for name in names)

    def output(self, wanted: Collection[str] = ()) -> Port:
        """What it gives: of a decoder all logits, or `next_logits` where a manifest declares that."""
        if self.name.endswith("Model"):
            return "last_hidden_state", "float32", (-1, -1, self.size(self.family.hidden))
        if self.name.endswith("MaskedLM"):
            return "logits", "float32", (-1, -1, self.size("vocab_size"))
        if self.name.endswith("CausalLM"):
            words = self.size("vocab_size")
            return ("next_logits", "float32", (-1, words)) if "next_logits" in wanted else _all_logits(words)
        if self.name.endswith("TokenClassification"):
            return _all_logits(self.classes)
        return "logits", "float32", (-1, self.classes)

    @property
    def classes(self) -> int:
        """How many it tells apart; transformers' default is two."""
        named = self.config.get("id2label")
        return len(named) if isinstance(named, dict) and named else whole(self.config, "num_labels", _CLASSES_MAX, 2)

    def labels(self) -> tuple[str, ...]:
        """Their names in order, where the config has any of its own."""
        named = self.config.get("id2label")
        if not isinstance(named, dict) or "logits" not in self.output() or "LM" in self.name:
            return ()
        found = tuple(str(named.get(str(place), "")) for place in range(len(named)))
        return found if all(found) else ()


def _all_logits(width: int) -> Port:
    return "logits", "float32", (-1, -1, width)


def pretrained_of(config: Config) -> Pretrained:
    """Raises `RunFailed` for a class that is not of the list, and for a config that is not of its class."""
    named = config.get("architectures")
    if type(named) is not list or len(named) != 1 or type(named[0]) is not str or named[0] not in CLASSES:
        said = str(named)[:80] if named else "no class"
        raise RunFailed(
            orders.NO_ARCHITECTURE,
            f"the config's architectures say {said}; what runs is one of {', '.join(sorted(CLASSES))}",
        )
    kind = CLASSES[named[0]]
    if config.get("model_type") != kind:
        said = str(config.get("model_type"))[:40]
        raise RunFailed(orders.BAD_CONFIG, f"the config is of a {said!r}, and {named[0]} is a {kind}")
    found = Pretrained(named[0], FAMILIES[kind], config)
    _check_values(found)
    return found


def known_keys(found: Pretrained, of_class: Collection[str]) -> dict[str, Any]:
    """What the class is made from. Raises `RunFailed` for a key that neither it nor anybody here knows."""
    kept: dict[str, Any] = {}
    for key, value in found.config.items():
        if key in _NOTES:
            continue
        if key in of_class or key == "num_labels":
            kept[key] = value
        elif key not in _ROPE and value not in (None, False, "", {}, []):
            what = f"the config's {key[:60]!r} is nothing that {found.name} has; what it would change is not known"
            raise RunFailed(orders.BAD_CONFIG, what)
    if found.family.decodes:  # in one spelling: its default would be a guess
        kept["rope_parameters"] = {"rope_type": "default", "rope_theta": rope_base(found.config)}
    return kept


def _check_values(found: Pretrained) -> None:
    config, family = found.config, found.family
    _ = found.classes
    whole(config, family.layers, LIMITS.exec.model_layers_max)
    for key, must in family.fixed:
        if config.get(key, must) != must:
            raise RunFailed(orders.BAD_CONFIG, f"the config's {key} has to be {must!r} for {found.name}")
    for key, value in config.items():
        if type(value) is int and abs(value) > _NUMBER_MAX and key != "rope_theta":
            raise RunFailed(orders.BAD_CONFIG, f"the config's {key[:60]} is {value}: no model has that")
    if family.decodes:
        rope_base(config)
