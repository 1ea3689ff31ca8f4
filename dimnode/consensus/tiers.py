"""Tiers of verification: their names, which exist now, what they cost and what they do not catch.

Rule: cost and residual error are quoted before a job runs, in words and whole numbers that its record can hold; a tier
that does not exist yet is refused by name, never replaced silently by a weaker one.
Pure: no I/O, no clock.
"""

from dataclasses import dataclass
from math import comb
from typing import Final

from dimnode.errors import Refused
from dimnode.limits import LIMITS

TIERS: Final = ("signed", "spot", "quorum", "fingerprint", "referee")
EXISTING_TIERS: Final = frozenset({"signed", "quorum"})

E_NO_SUCH_TIER: Final = "E-tier-01"
E_QUORUM_SHAPE: Final = "E-tier-02"

_EXAMPLE_COLLUDERS_PERMILLE = 200


@dataclass(frozen=True, slots=True)
class Quorum:
    """k of n executors must agree."""

    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What a tier costs, as a factor of one run, and what may still be wrong, in words."""

    tier: str
    cost_permille: int
    residual: str


def check_tier(tier: str) -> str:
    """The tier, if it can be had. Raises `Refused` E-tier-01."""
    if tier in EXISTING_TIERS:
        return tier
    here = ", ".join(known for known in TIERS if known in EXISTING_TIERS)
    cause = "it is planned, not built" if tier in TIERS else f"the tiers are {here}"
    hint = f"use one of {here}; `quorum` catches a minority that lies"
    raise Refused(E_NO_SUCH_TIER, f"there is no tier {tier!r} in this version", cause=cause, hint=hint)


def check_quorum(n: int, k: int) -> Quorum:
    """k of n with 1 < k <= n <= 7 and k > n/2, so that two different answers never win both. Raises E-tier-02."""
    most = LIMITS.consensus.quorum_replicas_max
    if n > most:
        problem = f"at most {most} executors run one task"
    elif not 1 < k <= n:
        problem = "k has to be at least 2 and at most n"
    elif 2 * k <= n:
        problem = "k has to be more than half of n, or two different answers could both win"
    else:
        return Quorum(n, k)
    raise Refused(
        E_QUORUM_SHAPE, f"a quorum of {k} of {n} is not possible", cause=problem, hint="the usual one is 2 of 3"
    )


def quote(tier: str, quorum: Quorum | None = None) -> Quote:
    """Cost and residual error of a tier; `quorum` is required for that tier. Raises `Refused` for other tiers.

    The cost of a quorum is its first round; a split costs one more round at most, which nobody knows beforehand.
    """
    check_tier(tier)
    if tier == "signed":
        return Quote(tier, 1000, "says who answered what; one executor that answers wrongly is not caught")
    assert quorum is not None, "a quorum is quoted with its n and k"
    n, k = quorum.n, quorum.k
    share_percent = _EXAMPLE_COLLUDERS_PERMILLE // 10
    won_percent = collusion_ppm(n, k, _EXAMPLE_COLLUDERS_PERMILLE) // 1000 / 10
    residual = (
        f"{k} of {n} executors that give the same wrong answer are not caught; "
        f"if {share_percent} % of all peers colluded, they would win {won_percent} % of tasks"
    )
    return Quote(tier, 1000 * n, residual)


def collusion_ppm(n: int, k: int, colluders_permille: int) -> int:
    """Of a million tasks, how many get k or more of n executors from one colluding group of this share of all peers.

    Binomial tail, executors drawn independently: sum over i >= k of C(n, i) p^i (1 - p)^(n - i), in exact integers,
    rounded down. For 2 of 3 it is p²(3 - 2p).
    """
    honest_permille = 1000 - colluders_permille
    tail: int = sum(comb(n, i) * colluders_permille**i * honest_permille ** (n - i) for i in range(k, n + 1))
    whole: int = 1000**n
    return tail * 1_000_000 // whole
