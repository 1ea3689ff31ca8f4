"""From a checked config to a module of transformers, and from a file's tensors into it.

Rule: empty first. The class is made without memory for its weights, and only when the file has each of its tensors, in
its shape, and no other, do those become the weights. So nobody pays for sizes that a config merely claims.
"""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.base import Files
from dimnode.exec.runtimes.declared import FAULTS, fault_of
from dimnode.exec.runtimes.pretrained import Pretrained, known_keys
from dimnode.exec.runtimes.torch import COMPUTES_IN, DEVICE, in_int8, opened
from dimnode.exec.runtimes.weights import dtype_of, read_all
from dimnode.exec.runtimes.weights_file import FLOATS, Stored

_COMPUTED: Final = (".position_ids", ".inv_freq")
"""Ends of names that older versions saved and newer ones compute."""
_POOLER: Final = "pooler."


def make_empty(found: Pretrained) -> Any:
    """The class over its config, on torch's `meta` device, without a pooler: no output here needs one.

    Raises `RunFailed` and MemoryError.
    """
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    made = getattr(transformers, found.name)
    keys = known_keys(found, made.config_class().to_dict().keys())
    try:
        with torch.device("meta"):
            return made(made.config_class(**keys), **_without_pooler(made)).eval()
    except (StrictDataclassError, AssertionError, *FAULTS) as error:
        raise fault_of(error, orders.BAD_CONFIG, f"the config is none of {found.name}") from None


def _without_pooler(made: Any) -> dict[str, bool]:
    asks = "add_pooling_layer" in inspect.signature(made.__init__).parameters
    return {"add_pooling_layer": False} if asks else {}


def fill(module: Any, files: Files, wanted_dtype: str) -> str:
    """Give it the file's tensors in the wanted dtype, "" for the file's own; says which. Raises `RunFailed`."""
    import torch

    tensors = _fitting(module, read_all(files))
    dtype = wanted_dtype or dtype_of(tensors.values())
    if dtype not in COMPUTES_IN:
        raise RunFailed(orders.NO_DTYPE, f"dtype {dtype!r}: torch computes in {', '.join(COMPUTES_IN)}")
    target = getattr(torch, COMPUTES_IN[dtype])
    _make_buffers(torch, module)
    module.load_state_dict(
        {name: opened(torch, stored).to(DEVICE.word, target) for name, stored in tensors.items()}, False, True
    )
    module.tie_weights()
    _compute_buffers(torch, module)
    if dtype == "int8":
        _to_int8(torch, module)
    return dtype


def _fitting(module: Any, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors by the names that they have in the module. Raises `RunFailed` naming one that does not fit."""
    needs = dict(module.state_dict())
    found = _renamed(module, stored)
    told, have = (_count(each.values()) for each in (needs, found))
    tied = module.all_tied_weights_keys
    missing = [name for name in needs if name not in found and name not in tied]
    unknown = [name for name in found if name not in needs]
    if missing or unknown:
        what = f"no tensor {missing[0]}" if missing else f"a tensor {unknown[0][:120]} that the class has not"
        raise RunFailed(orders.UNFIT_WEIGHTS, f"the file has {what} ({have} numbers, the config describes {told})")
    for name, tensor in found.items():
        shape = tuple(needs[name].shape)
        if tensor.shape != shape or tensor.dtype not in FLOATS:
            what = f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, the config says floats {list(shape)}"
            raise RunFailed(orders.UNFIT_WEIGHTS, f"{what} ({have} numbers, and {told})")
    return found


def _count(tensors: Iterable[Any]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)


def _renamed(module: Any, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """By transformers' own table of names: what was saved years ago, or as part of a larger or a smaller class."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = [rule for rule in get_model_conversion_mapping(module) if isinstance(rule, WeightRenaming)]
    needs, found = dict(module.state_dict()), {}
    for name, tensor in stored.items():
        if name.endswith(_COMPUTED):
            continue
        now, _ = rename_source_key(name, rules, [], module.base_model_prefix, needs)
        if now.removeprefix(f"{module.base_model_prefix}.").startswith(_POOLER) and now not in needs:
            continue
        if now in found:
            raise RunFailed(orders.BAD_WEIGHTS, f"two tensors of the file are {now[:120]}")
        found[now] = tensor
    return found


def _make_buffers(torch: Any, module: Any) -> None:
    """Room for what is computed and not stored: places of tokens, frequencies."""
    for name, empty in module.named_non_persistent_buffers():
        inside, _, last = name.rpartition(".")
        module.get_submodule(inside).register_buffer(
            last, torch.empty_like(empty, device=DEVICE.word), persistent=False
        )


def _compute_buffers(torch: Any, module: Any) -> None:
    """By transformers' own rules, which leave alone what is marked as loaded."""
    for weight in module.parameters():
        weight._is_hf_initialized = True
        weight.requires_grad_(False)
    module.initialize_weights()
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise RunFailed(orders.UNFIT_WEIGHTS, "a tensor of the class is neither in the file nor computed")


def _to_int8(torch: Any, module: Any) -> None:
    """Matrices of linear layers as rows of whole numbers with a scale each, as `runtimes.torch` has them."""
    for path, layer in list(module.named_modules()):
        if isinstance(layer, torch.nn.Linear) and f"{path}.weight" not in module.all_tied_weights_keys:
            inside, _, name = path.rpartition(".")
            setattr(module.get_submodule(inside), name, _in_rows(torch, layer))


def _in_rows(torch: Any, layer: Any) -> Any:
    class Rows(torch.nn.Module):  # type: ignore[misc]
        """A linear layer in int8, widened for every product."""

        def __init__(self) -> None:
            super().__init__()
            self.whole, self.scales = in_int8(torch, layer.weight)
            self.bias = layer.bias

        def forward(self, x: Any) -> Any:
            wide = torch.nn.functional.linear(x, self.whole.to(x.dtype)) * self.scales[:, 0]
            return wide if self.bias is None else wide + self.bias

    return Rows()
