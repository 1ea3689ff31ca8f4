"""The weighted average of tensors, to the last bit: federated averaging (weight = rows) and weighted average.

Rule: answers in ascending peer-id bytes; per item multiply, then add, in float64, starting at +0.0; divide once by the
integer sum of the weights; round once to the tensor's dtype (half to even). IEEE 754 fixes the result of each of these
steps, so every machine, and a plain loop over Python floats, gets the same bytes (McMahan et al. 2017 for the method).
Every failure is a `PeerFault`: the parts come from peers, and a verdict built on such parts is not valid.
Pure: no I/O, no clock. The only NumPy of this room, optional for the verifier.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

Floats = NDArray[np.float64]

_INTEGER_EXACT_MAX = 2**53  # beyond it float64 skips integers


class Part(NamedTuple):
    """One site's contribution: an output blob (`tensors/1`) and the integer weight that its answer states."""

    peer: bytes
    weight: int
    blob: bytes


def weighted_average(parts: Sequence[tuple[bytes, int, bytes]]) -> bytes:
    """The average of each tensor over all parts, weighted, as `tensors/1`; the same bytes for any order of the parts.

    Integer tensors are averaged too and rounded half to even; a weight of 0 leaves a part out of the sum, not out of
    the checks. Raises `PeerFault`: no parts, too many, a peer twice, names, shapes or dtypes that differ, bool tensors,
    a NaN or an infinity in a part or in a sum, an integer beyond 2^53, a negative weight, weights that sum to 0 or to
    more than 2^53.
    """
    ordered = sorted((Part(*part) for part in parts), key=lambda part: part.peer)
    if not 0 < len(ordered) <= LIMITS.consensus.parts_max:
        raise PeerFault("average: count of parts")
    if len({part.peer for part in ordered}) != len(ordered):
        raise PeerFault("average: a peer twice")
    weights = [part.weight for part in ordered]
    total = sum(weights)
    if min(weights) < 0 or not 0 < total <= LIMITS.consensus.average_weight_sum_max:
        raise PeerFault("average: weights")
    once = {blob: decode_tensors(blob) for blob in {part.blob for part in ordered}}  # many may have sent the same
    decoded = [once[part.blob] for part in ordered]
    form = [(tensor.name, tensor.dtype, tensor.shape) for tensor in decoded[0]]
    if any([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors] != form for tensors in decoded):
        raise PeerFault("average: names, shapes or dtypes differ")
    return encode_tensors(_average(same_name, weights, total) for same_name in zip(*decoded, strict=True))


def _average(tensors: Sequence[Tensor], weights: Sequence[int], total: int) -> Tensor:
    """A piece at a time: float64 takes up to eight times the room of the tensors themselves."""
    first, most = tensors[0], LIMITS.consensus.averaged_at_once_items
    starts = range(0, max(first.items, 1), most)
    pieces = [_average_piece(tensors, weights, total, slice(start, start + most)) for start in starts]
    return Tensor(first.name, first.dtype, first.shape, b"".join(pieces))


def _average_piece(tensors: Sequence[Tensor], weights: Sequence[int], total: int, piece: slice) -> bytes:
    mean: Floats = np.zeros(1, dtype=np.float64)
    with np.errstate(all="ignore"):  # overflow is looked for below, where it can be refused
        for tensor, weight in zip(tensors, weights, strict=True):
            # Two statements, so that no compiler may fuse them into one multiply-add with a single rounding.
            product = _numbers(tensor, piece) * np.float64(weight)
            mean = mean + product
        mean = mean / np.float64(total)
    if not np.isfinite(mean).all():
        raise PeerFault("average: not finite")
    return _rounded(mean, tensors[0].dtype).tobytes()


def _numbers(tensor: Tensor, piece: slice) -> Floats:
    if tensor.dtype == "bool":
        raise PeerFault("average: bool has no average")
    items: NDArray[Any] = np.frombuffer(tensor.raw, dtype=_little_endian(tensor.dtype))[piece]
    numbers = items.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise PeerFault("average: not finite")
    if items.dtype.kind in "iu" and (np.abs(numbers) > _INTEGER_EXACT_MAX).any():
        raise PeerFault("average: integer beyond 2^53")
    return numbers


def _rounded(mean: Floats, dtype: str) -> NDArray[Any]:
    wanted = _little_endian(dtype)
    return (mean if wanted.kind == "f" else np.rint(mean)).astype(wanted)


def _little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
