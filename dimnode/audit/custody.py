"""Who gave what to whom: spec, leases, answers and rulings fit each other.

Rule: each function yields one sentence per problem it finds, and nothing when all is well; it believes no clock.
Pure: no I/O, no clock.
"""

from collections.abc import Iterator

from dimnode.audit.case import Case
from dimnode.audit.findings import Findings
from dimnode.limits import LIMITS
from dimnode.records.envelope import Record
from dimnode.records.plan import sources_exist

METHODS_OF = {
    "chained": ("first", "quorum"),
    "comparative": ("majority_vote", "weighted_vote"),
    "collaborative": ("sum_counts", "federated_average", "weighted_average"),
}


def check_custody(case: Case, findings: Findings) -> None:
    """Leases, answers, rulings, models and parents of a verdict whose spec is sound."""
    for lease in case.leases:
        findings.judge("R-LEASE", case.place(lease), lease_problems(case, lease))
    for answer in case.answers:
        findings.judge("R-LEASE", case.place(answer), answer_problems(case, answer))
    for ruling in case.rulings:
        findings.judge("R-RULING", case.place(ruling), ruling_problems(case, ruling))
    findings.judge("R-RULING", "file", cabinet_problems(case))
    findings.judge("R-EPOCH", "file", epoch_problems(case))
    check_models(case, findings)
    findings.judge("R-PARENTS", "file", parent_problems(case))


def net_problems(case: Case) -> Iterator[str]:
    """All records name the root's swarm."""
    net = case.root.payload["net"]
    for record in case.receipt.records.values():
        if record.payload.get("net") != net:
            yield f"{case.place(record)} belongs to another swarm"


def spec_problems(case: Case) -> Iterator[str]:
    """The spec is there, is the verdict's job, and can be carried out."""
    if case.spec is None:
        yield "the verdict's first parent is not a spec that is here"
        return
    spec = case.terms
    if case.root.payload["job"] != case.spec.id:
        yield "the verdict is about another job"
    if not sources_exist(spec):
        yield "a step reads what does not exist"
    method, quorum = spec["rule"]["method"], spec.get("quorum")
    if method not in METHODS_OF[spec["pattern"]]:
        yield f"rule {method} does not fit pattern {spec['pattern']}"
    if (spec["tier"] == "quorum") != (quorum is not None) or (spec["tier"] == "quorum") != (method == "quorum"):
        yield "tier, quorum and rule do not fit each other"
    elif quorum is not None and quorum["k"] > quorum["n"]:
        yield "the quorum asks for more agreeing answers than replicas"
    elif quorum is not None and (quorum["k"] < 2 or 2 * quorum["k"] <= quorum["n"]):
        yield "the quorum is no majority of at least two"
    elif len(spec["tasks"]) * case.replicas > LIMITS.jobs.tasks_per_job_max:
        yield f"more than {LIMITS.jobs.tasks_per_job_max} tasks, counting replicas of both rounds"
    weights = spec["rule"].get("weights_permille")
    if (weights is not None) != (method in ("weighted_vote", "weighted_average")):
        yield "weights and rule do not fit each other"
    elif weights is not None and len(weights) != len(spec["tasks"]):
        yield "not one weight for each step"


def lease_problems(case: Case, lease: Record) -> Iterator[str]:
    """Signed by the owner, for this job, a step of it, the peer that the spec pins, and the step's inputs."""
    payload, spec = lease.payload, case.terms
    if lease.by != case.root.by:
        yield "the lease is not signed by the owner"
    if payload["job"] != case.root.payload["job"]:  # which R-SPEC found to be the spec
        yield "the lease is of another job"
    step = case.step(lease)
    if step >= len(spec["tasks"]):
        yield "the lease is for a task that the spec does not have"
        return
    if spec["tasks"][step].get("peer", payload["executor"]) != payload["executor"]:
        yield "the spec names another peer for this step"
    wanted = case.step_inputs(step)
    if wanted is None:
        yield "the lease reads a step that has no accepted answer"
    elif payload["inputs"] != wanted:
        yield "the lease's inputs are not those of its step"


def answer_problems(case: Case, answer: Record) -> Iterator[str]:
    """Given by the executor of its lease, for the same job, task, epoch and inputs, under permissions of its own."""
    payload = answer.payload
    lease = _first_parent(case, answer)
    if lease is None:
        yield "the answer's first parent is not a lease that is here"
        return
    if answer.by != lease.payload["executor"]:
        yield "the answer is not signed by the lease's executor"
    for key in ("job", "task", "epoch", "inputs"):
        if payload[key] != lease.payload[key]:
            yield f"the answer's {key} is not that of its lease"
    for ruling in map(case.find, payload["parents"][1:]):
        if ruling is None or ruling.kind != "ruling" or not ruling.payload["allowed"]:
            yield "a further parent of the answer is not a permission"
        elif ruling.payload["parents"][:1] != [lease.id]:
            yield "a permission of the answer is about another lease"


def ruling_problems(case: Case, ruling: Record) -> Iterator[str]:
    """Made by the executor of its lease, under a policy for the same cabinet that the same peer signed.

    A refusal may stand without a policy: default deny needs none.
    """
    payload = ruling.payload
    lease = _first_parent(case, ruling)
    policies = [*map(case.find, payload["parents"][1:])]
    if lease is None or len(policies) > 1 or (payload["allowed"] and not policies):
        yield "the ruling's parents are not a lease and a policy"
        return
    if ruling.by != lease.payload["executor"]:
        yield "the ruling is not signed by the lease's executor"
    for key in ("job", "task", "epoch"):
        if payload[key] != lease.payload[key]:
            yield f"the ruling's {key} is not that of its lease"
    for policy in policies:
        if policy is None or policy.kind != "policy":
            yield "the ruling's second parent is not a policy that is here"
        elif policy.by != ruling.by or policy.payload["cabinet"] != payload["cabinet"]:
            yield "the policy is not the executor's own for this cabinet"


def cabinet_problems(case: Case) -> Iterator[str]:
    """A step that names a cabinet is answered under a permission for that cabinet, and only for that one."""
    for answer in case.good_answers():
        wanted = case.terms["tasks"][case.step(answer)].get("cabinet")
        permissions = answer.payload["parents"][1:]
        if wanted is None and not permissions:
            continue
        rulings = [found for found in map(case.find, permissions) if found is not None and found.kind == "ruling"]
        if {ruling.payload["cabinet"] for ruling in rulings} != ({wanted} if wanted is not None else set()):
            yield f"{case.place(answer)} has no permission for exactly the cabinet of its step"


def epoch_problems(case: Case) -> Iterator[str]:
    """One lease for each task and epoch; an answer that counts was given under the newest of its task."""
    leased = set()
    for lease in case.leases:
        turn = lease.payload["task"], lease.payload["epoch"]
        if turn in leased:
            yield f"task {turn[0]} has several leases of epoch {turn[1]}"
        leased.add(turn)
    for answer in case.answers:
        if answer.id in case.counted and answer.payload["epoch"] < case.newest.get(answer.payload["task"], 0):
            yield f"{case.place(answer)} counts, but a newer lease of its task is here"


def check_models(case: Case, findings: Findings) -> None:
    """Each answer names the model of its step; a manifest that is not here leaves that unexplained."""
    findings.judge("R-MODEL", "file", model_problems(case))
    for model in dict.fromkeys(task["model"] for task in case.terms["tasks"] if "model" in task):
        manifest = case.find(model)
        if manifest is None:
            findings.skip("R-MODEL", "spec", "the manifest of a model is not here")
        elif manifest.kind != "manifest":
            findings.judge("R-MODEL", case.place(manifest), ["the spec takes this record for a model"])


def model_problems(case: Case) -> Iterator[str]:
    """An answer to a step names the step's model, or none where the step names none."""
    tasks = case.terms["tasks"]
    for answer in case.answers:
        step = case.step(answer)
        if step < len(tasks) and answer.payload.get("model") != tasks[step].get("model"):
            yield f"{case.place(answer)} names another model than its step"


def parent_problems(case: Case) -> Iterator[str]:
    """Every parent is here; the verdict's parents are the spec, then answers and rulings, each once.

    A cycle cannot be: an id is the hash of a payload that contains its parents' ids.
    """
    records = case.receipt.records
    for identity, links in case.receipt.links.items():
        for link in links:
            if link not in records and records[identity].kind != "spec":
                yield f"{case.place(records[identity])} names a record that is not here"
                break
    verdict = case.root.payload
    parents = verdict["parents"]
    for parent in map(case.find, parents[1:]):
        if parent is not None and parent.kind not in ("answer", "ruling"):
            yield "the verdict's further parents are not answers and rulings"
            break
    if len(set(parents)) != len(parents):
        yield "the verdict names a parent twice"
    if not verdict.get("abandoned"):
        return
    answered = {name for answer in case.answers if answer.id in case.counted for name in answer.payload["parents"][:1]}
    for identity in verdict["abandoned"]:
        lease = case.find(identity)
        if lease is None or lease.kind != "lease":
            yield "the verdict abandons what is not a lease"
        elif identity in answered:
            yield "the verdict abandons a lease whose answer it counts"


def _first_parent(case: Case, record: Record) -> Record | None:
    """The lease that an answer or ruling stands on."""
    parents = record.payload["parents"]
    found = case.find(parents[0]) if parents else None
    return found if found is not None and found.kind == "lease" else None
