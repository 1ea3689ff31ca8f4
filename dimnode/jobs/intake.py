"""Whether a spec makes sense, and whether this node takes the job.

Rule: a spec may come from a stranger and its schema promises little; whatever the engine will lean on is checked here,
once, before the job exists. Owner and executor ask the same questions. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any

from dimnode.consensus.agreement import check_comparator
from dimnode.consensus.selection import Need
from dimnode.consensus.tiers import check_quorum, check_tier
from dimnode.errors import PeerFault, Refused
from dimnode.jobs.events import Now
from dimnode.jobs.job import need_of, sites_of_others, walls_wanted
from dimnode.jobs.patterns import sites_needed
from dimnode.jobs.roster import Roster
from dimnode.limits import Limits
from dimnode.records.ids import PeerId, short
from dimnode.records.plan import replicas_per_step, sources_exist, step_sources

_METHODS = {
    "chained": ("first", "quorum"),
    "comparative": ("majority_vote", "weighted_vote"),
    "collaborative": ("sum_counts", "federated_average", "weighted_average"),
}
_WEIGHTED = ("weighted_vote", "weighted_average")


def spec_problem(spec: Mapping[str, Any], limits: Limits) -> str:
    """What contradicts itself in a spec that fits its schema; "" when nothing does."""
    steps, method = len(spec["tasks"]), spec["rule"]["method"]
    quorum, weights = spec.get("quorum"), spec["rule"].get("weights_permille")
    if method not in _METHODS[spec["pattern"]]:
        return f"rule {method} does not fit pattern {spec['pattern']}"
    if (spec["tier"] == "quorum") != (quorum is not None) or (quorum is not None) != (method == "quorum"):
        return "tier, quorum and rule do not fit each other"
    if quorum is not None and quorum["k"] > quorum["n"]:
        return "the quorum asks for more agreeing answers than replicas"
    if (weights is not None) != (method in _WEIGHTED) or (weights is not None and len(weights) != steps):
        return "there is not one weight for each task"
    pinned = [task["peer"] for task in spec["tasks"] if "peer" in task]
    if spec["pattern"] == "collaborative" and len(set(pinned)) < len(pinned):
        return "a site would contribute twice"
    if spec.get("min_sites", steps) > steps:
        return "min_sites is more than there are tasks"
    if steps * replicas_per_step(spec) > limits.jobs.tasks_per_job_max:
        return f"more than {limits.jobs.tasks_per_job_max} tasks, counting replicas of both rounds"
    if not sources_exist(spec):
        return "a step reads an output that does not exist before it"
    if problem := _steps_problem(spec):
        return problem
    if "comparator" in spec:
        try:
            check_comparator(spec["comparator"])
        except PeerFault as fault:
            return fault.rule
    return ""


def _steps_problem(spec: Mapping[str, Any]) -> str:
    """A step that no executor could carry out. What its model takes is not asked here: manifests say that."""
    for step, task in enumerate(spec["tasks"]):
        op, on_cabinet = task["op"], "cabinet" in task
        if op != "statistics" and "model" not in task:
            return f"a task with op {op} names no model"
        if not on_cabinet and (op != "infer" or spec["pattern"] == "collaborative"):
            return f"a task with op {op} names no cabinet"
        if not on_cabinet and not step_sources(spec, step):
            return "a step has nothing to read"
        if len({row[0] for row in task.get("take", ())}) < len(task.get("take", ())):
            return "an input of a model is taken twice"
    return ""


def consider(spec: Mapping[str, Any], open_jobs: int, roster: Roster, limits: Limits, now: Now) -> None:
    """Raises `Refused` when this node will not take the job: it is full, the spec is wrong, or nobody could run it."""
    if open_jobs >= limits.jobs.open_jobs_max:
        raise Refused("E-jobs-01", "too many open jobs on this node", hint="try again later", retry_after_ms=1000)
    check_tier(spec["tier"])
    if problem := spec_problem(spec, limits):
        raise Refused("E-jobs-02", "the job contradicts itself", problem, "dim job validate FILE")
    if spec["deadline_ms"] > limits.jobs.deadline_ms_max:
        hint = f"ask for at most {limits.jobs.deadline_ms_max} ms"
        raise Refused("E-jobs-09", f"a deadline of {spec['deadline_ms']} ms is too far away", hint=hint)
    if spec["tier"] == "quorum":
        _check_replicas(spec, roster, now)
    else:
        _check_steps(spec, roster, now)


def _check_replicas(spec: Mapping[str, Any], roster: Roster, now: Now) -> None:
    wanted = check_quorum(spec["quorum"]["n"], spec["quorum"]["k"]).n
    for step, template in enumerate(spec["tasks"], 1):
        usable = roster.usable(need_of(template, walls=walls_wanted(spec)), now)
        if usable < wanted:
            what = f"too few peers: quorum needs {wanted}, {usable} can take step {step}"
            cause = "peers are offline, drained, barred or lack the model or its runtime"
            raise Refused("E-jobs-03", what, cause, "dim peers")


def _check_steps(spec: Mapping[str, Any], roster: Roster, now: Now) -> None:
    """A peer that is known but away is waited for, until the deadline."""
    sites = spec["pattern"] == "collaborative"
    steps_of: dict[Need, list[int]] = {}
    walls = walls_wanted(spec)
    for step, template in enumerate(spec["tasks"]):
        others = frozenset(sites_of_others(spec, template)) if sites else frozenset()
        steps_of.setdefault(need_of(template, others, walls), []).append(step)
    lacking: list[int] = []
    for need, steps in steps_of.items():
        wanted = len(steps) if sites else 1  # each site contributes once
        if roster.usable(need, now) < wanted:
            _, trusted = roster.offered(need, now)
            lacking += steps[trusted:] if sites else [] if trusted else steps
    spare = 0 if spec["pattern"] == "chained" else len(spec["tasks"]) - sites_needed(spec)
    if len(lacking) > spare:
        raise _nobody(spec, min(lacking), roster, now)


def _nobody(spec: Mapping[str, Any], step: int, roster: Roster, now: Now) -> Refused:
    template, number = spec["tasks"][step], step + 1
    anywhere, need = need_of(template), need_of(template, walls=walls_wanted(spec))
    able, trusted = roster.offered(need, now)
    if not able and roster.offered(anywhere, now)[0]:
        what = f"no peer that could take step {number} has the sandbox that the job insists on"
        return Refused(
            "E-jobs-14", what, f"it asks for {', '.join(sorted(need.walls))}", "dim peers, then there: dim doctor"
        )
    if able and not trusted:
        cause = "each gave an answer that was shown to be wrong"
        return Refused(
            "E-jobs-10", f"every peer that could take step {number} is barred", cause, "dim rep explain PEER"
        )
    if able:
        cause = f"{able} can, and each contributes once"
        return Refused("E-jobs-04", f"no further peer offers what step {number} needs", cause, "dim peers")
    word, somewhere = roster.missing(anywhere)
    if word:
        return (
            _named_lacks(word, number, template["peer"]) if "peer" in template else _no_runtime(word, number, somewhere)
        )
    if resting := roster.resting(anywhere):
        return _drained(number, roster.me in resting)
    cabinet = template.get("cabinet")
    cause = f"no peer holds the cabinet {cabinet!r}" if cabinet else "no peer heard so far has this model"
    if "peer" in template:
        cause = "the peer that it names has not been heard of, or does not offer it"
    hint = "dim peers" if cabinet else "dim models ls"
    return Refused("E-jobs-04", f"no peer offers what step {number} needs", cause, hint)


def _drained(number: int, own: bool) -> Refused:
    what = f"nobody takes step {number} now"
    if own:
        return Refused("E-jobs-04", what, "this node has the model, and is drained", "dim drain --off")
    cause = "who has the model takes no work: it is drained, or executes nothing"
    return Refused("E-jobs-04", what, cause, "there: dim drain --off")


def _named_lacks(word: str, number: int, peer: PeerId) -> Refused:
    what = f"…{short(peer)}, which the job names for step {number}, lacks {word}"
    cause = f"it has the model, and was installed without {word}, or cannot use it (there: dim doctor)"
    return Refused("E-jobs-13", what, cause, f"name no peer, or there: pip install 'dimnode[{word}]', then restart it")


def _no_runtime(word: str, number: int, somewhere: bool) -> Refused:
    """`word` is a format, or an extra that the model's transforms need: either is an extra of the package."""
    if somewhere:
        what, cause = f"no peer with the model of step {number} has {word}", f"others run {word} and lack the model"
        return Refused("E-jobs-13", what, cause, "on one of them: dim models pull")
    what = f"no peer in the swarm runs {word}, which step {number} needs"
    cause = f"those that have the model were installed without {word}, or cannot use it (there: dim doctor)"
    return Refused("E-jobs-13", what, cause, f"pip install 'dimnode[{word}]' on one of them, then restart it")
