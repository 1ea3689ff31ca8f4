"""The workers and the policies of a simulated node, and what an owner computes from answers.

Rule: an honest output follows from model, cabinet and inputs alone; a liar's is another one. Few distinct outputs
exist, so that equal bytes of different jobs meet (one job's clean-up must not take another's bytes).
"""

import random
from hashlib import sha256
from math import nan
from struct import pack

from dimnode.consensus import combining
from dimnode.consensus.agreement import support
from dimnode.consensus.combining import Contribution
from dimnode.errors import PeerFault
from dimnode.jobs.effects import Combine, Compare, Run
from dimnode.records.ids import RecordId
from dimnode.records.tensors import Tensor, encode_tensors

LIES = ("other numbers", "more rows", "another name", "not a number", "overflow")
Made = tuple[bytes | None, tuple[RecordId, ...], tuple[RecordId, ...], str]


def output_of(run: Run, inputs: list[bytes], node: int, lie: str = "") -> bytes:
    """The output of a run: two labels, or the counts of a site. `lie` is one of `LIES`, "" for the truth."""
    name, numbers = ("count", [10 + node, 5]) if run.cabinet else ("label", _labels(run, inputs))
    match lie:
        case "other numbers":
            numbers[0] = numbers[0] + 1 if run.cabinet else numbers[0] ^ 1
        case "more rows":
            numbers.append(0)
        case "another name":
            name = f"{name}s"
        case "not a number":
            return encode_tensors([Tensor(name, "float64", (2,), pack("<2d", nan, nan))])
        case "overflow":
            numbers[0] = 2**63 - 1
    return encode_tensors([Tensor(name, "int64", (len(numbers),), pack(f"<{len(numbers)}q", *numbers))])


def _labels(run: Run, inputs: list[bytes]) -> list[int]:
    seed = sha256(b"".join([run.op.encode(), run.model or b"", *inputs])).digest()
    return [seed[0] & 1, seed[1] & 1]


def agree(effect: Compare, outputs: list[bytes]) -> tuple[RecordId | None, tuple[RecordId, ...], tuple[RecordId, ...]]:
    """What `Compared` says."""
    answers = [(bytes(p.answer), bytes(p.peer), o) for p, o in zip(effect.parts, outputs, strict=True)]
    found = support(answers, effect.comparator, effect.k)
    accepted = None if found.accepted is None else RecordId(found.accepted)
    return accepted, tuple(map(RecordId, found.supporters)), tuple(map(RecordId, found.dissenters))


def combine(effect: Combine, outputs: list[bytes]) -> Made:
    """What `Combined` says: output, supporters, dissent, code."""
    answers, weights = [part.answer for part in effect.parts], effect.weights_permille or [1] * len(outputs)
    rows = zip(effect.parts, weights, outputs, strict=True)
    parts = [Contribution(part.peer, part.answer, weight, output) for part, weight, output in rows]
    try:
        made = combining.combine(effect.method, parts, effect.needed)
    except PeerFault:
        return None, (), (), "E-consensus-01"
    supporters = tuple(answers[place] for place in made.counted if place not in made.dissent)
    return made.output, supporters, tuple(answers[place] for place in made.dissent), ""


def seconds(rng: random.Random, most: float) -> float:
    """How long something takes: mostly short, sometimes long."""
    return float(most * rng.random() ** 4)
