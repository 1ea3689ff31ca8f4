"""Which peer gets a task.

Rule: a barred peer gets nothing, not even a task pinned to it. Of the rest, the best standing times free capacity
(posterior mean / (1 + tasks in flight)) is chosen among those that hold the model, else among those that would fetch
it; ties go to the fewest in flight, then to chance. Once three
established peers can take the task, all newcomers together get one lane of at most a tenth of the choices: enough to
prove themselves, and as little for a thousand invented peers as for one (the hole of a fixed slot per newcomer:
EigenTrust, Kamvar et al. 2003).
Pure: no I/O, no clock; chance is an argument. One pass over the candidates: it runs for every task.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dimnode.limits import LIMITS

_WHOLE_CHOICE_PERMILLE = 1000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that might run the task. `offers` holds model ids (bytes) and cabinet names (str), from its advert.

    `free_slots` is the peer's own last word, `inflight` this node's count of leases open with it. `fetches`: it does
    not offer the model, but would fetch it.
    """

    peer: bytes
    free_slots: int
    inflight: int
    offers: frozenset[bytes | str]
    fetches: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What the task asks of a peer. An empty `model` or `cabinet` asks for none.

    `exclude` keeps replicas of one task apart, and a task away from a peer that failed it. `walls` are layers of the
    sandbox that the job insists on.
    """

    model: bytes
    operation: str
    cabinet: str = ""
    pinned: bytes | None = None
    exclude: frozenset[bytes] = frozenset()
    walls: frozenset[str] = frozenset()


@dataclass(slots=True)
class NewcomerLane:
    """Credit of all newcomers together, in permille of a choice; keep one per node.

    Each choice in which newcomers stand beside three established peers adds the share; a newcomer costs a whole choice.
    So after n such choices at most n * share / 1000 went to newcomers, and no credit is saved up while there are none.
    """

    share_permille: int = LIMITS.standing.newcomer_share_permille
    credit_permille: int = 0

    def newcomers_turn(self) -> bool:
        """Count one choice. True when it goes to a newcomer."""
        self.credit_permille += self.share_permille
        turn = self.credit_permille >= _WHOLE_CHOICE_PERMILLE
        if turn:
            self.credit_permille -= _WHOLE_CHOICE_PERMILLE
        return turn


def choose(
    candidates: Sequence[Candidate],
    need: Need,
    *,
    standing_mean: Callable[[bytes], float],
    barred: Callable[[bytes], bool],
    newcomer: Callable[[bytes], bool],
    lane: NewcomerLane,
    rng: random.Random,
    window: int = LIMITS.jobs.lease_window_per_peer,
) -> bytes | None:
    """The peer for this task, or None when nobody can take it now.

    The three callbacks judge a peer in the context of the task. `window` is how many leases a peer may hold at once.
    A peer with no free slot is chosen only when none has one: it has a queue. Beside three established peers, the best
    newcomer is chosen when it is the newcomers' turn, and none when it is not (a newcomer's answer has to be checked).
    `lane` is changed by the call.
    """
    able = _able(candidates, need, window, barred)
    able = [candidate for candidate in able if not candidate.fetches] or able  # who holds the model goes first
    if len(able) > LIMITS.standing.established_peers_min and need.pinned is None:
        able = _lane_or_established(able, newcomer, lane)
    if len(able) <= 1:
        return able[0].peer if able else None
    # After the lane, never before it: free slots are a claim, and must not open the lane wider to whoever makes it.
    return _best([c for c in able if c.free_slots > 0] or able, standing_mean, rng)


def _able(candidates: Sequence[Candidate], need: Need, window: int, barred: Callable[[bytes], bool]) -> list[Candidate]:
    """The candidates that may be given the task. Written as one loop, because a call for each would double its cost."""
    model, cabinet = need.model, need.cabinet
    pinned, exclude = need.pinned, need.exclude
    able = []
    for candidate in candidates:
        peer, offers = candidate.peer, candidate.offers
        if candidate.inflight >= window or peer in exclude:
            continue
        if (model and model not in offers and not candidate.fetches) or (cabinet and cabinet not in offers):
            continue
        if (pinned is not None and peer != pinned) or barred(peer):
            continue
        able.append(candidate)
    return able


def _lane_or_established(
    able: list[Candidate], newcomer: Callable[[bytes], bool], lane: NewcomerLane
) -> list[Candidate]:
    new: list[Candidate] = []
    established: list[Candidate] = []
    for candidate in able:
        (new if newcomer(candidate.peer) else established).append(candidate)
    if not new or len(established) < LIMITS.standing.established_peers_min:
        return able
    return new if lane.newcomers_turn() else established


def _best(able: Sequence[Candidate], standing_mean: Callable[[bytes], float], rng: random.Random) -> bytes:
    best_score, best_inflight = -1.0, 0
    tied: list[bytes] = []
    for candidate in able:
        peer, inflight = candidate.peer, candidate.inflight
        score = standing_mean(peer) / (1 + inflight)
        if score < best_score:
            continue
        if score > best_score or inflight < best_inflight:
            best_score, best_inflight, tied = score, inflight, [peer]
        elif inflight == best_inflight:
            tied.append(peer)
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]
