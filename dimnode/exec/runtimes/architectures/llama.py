"""A decoder of Llama's shape: token ids in, logits out. Llama, Mistral, Qwen 2 and SmolLM are such.

Rule: the base of the rotary positions is never guessed. transformers 5 writes it into `rope_parameters`, others to the
top; a reader that knows one spelling and takes a default for the other computes wrong numbers without a word.
Source: Touvron et al. 2023; Su et al. 2021 (rotary positions, half-split as in transformers); Ainslie et al. 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.runtimes.architectures.ops import Architecture, Need, Ops, T
from dimnode.exec.runtimes.architectures.tokens import check_tokens
from dimnode.exec.runtimes.config_file import Config, number, whole
from dimnode.limits import LIMITS


@dataclass(frozen=True, slots=True)
class Llama(Architecture):
    """Input `input_ids` int64 [n, tokens]; output `logits` float32 [n, tokens, words] or `next_logits` [n, words]."""

    hidden: int
    inner: int
    heads: int
    key_heads: int
    size: int
    layers: int
    positions: int
    words: int
    epsilon: float
    theta: float
    tied: bool
    biased: bool
    last_only: bool

    @staticmethod
    def of(config: Config, last_only: bool) -> "Llama":
        """Raises `RunFailed` for sizes that make no sense, and for variants that compute something else."""
        windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
        if windowed or config.get("hidden_act", "silu") != "silu":
            raise RunFailed(orders.BAD_CONFIG, "another activation, or a sliding window: that decoder is not known")
        heads = whole(config, "num_attention_heads", 256)
        found = Llama(
            hidden=whole(config, "hidden_size", 16_384),
            inner=whole(config, "intermediate_size", 65_536),
            heads=heads,
            key_heads=whole(config, "num_key_value_heads", 256, heads),
            size=whole(config, "head_dim", 1024, int(config.get("hidden_size", 0)) // heads),
            layers=whole(config, "num_hidden_layers", LIMITS.exec.model_layers_max),
            positions=whole(config, "max_position_embeddings", 1_000_000),
            words=whole(config, "vocab_size", 1_000_000),
            epsilon=number(config, "rms_norm_eps", 0.0, 1.0),
            theta=rope_base(config),
            tied=config.get("tie_word_embeddings", False) is True,
            biased=config.get("attention_bias", config.get("model_type") == "qwen2") is True,
            last_only=last_only,
        )
        if found.heads % found.key_heads or found.size % 2:
            raise RunFailed(orders.BAD_CONFIG, "the numbers of heads do not fit each other, or a head is of odd size")
        return found

    @property
    def inputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """Free batch and length."""
        return (Declared("input_ids", "int64", (None, None)),)

    @property
    def outputs(self) -> tuple[Declared, ...]:  # type: ignore[override]
        """All logits, or those of the token to come."""
        if self.last_only:
            return (Declared("next_logits", "float32", (None, self.words)),)
        return (Declared("logits", "float32", (None, None, self.words)),)

    def needs(self) -> Mapping[str, Need]:
        """See `Architecture.needs`."""
        found = {"model.embed_tokens.weight": Need((self.words, self.hidden), "matrix" if self.tied else "plain")}
        found["model.norm.weight"] = Need((self.hidden,))
        if not self.tied:
            found["lm_head.weight"] = Need((self.words, self.hidden), "matrix")
        queries, keys = self.heads * self.size, self.key_heads * self.size
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found[f"{name}.{norm}.weight"] = Need((self.hidden,))
            attention = {"q_proj": (queries, self.hidden), "k_proj": (keys, self.hidden), "v_proj": (keys, self.hidden)}
            for part, shape in attention.items():
                found[f"{name}.self_attn.{part}.weight"] = Need(shape, "matrix")
                if self.biased:
                    found[f"{name}.self_attn.{part}.bias"] = Need(shape[:1])
            found[f"{name}.self_attn.o_proj.weight"] = Need((self.hidden, queries), "matrix")
            for part in ("gate_proj", "up_proj"):
                found[f"{name}.mlp.{part}.weight"] = Need((self.inner, self.hidden), "matrix")
            found[f"{name}.mlp.down_proj.weight"] = Need((self.hidden, self.inner), "matrix")
        return found

    def check(self, arrays: Mapping[str, Array]) -> None:
        """See `Architecture.check`."""
        check_tokens(arrays["input_ids"], self.words, self.positions)

    def forward(self, ops: Ops, inputs: Mapping[str, T]) -> dict[str, T]:
        """See `Architecture.forward`."""
        ids = inputs["input_ids"]
        _, tokens = ops.shape(ids)
        hidden = ops.embedding(ids, "model.embed_tokens")
        turns = self._turns(ops, tokens)
        later = ops.to_own(ops.constant(np.triu(np.full((tokens, tokens), -1e9, np.float32), 1)))
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            normed = ops.rms_norm(hidden, f"{name}.input_layernorm", self.epsilon)
            hidden = hidden + self._attention(ops, f"{name}.self_attn", normed, turns, later)
            normed = ops.rms_norm(hidden, f"{name}.post_attention_layernorm", self.epsilon)
            gate = ops.activation(ops.linear(normed, f"{name}.mlp.gate_proj"), "silu")
            hidden = hidden + ops.linear(gate * ops.linear(normed, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj")
        if self.last_only:
            hidden = hidden[:, -1]
        hidden = ops.rms_norm(hidden, "model.norm", self.epsilon)
        logits = ops.to_float(ops.linear(hidden, "model.embed_tokens" if self.tied else "lm_head"))
        return {"next_logits" if self.last_only else "logits": logits}

    def _attention(self, ops: Ops, name: str, x: T, turns: tuple[T, T], later: T) -> T:
        batch, tokens, _ = ops.shape(x)
        group = self.heads // self.key_heads

        def by_head(part: str, heads: int) -> T:
            found = ops.reshape(ops.linear(x, f"{name}.{part}"), (batch, tokens, heads, self.size))
            return ops.permute(found, (0, 2, 1, 3))

        queries = ops.reshape(
            self._turned(ops, by_head("q_proj", self.heads), turns), (batch, self.key_heads, group, tokens, self.size)
        )
        keys = self._turned(ops, by_head("k_proj", self.key_heads), turns)[:, :, None]
        values = by_head("v_proj", self.key_heads)[:, :, None]
        scores = ops.matmul(queries, ops.permute(keys, (0, 1, 2, 4, 3))) * self.size**-0.5
        mixed = ops.reshape(ops.matmul(ops.softmax(scores + later), values), (batch, self.heads, tokens, self.size))
        mixed = ops.reshape(ops.permute(mixed, (0, 2, 1, 3)), (batch, tokens, self.heads * self.size))
        return ops.linear(mixed, f"{name}.o_proj")

    def _turns(self, ops: Ops, tokens: int) -> tuple[T, T]:
        """Cosine and sine [tokens, size] of each position's angles, in the model's dtype."""
        steps = self.theta ** -(np.arange(0, self.size, 2, dtype=np.float32) / np.float32(self.size))
        angles = np.arange(tokens, dtype=np.float32)[:, None] * steps.astype(np.float32)[None, :]
        angles = np.concatenate([angles, angles], axis=1)
        return ops.to_own(ops.constant(np.cos(angles))), ops.to_own(ops.constant(np.sin(angles)))

    def _turned(self, ops: Ops, x: T, turns: tuple[T, T]) -> T:
        half = self.size // 2
        return x * turns[0] + ops.concat([-x[..., half:], x[..., :half]], -1) * turns[1]


def rope_base(config: Config) -> float:
    """The base of the rotary positions from either spelling. Raises `RunFailed`: missing, contradicting, or scaled."""
    inner: Any = config.get("rope_parameters") or {}
    scaling: Any = config.get("rope_scaling") or {}
    if not isinstance(inner, dict) or not isinstance(scaling, dict):
        raise RunFailed(orders.BAD_CONFIG, "rope_parameters and rope_scaling are maps")
    kinds = {str(place.get("rope_type", place.get("type", "default")))[:40] for place in (inner, scaling)}
    if kinds != {"default"} or scaling.keys() - {"rope_type", "type", "rope_theta"}:
        raise RunFailed(orders.BAD_CONFIG, f"rotary positions scaled by {sorted(kinds)} are not known")
    found = {float(number(place, "rope_theta", 1.0, 1e12)) for place in (config, inner) if "rope_theta" in place}
    if len(found) != 1:
        what = "does not say rope_theta" if not found else "says two values of rope_theta"
        raise RunFailed(orders.BAD_CONFIG, f"the config {what}: a guess would give wrong numbers without a word")
    return found.pop()
