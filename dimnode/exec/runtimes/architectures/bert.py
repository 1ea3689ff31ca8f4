"""A BERT sentence encoder: tokens in, an embedding of length 1 out.

Rule: the same arithmetic as `models/bert.py` writes into an ONNX graph, from the same tensors.
Source: Devlin et al. 2018; Reimers and Gurevych 2019 (mean pooling); tensor names as transformers' BertModel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.runtimes.architectures.ops import Architecture, Need, Ops, T
from dimnode.exec.runtimes.architectures.tokens import check_tokens
from dimnode.exec.runtimes.config_file import Config, number, whole
from dimnode.limits import LIMITS

_LEAST_LENGTH: Final = 1e-12
_NOT_A_TOKEN: Final = -10_000.0


@dataclass(frozen=True, slots=True)
class Bert(Architecture):
    """Inputs `input_ids`, `attention_mask` int64 [n, tokens]; output `embedding` float32 [n, hidden]."""

    hidden: int
    inner: int
    heads: int
    layers: int
    positions: int
    words: int
    kinds: int
    epsilon: float

    @staticmethod
    def of(config: Config) -> "Bert":
        """Raises `RunFailed` for sizes that make no sense, and for variants that compute something else."""
        said = (config.get("hidden_act", "gelu"), config.get("position_embedding_type", "absolute"))
        if said != ("gelu", "absolute"):
            raise RunFailed(orders.BAD_CONFIG, f"a BERT encoder with {said[0]} and {said[1]} positions is not known")
        found = Bert(
            hidden=whole(config, "hidden_size", 16_384),
            inner=whole(config, "intermediate_size", 65_536),
            heads=whole(config, "num_attention_heads", 256),
            layers=whole(config, "num_hidden_layers", LIMITS.exec.model_layers_max),
            positions=whole(config, "max_position_embeddings", 65_536),
            words=whole(config, "vocab_size", 1_000_000),
            kinds=whole(config, "type_vocab_size", 16),
            epsilon=number(config, "layer_norm_eps", 0.0, 1.0),
        )
        if found.hidden % found.heads:
            raise RunFailed(orders.BAD_CONFIG, "hidden_size is no multiple of num_attention_heads")
        return found

    @property
    def inputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """Free batch and length."""
        return tuple(Declared(name, "int64", (None, None)) for name in ("input_ids", "attention_mask"))

    @property
    def outputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """One embedding each."""
        return (Declared("embedding", "float32", (None, self.hidden)),)

    def needs(self) -> Mapping[str, Need]:
        """See `Architecture.needs`."""
        hidden, found = self.hidden, {}
        for name, rows in (("word", self.words), ("position", self.positions), ("token_type", self.kinds)):
            found[f"embeddings.{name}_embeddings.weight"] = Need((rows, hidden))
        norms = ["embeddings.LayerNorm"]
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            linears = {f"{name}.attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
            linears[f"{name}.attention.output.dense"] = (hidden, hidden)
            linears[f"{name}.intermediate.dense"] = (self.inner, hidden)
            linears[f"{name}.output.dense"] = (hidden, self.inner)
            for linear, shape in linears.items():
                found[f"{linear}.weight"], found[f"{linear}.bias"] = Need(shape, "matrix"), Need(shape[:1])
            norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        return found | {f"{norm}.{part}": Need((hidden,)) for norm in norms for part in ("weight", "bias")}

    def check(self, arrays: Mapping[str, Array]) -> None:
        """See `Architecture.check`."""
        check_tokens(arrays["input_ids"], self.words, self.positions)
        mask = arrays["attention_mask"]
        if mask.shape != arrays["input_ids"].shape or mask.min(initial=0) < 0 or mask.max(initial=0) > 1:
            raise RunFailed(orders.BAD_SHAPE, "attention_mask has to hold a 0 or 1 for each of input_ids")

    def forward(self, ops: Ops, inputs: Mapping[str, T]) -> dict[str, T]:
        """See `Architecture.forward`."""
        ids, real = inputs["input_ids"], ops.to_float(inputs["attention_mask"])
        _, tokens = ops.shape(ids)
        places = ops.weight("embeddings.position_embeddings.weight")[:tokens]
        kind = ops.weight("embeddings.token_type_embeddings.weight")[0]
        hidden = ops.embedding(ids, "embeddings.word_embeddings") + places + kind
        hidden = ops.layer_norm(hidden, "embeddings.LayerNorm", self.epsilon)
        mask = ops.to_own((1.0 - real)[:, None, None, :] * _NOT_A_TOKEN)
        for layer in range(self.layers):
            hidden = self._layer(ops, f"encoder.layer.{layer}", hidden, mask)
        weight = real[:, :, None]
        count = ops.at_least(ops.sum(weight, (1,), keep=False), 1e-9)
        mean = ops.sum(ops.to_float(hidden) * weight, (1,), keep=False) / count
        length = ops.sqrt(ops.sum(mean * mean, (1,), keep=True))
        return {"embedding": mean / ops.at_least(length, _LEAST_LENGTH)}

    def _layer(self, ops: Ops, name: str, hidden: T, mask: T) -> T:
        batch, tokens, _ = ops.shape(hidden)
        size = self.hidden // self.heads

        def by_head(part: str) -> T:
            found = ops.linear(hidden, f"{name}.attention.self.{part}")
            return ops.permute(ops.reshape(found, (batch, tokens, self.heads, size)), (0, 2, 1, 3))

        scores = ops.matmul(by_head("query"), ops.permute(by_head("key"), (0, 1, 3, 2))) * size**-0.5
        mixed = ops.matmul(ops.softmax(scores + mask), by_head("value"))
        mixed = ops.reshape(ops.permute(mixed, (0, 2, 1, 3)), (batch, tokens, self.hidden))
        attended = ops.linear(mixed, f"{name}.attention.output.dense")
        hidden = ops.layer_norm(attended + hidden, f"{name}.attention.output.LayerNorm", self.epsilon)
        inner = ops.activation(ops.linear(hidden, f"{name}.intermediate.dense"), "gelu")
        outer = ops.linear(inner, f"{name}.output.dense")
        return ops.layer_norm(outer + hidden, f"{name}.output.LayerNorm", self.epsilon)
