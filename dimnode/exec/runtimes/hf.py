"""The transformers runtime: classes of that library, by their own config, over safetensors.

Rule: a class of `pretrained.CLASSES`, made empty from a checked config, and given tensors that fit name by name.
Nothing of the library that looks for files, hubs, adapters, kernels or remote code is called: there is no path here
that it could look at. Runs only inside a worker, as torch does, in a zygote of its own.
Source: huggingface.co/docs/transformers, 5.23; pinned, because names of tensors inside a class change between versions.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes import torch as plain
from dimnode.exec.runtimes.architectures.tokens import check_tokens
from dimnode.exec.runtimes.base import Files, Model
from dimnode.exec.runtimes.config_file import config_of
from dimnode.exec.runtimes.declared import FAULTS, fault_of
from dimnode.exec.runtimes.pretrained import CLASSES, Port, Pretrained, pretrained_of
from dimnode.exec.runtimes.pretrained_model import fill, make_empty
from dimnode.exec.runtimes.pretrained_samples import sample_files, sample_inputs
from dimnode.records.manifest import TRANSFORMERS

FORMAT: Final = "torch"
PACKAGE: Final = "transformers"
EXTRA: Final = "hf"
FORKS: Final = True
DEVICE: Final = plain.DEVICE
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def version() -> str:
    """Of both libraries: either changes bits."""
    os.environ.update(OFFLINE)
    beneath = plain.version()
    try:
        import transformers
    except ImportError:
        return ""
    return f"{transformers.__version__}, torch {beneath}" if beneath else ""


def warm_up() -> None:
    """One small model of every class: behind the walls nothing can be imported any more."""
    import transformers

    plain.warm_up()
    transformers.logging.set_verbosity_error()
    for name in CLASSES:
        load(sample_files(name), Facts(TRANSFORMERS)).run(sample_inputs(name))


def settle() -> None:
    """It needs no thread."""


def traits() -> dict[str, str]:
    """See `Runtime.traits`."""
    return {**plain.traits(), "engine": "transformers"}


def load(files: Files, facts: Facts) -> "PretrainedModel":
    """See `Runtime.load`."""
    if not version():
        raise RunFailed(orders.NO_RUNTIME, "transformers is not installed", hint="pip install 'dimnode[hf]'")
    if facts.architecture != TRANSFORMERS:
        raise RunFailed(orders.NO_ARCHITECTURE, f"architecture {facts.architecture[:60]!r} is not transformers'")
    found = pretrained_of(config_of(files))
    module = make_empty(found)
    try:
        dtype = fill(module, files, facts.dtype)
    except FAULTS as error:
        raise fault_of(error, orders.UNFIT_WEIGHTS, "the weights cannot be used") from None
    return PretrainedModel(found, facts, module, dtype)


class PretrainedModel(Model):
    """A class with its weights."""

    def __init__(self, found: Pretrained, facts: Facts, module: Any, dtype: str) -> None:
        self._found, self._module, self._dtype = found, module, dtype
        self.inputs: tuple[Declared, ...] = tuple(map(_declared, found.inputs({name for name, _, _ in facts.inputs})))
        self._output = found.output({name for name, _, _ in facts.outputs})
        self.outputs: tuple[Declared, ...] = (_declared(self._output),)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """See `Model.run`."""
        import torch

        self._check(arrays)
        given = {
            name: torch.from_numpy(np.ascontiguousarray(values)).to(DEVICE.word) for name, values in arrays.items()
        }
        if "pixel_values" in given:
            given["pixel_values"] = given["pixel_values"].to(self._module.dtype)
        name = self._output[0]
        try:
            if self._found.family.decodes:
                kept = 1 if name == "next_logits" else 0
                answer = self._module(**given, use_cache=False, logits_to_keep=kept).logits
                answer = answer[:, -1] if kept else answer
            else:
                answer = getattr(self._module(**given), name)
            values: Array = answer.to(torch.float32).contiguous().cpu().numpy()
        except FAULTS as error:
            raise fault_of(error, orders.RUN_FAILED, "the model failed") from None
        return {name: values}

    def traits(self) -> dict[str, str]:
        """See `Model.traits`."""
        return {"dtype": self._dtype, "quantisation": "int8-rows" if self._dtype == "int8" else "none"}

    def _check(self, arrays: Mapping[str, Array]) -> None:
        found = self._found
        if found.family.takes == "picture":
            if not arrays["pixel_values"].size:
                raise RunFailed(orders.BAD_SHAPE, "model input 'pixel_values' is empty")
            return
        ids = arrays["input_ids"]
        check_tokens(ids, found.size("vocab_size"), found.positions)
        for name, most in (("attention_mask", 1), ("token_type_ids", found.config.get("type_vocab_size", 2) - 1)):
            values = arrays.get(name, np.zeros_like(ids))
            if values.shape != ids.shape or values.min() < 0 or values.max() > most:
                raise RunFailed(orders.BAD_SHAPE, f"{name} has to hold a number from 0 to {most} for each of input_ids")
        if "attention_mask" in arrays and not arrays["attention_mask"].any(axis=1).all():
            raise RunFailed(orders.BAD_SHAPE, "attention_mask leaves a row without a token")


def _declared(port: Port) -> Declared:
    name, dtype, shape = port
    return Declared(name, dtype, tuple(None if size < 0 else size for size in shape))
