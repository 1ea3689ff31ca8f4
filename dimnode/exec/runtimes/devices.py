"""On what a runtime computes: the processor, or an accelerator that this machine and the installed library have.

Rule: an operator's word is kept or refused, never replaced; `auto` takes the first of its own list that is there. What
was chosen stands in the runtime's class, and what a model really ran on in its answer.

A driver opens files and starts threads, which a worker behind its walls cannot. So a worker opens its device first, and
whether it can still compute behind the walls is tried before the first order. No fork may come after a device was
opened: a zygote only asks what there is. Written for CUDA, MPS and CoreML, and tried on none (docs/platforms.md).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from dimnode.errors import RunFailed
from dimnode.exec import orders

AUTO: Final = "auto"
CPU: Final = "cpu"


class Device:
    """What one runtime computes on; this one has no choice."""

    word: str = CPU
    """What was chosen, as records name it."""

    @property
    def accelerated(self) -> bool:
        """Whether there is a driver that has to be opened."""
        return self.word != CPU

    def choose(self, asked: str) -> None:
        """Take what the operator asked for. Raises `RunFailed` when it is not there."""
        if asked not in (AUTO, CPU):
            raise _absent(asked, (CPU,))

    def open(self) -> None:
        """In a worker, before its walls."""

    def try_out(self) -> None:
        """Compute a little on it, behind the walls. Raises whatever the library raises."""


def best(asked: str, there: Sequence[str], automatic: Sequence[str]) -> str:
    """The asked one of what is there; for `auto` the first of `automatic`. Raises `RunFailed`."""
    if asked == AUTO:
        return next((word for word in automatic if word in there), CPU)
    if asked not in there:
        raise _absent(asked, there)
    return asked


def there_of(names: Mapping[str, str], found: Sequence[str]) -> tuple[str, ...]:
    """Our words for what a library says it has."""
    return tuple(word for word, name in names.items() if name in found)


def _absent(asked: str, there: Sequence[str]) -> RunFailed:
    what = f"the configuration asks for the device {asked}, and there is {', '.join(there) or 'none'}"
    return RunFailed(orders.NO_DEVICE, what, hint="set onnx_device and torch_device to auto")
