"""The arithmetic that architectures are written in: a runtime implements it once and has all of them.

Rule: an architecture is plain arithmetic over named weights; it never sees which library does it. Arrays are rows
first, images and signals channels before positions, as the weights' own authors store them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from dimnode.exec.mapping import Array, Declared

T = Any
"""An array of the library."""


@dataclass(frozen=True, slots=True)
class Need:
    """A tensor that an architecture needs from the file; a matrix may be stored or used in fewer bits."""

    shape: tuple[int, ...]
    kind: Literal["plain", "matrix"] = "plain"


class Architecture(ABC):
    """A model family, with the sizes of one of its members."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]

    @abstractmethod
    def needs(self) -> Mapping[str, Need]:
        """Every tensor of the file that is used, by name."""

    @abstractmethod
    def check(self, arrays: Mapping[str, Array]) -> None:
        """Whether these numbers can be computed with. Raises `RunFailed`: libraries read past a table silently."""

    @abstractmethod
    def forward(self, ops: "Ops", inputs: Mapping[str, T]) -> dict[str, T]:
        """The outputs by name."""


class Ops(ABC):
    """One library over one model's weights."""

    @abstractmethod
    def constant(self, values: NDArray[Any]) -> T:
        """An array of ours; floats keep float32."""

    @abstractmethod
    def weight(self, name: str) -> T:
        """A weight as it is."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether the file has this tensor and the architecture needs it."""

    @abstractmethod
    def embedding(self, ids: T, name: str) -> T:
        """Rows of `name`.weight."""

    @abstractmethod
    def linear(self, x: T, name: str) -> T:
        """x W^T + b over the last axis; W is `name`.weight [out, in], b `name`.bias if there is one."""

    @abstractmethod
    def conv(self, x: T, name: str, stride: int, padding: int) -> T:
        """`name`.weight [out, in, *window] over x [n, in, *places], one or two places."""

    @abstractmethod
    def max_pool2d(self, x: T, window: int, stride: int) -> T:
        """x [n, channels, rows, columns]."""

    @abstractmethod
    def layer_norm(self, x: T, name: str, epsilon: float) -> T:
        """Over the last axis."""

    @abstractmethod
    def rms_norm(self, x: T, name: str, epsilon: float) -> T:
        """Over the last axis, computed in float32."""

    @abstractmethod
    def activation(self, x: T, kind: str) -> T:
        """relu, gelu (exact), silu, tanh, sigmoid."""

    @abstractmethod
    def softmax(self, x: T) -> T:
        """Over the last axis, computed in float32, in the dtype of x."""

    @abstractmethod
    def matmul(self, a: T, b: T) -> T:
        """Of the last two axes."""

    @abstractmethod
    def permute(self, x: T, order: Sequence[int]) -> T:
        """Axes in another order."""

    @abstractmethod
    def reshape(self, x: T, shape: Sequence[int]) -> T:
        """The same items, rows first; one size may be -1."""

    @abstractmethod
    def concat(self, parts: Sequence[T], axis: int) -> T:
        """One behind the other."""

    @abstractmethod
    def take(self, x: T, places: Sequence[int], axis: int) -> T:
        """These places of an axis."""

    @abstractmethod
    def mean(self, x: T, axes: Sequence[int]) -> T:
        """Over these axes, which are dropped."""

    @abstractmethod
    def sum(self, x: T, axes: Sequence[int], keep: bool) -> T:
        """Over these axes."""

    @abstractmethod
    def sqrt(self, x: T) -> T:
        """Of each item."""

    @abstractmethod
    def at_least(self, x: T, least: float) -> T:
        """The larger of each item and `least`."""

    @abstractmethod
    def argmax(self, x: T) -> T:
        """int64, over the last axis, the first among equals."""

    @abstractmethod
    def to_float(self, x: T) -> T:
        """As float32."""

    @abstractmethod
    def to_own(self, x: T) -> T:
        """In the model's dtype."""

    @abstractmethod
    def shape(self, x: T) -> tuple[int, ...]:
        """Its sizes."""
