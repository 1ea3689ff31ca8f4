"""What a seed decides: how many nodes, what they offer, who lies, and which faults happen.

Rule: every choice comes from the seed, so that one seed is one universe.
"""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

from dimnode.records.envelope import SigningKey
from dimnode.records.ids import RecordId, record_id

MODELS = tuple(record_id(b"model %d" % number) for number in range(4))
POISON = record_id(b"a model that fails everywhere")
ABSENT = record_id(b"a model that some peers only claim to have")
CLASSES: dict[RecordId, str] = {**dict.fromkeys(MODELS, "mlp"), POISON: "mlp", ABSENT: "mlp"}
CABINET = "patients"
EPOCH_SECONDS = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Universe:
    """The faults of one run. Probabilities are per frame or per run, counts are per run of the simulator."""

    seed: int
    nodes: int = 5
    jobs: int = 30
    fault_seconds: float = 40.0
    delay_seconds_max: float = 0.02
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    cuts: int = 0
    partitions: int = 0
    crashes: int = 0
    liars: int = 0
    garblers: int = 0
    run_seconds_max: float = 1.0
    run_failures: float = 0.0
    queue_tasks_max: int = 64
    cancels: float = 0.0
    repeats: float = 0.0
    poison: float = 0.0
    fetches: bool = False
    fetch_failures: float = 0.0

    @property
    def calm(self) -> bool:
        """Nothing goes wrong here."""
        return self == Universe(self.seed, nodes=self.nodes, jobs=self.jobs)

    @property
    def soon_well(self) -> bool:
        """After the faults nothing takes long."""
        return self.honest_links and self.run_seconds_max <= 1 and self.delay_seconds_max <= 0.1

    @property
    def honest_links(self) -> bool:
        """Links lose, repeat and reorder nothing while they stand, like the real ones."""
        return not (self.loss or self.duplication or self.reordering)


def calm(seed: int) -> Universe:
    """A universe without faults."""
    return Universe(seed, nodes=random.Random(seed).randint(2, 6), jobs=20)


def lying(seed: int) -> Universe:
    """Nothing goes wrong but that two of seven nodes lie, each time in another way."""
    return Universe(seed, nodes=7, jobs=80, liars=2)


def fetching(seed: int) -> Universe:
    """Most nodes lack most models and fetch what a job names, which does not always work; holders come and go."""
    rng = random.Random(f"fetching {seed}")
    failures = rng.choice([0.0, 0.2, 0.6])
    return Universe(seed, nodes=6, jobs=25, fetches=True, fetch_failures=failures, cuts=6, crashes=rng.randint(0, 4))


def drawn(seed: int) -> Universe:
    """The universe of a seed: mostly several kinds of faults at once, sometimes one alone."""
    rng = random.Random(f"universe {seed}")
    world = Universe(seed, nodes=rng.randint(2, 7), jobs=rng.randint(10, 40))
    faults: dict[str, float | int] = {
        "cuts": rng.randint(1, 12),
        "partitions": rng.randint(1, 3),
        "crashes": rng.randint(1, 8),
        "liars": rng.randint(0, (world.nodes - 1) // 2),
        "garblers": rng.randint(0, 1),
        "run_failures": rng.uniform(0, 0.1),
        "queue_tasks_max": rng.randint(1, 8),
        "run_seconds_max": rng.choice([0.01, 1.0, 10.0, 50.0]),
        "delay_seconds_max": rng.choice([0.001, 0.1, 2.0]),
        "cancels": rng.uniform(0, 0.2),
        "repeats": rng.uniform(0, 0.5),
        "poison": rng.uniform(0, 0.2),
    }
    if rng.random() < 0.4:
        faults |= {"loss": rng.uniform(0, 0.1), "duplication": rng.uniform(0, 0.2), "reordering": rng.uniform(0, 0.3)}
    chosen = list(faults) if rng.random() < 0.5 else rng.sample(list(faults), rng.randint(1, 4))
    return replace(world, **{name: faults[name] for name in chosen})  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def key_of(index: int) -> SigningKey:
    """The key pair of a node."""
    return SigningKey.from_seed(sha256(b"node %d" % index).digest())
