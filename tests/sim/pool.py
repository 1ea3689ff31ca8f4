"""The workers and the policies of a simulated node, and what an owner computes from answers.

Rule: an honest output follows from model, cabinet and inputs alone; a liar's is another one. Few distinct outputs
exist, so that equal bytes of different jobs meet (one job's clean-up must not take another's bytes).
"""

import random
from hashlib import sha256
from struct import pack

from dimnode.consensus.agreement import support
from dimnode.consensus.recompute import Vote, encode_tally_blob, labels_of, sum_counts, tally
from dimnode.errors import PeerFault
from dimnode.jobs.effects import Combine, Compare, Run
from dimnode.records.ids import RecordId
from dimnode.records.tensors import Tensor, encode_tensors

Made = tuple[bytes | None, tuple[RecordId, ...], tuple[RecordId, ...], str]


def output_of(run: Run, inputs: list[bytes], node: int, lie: bool) -> bytes:
    """The output of a run: two labels, or the counts of a site."""
    seed = sha256(b"".join([run.op.encode(), run.model or b"", *inputs])).digest()
    if run.cabinet:
        return encode_tensors([Tensor("count", "int64", (2,), pack("<2q", 10 + node + lie, 5))])
    first = (seed[0] & 1) ^ lie
    return encode_tensors([Tensor("label", "int64", (2,), pack("<2q", first, seed[1] & 1))])


def agree(effect: Compare, outputs: list[bytes]) -> tuple[RecordId | None, tuple[RecordId, ...], tuple[RecordId, ...]]:
    """What `Compared` says."""
    answers = [(bytes(p.answer), bytes(p.peer), o) for p, o in zip(effect.parts, outputs, strict=True)]
    found = support(answers, effect.comparator, effect.k)
    accepted = None if found.accepted is None else RecordId(found.accepted)
    return accepted, tuple(map(RecordId, found.supporters)), tuple(map(RecordId, found.dissenters))


def combine(effect: Combine, outputs: list[bytes]) -> Made:
    """What `Combined` says: output, supporters, dissent, code."""
    answers = tuple(part.answer for part in effect.parts)
    try:
        if effect.method == "sum_counts":
            return sum_counts([(part.peer, o) for part, o in zip(effect.parts, outputs, strict=True)]), answers, (), ""
        votes = [Vote(p.peer, labels_of(o), p.answer) for p, o in zip(effect.parts, outputs, strict=True)]
        weights = {p.answer: w for p, w in zip(effect.parts, effect.weights_permille, strict=False)}
        counted = tally(votes, weights or None)
    except PeerFault:
        return None, (), (), "E-consensus-01"
    dissent = {identity for row in counted.dissent for identity in row}
    supporters = tuple(answer for answer in answers if answer not in dissent)
    return encode_tally_blob(counted), supporters, tuple(answer for answer in answers if answer in dissent), ""


def seconds(rng: random.Random, most: float) -> float:
    """How long something takes: mostly short, sometimes long."""
    return float(most * rng.random() ** 4)
