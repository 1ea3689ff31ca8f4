"""The client beside each simulated node: it submits jobs of all patterns, asks again, and cancels some.

Rule: a submission keeps its nonce, whatever happens to the node; it ends with one verdict, or with a refusal.
"""

import random
from dataclasses import dataclass
from typing import Any

from dimnode.jobs.effects import Refuse, Reply
from dimnode.jobs.events import Submitted
from dimnode.records.ids import PeerId, RecordId, blob_cid
from dimnode.records.kinds import OPEN_SWARM_ID, compose
from dimnode.records.receipt import Opening

from .journal import Broken
from .universe import ABSENT, CABINET, MODELS, POISON, Universe

_REFUSALS_MAX = 6


@dataclass(slots=True)
class Submission:
    """One wish of a client, until it is answered."""

    number: int
    body: dict[str, Any]
    inputs: tuple[bytes, ...]
    by: PeerId
    own: bool
    cancel_after: float | None = None
    jobs: tuple[RecordId, ...] = ()
    refusals: int = 0
    reply: Reply | None = None
    refused: Refuse | None = None

    @property
    def nonce(self) -> tuple[PeerId, bytes]:
        return self.by, self.body["nonce"]

    @property
    def ended(self) -> bool:
        return self.reply is not None or self.refused is not None

    def event(self, rng: random.Random, at_ms: int) -> tuple[Submitted, bytes]:
        """A submission as a door makes it: another spec each time, because its time and salts differ."""
        openings = tuple(Opening.of(rng.randbytes(32), blob_cid(blob)) for blob in self.inputs)
        body = {**self.body, "inputs": [opening.ref for opening in openings]}
        common = {"net": OPEN_SWARM_ID, "by": self.by, "at_ms": at_ms}
        job, payload = compose("spec", common, body)
        self.jobs = (*self.jobs, job)
        return Submitted(self.number, job, {**common, **body}, payload if self.own else b"", openings), payload

    def heard(self, effect: Reply | Refuse) -> bool:
        """Take note of an answer; True when the client will try again."""
        if isinstance(effect, Reply):
            if self.reply is not None and self.reply.verdict != effect.verdict:
                raise Broken("two verdicts for one nonce")
            self.reply = effect
            return False
        if effect.code == "E-jobs-11":  # a cancel that came before its job, or long after it
            return False
        self.refusals += 1
        if self.refusals < _REFUSALS_MAX and effect.code in ("E-jobs-01", "E-jobs-03", "E-jobs-04"):
            return True
        self.refused = effect
        return False


def wish(number: int, universe: Universe, rng: random.Random, me: PeerId, peers: list[PeerId]) -> Submission:
    """A random job."""
    pattern = rng.choice(["plain", "plain", "chain", "quorum", "votes", "sites"])
    body: dict[str, Any] = {"tier": "signed", "rule": {"method": "first"}, "pattern": "chained"}
    inputs: tuple[bytes, ...] = (b"patient %d" % rng.randint(0, 2),)

    def infer(**more: Any) -> dict[str, Any]:
        model = rng.choice([POISON, ABSENT]) if rng.random() < universe.poison else rng.choice(MODELS)
        return {"op": "infer", "model": model, **more}

    match pattern:
        case "plain":
            body["tasks"] = [infer(peer=rng.choice(peers)) if rng.random() < 0.15 else infer()]
        case "chain":
            body["tasks"] = [infer() for _ in range(rng.randint(2, 4))]
        case "quorum":
            n = rng.randint(2, 3)
            body |= {"tier": "quorum", "rule": {"method": "quorum"}, "quorum": {"n": n, "k": 2}}
            body["tasks"] = [infer() for _ in range(rng.randint(1, 2))]
        case "votes":
            models = rng.sample(MODELS, 3)
            body |= {"pattern": "comparative", "rule": {"method": "majority_vote"}}
            body["tasks"] = [{"op": "infer", "model": model} for model in models]
            if rng.random() < 0.5:
                body["rule"] = {"method": "weighted_vote", "weights_permille": [500, 300, 200]}
        case "sites":
            inputs = ()
            sites = rng.randint(1, min(3, len(peers)))
            body |= {"pattern": "collaborative", "rule": {"method": "sum_counts"}}
            body["tasks"] = [{"op": "statistics", "cabinet": CABINET, "purpose": "audit"} for _ in range(sites)]
            for task, peer in zip(body["tasks"], rng.sample(peers, sites), strict=True):
                if rng.random() < 0.7:
                    task["peer"] = peer
    if body["pattern"] != "chained" and rng.random() < 0.6:
        body["min_sites"] = rng.randint(1, len(body["tasks"]))
    body |= {
        "deadline_ms": rng.randint(10_000, 100_000),
        "priority": rng.choice(["low", "normal", "high"]),
        "visibility": "participants",
        "nonce": rng.randbytes(16),
    }
    own = rng.random() < 0.8
    submission = Submission(number, body, inputs, me if own else rng.choice(peers), own)
    if rng.random() < universe.cancels:
        submission.cancel_after = rng.uniform(0, 10)
    return submission
