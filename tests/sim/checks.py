"""What must be true while a simulated swarm runs, and when it has come to rest."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from dimnode.audit.verifier import verify
from dimnode.limits import Limits
from dimnode.records.codec import decode
from dimnode.records.envelope import Record, seal
from dimnode.records.ids import RecordId
from dimnode.records.kinds import check_schema, open_record
from dimnode.records.links import record_links
from dimnode.records.receipt import pack_receipt

from .journal import Broken
from .universe import EPOCH_SECONDS, key_of

if TYPE_CHECKING:
    from .node import Node
    from .world import World


_RECOVERY_SECONDS = 45.0  # a lease runs out in 30, a restarted owner is patient for 10


def check_bounds(node: "Node", limits: Limits) -> None:
    """Every structure of the engine is within its limit."""
    sizes = node.engine.sizes()
    tasks = limits.jobs.tasks_per_job_max * sizes["jobs"]
    most = {
        "jobs": limits.jobs.open_jobs_max,
        "job deadlines": sizes["jobs"],
        "leases": min(tasks, limits.jobs.lease_window_per_peer * len(node.world.nodes)),
        "waiting": tasks,
        "stranded": sizes["leases"],
        "lease deadlines": sizes["leases"],
        "works": limits.jobs.works_max,
        "report deadlines": sizes["works"],
        "keep deadlines": sizes["works"],
    }
    for name, size in sizes.items():
        if size > most[name]:
            raise Broken(f"{size} {name}, at most {most[name]} are possible")


def check_end(world: "World") -> None:
    """Faults are over and time has passed: every job has ended once, and nothing is left."""
    verdicts: Counter[bytes] = Counter()
    for node in world.nodes:
        for submission in node.submissions:
            if not submission.ended:
                raise Broken(f"submission {submission.number} of node {node.index} never ended")
        journal = node.journal
        if missing := [job for job in journal.nonces.values() if job not in journal.verdicts]:
            raise Broken(f"{len(missing)} jobs of node {node.index} have no verdict")
        verdicts.update(journal.verdicts.keys())
        _check_empty(node)
        for job, verdict in journal.verdicts.items():
            body = decode(journal.payloads[verdict.id])
            check_schema("verdict", body)
            if body["status"] == "expired" and world.universe.soon_well:
                _check_expired(world, decode(journal.payloads[job]))
            if body.get("code") == "E-consensus-01":
                _check_not_spoilt(world, node, job)
    if any(count > 1 for count in verdicts.values()):
        raise Broken("a job ended on two nodes")


def in_vain(world: "World", spec: dict[str, Any]) -> bool:
    """The job waits for peers that do not exist: sites that it could do without at first, replicas of barred liars."""
    if spec["tier"] == "quorum":
        honest = [node.advert.models for node in world.nodes if not node.liar]
        return any(sum(task["model"] in models for models in honest) < spec["quorum"]["k"] for task in spec["tasks"])
    if "cabinet" not in spec["tasks"][0]:
        return False
    sites = {node.peer for node in world.nodes if node.advert.cabinets}
    return len(spec["tasks"]) > len(sites) or not {task["peer"] for task in spec["tasks"] if "peer" in task} <= sites


def _check_expired(world: "World", spec: dict[str, Any]) -> None:
    """A job whose deadline comes long after the last fault has no reason to miss it: silence is noticed before."""
    due_seconds = (spec["at_ms"] + spec["deadline_ms"]) / 1000 - EPOCH_SECONDS
    if due_seconds > world.universe.fault_seconds + _RECOVERY_SECONDS and not in_vain(world, spec):
        raise Broken(f"a job expired {due_seconds - world.universe.fault_seconds:.0f} s after the last fault")


def _check_not_spoilt(world: "World", node: "Node", job: RecordId) -> None:
    """Answers did not fit together: then those of liars outweigh the honest ones, or these were too few."""
    spec = decode(node.journal.payloads[job])
    weights = spec["rule"].get("weights_permille", [1] * len(spec["tasks"]))
    liars = {other.peer for other in world.nodes if other.liar}
    told = {True: Counter[int](), False: Counter[int]()}
    for (owner, task), (_, answer) in node.journal.accepted.items():
        if owner == job:
            told[decode(node.journal.payloads[answer])["by"] in liars][task] += weights[task]
    honest, lies = told[False], told[True]
    if len(honest) >= spec.get("min_sites", len(spec["tasks"])) and honest.total() > lies.total():
        raise Broken(f"{len(lies)} liars ended a job for which {len(honest)} honest answers were enough")


def _check_empty(node: "Node") -> None:
    left = {name: size for name, size in node.engine.sizes().items() if size}
    if left:
        raise Broken(f"node {node.index} still holds {left}")
    if len(node.vault):
        raise Broken(f"node {node.index} still holds {len(node.vault)} records and blobs in memory")
    if inflight := sum(node.engine.roster.seat(other.peer).inflight for other in node.world.nodes):
        raise Broken(f"node {node.index} counts {inflight} leases in flight")
    if node.engine.due() is not None:
        raise Broken(f"node {node.index} waits for {node.engine.due()}")


def check_receipts(world: "World") -> Counter[str]:
    """The verifier finds nothing wrong with any verdict. Returns how many jobs ended in which way."""
    ends: Counter[str] = Counter()
    for node in world.nodes:
        for job, row in node.journal.verdicts.items():
            status = decode(node.journal.payloads[row.id])["status"]
            waited = status == "expired" and in_vain(world, decode(node.journal.payloads[job]))
            ends["waited in vain" if waited else status] += 1
            report = verify(_receipt(world, node, row.id))
            if report.status == 1:
                failed = [str(check) for check in report.checks if check.outcome == "fail"]
                raise Broken(f"seed {world.universe.seed}: the verifier refuses a verdict {status}: {failed}")
    return ends


def _receipt(world: "World", node: "Node", root: RecordId) -> bytes:
    """The receipt of a verdict, from its owner's journal alone."""
    keys = {other.peer: key_of(other.index) for other in world.nodes}
    journal = node.journal
    records: dict[RecordId, Record] = {}
    stack = [root]
    while stack:
        identity = stack.pop()
        if identity in records or identity not in journal.payloads:
            continue
        payload = journal.payloads[identity]
        value = decode(payload)
        records[identity] = open_record(seal(keys[value["by"]], value["kind"], payload), check_signature=False)
        stack += record_links(records[identity])
    rows = [journal.rows[identity] for identity in records if identity in journal.rows]
    openings = [opening for row in rows for opening in row.openings]
    return pack_receipt(root, records.values(), openings, list(journal.blobs.values()))
