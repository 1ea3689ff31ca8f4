"""A small model of every class of transformers that runs here, with weights of one constant.

Behind its walls a worker can import nothing, and transformers imports much of itself when a class is first used. So the
zygote uses each once.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from dimnode.exec.mapping import Array
from dimnode.exec.runtimes.base import Content, Files
from dimnode.exec.runtimes.pretrained import CLASSES, pretrained_of
from dimnode.exec.runtimes.pretrained_model import make_empty

_SIZES: Final = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 5,
    "max_position_embeddings": 16,
}
_PICTURE: Final = {"image_size": 4, "patch_size": 2, "num_channels": 3}
_DISTIL: Final = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}


def sample_config(name: str) -> dict[str, Any]:
    """The smallest of its kind."""
    kind = CLASSES[name]
    sizes: dict[str, Any] = dict(_SIZES)
    if kind == "distilbert":
        sizes = {_DISTIL.get(key, key): value for key, value in sizes.items()}
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    if kind == "vit":
        del sizes["vocab_size"], sizes["max_position_embeddings"]
        sizes |= _PICTURE
    if kind in ("llama", "mistral", "qwen2"):
        sizes |= {"num_key_value_heads": 1, "rope_theta": 10_000.0}
    return {"architectures": [name], "model_type": kind, **sizes}


def sample_files(name: str, numbers: Callable[[tuple[int, ...]], Array] = np.ones, **other: Any) -> Files:
    """It as files, with weights from `numbers`, which gets the shape of each; `other` are keys of its config."""
    from safetensors.numpy import save

    config = {**sample_config(name), **other}
    module = make_empty(pretrained_of(config))
    stored = [key for key in module.state_dict() if key not in module.all_tied_weights_keys]
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    weights = save({key: np.asarray(numbers(shapes[key]), np.float32) for key in stored})
    parts = {"config.json": ("config", json.dumps(config).encode()), "model.safetensors": ("weights", weights)}
    return {path: Content(role, memoryview(raw)) for path, (role, raw) in parts.items()}


def sample_inputs(name: str) -> dict[str, Array]:
    """Two tokens, or one picture."""
    found = {}
    for port, dtype, shape in pretrained_of(sample_config(name)).inputs():
        free = (1, 2)
        found[port] = np.ones([free[axis] if size < 0 else size for axis, size in enumerate(shape)], dtype)
    return found
