"""What every runtime is to the rest of this room: facts and checked files in, a model that maps arrays to arrays out.

Rule: a runtime never sees a path. It gets the bytes of the files that a manifest lists, each checked against its id
before the first one is parsed, and what it cannot load or run is a `RunFailed` or a MemoryError, never a crash.
Runs only inside a worker.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dimnode.exec.mapping import Array, Declared
from dimnode.exec.orders import Facts
from dimnode.exec.runtimes.devices import Device


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a model: what its manifest says it is for, and its bytes where they lie, which may be gigabytes."""

    role: str
    raw: memoryview


Files = Mapping[str, Content]
"""By path in the manifest, in its order."""


def one_file(raw: bytes) -> Files:
    """A model that is one file."""
    return {"model": Content("model", memoryview(raw))}


class Model(ABC):
    """A loaded model, with the inputs and outputs that it declares itself."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]

    @abstractmethod
    def run(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """All outputs by name from one array per declared input. Raises `RunFailed` or MemoryError."""

    def traits(self) -> dict[str, str]:
        """What of this model belongs to the runtime's class: its dtype, its quantisation. Short words."""
        return {}


class Runtime(Protocol):
    """One of the modules beside this file."""

    FORMAT: str
    """The manifest's word for what it runs."""
    PACKAGE: str
    """The importable package without which it runs nothing."""
    EXTRA: str
    """The extra of dimnode that brings it."""
    FORKS: bool
    """Whether a process that imported and warmed it may fork. Apple's frameworks do not survive that."""
    DEVICE: Device
    """On what it computes."""

    def version(self) -> str:
        """Of the installed package, "" when there is none. Imports it."""

    def warm_up(self) -> None:
        """In the zygote, before any fork: what is set up once. Must leave the process with one thread."""

    def settle(self) -> None:
        """In each worker, when files are closed to it already and threads are not yet: what needs a thread."""

    def traits(self) -> dict[str, str]:
        """`engine` and `accelerator`, and what else belongs to the class within which results are comparable."""

    def load(self, files: Files, facts: Facts) -> Model:
        """Raises `RunFailed` (the model's fault, or the runtime is missing) or MemoryError."""
