"""The vocabulary of architectures: a manifest's word, and the config beside the weights, to one of them.

Rule: what is not in this file does not run. There is no way to bring an architecture along with a model.
"""

from typing import Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.architectures.bert import Bert
from dimnode.exec.runtimes.architectures.layers import Layers
from dimnode.exec.runtimes.architectures.llama import Llama
from dimnode.exec.runtimes.architectures.ops import Architecture
from dimnode.exec.runtimes.architectures.silero import Silero
from dimnode.exec.runtimes.base import Files
from dimnode.exec.runtimes.config_file import Config, config_of

NAMES: Final = ("layers", "bert", "llama", "silero-vad")
LLAMAS: Final = frozenset({"llama", "mistral", "qwen2"})


def architecture_of(files: Files, facts: Facts) -> tuple[Architecture, Config]:
    """The declared architecture, and its config. Raises `RunFailed`."""
    if facts.architecture == "silero-vad":
        return Silero(), {}
    if facts.architecture not in NAMES:
        known = ", ".join(NAMES)
        what = f"architecture {facts.architecture[:60]!r} is not known here; these are: {known}"
        raise RunFailed(orders.NO_ARCHITECTURE, what)
    config = config_of(files)
    if facts.architecture == "layers":
        return Layers.of(config, facts), config
    kind = config.get("model_type")
    if facts.architecture == "bert" and kind == "bert":
        return Bert.of(config), config
    if facts.architecture == "llama" and str(kind) in LLAMAS:
        return Llama.of(config, any(name == "next_logits" for name, _, _ in facts.outputs)), config
    raise RunFailed(orders.BAD_CONFIG, f"the config is of a {str(kind)[:40]!r}, which is no {facts.architecture}")
