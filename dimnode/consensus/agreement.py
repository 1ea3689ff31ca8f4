"""When do replicas of one task agree? Support under a comparator: the verdict of tier `quorum`.

Rule: what is accepted is the answer with the largest support, and support(x) = the answers within the comparator of x.
Agreement under tolerance is not transitive (x near y, y near z, x far from z), so there are no groups to count.
An output that cannot be read, or that holds a NaN or an infinity, agrees with nothing, not even with itself; it never
stops the others from agreeing. Every comparator is symmetric and looks at every tensor of an output, so that no part
of an accepted answer goes unchecked.
Pure: no I/O, no clock, no NumPy.
"""

import math
import operator
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors

_FLOAT_FORMAT = {"float16": "e", "float32": "f", "float64": "d"}
_EXPONENT: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "float16": (2, (0x7C,)),
    "float32": (4, (0x80, 0x7F)),
    "float64": (8, (0xF0, 0x7F)),
}
"""Bytes of a number, and where in its last bytes (little endian) the exponent's bits are."""
_KEYS = {
    "exact": frozenset({"kind"}),
    "argmax_atol": frozenset({"kind", "tensor", "atol_micro"}),
    "rtol": frozenset({"kind", "rtol_micro"}),
    "cosine": frozenset({"kind", "min_ppm"}),
}

Numbers = tuple[float, ...]
Near = Callable[[str, Tensor, Numbers, Numbers], bool]
"""Do two float tensors of one name and shape agree? Arguments: name, one of them for its shape, both as numbers."""


class Replica(NamedTuple):
    """One executor's answer to a task that several were given. `answer` is the id of its record, `output` a blob."""

    answer: bytes
    peer: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class Agreement:
    """What k of n replicas agree on.

    `accepted` is an answer id, or None on a split. `supporters` (with the accepted one) and `dissenters` are answer
    ids in ascending order, both empty on a split: then nobody has been contradicted. `largest` is the size of the
    largest support, which says how far a split was from agreement.
    """

    accepted: bytes | None
    supporters: tuple[bytes, ...]
    dissenters: tuple[bytes, ...]
    largest: int


@dataclass(frozen=True, slots=True)
class _Output:
    """A readable output: its bytes, its form, and its float tensors as numbers."""

    blob: bytes
    tensors: tuple[Tensor, ...]
    numbers: Mapping[str, Numbers]


def check_comparator(comparator: Mapping[str, object]) -> None:
    """Raises `PeerFault` unless this is one of the comparators below, with all of its numbers in range.

    {"kind": "exact"}: equal bytes. {"kind": "argmax_atol", "tensor", "atol_micro"}: in `tensor` the largest item of
    each row (last axis) stands at the same place, and every float tensor differs by at most atol. {"kind": "rtol",
    "rtol_micro"}: |a - b| <= rtol * max(|a|, |b|). {"kind": "cosine", "min_ppm"}: cosine of each float tensor, which is
    blind to its length. Tensors that are not float must be equal. Keys that begin with `x_` are ignored.
    """
    kind = comparator.get("kind")
    keys = frozenset(key for key in comparator if not key.startswith("x_"))
    if not isinstance(kind, str) or _KEYS.get(kind) != keys:
        raise PeerFault("comparator: fields")
    most = {"min_ppm": 1_000_000}
    for key in keys - {"kind", "tensor"}:
        number = comparator[key]
        if type(number) is not int or not 0 <= number <= most.get(key, LIMITS.consensus.tolerance_micro_max):
            raise PeerFault(f"comparator: {key}")
    if "tensor" in keys and type(comparator["tensor"]) is not str:
        raise PeerFault("comparator: tensor")


def support(answers: Sequence[tuple[bytes, bytes, bytes]], comparator: Mapping[str, object], k: int) -> Agreement:
    """Accept the answer with the largest support of at least `k`; of equals, the one with the smallest id.

    `answers` are `Replica`s or plain (answer id, peer, output blob). The result does not depend on their order.
    Raises `PeerFault`: no answers, more than two rounds of replicas, a peer or an answer twice, k < 1, a comparator
    that `check_comparator` refuses.
    """
    check_comparator(comparator)
    replicas = [Replica(*answer) for answer in answers]
    if not 0 < len(replicas) <= 2 * LIMITS.consensus.quorum_replicas_max or k < 1:
        raise PeerFault("quorum: count")
    if len({r.peer for r in replicas}) != len(replicas) or len({r.answer for r in replicas}) != len(replicas):
        raise PeerFault("quorum: a peer or an answer twice")
    near_outputs = _near_outputs({replica.output for replica in replicas}, comparator)
    supports = {
        one.answer: sorted(other.answer for other in replicas if other.output in near_outputs[one.output])
        for one in replicas
    }
    accepted, supporters = min(supports.items(), key=lambda item: (-len(item[1]), item[0]))
    if len(supporters) < k:
        return Agreement(None, (), (), len(supporters))
    dissenters = sorted(supports.keys() - set(supporters))
    return Agreement(accepted, tuple(supporters), tuple(dissenters), len(supporters))


def _near_outputs(blobs: set[bytes], comparator: Mapping[str, object]) -> dict[bytes, set[bytes]]:
    """For each distinct output, the outputs that agree with it. Equal bytes are compared once, whoever sent them."""
    near: dict[bytes, set[bytes]] = {blob: set() for blob in blobs}
    if comparator["kind"] == "exact":
        return {blob: {blob} if _finite(blob) else set() for blob in blobs}
    rule = _rule(comparator)
    readable = [output for blob in sorted(blobs) if (output := _read(blob, comparator.get("tensor"))) is not None]
    for index, one in enumerate(readable):
        near[one.blob].add(one.blob)
        for other in readable[index + 1 :]:
            if _agree(one, other, rule):
                near[one.blob].add(other.blob)
                near[other.blob].add(one.blob)
    return near


def _finite(blob: bytes) -> bool:
    """False for tensors with a NaN or an infinity. Bytes that are no tensors pass: `exact` only compares them."""
    try:
        tensors = decode_tensors(blob)
    except PeerFault:
        return True
    return not any(_has_nonfinite(tensor) for tensor in tensors if tensor.dtype in _FLOAT_FORMAT)


def _has_nonfinite(tensor: Tensor) -> bool:
    """A NaN or an infinity is there: a number whose exponent bits are all ones (IEEE 754).

    Looked for in the bytes, two of each number at once: as Python floats 16 MiB would take half a gigabyte.
    """
    size, masks = _EXPONENT[tensor.dtype]
    ones = ~0
    for place, mask in enumerate(masks, size - len(masks)):
        all_set = bytes(0xFF if byte & mask == mask else 0 for byte in range(256))
        ones &= int.from_bytes(tensor.raw[place::size].translate(all_set), "little")
    return bool(tensor.items and ones)


def _read(blob: bytes, needed: object) -> _Output | None:
    """The output in numbers, or None when it agrees with nothing (the rule above, or `needed` is missing)."""
    try:
        tensors = decode_tensors(blob)
    except PeerFault:
        return None
    floats = [tensor for tensor in tensors if tensor.dtype in _FLOAT_FORMAT]
    # Comparing is done in Python, in the owner's loop: beyond this many items only `exact` is quick enough.
    if sum(tensor.items for tensor in floats) > LIMITS.consensus.compared_items_max:
        return None
    numbers = {tensor.name: _unpacked(tensor) for tensor in floats}
    if needed is not None and needed not in numbers:
        return None
    if not all(all(map(math.isfinite, items)) for items in numbers.values()):
        return None
    return _Output(blob, tensors, numbers)


def _unpacked(tensor: Tensor) -> Numbers:
    return struct.unpack(f"<{tensor.items}{_FLOAT_FORMAT[tensor.dtype]}", tensor.raw)


def _agree(one: _Output, other: _Output, near: Near) -> bool:
    if [(t.name, t.dtype, t.shape) for t in one.tensors] != [(t.name, t.dtype, t.shape) for t in other.tensors]:
        return False
    return all(
        mine.raw == theirs.raw  # equal bytes are within every comparator, and quickly seen
        or (mine.name in one.numbers and near(mine.name, mine, one.numbers[mine.name], other.numbers[mine.name]))
        for mine, theirs in zip(one.tensors, other.tensors, strict=True)
    )


def _rule(comparator: Mapping[str, object]) -> Near:
    match comparator:
        case {"kind": "argmax_atol", "tensor": str(named), "atol_micro": int(atol_micro)}:
            atol = atol_micro / 1_000_000
            return lambda name, tensor, a, b: (
                max(_distances(a, b), default=0.0) <= atol
                and (name != named or _places(tensor, a) == _places(tensor, b))
            )
        case {"kind": "rtol", "rtol_micro": int(rtol_micro)}:
            rtol = rtol_micro / 1_000_000
            return lambda name, tensor, a, b: all(
                map(operator.le, _distances(a, b), map(rtol.__mul__, map(max, map(abs, a), map(abs, b))))
            )
        case {"kind": "cosine", "min_ppm": int(min_ppm)}:
            return lambda name, tensor, a, b: _cosine(a, b) >= min_ppm / 1_000_000
    raise AssertionError("check_comparator lets no other pass")


def _distances(a: Numbers, b: Numbers) -> Iterator[float]:
    """|x - y| of each pair. Here and above `map` over C functions: a stranger chooses how many pairs there are."""
    return map(abs, map(operator.sub, a, b))


def _places(tensor: Tensor, numbers: Numbers) -> list[int]:
    """Where the largest item of each row stands, the first among equals. A tensor of one dimension is one row."""
    width = tensor.shape[-1] if tensor.shape else 1
    rows = (numbers[start : start + width] for start in range(0, len(numbers), width or 1))
    return [row.index(max(row)) for row in rows]


def _cosine(a: Numbers, b: Numbers) -> float:
    """Cosine of the angle between two lists of numbers: 1 when equal (two zero vectors too), 0 when one is zero."""
    if a == b:
        return 1.0
    largest_a, largest_b = max(map(abs, a)), max(map(abs, b))
    if largest_a == 0.0 or largest_b == 0.0:
        return 0.0
    a, b = tuple(x / largest_a for x in a), tuple(y / largest_b for y in b)  # so that no square overflows or vanishes
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.hypot(*a) * math.hypot(*b))
