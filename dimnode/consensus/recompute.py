"""What a verdict concludes from answers, in a form that anybody can repeat: votes, exact sums, agreement.

Rule: a result depends on the set of answers alone, never on the order in which they came, and on no library beyond
the standard one: the verifier repeats it offline. A peer counts once.
Every failure is a `PeerFault`: the inputs come from peers, and a verdict built on such inputs is not valid.
Pure: no I/O, no clock, no NumPy. `support`, the agreement of replicas, is written in `agreement.py`.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dimnode.consensus.agreement import Agreement, Replica, check_comparator, support
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import Tensor, decode_tensors, encode_tensors

__all__ = [
    "Agreement",
    "Replica",
    "Tally",
    "Vote",
    "check_comparator",
    "encode_tally_blob",
    "integers_of",
    "labels_of",
    "sum_counts",
    "support",
    "tally",
]

LABEL = "label"
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Vote:
    """One model's labels for every row of the input. `answer` is the id of the answer record that holds them."""

    peer: bytes
    labels: tuple[int, ...]
    answer: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """What the votes add up to, row by row. `votes[row][label]` counts votes, or sums permille weights.

    `margin` is the winner's votes less those of the runner-up: 0 on a tie. `dissent[row]` names, in ascending order,
    the answers that chose another label than the winner; in the comparative pattern that is no fault of theirs.
    """

    labels: tuple[int, ...]
    votes: tuple[tuple[int, ...], ...]
    margin: tuple[int, ...]
    dissent: tuple[tuple[bytes, ...], ...]


def labels_of(output: bytes, rows: int | None = None) -> tuple[int, ...]:
    """The labels of an answer's output: tensor `label`, int64, one dimension.

    Raises `PeerFault` when it is missing, of another form, out of range or, with `rows`, of another length. Call it
    when an answer arrives, so that the one who sent it is blamed and the tally of the others goes on.
    """
    for tensor in decode_tensors(output):
        if tensor.name == LABEL:
            break
    else:
        raise PeerFault("votes: no label tensor")
    if tensor.dtype != "int64" or len(tensor.shape) != 1:
        raise PeerFault("votes: label is not int64 [rows]")
    if tensor.items > LIMITS.consensus.vote_rows_max:  # before they become numbers: those take four times the room
        raise PeerFault("votes: rows")
    labels = integers_of(tensor)
    if rows is not None and len(labels) != rows:
        raise PeerFault("votes: rows")
    _check_labels(labels)
    return labels


def tally(votes: Sequence[Vote], weights_permille: Mapping[bytes, int] | None = None) -> Tally:
    """Majority vote, or weighted vote when each voter has a weight.

    Voters are models, not peers: two models may vote from one peer, each with its own answer; `weights_permille` is by
    answer id. In each row the label with the most votes wins; of labels with equally many, the smallest. Labels are
    column numbers: a row has as many columns as the largest label seen plus one.
    Raises `PeerFault`: no votes, too many, an answer twice, unequal rows, a label out of range, a voter
    without a weight, a weight out of range, weights that are all zero.
    """
    if not 0 < len(votes) <= LIMITS.consensus.parts_max:
        raise PeerFault("votes: count")
    if len({vote.answer for vote in votes}) != len(votes):
        raise PeerFault("votes: an answer twice")
    rows = len(votes[0].labels)
    for vote in votes:
        if len(vote.labels) != rows:
            raise PeerFault("votes: rows")
        _check_labels(vote.labels)
    weights = [1] * len(votes) if weights_permille is None else _weights(votes, weights_permille)
    ordered = sorted(zip(votes, weights, strict=True), key=lambda pair: pair[0].answer)
    classes = 1 + max(max(vote.labels) for vote in votes)
    counted = [_count_row(row, classes, ordered) for row in range(rows)]
    return Tally(
        labels=tuple(winner for _, winner, _, _ in counted),
        votes=tuple(counts for counts, _, _, _ in counted),
        margin=tuple(margin for _, _, margin, _ in counted),
        dissent=tuple(dissent for _, _, _, dissent in counted),
    )


def encode_tally_blob(result: Tally) -> bytes:
    """The tally as `tensors/1`: `label` int64 [rows], `votes` int64 [rows, classes], `margin` int64 [rows]."""
    rows, classes = len(result.labels), len(result.votes[0])
    cells = [count for row in result.votes for count in row]
    return encode_tensors(
        [
            Tensor(LABEL, "int64", (rows,), _packed(result.labels)),
            Tensor("margin", "int64", (rows,), _packed(result.margin)),
            Tensor("votes", "int64", (rows, classes), _packed(cells)),
        ]
    )


def sum_counts(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The sum of each int64 tensor over all (peer, output blob): what a collaborative `evaluate` concludes.

    The sums are exact integers, so the order of the parts cannot matter. Whether a count is plausible is not judged.
    Raises `PeerFault`: no parts, too many, a peer twice, a tensor that is not int64, names or shapes that differ,
    more than 65,536 numbers (they are counts, not weights), a sum that does not fit int64.
    """
    if not 0 < len(parts) <= LIMITS.consensus.parts_max:
        raise PeerFault("sum: count of parts")
    if len({peer for peer, _ in parts}) != len(parts):
        raise PeerFault("sum: a peer twice")
    most_bytes = 8 * LIMITS.consensus.summed_items_max + 64 * 1024  # numbers, and ample room for names and shapes
    if any(len(blob) > most_bytes for _, blob in parts):
        raise PeerFault("sum: too many numbers")
    decoded = [decode_tensors(blob) for _, blob in parts]
    form = [(tensor.name, tensor.shape) for tensor in decoded[0]]
    if sum(tensor.items for tensor in decoded[0]) > LIMITS.consensus.summed_items_max:
        raise PeerFault("sum: too many numbers")
    for tensors in decoded:
        if any(tensor.dtype != "int64" for tensor in tensors):
            raise PeerFault("sum: only int64 adds up exactly")
        if [(tensor.name, tensor.shape) for tensor in tensors] != form:
            raise PeerFault("sum: names or shapes differ")
    return encode_tensors(_added(same_name) for same_name in zip(*decoded, strict=True))


def _count_row(
    row: int, classes: int, ordered: Sequence[tuple[Vote, int]]
) -> tuple[tuple[int, ...], int, int, tuple[bytes, ...]]:
    counts = [0] * classes
    for vote, weight in ordered:
        counts[vote.labels[row]] += weight
    most = max(counts)
    winner = counts.index(most)  # index finds the first: the smallest label among equals
    runner_up = max(counts[:winner] + counts[winner + 1 :], default=0)
    dissent = tuple(vote.answer for vote, _ in ordered if vote.labels[row] != winner)
    return tuple(counts), winner, most - runner_up, dissent


def _weights(votes: Sequence[Vote], weights_permille: Mapping[bytes, int]) -> list[int]:
    weights = []
    for vote in votes:
        weight = weights_permille.get(vote.answer)
        if weight is None or not 0 <= weight <= LIMITS.consensus.weight_permille_max:
            raise PeerFault("votes: weight of a voter")
        weights.append(weight)
    if not any(weights):
        raise PeerFault("votes: all weights are zero")
    return weights


def _check_labels(labels: Sequence[int]) -> None:
    limits = LIMITS.consensus
    if not 0 < len(labels) <= limits.vote_rows_max:
        raise PeerFault("votes: rows")
    if min(labels) < 0 or max(labels) >= limits.vote_classes_max:
        raise PeerFault("votes: label out of range")


def _added(tensors: Sequence[Tensor]) -> Tensor:
    sums = [sum(items) for items in zip(*map(integers_of, tensors), strict=True)]
    if sums and (min(sums) < INT64_MIN or max(sums) > INT64_MAX):
        raise PeerFault("sum: does not fit int64")
    return Tensor(tensors[0].name, "int64", tensors[0].shape, _packed(sums))


def integers_of(tensor: Tensor) -> tuple[int, ...]:
    """The numbers of an int64 tensor."""
    return struct.unpack(f"<{tensor.items}q", tensor.raw)


def _packed(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)
