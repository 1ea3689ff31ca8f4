"""What an owner makes of votes or contributions: which of them fit together, and what these add up to.

Rule: no answer spoils the others. One that the job's rule cannot read is refused when it comes (`check_part`). Of the
rest only answers of one form are put together: the form that the most answers have, at least as many as the job needs;
answers of any other form are left out (`fitting`). Of two forms that are equally common neither is the right one:
whoever could choose the order of their ids would choose the result.
The verifier needs none of this: it repeats the result from the answers that the verdict counts.
Pure: no I/O, no clock.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from dimnode.consensus.recompute import INT64_MAX, Vote, encode_tally_blob, integers_of, labels_of, sum_counts, tally
from dimnode.consensus.tensors import weighted_average
from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.records.tensors import decode_tensors, tensor_heads

AVERAGES = ("federated_average", "weighted_average")
WEIGHTED = ("weighted_vote", "weighted_average")


class Contribution(NamedTuple):
    """One accepted answer: its output blob and what the rule weighs it with (1 where the rule has no weights)."""

    peer: bytes
    answer: bytes
    weight: int
    blob: bytes


class Combination(NamedTuple):
    """One output, and the places of the contributions that it was made of; `dissent` are some of those."""

    output: bytes
    counted: tuple[int, ...]
    dissent: tuple[int, ...]


def check_part(method: str, peer: bytes, blob: bytes, parts: int) -> None:
    """Raises `PeerFault` when this rule could make nothing of this output, whatever the other ones of `parts` are.

    Numbers are held against their share of what a sum has room for: none alone carries the sum of all beyond it.
    """
    if method == "sum_counts":
        for tensor in decode_tensors(sum_counts([(peer, blob)])):
            if max(map(abs, integers_of(tensor)), default=0) > INT64_MAX // parts:
                raise PeerFault("sum: a number beyond one site's share of int64")
    elif method in AVERAGES:
        weighted_average([(peer, LIMITS.consensus.average_weight_sum_max, blob)])
    elif method in ("majority_vote", "weighted_vote"):
        _labels(blob)


def combine(method: str, parts: Sequence[Contribution], needed: int) -> Combination:
    """One output of those that fit together. Raises `PeerFault` when these are too few, or have no result."""
    counted = fitting(method, parts, needed)
    chosen = [parts[place] for place in counted]
    if method == "sum_counts":
        return Combination(sum_counts([(part.peer, part.blob) for part in chosen]), counted, ())
    if method in AVERAGES:
        return Combination(weighted_average([(part.peer, part.weight, part.blob) for part in chosen]), counted, ())
    votes = [Vote(part.peer, labels_of(part.blob), part.answer) for part in chosen]
    weights = {part.answer: part.weight for part in chosen} if method == "weighted_vote" else None
    result = tally(votes, weights)
    dissenting = {answer for row in result.dissent for answer in row}
    dissent = tuple(place for place in counted if parts[place].answer in dissenting)
    return Combination(encode_tally_blob(result), counted, dissent)


def fitting(method: str, parts: Sequence[Contribution], needed: int) -> tuple[int, ...]:
    """The places of the contributions whose form most have; by the submitter's weights, where the job has some.

    A weight that a site states itself says nothing here. Raises `PeerFault` when no form has `needed` contributions,
    or two have equally many.
    """
    places: dict[Hashable, list[int]] = {}
    for place, part in enumerate(parts):
        if (form := _form(method, part.blob)) is not None:
            places.setdefault(form, []).append(place)
    common = [group for group in places.values() if len(group) >= max(needed, 1)]
    if not common:
        most = max(map(len, places.values()), default=0)
        raise PeerFault(f"{most} of {len(parts)} have the same rows, names, dtypes and shapes, {needed} are needed")

    def measure(group: list[int]) -> tuple[int, int]:
        return sum(parts[place].weight for place in group) if method in WEIGHTED else 0, len(group)

    first, *others = sorted(common, key=measure, reverse=True)
    if others and measure(others[0]) == measure(first):
        raise PeerFault("equally many have other rows, names, dtypes or shapes")
    return tuple(first)


def _form(method: str, blob: bytes) -> Hashable | None:
    """What has to be equal for two outputs to be put together; None for what cannot be read."""
    try:
        return tensor_heads(blob) if method == "sum_counts" or method in AVERAGES else len(_labels(blob))
    except PeerFault:
        return None


def _labels(blob: bytes) -> tuple[int, ...]:
    """The labels of one vote. Raises `PeerFault` also when they would make the tally of all voters too large.

    A row of a tally has as many counts as the largest label of any voter plus one: 4,096 rows with one label of 1,023
    would be 33 MB.
    """
    labels, most = labels_of(blob), LIMITS.consensus.tally_cells_max
    if (cells := len(labels) * (1 + max(labels))) > most:
        raise PeerFault(f"votes: a tally of {cells} counts, at most {most}")
    return labels
