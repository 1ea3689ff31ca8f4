"""Starting a node: what takes long begins first.

Rule: the zygote imports its runtime in its own process while this one imports libp2p; it starts before any thread of
the network and before the key is read.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimnode.config import Config, load_config
from dimnode.exec.launch import start_zygote
from dimnode.p2p.host.slimming import leave_out
from dimnode.store.home import locked, prepare_home

if TYPE_CHECKING:
    from dimnode.node.node import Ready


def devices_of(config: Config) -> dict[str, str]:
    """What the operator asks each runtime to compute on; transformers' models are torch's."""
    return {"onnx": config.onnx_device, "torch": config.torch_device, "hf": config.torch_device}


def run_node(home: Path, flags: Mapping[str, Any], on_ready: "Callable[[Ready], None]") -> None:
    """Run a node until SIGINT or SIGTERM. Raises `ConfigError` when it cannot start."""
    config = load_config(home, flags)
    os.umask(0o077)  # whatever this process writes is its account's alone, also in a home that was opened to others
    prepare_home(home)
    with ExitStack() as stack:
        stack.enter_context(locked(home))
        zygote = stack.enter_context(start_zygote(devices=devices_of(config))) if config.execute else None
        leave_out()
        from dimnode.node.node import run_opened  # a second of imports

        run_opened(home, config, zygote, on_ready)
